//! Referrer tags like `sha256-HEX.sig`: what is copied is merged with what the target has under them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use ocikit_spec::{Config, Descriptor, Digest, Document, Manifest, Tag};

use crate::edit::over;
use crate::error::{Error, Result};
use crate::referrer_tag::ReferrerTag;
use crate::root::Root;
use crate::source::{Naming, Sink, Source, read_document};

/// A tag like `sha256-HEX.sbom` that was not copied, because that would have overwritten what the target has there.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeptTag {
    /// The tag.
    pub tag: Tag,
    /// The digest at the target, which is kept.
    pub there: Digest,
    /// The digest at the source.
    pub not_copied: Digest,
}

impl KeptTag {
    /// Returns the error for a copy of this tag alone.
    pub(crate) fn refuse(&self, to: &Arc<dyn Sink>) -> Error {
        taken(&self.tag, &self.there, to)
    }
}

/// Returns the error for a tag that stays what it is at the target.
fn taken(tag: &Tag, there: &Digest, to: &Arc<dyn Sink>) -> Error {
    Error::Exists { what: format!("{tag} ({there})"), place: to.to_string() }
}

/// A root to copy, and the names to give it.
#[derive(Debug, Clone)]
pub(crate) struct PendingRoot {
    /// The position of the requested root that it is, or that it refers to.
    pub(crate) position: usize,
    pub(crate) root: Root,
    pub(crate) names: Vec<Naming>,
}

impl PendingRoot {
    /// Returns the tag and its kind, if the only name is a referrer tag.
    pub(crate) fn referrer_tag(&self) -> Option<(&Tag, ReferrerTag)> {
        let [Naming { tag: Some(tag), .. }] = &self.names[..] else { return None };
        Some((tag, ReferrerTag::of(tag)?))
    }
}

/// How roots are compared with what the target has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Comparing {
    /// The number of requests in parallel.
    pub(crate) jobs: usize,
    /// Whether every blob is checked even if the target has the root under its name.
    pub(crate) recheck: bool,
    /// Whether no existing tag is changed.
    pub(crate) keep_tags: bool,
}

/// What the target has under the names of a root.
enum AtTarget {
    /// Whether the target has the root and everything below it.
    Complete(bool),
    /// The root under a referrer tag, which is to be merged, if the target has one.
    Tagged(Option<Box<Root>>),
}

/// Removes the roots that the target already has, and merges those with referrer tags with what the target has there.
///
/// `merged` holds the roots to store under referrer tags so far, for a tag that several sources have.
///
/// # Errors
///
/// Those of the target; [`Error::Exists`] if a tag would change that must be kept.
pub(crate) async fn settle(
    pending: Vec<PendingRoot>,
    to: &Arc<dyn Sink>,
    comparing: Comparing,
    merged: &mut HashMap<Tag, Root>,
) -> Result<(Vec<PendingRoot>, Vec<(usize, KeptTag)>)> {
    let there: Vec<_> = stream::iter(&pending)
        .map(|one| look(one, to, comparing.recheck))
        .buffered(comparing.jobs.max(1))
        .boxed()
        .try_collect()
        .await?;
    let (mut lacking, mut kept) = (Vec::new(), Vec::new());
    for (one, there) in pending.into_iter().zip(there) {
        let there = match there {
            AtTarget::Complete(true) => continue,
            AtTarget::Complete(false) => None,
            AtTarget::Tagged(there) => there.map(|there| *there),
        };
        let Some((tag, kind)) = one.referrer_tag() else {
            lacking.push(one);
            continue;
        };
        let before = merged.get(tag).cloned();
        let is_here = before.is_none();
        let Some(there) = before.or(there) else {
            merged.insert(tag.clone(), one.root.clone());
            lacking.push(one);
            continue;
        };
        let sum = match there.digest() == one.root.digest() {
            true if comparing.recheck && is_here => Merge::Replaced(Box::new(one.root.clone())),
            true => Merge::Unchanged,
            false => add(&there, &one.root, kind).await?,
        };
        let changes = !matches!(sum, Merge::Unchanged) && there.digest() != one.root.digest();
        if comparing.keep_tags && is_here && changes {
            return Err(taken(tag, &there.digest(), to));
        }
        match sum {
            Merge::Unchanged => {}
            Merge::Replaced(root) => {
                merged.insert(tag.clone(), (*root).clone());
                lacking.push(PendingRoot { root: *root, ..one });
            }
            Merge::Impossible => {
                let (there, not_copied) = (there.digest(), one.root.digest());
                kept.push((one.position, KeptTag { tag: tag.clone(), there, not_copied }));
            }
        }
    }
    Ok((lacking, kept))
}

