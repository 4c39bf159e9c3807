use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::bounded::{Budgeted, MAX_EXTRA_VALUES};
use crate::{Annotations, Digest, MediaType, Platform};

/// A reference from a document to a blob: its media type, digest and size, and optional fields.
///
/// Image specification, "Content Descriptors". Two descriptors with the same digest refer to the same bytes, whatever
/// their other fields.
///
/// ```
/// use ocikit_spec::{Descriptor, MediaType};
///
/// let descriptor = Descriptor::of(MediaType::OCI_LAYER_GZIP, b"bytes");
/// assert_eq!((descriptor.size, descriptor.platform), (5, None));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The media type of the blob.
    pub media_type: MediaType,
    /// The digest of the blob.
    pub digest: Digest,
    /// The size of the blob in bytes.
    pub size: u64,
    /// URLs to fetch the blob from, for non-distributable layers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Annotations of the descriptor. Those of the document that it refers to are separate.
    #[serde(skip_serializing_if = "Annotations::is_empty")]
    pub annotations: Annotations,
    /// The contents of a small blob in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// The platform of the manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The artifact type of the manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<MediaType>,
    /// Unknown fields, which are kept.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Descriptor {
    /// Creates a descriptor with the required fields only.
    pub fn new(media_type: MediaType, digest: Digest, size: u64) -> Descriptor {
        Descriptor {
            media_type,
            digest,
            size,
            urls: Vec::new(),
            annotations: Annotations::new(),
            data: None,
            platform: None,
            artifact_type: None,
            extra: Map::new(),
        }
    }

    /// Returns the descriptor of these bytes, with a sha256 digest.
    pub fn of(media_type: MediaType, bytes: &[u8]) -> Descriptor {
        Descriptor::new(media_type, Digest::sha256_of(bytes), bytes.len() as u64)
    }

    /// Returns the descriptor without its optional fields.
    #[must_use]
    pub fn bare(&self) -> Descriptor {
        Descriptor::new(self.media_type.clone(), self.digest, self.size)
    }

    /// Returns the digest of the image that this entry describes, if it is an attestation manifest of BuildKit.
    pub fn described_image(&self) -> Option<Digest> {
        self.annotations.get(crate::annotations::DOCKER_REFERENCE_DIGEST)?.parse().ok()
    }

    /// Returns whether it is an attestation manifest of BuildKit: provenance or an SBOM for another entry of the same
    /// index.
    pub fn is_attestation(&self) -> bool {
        self.annotations.get(crate::annotations::DOCKER_REFERENCE_TYPE) == Some("attestation-manifest")
    }
}

impl<'de> Deserialize<'de> for Descriptor {
    /// Unknown fields are kept up to a limit. A derived implementation would first hold all of them, which takes twenty
    /// times their text.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Descriptor, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Descriptor;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a descriptor")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Descriptor, A::Error> {
                let (mut media_type, mut digest, mut size, mut urls, mut annotations) = (None, None, None, None, None);
                let (mut data, mut platform, mut artifact_type) = (None, None, None);
                let (mut extra, mut budget) = (Map::new(), MAX_EXTRA_VALUES);
                while let Some(key) = pairs.next_key::<String>()? {
                    match key.as_str() {
                        "mediaType" => once(&mut media_type, "mediaType", pairs.next_value::<Option<MediaType>>()?)?,
                        "digest" => once(&mut digest, "digest", pairs.next_value::<Digest>()?)?,
                        "size" => once(&mut size, "size", pairs.next_value::<u64>()?)?,
                        "urls" => once(&mut urls, "urls", pairs.next_value::<Option<Vec<String>>>()?)?,
                        "annotations" => once(&mut annotations, "annotations", pairs.next_value::<Annotations>()?)?,
                        "data" => once(&mut data, "data", pairs.next_value::<Option<String>>()?)?,
                        "platform" => once(&mut platform, "platform", pairs.next_value::<Option<Platform>>()?)?,
                        "artifactType" => once(&mut artifact_type, "artifactType", pairs.next_value::<Option<_>>()?)?,
                        _ => {
                            let value = pairs.next_value_seed(Budgeted(&mut budget))?;
                            extra.insert(key, value);
                        }
                    }
                }
                Ok(Descriptor {
                    // Some writers omit it. The bytes then decide, see `Content`.
                    media_type: media_type.flatten().unwrap_or_else(|| MediaType::new("")),
                    digest: digest.ok_or_else(|| A::Error::missing_field("digest"))?,
                    size: size.ok_or_else(|| A::Error::missing_field("size"))?,
                    urls: urls.flatten().unwrap_or_default(),
                    annotations: annotations.unwrap_or_default(),
                    data: data.flatten(),
                    platform: platform.flatten(),
                    artifact_type: artifact_type.flatten(),
                    extra,
                })
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// Sets a field that must not occur twice.
fn once<T, E: serde::de::Error>(field: &mut Option<T>, name: &'static str, value: T) -> Result<(), E> {
    match field.replace(value) {
        Some(_) => Err(E::duplicate_field(name)),
        None => Ok(()),
    }
}
