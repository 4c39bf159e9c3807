use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use ocikit_spec::{Descriptor, Digest, MediaType};

use crate::bound::nydus;
use crate::edit::{over, replaced};
use crate::error::{Error, Need, Result};
use crate::map_images::{Mapped, Selection, map_images};
use crate::root::{Image, Index, Root};
use crate::walk::limits::{MAX_DEPTH, too_deep};

/// A family of media types.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// The OCI image specification.
    #[default]
    Oci,
    /// Docker's image manifest version 2 schema 2, and its manifest list.
    Docker,
}

/// The format to convert to.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct ConvertOptions {
    /// The format.
    pub to: Format,
    /// What happens to parts that the format cannot hold.
    pub unsupported: UnsupportedParts,
}

ocikit_spec::setters! {
    ConvertOptions {
        to: Format,
        unsupported: UnsupportedParts,
    }
}

/// What happens to attestation manifests, subjects and artifact types in a conversion to Docker's format, which has none of
/// them. Annotations are always left out and reported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnsupportedParts {
    /// The conversion fails.
    #[default]
    Refuse,
    /// They are left out and reported.
    Drop,
}

/// The result of [`convert`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Converted {
    /// The converted root.
    pub mapped: Mapped,
    /// What the new format cannot hold.
    pub dropped: Vec<Dropped>,
}

/// A part that a format cannot hold.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dropped {
    /// Annotations of a manifest, of its descriptors, or of an index.
    Annotations {
        /// The document before the conversion.
        document: Digest,
        /// Their keys.
        keys: Vec<String>,
    },
    /// The subject of a manifest or index.
    Subject {
        /// The document before the conversion.
        document: Digest,
    },
    /// The artifact type of a manifest or index.
    ArtifactType {
        /// The document before the conversion.
        document: Digest,
    },
    /// An artifact in an index, such as a SOCI index.
    Artifact {
        /// The manifest of the artifact.
        manifest: Digest,
    },
    /// An attestation manifest of an index.
    Attestation {
        /// The manifest.
        manifest: Digest,
    },
}

impl From<Converted> for Mapped {
    fn from(converted: Converted) -> Mapped {
        converted.mapped
    }
}

/// Converts an image, or an index with its images, to another format. Configs and layers are the same blobs; a conversion
/// to the other format and back gives the same configs and layers.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # use std::sync::Arc;
/// # use ocikit_image::{Memory, Root, testing};
/// # let memory = Arc::new(Memory::new());
/// # let descriptor = testing::image(&memory, 1, &"linux/amd64".parse()?, &[1000]);
/// # let root = Root::at(memory, descriptor).await?;
/// use ocikit_image::{ConvertOptions, Format, convert};
///
/// let mut options = ConvertOptions::default();
/// options.to = Format::Docker;
/// let converted = convert(&root, &options).await?;
/// assert!(converted.mapped.root.descriptor().media_type.is_docker());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # Errors
///
/// As [`map_images`]. [`Error::Unmet`] for zstd layers and the parts of [`UnsupportedParts`], which Docker's format does not
/// have; [`Error::Unsupported`] for artifacts in an index.
pub async fn convert(root: &Root, options: &ConvertOptions) -> Result<Converted> {
    let dropped = Mutex::new(Vec::new());
    let note = |part: Dropped| {
        if let Ok(mut dropped) = dropped.lock() {
            dropped.push(part);
        }
    };
    let mut mapped = map_images(root, &Selection::all(), |image| convert_image(image, options, &note)).await?;
    if let (Root::Index(before), Root::Index(after)) = (root, &mapped.root) {
        let mut documents = HashMap::new();
        let index = convert_index(before, after, options, &note, &mut documents, 0).await?;
        let source = Arc::new(over(&after.source, documents, &HashMap::new()));
        let index = Index { source, ..index };
        mapped.replaced.remove(&before.digest());
        if index.digest() != before.digest() {
            mapped.replaced.insert(before.digest(), index.digest());
        }
        if options.to == Format::Docker {
            mapped.attestations.clear();
        }
        mapped.root = Root::Index(index);
    }
    let mut dropped = dropped.into_inner().unwrap_or_default();
    // Images are converted in parallel.
    dropped.sort_by_key(|part| (part.document(), format!("{part:?}")));
    dropped.dedup();
    Ok(Converted { mapped, dropped })
}

