mod config;
mod create;
mod edit;
mod index;
mod manifest;
mod text;

use bytes::Bytes;
use serde::de::IgnoredAny;

use crate::bounded::NamesBlobs;
use crate::error::Result;
use crate::keys;
use crate::{Annotations, Descriptor, MediaType};

use text::{check_length, field, invalid, parse_object};

pub use config::{Config, Execution, History, RootFs};
pub use create::NewDocument;
pub use edit::{ConfigEdit, ConfigField, Healthcheck, IndexEdit, ManifestEdit};
pub use index::Index;
pub use manifest::Manifest;
pub use text::{MAX_DOCUMENT_BYTES, MAX_ROOTS_BYTES};

/// The maximum number of entries of an index that is not a layout's list of roots.
const MAX_ENTRIES: usize = 25_000;

/// A manifest or an index. Like all documents, it is cheap to clone.
#[derive(Debug, Clone)]
pub enum Document {
    /// A manifest with a config and layers.
    Manifest(Manifest),
    /// A list of manifests and indexes.
    Index(Index),
}

impl Document {
    /// Parses the document of a descriptor or header with this media type. The type is a hint: registries serve an OCI
    /// index as a Docker manifest list and the reverse (goharbor/harbor#15837), so the bytes decide the kind.
    ///
    /// # Errors
    ///
    /// [`Error::Document`](crate::Error::Document) if the bytes are not a manifest or an index, or could be read as both.
    pub fn parse(media_type: &MediaType, bytes: impl Into<Bytes>) -> Result<Document> {
        match Content::of(media_type, bytes)? {
            Content::Document(document) => Ok(document),
            Content::Schema1 => Err(invalid("document", "it is a Docker schema 1 manifest, which is not supported")),
            Content::Blob => Err(invalid("document", format!("`{media_type}` is neither a manifest nor an index"))),
        }
    }

    /// Parses the document for a caller that states the media type and must be right, such as a client that puts a
    /// manifest.
    ///
    /// # Errors
    ///
    /// As [`Document::parse`], and if the document states another media type.
    pub fn parse_exactly(media_type: &MediaType, bytes: impl Into<Bytes>) -> Result<Document> {
        let document = Document::parse(media_type, bytes)?;
        match document.media_type(media_type) {
            actual if actual == media_type.essence() => Ok(document),
            actual => Err(invalid("document", format!("its media type is `{actual}`, not `{media_type}`"))),
        }
    }

    /// Detects by its contents alone whether a document is a manifest or an index, for bytes without a descriptor.
    ///
    /// # Errors
    ///
    /// [`Error::Document`](crate::Error::Document) if the bytes are neither.
    pub fn sniff(bytes: impl Into<Bytes>) -> Result<(MediaType, Document)> {
        let document = Document::parse(&MediaType::OCI_MANIFEST, bytes)?;
        Ok((document.media_type(&MediaType::OCI_MANIFEST), document))
    }

    /// Returns the media type: the one in the document; otherwise `label`, the type of the descriptor or header, if
    /// that is a type of this kind of document; otherwise that of OCI.
    pub fn media_type(&self, label: &MediaType) -> MediaType {
        let (stated, fitting, default) = match self {
            Document::Manifest(manifest) => {
                (manifest.stated_media_type(), label.is_manifest(), MediaType::OCI_MANIFEST)
            }
            Document::Index(index) => (index.stated_media_type(), label.is_index(), MediaType::OCI_INDEX),
        };
        match stated {
            Some(stated) => stated.essence(),
            None if fitting => label.essence(),
            None => default,
        }
    }

    /// Returns the child descriptors in the order of the document: config and layers, or manifests.
    ///
    /// The subject is not a child, because it is not part of the artifact.
    pub fn children(&self) -> Box<dyn Iterator<Item = &Descriptor> + Send + '_> {
        match self {
            Document::Manifest(manifest) => Box::new(manifest.config().into_iter().chain(manifest.layers())),
            Document::Index(index) => Box::new(index.manifests().iter()),
        }
    }

    /// Returns whether a child may be another document. The entries of an index may, whatever their media type; the
    /// children of a manifest are blobs unless their media type says otherwise.
    pub fn may_be_document(&self, child: &Descriptor) -> bool {
        match self {
            Document::Manifest(_) => child.media_type.is_document(),
            Document::Index(_) => true,
        }
    }

    /// Returns the subject.
    pub fn subject(&self) -> Option<&Descriptor> {
        match self {
            Document::Manifest(manifest) => manifest.subject(),
            Document::Index(index) => index.subject(),
        }
    }

    /// Returns the artifact type that a list of referrers has for the document: its own, or the media type of the config of a
    /// manifest without one. Distribution specification, "Listing Referrers".
    pub fn listed_artifact_type(&self) -> Option<&MediaType> {
        let is_stated = |stated: &&MediaType| !stated.as_str().is_empty();
        match self {
            Document::Manifest(manifest) => {
                let config = manifest.config().map(|config| &config.media_type);
                manifest.artifact_type().filter(is_stated).or(config)
            }
            Document::Index(index) => index.artifact_type().filter(is_stated),
        }
    }

    /// Returns the annotations.
    pub fn annotations(&self) -> &Annotations {
        match self {
            Document::Manifest(manifest) => manifest.annotations(),
            Document::Index(index) => index.annotations(),
        }
    }

    /// Returns the exact bytes.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Document::Manifest(manifest) => manifest.bytes(),
            Document::Index(index) => index.bytes(),
        }
    }
}

