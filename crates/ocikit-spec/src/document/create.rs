//! New manifests and indexes. The order of their fields is that of the Go types of the specification, so other tools write
//! the same bytes for the same values.

use std::collections::BTreeMap;

use serde::Serialize;

use super::text::invalid;
use super::{Index, Manifest};
use crate::error::Result;
use crate::{Annotations, Descriptor, MediaType};

/// The fields of a new manifest or index.
///
/// ```
/// use ocikit_spec::{Annotations, Descriptor, MediaType, NewDocument};
///
/// let empty = Descriptor::of(MediaType::OCI_EMPTY, b"{}");
/// let new = NewDocument::default().artifact_type(Some("application/vnd.example".into()));
/// let manifest = new.manifest(&empty, &[empty.clone()])?;
/// assert_eq!(manifest.artifact_type(), Some(&"application/vnd.example".into()));
/// # Ok::<(), ocikit_spec::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct NewDocument {
    /// The media type; that of OCI if `None`.
    pub media_type: Option<MediaType>,
    /// The artifact type.
    pub artifact_type: Option<MediaType>,
    /// The subject.
    pub subject: Option<Descriptor>,
    /// The annotations, which are written in the order of their keys.
    pub annotations: Annotations,
}

crate::setters! {
    NewDocument {
        media_type: Option<MediaType>,
        artifact_type: Option<MediaType>,
        subject: Option<Descriptor>,
        annotations: Annotations,
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Fields<'a> {
    schema_version: u32,
    media_type: &'a MediaType,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<&'a MediaType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<&'a Descriptor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    layers: Option<&'a [Descriptor]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    manifests: Option<&'a [Descriptor]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a Descriptor>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'a str, &'a str>,
}

impl NewDocument {
    /// Returns a manifest with this config and these layers, in one line of JSON.
    ///
    /// # Errors
    ///
    /// [`Error::Document`](crate::Error::Document) if the manifest would exceed a limit.
    pub fn manifest(&self, config: &Descriptor, layers: &[Descriptor]) -> Result<Manifest> {
        let default = MediaType::OCI_MANIFEST;
        let fields = Fields { config: Some(config), layers: Some(layers), ..self.fields(&default) };
        Manifest::parse(write("manifest", &fields)?)
    }

    /// Returns an index with these entries, in one line of JSON.
    ///
    /// # Errors
    ///
    /// [`Error::Document`](crate::Error::Document) if the index would exceed a limit.
    pub fn index(&self, manifests: &[Descriptor]) -> Result<Index> {
        let default = MediaType::OCI_INDEX;
        Index::parse(write("index", &Fields { manifests: Some(manifests), ..self.fields(&default) })?)
    }

    fn fields<'a>(&'a self, default: &'a MediaType) -> Fields<'a> {
        Fields {
            schema_version: 2,
            media_type: self.media_type.as_ref().unwrap_or(default),
            artifact_type: self.artifact_type.as_ref(),
            config: None,
            layers: None,
            manifests: None,
            subject: self.subject.as_ref(),
            annotations: self.annotations.iter().collect(),
        }
    }
}

fn write(document: &'static str, fields: &Fields<'_>) -> Result<Vec<u8>> {
    serde_json::to_vec(fields).map_err(|error| invalid(document, error))
}
