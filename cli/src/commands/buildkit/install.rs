use clap::Args;
use ocikit::{Location, Name, Platform};
use ocikit_build::InstallationSource;

use super::installed::installed;
use super::list::InstallationOutput;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::inside;
use crate::quote::quoted;

const INSTALL_EXAMPLES: &str = "\
Examples:
  ocikit buildkit install --from moby/buildkit@sha256:0000000000000000000000000000000000000000000000000000000000000000
  ocikit buildkit install --from ./buildkit.tar@sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// Install BuildKit from an image into the cache directory of the user
///
/// Downloads the image from a registry, or reads an archive or a layout, verifies it, and keeps its programs: buildctl, buildkitd,
/// runc and rootlesskit. Builds then use them unless BUILDKIT_HOST is set or `buildkitd` is on the PATH. Several digests can be
/// installed; the last one is used. Prints the directory of the programs.
#[derive(Debug, Args)]
#[command(after_help = INSTALL_EXAMPLES)]
pub(super) struct Install {
    /// Image of BuildKit, with its digest
    ///
    /// `ocikit digest moby/buildkit:TAG` prints the digest of a tag.
    #[arg(long, value_name = "LOCATION@DIGEST")]
    from: Location,
    /// Take the image for this platform; default: that of this machine
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
}

impl Install {
    pub(super) async fn run(&self, context: &Context) -> Result {
        let from = context.expand(&self.from);
        let Name::Digest(digest) = from.name() else {
            let name = from.to_string();
            let shown = quoted(&name);
            return Err(Failure::usage(format_args!("cannot install BuildKit from {from}: the digest is missing"))
                .hint(format_args!("add @DIGEST; `ocikit digest {shown}` prints it")));
        };
        let installations = installed()?;
        let platform = self.platform.clone().unwrap_or_else(Platform::of_this_machine);
        let source = InstallationSource::of(digest, self.from.to_string()).for_platform(platform.clone());
        let installation = match installations.select(&source)? {
            Some(installation) => {
                context.output.say(format!("BuildKit {} is installed already", installation.version));
                installation
            }
            None => {
                let root = context.session(&[&from])?.open(&from).await?;
                let image = inside::image_of(root, Some(&platform)).await?;
                let installation = installations.install(&image, &source).await?;
                context.output.say(format!("installed BuildKit {}", installation.version));
                installation
            }
        };
        let path = installation.programs.display().to_string();
        context.output.result(&InstallationOutput::of(installation), || path)
    }
}
