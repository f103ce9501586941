//! Checks blocks that cannot run in a test because they need a cluster, containers, systemd, or a
//! long build: the names in them must exist.

use std::collections::BTreeSet;

use e2e::Program;

use super::page::{Block, Kind, all, repository};
use super::{flags, page::Page};

/// The commands of a block as words, without quotes and comments.
fn commands(text: &str) -> Vec<Vec<String>> {
    let text = text.replace("\\\n", " ");
    let lines = text.lines().map(|line| line.split(" #").next().unwrap_or_default());
    let commands = lines
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| line.split(" && "))
        .flat_map(|line| line.split(" | "));
    let words =
        |command: &str| command.split_whitespace().map(|word| word.replace(['"', '\''], "")).collect::<Vec<_>>();
    commands.map(words).filter(|words| !words.is_empty()).collect()
}

/// The part of a word after the last `/`.
fn base(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

fn service(word: &str) -> Option<Program> {
    [Program::Reader, Program::Writer].into_iter().find(|program| base(word) == program.name())
}

/// The flags among these words.
fn given(words: &[String]) -> impl Iterator<Item = &str> {
    words
        .iter()
        .filter(|word| word.starts_with("--"))
        .filter_map(|word| word.split('=').next())
        .filter(|word| word.len() > 2)
}

#[track_caller]
fn all_known(place: &str, words: &[String], known: &BTreeSet<String>) {
    for flag in given(words) {
        assert!(known.contains(flag), "{place}: there is no {flag}: {known:?}");
    }
}

/// `reader …`, `writer verify …`.
fn check_service(place: &str, program: Program, words: &[String]) {
    let subcommand = words.first().map(String::as_str).filter(|word| !word.starts_with('-'));
    all_known(place, words, &flags::of(program, subcommand));
}

fn check_cargo(place: &str, words: &[String]) {
    if words[0] == "xtask" {
        let known = flags::of_xtask().iter().find(|(name, _)| *name == words[1]);
        let (_, known) = known.unwrap_or_else(|| panic!("{place}: there is no cargo xtask {}", words[1]));
        all_known(place, &words[2..], known);
    }
    for pair in words.windows(2).filter(|pair| ["-p", "--package"].contains(&pair[0].as_str())) {
        // The only package whose name differs from its folder.
        let folder = if pair[1] == "e2e" { "tests" } else { &pair[1] };
        assert!(repository().join(folder).join("Cargo.toml").is_file(), "{place}: there is no package {}", pair[1]);
    }
}

/// `docker compose …`: checks the services, and the arguments of their binaries.
fn check_compose(place: &str, words: &[String]) {
    let recipe = std::fs::read_to_string(repository().join("compose.yaml")).unwrap();
    let is_service = |name: &str| recipe.contains(&format!("\n  {name}:\n"));
    assert_eq!(words[0], "compose", "{place}");
    match words[1].as_str() {
        "exec" => {
            assert!(is_service(&words[2]), "{place}: there is no service {}", words[2]);
            let program = service(&words[3]).unwrap_or_else(|| panic!("{place}: the image has no {}", words[3]));
            assert!(words[3].starts_with("/usr/local/bin/"), "{place}: where the image has it");
            check_service(place, program, &words[4..]);
        }
        "cp" => {
            let (name, _) = words[2].split_once(':').unwrap_or_else(|| panic!("{place}: {}", words[2]));
            assert!(is_service(name), "{place}: there is no service {name}");
        }
        "up" | "stop" | "down" => {}
        other => panic!("{place}: docker compose {other}: say here how it is checked"),
    }
}

fn check(place: &str, words: &[String]) {
    let mut words = words;
    while let Some(variable) = words[0].split_once('=').map(|(name, _)| name) {
        let recipe = std::fs::read_to_string(repository().join("compose.yaml")).unwrap();
        assert!(recipe.contains(&format!("${{{variable}:-")), "{place}: nothing takes {variable}");
        words = &words[1..];
    }
    if words[0] == "sudo" {
        words = &words[1..];
    }
    match words[0].as_str() {
        "cargo" => check_cargo(place, &words[1..]),
        "docker" => check_compose(place, &words[1..]),
        "systemctl" | "journalctl" => {
            for unit in words.iter().filter(|word| word.contains('@')) {
                let (template, _) = unit.split_once('@').unwrap();
                let file = format!("systemd/{template}@.service");
                assert!(repository().join(&file).is_file(), "{place}: there is no {file}");
            }
        }
        // Commands with nothing to check but files.
        ".ci/run" | "kubectl" | "kind" | "install" | "man" | "systemd-sysusers" | "mkdir" | "cp" | "export" | "sh"
        | "redis-cli" | "rm" => {}
        program => match service(program) {
            Some(program) => check_service(place, program, &words[1..]),
            None => panic!("{place}: {program}: say here how it is checked"),
        },
    }
    check_files(place, words);
}

/// Checks paths in the repository.
fn check_files(place: &str, words: &[String]) {
    for word in words {
        let (first, rest) = word.split_once('/').unwrap_or((word, ""));
        let is_ours = !first.is_empty()
            && !["target", "data"].contains(&first)
            && !rest.is_empty()
            && repository().join(first).is_dir();
        assert!(!is_ours || repository().join(word).exists(), "{place}: there is no {word}");
    }
}

fn check_block(block: &Block) {
    for command in commands(&block.text) {
        check(&block.place, &command);
    }
}

#[test]
fn names_in_manual_blocks_exist() {
    let mut checked = 0;
    for page in all() {
        for block in page.blocks.iter().filter(|block| block.kind == Kind::Manual) {
            check_block(block);
            checked += 1;
        }
    }
    assert!(checked > 15, "{checked} blocks");
}

#[test]
fn wrong_names_are_detected() {
    for text in [
        "cargo xtask demmo",
        "cargo xtask demo --framming chunk",
        "cargo build -p raeder",
        "kubectl apply -k k8s/overlays/nodemo",
        "writer verify --inputs a",
        "sudo systemctl start line-stream-read@app",
        "docker compose exec writer /usr/local/bin/writer verify --outputs a",
        "docker compose cp rider:/data/output.txt output.txt",
        "INPUT_FOLDER=/x docker compose up",
        "frobnicate",
    ] {
        let block = Block { kind: Kind::Manual, text: text.to_owned(), place: "here".to_owned() };
        let caught = std::panic::catch_unwind(|| check_block(&block));
        assert!(caught.is_err(), "{text}");
    }
}

/// Without `--http-addr`, a service listens on port 8080 of all addresses, and a second one fails.
#[test]
fn started_services_have_an_http_addr() {
    for page in all() {
        for block in page.blocks.iter().filter(|block| block.kind != Kind::Manual) {
            for words in commands(&block.text) {
                let starts = words.iter().any(|word| service(word).is_some())
                    && !words.iter().any(|word| ["verify", "merge", "completions"].contains(&word.as_str()));
                let says = words.iter().any(|word| ["--http-addr", "--config"].contains(&word.as_str()));
                assert!(!starts || says, "{}: {}", block.place, words.join(" "));
            }
        }
    }
}

/// Flags in the prose belong to one of the programs, too.
#[test]
fn flags_in_the_text_exist() {
    /// Flags of other programs.
    const THEIRS: [&str; 4] = ["--tls", "--cacert", "--tls-cert-file", "--tls-private-key-file"];
    let mut known = BTreeSet::new();
    for program in [Program::Reader, Program::Writer] {
        known.extend(flags::of(program, None));
    }
    for subcommand in ["verify", "merge", "rotate"] {
        known.extend(flags::of(Program::Writer, Some(subcommand)));
    }
    known.extend(flags::of_xtask().iter().flat_map(|(_, flags)| flags.clone()));
    known.extend(THEIRS.map(str::to_owned));
    for page in all() {
        for words in inline(&page) {
            all_known(&page.path, &words, &known);
            if words.len() > 2 && words[0] == "cargo" && words[1] == "xtask" {
                check_cargo(&page.path, &words[1..]);
            }
        }
    }
}

/// The words in backticks.
fn inline(page: &Page) -> Vec<Vec<String>> {
    let prose = page.prose();
    let spans = prose.split("\n\n").flat_map(|paragraph| paragraph.split('`').skip(1).step_by(2));
    let commands =
        spans.filter(|span| ["--", "reader ", "writer ", "cargo xtask "].iter().any(|start| span.starts_with(start)));
    // `--input: …` is how a message names a flag.
    let word = |word: &str| word.trim_end_matches(':').to_owned();
    commands.map(|span| span.split_whitespace().map(word).collect()).collect()
}
