use std::sync::{Mutex, PoisonError};

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum};
use ocikit::image::{ConvertOptions, Format, Name, UnsupportedParts, convert};
use ocikit::{Location, Tag};
use ocikit_lazy::{LazyOptions, Placement, PlainOptions, SociVersion};

use crate::change::{ChangeArguments, PlatformArguments};
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::layers::{CompressionArguments, CompressionName};
use crate::lazy::{FormatArguments, LazyName, check_effects, say_warnings};

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
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    #[arg(conflicts_with_all = ["output", "drop_referrers"])]
    suffix: Option<String>,
    /// Where the converted images are: replace (default), index or referrer
    ///
    /// `replace` puts them in the place of the others, `index` (nydus, zstd-chunked, soci) beside them in one index, where other
    /// programs still find the images that they know. `referrer` (nydus, soci) leaves the image as it is.
    #[arg(long, value_enum, value_name = "PLACE")]
    placement: Option<PlacementName>,
    /// Where the SOCI index is: beside the image (v2), or as a referrer (v1)
    #[arg(long, value_enum, value_name = "VERSION")]
    soci_version: Option<SociVersionName>,
    #[command(flatten)]
    options: FormatArguments,
    #[command(flatten)]
    compression: CompressionArguments,
    #[command(flatten)]
    platforms: PlatformArguments,
    #[command(flatten)]
    change: ChangeArguments,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PlacementName {
    Replace,
    Index,
    Referrer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SociVersionName {
    V1,
    V2,
}

impl FormatName {
    fn name(self) -> &'static str {
        match self {
            FormatName::Oci => "oci",
            FormatName::Docker => "docker",
            FormatName::Plain => "plain",
            FormatName::Estargz => "estargz",
            FormatName::ZstdChunked => "zstd-chunked",
            FormatName::Soci => "soci",
            FormatName::Nydus => "nydus",
        }
    }
}

impl Convert {
    /// Returns the options that were given and have an effect for some formats only.
    fn given(&self) -> Vec<&'static str> {
        let all = [
            ("--drop-unsupported", self.drop_unsupported),
            ("--placement", self.placement.is_some()),
            ("--soci-version", self.soci_version.is_some()),
            ("--compression", self.compression.compression.is_some()),
            ("--level", self.compression.has_level()),
        ];
        let own = all.into_iter().filter(|(_, is_given)| *is_given).map(|(option, _)| option);
        own.chain(self.options.given()).collect()
    }

    pub(crate) async fn run(&self, context: &Context) -> Result {
        check_effects(&self.given(), &[self.to.name()])?;
        let (placement, version) = (self.placement, self.soci_version);
        let disagree = [(PlacementName::Index, SociVersionName::V1), (PlacementName::Referrer, SociVersionName::V2)];
        if disagree.iter().any(|(place, other)| placement == Some(*place) && version == Some(*other)) {
            return Err(Failure::usage("cannot use --soci-version here: --placement decides the version"));
        }
        self.check_placement()?;
        let level = |name| self.compression.encoder(name).map(|encoder| encoder.level);
        let lazy = match self.to {
            FormatName::Oci => return self.documents(context, Format::Oci).await,
            FormatName::Docker => return self.documents(context, Format::Docker).await,
            FormatName::Plain => {
                let mut options = PlainOptions::default();
                options.encoder = self.compression.encoder(CompressionName::Gzip)?;
                ocikit_lazy::Format::Plain(options)
            }
            FormatName::Estargz => self.options.format(LazyName::Estargz, level(CompressionName::Gzip)?)?,
            FormatName::ZstdChunked => self.options.format(LazyName::ZstdChunked, level(CompressionName::Zstd)?)?,
            FormatName::Nydus => self.options.format(LazyName::Nydus, None)?,
            FormatName::Soci => {
                let mut options = self.options.soci()?;
                options.version = match version {
                    Some(SociVersionName::V1) => SociVersion::V1,
                    Some(SociVersionName::V2) | None => SociVersion::V2,
                };
                ocikit_lazy::Format::Soci(options)
            }
        };
        self.layers(context, &lazy).await
    }

    /// Refuses a place in which no client finds the images of the format.
    fn check_placement(&self) -> Result {
        let (place, formats): (_, &[&str]) = match self.placement {
            None | Some(PlacementName::Replace) => return Ok(()),
            Some(PlacementName::Index) => ("index", &["nydus", "zstd-chunked", "soci"]),
            Some(PlacementName::Referrer) => ("referrer", &["nydus", "soci"]),
        };
        let format = self.to.name();
        match formats.contains(&format) {
            true => Ok(()),
            false => Err(Failure::usage(format!("cannot use --placement {place} with --to {format}"))
                .hint(format!("it exists for {}; --suffix makes a second tag", formats.join(", ")))),
        }
    }

    /// Changes the media types of the documents.
    async fn documents(&self, context: &Context, to: Format) -> Result {
        if self.platforms.is_partial() {
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
            context.output.say(format!("warning: left out {part}"));
        }
        change.report(&changed).await
    }

    /// Changes the layers.
    async fn layers(&self, context: &Context, format: &ocikit_lazy::Format) -> Result {
        let mut options = LazyOptions::default();
        options.selection = self.platforms.selection();
        options.threads = self.compression.threads;
        options.directory = Some(self.compression.directory());
        options.placement = match self.placement {
            Some(PlacementName::Replace) | None => Placement::Replace,
            Some(PlacementName::Index) => Placement::Index,
            Some(PlacementName::Referrer) => Placement::Referrer,
        };
        let found = Mutex::new((Vec::new(), Vec::new()));
        let arguments = self.arguments(context)?;
        let change = arguments.prepare(context, &self.location, &[])?;
        let changed = change
            .make(self.platforms.is_partial(), async |root| {
                let converted = ocikit_lazy::convert(&root, format, &options).await?;
                let parts = (converted.warnings.clone(), converted.referrers.clone());
                *found.lock().unwrap_or_else(PoisonError::into_inner) = parts;
                Ok(converted)
            })
            .await?;
        let (warnings, referrers) = found.into_inner().unwrap_or_default();
        say_warnings(context, &warnings);
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
