//! The container image of both services.

use clap::Args;

use crate::cargo;
use crate::child::Child;
use crate::install::on_path;
use crate::interrupt::Interrupt;
use crate::{Error, Result};

/// The programs that build images, with their arguments.
const ENGINES: [(&str, &str); 3] = [("podman", "build"), ("buildah", "build"), ("docker", "build")];

#[derive(Args)]
pub(crate) struct ImageArgs {
    /// The image's name and tag, with the registry if you push it
    #[arg(long, value_name = "NAME:TAG", default_value = concat!("docker.io/library/line-stream:", env!("CARGO_PKG_VERSION")))]
    tag: String,

    /// The builder [default: the first that is installed]
    #[arg(long, value_parser = ["podman", "buildah", "docker"])]
    engine: Option<String>,
}

pub(crate) fn run(args: &ImageArgs) -> Result<()> {
    let interrupt = Interrupt::watch()?;
    let wanted = |name: &str| args.engine.as_deref().is_none_or(|engine| engine == name);
    let found = ENGINES
        .into_iter()
        .filter(|(name, _)| wanted(name))
        .find_map(|(name, word)| Some((on_path(name)?, name, word)));
    let Some((program, name, word)) = found else {
        let names = args.engine.as_deref().unwrap_or("podman, buildah or docker");
        return Err(Error::new(format!(
            "{names}: not found here; install one that builds images from a Containerfile"
        )));
    };
    println!("building {} with {name}", args.tag);
    let mut command = crate::child::tied(program);
    command.current_dir(cargo::workspace()?).args([word, "--file", "Containerfile", "--tag", &args.tag, "."]);
    Child::spawn(name, &mut command)?.must_succeed(&interrupt)?;
    println!("built: {}", args.tag);
    Ok(())
}
