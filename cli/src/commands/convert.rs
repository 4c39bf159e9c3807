use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum};
use ocikit::image::{ConvertOptions, Format, Name, UnsupportedParts, convert};
use ocikit::{Compression, Location, Tag};
use ocikit_lazy::{LazyOptions, Placement, PlainOptions, SociVersion};

use crate::change::{ChangeArguments, PlatformArguments};
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::layers::CompressionArguments;
use crate::lazy::{FormatArguments, LazyName, check_effects, say_warnings};
use crate::values::{name_of, one_of};

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
    #[arg(long, value_name = "PLACE", value_parser = one_of(PLACEMENTS))]
    placement: Option<Placement>,
    /// Where the SOCI index is: beside the image (v2), or as a referrer (v1)
    #[arg(long, value_name = "VERSION", value_parser = one_of([("v1", SociVersion::V1), ("v2", SociVersion::V2)]))]
    soci_version: Option<SociVersion>,
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

/// The names of the places of converted images.
const PLACEMENTS: [(&str, Placement); 3] =
    [("replace", Placement::Replace), ("index", Placement::Index), ("referrer", Placement::Referrer)];

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
        check_effects(&self.given(), &[&name_of(&self.to)])?;
        let disagree = [(Placement::Index, SociVersion::V1), (Placement::Referrer, SociVersion::V2)];
        if self.placement.zip(self.soci_version).is_some_and(|both| disagree.contains(&both)) {
            return Err(Failure::usage("cannot use --soci-version here: --placement decides the version"));
        }
        self.check_placement()?;
        let level = |name| self.compression.encoder(name).map(|encoder| encoder.level);
        let lazy = match self.to {
            FormatName::Oci => return self.documents(context, Format::Oci).await,
            FormatName::Docker => return self.documents(context, Format::Docker).await,
            FormatName::Plain => {
                let mut options = PlainOptions::default();
                options.encoder = self.compression.encoder(Compression::Gzip)?;
                ocikit_lazy::Format::Plain(options)
            }
            FormatName::Estargz => self.options.format(LazyName::Estargz, level(Compression::Gzip)?)?,
            FormatName::ZstdChunked => self.options.format(LazyName::ZstdChunked, level(Compression::Zstd)?)?,
            FormatName::Nydus => self.options.format(LazyName::Nydus, None)?,
            FormatName::Soci => {
                let mut options = self.options.soci()?;
                options.version = self.soci_version.unwrap_or_default();
                ocikit_lazy::Format::Soci(options)
            }
        };
        self.layers(context, &lazy).await
    }

    /// Refuses a place in which no client finds the images of the format.
    fn check_placement(&self) -> Result {
        let (place, formats): (_, &[&str]) = match self.placement {
            Some(Placement::Index) => ("index", &["nydus", "zstd-chunked", "soci"]),
            Some(Placement::Referrer) => ("referrer", &["nydus", "soci"]),
            _ => return Ok(()),
        };
        let format = name_of(&self.to);
        match formats.contains(&&*format) {
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
        let mut dropped = Vec::new();
        let arguments = self.arguments(context)?;
        let change = arguments.prepare(context, &self.location, &[])?;
        let changed = change
            .make(false, async |root| {
                let converted = convert(&root, &options).await?;
                dropped.clone_from(&converted.dropped);
                Ok(converted)
            })
            .await?;
        for part in dropped {
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
        options.placement = self.placement.unwrap_or_default();
        let (mut warnings, mut referrers) = (Vec::new(), Vec::new());
        let arguments = self.arguments(context)?;
        let change = arguments.prepare(context, &self.location, &[])?;
        let changed = change
            .make(self.platforms.is_partial(), async |root| {
                let converted = ocikit_lazy::convert(&root, format, &options).await?;
                (warnings, referrers) = (converted.warnings.clone(), converted.referrers.clone());
                Ok(converted)
            })
            .await?;
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
