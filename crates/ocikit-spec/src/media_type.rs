use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// What the bytes behind a descriptor are: a media type by RFC 6838.
///
/// Any text is accepted, because documents name types that nobody registered; the methods sort the known ones.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct MediaType(Cow<'static, str>);

macro_rules! known {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        impl MediaType {
            $($(#[$doc])* pub const $name: MediaType = MediaType(Cow::Borrowed($text));)*

            /// The same type without memory of its own, if it is one of the known.
            fn known(text: &str) -> Option<MediaType> {
                match text {
                    $($text => Some(MediaType::$name),)*
                    _ => None,
                }
            }
        }
    };
}

known! {
    /// An OCI image manifest.
    OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json";
    /// An OCI image index.
    OCI_INDEX = "application/vnd.oci.image.index.v1+json";
    /// An OCI image configuration.
    OCI_CONFIG = "application/vnd.oci.image.config.v1+json";
    /// An uncompressed OCI layer.
    OCI_LAYER = "application/vnd.oci.image.layer.v1.tar";
    /// A gzip-compressed OCI layer.
    OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// A zstd-compressed OCI layer.
    OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// The empty JSON object `{}`, which stands for "no config" or "no content".
    OCI_EMPTY = "application/vnd.oci.empty.v1+json";
    /// The manifest that an early draft of OCI 1.1 had for artifacts; read, never written.
    OCI_ARTIFACT_MANIFEST = "application/vnd.oci.artifact.manifest.v1+json";
    /// A docker image manifest, version 2, schema 2.
    DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json";
    /// A docker manifest list.
    DOCKER_MANIFEST_LIST = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// A docker image configuration.
    DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json";
    /// A gzip-compressed docker layer.
    DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// An uncompressed docker layer.
    DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar";
    /// A docker manifest of the first schema, unsigned; recognised, never written.
    DOCKER_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json";
    /// A docker manifest of the first schema, signed; recognised, never written.
    DOCKER_SCHEMA1_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    /// An in-toto statement, as BuildKit stores its attestations.
    IN_TOTO = "application/vnd.in-toto+json";
    /// The config of a cache that BuildKit exported; an index lists it beside the layers.
    BUILDKIT_CACHE_CONFIG = "application/vnd.buildkit.cacheconfig.v0";
    /// Bytes of no particular type.
    OCTET_STREAM = "application/octet-stream";
}

impl MediaType {
    /// The type with this name.
    pub fn new(text: impl Into<String>) -> MediaType {
        MediaType(Cow::Owned(text.into()))
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The type without parameters and in lower case: `Application/JSON; charset=utf-8` is `application/json`. RFC 9110,
    /// "Media Type".
    pub fn essence(&self) -> MediaType {
        let text = self.bare();
        MediaType::known(text).unwrap_or_else(|| {
            let lower = text.to_ascii_lowercase();
            MediaType::known(&lower).unwrap_or_else(|| MediaType::new(lower))
        })
    }

    fn bare(&self) -> &str {
        self.0.split(';').next().unwrap_or_default().trim()
    }

    fn is_one_of(&self, known: &[MediaType]) -> bool {
        known.iter().any(|known| self.bare().eq_ignore_ascii_case(known.as_str()))
    }

    /// Whether it is an index: an OCI index or a docker manifest list.
    pub fn is_index(&self) -> bool {
        self.is_one_of(&[MediaType::OCI_INDEX, MediaType::DOCKER_MANIFEST_LIST])
    }

    /// Whether it is a manifest with a config and layers (or the blobs of the draft artifact manifest).
    pub fn is_manifest(&self) -> bool {
        self.is_one_of(&[MediaType::OCI_MANIFEST, MediaType::DOCKER_MANIFEST, MediaType::OCI_ARTIFACT_MANIFEST])
    }

    /// Whether it is a docker manifest of the first schema, which names its layers in a form of its own.
    pub fn is_schema1(&self) -> bool {
        self.is_one_of(&[MediaType::DOCKER_SCHEMA1, MediaType::DOCKER_SCHEMA1_SIGNED])
    }

    /// Whether a registry keeps it among its manifests rather than among its blobs.
    pub fn is_document(&self) -> bool {
        self.is_index() || self.is_manifest() || self.is_schema1()
    }

    /// Whether it is known as the type of blobs that lead to no others: layers, configs of images, contents of artifacts. A
    /// type that is neither this nor that of a [document](MediaType::is_document) says nothing.
    pub fn is_blob(&self) -> bool {
        self.is_layer()
            || self.is_image_config()
            || self.is_one_of(&[MediaType::OCI_EMPTY, MediaType::IN_TOTO, MediaType::BUILDKIT_CACHE_CONFIG])
    }

    /// Whether it is the configuration of a container image.
    pub fn is_image_config(&self) -> bool {
        *self == MediaType::OCI_CONFIG || *self == MediaType::DOCKER_CONFIG
    }

    /// Whether it is a layer that may not be distributed: OCI calls it non-distributable, docker foreign.
    pub fn is_foreign_layer(&self) -> bool {
        let text = self.as_str();
        text.contains(".nondistributable.") || text.contains(".rootfs.foreign.")
    }

    /// Whether it is a file system layer of a container image, of any compression.
    pub fn is_layer(&self) -> bool {
        let text = self.as_str();
        text.starts_with("application/vnd.oci.image.layer.") || text.starts_with("application/vnd.docker.image.rootfs.")
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for MediaType {
    /// An index may have 50,000 entries, and they say the same.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<MediaType, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Ok(MediaType::known(&text).unwrap_or_else(|| MediaType::new(text)))
    }
}

impl From<&str> for MediaType {
    fn from(text: &str) -> MediaType {
        MediaType::new(text)
    }
}
