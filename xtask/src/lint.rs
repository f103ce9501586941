//! Automated checks of the project's conventions, in addition to rustfmt and clippy.
//!
//! | file | checks |
//! |---|---|
//! | `lint/width.rs` | comments and Markdown are wrapped at 100 columns; `--fix` wraps them |
//! | `lint/markdown.rs` | finds and fills paragraphs |
//! | `lint/rust.rs` | finds comments in Rust code |
//! | `lint/phrases.rs` | phrases with a plainer replacement |
//! | `lint/commits.rs` | subjects and bodies of the commits since a base |
//! | `lint/dependencies.rs` | every dependency is used |
//!
//! The list of phrases and the base of the commits are in `xtask/lint.toml`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use serde::Deserialize;

use crate::{During, Error, Result, cargo};

mod commits;
mod dependencies;
mod markdown;
mod phrases;
mod rust;
mod width;

#[derive(Args)]
pub(crate) struct LintArgs {
    /// Wrap comments and Markdown at 100 columns instead of reporting them
    #[arg(long)]
    fix: bool,

    /// Check the commits after this one (default: `commits_after` in xtask/lint.toml)
    #[arg(long, value_name = "REVISION")]
    since: Option<String>,

    /// Check only these files and folders, not commits and dependencies
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
}

/// `xtask/lint.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    /// The last commit that is not checked.
    commits_after: String,
    /// Generated files, whose lines are not wrapped.
    generated: Vec<PathBuf>,
    /// Phrases, each with its replacement.
    phrases: BTreeMap<String, String>,
    /// Phrases, each with the files and folders that still contain it.
    #[serde(default)]
    pending: BTreeMap<String, Vec<PathBuf>>,
}

/// A finding to fix.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    /// The file and line, or the commit.
    place: String,
    what: String,
}

impl Finding {
    fn at(path: &Path, line: usize, what: impl Into<String>) -> Self {
        Self { place: format!("{}:{line}", path.display()), what: what.into() }
    }
}

/// A file of the repository and its text.
struct Source {
    /// The path from the repository's root.
    path: PathBuf,
    text: String,
}

pub(crate) fn run(args: &LintArgs) -> Result<()> {
    let root = cargo::workspace()?;
    let rules = fs::read_to_string(root.join("xtask/lint.toml")).during(|| "read xtask/lint.toml".to_owned())?;
    let rules: Rules = toml::from_str(&rules).during(|| "xtask/lint.toml".to_owned())?;
    let mut findings = Vec::new();
    let mut wrapped = 0;
    for source in sources(&root, &args.paths)? {
        if !rules.generated.contains(&source.path) {
            let (text, long) = width::wrapped(&source);
            if args.fix && text != source.text {
                let path = root.join(&source.path);
                fs::write(&path, text).during(|| format!("write {}", path.display()))?;
                wrapped += 1;
            } else {
                findings.extend(long);
            }
        }
        findings.extend(phrases::check(&source, &rules.phrases, &rules.pending));
    }
    if args.paths.is_empty() {
        findings.extend(dependencies::check(&root)?);
        match commits::check(&root, args.since.as_deref().unwrap_or(&rules.commits_after))? {
            Some(found) => findings.extend(found),
            None => eprintln!("xtask: left out: commits: their base is not in this repository"),
        }
    }
    if wrapped > 0 {
        println!("wrapped {wrapped} files");
    }
    for Finding { place, what } in &findings {
        println!("{place}: {what}");
    }
    match findings.len() {
        0 => Ok(()),
        count => Err(Error::new(format!("{count} findings, listed above"))),
    }
}

/// The Rust and Markdown files that git tracks or would add; without git, those in the workspace's
/// folder.
fn sources(root: &Path, paths: &[PathBuf]) -> Result<Vec<Source>> {
    let paths = paths.iter().map(|path| std::path::absolute(path).during(|| format!("{}", path.display())));
    let paths = paths.collect::<Result<Vec<_>>>()?;
    let listed = git(root, &["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let listed = match listed {
        Some(names) => names.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect(),
        None => walk(root)?,
    };
    let mut sources = Vec::new();
    for path in listed {
        let full = root.join(&path);
        let is_text = path.extension().is_some_and(|extension| extension == "rs" || extension == "md");
        let is_wanted = paths.is_empty() || paths.iter().any(|wanted| full.starts_with(wanted));
        let is_file = || full.symlink_metadata().is_ok_and(|metadata| metadata.is_file());
        if is_text && is_wanted && is_file() {
            let text = fs::read_to_string(&full).during(|| format!("read {}", full.display()))?;
            sources.push(Source { path, text });
        }
    }
    if sources.is_empty() {
        return Err(Error::new("there is no Rust or Markdown file to check"));
    }
    Ok(sources)
}

/// All files below `root` except hidden folders and build results.
fn walk(root: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(root.join(&folder)).during(|| format!("list {}", folder.display()))?;
        for entry in entries {
            let entry = entry.during(|| format!("list {}", folder.display()))?;
            let path = folder.join(entry.file_name());
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let name = entry.file_name();
            if is_folder && name != "target" && name.to_str().is_some_and(|name| !name.starts_with('.')) {
                folders.push(path);
            } else if !is_folder {
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// The output of a git command; `None` if it fails or git is missing.
fn git(root: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("git").current_dir(root).args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_can_be_read_and_name_only_what_exists() {
        let root = cargo::workspace().unwrap();
        let rules = fs::read_to_string(root.join("xtask/lint.toml")).unwrap();
        let rules: Rules = toml::from_str(&rules).unwrap();
        for path in rules.generated.iter().chain(rules.pending.values().flatten()) {
            assert!(root.join(path).exists(), "xtask/lint.toml names {}", path.display());
        }
        for phrase in rules.pending.keys() {
            assert!(rules.phrases.contains_key(phrase), "no phrase: {phrase}");
        }
    }
}
