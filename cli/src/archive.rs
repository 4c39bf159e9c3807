use clap::Args;
use ocikit::layout::{DockerList, TarOptions};
use ocikit::{Platform, SessionOptions};

/// How archives are written by commands that may write one.
#[derive(Debug, Args)]
pub(crate) struct Archive {
    /// Let `docker load` take the image for this platform, or the first if there is none for it. By default it takes an
    /// image for one platform, and of several the one for this machine
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    docker: Option<Choice>,
    /// Leave out the `manifest.json` by which `docker load` takes an archive
    #[arg(long, conflicts_with = "docker")]
    no_docker: bool,
    /// Add to the archive that is there instead of replacing it
    #[arg(long)]
    append: bool,
}

/// A platform, or that of this machine.
#[derive(Debug, Clone)]
struct Choice(Option<Platform>);

impl std::str::FromStr for Choice {
    type Err = ocikit::spec::Error;

    fn from_str(text: &str) -> Result<Choice, Self::Err> {
        let platform = (!text.is_empty()).then(|| text.parse()).transpose();
        platform.map(Choice)
    }
}

impl Archive {
    /// The options of a session with these in them.
    pub(crate) fn options(&self) -> SessionOptions {
        let docker = match &self.docker {
            _ if self.no_docker => DockerList::None,
            Some(choice) => DockerList::For(choice.0.clone().unwrap_or_else(Platform::of_this_machine)),
            None => DockerList::default(),
        };
        let archive = TarOptions { docker, ..TarOptions::default() };
        SessionOptions { archive, append: self.append, ..SessionOptions::default() }
    }
}
