use clap::Args;
use ocikit::{Location, Platform};

use super::inspect;
use crate::context::Context;
use crate::failure::Result;

/// Print the exact bytes of an image's config; of an index that of this machine's platform
#[derive(Debug, Args)]
pub(crate) struct Config {
    /// The image
    location: Location,
    /// The config of the image for this platform
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
}

impl Config {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        let root = context.session(&[&location])?.open(&location).await?;
        context.output.bytes(&inspect::config(root, self.platform.as_ref()).await?)
    }
}
