//! Runs the blocks of a page in an empty folder, with a private Redis instead of
//! `redis://localhost`, and free ports instead of those from 8080 on.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use e2e::{Port, Process, Program, Rig, http, wait};
use rustix::process::{Pid, Signal, kill_process_group};

use super::page::{Block, Kind, Page};

/// The ports that the pages use.
const PORTS: std::ops::RangeInclusive<u16> = 8080..=8105;
/// Timeout of a block.
const BLOCK: Duration = Duration::from_secs(120);

/// The environment in which a page runs.
pub(crate) struct Desk {
    rig: Rig,
    folder: PathBuf,
    path: String,
    ports: Vec<(u16, Port)>,
}

impl Desk {
    pub(crate) fn new() -> Self {
        let rig = Rig::new();
        let (folder, bin) = (rig.folder.join("work"), rig.folder.join("bin"));
        fs::create_dir(&folder).unwrap();
        fs::create_dir(&bin).unwrap();
        for program in [Program::Reader, Program::Writer] {
            symlink(program.path(), bin.join(program.name())).unwrap();
        }
        let path = std::env::var("PATH").unwrap_or_default();
        if let Some(cli) = on_path("redis-cli", &path) {
            // `redis-cli -e` fails on an error reply; it does not exist before Redis 7.0.
            let help = Command::new(&cli).arg("--help").output().unwrap();
            let told = [help.stdout, help.stderr].concat();
            let strict = if String::from_utf8_lossy(&told).contains("\n  -e ") { "-e" } else { "" };
            let script = format!("#!/bin/sh\nexec {} -p {} {strict} \"$@\"\n", cli.display(), rig.redis.port());
            fs::write(bin.join("redis-cli"), script).unwrap();
            fs::set_permissions(bin.join("redis-cli"), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let path = format!("{}:{path}", bin.display());
        let ports = PORTS.map(|number| (number, Port::take())).collect();
        Self { rig, folder, path, ports }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where programs are looked for.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// A log of this name.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.rig.folder.join(&format!("logs/{name}.log"))
    }

    /// Whether the group has read and acknowledged the whole stream.
    pub(crate) fn all_acknowledged(&self, stream: &str, group: &str) -> bool {
        let last = self.rig.redis.call(&["XINFO", "STREAM", stream]).field("last-generated-id").clone();
        let groups = self.rig.redis.call(&["XINFO", "GROUPS", stream]);
        let ours = groups.list().iter().find(|of| of.field("name").text() == group);
        ours.is_some_and(|of| of.field("last-delivered-id").text() == last.text() && of.field("pending").int() == 0)
    }

    /// Replaces addresses and ports in a command.
    pub(crate) fn translate(&self, text: &str) -> String {
        let mut text = text.replace("redis://localhost", &self.rig.redis.url());
        text = text.replace("@localhost", &format!("@127.0.0.1:{}", self.rig.redis.port()));
        // The recipe for partitions computes a port per partition.
        text = text.replace("127.0.0.1:809$((k + 7))", "127.0.0.1:0");
        for (number, port) in &self.ports {
            text = text.replace(&format!("127.0.0.1:{number}"), &format!("127.0.0.1:{}", port.number()));
        }
        text
    }

    /// A program that the block needs and this machine lacks.
    pub(crate) fn lacks(&self, block: &Block) -> Option<&'static str> {
        ["curl", "redis-cli"].into_iter().find(|program| {
            block.text.split_whitespace().any(|word| word == *program) && on_path(program, &self.path).is_none()
        })
    }

    /// Runs a block; returns its output if it failed.
    pub(crate) fn run(&self, block: &Block) -> Result<(), String> {
        let (script, log) = (self.rig.folder.join("block.sh"), self.rig.folder.join("logs/block.log"));
        fs::write(&script, self.translate(&block.text)).unwrap();
        let out = File::create(&log).unwrap();
        let mut child = Command::new("sh")
            .arg("-eu")
            .arg(&script)
            .current_dir(&self.folder)
            .env("PATH", &self.path)
            .env("REDIS_URL", self.rig.redis.url())
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .process_group(0)
            .spawn()
            .unwrap();
        let group = Pid::from_child(&child);
        let ended = wait::try_within(BLOCK, || child.try_wait().unwrap());
        // Kill processes that the block left in the background.
        let _ = kill_process_group(group, Signal::KILL);
        let said = || String::from_utf8_lossy(&fs::read(&log).unwrap()).into_owned();
        match ended {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(format!("{status}\n{}", said())),
            None => {
                child.wait().unwrap();
                Err(format!("not done after {BLOCK:?}\n{}", said()))
            }
        }
    }

    /// Starts a command that runs until the end of the page, and waits until it is ready.
    fn serve(&self, block: &Block, log: &Path) -> Process {
        let command = self.translate(&block.text).replace("\\\n", " ");
        assert_eq!(command.lines().count(), 1, "{}: one command", block.place);
        let script = format!("cd {} && exec env {command}", self.folder.display());
        let env = [("PATH", self.path.clone()), ("REDIS_URL", self.rig.redis.url())];
        let mut process = Process::start(&block.place, Path::new("/bin/sh"), ["-c", &script], env, log.to_owned());
        wait::until(&format!("{}: it is ready", block.place), || {
            let ended = process.try_exit();
            assert!(ended.is_none(), "{}: it ended: {ended:?}", block.place);
            let log = process.log();
            let addr =
                log.split("listening on http://").nth(1).and_then(|rest| rest.lines().next()?.trim().parse().ok());
            addr.is_some_and(|addr| http::get(addr, "/readyz").is_ok_and(|(status, _)| status == 200))
        });
        process
    }
}

/// Runs all blocks of these pages, from top to bottom and one page after the other, on one Redis,
/// each page in a folder of its own. Services go on until the last page is done.
pub(crate) fn pages(paths: &[&str]) {
    let mut desk = Desk::new();
    let mut services = Vec::new();
    for (nth, path) in paths.iter().enumerate() {
        desk.folder = desk.rig.folder.join(&format!("page-{nth}"));
        fs::create_dir(&desk.folder).unwrap();
        run_page(&desk, path, &mut services);
    }
    while let Some(mut service) = services.pop() {
        service.signal(Signal::TERM);
        let status = service.wait_exit(Duration::from_secs(30));
        assert!(status.success(), "{}: {status} after SIGTERM: {}", service.name(), service.log());
    }
}

fn run_page(desk: &Desk, path: &str, services: &mut Vec<Process>) {
    for block in &Page::read(path).blocks {
        if let Some(program) = desk.lacks(block) {
            eprintln!("SKIPPED: {}: no {program} on this machine", block.place);
            continue;
        }
        match block.kind {
            Kind::Manual => {}
            Kind::Run => {
                if let Err(said) = desk.run(block) {
                    panic!("{}: {}\n{said}", block.place, block.text);
                }
            }
            Kind::Eventually => {
                let mut said = String::new();
                let done = wait::try_within(wait::SOON, || desk.run(block).map_err(|error| said = error).ok());
                assert!(done.is_some(), "{}: {}\n{said}", block.place, block.text);
            }
            Kind::Service => {
                services.push(desk.serve(block, &desk.log(&format!("service-{}", services.len()))));
            }
        }
    }
}

pub(crate) fn on_path(name: &str, path: &str) -> Option<PathBuf> {
    std::env::split_paths(path).map(|folder| folder.join(name)).find(|program| program.is_file())
}
