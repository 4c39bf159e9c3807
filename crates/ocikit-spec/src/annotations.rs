//! Annotations: the key-value pairs of manifests, indexes and descriptors, and the well-known keys.
//!
//! Image specification, "Annotations".

use indexmap::IndexMap;
use serde::{Deserialize, Deserializer, Serialize};

/// `org.opencontainers.image.created`: the creation time, RFC 3339.
pub const CREATED: &str = "org.opencontainers.image.created";
/// `org.opencontainers.image.source`: the URL of the source code.
pub const SOURCE: &str = "org.opencontainers.image.source";
/// `org.opencontainers.image.revision`: the source control revision.
pub const REVISION: &str = "org.opencontainers.image.revision";
/// `org.opencontainers.image.base.name`: the reference of the base image.
pub const BASE_NAME: &str = "org.opencontainers.image.base.name";
/// `org.opencontainers.image.base.digest`: the digest of the base image.
pub const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";
/// `org.opencontainers.image.ref.name`: the name, usually a tag, of an entry of a layout's `index.json`.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// `io.containerd.image.name`: the full reference, in addition to [`REF_NAME`], as BuildKit and containerd write it.
pub const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// `vnd.docker.reference.type`: on an index entry, `attestation-manifest` for BuildKit's attestation manifests.
pub const DOCKER_REFERENCE_TYPE: &str = "vnd.docker.reference.type";
/// `vnd.docker.reference.digest`: on such an entry, the digest of the manifest that it refers to.
pub const DOCKER_REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
/// `in-toto.io/predicate-type`: on a layer of an attestation manifest, the predicate type of the statement.
pub const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";
/// `containerd.io/snapshot/nydus-bootstrap`: on the last layer of a Nydus image, which has the metadata of all files.
pub const NYDUS_BOOTSTRAP: &str = "containerd.io/snapshot/nydus-bootstrap";
/// `containerd.io/snapshot/nydus-source-digest`: on an index entry of a Nydus image, the manifest that it was made from.
pub const NYDUS_SOURCE_DIGEST: &str = "containerd.io/snapshot/nydus-source-digest";
/// `com.amazon.soci.index-digest`: on an image, the digest of its SOCI index (version 2).
pub const SOCI_INDEX_DIGEST: &str = "com.amazon.soci.index-digest";
/// `com.amazon.soci.image-manifest-digest`: on an index entry of a SOCI index, the manifest of its image.
pub const SOCI_IMAGE_DIGEST: &str = "com.amazon.soci.image-manifest-digest";

/// Keys and values in the order of the document.
///
/// ```
/// use ocikit_spec::{Annotations, annotations};
///
/// let mut all = Annotations::from_iter([("b", "1"), ("a", "2")]);
/// all.insert(annotations::REVISION, "6c22711");
/// assert_eq!(all.get("a"), Some("2"));
/// assert_eq!(all.iter().next(), Some(("b", "1")), "they keep their order");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Annotations(IndexMap<String, String>);

impl Annotations {
    /// Creates an empty map.
    pub fn new() -> Annotations {
        Annotations::default()
    }

    /// Returns the value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Sets a key: in its position if it exists, otherwise at the end.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.0.insert(key.into(), value.into());
    }

    /// Removes a key and returns its value; the others keep their order.
    pub fn remove(&mut self, key: &str) -> Option<String> {
        self.0.shift_remove(key)
    }

    /// Returns keys and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Returns the number of annotations.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Deserializes annotations; `null`, which Go writes for a nil map, is an empty map.
impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Annotations, D::Error> {
        Ok(Annotations(crate::bounded::annotations(deserializer)?))
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Annotations {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Annotations {
        Annotations(pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}
