//! Faults of all components, while a tree of many files is mirrored.

use std::fmt;
use std::time::Duration;

use super::fault::Fault;
use super::stage::{Runner, logs, strike};
use super::tree::{Folders, Source, Tree, count_below};
use crate::binaries::Program;
use crate::redis::Persistence;
use crate::rig::{self, Rig};
use crate::wait;

/// The plan of a round with many files.
#[derive(Debug, Clone, Copy)]
pub struct FilesPlan {
    /// The duration.
    pub time: Duration,
    /// The seed of the random numbers. The times of the faults also depend on the machine.
    pub seed: u64,
    /// The persistence of Redis.
    pub persistence: Persistence,
    /// The number of files.
    pub files: usize,
    /// Growth of all files together, in bytes per second.
    pub rate: f64,
    /// Whether the reader uses the framing `chunk`.
    pub chunk: bool,
    /// Whether the glob also matches the names of rotated files.
    pub wide: bool,
}

impl FilesPlan {
    /// The plan of a seed: consecutive seeds cover all combinations.
    #[must_use]
    pub const fn of_seed(seed: u64, time: Duration, files: usize) -> Self {
        let persistence = match seed / 4 % 3 {
            0 => Persistence::Everysec,
            1 => Persistence::Always,
            _ => Persistence::None,
        };
        Self { time, seed, persistence, files, rate: 2_000_000.0, chunk: seed & 1 == 1, wide: seed & 2 == 2 }
    }

    const fn glob(&self) -> &str {
        if self.wide { "**/*.log*" } else { "**/*.log" }
    }
}

impl fmt::Display for FilesPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {}, {:.0} s: {} files, {}, framing {}, Redis {:?}",
            self.seed,
            self.time.as_secs_f64(),
            self.files,
            self.glob(),
            if self.chunk { "chunk" } else { "line" },
            self.persistence
        )
    }
}

/// As [`run`](super::run), for a tree of files: they grow, are rotated, disappear and appear. Then
/// the output of each must have everything that was written to it, once.
///
/// # Errors
///
/// What is wrong, and the path of the files.
pub fn run_with_files(plan: FilesPlan) -> Result<String, String> {
    let mut rng = fastrand::Rng::with_seed(plan.seed);
    let mut stage = Stage::new(plan);
    let possible: Vec<Fault> = Fault::ALL.into_iter().filter(|fault| !fault.is_rotation()).collect();
    let counts = super::strike_at_random(&mut rng, plan.time, &possible, |fault, rng| {
        strike(fault, &mut stage.reader, &mut stage.writer, &mut stage.rig.redis, rng);
    });
    let report = stage
        .finish()
        .map_err(|wrong| format!("{wrong}\n{plan}, kept: {}\n{}", stage.rig.folder.keep().display(), stage.logs()))?;
    Ok(report + &counts)
}

struct Stage {
    // In drop order.
    reader: Runner,
    writer: Runner,
    tree: Tree,
    folders: Folders,
    rig: Rig,
}

impl Stage {
    fn new(plan: FilesPlan) -> Self {
        let rig = Rig::with(plan.persistence);
        let [inputs, outputs, truth] = ["tree", "out/tree", "truth"].map(|name| rig.folder.join(name));
        for folder in [&inputs, &outputs, &truth] {
            std::fs::create_dir_all(folder).expect("a folder");
        }
        let folders = Folders { inputs, outputs, truth };
        let reader = rig.service(Program::Reader).set("--input", folders.inputs.join(plan.glob()));
        let reader = reader.set("--framing", if plan.chunk { "chunk" } else { "line" });
        let writer = rig.service(Program::Writer).set("--output-dir", &folders.outputs).set("--consumer", "one");
        let port = rig.redis.port();
        let (reader, writer) = (Runner::start(reader, port), Runner::start(writer, port));
        let tree = Tree::start(&folders, plan.files, plan.rate, plan.seed);
        Self { reader, writer, tree, folders, rig }
    }

    /// Waits until everything is delivered, stops the services, and compares each source.
    fn finish(&mut self) -> Result<String, String> {
        let sources = self.tree.finish();
        let written = || sources.iter().map(|source| rig::len(&source.output())).sum();
        let goal = sources.iter().map(|source| source.bytes).sum();
        let behind = || {
            let late = sources.iter().filter(|source| !source.is_delivered());
            late.take(10).fold(String::new(), |text, source| {
                text + &format!("\n{}: {} of {} bytes", source.name, rig::len(&source.output()), source.bytes)
            })
        };
        wait::progress_to(goal, written)
            .map_err(|at| format!("the outputs stand still at {at} of {goal} bytes{}", behind()))?;
        self.reader.service.stop();
        self.writer.service.stop();
        let wrong: Vec<String> = sources.iter().filter_map(|source| compare(source).err()).collect();
        if !wrong.is_empty() {
            let shown = wrong.iter().take(10).cloned().collect::<Vec<_>>().join("\n");
            return Err(format!("{} of {} sources differ:\n{shown}", wrong.len(), sources.len()));
        }
        let unordered = self.verify()?;
        let (outputs, _) = count_below(&self.folders.outputs);
        let (contents, _) = count_below(&self.folders.truth);
        let order = if unordered > 0 { format!(", {unordered} with contents in another order") } else { String::new() };
        Ok(format!("{} sources, {contents} contents, {goal} bytes: identical{order} ({outputs} files)", sources.len()))
    }

    /// `writer verify` over everything that was written: silent but for the order of contents, as
    /// [`compare`]. Returns in how many outputs that differs.
    fn verify(&self) -> Result<usize, String> {
        let verify = self.rig.command(Program::Writer).word("verify").set("--input-dir", &self.folders.truth);
        let mut verify = verify.set("--output-dir", &self.folders.outputs).run();
        let found = String::from_utf8_lossy(&verify.process().stdout()).into_owned();
        let unordered = found.lines().filter(|line| line.contains("not in the order of the source")).count();
        match (verify.code(), found.lines().count() - unordered) {
            (Some(0), 1) => Ok(unordered),
            (code, _) => Err(format!("writer verify ended with {code:?}: {}{found}", verify.log())),
        }
    }

    fn logs(&self) -> String {
        logs([("reader", &self.reader.service), ("writer", &self.writer.service)].into_iter())
    }
}

/// Compares the lines of a source's output with those that were written to it. Contents can be in
/// another order: a rotated file that is being compressed does not delay the files after it.
fn compare(source: &Source) -> Result<(), String> {
    let (written, output) = (source.written(), std::fs::read(source.output()).unwrap_or_default());
    let sorted = |bytes: &[u8]| {
        let mut lines: Vec<Vec<u8>> = bytes.split_inclusive(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
        lines.sort_unstable();
        lines
    };
    if written == output || sorted(&written) == sorted(&output) {
        return Ok(());
    }
    let at = written.iter().zip(&output).take_while(|(one, other)| one == other).count();
    Err(format!("{}: differs at byte {at}; lengths {} and {}", source.name, output.len(), written.len()))
}
