//! What `docker load` reads of an OCI archive, compared with its `index.json`.
//!
//! docker and skopeo's `docker-archive:` read the `manifest.json` and not the `index.json`. An archive in which the two
//! disagree holds an image that no signature in the layout covers.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use ocikit_archive::{Span, TarIndex};
use ocikit_image::bridge::blocking;
use ocikit_image::walk::{Found, children};
use ocikit_image::{Error, Result, Source};
use ocikit_spec::{Algorithm, Config, Content, Digest, Document, Index, MAX_DOCUMENT_BYTES};
use serde_json::Value;

use crate::docker::{MANIFEST_JSON, listed};
use crate::docker_archive::plain;
use crate::file::{hash, read_small};
use crate::open::{Archive, archive_at};
use crate::roots::{INDEX_JSON, walk_below};
use crate::scratch::Scratch;
use crate::tar::Tar;

/// An image in a `manifest.json`.
#[derive(Debug)]
struct Loadable {
    /// The name of its config.
    name: String,
    /// The digest of the bytes of its config, which docker takes as the ID of the image.
    config: Digest,
    diff_ids: Vec<Digest>,
    /// `None` if one is missing, so that docker cannot load the image.
    layers: Option<Vec<Digest>>,
}

/// The images in the `manifest.json` of an OCI archive.
#[derive(Debug)]
pub(crate) struct LoadableImages {
    /// Why docker may read another list than this program, if it may.
    unclear: Option<String>,
    images: Vec<Loadable>,
}

impl LoadableImages {
    /// Returns the digests of the configs.
    pub(crate) fn configs(&self) -> HashSet<Digest> {
        self.images.iter().map(|image| image.config).collect()
    }

    /// Returns what is wrong, for the user, if one of the images is not below these roots.
    pub(crate) async fn disagreement(&self, roots: &Index, place: &dyn Source) -> Result<Option<String>> {
        if let Some(unclear) = &self.unclear {
            return Ok(Some(unclear.clone()));
        }
        if self.images.is_empty() {
            return Ok(None);
        }
        let manifests = manifests_below(roots, place).await?;
        let is_below = |image: &&Loadable| {
            let candidates = manifests.get(&image.config).map(Vec::as_slice).unwrap_or_default();
            candidates.iter().any(|layers| image.has(layers))
        };
        let other = self.images.iter().find(|image| !is_below(image));
        Ok(other.map(|image| {
            format!(
                "it lists the image with config `{}`, which is not in `{INDEX_JSON}`: docker reads another image than \
                 OCI tools",
                image.name
            )
        }))
    }
}

impl Loadable {
    /// Returns whether these are its layers. Some writers name a compressed layer by the digest of its uncompressed
    /// contents.
    fn has(&self, layers: &[Digest]) -> bool {
        let is_same = |(at, (layer, listed)): (usize, (&Digest, &Digest))| {
            layer == listed || self.diff_ids.get(at).is_some_and(|diff_id| diff_id == listed)
        };
        let Some(listed) = &self.layers else { return true };
        layers.len() == listed.len() && layers.iter().zip(listed).enumerate().all(is_same)
    }
}

impl Tar {
    /// Returns the images in its `manifest.json`; `None` if it has none.
    pub(crate) async fn loadable(&self) -> Result<Option<LoadableImages>> {
        let tar = self.clone();
        blocking(move || {
            let Some(list) = tar.entry(MANIFEST_JSON)? else { return Ok(None) };
            let unclear = |why: String| Ok(Some(LoadableImages { unclear: Some(why), images: Vec::new() }));
            let items = match listed(&list) {
                Ok(items) if !has_folded_keys(&list) => items,
                Ok(_) => {
                    let why = "it has keys that differ from known ones in case only, which docker reads";
                    return unclear(why.to_owned());
                }
                Err(error) => return unclear(format!("it cannot be parsed: {error}")),
            };
            let blobs = blobs_by_offset(tar.index());
            let mut images = Vec::new();
            for item in items {
                let Some(config) = tar.index().file(&plain(&item.config)) else {
                    // docker follows `..` and links to directories, and may find it.
                    return unclear(format!("it lists the config `{}`, which does not exist", item.config));
                };
                let layers = item.layers.iter().map(|name| Some((name, tar.index().file(&plain(name))?)));
                let layers = layers.collect::<Option<Vec<_>>>();
                let image = read(&tar, item.config, config, layers, &blobs);
                images.push(image.map_err(|error| Error::failed("read", tar.path().display(), error))?);
            }
            Ok(Some(LoadableImages { unclear: None, images }))
        })
        .await
    }
}