impl Dropped {
    /// Returns the document that had it.
    pub fn document(&self) -> Digest {
        match self {
            Dropped::Annotations { document, .. }
            | Dropped::Subject { document }
            | Dropped::ArtifactType { document }
            | Dropped::Artifact { manifest: document }
            | Dropped::Attestation { manifest: document } => *document,
        }
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dropped::Annotations { document, keys } => {
                write!(f, "{} annotations of {document}: {}", keys.len(), keys.join(", "))
            }
            Dropped::Subject { document } => write!(f, "the subject of {document}"),
            Dropped::ArtifactType { document } => write!(f, "the artifact type of {document}"),
            Dropped::Attestation { manifest } => write!(f, "the attestation manifest {manifest}"),
            Dropped::Artifact { manifest } => write!(f, "the artifact {manifest}"),
        }
    }
}

impl Format {
    /// Returns a media type of the family.
    fn manifest(self) -> MediaType {
        match self {
            Format::Oci => MediaType::OCI_MANIFEST,
            Format::Docker => MediaType::DOCKER_MANIFEST,
        }
    }
}

/// Returns the error for a part that Docker's format does not have, unless it is dropped.
fn refuse(place: &impl fmt::Display, digest: Digest, part: &str, options: &ConvertOptions) -> Result<()> {
    match options.unsupported {
        UnsupportedParts::Drop => Ok(()),
        UnsupportedParts::Refuse => {
            let what = format!("{digest} has {part}, which Docker's format cannot hold");
            Err(Error::unmet(place, what, Need::DropUnsupported))
        }
    }
}

async fn convert_image(image: Image, options: &ConvertOptions, note: &(impl Fn(Dropped) + Sync)) -> Result<Image> {
    let family = options.to.manifest();
    let manifest = image.manifest().clone();
    let media_type = manifest.media_type().in_family_of(&family);
    let mut edit = manifest.edit();
    edit.set_media_type(&media_type);
    if let Some(config) = manifest.config() {
        edit.set_config_media_type(&config.media_type.in_family_of(&family));
    }
    for (position, layer) in manifest.layers().iter().enumerate() {
        edit.set_layer_media_type(position, &layer.media_type.in_family_of(&family));
    }
    if options.to == Format::Docker {
        let (document, place) = (image.digest(), image.source());
        let zstd = manifest.layers().iter().any(|layer| layer.media_type.as_str().ends_with("zstd"));
        if zstd {
            let what = format!("{document} has zstd layers, which Docker's format cannot hold");
            return Err(Error::unmet(place, what, Need::OtherCompression));
        }
        if image.has_nydus_layers().await? {
            return Err(nydus(&image, "which Docker's format cannot hold"));
        }
        if manifest.subject().is_some() {
            refuse(place, document, "a subject", options)?;
            edit.remove_subject();
            note(Dropped::Subject { document });
        }
        if manifest.artifact_type().is_some() {
            refuse(place, document, "an artifact type", options)?;
            edit.set_artifact_type(None);
            note(Dropped::ArtifactType { document });
        }
        let mut keys: Vec<_> = manifest.annotations().iter().map(|(key, _)| key.to_owned()).collect();
        for key in &keys {
            edit.remove_annotation(key);
        }
        let plain = |descriptor: &Descriptor| Descriptor {
            annotations: Default::default(),
            media_type: descriptor.media_type.in_family_of(&family),
            ..descriptor.clone()
        };
        for (position, layer) in manifest.layers().iter().enumerate().filter(|(_, layer)| !layer.annotations.is_empty())
        {
            keys.extend(layer.annotations.iter().map(|(key, _)| key.to_owned()));
            edit.replace_layer(position, &plain(layer));
        }
        if let Some(config) = manifest.config().filter(|config| !config.annotations.is_empty()) {
            keys.extend(config.annotations.iter().map(|(key, _)| key.to_owned()));
            edit.set_config(&plain(config));
        }
        note_annotations(document, keys, note);
    }
    let unusable = |source| Error::document(&image.digest(), image.source(), source);
    let manifest = edit.finish().map_err(unusable)?;
    let Some(descriptor) = replaced(&image.descriptor, manifest.bytes()) else { return Ok(image) };
    let documents = [(descriptor.digest, manifest.bytes().clone())];
    let source = Arc::new(over(&image.source, documents, &HashMap::new()));
    Ok(Image::of(Descriptor { media_type, ..descriptor }, manifest, source))
}

