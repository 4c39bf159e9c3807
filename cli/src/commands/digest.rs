use clap::Args;
use ocikit::{Location, Platform, Root, SourceExt};
use serde::Serialize;

use crate::context::Context;
use crate::failure::Result;

/// Print the digest that a registry has, or will have, for an image
#[derive(Debug, Args)]
pub(crate) struct Digest {
    /// The image
    location: Location,
    /// The digest of the image for this platform instead of that of the index
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Facts {
    digest: ocikit::Digest,
    media_type: ocikit::MediaType,
    size: u64,
}

impl Digest {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        let source = context.session(&[&location])?.source(&location).await?;
        let mut descriptor = source.find(&location.name()).await?;
        if let Some(platform) = &self.platform {
            let root = super::inspect::for_platform(Root::at(source, descriptor).await?, platform).await?;
            descriptor = root.descriptor().clone();
        } else if !matches!(location, Location::Registry(_)) {
            // The list of an archive or layout only names the digest; the bytes must have it.
            source.read(&descriptor).await?;
        }
        let facts = Facts { digest: descriptor.digest, media_type: descriptor.media_type, size: descriptor.size };
        context.output.facts(&facts, || facts.digest.to_string())
    }
}
