//! The formats of layers that one index offers.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use ocikit::image::{Member, RecompressOptions, create_index, recompress};
use ocikit::{Annotations, ComposeOptions, Compression, Digest, Error, OnDuplicate, Result, Root};
use ocikit_lazy::{Format, LazyOptions, Placement, Warning};
use serde::{Deserialize, Deserializer};

/// A format of layers. The order is that in the index: clients that know no other format take the first image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LayerFormat {
    /// gzip, which every client reads.
    Gzip,
    /// eStargz: gzip layers with a table of contents, which every client reads.
    Estargz,
    /// zstd, which needs containerd 1.5, podman 2 or docker 23.
    Zstd,
    /// zstd:chunked: zstd layers with a table of contents, for the same clients.
    ZstdChunked,
    /// Nydus, which needs its snapshotter.
    Nydus,
    /// A SOCI index of the gzip layers, or of the layers as they are.
    Soci,
}

/// The annotation of an index entry by which podman and cri-o prefer an image with zstd layers
/// (containers/image, `internal/manifest/oci_index.go`).
const ZSTD_ANNOTATION: &str = "io.github.containers.compression.zstd";

/// The formats that clients cannot tell apart in an index.
const SAME: [(LayerFormat, LayerFormat); 2] =
    [(LayerFormat::Gzip, LayerFormat::Estargz), (LayerFormat::Zstd, LayerFormat::ZstdChunked)];

impl LayerFormat {
    /// All formats.
    pub const ALL: [LayerFormat; 6] = [
        LayerFormat::Gzip,
        LayerFormat::Estargz,
        LayerFormat::Zstd,
        LayerFormat::ZstdChunked,
        LayerFormat::Nydus,
        LayerFormat::Soci,
    ];

    /// Returns the name.
    pub fn name(self) -> &'static str {
        match self {
            LayerFormat::Gzip => "gzip",
            LayerFormat::Estargz => "estargz",
            LayerFormat::Zstd => "zstd",
            LayerFormat::ZstdChunked => "zstd-chunked",
            LayerFormat::Nydus => "nydus",
            LayerFormat::Soci => "soci",
        }
    }

    /// Returns the conversion to a lazily pulled format with its defaults; `None` for gzip and zstd.
    pub fn lazy(self) -> Option<Format> {
        match self {
            LayerFormat::Gzip | LayerFormat::Zstd => None,
            LayerFormat::Estargz => Some(Format::Estargz(Default::default())),
            LayerFormat::ZstdChunked => Some(Format::ZstdChunked(Default::default())),
            LayerFormat::Nydus => Some(Format::Nydus(Default::default())),
            LayerFormat::Soci => Some(Format::Soci(Default::default())),
        }
    }

    /// Returns whether the images of this format stand beside those of another one, which are listed too.
    fn is_added(self) -> bool {
        match self {
            LayerFormat::Nydus | LayerFormat::Soci => true,
            LayerFormat::Gzip | LayerFormat::Estargz | LayerFormat::Zstd | LayerFormat::ZstdChunked => false,
        }
    }

    /// Returns the images of a root in this format, in this place.
    async fn convert(self, root: &Root, placement: Placement, directory: Option<PathBuf>) -> Result<Formatted> {
        let compression = match (self, self.lazy()) {
            (_, Some(format)) => return lazy(root, &format, placement, directory).await,
            (LayerFormat::Zstd, None) => Compression::Zstd,
            (_, None) => Compression::Gzip,
        };
        let mut options = RecompressOptions::default();
        options.layer = compression.into();
        options.layer.directory = directory;
        let mapped = recompress(root, &options).await?;
        match mapped.images {
            0 => Err(unsupported(
                root,
                format!("{} has no image whose layers could have the format {self}", root.digest()),
            )),
            _ => Ok(Formatted { root: mapped.root, warnings: Vec::new() }),
        }
    }

    /// Returns the annotations of the entries of this format in an index with several.
    fn annotations(self) -> Annotations {
        match self {
            LayerFormat::Gzip | LayerFormat::Estargz | LayerFormat::Nydus | LayerFormat::Soci => Annotations::new(),
            LayerFormat::Zstd | LayerFormat::ZstdChunked => {
                [(ZSTD_ANNOTATION.to_owned(), "true".to_owned())].into_iter().collect()
            }
        }
    }
}

