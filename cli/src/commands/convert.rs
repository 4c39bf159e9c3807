use std::sync::{Mutex, PoisonError};

use clap::{Args, ValueEnum};
use ocikit::image::files;
use ocikit::image::{ConvertOptions, Dropped, Format, Name, Selection, UnsupportedParts, convert};
use ocikit::{Location, Tag};
use ocikit_lazy::rafs::{ChunkSize, Compressor, NydusOptions, RafsVersion};
use ocikit_lazy::{EstargzOptions, LazyOptions, PlainOptions, SociOptions, SociVersion, ZstdChunkedOptions};

use crate::change::{ChangeArguments, PlatformArguments};
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::layers::{CompressionArguments, CompressionName};

const EXAMPLES: &str = "\
Examples:
  ocikit convert --to oci registry.example.com/app:1
  ocikit convert --to docker --drop-unsupported -o docker.tar app.tar
  ocikit convert --to zstd-chunked -o ghcr.io/acme/app:zstd app.tar
  ocikit convert --to nydus --suffix ghcr.io/acme/app:1";

/// Convert an image to another format of documents or layers
///
/// `oci` and `docker` apply to an index and all of its images; configs and layers are the same blobs. Docker's format has no annotations: a warning lists those that are left out.
///
/// `estargz`, `zstd-chunked`, `soci` and `nydus` make images that start before all of their files have arrived. Ordinary programs read them too, except those of Nydus. `plain` is the way back. A layer that the format cannot express is kept, with a warning. An image that has the format already stays the same.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Convert {
    /// Image to convert
    location: Location,
    /// Format of the result
    #[arg(long, value_enum, value_name = "FORMAT")]
    to: FormatName,
    /// Leave out attestations and subjects, which Docker's format lacks
    #[arg(long)]
    drop_unsupported: bool,
    /// Write the result to the tag of the image with this suffix
    #[arg(long, value_name = "SUFFIX", num_args = 0..=1, default_missing_value = "-fastpull", require_equals = true)]
    #[arg(conflicts_with_all = ["output", "drop_referrers"])]
    suffix: Option<String>,
    #[command(flatten)]
    soci: SociArguments,
    #[command(flatten)]
    nydus: NydusArguments,
    #[command(flatten)]
    compression: CompressionArguments,
    #[command(flatten)]
    platforms: PlatformArguments,
    #[command(flatten)]
    change: ChangeArguments,
}

/// The options of SOCI.
#[derive(Debug, Args)]
struct SociArguments {
    /// Where the SOCI index is: beside the image, or as a referrer (v1)
    #[arg(long, value_enum, value_name = "VERSION", default_value = "v2")]
    soci_version: SociVersionName,
    /// Smallest layer with a SOCI index, in bytes; default: 10 MiB
    #[arg(long, value_name = "BYTES")]
    min_layer_size: Option<u64>,
    /// Distance of checkpoints of SOCI, in bytes; default: 4 MiB
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    span_size: Option<u64>,
}

/// The options of Nydus.
#[derive(Debug, Args)]
struct NydusArguments {
    /// Version of RAFS, the file system of Nydus: 5 or 6
    #[arg(long, value_name = "VERSION", default_value_t)]
    rafs_version: RafsVersion,
    /// Compression of the chunks of Nydus: none, lz4_block or zstd
    #[arg(long, value_name = "COMPRESSOR", default_value_t)]
    compressor: Compressor,
    /// Size of the chunks of Nydus in bytes, a power of two; default: 1 MiB
    #[arg(long, value_name = "BYTES")]
    chunk_size: Option<u32>,
    /// File or directory that a mount of Nydus reads ahead; repeatable
    #[arg(long, value_name = "PATH")]
    prefetch: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FormatName {
    Oci,
    Docker,
    Plain,
    Estargz,
    ZstdChunked,
    Soci,
    Nydus,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SociVersionName {
    V1,
    V2,
}

impl Convert {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        if self.compression.compression.is_some() && !matches!(self.to, FormatName::Plain) {
            return Err(Failure::usage("cannot use --compression: only `--to plain` has a choice"));
        }
        let level = |name| self.compression.encoder(name).map(|encoder| encoder.level);
        let lazy = match self.to {
            FormatName::Oci => return self.documents(context, Format::Oci).await,
            FormatName::Docker => return self.documents(context, Format::Docker).await,
            FormatName::Plain => {
                let mut options = PlainOptions::default();
                options.encoder = self.compression.encoder(CompressionName::Gzip)?;
                ocikit_lazy::Format::Plain(options)
            }
            FormatName::Estargz => {
                let mut options = EstargzOptions::default();
                options.level = level(CompressionName::Gzip)?;
                ocikit_lazy::Format::Estargz(options)
            }
            FormatName::ZstdChunked => {
                let mut options = ZstdChunkedOptions::default();
                options.level = level(CompressionName::Zstd)?;
                ocikit_lazy::Format::ZstdChunked(options)
            }
            FormatName::Soci => ocikit_lazy::Format::Soci(self.soci.options()),
            FormatName::Nydus => ocikit_lazy::Format::Nydus(self.nydus.options()?),
        };
        self.layers(context, &lazy).await
    }

    /// Changes the media types of the documents.
    async fn documents(&self, context: &Context, to: Format) -> Result {
        if !self.platforms.platform.is_empty() {
            return Err(Failure::usage("cannot convert some platforms only: all images of an index have one format"));
        }
        let mut options = ConvertOptions::default();
        options.to = to;
        if self.drop_unsupported {
            options.unsupported = UnsupportedParts::Drop;
        }
        let dropped = Mutex::new(Vec::new());
        let arguments = self.arguments(context)?;
        let change = arguments.prepare(context, &self.location, &[])?;
        let changed = change
            .make(false, async |root| {
                let converted = convert(&root, &options).await?;
                dropped.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&converted.dropped);
                Ok(converted)
            })
            .await?;
        for part in dropped.into_inner().unwrap_or_default() {
            context.output.say(format!("warning: {}", text(&part)));
        }
        change.report(&changed).await
    }

