use clap::Args;
use ocikit::{Location, Platform};
use serde_json::json;

use crate::context::Context;
use crate::failure::Result;
use crate::inside;

const EXAMPLES: &str = "\
Examples:
  ocikit digest alpine:3.22
  ocikit digest app.tar
  ocikit digest --platform linux/arm64 alpine:3.22";

/// Print the digest of an image, an index or an artifact
///
/// For an archive or layout, this is the digest that the image has in a registry after a push.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Digest {
    /// Image, index or artifact
    location: Location,
    /// Print the digest of the image for this platform, not of the index
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
}

impl Digest {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        let source = context.session(&[&location])?.source(&location).await?;
        // The list of an archive or layout only names the digest; the bytes must have it.
        let descriptor = inside::find(&source, &location, self.platform.as_ref()).await?;
        let result =
            json!({ "digest": descriptor.digest, "mediaType": descriptor.media_type, "size": descriptor.size });
        context.output.result(&result, || descriptor.digest.to_string())
    }
}
