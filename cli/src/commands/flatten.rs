use clap::Args;
use ocikit::image::{FlattenOptions, flatten};
use ocikit::{Compression, Location};

use crate::change::{ChangeArguments, PlatformArguments};
use crate::context::Context;
use crate::failure::Result;
use crate::inside::lazy_formats;
use crate::layers::CompressionArguments;

const EXAMPLES: &str = "\
Examples:
  ocikit flatten app.tar
  ocikit flatten --compression zstd ghcr.io/acme/app:1
  ocikit flatten --platform linux/arm64 -o flat.tar oci:layout:1";

/// Replace the layers of an image by one with the same files
///
/// Files that upper layers hide or replace are left out. The config is kept, except for its history. An image with one layer is unchanged.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Flatten {
    /// Image to flatten
    location: Location,
    #[command(flatten)]
    compression: CompressionArguments,
    #[command(flatten)]
    platforms: PlatformArguments,
    #[command(flatten)]
    change: ChangeArguments,
}

impl Flatten {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let mut options = FlattenOptions::default();
        options.selection = self.platforms.selection();
        options.layer = self.compression.options(Compression::Gzip)?;
        options.formats = Some(lazy_formats());
        let change = self.change.prepare(context, &self.location, &[])?;
        change.run(self.platforms.is_partial(), async |root| flatten(&root, &options).await).await
    }
}
