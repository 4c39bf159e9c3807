//! The arguments of the commands that make lazily pulled images.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum};
use ocikit::image::files;
use ocikit::image::{Name, Naming};
use ocikit::{Location, Reference, Tag};
use ocikit_lazy::rafs::{ChunkSize, Compressor, NydusOptions, RafsVersion};
use ocikit_lazy::{EstargzOptions, Format, SociOptions, ZstdChunkedOptions};
use ocikit_publish::{LazyError, LazyPlacement, LazyRequest, LazySuffix};

use crate::context::Context;
use crate::failure::{Code, Failure, Result};

/// The lazily pulled images to make beside a plain one.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Lazily pulled images")]
pub(crate) struct LazyArguments {
    /// Also make the image in this lazily pulled format; repeatable
    ///
    /// It is made from the plain image after that was stored, without a second build. If it cannot be made, the plain image
    /// stays, and the exit code is 7.
    #[arg(long, value_enum, value_name = "FORMAT", value_delimiter = ',')]
    lazy: Vec<LazyName>,
    /// Where it is: tag, index or referrer; default: tag
    ///
    /// `tag` is the tag of the image with a suffix. `index` (zstd-chunked, soci, nydus) is one index with the plain image.
    /// `referrer` (soci, nydus) leaves the plain image as it is.
    #[arg(long, value_name = "PLACE", requires = "lazy")]
    lazy_placement: Option<LazyPlacement>,
    /// Suffix of its tag, with {format} for its name; default: -fastpull
    #[arg(long, value_name = "SUFFIX", requires = "lazy", allow_hyphen_values = true)]
    lazy_suffix: Option<LazySuffix>,
    #[command(flatten)]
    options: FormatArguments,
}

/// A lazily pulled format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LazyName {
    Estargz,
    ZstdChunked,
    Soci,
    Nydus,
}

/// The options of the formats.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct FormatArguments {
    /// Smallest layer with a SOCI index, in bytes; default: 10 MiB
    #[arg(long, value_name = "BYTES")]
    min_layer_size: Option<u64>,
    /// Distance of checkpoints of SOCI, in bytes; default: 4 MiB
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    span_size: Option<u64>,
    /// Version of RAFS, the file system of Nydus: 5 or 6; default: 6
    #[arg(long, value_name = "VERSION")]
    rafs_version: Option<RafsVersion>,
    /// Compression of the chunks of Nydus: none, lz4_block, zstd (default)
    #[arg(long, value_name = "COMPRESSOR")]
    compressor: Option<Compressor>,
    /// Size of the chunks of Nydus in bytes, a power of two; default: 1 MiB
    #[arg(long, value_name = "BYTES")]
    chunk_size: Option<u32>,
    /// File or directory to fetch first: nydus, estargz, soci; repeatable
    #[arg(long, value_name = "PATH", value_parser = NonEmptyStringValueParser::new())]
    prefetch: Vec<String>,
    /// Read such paths from this file, one in each line
    #[arg(long, value_name = "FILE")]
    prefetch_file: Option<PathBuf>,
}

/// The options that have an effect for some formats only, with these formats.
const EFFECTS: [(&str, &[&str]); 12] = [
    ("--drop-unsupported", &["docker"]),
    ("--placement", &["plain", "estargz", "zstd-chunked", "soci", "nydus"]),
    ("--soci-version", &["soci"]),
    ("--min-layer-size", &["soci"]),
    ("--span-size", &["soci"]),
    ("--rafs-version", &["nydus"]),
    ("--compressor", &["nydus"]),
    ("--chunk-size", &["nydus"]),
    ("--prefetch", &["nydus", "estargz", "soci"]),
    ("--prefetch-file", &["nydus", "estargz", "soci"]),
    ("--compression", &["plain"]),
    ("--level", &["plain", "estargz", "zstd-chunked"]),
];

/// Refuses options that would have no effect for any of the formats.
pub(crate) fn check_effects(given: &[&str], formats: &[&str]) -> Result<()> {
    let useless = EFFECTS
        .iter()
        .find(|(option, effective)| given.contains(option) && !formats.iter().any(|format| effective.contains(format)));
    match useless {
        None => Ok(()),
        Some((option, _)) if formats.is_empty() => {
            Err(Failure::usage(format_args!("cannot use {option} without --lazy")))
        }
        Some((option, effective)) => {
            let (formats, effective) = (formats.join(", "), effective.join(", "));
            Err(Failure::usage(format_args!(
                "cannot use {option} for {formats}: it has an effect for {effective} only"
            )))
        }
    }
}

