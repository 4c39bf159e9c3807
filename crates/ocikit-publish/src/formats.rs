//! The formats of layers that one index offers.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use ocikit::image::{Member, RecompressOptions, create_index, recompress};
use ocikit::{Annotations, ComposeOptions, Compression, Digest, Error, OnDuplicate, Result, Root};
use serde::{Deserialize, Deserializer};

/// A format of layers. The order is that in the index: clients that know no other format take the first image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LayerFormat {
    /// gzip, which every client reads.
    Gzip,
    /// zstd, which needs containerd 1.5, podman 2 or docker 23.
    Zstd,
}

/// The annotation of an index entry by which podman and cri-o prefer an image with zstd layers
/// (containers/image, `internal/manifest/oci_index.go`).
const ZSTD_ANNOTATION: &str = "io.github.containers.compression.zstd";

impl LayerFormat {
    /// All formats.
    pub const ALL: [LayerFormat; 2] = [LayerFormat::Gzip, LayerFormat::Zstd];

    /// Returns the name.
    pub fn name(self) -> &'static str {
        match self {
            LayerFormat::Gzip => "gzip",
            LayerFormat::Zstd => "zstd",
        }
    }

    /// Returns the images of a root in this format.
    async fn convert(self, root: &Root, directory: Option<PathBuf>) -> Result<Root> {
        let compression = match self {
            LayerFormat::Gzip => Compression::Gzip,
            LayerFormat::Zstd => Compression::Zstd,
        };
        let mut options = RecompressOptions::default();
        options.layer = compression.into();
        options.layer.directory = directory;
        let mapped = recompress(root, &options).await?;
        match mapped.images {
            0 => Err(Error::Unsupported {
                place: root.source().to_string(),
                what: format!("{} has no image whose layers could have the format {self}", root.digest()),
            }),
            _ => Ok(mapped.root),
        }
    }

    /// Returns the annotations of the entries of this format in an index with several.
    fn annotations(self) -> Annotations {
        match self {
            LayerFormat::Gzip => Annotations::new(),
            LayerFormat::Zstd => [(ZSTD_ANNOTATION.to_owned(), "true".to_owned())].into_iter().collect(),
        }
    }
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

/// Returns a root whose images have their layers in these formats: for one format the same root with other layers, for
/// several an index that lists each image once in each format. Without a format, returns the root. Temporary files are
/// in `directory`, or in the current one.
///
/// The uncompressed layers and the configs are unchanged. A layer that has the format already is kept.
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
/// let Root::Index(index) = both else { panic!("two images have an index") };
/// assert_eq!(index.manifests().len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # Errors
///
/// Those of reading and compressing the layers; [`Error::Unsupported`] for a root without images, and for zstd in
/// Docker's format.
pub async fn with_formats(root: &Root, formats: &[LayerFormat], directory: Option<PathBuf>) -> Result<Root> {
    let mut formats = formats.to_vec();
    formats.sort_unstable();
    formats.dedup();
    if let [only] = formats[..] {
        return only.convert(root, directory).await;
    }
    if formats.is_empty() {
        return Ok(root.clone());
    }
    let mut members = Vec::new();
    for format in formats {
        let mut member = Member::new(format.convert(root, directory.clone()).await?);
        member.annotations = format.annotations();
        members.push(member);
    }
    let mut options = ComposeOptions::default();
    (options.flatten, options.on_duplicate) = (true, OnDuplicate::Keep);
    options.annotations = match root {
        Root::Index(index) => index.document().annotations().clone(),
        Root::Image(_) | Root::Other(_) => Annotations::new(),
    };
    Ok(Root::Index(create_index(&members, &options).await?.index))
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

    #[tokio::test]
    async fn each_image_is_listed_in_each_format_gzip_first() {
        let memory = Arc::new(Memory::new());
        let entries = ["linux/amd64", "linux/arm64"].map(|platform| {
            let platform: ocikit::Platform = platform.parse().unwrap();
            let image = testing::image(&memory, 1, &platform, &[1000]);
            ocikit::Descriptor { platform: Some(platform), ..image }
        });
        let root = Root::at(memory.clone(), testing::index(&memory, &entries)).await.unwrap();
        let formats = [LayerFormat::Zstd, LayerFormat::Gzip, LayerFormat::Zstd];
        let Root::Index(both) = with_formats(&root, &formats, None).await.unwrap() else { panic!("an index") };
        let zstd: Vec<_> = both.manifests().iter().map(|entry| entry.annotations.get(ZSTD_ANNOTATION)).collect();
        assert_eq!(zstd, [None, None, Some("true"), Some("true")]);
    }
}
