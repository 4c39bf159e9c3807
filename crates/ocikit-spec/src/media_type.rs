use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// A media type by RFC 6838.
///
/// Any text is accepted, because documents contain unregistered types; the methods classify the known ones.
///
/// ```
/// use ocikit_spec::MediaType;
///
/// assert_eq!(MediaType::OCI_INDEX.as_str(), "application/vnd.oci.image.index.v1+json");
/// assert!(MediaType::from("application/vnd.docker.distribution.manifest.v2+json").is_manifest());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct MediaType(Cow<'static, str>);

macro_rules! known {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        impl MediaType {
            $($(#[$doc])* pub const $name: MediaType = MediaType(Cow::Borrowed($text));)*

            /// Returns a known type without allocating, if the text is one.
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
    /// A blob of Nydus: chunks of the files of a layer, and no tar.
    NYDUS_BLOB = "application/vnd.oci.image.layer.nydus.blob.v1";
    /// The empty JSON object `{}`, for an artifact without a config or content.
    OCI_EMPTY = "application/vnd.oci.empty.v1+json";
    /// The artifact manifest of an early draft of OCI 1.1; read, never written.
    OCI_ARTIFACT_MANIFEST = "application/vnd.oci.artifact.manifest.v1+json";
    /// A Docker image manifest, version 2, schema 2.
    DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json";
    /// A Docker manifest list.
    DOCKER_MANIFEST_LIST = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// A Docker image configuration.
    DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json";
    /// A gzip-compressed Docker layer.
    DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// An uncompressed Docker layer.
    DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar";
    /// A zstd-compressed Docker layer, as containerd and BuildKit write it.
    DOCKER_LAYER_ZSTD = "application/vnd.docker.image.rootfs.diff.tar.zstd";
    /// An unsigned Docker schema 1 manifest; recognized, never written.
    DOCKER_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json";
    /// A signed Docker schema 1 manifest; recognized, never written.
    DOCKER_SCHEMA1_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    /// An in-toto statement, as BuildKit stores its attestations.
    IN_TOTO = "application/vnd.in-toto+json";
    /// The config of an exported BuildKit cache, which an index lists beside the layers.
    BUILDKIT_CACHE_CONFIG = "application/vnd.buildkit.cacheconfig.v0";
    /// Bytes of an unspecified type.
    OCTET_STREAM = "application/octet-stream";
}

impl MediaType {
    /// Creates a media type.
    pub fn new(text: impl Into<String>) -> MediaType {
        MediaType(Cow::Owned(text.into()))
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the type without parameters and in lower case: `Application/JSON; charset=utf-8` is `application/json`.
    /// RFC 9110, "Media Type".
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

    /// Returns whether it is an index: an OCI index or a Docker manifest list.
    pub fn is_index(&self) -> bool {
        self.is_one_of(&[MediaType::OCI_INDEX, MediaType::DOCKER_MANIFEST_LIST])
    }

    /// Returns whether it is a manifest with a config and layers, or the draft artifact manifest with blobs.
    pub fn is_manifest(&self) -> bool {
        self.is_one_of(&[MediaType::OCI_MANIFEST, MediaType::DOCKER_MANIFEST, MediaType::OCI_ARTIFACT_MANIFEST])
    }

    /// Returns whether it is a Docker schema 1 manifest, whose layers have a different format.
    pub fn is_schema1(&self) -> bool {
        self.is_one_of(&[MediaType::DOCKER_SCHEMA1, MediaType::DOCKER_SCHEMA1_SIGNED])
    }

    /// Returns whether it is a document that a registry stores as a manifest rather than as a blob.
    pub fn is_document(&self) -> bool {
        self.is_index() || self.is_manifest() || self.is_schema1()
    }

    /// Returns whether it is a known type of blobs that refer to no others: layers, image configs, contents of
    /// artifacts. A type that is neither such a type nor that of a [document](MediaType::is_document) is unknown.
    pub fn is_blob(&self) -> bool {
        self.is_layer()
            || self.is_image_config()
            || self.is_one_of(&[MediaType::OCI_EMPTY, MediaType::IN_TOTO, MediaType::BUILDKIT_CACHE_CONFIG])
    }

    /// Returns whether it is the config of a container image.
    pub fn is_image_config(&self) -> bool {
        *self == MediaType::OCI_CONFIG || *self == MediaType::DOCKER_CONFIG
    }

    /// Returns whether it is a layer that must not be distributed: OCI calls it non-distributable, Docker foreign.
    pub fn is_foreign_layer(&self) -> bool {
        let text = self.as_str();
        text.contains(".nondistributable.") || text.contains(".rootfs.foreign.")
    }

    /// Returns whether it is a type of Docker's formats.
    pub fn is_docker(&self) -> bool {
        self.bare().to_ascii_lowercase().starts_with("application/vnd.docker.")
    }

    /// Returns the type of the same thing in the family of another type: a layer, config, manifest or index of Docker
    /// beside a Docker manifest, otherwise that of OCI. Types without a counterpart are returned as they are.
    ///
    /// ```
    /// use ocikit_spec::MediaType;
    ///
    /// assert_eq!(MediaType::OCI_LAYER_GZIP.in_family_of(&MediaType::DOCKER_MANIFEST), MediaType::DOCKER_LAYER_GZIP);
    /// assert_eq!(MediaType::DOCKER_CONFIG.in_family_of(&MediaType::OCI_MANIFEST), MediaType::OCI_CONFIG);
    /// ```
    #[must_use]
    pub fn in_family_of(&self, other: &MediaType) -> MediaType {
        const PAIRS: [(MediaType, MediaType); 6] = [
            (MediaType::OCI_LAYER, MediaType::DOCKER_LAYER),
            (MediaType::OCI_LAYER_GZIP, MediaType::DOCKER_LAYER_GZIP),
            (MediaType::OCI_LAYER_ZSTD, MediaType::DOCKER_LAYER_ZSTD),
            (MediaType::OCI_CONFIG, MediaType::DOCKER_CONFIG),
            (MediaType::OCI_MANIFEST, MediaType::DOCKER_MANIFEST),
            (MediaType::OCI_INDEX, MediaType::DOCKER_MANIFEST_LIST),
        ];
        let essence = self.essence();
        let is_docker = other.is_docker();
        match PAIRS.into_iter().find(|(oci, docker)| essence == *oci || essence == *docker) {
            Some((_, docker)) if is_docker => docker,
            Some((oci, _)) => oci,
            None => self.clone(),
        }
    }

    /// Returns whether it is a file system layer of a container image, in any compression.
    pub fn is_layer(&self) -> bool {
        let text = self.as_str();
        text.starts_with("application/vnd.oci.image.layer.") || text.starts_with("application/vnd.docker.image.rootfs.")
    }

    /// Returns whether it is a file system layer that is a tar, in any compression. Blobs of Nydus are layers and no tars.
    pub fn is_tar_layer(&self) -> bool {
        self.is_layer() && !self.is_one_of(&[MediaType::NYDUS_BLOB])
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for MediaType {
    /// Known types are not allocated: an index may have 50,000 entries of the same type.
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
