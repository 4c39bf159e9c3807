//! The `manifest.json` beside an `index.json` that lets `docker load` take an OCI archive.

use std::collections::HashSet;

use ocikit_image::{Result, Source, SourceExt};
use ocikit_spec::{Content, Descriptor, Document, Index, Manifest, MediaType, Platform};
use serde::{Deserialize, Serialize};

use crate::roots::full_name_of;

/// The name of the file in which `docker save` lists images.
pub(crate) const MANIFEST_JSON: &str = "manifest.json";

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    /// `null` where the image has no full name; then docker loads it under its identifier.
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// The file for these roots: of each the image for this platform or, failing that, its first image. `None` if there is
/// no image at all.
pub(crate) async fn manifest_json(roots: &Index, place: &dyn Source, platform: &Platform) -> Result<Option<Vec<u8>>> {
    let mut items = Vec::new();
    let mut seen = HashSet::new();
    for root in roots.manifests() {
        if !seen.insert(root.digest) {
            continue;
        }
        let Some(manifest) = image_below(root, place, platform).await? else { continue };
        let Some(config) = manifest.config() else { continue };
        let same = roots.manifests().iter().filter(|other| other.digest == root.digest);
        let names: Vec<_> = same.filter_map(full_name_of).map(str::to_owned).collect();
        items.push(Item {
            config: config.digest.blob_path(),
            repo_tags: (!names.is_empty()).then_some(names),
            layers: manifest.layers().iter().map(|layer| layer.digest.blob_path()).collect(),
        });
    }
    let text = || serde_json::to_vec(&items).expect("strings cannot fail to serialize");
    Ok((!items.is_empty()).then(text))
}

/// The entries that such a file leads to; none if it makes no sense.
pub(crate) fn listed_in(text: &[u8]) -> Vec<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Listed {
        config: String,
        layers: Option<Vec<String>>,
    }
    let items: Vec<Listed> = serde_json::from_slice(text).unwrap_or_default();
    items.into_iter().flat_map(|item| [item.config].into_iter().chain(item.layers.unwrap_or_default())).collect()
}

async fn image_below(root: &Descriptor, place: &dyn Source, platform: &Platform) -> Result<Option<Manifest>> {
    let mut current = root.clone();
    // An index of indexes is rare and never deep.
    for _ in 0..4 {
        match place.content(&current).await? {
            Content::Schema1 | Content::Blob => return Ok(None),
            Content::Document(Document::Manifest(manifest)) => return Ok(Some(manifest).filter(is_image)),
            Content::Document(Document::Index(index)) => {
                let candidates = || index.manifests().iter().filter(|entry| !entry.is_attestation());
                let runs = |entry: &&Descriptor| entry.platform.as_ref().is_some_and(|found| platform.accepts(found));
                match candidates().find(runs).or_else(|| candidates().next()) {
                    Some(entry) => current = entry.clone(),
                    None => return Ok(None),
                }
            }
        }
    }
    Ok(None)
}

fn is_image(manifest: &Manifest) -> bool {
    manifest.artifact_type().is_none()
        && manifest.config().is_some_and(|config| config.media_type.is_image_config())
        && manifest
            .layers()
            .iter()
            .all(|layer| layer.media_type.is_layer() || layer.media_type == MediaType::OCTET_STREAM)
}