async fn look(one: &PendingRoot, to: &Arc<dyn Sink>, recheck: bool) -> Result<AtTarget> {
    if let Some((tag, _)) = one.referrer_tag() {
        let Some(found) = to.tagged(tag).await? else { return Ok(AtTarget::Tagged(None)) };
        if found.digest == one.root.digest() {
            return Ok(AtTarget::Tagged(Some(Box::new(one.root.clone()))));
        }
        return Root::at(to.clone(), found).await.map(|there| AtTarget::Tagged(Some(Box::new(there))));
    }
    if recheck {
        return Ok(AtTarget::Complete(false));
    }
    for naming in &one.names {
        if !to.is_complete(one.root.descriptor(), naming).await? {
            return Ok(AtTarget::Complete(false));
        }
    }
    Ok(AtTarget::Complete(true))
}

/// Maximum number of times that a referrer tag is moved because another client overwrote it.
const MAX_TAG_MOVES: usize = 10;

/// Publishes a root that was put under a referrer tag, and returns what the tag leads to then.
///
/// Other clients may extend what is under the tag at the same time, and the protocol has no lock. So the tag is read
/// right before it is moved and, where it can be overwritten without a lock, again some time later. What another client
/// has added meanwhile is merged.
///
/// # Errors
///
/// Those of the target; [`Error::Exists`] if the tag would change that must be kept, or the two cannot be merged.
pub(crate) async fn publish_merged(pending: &PendingRoot, to: &Arc<dyn Sink>, keep_tags: bool) -> Result<Root> {
    let mut root = pending.root.clone();
    let Some((tag, kind)) = pending.referrer_tag() else { return Ok(root) };
    for moves in 0..=MAX_TAG_MOVES {
        let there = if moves == 0 { to.tagged(tag).await? } else { to.tagged_later(tag).await? };
        match there {
            Some(there) if there.digest == root.digest() && moves > 0 => return Ok(root),
            Some(there) if there.digest != root.digest() => {
                let there = Root::at(to.clone(), there).await?;
                let sum = match add(&there, &root, kind).await? {
                    Merge::Unchanged => return Ok(there),
                    Merge::Replaced(sum) if !keep_tags => *sum,
                    Merge::Replaced(_) | Merge::Impossible => {
                        return Err(taken(tag, &there.digest(), to));
                    }
                };
                if sum.digest() != root.digest() {
                    put_merged(&sum, to).await?;
                    root = sum;
                }
            }
            _ => {}
        }
        if moves == MAX_TAG_MOVES {
            break;
        }
        for naming in &pending.names {
            to.publish(root.descriptor(), naming).await?;
        }
        // A place that keeps the order of its roots is a file or directory, which is written under a lock.
        if to.keeps_order() {
            return Ok(root);
        }
    }
    Err(Error::broken(format!("tag {tag} in {to}"), "another client keeps overwriting it"))
}

/// Puts a merged root and its new documents. Blobs below it were put before, or are below the root that the target has.
async fn put_merged(root: &Root, to: &Arc<dyn Sink>) -> Result<()> {
    let document = root.document();
    for child in document.iter().flat_map(Document::children) {
        if !to.has(child).await? {
            to.put(child, &**root.source()).await?;
        }
    }
    to.put(root.descriptor(), &**root.source()).await?;
    to.confirm(root.descriptor()).await
}

/// What to store under a tag.
enum Merge {
    /// What the target has, which includes everything.
    Unchanged,
    /// This root, which includes everything that the target has.
    Replaced(Box<Root>),
    /// The two cannot be merged.
    Impossible,
}

/// Merges the new root with what the target has.
async fn add(there: &Root, new: &Root, kind: ReferrerTag) -> Result<Merge> {
    match kind {
        ReferrerTag::Signatures | ReferrerTag::Attestations => match (manifest_of(there), manifest_of(new)) {
            (Some(old), Some(added)) => add_layers((there, old), (new, added)).await,
            _ => Ok(Merge::Impossible),
        },
        // cosign reads an attached SBOM only if it is the only layer.
        ReferrerTag::Sbom => Ok(Merge::Impossible),
        ReferrerTag::List => match (there.document(), new.document()) {
            (Some(Document::Index(_)), Some(Document::Index(_))) => add_entries(there, new),
            // GitLab resolves such a tag to the image with that digest (oras-project/oras-go#1396).
            (Some(_), Some(Document::Index(_))) => Ok(Merge::Replaced(Box::new(new.clone()))),
            _ => Ok(Merge::Impossible),
        },
    }
}

fn manifest_of(root: &Root) -> Option<&Manifest> {
    match root {
        Root::Image(image) => Some(image.manifest()),
        Root::Other(artifact) => artifact.manifest(),
        Root::Index(_) => None,
    }
}

