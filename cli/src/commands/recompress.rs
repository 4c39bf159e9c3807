use clap::Args;
use ocikit::image::{RecompressOptions, recompress};
use ocikit::{Compression, Location};

use crate::change::{ChangeArguments, PlatformArguments};
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::inside::lazy_formats;
use crate::layers::CompressionArguments;

const EXAMPLES: &str = "\
Examples:
  ocikit recompress --compression zstd app.tar
  ocikit recompress --compression gzip --level 9 ghcr.io/acme/app:1
  ocikit recompress --compression zstd --platform linux/amd64 -o small.tar oci:layout:1";

/// Change the compression of the layers of an image
///
/// The uncompressed layers and the config are unchanged. A layer that has the format already is kept, unless a level is given. A layer that several platforms share is compressed once. The bytes do not depend on the number of threads.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Recompress {
    /// Image to recompress
    location: Location,
    #[command(flatten)]
    compression: CompressionArguments,
    #[command(flatten)]
    platforms: PlatformArguments,
    #[command(flatten)]
    change: ChangeArguments,
}

impl Recompress {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        if self.compression.compression.is_none() && !self.compression.has_level() {
            return Err(Failure::usage("cannot recompress: give --compression or --level"));
        }
        let mut options = RecompressOptions::default();
        options.selection = self.platforms.selection();
        options.layer = self.compression.options(Compression::Gzip)?;
        options.formats = Some(lazy_formats());
        let change = self.change.prepare(context, &self.location, &[])?;
        change.run(self.platforms.is_partial(), async |root| recompress(&root, &options).await).await
    }
}
