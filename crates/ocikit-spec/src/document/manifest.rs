use std::sync::Arc;

use bytes::Bytes;

use super::text::{Text, check_keys, check_kind, check_schema_version, field, invalid, parse_object, text_of_document};
use crate::bounded::List;
use crate::error::Result;
use crate::keys;
use crate::{Annotations, Descriptor, Digest, MediaType, annotations};

/// The maximum number of layers of a manifest: as many as fit with descriptors of the usual size.
const MAX_LAYERS: usize = 25_000;

/// An image manifest: the config and layers of an image, or of an artifact in the same format.
///
/// Image specification, "Image Manifest"; Docker's manifest version 2 schema 2 has the same format.
///
/// ```
/// use ocikit_spec::{Descriptor, Manifest, MediaType, NewDocument};
///
/// let config = Descriptor::of(MediaType::OCI_EMPTY, b"{}");
/// let layer = Descriptor::of("text/plain".into(), b"hello");
/// let new = NewDocument::default().artifact_type(Some("application/vnd.example".into()));
/// let manifest = new.manifest(&config, &[layer])?;
/// assert_eq!(Manifest::parse(manifest.bytes().clone())?.layers().len(), 1);
///
/// let mut edit = manifest.edit();
/// edit.annotate("team", "web");
/// assert_eq!(edit.finish()?.annotations().get("team"), Some("web"));
/// # Ok::<(), ocikit_spec::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Manifest {
    pub(super) text: Text,
    view: Arc<ManifestView>,
}

#[derive(Debug, Clone)]
struct ManifestView {
    media_type: Option<MediaType>,
    artifact_type: Option<MediaType>,
    config: Option<Descriptor>,
    layers: Vec<Descriptor>,
    subject: Option<Descriptor>,
    annotations: Annotations,
}

text_of_document!(Manifest);

impl Manifest {
    /// Parses a manifest.
    ///
    /// # Errors
    ///
    /// [`Error::Document`](crate::Error::Document) if it is not one, has a known key twice or in another case (`Layers`) at any depth, or also
    /// lists `manifests`.
    pub fn parse(bytes: impl Into<Bytes>) -> Result<Manifest> {
        const WHAT: &str = "manifest";
        let text = Text(bytes.into());
        let object = parse_object(WHAT, &text.0)?;
        check_keys(WHAT, &text, keys::MANIFEST)?;
        check_kind(WHAT, &object, &["manifests", "fsLayers"])?;
        let media_type: Option<MediaType> = field(WHAT, &object, "mediaType")?;
        let draft = media_type == Some(MediaType::OCI_ARTIFACT_MANIFEST);
        if !draft {
            check_schema_version(WHAT, &object)?;
        }
        let layers: List<Descriptor, MAX_LAYERS> = field(WHAT, &object, if draft { "blobs" } else { "layers" })?;
        let view = ManifestView {
            artifact_type: field(WHAT, &object, "artifactType")?,
            config: field(WHAT, &object, "config")?,
            layers: layers.0,
            subject: field(WHAT, &object, "subject")?,
            annotations: field(WHAT, &object, "annotations")?,
            media_type,
        };
        if view.config.is_none() && !draft {
            return Err(invalid(WHAT, "it has no config"));
        }
        Ok(Manifest { text, view: Arc::new(view) })
    }

    /// Returns the media type in the document.
    pub(super) fn stated_media_type(&self) -> Option<&MediaType> {
        self.view.media_type.as_ref()
    }

    /// Returns the media type in the document, otherwise that of an OCI manifest.
    pub fn media_type(&self) -> MediaType {
        self.view.media_type.clone().unwrap_or(MediaType::OCI_MANIFEST)
    }

    /// Returns the artifact type or, if there is none, the media type of the config.
    ///
    /// Image specification, "Guidelines for Artifact Usage". `None` for a container image.
    pub fn artifact_type(&self) -> Option<&MediaType> {
        let config = self.view.config.as_ref().map(|config| &config.media_type);
        self.view
            .artifact_type
            .as_ref()
            .or_else(|| config.filter(|config| !config.is_image_config() && **config != MediaType::OCI_EMPTY))
    }

    /// Returns the config; `None` only for the draft artifact manifest.
    pub fn config(&self) -> Option<&Descriptor> {
        self.view.config.as_ref()
    }

    /// Returns the layers, from the lowest to the highest.
    pub fn layers(&self) -> &[Descriptor] {
        &self.view.layers
    }

    /// Returns whether the image states that it is in the format of Nydus: a layer is a blob of Nydus, or the last layer has the
    /// annotation of a bootstrap. The annotation alone can be wrong.
    pub fn is_nydus(&self) -> bool {
        let has_bootstrap = |layer: &Descriptor| layer.annotations.get(annotations::NYDUS_BOOTSTRAP).is_some();
        self.layers().last().is_some_and(has_bootstrap) || self.has_nydus_blobs()
    }

    /// Returns whether a layer is a blob of Nydus. The layers of such an image belong together and are not tars.
    pub fn has_nydus_blobs(&self) -> bool {
        self.layers().iter().any(|layer| layer.media_type == MediaType::NYDUS_BLOB)
    }

    /// Returns the subject.
    pub fn subject(&self) -> Option<&Descriptor> {
        self.view.subject.as_ref()
    }

    /// Returns the annotations of the manifest.
    pub fn annotations(&self) -> &Annotations {
        &self.view.annotations
    }
}
