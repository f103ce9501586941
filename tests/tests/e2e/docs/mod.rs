//! Commands in README and `docs/` work, and the names in them exist.
//!
//! | file | subject |
//! |---|---|
//! | `page.rs` | the pages and their fenced blocks |
//! | `run.rs` | running the blocks of a page |
//! | `clients.rs` | programs that read the stream with clients of other languages |
//! | `manual.rs` | blocks that cannot be run here: their flags, files and names |
//! | `flags.rs` | the flags that the programs have |
//! | `names.rs` | tables of flags and metrics |
//! | `links.rs` | links between pages, and names of files |

mod clients;
mod flags;
mod links;
mod manual;
mod names;
mod page;
mod run;

/// The pages with blocks to run, in the order in which the README names them.
const RUN: &[&str] = &[
    "README.md",
    "docs/configuration.md",
    "docs/delivery.md",
    "docs/recipes/systemd.md",
    "docs/recipes/many-files.md",
    "docs/recipes/several-files.md",
    "docs/recipes/many-writers.md",
    "docs/recipes/partitions.md",
    "docs/operations.md",
    "docs/security.md",
    "docs/consuming.md",
    "docs/tuning.md",
];

#[test]
fn the_commands_of_all_pages_work_one_page_after_the_other() {
    run::pages(RUN);
}

#[test]
fn every_page_with_blocks_to_run_is_run() {
    let mut found: Vec<String> = page::all().into_iter().filter(page::Page::runs).map(|page| page.path).collect();
    let mut listed: Vec<String> = RUN.iter().map(|&path| path.to_owned()).collect();
    found.sort();
    listed.sort();
    assert_eq!(found, listed);
}

/// A user who follows the pages in order on one Redis, with earlier services still running, must
/// not meet a conflict.
#[test]
fn pages_have_streams_and_ports_of_their_own() {
    let mut owners = std::collections::BTreeMap::new();
    for path in RUN {
        let page = page::Page::read(path);
        let typed: Vec<&page::Block> = page.blocks.iter().filter(|block| block.kind != page::Kind::Manual).collect();
        let mut words = Vec::new();
        for line in typed.iter().flat_map(|block| block.text.lines()) {
            let line = line.replace("$name", "orders").replace('"', " ");
            if line.contains("--http-addr") || line.contains("http-addr =") {
                words.extend(line.split_whitespace().filter(|word| word.starts_with("127.0.0.1:8")).map(str::to_owned));
                let stream = line.split("--stream ").nth(1).and_then(|rest| rest.split_whitespace().next());
                let is_file = line.starts_with("http-addr =");
                words.extend(stream.map(str::to_owned).or_else(|| (!is_file).then(|| "line_stream".to_owned())));
            }
            words.extend(line.strip_prefix("stream = ").map(|stream| stream.trim().to_owned()));
        }
        for word in words {
            let owner = *owners.entry(word.clone()).or_insert(*path);
            assert_eq!(owner, *path, "{word}");
        }
    }
    assert!(owners.contains_key("line_stream") && owners.len() > 20, "{owners:?}");
}
