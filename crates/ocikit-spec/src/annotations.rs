//! Annotations: the free text on manifests, indexes and descriptors, and the keys that everybody knows.
//!
//! Image specification, "Annotations".

use indexmap::IndexMap;
use serde::{Deserialize, Deserializer, Serialize};

/// `org.opencontainers.image.created`: when the image was built, RFC 3339.
pub const CREATED: &str = "org.opencontainers.image.created";
/// `org.opencontainers.image.source`: where the source code is.
pub const SOURCE: &str = "org.opencontainers.image.source";
/// `org.opencontainers.image.revision`: the source control revision.
pub const REVISION: &str = "org.opencontainers.image.revision";
/// `org.opencontainers.image.ref.name`: the name, usually a tag, of an entry of a layout's `index.json`.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// `io.containerd.image.name`: the full reference, beside [`REF_NAME`], as BuildKit and containerd write it.
pub const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// `vnd.docker.reference.type`: on an index entry, `attestation-manifest` where BuildKit lists attestations.
pub const DOCKER_REFERENCE_TYPE: &str = "vnd.docker.reference.type";
/// `vnd.docker.reference.digest`: on such an entry, the digest of the manifest that it speaks about.
pub const DOCKER_REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
/// `in-toto.io/predicate-type`: on a layer of an attestation, what its statement asserts.
pub const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";

/// Keys and values in the order in which the document has them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Annotations(IndexMap<String, String>);

impl Annotations {
    /// None.
    pub fn new() -> Annotations {
        Annotations::default()
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Sets a key: in its place if it is there, at the end if it is new.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.0.insert(key.into(), value.into());
    }

    /// Removes a key and returns its value; the others keep their order.
    pub fn remove(&mut self, key: &str) -> Option<String> {
        self.0.shift_remove(key)
    }

    /// Keys and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Go writes a nil map as `null`, so that is read as none.
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
