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

    /// The program that builds it [default: the first one that is installed]
    #[arg(long, value_parser = ["podman", "buildah", "docker"])]
    engine: Option<String>,

    /// Target platforms, such as linux/arm64. Several, separated by commas, make one multi-platform
    /// image
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
}

/// The arguments for the engine.
fn build_args(engine: &str, word: &str, args: &ImageArgs) -> Vec<String> {
    let is_list = args.platform.as_deref().is_some_and(|platform| platform.contains(','));
    // Docker tags an image index; podman and buildah create a manifest.
    let name = if is_list && engine != "docker" { "--manifest" } else { "--tag" };
    let mut words = vec![word.to_owned(), "--file".to_owned(), "Containerfile".to_owned()];
    if let Some(platform) = &args.platform {
        words.extend(["--platform".to_owned(), platform.clone()]);
    }
    words.extend([name.to_owned(), args.tag.clone(), ".".to_owned()]);
    words
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
    command.current_dir(cargo::workspace()?).args(build_args(name, word, args));
    Child::spawn(name, &mut command)?.must_succeed(&interrupt)?;
    println!("built: {}", args.tag);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_platforms_make_one_image() {
        let words = |engine: &str, platform: Option<&str>| {
            let args = ImageArgs { tag: "a:1".to_owned(), engine: None, platform: platform.map(str::to_owned) };
            build_args(engine, "build", &args).join(" ")
        };
        assert_eq!(words("docker", None), "build --file Containerfile --tag a:1 .");
        assert_eq!(
            words("podman", Some("linux/arm64")),
            "build --file Containerfile --platform linux/arm64 --tag a:1 ."
        );
        let both = Some("linux/amd64,linux/arm64");
        assert!(words("buildah", both).ends_with("--platform linux/amd64,linux/arm64 --manifest a:1 ."));
        assert!(words("docker", both).ends_with("--tag a:1 ."));
    }
}