impl LazyName {
    fn name(self) -> &'static str {
        match self {
            LazyName::Estargz => "estargz",
            LazyName::ZstdChunked => "zstd-chunked",
            LazyName::Soci => "soci",
            LazyName::Nydus => "nydus",
        }
    }
}

impl FormatArguments {
    /// Returns the options that were given.
    pub(crate) fn given(&self) -> Vec<&'static str> {
        let all = [
            ("--min-layer-size", self.min_layer_size.is_some()),
            ("--span-size", self.span_size.is_some()),
            ("--rafs-version", self.rafs_version.is_some()),
            ("--compressor", self.compressor.is_some()),
            ("--chunk-size", self.chunk_size.is_some()),
            ("--prefetch", !self.prefetch.is_empty()),
            ("--prefetch-file", self.prefetch_file.is_some()),
        ];
        all.into_iter().filter(|(_, is_given)| *is_given).map(|(option, _)| option).collect()
    }

    /// Returns a format with its options, and a level of compression for those that have one.
    pub(crate) fn format(&self, name: LazyName, level: Option<u32>) -> Result<Format> {
        Ok(match name {
            LazyName::Estargz => {
                let mut options = EstargzOptions::default();
                options.level = level;
                options.prefetch = self.prefetch()?;
                Format::Estargz(options)
            }
            LazyName::ZstdChunked => {
                let mut options = ZstdChunkedOptions::default();
                options.level = level;
                Format::ZstdChunked(options)
            }
            LazyName::Soci => Format::Soci(self.soci()?),
            LazyName::Nydus => Format::Nydus(self.nydus()?),
        })
    }

    pub(crate) fn soci(&self) -> Result<SociOptions> {
        let mut options = SociOptions::default();
        options.prefetch = self.prefetch()?;
        options.min_layer_size = self.min_layer_size.unwrap_or(options.min_layer_size);
        options.span_size = self.span_size.unwrap_or(options.span_size);
        Ok(options)
    }

    fn nydus(&self) -> Result<NydusOptions> {
        let mut options = NydusOptions::default();
        options.version = self.rafs_version.unwrap_or_default();
        options.compressor = self.compressor.unwrap_or_default();
        if let Some(bytes) = self.chunk_size {
            options.chunk_size = ChunkSize::new(bytes).ok_or_else(|| {
                let (least, most) = (ChunkSize::MIN, ChunkSize::MAX);
                Failure::usage(format!(
                    "cannot write chunks of {bytes} bytes: use a power of two from {least} to {most}"
                ))
            })?;
        }
        options.prefetch = self.prefetch()?;
        Ok(options)
    }

    fn prefetch(&self) -> Result<Vec<files::Path>> {
        let listed = self.prefetch_file.as_deref().map(crate::file::read_text).transpose()?.unwrap_or_default();
        let listed = listed.lines().map(str::trim).filter(|line| !line.is_empty());
        let given = self.prefetch.iter().map(String::as_str).chain(listed);
        Ok(given.map(|path| files::Path::confined(path.as_bytes())).collect())
    }
}

impl LazyArguments {
    /// Returns the images to make: those of a configuration, unless there are arguments.
    pub(crate) fn request(&self, configured: Option<&LazyRequest>) -> Result<LazyRequest> {
        let formats: Vec<_> = self.lazy.iter().map(|name| name.name()).collect();
        check_effects(&self.options.given(), &formats)?;
        let mut request = configured.filter(|_| self.lazy.is_empty()).cloned().unwrap_or_default();
        for name in &self.lazy {
            request.formats.push(self.options.format(*name, None)?);
        }
        request.placement = self.lazy_placement.unwrap_or(request.placement);
        if self.lazy_suffix.is_some() && request.placement != LazyPlacement::Tag {
            let message = format!(
                "cannot use --lazy-suffix with the placement {}: the image has no tag of its own",
                request.placement
            );
            return Err(Failure::usage(message));
        }
        request.suffix = self.lazy_suffix.clone().unwrap_or(request.suffix);
        request.options.directory = Some(std::env::temp_dir());
        request.check().map_err(failure_of)?;
        Ok(request)
    }
}

