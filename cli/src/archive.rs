use clap::Args;
use ocikit::layout::TarOptions;
use ocikit::{Platform, SessionOptions};

/// How archives are written by commands that may write one.
#[derive(Debug, Args)]
pub(crate) struct Archive {
    /// Add a `manifest.json` to an archive, so that `docker load` takes it: the image for this platform, of this machine if
    /// none is given
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    docker: Option<Choice>,
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
        let docker = self.docker.clone().map(|choice| choice.0.unwrap_or_else(Platform::of_this_machine));
        let archive = TarOptions { docker, ..TarOptions::default() };
        SessionOptions { archive, append: self.append, ..SessionOptions::default() }
    }
}