/// Appends the layers that are signatures, as `cosign sign` does. Several signatures of one payload differ in their
/// annotations only.
async fn add_layers((there, old): (&Root, &Manifest), (new, added): (&Root, &Manifest)) -> Result<Merge> {
    let is_new = |layer: &&Descriptor| !old.layers().contains(layer);
    let more: Vec<_> = added.layers().iter().filter(is_new).collect();
    if more.is_empty() {
        return Ok(Merge::Unchanged);
    }
    if old.layers().iter().all(|layer| added.layers().contains(layer)) {
        return Ok(Merge::Replaced(Box::new(new.clone())));
    }
    let mut edit = old.edit();
    more.iter().for_each(|layer| {
        edit.push_layer(layer);
    });
    let missing = added.annotations().iter().filter(|(key, _)| old.annotations().get(key).is_none());
    missing.for_each(|(key, value)| {
        edit.annotate(key, value);
    });
    let mut documents = HashMap::new();
    if let Some(config) = config_with((there, old), (new, added), &more).await? {
        let descriptor = old.config().map(|old| replaced(old, config.bytes()));
        if let Some(descriptor) = descriptor {
            edit.set_config(&descriptor);
            documents.insert(descriptor.digest, config.bytes().clone());
        }
    }
    let manifest = edit.finish().map_err(|source| Error::document(&there.digest(), there.source(), source))?;
    let held = old.config().into_iter().chain(old.layers()).map(|blob| blob.digest).collect();
    let descriptor = replaced(there.descriptor(), manifest.bytes());
    documents.insert(descriptor.digest, manifest.bytes().clone());
    let root = Root::at(merged_source(there, new, documents, held), descriptor).await?;
    Ok(Merge::Replaced(Box::new(root)))
}

/// Returns the merged config, with one `diff_id` for each layer as in an image config. `None` for a config of another
/// type, which is unchanged.
async fn config_with(
    (there, old): (&Root, &Manifest),
    (new, added): (&Root, &Manifest),
    more: &[&Descriptor],
) -> Result<Option<Config>> {
    let (Some(config), ids) = (image_config(there, old).await?, image_config(new, added).await?) else {
        return Ok(None);
    };
    // cosign does not compress payloads, so digest and `diff_id` are equal.
    let diff_id = |layer: &&Descriptor| {
        let position = added.layers().iter().position(|found| found == *layer);
        let known = ids.as_ref().zip(position).map(|(config, position)| config.rootfs().diff_ids[position]);
        known.unwrap_or(layer.digest)
    };
    let ids: Vec<_> = more.iter().map(diff_id).collect();
    config.with_layers(&ids).map(Some).map_err(|source| Error::document(&there.digest(), there.source(), source))
}

/// Returns the config of a manifest, if it is an image config with one `diff_id` for each layer.
async fn image_config(root: &Root, manifest: &Manifest) -> Result<Option<Config>> {
    let Some(descriptor) = manifest.config().filter(|config| config.media_type.is_image_config()) else {
        return Ok(None);
    };
    let config = Config::parse(read_document(&**root.source(), descriptor).await?).ok();
    Ok(config.filter(|config| config.rootfs().diff_ids.len() == manifest.layers().len()))
}

/// Adds the entries of one list of referrers to another.
fn add_entries(there: &Root, new: &Root) -> Result<Merge> {
    let (Root::Index(old), Root::Index(added)) = (there, new) else { return Ok(Merge::Impossible) };
    let known: HashSet<_> = old.manifests().iter().map(|entry| entry.digest).collect();
    let more: Vec<_> = added.manifests().iter().filter(|entry| !known.contains(&entry.digest)).collect();
    if more.is_empty() {
        return Ok(Merge::Unchanged);
    }
    let mut edit = old.document().edit();
    more.iter().for_each(|entry| {
        edit.push(entry);
    });
    let document = edit.finish().map_err(|source| Error::document(&there.digest(), there.source(), source))?;
    let source = merged_source(there, new, HashMap::from([(document.digest(), document.bytes().clone())]), known);
    let descriptor = replaced(there.descriptor(), document.bytes());
    let index = crate::root::Index { descriptor, document, source };
    Ok(Merge::Replaced(Box::new(Root::Index(index))))
}

/// Returns the descriptor of other bytes with the same media type.
fn replaced(old: &Descriptor, bytes: &Bytes) -> Descriptor {
    let digest = Digest::of(old.digest.algorithm(), bytes);
    Descriptor {
        artifact_type: old.artifact_type.clone(),
        ..Descriptor::new(old.media_type.clone(), digest, bytes.len() as u64)
    }
}

/// Returns the source of a merged root: its new documents, the blobs below the root of the target, and the rest from
/// the source of the copy.
fn merged_source(
    there: &Root,
    new: &Root,
    documents: HashMap<Digest, Bytes>,
    held: HashSet<Digest>,
) -> Arc<dyn Source> {
    let memory = over(new.source(), documents, &HashMap::new());
    Arc::new(memory.with_parts(held.into_iter().map(|digest| (digest, there.source().clone()))))
}
