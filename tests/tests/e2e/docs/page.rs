//! The pages and their fenced blocks.

use std::path::{Path, PathBuf};

/// How a shell block is tested: the word after the language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Run it; it must succeed.
    Run,
    /// Repeat it until it succeeds, because it waits for something.
    Eventually,
    /// A command that runs until the end of the page.
    Service,
    /// Not runnable in a test; check the names in it.
    Manual,
}

/// A fenced block of the language `sh`.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) kind: Kind,
    pub(crate) text: String,
    /// Its location: path and line.
    pub(crate) place: String,
}

/// A page of Markdown.
#[derive(Debug)]
pub(crate) struct Page {
    /// The path from the repository's root.
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) blocks: Vec<Block>,
}

impl Page {
    pub(crate) fn read(path: &str) -> Self {
        let text = std::fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        let blocks = blocks(path, &text);
        Self { path: path.to_owned(), text, blocks }
    }

    /// Whether any block can be run.
    pub(crate) fn runs(&self) -> bool {
        self.blocks.iter().any(|block| block.kind != Kind::Manual)
    }

    /// The fenced blocks of a language.
    pub(crate) fn fenced<'a>(&'a self, language: &'a str) -> impl Iterator<Item = String> {
        let mut lines = self.text.lines();
        std::iter::from_fn(move || {
            lines.by_ref().find(|line| line.strip_prefix("```") == Some(language))?;
            Some(lines.by_ref().take_while(|line| *line != "```").fold(String::new(), |text, line| text + line + "\n"))
        })
    }

    /// The text outside fenced blocks.
    pub(crate) fn prose(&self) -> String {
        let mut fenced = false;
        let mut keep = |line: &&str| {
            let is_fence = line.starts_with("```");
            fenced ^= is_fence;
            !fenced && !is_fence
        };
        self.text.lines().filter(|line| keep(line)).collect::<Vec<_>>().join("\n")
    }
}

/// The path of the repository.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The pages in the root and in `docs/`.
pub(crate) fn all() -> Vec<Page> {
    let mut paths = Vec::new();
    let mut folders = vec!["docs".to_owned()];
    for entry in std::fs::read_dir(repository()).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        if name.ends_with(".md") {
            paths.push(name);
        }
    }
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(repository().join(&folder)).unwrap() {
            let path = format!("{folder}/{}", entry.unwrap().file_name().to_string_lossy());
            if repository().join(&path).is_dir() {
                folders.push(path);
            } else if path.ends_with(".md") {
                paths.push(path);
            }
        }
    }
    assert!(paths.len() > 12, "{paths:?}");
    paths.iter().map(|path| Page::read(path)).collect()
}

fn blocks(path: &str, text: &str) -> Vec<Block> {
    /// Languages of blocks that are not commands.
    const OTHER: [&str; 9] = ["text", "toml", "ini", "rust", "rust,no_run", "yaml", "python", "js", "go"];
    let mut blocks = Vec::new();
    let mut lines = text.lines().zip(1..).peekable();
    let mut last = "";
    while let Some((line, number)) = lines.next() {
        let place = format!("{path}:{number}");
        // An indented block has no language.
        assert!(!(line.starts_with("    ") && last.is_empty()), "{place}: a block without a fence");
        last = line;
        let Some(info) = line.strip_prefix("```") else { continue };
        let body: Vec<&str> = lines.by_ref().map(|(line, _)| line).take_while(|line| *line != "```").collect();
        let kind = match info {
            "sh" => Kind::Run,
            "sh eventually" => Kind::Eventually,
            "sh service" => Kind::Service,
            "sh manual" => Kind::Manual,
            other => {
                assert!(OTHER.contains(&other), "{place}: a block of {other:?}");
                continue;
            }
        };
        blocks.push(Block { kind, text: body.join("\n"), place });
    }
    blocks
}

#[test]
fn blocks_are_parsed_with_their_kind() {
    let found = blocks("x.md", "a\n```sh\none\n\ntwo\n```\n```text\nno\n```\n```sh manual\nthree\n```\n");
    let found: Vec<_> = found.iter().map(|block| (block.kind, block.text.as_str(), block.place.as_str())).collect();
    assert_eq!(found, [(Kind::Run, "one\n\ntwo", "x.md:2"), (Kind::Manual, "three", "x.md:10")]);
}