/// Converts to a lazily pulled format. A result that is not in that format is an error.
async fn lazy(root: &Root, format: &Format, placement: Placement, directory: Option<PathBuf>) -> Result<Formatted> {
    let mut options = LazyOptions::default();
    (options.placement, options.directory) = (placement, directory);
    let converted = ocikit_lazy::convert(root, format, &options).await?;
    if !converted.is_converted() {
        let reason = converted.warnings.first().map(ToString::to_string).unwrap_or_default();
        return Err(unsupported(root, format!("nothing of it can have the format {}: {reason}", format.name())));
    }
    Ok(Formatted { root: converted.mapped.root, warnings: converted.warnings })
}

fn unsupported(root: &Root, what: String) -> Error {
    Error::Unsupported { place: root.source().to_string(), what }
}

impl fmt::Display for LayerFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name is not that of a format of layers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of {names}", names = LayerFormat::ALL.map(LayerFormat::name).join(", "))]
pub struct UnknownFormat(String);

impl FromStr for LayerFormat {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<LayerFormat, UnknownFormat> {
        let found = LayerFormat::ALL.into_iter().find(|format| format.name() == name);
        found.ok_or_else(|| UnknownFormat(name.to_owned()))
    }
}

impl<'de> Deserialize<'de> for LayerFormat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<LayerFormat, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A root in other formats.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Formatted {
    /// The root.
    pub root: Root,
    /// What a format cannot express, and was left as it is.
    pub warnings: Vec<Warning>,
}

/// Returns a root whose images have their layers in these formats: for one format the same root with other layers, for
/// several an index that lists each image once in each format. Without a format, returns the root. Temporary files are
/// in `directory`, or in the current one.
///
/// For gzip, zstd and zstd:chunked the uncompressed layers and the configs are unchanged. A layer that has the format
/// already is kept. Images of Nydus are converted from those of the first other format, and SOCI indexes are those of it.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use std::sync::Arc;
/// use ocikit::{Memory, Root};
/// use ocikit_publish::{LayerFormat, with_formats};
/// # use ocikit_image::testing;
///
/// let memory = Arc::new(Memory::new());
/// # let image = testing::image(&memory, 1, &"linux/amd64".parse()?, &[1000]);
/// let root = Root::at(memory, image).await?;
/// let both = with_formats(&root, &[LayerFormat::Gzip, LayerFormat::Zstd], None).await?;
/// let Root::Index(index) = both.root else { panic!("two images have an index") };
/// assert_eq!(index.manifests().len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # Errors
///
/// Those of reading and compressing the layers; [`Error::Unsupported`] for a root without images, for zstd in
/// Docker's format, for two formats that clients cannot tell apart, and if nothing can have a format.
pub async fn with_formats(root: &Root, formats: &[LayerFormat], directory: Option<PathBuf>) -> Result<Formatted> {
    let mut formats = formats.to_vec();
    formats.sort_unstable();
    formats.dedup();
    if let Some((one, other)) = SAME.iter().find(|(one, other)| formats.contains(one) && formats.contains(other)) {
        let what = format!("one index with {one} and {other}: clients could not tell them apart");
        return Err(unsupported(root, what));
    }
    let (added, main): (Vec<_>, Vec<_>) = formats.into_iter().partition(|format| format.is_added());
    let mut members = Vec::new();
    let mut warnings = Vec::new();
    for format in &main {
        let found = format.convert(root, Placement::Replace, directory.clone()).await?;
        warnings.extend(found.warnings);
        members.push(Member::new(found.root));
    }
    if let [only] = added[..]
        && main.is_empty()
    {
        return only.convert(root, Placement::Replace, directory).await;
    }
    if members.is_empty() {
        members.push(Member::new(root.clone()));
    }
    // SOCI first: it changes the image, and an entry of Nydus names its source.
    for format in added.iter().rev() {
        let found = format.convert(&members[0].root, Placement::Index, directory.clone()).await?;
        warnings.extend(found.warnings);
        members[0].root = found.root;
    }
    if let [only] = &members[..] {
        return Ok(Formatted { root: only.root.clone(), warnings });
    }
    for (member, format) in members.iter_mut().zip(main) {
        member.annotations = format.annotations();
    }
    let mut options = ComposeOptions::default();
    (options.flatten, options.on_duplicate) = (true, OnDuplicate::Keep);
    options.annotations = match root {
        Root::Index(index) => index.document().annotations().clone(),
        Root::Image(_) | Root::Other(_) => Annotations::new(),
    };
    Ok(Formatted { root: Root::Index(create_index(&members, &options).await?.index), warnings })
}

