use clap::Args;
use ocikit::image::remove_from_index;
use ocikit::{Digest, Error, Index, Location, Platform, Session};

use super::changed::run;
use crate::change::ChangeArguments;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::quote::quoted;

const EXAMPLES: &str = "\
Examples:
  ocikit index remove --platform linux/s390x --platform linux/ppc64le ghcr.io/acme/app:1
  ocikit index remove --platform unknown/unknown app.tar
  ocikit index remove --digest sha256:ef8b48ccc49e0036161617d8b451b4052403a759a518b624c351db6ac79a8452 oci:layout:1";

/// Remove images from an index, with their attestation manifests
///
/// Changes a local archive or layout in place, and moves a tag in a registry. The manifests and layers of the removed images
/// are kept. Prints the new digest.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Remove {
    /// Index to change
    location: Location,
    /// Remove the images for this platform; repeatable
    ///
    /// A variant has to be the same: `linux/arm64` removes no image for `linux/arm64/v9`. `unknown/unknown` removes all
    /// attestation manifests.
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", required_unless_present = "digest")]
    platform: Vec<Platform>,
    /// Remove the entry with this digest; repeatable
    #[arg(long, value_name = "DIGEST")]
    digest: Vec<Digest>,
    #[command(flatten)]
    change: ChangeArguments,
}

impl Remove {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let Remove { digest, platform, .. } = self;
        let change = self.change.prepare(context, &self.location, &[])?;
        let in_place =
            async |session: &Session, index: &Location| session.remove_from_index(index, digest, platform).await;
        let compose = async |_: &Session, index: &Index| remove_from_index(index, digest, platform);
        // The general hint names another platform, whose image would be removed.
        let explain = |error: Error| {
            let is_no_entry = matches!(error, Error::NoPlatform { .. } | Error::NotFound { .. });
            match (is_no_entry, Failure::from(error)) {
                (true, failure) => {
                    let location = quoted(&change.location.to_string()).into_owned();
                    failure.hint(format_args!("`ocikit index list {location}` lists the entries"))
                }
                (false, failure) => failure,
            }
        };
        run(&change, in_place, compose, explain).await
    }
}
