//! SOCI indexes: manifests that list the ztocs of an image, and their place in an image index.

use std::sync::Arc;

use ocikit_image::{BlobFile, Image, Index, Memory, Result, Root};
use ocikit_spec::{Descriptor, Digest, MediaType};
use serde_json::json;

use crate::soci::format::{
    BUILD_TOOL, BUILD_TOOL_NAME, IMAGE_MANIFEST_DIGEST, INDEX_DIGEST, INDEX_V1, INDEX_V2, LAYER_DIGEST,
    LAYER_MEDIA_TYPE, SPAN_SIZE,
};
use crate::soci::prefetch::PREFETCH;

/// The config of a SOCI index.
const EMPTY: &[u8] = b"{}";

/// A ztoc and its layer.
#[derive(Debug, Clone)]
pub(crate) struct LayerIndex {
    pub(crate) ztoc: BlobFile,
    pub(crate) layer: Descriptor,
}

/// Returns the manifest of the SOCI index of an image, over its ztocs and the lists of what is fetched first, by layer. With a
/// subject it has version 1.
pub(crate) async fn manifest(
    layers: &[LayerIndex],
    prefetch: &[(Digest, String)],
    span_size: u64,
    subject: Option<&Descriptor>,
) -> Result<Root> {
    let descriptor = |indexed: &LayerIndex| {
        let mut descriptor = indexed.ztoc.descriptor().clone();
        descriptor.annotations.insert(LAYER_DIGEST, indexed.layer.digest.to_string());
        descriptor.annotations.insert(LAYER_MEDIA_TYPE, indexed.layer.media_type.as_str());
        descriptor.annotations.insert(SPAN_SIZE, span_size.to_string());
        descriptor
    };
    let list = |(layer, text): &(Digest, String)| {
        let mut descriptor = Descriptor::of(MediaType::new(PREFETCH), text.as_bytes());
        descriptor.annotations.insert(LAYER_DIGEST, layer.to_string());
        descriptor
    };
    let layer_descriptors: Vec<_> = layers.iter().map(descriptor).chain(prefetch.iter().map(list)).collect();
    let config = if subject.is_some() { INDEX_V1 } else { INDEX_V2 };
    let mut document = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::OCI_MANIFEST,
        "config": Descriptor::of(MediaType::new(config), EMPTY),
        "layers": layer_descriptors,
    });
    if let Some(subject) = subject {
        document["subject"] = json!(Descriptor::new(subject.media_type.clone(), subject.digest, subject.size));
    }
    document["annotations"] = json!({ BUILD_TOOL: BUILD_TOOL_NAME });
    let bytes = document.to_string();
    let manifest = Descriptor::of(MediaType::OCI_MANIFEST, bytes.as_bytes());
    let memory = Memory::new().with_bytes(bytes).with_bytes(EMPTY);
    let memory = prefetch.iter().fold(memory, |memory, (_, text)| memory.with_bytes(text.clone()));
    let memory = layers.iter().fold(memory, |memory, indexed| memory.with_file(&indexed.ztoc));
    Root::at(Arc::new(memory), manifest).await
}

/// Returns whether an image has a SOCI index of version 2 that the image index lists.
pub(crate) fn is_attached(root: &Root, image: &Image) -> bool {
    let Some(indexed) = image.manifest().annotations().get(INDEX_DIGEST).and_then(|digest| digest.parse().ok()) else {
        return false;
    };
    let Root::Index(index) = root else { return false };
    index.manifests().iter().any(|entry| entry.digest == indexed && is_soci(entry))
}

/// Returns the image index with a SOCI index for an image that it lists. That of the same image before is replaced.
pub(crate) async fn attach(index: &Index, image: &Descriptor, before: &Digest, soci: &Root) -> Result<Index> {
    let mut edit = index.edit();
    let entries = index.manifests();
    let mut platform = image.platform.clone();
    for (position, entry) in entries.iter().enumerate().filter(|(_, entry)| entry.digest == image.digest) {
        edit.annotate_entry(position, INDEX_DIGEST, &soci.digest().to_string());
        platform = entry.platform.clone().or(platform);
    }
    let mut descriptor = soci.descriptor().clone();
    descriptor.artifact_type = Some(MediaType::new(INDEX_V2));
    descriptor.platform = platform;
    descriptor.annotations.insert(IMAGE_MANIFEST_DIGEST, image.digest.to_string());
    let root = Root::at(soci.source().clone(), descriptor).await?;
    let is_old = |entry: &Descriptor| {
        let about = entry.annotations.get(IMAGE_MANIFEST_DIGEST);
        is_soci(entry) && about.is_some_and(|about| about == before.to_string() || about == image.digest.to_string())
    };
    match entries.iter().position(is_old) {
        Some(position) => edit.remove(position).insert(position, &root),
        None => edit.push(&root),
    };
    edit.finish()
}

/// Returns the image index without SOCI indexes.
pub(crate) fn detach(index: &Index) -> Result<Index> {
    let mut edit = index.edit();
    for (position, entry) in index.manifests().iter().enumerate().rev() {
        match is_soci(entry) {
            true => edit.remove(position),
            false => edit.remove_entry_annotation(position, INDEX_DIGEST),
        };
    }
    edit.finish()
}

/// Returns whether a type is that of a SOCI index.
pub(crate) fn is_index_type(found: &str) -> bool {
    [INDEX_V1, INDEX_V2].contains(&found)
}

fn is_soci(entry: &Descriptor) -> bool {
    entry.artifact_type.as_ref().is_some_and(|found| is_index_type(found.as_str()))
}
