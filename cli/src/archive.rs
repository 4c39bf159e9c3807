//! Arguments for writing archives.

use clap::Args;
use ocikit::layout::{DockerList, TarOptions};
use ocikit::{Platform, SessionOptions};

/// Arguments of commands that can write an archive.
#[derive(Debug, Args)]
pub(crate) struct ArchiveArguments {
    /// Make `docker load` use this platform, or that of this machine
    ///
    /// If the image has no such platform, the first one is used. Without this flag, `docker load` accepts an archive
    /// that holds one platform, or several that include the platform of this machine.
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    docker: Option<DockerPlatform>,
    /// Leave out the `manifest.json` that `docker load` needs
    #[arg(long, conflicts_with = "docker")]
    no_docker: bool,
    /// Add to an existing archive instead of replacing it
    #[arg(long)]
    append: bool,
}

/// The value of `--docker`: a platform, or `None` for the platform of this machine.
#[derive(Debug, Clone)]
struct DockerPlatform(Option<Platform>);

impl std::str::FromStr for DockerPlatform {
    type Err = ocikit::spec::Error;

    fn from_str(text: &str) -> Result<DockerPlatform, Self::Err> {
        let platform = (!text.is_empty()).then(|| text.parse()).transpose();
        platform.map(DockerPlatform)
    }
}

impl ArchiveArguments {
    /// Returns session options with these arguments applied.
    pub(crate) fn options(&self) -> SessionOptions {
        let docker = match &self.docker {
            _ if self.no_docker => DockerList::None,
            Some(choice) => DockerList::For(choice.0.clone().unwrap_or_else(Platform::of_this_machine)),
            None => DockerList::default(),
        };
        let archive = TarOptions::default().docker(docker);
        SessionOptions::default().archive(archive).append(self.append)
    }
}
