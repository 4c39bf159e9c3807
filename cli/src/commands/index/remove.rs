use clap::Args;
use ocikit::image::remove_from_index;
use ocikit::{Digest, IndexChange, Location, Platform};

use super::changed::{open, report};
use super::create::store;
use super::members::say_notes;
use crate::context::Context;
use crate::failure::Result;

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
    /// Write the result to this location and leave the original unchanged
    #[arg(long, short, value_name = "LOCATION")]
    output: Option<Location>,
    /// Remove referrers that do not apply to the new digest
    #[arg(long, conflicts_with = "output")]
    drop_referrers: bool,
    /// Print the new digest without changing anything
    #[arg(long)]
    dry_run: bool,
}

impl Remove {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        let output = self.output.as_ref().map(|output| context.expand_output(output));
        let locations: Vec<_> = [&location].into_iter().chain(&output).collect();
        let session = context.session(&locations)?;
        if !self.dry_run && output.is_none() {
            let change = session.remove_from_index(&location, &self.digest, &self.platform).await?;
            say_notes(context, &change.composed);
            return report(context, &session, &location, &change, self.drop_referrers).await;
        }
        let index = open(&session, &location).await?;
        let composed = remove_from_index(&index, &self.digest, &self.platform)?;
        say_notes(context, &composed);
        let change = IndexChange::planned(&index, composed).await?;
        let target = output.as_ref().unwrap_or(&location);
        if !self.dry_run {
            store(&session, &change.composed.index, target).await?;
        }
        report(context, &session, target, &change, false).await
    }
}
