//! Builds outputs and batches for tests.

use crate::args::Fsync;
use crate::output::Output;
use delivery::consumer::Batch;
use delivery::journal::Identity;
use delivery::partition::Partition;
use std::path::{Path, PathBuf};

/// A batch of runs: file ID, start, bytes.
pub(crate) fn batch(runs: &[(u64, u64, &[u8])]) -> Batch {
    let mut batch = Batch::default();
    for &(file_id, start, bytes) in runs {
        batch.data.extend_from_slice(bytes);
        batch.extend(file_id, start..start + bytes.len() as u64, bytes.iter().filter(|&&b| b == b'\n').count() as u64);
    }
    batch
}

/// The identity of the outputs of tests.
pub(crate) fn identity() -> Identity {
    Identity::new("line_stream", "writers", &[Partition::WHOLE])
}

/// Writes an output with its journal, with one commit per run.
pub(crate) fn write_output(path: &Path, runs: &[(u64, u64, &[u8])]) -> PathBuf {
    let mut output = Output::open(path, &identity(), Fsync::Always, None).unwrap().output;
    for run in runs {
        output.commit(&batch(std::slice::from_ref(run))).unwrap();
    }
    path.to_owned()
}
