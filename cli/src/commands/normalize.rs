use clap::Args;
use ocikit::image::files::{Owner, Time};
use ocikit::image::{EarlierTimes, NormalizeOptions, layer_digests, normalize};
use ocikit::{Compression, Location};

use crate::change::{ChangeArguments, PlatformArguments};
use crate::context::Context;
use crate::failure::Result;
use crate::inside::lazy_formats;
use crate::layers::{CompressionArguments, epoch, owner, time};

const EXAMPLES: &str = "\
Examples:
  ocikit normalize app.tar
  ocikit normalize --time 1700000000 --owner 0:0 app.tar
  ocikit normalize --time 2024-01-01T00:00:00Z --all-times -o same.tar app.tar
  ocikit normalize --compression gzip ghcr.io/acme/app:1";

/// Make the layers and times of an image reproducible
///
/// Times of files, history and creation that are later than SOURCE_DATE_EPOCH are set to it; without it, the creation time of each image is used. Entries are ordered by path, and layers are compressed in the same way everywhere. Two builds of the same files get the same digest.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Normalize {
    /// Image to normalize
    location: Location,
    /// Latest time: seconds since 1970, or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = time)]
    time: Option<Time>,
    /// Set earlier times too
    #[arg(long)]
    all_times: bool,
    /// Owner of all files
    #[arg(long, value_name = "UID[:GID]", value_parser = owner)]
    owner: Option<Owner>,
    /// Keep the layers of this base image as they are; repeatable
    ///
    /// The image then shares them with other images in a registry.
    #[arg(long, value_name = "LOCATION")]
    base: Vec<Location>,
    #[command(flatten)]
    compression: CompressionArguments,
    #[command(flatten)]
    platforms: PlatformArguments,
    #[command(flatten)]
    change: ChangeArguments,
}

impl Normalize {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let mut options = NormalizeOptions::default();
        options.selection = self.platforms.selection();
        options.epoch = self.time.or_else(|| epoch(context));
        options.earlier = if self.all_times { EarlierTimes::Replace } else { EarlierTimes::Keep };
        options.owner = self.owner;
        options.formats = Some(lazy_formats());
        options.directory = Some(self.compression.directory());
        if self.compression.compression.is_some() || self.compression.has_level() {
            options.compression = Some(self.compression.encoder(Compression::Gzip)?);
        }
        let bases: Vec<_> = self.base.iter().map(|base| context.expand(base)).collect();
        let change = self.change.prepare(context, &self.location, &bases.iter().collect::<Vec<_>>())?;
        for base in &bases {
            let layers = layer_digests(&change.session.open(base).await?).await?;
            options.kept_layers.extend(layers);
        }
        change.run(self.platforms.is_partial(), async |root| normalize(&root, &options).await).await
    }
}