/// The kind of the bytes of a descriptor, whatever media type the descriptor or a header states.
#[derive(Debug, Clone)]
pub enum Content {
    /// A manifest or an index.
    Document(Document),
    /// A Docker schema 1 manifest. Its layers are not parsed.
    Schema1,
    /// Bytes that refer to no others.
    Blob,
}

impl Content {
    /// Determines the kind by the bytes. The media type counts only if they are ambiguous.
    ///
    /// # Errors
    ///
    /// [`Error::Document`](crate::Error::Document) if the media type is that of a document and the bytes are none; if they could be read as two
    /// kinds of documents; and if they are a document of an unknown kind that refers to other blobs, because copying it
    /// as a blob would lose those.
    pub fn of(label: &MediaType, bytes: impl Into<Bytes>) -> Result<Content> {
        let bytes = bytes.into();
        let labelled = label.is_document();
        let is_object = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
        let is_json_object = || is_object && serde_json::from_slice::<IgnoredAny>(&bytes).is_ok();
        if !labelled && !is_json_object() {
            return Ok(Content::Blob);
        }
        check_length("document", &bytes, MAX_DOCUMENT_BYTES)?;
        let fields = parse_object("document", &bytes)?;
        // A key in another case also decides the kind: parsing then fails.
        let key_of = |name| fields.keys_with_value().find(|key| keys::folds_to(key, name));
        let has = |name| key_of(name).is_some();
        let stated: Option<MediaType> = field("document", &fields, "mediaType")?;
        let stated = stated.filter(|stated| !stated.as_str().is_empty());
        let kind = match &stated {
            Some(stated) if stated.is_document() => Some(stated),
            Some(stated) if labelled => {
                let problem = format!("its media type is `{stated}`, which is neither a manifest nor an index");
                return Err(invalid("document", problem));
            }
            // Another kind of document, such as the envelope of an attestation.
            Some(_) => None,
            None if has("manifests") && (labelled || has("schemaVersion")) => Some(&MediaType::OCI_INDEX),
            None if has("fsLayers") => Some(&MediaType::DOCKER_SCHEMA1),
            None if (has("config") || has("layers")) && (labelled || has("schemaVersion")) => {
                Some(&MediaType::OCI_MANIFEST)
            }
            None => labelled.then_some(label),
        };
        match kind {
            Some(kind) if kind.is_index() => {
                let index = Index::parse(bytes)?;
                if index.manifests().len() > MAX_ENTRIES {
                    let problem = format!("it lists more than {MAX_ENTRIES} manifests");
                    return Err(invalid("index", problem));
                }
                Ok(Content::Document(Document::Index(index)))
            }
            Some(kind) if kind.is_schema1() => match ["manifests", "layers", "config"].into_iter().find_map(key_of) {
                Some(key) => {
                    let key = key.escape_default();
                    Err(invalid("document", format!("it is a docker schema 1 manifest and has `{key}`")))
                }
                None => Ok(Content::Schema1),
            },
            Some(_) => Ok(Content::Document(Document::Manifest(Manifest::parse(bytes)?))),
            None => match serde_json::from_slice::<NamesBlobs>(&bytes) {
                Ok(NamesBlobs(false)) => Ok(Content::Blob),
                Ok(NamesBlobs(true)) => {
                    let stated = stated.as_ref().unwrap_or(label);
                    let problem = format!("it refers to other blobs, and `{stated}` is not a known media type");
                    Err(invalid("document", problem))
                }
                // Nested too deep to be searched.
                Err(error) => Err(invalid("document", error)),
            },
        }
    }

    /// Checks that bytes can be a root: a manifest or index, or another kind of JSON document with one of their fields.
    /// A server that answers any request with a text, a page or an error of its own has none of them.
    ///
    /// # Errors
    ///
    /// [`Error::Document`](crate::Error::Document) if the bytes are no JSON object, or one without `mediaType`, `schemaVersion`, `config`,
    /// `layers` and `manifests`.
    pub fn check_root(bytes: &Bytes) -> Result<()> {
        const WHAT: &str = "manifest or index";
        const FIELDS: [&str; 6] = ["mediaType", "schemaVersion", "config", "layers", "manifests", "fsLayers"];
        let fields = parse_object(WHAT, bytes)?;
        match fields.keys_with_value().any(|key| FIELDS.iter().any(|name| keys::folds_to(key, name))) {
            true => Ok(()),
            false => Err(invalid(WHAT, "it has neither a media type nor a list of other documents or blobs")),
        }
    }

    /// Returns the media type of the bytes: that of the document, otherwise the label.
    pub fn media_type(&self, label: &MediaType) -> MediaType {
        match self {
            Content::Document(document) => document.media_type(label),
            Content::Schema1 if label.is_schema1() => label.essence(),
            Content::Schema1 => MediaType::DOCKER_SCHEMA1_SIGNED,
            Content::Blob => label.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
