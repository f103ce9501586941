//! Sets the commit and the target of the build, and the hashes of the status page's style and
//! script.

use std::process::Command;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest as _, Sha256};

fn main() {
    page_hashes();
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned()).filter(|text| !text.is_empty())
    };
    // Without git, or outside a clone, the commit comes from the environment of the build.
    let commit = std::env::var("BUILD_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = commit.or_else(|| git(&["rev-parse", "--short=10", "HEAD"])).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=BUILD_COMMIT={commit}");
    println!("cargo::rustc-env=BUILD_TARGET={}", std::env::var("TARGET").unwrap_or_default());
    println!("cargo::rerun-if-env-changed=BUILD_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|log| std::path::Path::new(log).exists()) {
        println!("cargo::rerun-if-changed={log}");
    }
}

/// A browser runs the style and the script with these hashes, and no others.
fn page_hashes() {
    let page = include_str!("src/status.html");
    for (name, tag) in [("PAGE_STYLE", "style"), ("PAGE_SCRIPT", "script")] {
        let text = page.split_once(&format!("<{tag}>")).and_then(|(_, rest)| rest.split_once(&format!("</{tag}>")));
        let hash = Sha256::digest(text.map_or("", |(text, _)| text));
        println!("cargo::rustc-env={name}={}", BASE64_STANDARD.encode(hash));
    }
    println!("cargo::rerun-if-changed=src/status.html");
}
