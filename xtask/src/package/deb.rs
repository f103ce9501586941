//! The Debian package.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::tree::Tree;
use super::{VERSION, said};
use crate::{During as _, Result};

/// After it was unpacked: the user, and the new programs for instances that run. No instance is
/// enabled: each needs a file in `/etc/line-stream` first.
const POSTINST: &str = r#"#!/bin/sh
set -e
[ "$1" = configure ] || exit 0
if command -v systemd-sysusers >/dev/null; then
    systemd-sysusers line-stream.conf
elif ! getent passwd line-stream >/dev/null; then
    useradd --system --home-dir /var/lib/line-stream --shell /usr/sbin/nologin line-stream
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl try-restart 'line-stream-reader@*.service' 'line-stream-writer@*.service'
fi
"#;

/// Before it is removed: the writer acknowledges what it has written, and ends.
const PRERM: &str = r#"#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
    systemctl stop 'line-stream-reader@*.service' 'line-stream-writer@*.service'
fi
"#;

/// State, outputs, configuration and user stay; a purge removes what enabled the instances.
const POSTRM: &str = r#"#!/bin/sh
set -e
if [ "$1" = purge ]; then
    rm -f /etc/systemd/system/*.wants/line-stream-reader@*.service /etc/systemd/system/*.wants/line-stream-writer@*.service
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi
"#;

/// Builds the package of these files.
pub(super) fn build(tree: &Tree, to: &Path) -> Result<PathBuf> {
    let architecture = said(Command::new("dpkg").arg("--print-architecture"))?;
    let architecture = architecture.trim();
    let mut libc = None;
    for program in tree.programs() {
        libc = libc.max(newest_libc(&said(Command::new("objdump").arg("-T").arg(program))?));
    }
    let libc = libc.map_or_else(|| "libc6".to_owned(), |(major, minor)| format!("libc6 (>= {major}.{minor})"));
    let size = said(Command::new("du").args(["--summarize", "--block-size=1024"]).arg(&tree.root))?;
    let size = size.split_whitespace().next().unwrap_or("0");
    let control = format!(
        "Package: line-stream\nVersion: {VERSION}\nArchitecture: {architecture}\nMaintainer: The line-stream developers <line-stream@localhost>\n\
         Section: net\nPriority: optional\nInstalled-Size: {size}\nDepends: {libc}\nRecommends: systemd\nSuggests: redis-server\n\
         Description: moves lines from a file through a Redis Stream into a file, each exactly once\n \
         A reader follows a file and adds its lines to a Redis Stream; a writer appends them to a file.\n"
    );
    tree.place("DEBIAN/control", control.as_bytes(), 0o644)?;
    for (name, script) in [("postinst", POSTINST), ("prerm", PRERM), ("postrm", POSTRM)] {
        tree.place(&format!("DEBIAN/{name}"), script.as_bytes(), 0o755)?;
    }
    // Where instances are configured.
    let configuration = tree.root.join("etc/line-stream");
    std::fs::create_dir_all(&configuration).during(|| format!("making {}", configuration.display()))?;
    let package = to.join(format!("line-stream_{VERSION}_{architecture}.deb"));
    said(Command::new("dpkg-deb").args(["-Zgzip", "--root-owner-group", "--build"]).arg(&tree.root).arg(&package))?;
    Ok(package)
}

/// The newest version of the C library that a program needs a symbol of, from `objdump -T`.
fn newest_libc(symbols: &str) -> Option<(u32, u32)> {
    let versions = symbols.split("GLIBC_").skip(1);
    let versions = versions.filter_map(|rest| {
        let version = rest.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
        let mut numbers = version.split('.').map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    });
    versions.max()
}

#[cfg(test)]
mod tests {
    use super::newest_libc;

    #[test]
    fn the_newest_symbol_decides() {
        let symbols = "0000 DF *UND* 0000 (GLIBC_2.2.5) write\n0000 DF *UND* 0000 (GLIBC_2.34) pthread_create\n0000 DF *UND* (GLIBC_2.9) x\n";
        assert_eq!(newest_libc(symbols), Some((2, 34)));
        assert_eq!(newest_libc("no symbols"), None);
    }
}
