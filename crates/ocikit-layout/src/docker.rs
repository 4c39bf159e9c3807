//! The `manifest.json` in addition to `index.json`, which lets `docker load` read an OCI archive.

use std::collections::HashSet;

use ocikit_image::{Error, Need, Result, Source, SourceExt, has_nydus_layers};
use ocikit_spec::{Content, Descriptor, Digest, Document, Index, Manifest, MediaType, Platform, null_is_default};
use serde::{Deserialize, Serialize};

use crate::roots::full_name_of;

/// The name of the file in which `docker save` lists images.
pub(crate) const MANIFEST_JSON: &str = "manifest.json";

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    /// `null` if the image has no full name; docker then loads it under its ID.
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Whether an OCI archive gets a `manifest.json`, so that `docker load` can read it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DockerList {
    /// No `manifest.json`.
    None,
    /// Lists each image for one platform, and of an index the image for this platform if there is one. Without any such
    /// image there is no `manifest.json`.
    IfLoadable(Platform),
    /// Lists, of an index, the image for this platform or otherwise the first one.
    For(Platform),
}

impl Default for DockerList {
    /// Returns a list of everything that `docker load` can read on this machine.
    fn default() -> DockerList {
        DockerList::IfLoadable(Platform::of_this_machine())
    }
}

/// Returns the `manifest.json` for these roots; `None` if it would be empty.
pub(crate) async fn manifest_json(roots: &Index, place: &dyn Source, list: &DockerList) -> Result<Option<Vec<u8>>> {
    Ok(manifest_json_with(roots, place, list, &HashSet::new()).await?.map(|(text, _)| text))
}

/// Returns the `manifest.json`, with the digests of the configs that it lists. Of an index, the image with one of the
/// given configs is listed if there is one.
pub(crate) async fn manifest_json_with(
    roots: &Index,
    place: &dyn Source,
    list: &DockerList,
    configs: &HashSet<Digest>,
) -> Result<Option<(Vec<u8>, HashSet<Digest>)>> {
    let (platform, or_first) = match list {
        DockerList::None => return Ok(None),
        DockerList::IfLoadable(platform) => (platform, OrFirst::OnlyIfSingle),
        DockerList::For(platform) => (platform, OrFirst::Always),
    };
    let (mut items, mut listed) = (Vec::new(), HashSet::new());
    let mut seen = HashSet::new();
    for root in roots.manifests() {
        if !seen.insert(root.digest) {
            continue;
        }
        let Some(manifest) = image_below(root, place, (platform, or_first), configs).await? else { continue };
        if has_nydus_layers(&manifest, place).await? {
            match or_first {
                OrFirst::OnlyIfSingle => continue,
                OrFirst::Always => {
                    let what = format!("{} has the format of Nydus, which docker cannot load", root.digest);
                    return Err(Error::unmet(place, what, Need::PlainLayers));
                }
            }
        }
        let Some(config) = manifest.config() else { continue };
        listed.insert(config.digest);
        let same = roots.manifests().iter().filter(|other| other.digest == root.digest);
        let names: Vec<_> = same.filter_map(full_name_of).map(str::to_owned).collect();
        items.push(Item {
            config: config.digest.blob_path(),
            repo_tags: (!names.is_empty()).then_some(names),
            layers: manifest.layers().iter().map(|layer| layer.digest.blob_path()).collect(),
        });
    }
    let text = || serde_json::to_vec(&items).expect("strings cannot fail to serialize");
    Ok((!items.is_empty()).then(|| (text(), listed)))
}

/// An image in a `manifest.json`. Go writes a missing list as `null`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Listed {
    pub(crate) config: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(crate) repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(crate) layers: Vec<String>,
}

/// Parses a `manifest.json`.
pub(crate) fn listed(text: &[u8]) -> serde_json::Result<Vec<Listed>> {
    Ok(serde_json::from_slice::<Option<_>>(text)?.unwrap_or_default())
}

/// Returns the names of the entries that a `manifest.json` refers to; none if it cannot be parsed.
pub(crate) fn listed_in(text: &[u8]) -> Vec<String> {
    let items = listed(text).unwrap_or_default();
    items.into_iter().flat_map(|item| [item.config].into_iter().chain(item.layers)).collect()
}

/// Whether the first image of an index is used if none is for the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OrFirst {
    OnlyIfSingle,
    Always,
}

async fn image_below(
    root: &Descriptor,
    place: &dyn Source,
    (platform, or_first): (&Platform, OrFirst),
    configs: &HashSet<Digest>,
) -> Result<Option<Manifest>> {
    let mut current = root.clone();
    // Nested indexes are rare and never deep.
    for _ in 0..4 {
        let content = match place.content(&current).await {
            // An index that was copied in part lists manifests that do not exist.
            Err(error) if error.is_not_found() => return Ok(None),
            content => content?,
        };
        match content {
            Content::Schema1 | Content::Blob => return Ok(None),
            Content::Document(Document::Manifest(manifest)) => {
                let image = is_image(&manifest) && has_layers(&manifest, place).await?;
                return Ok(image.then_some(manifest));
            }
            Content::Document(Document::Index(index)) => {
                let found = ocikit_image::platform::of_entries(place, index.manifests()).await?;
                let ranked = index.manifests().iter().zip(&found);
                let ranked = ranked.filter_map(|(entry, found)| Some((platform.rank(found.as_ref()?)?, entry)));
                let best = ranked.min_by_key(|(rank, _)| *rank).map(|(_, entry)| entry);
                let candidates = || index.manifests().iter().filter(|entry| !entry.is_attestation());
                let first = || match or_first {
                    OrFirst::Always => candidates().next(),
                    OrFirst::OnlyIfSingle => candidates().next().filter(|_| candidates().count() == 1),
                };
                let listed = match configs.is_empty() {
                    true => None,
                    false => with_config(index.manifests(), place, configs).await?,
                };
                match listed.or(best).or_else(first) {
                    Some(entry) => current = entry.clone(),
                    None => return Ok(None),
                }
            }
        }
    }
    Ok(None)
}

/// Returns the first manifest with one of these configs.
async fn with_config<'a>(
    entries: &'a [Descriptor],
    place: &dyn Source,
    configs: &HashSet<Digest>,
) -> Result<Option<&'a Descriptor>> {
    for entry in entries.iter().filter(|entry| !entry.is_attestation()) {
        match place.content(entry).await {
            Ok(Content::Document(Document::Manifest(manifest)))
                if manifest.config().is_some_and(|config| configs.contains(&config.digest)) =>
            {
                return Ok(Some(entry));
            }
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
    }
    Ok(None)
}

/// Returns whether config and layers exist: non-distributable layers may not have been copied.
async fn has_layers(manifest: &Manifest, place: &dyn Source) -> Result<bool> {
    for blob in manifest.config().into_iter().chain(manifest.layers()) {
        if !place.has(blob).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_image(manifest: &Manifest) -> bool {
    manifest.artifact_type().is_none()
        && manifest.config().is_some_and(|config| config.media_type.is_image_config())
        && manifest
            .layers()
            .iter()
            .all(|layer| layer.media_type.is_layer() || layer.media_type == MediaType::OCTET_STREAM)
}
