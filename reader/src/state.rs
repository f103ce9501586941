//! The small file with the input's identity: the source's lineage, for a Redis that lost it.

use delivery::source::{Generation, Lineage};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// The state file. It is rewritten only when a generation begins or ends.
#[derive(Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    stream: String,
    generations: Vec<Generation>,
}

impl StateFile {
    /// The state file of an input that goes to a stream.
    pub(crate) fn new(folder: &Path, input: &Path, stream: &str) -> Self {
        let name = input.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        // Every other byte as %XX, so that two streams never share a file.
        let mut escaped = String::new();
        for byte in stream.bytes() {
            if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
                escaped.push(char::from(byte));
            } else {
                let _ = write!(escaped, "%{byte:02X}");
            }
        }
        Self { path: folder.join(format!(".{name}.{escaped}.source.json")) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What the file holds; an empty lineage when it does not exist. A file that cannot be understood (cut by a power loss) counts as
    /// empty too, and the answer says so: Redis has the same records.
    pub(crate) fn load(&self) -> io::Result<(Lineage, Option<String>)> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Lineage::default(), None)),
            Err(error) => return Err(error),
        };
        let mut lineage = Lineage::default();
        match serde_json::from_slice::<State>(&bytes) {
            Ok(state) => {
                state.generations.into_iter().for_each(|g| lineage.insert(g));
                Ok((lineage, None))
            }
            Err(error) => Ok((lineage, Some(error.to_string()))),
        }
    }

    /// Replaces what the file holds, so that a crash leaves the old or the new.
    pub(crate) fn store(&self, stream: &str, lineage: &Lineage) -> io::Result<()> {
        let state = State { stream: stream.to_owned(), generations: lineage.iter().cloned().collect() };
        let mut bytes = serde_json::to_vec_pretty(&state).map_err(io::Error::other)?;
        bytes.push(b'\n');
        // Two readers on one file may write at once: each has a file of its own until the rename.
        let temporary = self.path.with_extension(format!("json.{}", std::process::id()));
        let mut file = File::create(&temporary)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        self.path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_is_loaded_and_garbage_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::new(folder.path(), Path::new("/data/input.txt"), "line_stream:{0}");
        assert_eq!(file.load().unwrap().0, Lineage::default());
        let mut lineage = Lineage::default();
        lineage.insert(Generation {
            generation: 5,
            root: 5,
            start: 0,
            previous_end: Some(9),
            previous_guard: None,
            path: "/data/input.txt".into(),
            dev: 1,
            ino: 2,
            head_len: 3,
            head_hash: u64::MAX,
        });
        file.store("line_stream:{0}", &lineage).unwrap();
        assert_eq!(file.load().unwrap(), (lineage, None));
        fs::write(file.path(), [0; 40]).unwrap();
        let (lineage, complaint) = file.load().unwrap();
        assert!(lineage.is_empty() && complaint.is_some());
    }
}
