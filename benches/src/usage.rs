//! The processor time and the memory of a process, from the kernel (Linux).

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use wait4::Wait4 as _;

/// Time between two samples of a process's memory. The kernel keeps the peak, so samples only miss
/// the very last moment.
const LOOK: Duration = Duration::from_millis(5);

/// The resources that a process used from start to exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// The elapsed time.
    pub wall: Duration,
    /// The processor time, in user and kernel mode.
    pub processor: Duration,
    /// The maximum resident set size, in bytes.
    pub peak: u64,
}

/// A process whose usage is sampled while it runs. Killed when dropped.
#[derive(Debug)]
pub struct Running {
    name: &'static str,
    child: Child,
    begun: Instant,
    ended: Arc<AtomicBool>,
    looking: Option<JoinHandle<u64>>,
}

impl Running {
    /// Starts the process.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[must_use]
    pub fn start(name: &'static str, command: &mut Command) -> Self {
        let begun = Instant::now();
        let child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        let (id, ended) = (child.id(), Arc::new(AtomicBool::new(false)));
        let looking = std::thread::spawn({
            let ended = Arc::clone(&ended);
            move || {
                let mut largest = 0;
                while !ended.load(Ordering::Relaxed) {
                    largest = largest.max(peak(id));
                    std::thread::park_timeout(LOOK);
                }
                largest
            }
        });
        Self { name, child, begun, ended, looking: Some(looking) }
    }

    /// The process ID.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it is running.
    ///
    /// # Panics
    ///
    /// If that cannot be determined.
    #[must_use]
    pub fn is_running(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(self.pid()), options).expect("look at a child process").is_none()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        // It may have exited already.
        let _ = kill_process(self.pid(), Signal::TERM);
    }

    /// Waits for its exit, which must be successful.
    ///
    /// # Panics
    ///
    /// If it failed.
    #[must_use]
    pub fn ends_well(mut self) -> Usage {
        let (status, usage) = self.end();
        assert!(status.success(), "{}: {status}", self.name);
        usage
    }

    fn end(&mut self) -> (ExitStatus, Usage) {
        let used = self.child.wait4().expect("wait for a child process");
        let wall = self.begun.elapsed();
        self.ended.store(true, Ordering::Relaxed);
        let peak = self.looking.take().map_or(0, |looking| {
            looking.thread().unpark();
            looking.join().unwrap_or(0)
        });
        (used.status, Usage { wall, processor: used.rusage.utime + used.rusage.stime, peak })
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.looking.is_some() {
            let _ = self.child.kill();
            let (status, _) = self.end();
            debug_assert!(status.signal().is_some() || status.code().is_some());
        }
    }
}

/// The resident set size of a running process in bytes; 0 if there is no such process.
#[must_use]
pub fn resident(id: u32) -> u64 {
    of_status(id, "VmRSS:")
}

/// The maximum resident set size of a running process in bytes, since its start or since
/// [`forget_peak`]; 0 if there is no such process.
#[must_use]
pub fn peak(id: u32) -> u64 {
    of_status(id, "VmHWM:")
}

/// The number of files and sockets that a running process has open.
#[must_use]
pub fn open_files(id: u32) -> usize {
    fs::read_dir(format!("/proc/{id}/fd")).map_or(0, Iterator::count)
}

/// Resets the peak of a process to its present size.
pub fn forget_peak(id: u32) {
    // Without the permission, the peak is that of all rounds.
    let _ = fs::write(format!("/proc/{id}/clear_refs"), "5");
}

/// The processor time of a running process's threads.
#[must_use]
pub fn processor(id: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    let of_thread = |thread: fs::DirEntry| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
    };
    threads.filter_map(of_thread).sum()
}

fn of_status(id: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_process_uses_processor_time() {
        let mut command = Command::new("sh");
        command.args(["-c", "i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done"]);
        let usage = Running::start("sh", &mut command).ends_well();
        assert!(usage.processor > Duration::ZERO && usage.wall > Duration::ZERO, "{usage:?}");
        assert!(usage.peak > 100_000, "{usage:?}");
    }

    #[test]
    fn allocated_memory_is_resident() {
        let before = resident(std::process::id());
        let held = std::hint::black_box(vec![1_u8; 64 << 20]);
        let after = resident(std::process::id());
        assert!(after >= before + (60 << 20), "{before} {after}");
        assert!(peak(std::process::id()) >= after);
        assert!(processor(std::process::id()) > Duration::ZERO);
        assert!(open_files(std::process::id()) >= 3);
        drop(held);
    }

    #[test]
    fn a_dropped_process_is_killed() {
        let process = Running::start("sleep", Command::new("sleep").arg("1000"));
        let id = process.id();
        assert!(process.is_running());
        drop(process);
        assert_eq!(resident(id), 0);
    }
}