/// Returns the failure for a request that cannot be fulfilled, or an image that cannot be made.
pub(crate) fn failure_of(error: LazyError) -> Failure {
    match error {
        LazyError::Convert { format, source } => {
            let failure = Failure::from(*source);
            let message = format!("cannot convert the image to {format}: {}", failure.message);
            Failure { message, ..failure }
        }
        LazyError::NotConverted { .. } => Failure::new(Code::Other, error),
        LazyError::SameTag(_) => Failure::usage(error).hint("add --lazy-suffix=-{format}"),
        LazyError::Taken { .. } => Failure::usage(error).hint("add --lazy-suffix with another suffix"),
        LazyError::Placement { .. } => Failure::usage(error).hint("use --lazy-placement tag"),
        _ => Failure::usage(error),
    }
}

/// Says what a format cannot express.
pub(crate) fn say_warnings(context: &Context, warnings: &[ocikit_lazy::Warning]) {
    for warning in warnings {
        context.output.say(format!("warning: {warning}"));
    }
}

/// Returns the location of the lazily pulled image beside the one at a location: with the suffix at the tag, or in the name of
/// the file of an archive. `is_named` says that the image has other names, for a layout.
///
/// # Errors
///
/// For a place that can hold one image only, and for one without a tag.
pub(crate) fn beside(request: &LazyRequest, format: &Format, location: &Location, is_named: bool) -> Result<Location> {
    let refuse =
        |why: &str| Failure::usage(format_args!("cannot write a lazily pulled image beside {location}: {why}"));
    let name = || match location.name() {
        Name::Tag(tag) => Ok(Name::Tag(request.tag(format, &tag).map_err(failure_of)?)),
        Name::Full(full) => Ok(Name::Full(full_name(request, format, &full)?)),
        Name::Only if is_named => Ok(Name::Only),
        Name::Only | Name::Digest(_) => {
            Err(refuse("it names no tag").hint("add a tag to the location, or --lazy-placement referrer"))
        }
    };
    match location {
        Location::Stdio => Err(refuse("standard output holds one image")),
        Location::DockerArchive { .. } => Err(refuse("the format of docker has no annotations")),
        Location::Registry(reference) => {
            let tag = reference.tag().cloned().unwrap_or_else(Tag::latest);
            let tag = request.tag(format, &tag).map_err(failure_of)?;
            Ok(Location::Registry(Reference::tagged(reference.repository().clone(), tag)))
        }
        Location::Archive { path, .. } => in_archive(request, format, location, path),
        Location::Path { path, .. } if Location::names_an_archive(path) => in_archive(request, format, location, path),
        Location::Layout { .. } | Location::Path { .. } => Ok(location.with_name(name()?)),
    }
}

/// Checks that no image in these places, under these names, is also the lazily pulled one beside another.
///
/// # Errors
///
/// Those of [`beside`] and of [`names`]; [`LazyError::Taken`].
pub(crate) fn check_places(request: &LazyRequest, places: &[Location], named: &[Naming]) -> Result {
    for format in &request.formats {
        for place in places {
            let taken = beside(request, format, place, !named.is_empty())?;
            if places.iter().any(|other| same_image(other, &taken)) {
                return Err(failure_of(LazyError::Taken { of: place.to_string(), taken: taken.to_string() }));
            }
        }
        for (name, taken) in named.iter().zip(names(request, format, named)?) {
            if named.contains(&taken) {
                let words = |naming: &Naming| match (&naming.full, &naming.tag) {
                    (Some(full), _) => full.clone(),
                    (None, tag) => tag.as_ref().map(ToString::to_string).unwrap_or_default(),
                };
                return Err(failure_of(LazyError::Taken { of: words(name), taken: words(&taken) }));
            }
        }
    }
    Ok(())
}

/// Returns whether a build would write both to the same place. An archive is written as a whole.
fn same_image(one: &Location, other: &Location) -> bool {
    let path = |location: &Location| location.path().and_then(|path| std::path::absolute(path).ok());
    let is_archive = |location: &Location| match location {
        Location::Archive { .. } | Location::DockerArchive { .. } => true,
        Location::Path { path, .. } => Location::names_an_archive(path),
        Location::Layout { .. } | Location::Registry(_) | Location::Stdio => false,
    };
    match (path(one), path(other)) {
        (Some(path), Some(same)) => path == same && (is_archive(one) || one.name() == other.name()),
        _ => one == other,
    }
}