/// Returns the digests of the images of a root: what attestations of a build name.
pub(crate) fn image_digests(root: &Root) -> Vec<Digest> {
    match root {
        Root::Index(index) => index.manifests().iter().map(|entry| entry.digest).collect(),
        Root::Image(image) => vec![image.digest()],
        Root::Other(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ocikit::Memory;
    use ocikit_image::testing;

    use super::*;

    async fn two_platforms() -> Root {
        let memory = Arc::new(Memory::new());
        let entries = ["linux/amd64", "linux/arm64"].map(|platform| {
            let platform: ocikit::Platform = platform.parse().unwrap();
            let tar = testing::Tar::new().file("app", &testing::random(1, 3000)).finish();
            let image = testing::image_of(&memory, &platform, Compression::Gzip, &[tar]);
            ocikit::Descriptor { platform: Some(platform), ..image }
        });
        Root::at(memory.clone(), testing::index(&memory, &entries)).await.unwrap()
    }

    #[tokio::test]
    async fn each_image_is_listed_in_each_format_gzip_first() {
        let root = two_platforms().await;
        for format in [LayerFormat::Zstd, LayerFormat::ZstdChunked] {
            let formats = [format, LayerFormat::Gzip, format];
            let formatted = with_formats(&root, &formats, Some(std::env::temp_dir())).await.unwrap();
            let Root::Index(both) = formatted.root else { panic!("an index") };
            let zstd: Vec<_> = both.manifests().iter().map(|entry| entry.annotations.get(ZSTD_ANNOTATION)).collect();
            assert_eq!(zstd, [None, None, Some("true"), Some("true")]);
        }
    }

    #[tokio::test]
    async fn nydus_images_have_a_feature_and_come_after_those_that_they_are_made_from() {
        let root = two_platforms().await;
        let formats = [LayerFormat::Zstd, LayerFormat::Nydus, LayerFormat::Gzip];
        let formatted = with_formats(&root, &formats, Some(std::env::temp_dir())).await.unwrap();
        let Root::Index(all) = formatted.root else { panic!("an index") };
        let features: Vec<_> =
            all.manifests().iter().map(|entry| entry.platform.as_ref().unwrap().os_features.concat()).collect();
        assert_eq!(features, ["", "", "nydus.remoteimage.v1", "nydus.remoteimage.v1", "", ""]);
        assert_eq!(all.manifests()[0].digest, image_digests(&root)[0]);
    }

    #[tokio::test]
    async fn formats_that_look_the_same_are_refused() {
        let root = two_platforms().await;
        for (one, other) in SAME {
            let error = with_formats(&root, &[one, other], None).await.unwrap_err();
            assert!(error.to_string().contains("could not tell them apart"), "{error}");
        }
        // The layers are too small for SOCI.
        let error = with_formats(&root, &[LayerFormat::Soci], None).await.unwrap_err();
        assert!(error.to_string().contains("no SOCI index"), "{error}");
    }
}
