//! `writer rotate`: renames the output, and waits until the writer continues in a new file.
//!
//! The writer detects the rename by itself, and renames the journal too. This command therefore
//! sends no signal and needs no permission to send one, so it also works with `kubectl exec`.

use crate::journal_file::{path_of, sync_folder_of, with_suffix};
use crate::output_folder::OutputFolder;
use delivery::output::{Folder as _, journal_of};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use service::Failure;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// How often the folder is scanned until the writer has continued.
const POLL: Duration = Duration::from_millis(20);

/// Renames the output, and prints the new path.
pub(crate) fn run(output: &Path, patience: Duration) -> Result<(), Failure> {
    match rotate(output, patience, SystemTime::now())? {
        Some(became) => {
            let _ = writeln!(io::stdout(), "{}", became.display());
        }
        None => {
            let _ = writeln!(io::stderr(), "writer rotate: {} is empty; nothing to rotate", output.display());
        }
    }
    Ok(())
}

/// Renames the output, and returns its new path; `None` if the output is empty.
fn rotate(output: &Path, patience: Duration, now: SystemTime) -> Result<Option<PathBuf>, Failure> {
    let shown = output.display();
    let failed = |doing: &str, error: io::Error| Failure::failed(format!("--output {shown}: {doing}: {error}"));
    let metadata = match std::fs::metadata(output) {
        Ok(metadata) if metadata.is_file() => metadata,
        Ok(_) => {
            return Err(Failure::config(format!("--output {shown}: not a regular file; allowed: a writer's output")));
        }
        Err(error) => return Err(Failure::config(format!("--output {shown}: {error}; allowed: a writer's output"))),
    };
    if !path_of(output).exists() {
        return Err(Failure::config(format!(
            "--output {shown}: there is no journal beside it; allowed: a writer's output"
        )));
    }
    if metadata.len() == 0 {
        return Ok(None);
    }
    let became = with_suffix(output, &format!("-{}", name_of(now)));
    let mut beside = OutputFolder::new(output);
    let journal = journal_of(beside.name());
    let is_at_work = beside.is_locked(&journal).map_err(|error| failed("checking its journal", error))?;
    // `NOREPLACE`: never replaces an existing file.
    renameat_with(CWD, output, CWD, &became, RenameFlags::NOREPLACE)
        .map_err(|errno| failed(&format!("renaming it to {}", became.display()), errno.into()))?;
    sync_folder_of(output).map_err(|error| failed("syncing its folder", error))?;
    if !is_at_work {
        // The next writer renames the journal at startup.
        return Ok(Some(became));
    }
    let begun = Instant::now();
    while !path_of(&became).exists() {
        if begun.elapsed() >= patience {
            return Err(Failure::failed(format!(
                "{shown} was renamed to {}, but the writer has not continued in a new file within {} s; it continues once its disk allows",
                became.display(),
                patience.as_secs_f64()
            )));
        }
        std::thread::sleep(POLL);
    }
    Ok(Some(became))
}

/// Date and time (UTC) for use in a file name: `20261130T120501.250Z`.
fn name_of(now: SystemTime) -> String {
    let now = jiff::Timestamp::try_from(now).unwrap_or_default();
    now.strftime("%Y%m%dT%H%M%S.%3fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Fsync;
    use crate::output::Output;
    use crate::test_outputs::{batch, identity, write_output};
    use std::time::UNIX_EPOCH;

    #[test]
    fn times_become_names() {
        let name = |seconds: u64| name_of(UNIX_EPOCH + Duration::from_millis(seconds * 1_000 + 250));
        assert_eq!(name(0), "19700101T000000.250Z");
        assert_eq!(name(951_782_400), "20000229T000000.250Z");
        assert_eq!(name(1_796_040_301), "20261130T120501.250Z");
        assert_eq!(name(4_107_542_399), "21000228T235959.250Z");
        assert_eq!(name(4_107_542_400), "21000301T000000.250Z");
    }

    #[test]
    fn the_next_writer_finds_an_output_rotated_without_a_writer() {
        let folder = tempfile::tempdir().unwrap();
        let path = write_output(&folder.path().join("output.txt"), &[(7, 0, b"a\n")]);
        let became = rotate(&path, Duration::ZERO, SystemTime::now()).unwrap().unwrap();
        let mut opened = Output::open(&path, &identity(), Fsync::Always, None).unwrap();
        assert!(path_of(&became).exists());
        assert_eq!(opened.output.len(), 0);
        assert_eq!(opened.held.values().map(delivery::ranges::RangeSet::bytes).sum::<u64>(), 2, "it still counts");
        // An empty output is not renamed.
        assert_eq!(rotate(&path, Duration::ZERO, SystemTime::now()), Ok(None));
        // The wait for a writer that does not continue is bounded.
        opened.output.commit(&batch(&[(7, 2, b"b\n")])).unwrap();
        let error = rotate(&path, Duration::ZERO, SystemTime::now()).unwrap_err();
        assert!(error.to_string().contains("has not continued"), "{error}");
    }

    #[test]
    fn other_files_are_refused_and_nothing_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let code = |path: &Path| rotate(path, Duration::ZERO, UNIX_EPOCH).unwrap_err().code();
        assert_eq!(code(&folder.path().join("missing")), 2);
        assert_eq!(code(folder.path()), 2);
        let plain = folder.path().join("plain");
        std::fs::write(&plain, "x").unwrap();
        assert_eq!(code(&plain), 2);
        let path = write_output(&folder.path().join("output.txt"), &[(7, 0, b"a\n")]);
        let there = folder.path().join("output.txt-19700101T000000.000Z");
        std::fs::write(&there, "kept").unwrap();
        assert_eq!(code(&path), 1);
        assert_eq!(std::fs::read(&there).unwrap(), b"kept");
    }
}
