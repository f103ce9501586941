//! Commands in README and `docs/` work, and the names in them exist.
//!
//! | file | subject |
//! |---|---|
//! | `page.rs` | the pages and their fenced blocks |
//! | `run.rs` | running the blocks of a page |
//! | `manual.rs` | blocks that cannot be run here: their flags, files and names |
//! | `flags.rs` | the flags that the programs have |
//! | `names.rs` | tables of flags and metrics |
//! | `links.rs` | links between pages, and names of files |

mod flags;
mod links;
mod manual;
mod names;
mod page;
mod run;

/// Defines one test per page with runnable blocks, so that pages run in parallel.
macro_rules! pages {
    ($($name:ident: $path:literal,)*) => {
        /// The pages below.
        const RUN: &[&str] = &[$($path),*];
        $(
            #[test]
            fn $name() {
                run::page($path);
            }
        )*
    };
}

pages! {
    the_commands_of_the_readme_work: "README.md",
    the_commands_of_configuration_work: "docs/configuration.md",
    the_commands_of_consuming_work: "docs/consuming.md",
    the_commands_of_delivery_work: "docs/delivery.md",
    the_commands_of_operations_work: "docs/operations.md",
    the_commands_of_tuning_work: "docs/tuning.md",
    the_commands_of_the_recipe_for_systemd_work: "docs/recipes/systemd.md",
    the_commands_of_the_recipe_for_several_files_work: "docs/recipes/several-files.md",
    the_commands_of_the_recipe_for_many_writers_work: "docs/recipes/many-writers.md",
    the_commands_of_the_recipe_for_partitions_work: "docs/recipes/partitions.md",
}

#[test]
fn every_page_with_blocks_to_run_is_run() {
    let mut found: Vec<String> = page::all().into_iter().filter(page::Page::runs).map(|page| page.path).collect();
    let mut listed: Vec<String> = RUN.iter().map(|&path| path.to_owned()).collect();
    found.sort();
    listed.sort();
    assert_eq!(found, listed);
}

/// A reader who follows the pages in order on one Redis, with earlier services still running, must
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
