use clap::Args;
use ocikit::{Location, Platform};

use crate::context::Context;
use crate::failure::Result;
use crate::inside;

const EXAMPLES: &str = "\
Examples:
  ocikit config alpine:3.22
  ocikit config --platform linux/arm64 app.tar";

/// Print the exact bytes of the config of an image
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Config {
    /// Image to read
    location: Location,
    /// Select the image for this platform; default: that of this machine
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
}

impl Config {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        let root = context.session(&[&location])?.open(&location).await?;
        context.output.bytes(&inside::config(root, self.platform.as_ref()).await?)
    }
}
