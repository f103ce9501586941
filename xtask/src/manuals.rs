//! Shell completions and man pages of both services.

use std::fs::{self, File};
use std::path::PathBuf;

use clap::Args;

use crate::cargo;
use crate::child::{Child, tied};
use crate::interrupt::Interrupt;
use crate::{Error, Result};

/// The shells, with prefix and suffix of the file names.
const SHELLS: [(&str, &str, &str); 5] = [
    ("bash", "", ".bash"),
    ("zsh", "_", ""),
    ("fish", "", ".fish"),
    ("elvish", "", ".elv"),
    ("powershell", "_", ".ps1"),
];

#[derive(Args)]
pub(crate) struct ManualArgs {
    /// The folder to write to [default: target/completions or target/man]
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
}

impl ManualArgs {
    fn folder(&self, default: &str) -> Result<PathBuf> {
        let folder = match &self.to {
            Some(folder) => std::path::absolute(folder).unwrap_or_else(|_| folder.clone()),
            None => cargo::target()?.join(default),
        };
        fs::create_dir_all(&folder).map_err(|error| Error::new(format!("{}: {error}", folder.display())))?;
        Ok(folder)
    }
}

/// The completions of both services for each shell.
pub(crate) fn completions(args: &ManualArgs) -> Result<()> {
    let interrupt = Interrupt::watch()?;
    let folder = args.folder("completions")?;
    let binaries = cargo::build(false, &interrupt)?;
    for (name, program) in [("reader", &binaries.reader), ("writer", &binaries.writer)] {
        for (shell, before, after) in SHELLS {
            let path = folder.join(format!("{before}{name}{after}"));
            let file = File::create(&path).map_err(|error| Error::new(format!("{}: {error}", path.display())))?;
            let mut command = tied(program);
            command.args(["completions", shell]).stdout(file);
            Child::spawn(name, &mut command)?.must_succeed(&interrupt)?;
        }
    }
    println!("written: {}", folder.display());
    println!("bash: source a file of these; zsh: put the folder into fpath; fish: copy to ~/.config/fish/completions");
    Ok(())
}

/// The man pages of both services.
pub(crate) fn man(args: &ManualArgs) -> Result<()> {
    let interrupt = Interrupt::watch()?;
    let folder = args.folder("man")?;
    let binaries = cargo::build(false, &interrupt)?;
    for (name, program) in [("reader", &binaries.reader), ("writer", &binaries.writer)] {
        let mut command = tied(program);
        command.arg("man").arg(&folder);
        Child::spawn(name, &mut command)?.must_succeed(&interrupt)?;
    }
    println!("written: {0}; read one with: man {0}/reader.1", folder.display());
    Ok(())
}
