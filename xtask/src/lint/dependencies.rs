//! Checks that every dependency is used: some source of the package must name the crate.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use toml::{Table, Value};

use super::{Finding, walk};
use crate::{During, Result};

/// The unused dependencies of all packages and of the workspace.
pub(crate) fn check(root: &Path) -> Result<Vec<Finding>> {
    let workspace = read(&root.join("Cargo.toml"))?;
    let workspace = workspace.get("workspace").and_then(Value::as_table).cloned().unwrap_or_default();
    let members = workspace.get("members").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let (mut findings, mut named) = (Vec::new(), BTreeSet::new());
    for member in members {
        let manifest = read(&root.join(member).join("Cargo.toml"))?;
        let words = words(&root.join(member))?;
        let own = manifest.get("package").and_then(|package| package.get("name")).and_then(Value::as_str);
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let names = manifest.get(kind).and_then(Value::as_table).into_iter().flat_map(Table::keys);
            for name in names {
                named.insert(name.clone());
                // A package may depend on itself to enable a feature for its tests.
                if Some(name.as_str()) != own && !words.contains(&name.replace('-', "_")) {
                    findings.push(Finding {
                        place: format!("{member}/Cargo.toml"),
                        what: format!("no source uses the dependency {name}: remove it"),
                    });
                }
            }
        }
    }
    let common = workspace.get("dependencies").and_then(Value::as_table).into_iter().flat_map(Table::keys);
    for name in common.filter(|name| !named.contains(*name)) {
        findings.push(Finding {
            place: "Cargo.toml".to_owned(),
            what: format!("no package uses the dependency {name}: remove it"),
        });
    }
    Ok(findings)
}

fn read(path: &Path) -> Result<Table> {
    let text = fs::read_to_string(path).during(|| format!("read {}", path.display()))?;
    text.parse().during(|| path.display().to_string())
}

/// The words in a package's sources that may be names of crates.
fn words(package: &Path) -> Result<BTreeSet<String>> {
    let mut words = BTreeSet::new();
    let sources = walk(package)?.into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "rs"));
    for path in sources {
        let path = package.join(path);
        let text = fs::read_to_string(&path).during(|| format!("read {}", path.display()))?;
        words.extend(crates(&text).map(str::to_owned));
    }
    Ok(words)
}

/// The words before `::`, and those after `use`, `crate` and `as`.
fn crates(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(|line| {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let paths = line.match_indices("::").filter_map(move |(at, _)| {
            let before = line.get(..at)?;
            before.get(before.trim_end_matches(is_word).len()..)
        });
        let used = line.trim_start().trim_start_matches("pub ").strip_prefix("use ").into_iter();
        paths.chain(used.filter_map(move |rest| rest.split(|c| !is_word(c)).next()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_are_named_in_paths_and_imports() {
        let text =
            "use bytes;\npub use tokio_util::codec;\n// serde::Serialize\nlet x = memchr::memchr(1, &[log::max()]);";
        let found: BTreeSet<&str> = crates(text).collect();
        assert_eq!(found, BTreeSet::from(["bytes", "tokio_util", "memchr", "log"]));
    }

    #[test]
    fn an_unused_dependency_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("one/src")).unwrap();
        fs::write(root.join("Cargo.toml"), "[workspace]\nmembers = [\"one\"]\n[workspace.dependencies]\nlog = \"1\"\n")
            .unwrap();
        fs::write(root.join("one/Cargo.toml"), "[dependencies]\nab-c = \"1\"\nd = \"1\"\n").unwrap();
        fs::write(root.join("one/src/lib.rs"), "use ab_c::X;\n").unwrap();
        let found: Vec<String> = check(root).unwrap().into_iter().map(|finding| finding.what).collect();
        assert_eq!(
            found,
            ["no source uses the dependency d: remove it", "no package uses the dependency log: remove it"]
        );
    }
}
