//! The machine on which it was measured.

use std::path::Path;
use std::process::Command;

/// The facts that a reader of the figures needs.
#[derive(Debug)]
pub(crate) struct About {
    pub(crate) date: String,
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory: String,
    pub(crate) kernel: String,
    pub(crate) server: String,
    pub(crate) rustc: String,
}

impl About {
    pub(crate) fn of(server: &Path, date: String) -> Self {
        let said = |program: &Path, arg: &str| {
            let output = Command::new(program).arg(arg).output().ok();
            output.map_or_else(|| "unknown".to_owned(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
        };
        let line_of = |file: &str, name: &str| {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            let line =
                text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim_start_matches([' ', '\t', ':'])));
            line.map_or_else(|| "unknown".to_owned(), |line| line.trim().to_owned())
        };
        let version = said(server, "--version");
        // Redis server v=7.0.15 sha=… malloc=… bits=…
        let version = version.split(' ').take(3).collect::<Vec<_>>().join(" ");
        let memory = line_of("/proc/meminfo", "MemTotal");
        let gib = memory.split(' ').next().and_then(|kib| kib.parse::<f64>().ok()).map(|kib| kib / 1024.0 / 1024.0);
        Self {
            date,
            processor: line_of("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory: gib.map_or(memory, |gib| format!("{gib:.0} GiB")),
            kernel: format!("{} {}", std::env::consts::OS, line_of("/proc/sys/kernel/osrelease", "")),
            server: version,
            rustc: said(Path::new("rustc"), "--version"),
        }
    }
}