/// The endings of the names of archives.
const ENDINGS: [&str; 6] = [".tar.gz", ".tar.zst", ".tar.xz", ".tar.bz2", ".tgz", ".tar"];

fn in_archive(request: &LazyRequest, format: &Format, location: &Location, path: &std::path::Path) -> Result<Location> {
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let ending = ENDINGS.into_iter().find(|ending| file.ends_with(ending)).unwrap_or_default();
    let stem = file.strip_suffix(ending).unwrap_or(&file);
    let mut beside = location.clone();
    if let Some(beside) = beside.path_mut() {
        beside.set_file_name(format!("{stem}{}{ending}", request.suffix.of(format)));
    }
    match location.name() {
        Name::Tag(tag) => Ok(beside.with_name(Name::Tag(request.tag(format, &tag).map_err(failure_of)?))),
        Name::Full(full) => Ok(beside.with_name(Name::Full(full_name(request, format, &full)?))),
        Name::Only | Name::Digest(_) => Ok(beside),
    }
}

/// Returns the names of an archive or layout with the suffix.
pub(crate) fn names(request: &LazyRequest, format: &Format, names: &[Naming]) -> Result<Vec<Naming>> {
    let named = names.iter().map(|naming| {
        let tag = naming.tag.as_ref().map(|tag| request.tag(format, tag).map_err(failure_of)).transpose()?;
        let full = naming.full.as_ref().map(|full| full_name(request, format, full)).transpose()?;
        Ok(Naming::default().tag(tag).full(full))
    });
    named.collect()
}

fn full_name(request: &LazyRequest, format: &Format, full: &str) -> Result<String> {
    let Ok(reference) = full.parse::<Reference>() else { return Ok(format!("{full}{}", request.suffix.of(format))) };
    let tag = reference.tag().cloned().unwrap_or_else(Tag::latest);
    let tag = request.tag(format, &tag).map_err(failure_of)?;
    Ok(Reference::tagged(reference.repository().clone(), tag).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_images_are_not_beside_others() {
        let mut request = LazyRequest::default();
        request.formats = vec![Format::Nydus(NydusOptions::default())];
        for (places, tags, is_free) in [
            (&["reg.io/app:a", "reg.io/app:b"][..], &["a", "b"][..], true),
            (&["reg.io/app:a", "reg.io/app:a-fastpull"], &[], false),
            (&["reg.io/app:a", "reg.io/other:a-fastpull"], &[], true),
            (&["oci:layout:a", "oci:./layout:a-fastpull"], &[], false),
            (&["oci:layout:a", "oci:layout:b"], &[], true),
            (&["a.tar", "./a-fastpull.tar"], &[], false),
            (&["oci-archive:a.tar:1", "a-fastpull.tar"], &[], false),
            (&["a.tar", "b.tar"], &[], true),
            (&["a.tar"], &["a", "a-fastpull"], false),
        ] {
            let places: Vec<Location> = places.iter().map(|place| place.parse().unwrap()).collect();
            let named: Vec<_> = tags.iter().map(|tag| Naming::of_tag(tag.parse().unwrap())).collect();
            let checked = check_places(&request, &places, &named);
            assert_eq!(checked.is_ok(), is_free, "{places:?} {tags:?} {checked:?}");
        }
    }

    #[test]
    fn lazily_pulled_images_stand_beside_the_plain_ones() {
        let mut request = LazyRequest::default();
        request.formats = vec![Format::Nydus(NydusOptions::default())];
        for (location, expected) in [
            ("localhost:5000/app", "localhost:5000/app:latest-fastpull"),
            ("reg.io:5000/app:v1", "reg.io:5000/app:v1-fastpull"),
            ("./out/app.tar", "./out/app-fastpull.tar"),
            ("app.tar.gz", "app-fastpull.tar.gz"),
            ("oci-archive:app:v1", "oci-archive:app-fastpull:v1-fastpull"),
            ("oci:layout:v1", "oci:layout:v1-fastpull"),
        ] {
            let location: Location = location.parse().unwrap();
            let found = beside(&request, &request.formats[0], &location, false).unwrap();
            assert_eq!(found, expected.parse().unwrap(), "{found}");
        }
        for location in ["-", "docker-archive:app.tar", "oci:layout"] {
            let location: Location = location.parse().unwrap();
            assert!(beside(&request, &request.formats[0], &location, false).is_err(), "{location}");
        }
    }
}
