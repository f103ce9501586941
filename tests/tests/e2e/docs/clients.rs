//! The programs of `docs/consuming.md` run as they are, with the clients of other languages.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use e2e::{Process, wait};

use super::page::{Kind, Page, repository};
use super::run::{Desk, on_path};

/// How a program of the page is run.
struct Runtime {
    /// Language of its block, and which of these blocks it is.
    language: &'static str,
    nth: usize,
    /// Its file.
    file: &'static str,
    /// What runs it, with these arguments before the file.
    program: &'static str,
    args: &'static [&'static str],
    /// The client, below the folder of clients; none if the program needs none.
    client: Option<&'static str>,
    group: &'static str,
}

/// Where `cargo xtask test` puts clients.
fn clients() -> PathBuf {
    std::env::var_os("CLIENTS").map_or_else(|| repository().join("target/clients"), PathBuf::from)
}

fn check(runtime: &Runtime) {
    let page = Page::read("docs/consuming.md");
    let skip = |why: &str| eprintln!("SKIPPED: {}: the program of group {}: {why}", page.path, runtime.group);
    let desk = Desk::new();
    let Some(program) = on_path(runtime.program, desk.path()) else {
        return skip(&format!("no {} on this machine", runtime.program));
    };
    let client = runtime.client.map(|client| clients().join(client));
    if let Some(client) = client.as_ref().filter(|client| !client.exists()) {
        return skip(&format!("no {}; `cargo xtask test` gets it", client.display()));
    }
    // The page's first commands fill the stream.
    let fill = page.blocks.iter().find(|block| block.kind == Kind::Run).unwrap();
    if let Some(lacks) = desk.lacks(fill) {
        return skip(&format!("no {lacks} on this machine"));
    }
    desk.run(fill).unwrap();

    let text = page.fenced(runtime.language).nth(runtime.nth).unwrap();
    let file = desk.folder().join(runtime.file);
    fs::write(&file, desk.translate(&text)).unwrap();
    // Node and Go look for modules beside the program.
    for name in ["node/node_modules", "go/go.mod", "go/go.sum"].map(Path::new) {
        symlink(clients().join(name), desk.folder().join(name.file_name().unwrap())).unwrap();
    }
    let python = clients().join("python").display().to_string();
    let folder = desk.folder().display().to_string();
    let command = format!("cd {folder} && exec \"$@\"");
    let args = ["-c", &command, "sh", program.to_str().unwrap()].into_iter().chain(runtime.args.iter().copied());
    let args = args.chain([file.to_str().unwrap()]);
    let log = desk.log(runtime.group);
    let mut process = Process::start(runtime.group, Path::new("/bin/sh"), args, [("PYTHONPATH", python)], log);
    wait::until("the program has printed and acknowledged all lines", || {
        let ended = process.try_exit();
        assert!(ended.is_none(), "it ended: {ended:?}: {}", process.log());
        process.stdout() == b"one\ntwo\nthree\n" && desk.all_acknowledged("consumed", runtime.group)
    });
    process.kill9();
}

#[test]
fn the_program_in_python_reads_the_stream() {
    check(&Runtime {
        language: "python",
        nth: 0,
        file: "consume.py",
        program: "python3",
        args: &[],
        client: Some("python/redis"),
        group: "python",
    });
}

#[test]
fn the_program_for_node_redis_reads_the_stream() {
    check(&Runtime {
        language: "js",
        nth: 0,
        file: "consume.mjs",
        program: "node",
        args: &[],
        client: Some("node/node_modules/redis"),
        group: "node",
    });
}

#[test]
fn the_program_for_ioredis_reads_the_stream() {
    check(&Runtime {
        language: "js",
        nth: 1,
        file: "consume.mjs",
        program: "node",
        args: &[],
        client: Some("node/node_modules/ioredis"),
        group: "ioredis",
    });
}

#[test]
fn the_program_in_go_reads_the_stream() {
    check(&Runtime {
        language: "go",
        nth: 0,
        file: "consume.go",
        program: "go",
        args: &["run"],
        client: Some("go/go.sum"),
        group: "go",
    });
}

#[test]
fn the_configuration_of_redpanda_connect_reads_the_stream() {
    check(&Runtime {
        language: "yaml",
        nth: 0,
        file: "consume.yaml",
        program: "redpanda-connect",
        args: &["run"],
        client: None,
        group: "connect",
    });
}