/// Converts an index whose images are converted, and the indexes below it. The new documents are added to `documents`; the
/// source of the result is that of `after`.
fn convert_index<'a>(
    before: &'a Index,
    after: &'a Index,
    options: &'a ConvertOptions,
    note: &'a (dyn Fn(Dropped) + Sync),
    documents: &'a mut HashMap<Digest, Bytes>,
    depth: usize,
) -> BoxFuture<'a, Result<Index>> {
    async move {
        let (document, place) = (before.digest(), before.source());
        if depth > MAX_DEPTH {
            return Err(too_deep(&document, place));
        }
        let family = options.to.manifest();
        let media_type = after.document().media_type().in_family_of(&family);
        let mut edit = after.document().edit();
        edit.set_media_type(&media_type);
        let mut keys = Vec::new();
        if options.to == Format::Docker {
            keys = remove_unsupported(before, after, &mut edit, options, note)?;
        }
        let mut removed = Vec::new();
        for (position, entry) in after.manifests().iter().enumerate() {
            // The entries have not moved.
            let old = before.manifests().get(position).unwrap_or(entry);
            if options.to == Format::Docker && entry.is_attestation() {
                refuse(place, document, "attestation manifests", options)?;
                note(Dropped::Attestation { manifest: old.digest });
                removed.push(position);
                continue;
            }
            if options.to == Format::Docker && entry.artifact_type.is_some() {
                refuse(place, document, "artifacts", options)?;
                note(Dropped::Artifact { manifest: old.digest });
                removed.push(position);
                continue;
            }
            if entry.media_type.is_index()
                && let (Root::Index(old), Root::Index(new)) = (before.open(old).await?, after.open(entry).await?)
            {
                let nested = convert_index(&old, &new, options, note, &mut *documents, depth + 1).await?;
                edit.repoint(position, &nested.digest(), nested.descriptor.size);
            } else if options.to == Format::Docker && !entry.media_type.is_manifest() {
                let what = format!("{document} lists {}, which Docker's format cannot hold", entry.media_type);
                return Err(Error::Unsupported { place: place.to_string(), what });
            }
            edit.set_entry_media_type(position, &entry.media_type.in_family_of(&family));
            if options.to == Format::Docker {
                for (key, _) in entry.annotations.iter() {
                    edit.remove_entry_annotation(position, key);
                    keys.push(key.to_owned());
                }
            }
        }
        for position in removed.into_iter().rev() {
            edit.remove(position);
        }
        note_annotations(document, keys, &note);
        let index = edit.finish().map_err(|source| Error::document(&document, place, source))?;
        let Some(descriptor) = replaced(&after.descriptor, index.bytes()) else { return Ok(after.clone()) };
        documents.insert(descriptor.digest, index.bytes().clone());
        let descriptor = Descriptor { media_type, ..descriptor };
        Ok(Index { descriptor, document: index, source: after.source.clone() })
    }
    .boxed()
}

/// Removes from an index what Docker's format does not have, and returns the keys of its annotations.
fn remove_unsupported(
    before: &Index,
    after: &Index,
    edit: &mut ocikit_spec::IndexEdit,
    options: &ConvertOptions,
    note: &(dyn Fn(Dropped) + Sync),
) -> Result<Vec<String>> {
    let (document, place) = (before.digest(), before.source());
    if after.document().subject().is_some() {
        refuse(place, document, "a subject", options)?;
        edit.remove_subject();
        note(Dropped::Subject { document });
    }
    if after.document().artifact_type().is_some() {
        refuse(place, document, "an artifact type", options)?;
        edit.set_artifact_type(None);
        note(Dropped::ArtifactType { document });
    }
    let keys: Vec<_> = after.document().annotations().iter().map(|(key, _)| key.to_owned()).collect();
    for key in &keys {
        edit.remove_annotation(key);
    }
    Ok(keys)
}

fn note_annotations(document: Digest, mut keys: Vec<String>, note: &impl Fn(Dropped)) {
    keys.sort();
    keys.dedup();
    if !keys.is_empty() {
        note(Dropped::Annotations { document, keys });
    }
}