fn read(
    tar: &Tar,
    name: String,
    config: Span,
    layers: Option<Vec<(&String, Span)>>,
    blobs: &HashMap<u64, Digest>,
) -> std::io::Result<Loadable> {
    let bytes = match config.size <= MAX_DOCUMENT_BYTES {
        true => read_small(tar.file(), config.offset, config.size)?,
        false => bytes::Bytes::new(),
    };
    let named = Digest::from_blob_path(&plain(&name)).or_else(|| blobs.get(&config.offset).copied());
    let digest = hash(tar.file(), config, named.map_or(Algorithm::Sha256, |digest| digest.algorithm()))?;
    let diff_ids = Config::parse(bytes).map(|config| config.rootfs().diff_ids.clone()).unwrap_or_default();
    let digest_of = |(name, span): (&String, Span)| match Digest::from_blob_path(&plain(name)) {
        Some(digest) => Ok(digest),
        // `1/layer.tar`, often a link to a blob.
        None => blobs.get(&span.offset).map_or_else(|| hash(tar.file(), span, Algorithm::Sha256), |digest| Ok(*digest)),
    };
    let layers = layers.map(|layers| layers.into_iter().map(digest_of).collect::<Result<_, _>>()).transpose()?;
    Ok(Loadable { name, config: digest, diff_ids, layers })
}

/// Returns the digest in the name of each blob, by the position of its contents.
fn blobs_by_offset(index: &TarIndex) -> HashMap<u64, Digest> {
    let names = index.entries().iter().filter_map(|entry| entry.name.as_deref());
    names.filter_map(|name| Some((index.file(name)?.offset, Digest::from_blob_path(name)?))).collect()
}

/// Returns whether an image in the list has a key that Go, which compares without case, takes for another one.
fn has_folded_keys(list: &[u8]) -> bool {
    let known = ["Config", "RepoTags", "Layers"];
    let folded = |key: &String| {
        let key = key.replace('\u{17f}', "s");
        known.iter().any(|known| key.eq_ignore_ascii_case(known)) && !known.contains(&&*key)
    };
    let items = serde_json::from_slice::<Value>(list).ok();
    let items = items.as_ref().and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(Value::as_object).any(|item| item.keys().any(|key| folded(key) || key.contains('\u{17f}')))
}

/// Returns the layers of every manifest below the roots, by the digest of its config.
async fn manifests_below(roots: &Index, place: &dyn Source) -> Result<HashMap<Digest, Vec<Vec<Digest>>>> {
    let mut found: HashMap<_, Vec<_>> = HashMap::new();
    let mut walk = walk_below(roots, place, |_| true)?;
    while let Some(node) = walk.next().await {
        // A document that is missing or damaged leads to no image.
        let Found::Content(Ok(Content::Document(document))) = node.found else { continue };
        match &document {
            Document::Index(_) => {
                for (edge, child) in children(&document) {
                    if document.may_be_document(child) && !walk.is_deepest(&node.path) {
                        walk.add(&node.path, edge, child)?;
                    }
                }
            }
            Document::Manifest(manifest) => {
                if let Some(config) = manifest.config() {
                    let layers = manifest.layers().iter().map(|layer| layer.digest).collect();
                    found.entry(config.digest).or_default().push(layers);
                }
            }
        }
    }
    Ok(found)
}

/// Returns why an archive is another image for docker than for OCI tools, in words for the user; `None` if it is not, or
/// is not an OCI archive with a `manifest.json`.
///
/// # Errors
///
/// As [`open_archive`](crate::open_archive).
pub async fn docker_disagreement(path: impl AsRef<Path>, scratch: &Scratch) -> Result<Option<String>> {
    let Archive::Oci(tar) = archive_at(path.as_ref(), scratch).await? else { return Ok(None) };
    match tar.loadable().await? {
        Some(images) => images.disagreement(tar.roots(), &tar).await,
        None => Ok(None),
    }
}
