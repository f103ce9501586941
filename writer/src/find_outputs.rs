//! Finds the outputs in a folder, including rotated ones, for `--folder` of `verify` and `merge`.

use crate::journal_file::path_of;
use service::Failure;
use std::path::{Path, PathBuf};

/// The named outputs, and those in the folders: every file with a journal beside it.
pub(crate) fn outputs(named: &[PathBuf], folders: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut outputs = named.to_vec();
    for folder in folders {
        let wrong = |why: &str| {
            let folder = folder.display();
            Failure::config(format!("--folder {folder}: {why}; allowed: a folder with outputs and their journals"))
        };
        let found = in_folder(folder).map_err(|error| wrong(&error.to_string()))?;
        if found.is_empty() {
            return Err(wrong("no output with a journal is in it"));
        }
        outputs.extend(found);
    }
    Ok(outputs)
}

fn in_folder(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_file() && path_of(&path).is_file() {
            found.push(path);
        }
    }
    // `read_dir` returns entries in no particular order.
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal_file::with_suffix;

    #[test]
    fn outputs_are_the_files_with_a_journal() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("output.txt");
        assert!(outputs(&[], &[folder.path().to_owned()]).is_err());
        for path in [&output, &with_suffix(&output, "-1"), &folder.path().join("other")] {
            std::fs::write(path, "").unwrap();
        }
        for path in [path_of(&output), path_of(&with_suffix(&output, "-1")), path_of(&folder.path().join("gone"))] {
            std::fs::write(path, "").unwrap();
        }
        let found = outputs(&["named".into()], &[folder.path().to_owned()]).unwrap();
        assert_eq!(found, [PathBuf::from("named"), output.clone(), with_suffix(&output, "-1")]);
        assert!(outputs(&[], &[folder.path().join("missing")]).is_err());
    }
}
