//! The files of a tree, grouped by source: for `--input-dir` and `--output-dir` of `verify` and
//! `merge`.
//!
//! An output belongs to the source whose name its journal gives it in its folder, so rotated
//! outputs need no naming rule. An input belongs to the source with its name, or to the source
//! whose rotated file its name says that it is.

use crate::journal_file::path_of;
use delivery::journal::Header;
use delivery::rotated_names::{NameKind, classify};
use service::Failure;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// The longest header of a journal: three names of at most 64 KiB, twice.
const HEADER: u64 = 512 << 10;

/// The files of a source.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Files {
    /// The input, its rotated files, and their compressed files.
    pub(crate) inputs: Vec<PathBuf>,
    /// The output and its rotated files.
    pub(crate) outputs: Vec<PathBuf>,
}

/// The sources by name: a path below the folder.
pub(crate) type Sources = BTreeMap<PathBuf, Files>;

/// Finds the outputs below these folders.
pub(crate) fn outputs(folders: &[PathBuf]) -> Result<Sources, Failure> {
    let mut sources = Sources::new();
    for root in folders {
        let mut found = false;
        for path in files_below(root, "--output-dir")? {
            let journal = path_of(&path);
            if !journal.is_file() {
                continue;
            }
            found = true;
            let output = name_in_journal(&journal)
                .map_err(|error| Failure::config(format!("--output-dir: reading {}: {error}", journal.display())))?;
            let output = output.map_or_else(|| path.clone(), |name| path.with_file_name(name));
            let name = output.strip_prefix(root).unwrap_or(&output).to_owned();
            sources.entry(name).or_default().outputs.push(path);
        }
        if !found {
            let root = root.display();
            return Err(Failure::config(format!(
                "--output-dir {root}: no output with a journal is in it; allowed: the folder of a writer's outputs"
            )));
        }
    }
    Ok(sources)
}

/// Adds the inputs below a folder to the sources that they belong to. An input that belongs to none
/// is a source of its own, without an output.
pub(crate) fn add_inputs(sources: &mut Sources, root: &Path) -> Result<(), Failure> {
    let mut others = Vec::new();
    for path in files_below(root, "--input-dir")? {
        let name = path.strip_prefix(root).unwrap_or(&path).to_owned();
        match sources.get_mut(&name) {
            Some(files) => files.inputs.push(path),
            None if !is_state_file(&name) => others.push((name, path)),
            None => {}
        }
    }
    // Shorter names first: a rotated file is added after the file whose name it extends.
    others.sort_by_key(|(name, _)| (name.as_os_str().len(), name.clone()));
    for (name, path) in others {
        let source = source_of(&name, sources).unwrap_or(name);
        sources.entry(source).or_default().inputs.push(path);
    }
    for files in sources.values_mut() {
        files.inputs.sort();
    }
    Ok(())
}

/// The source whose rotated file has this name. If there are several, the one with the longest
/// name: `app.log.1.gz` belongs to a source `app.log.1` rather than to `app.log`.
fn source_of(name: &Path, sources: &Sources) -> Option<PathBuf> {
    let (folder, file) = (name.parent()?, name.file_name()?.to_str()?);
    let in_folder = sources.range(folder.to_owned()..).take_while(|(source, _)| source.starts_with(folder));
    in_folder
        .filter(|(source, _)| source.parent() == Some(folder))
        .filter_map(|(source, _)| Some((source, source.file_name()?.to_str()?)))
        .filter(|(_, source)| matches!(classify(file, source), NameKind::Rotated(_) | NameKind::Compressed(_)))
        .max_by_key(|(_, source)| source.len())
        .map(|(source, _)| source.clone())
}

/// The reader's record of a source, which it keeps beside its input.
fn is_state_file(name: &Path) -> bool {
    let name = name.file_name().unwrap_or_default().as_bytes();
    name.starts_with(b".") && name.ends_with(b".source.json")
}

/// The name that an output had when its journal was begun. `None` if there is no header, or one of
/// version 1, which has no names.
fn name_in_journal(journal: &Path) -> io::Result<Option<PathBuf>> {
    let mut head = Vec::new();
    File::open(journal)?.take(HEADER).read_to_end(&mut head)?;
    let owner = Header::read(&head).and_then(|(header, _, _)| header.owner);
    Ok(owner.map(|owner| PathBuf::from(OsStr::from_bytes(&owner.name))).filter(|name| name.file_name().is_some()))
}

/// All regular files below a folder, and links to such files. Links to folders are not followed.
fn files_below(root: &Path, flag: &str) -> Result<Vec<PathBuf>, Failure> {
    let (mut files, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        let mut list = || -> io::Result<()> {
            for entry in std::fs::read_dir(&folder)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    folders.push(entry.path());
                } else if entry.path().is_file() {
                    files.push(entry.path());
                }
            }
            Ok(())
        };
        list().map_err(|error| {
            Failure::config(format!("{flag} {}: {error}; allowed: a folder that can be listed", folder.display()))
        })?;
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_outputs::write_output;

    fn names(paths: &[PathBuf]) -> Vec<&str> {
        paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect()
    }

    #[test]
    fn files_are_grouped_by_source() {
        let folder = tempfile::tempdir().unwrap();
        let (inputs, out) = (folder.path().join("in"), folder.path().join("out"));
        for name in [
            "a/app.log",
            "a/app.log.1",
            "a/app.log.2.gz",
            "a/.app.log.line_stream.source.json",
            "a/app-2.log",
            "b/app.log.1",
            "lone.log.1",
            "lone.log",
        ] {
            let path = inputs.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        for name in ["a/app.log", "b/app.log"] {
            std::fs::create_dir_all(out.join(name).parent().unwrap()).unwrap();
            write_output(&out.join(name), &[(7, 0, b"a\n")]);
        }
        // Rotated to a name that no rule knows.
        let rotated = out.join("a/old");
        std::fs::rename(out.join("a/app.log"), &rotated).unwrap();
        std::fs::rename(path_of(&out.join("a/app.log")), path_of(&rotated)).unwrap();
        write_output(&out.join("a/app.log"), &[(7, 2, b"b\n")]);

        let mut sources = outputs(&[out]).unwrap();
        add_inputs(&mut sources, &inputs).unwrap();
        let found: Vec<_> = sources
            .iter()
            .map(|(name, files)| (name.to_str().unwrap(), names(&files.inputs), names(&files.outputs)))
            .collect();
        assert_eq!(
            found,
            [
                ("a/app-2.log", vec!["app-2.log"], vec![]),
                ("a/app.log", vec!["app.log", "app.log.1", "app.log.2.gz"], vec!["app.log", "old"]),
                ("b/app.log", vec!["app.log.1"], vec!["app.log"]),
                ("lone.log", vec!["lone.log", "lone.log.1"], vec![]),
            ]
        );
    }

    #[test]
    fn a_folder_without_outputs_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for root in [folder.path().to_owned(), folder.path().join("missing")] {
            let error = outputs(&[root]).unwrap_err();
            assert_eq!(error.code(), 2);
        }
    }
}
