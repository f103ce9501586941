//! `leash PARENT PROGRAM ARGS…`: executes PROGRAM, and makes the kernel kill it when the thread
//! that started it ends. No process of a test therefore outlives the test, even if the test is
//! killed.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let parent = args.next().and_then(|text| text.to_str()?.parse().ok()).and_then(Pid::from_raw);
    let (Some(parent), Some(program)) = (parent, args.next()) else {
        eprintln!("leash: leash PARENT PROGRAM ARGS…");
        return ExitCode::from(2);
    };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        eprintln!("leash: {error}");
        return ExitCode::FAILURE;
    }
    // The parent may have ended before the kernel was asked to watch it.
    if getppid() != Some(parent) {
        return ExitCode::FAILURE;
    }
    let error = Command::new(&program).args(args).exec();
    eprintln!("leash: {}: {error}", program.display());
    ExitCode::from(127)
}
