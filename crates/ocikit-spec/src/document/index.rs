use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use super::text::{Text, check_keys, check_kind, check_schema_version, field, invalid, parse_object, text_of_document};
use crate::bounded::List;
use crate::error::Result;
use crate::keys;
use crate::{Annotations, Descriptor, Digest, MediaType};

/// The maximum number of roots of a layout.
const MAX_ROOTS: usize = 50_000;

/// An index: the manifests of an image for several platforms, or the roots of a layout.
///
/// Image specification, "Image Index"; Docker's manifest list has the same format.
///
/// ```
/// use ocikit_spec::{Descriptor, Index, MediaType};
///
/// let index = Index::of(&[Descriptor::of(MediaType::OCI_MANIFEST, b"a manifest")]);
/// assert_eq!(Index::parse(index.bytes().clone())?.manifests(), index.manifests());
/// # Ok::<(), ocikit_spec::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Index {
    pub(super) text: Text,
    view: Arc<IndexView>,
}

#[derive(Debug, Clone)]
struct IndexView {
    media_type: Option<MediaType>,
    artifact_type: Option<MediaType>,
    manifests: Vec<Descriptor>,
    subject: Option<Descriptor>,
    annotations: Annotations,
}

text_of_document!(Index);

impl Index {
    /// Parses an index.
    ///
    /// # Errors
    ///
    /// [`Error::Document`](crate::Error::Document) if it is not one, has a known key twice or in another case at any depth, or also has a config
    /// or layers.
    pub fn parse(bytes: impl Into<Bytes>) -> Result<Index> {
        const WHAT: &str = "index";
        let text = Text(bytes.into());
        let object = parse_object(WHAT, &text.0)?;
        check_keys(WHAT, &text, keys::INDEX)?;
        check_kind(WHAT, &object, &["config", "layers", "fsLayers"])?;
        check_schema_version(WHAT, &object)?;
        let manifests: List<Descriptor, MAX_ROOTS> = field(WHAT, &object, "manifests")?;
        let view = IndexView {
            media_type: field(WHAT, &object, "mediaType")?,
            artifact_type: field(WHAT, &object, "artifactType")?,
            manifests: manifests.0,
            subject: field(WHAT, &object, "subject")?,
            annotations: field(WHAT, &object, "annotations")?,
        };
        if object.raw("manifests").is_none() {
            return Err(invalid(WHAT, "it lists no manifests"));
        }
        Ok(Index { text, view: Arc::new(view) })
    }

    /// Creates an OCI index with these entries, in one line of JSON.
    pub fn of(manifests: &[Descriptor]) -> Index {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Layout<'a> {
            schema_version: u32,
            media_type: MediaType,
            manifests: &'a [Descriptor],
        }
        let form = Layout { schema_version: 2, media_type: MediaType::OCI_INDEX, manifests };
        let text = serde_json::to_vec(&form).expect("descriptors have string keys and cannot fail to serialize");
        let view = IndexView {
            media_type: Some(MediaType::OCI_INDEX),
            artifact_type: None,
            manifests: manifests.to_vec(),
            subject: None,
            annotations: Annotations::new(),
        };
        Index { text: Text(text.into()), view: Arc::new(view) }
    }

    /// Returns the media type in the document.
    pub(super) fn stated_media_type(&self) -> Option<&MediaType> {
        self.view.media_type.as_ref()
    }

    /// Returns the media type in the document, otherwise that of an OCI index.
    pub fn media_type(&self) -> MediaType {
        self.view.media_type.clone().unwrap_or(MediaType::OCI_INDEX)
    }

    /// Returns the artifact type of the index as a whole.
    pub fn artifact_type(&self) -> Option<&MediaType> {
        self.view.artifact_type.as_ref()
    }

    /// Returns the entries, in order.
    pub fn manifests(&self) -> &[Descriptor] {
        &self.view.manifests
    }

    /// Returns the subject.
    pub fn subject(&self) -> Option<&Descriptor> {
        self.view.subject.as_ref()
    }

    /// Returns the annotations of the index.
    pub fn annotations(&self) -> &Annotations {
        &self.view.annotations
    }
}
