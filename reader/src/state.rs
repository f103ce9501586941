//! The small file with the input's identity: the source's lineage, for a Redis that lost it.

use delivery::partition::Partition;
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
    partitions: u32,
    /// The file of a source with one partition.
    alone: PathBuf,
    /// The folder of one with several.
    shared: PathBuf,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    stream: String,
    #[serde(default = "one")]
    partitions: u32,
    generations: Vec<Generation>,
}

/// A source that says nothing of partitions.
const fn one() -> u32 {
    1
}

impl StateFile {
    /// The state file of an input that goes to a stream.
    ///
    /// Several partitions have theirs in a folder.
    pub(crate) fn new(folder: &Path, input: &Path, stream: &str, partition: Partition) -> Self {
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
        let alone = folder.join(format!(".{name}.{escaped}.source.json"));
        let shared = folder.join(format!(".{name}.{escaped}.partitions"));
        let path = match partition.is_whole() {
            true => alone.clone(),
            false => shared.join(format!("{}.json", partition.index())),
        };
        Self { path, partitions: partition.count(), alone, shared }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// With how many partitions the source was begun, when that is another number, and what says so. `None`: not with another one, as far as is known here.
    pub(crate) fn other_number(&self) -> io::Result<Option<(u32, &Path)>> {
        let number = |path: &Path| match fs::read(path) {
            Ok(bytes) => Ok(serde_json::from_slice::<State>(&bytes).ok().map(|state| state.partitions)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        let mut begun = number(&self.alone)?.map(|begun| (begun, self.alone.as_path()));
        if begun.is_none() && self.shared.is_dir() {
            for entry in fs::read_dir(&self.shared)? {
                begun = begun.or(number(&entry?.path())?.map(|begun| (begun, self.shared.as_path())));
            }
        }
        Ok(begun.filter(|(begun, _)| *begun != self.partitions))
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
        let state = State {
            stream: stream.to_owned(),
            partitions: self.partitions,
            generations: lineage.iter().cloned().collect(),
        };
        let mut bytes = serde_json::to_vec_pretty(&state).map_err(io::Error::other)?;
        bytes.push(b'\n');
        if self.partitions > 1
            && let Some(folder) = self.path.parent()
            && let Err(error) = fs::create_dir(folder)
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(error);
        }
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
        let file = StateFile::new(folder.path(), Path::new("/data/input.txt"), "line_stream:{0}", Partition::WHOLE);
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
        let of = |index, count| {
            let partition = Partition::new(index, count).unwrap();
            StateFile::new(folder.path(), Path::new("/data/input.txt"), "line_stream:{0}", partition)
        };
        assert_eq!(file.other_number().unwrap().map(|(begun, _)| begun), None);
        assert_eq!(of(0, 3).other_number().unwrap().map(|(begun, _)| begun), Some(1));
        fs::write(file.path(), [0; 40]).unwrap();
        assert_eq!(of(0, 3).other_number().unwrap().map(|(begun, _)| begun), None, "nothing is known");
        of(2, 3).store("line_stream:{0}", &Lineage::default()).unwrap();
        assert_eq!(of(0, 3).other_number().unwrap().map(|(begun, _)| begun), None);
        assert_eq!(of(0, 4).other_number().unwrap().map(|(begun, _)| begun), Some(3));
        assert_eq!(file.other_number().unwrap().map(|(begun, _)| begun), Some(3));
        let (lineage, complaint) = file.load().unwrap();
        assert!(lineage.is_empty() && complaint.is_some());
    }
}