    /// Changes the layers.
    async fn layers(&self, context: &Context, format: &ocikit_lazy::Format) -> Result {
        let mut options = LazyOptions::default();
        options.selection = Selection::of(self.platforms.platform.clone());
        options.threads = self.compression.threads;
        options.directory = Some(self.compression.directory());
        let found = Mutex::new((Vec::new(), Vec::new()));
        let arguments = self.arguments(context)?;
        let change = arguments.prepare(context, &self.location, &[])?;
        let is_partial = !self.platforms.platform.is_empty();
        let changed = change
            .make(is_partial, async |root| {
                let converted = ocikit_lazy::convert(&root, format, &options).await?;
                let parts = (converted.warnings.clone(), converted.referrers.clone());
                *found.lock().unwrap_or_else(PoisonError::into_inner) = parts;
                Ok(converted)
            })
            .await?;
        let (warnings, referrers) = found.into_inner().unwrap_or_default();
        for warning in warnings {
            context.output.say(format!("warning: {warning}"));
        }
        if let (Some(target), false) = (change.stored_at(), referrers.is_empty()) {
            change.session.store_referrers(target, &referrers).await?;
        }
        change.report(&changed).await
    }

    /// Returns the arguments of the change, with the suffixed tag as the output.
    fn arguments(&self, context: &Context) -> Result<ChangeArguments> {
        let Some(suffix) = &self.suffix else { return Ok(self.change.clone()) };
        let location = context.expand(&self.location);
        let Name::Tag(tag) = location.name() else {
            return Err(Failure::usage(format!("cannot add a suffix: {location} names no tag"))
                .hint("add a tag to the location, or give the target with -o"));
        };
        let tag: Tag = format!("{tag}{suffix}").parse().map_err(|error| Failure::usage(format!("{error}")))?;
        Ok(self.change.with_output(location.with_name(Name::Tag(tag))))
    }
}

impl SociArguments {
    fn options(&self) -> SociOptions {
        let mut options = SociOptions::default();
        options.version = match self.soci_version {
            SociVersionName::V1 => SociVersion::V1,
            SociVersionName::V2 => SociVersion::V2,
        };
        options.min_layer_size = self.min_layer_size.unwrap_or(options.min_layer_size);
        options.span_size = self.span_size.unwrap_or(options.span_size);
        options
    }
}

impl NydusArguments {
    fn options(&self) -> Result<NydusOptions> {
        let mut options = NydusOptions::default();
        (options.version, options.compressor) = (self.rafs_version, self.compressor);
        if let Some(bytes) = self.chunk_size {
            options.chunk_size = ChunkSize::new(bytes).ok_or_else(|| {
                let (least, most) = (ChunkSize::MIN, ChunkSize::MAX);
                Failure::usage(format!(
                    "cannot write chunks of {bytes} bytes: use a power of two from {least} to {most}"
                ))
            })?;
        }
        options.prefetch = self.prefetch.iter().map(|path| files::Path::confined(path.as_bytes())).collect();
        Ok(options)
    }
}

fn text(part: &Dropped) -> String {
    match part {
        Dropped::Annotations { document, keys } => {
            format!("left out {} annotations of {document}: {}", keys.len(), keys.join(", "))
        }
        Dropped::Subject { document } => format!("left out the subject of {document}"),
        Dropped::ArtifactType { document } => format!("left out the artifact type of {document}"),
        Dropped::Attestation { manifest } => format!("left out the attestation manifest {manifest}"),
        other => format!("left out a part of {}", other.document()),
    }
}
