use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ocikit_spec::{Descriptor, Digest, Document, Platform, annotations};

use crate::edit::{ImageEdit, IndexEdit};
use crate::error::{Error, Result};
use crate::platform::best_entries;
use crate::root::{Artifact, Image, Index, Root};
use crate::select_platforms::select_platforms;
use crate::walk::limits::{Limits, MAX_DEPTH, too_deep};
use crate::walk::{Edge, Found, Walk};

/// The annotations to change, and the documents to change them in.
#[derive(Debug, Clone, Default)]
pub struct AnnotateOptions {
    /// Keys and their new values, which are stored byte for byte.
    pub set: Vec<(String, String)>,
    /// Keys to remove, before others are set.
    pub remove: Vec<String>,
    /// The documents to change.
    pub on: AnnotateOn,
    /// The platforms whose images are changed; all if empty.
    pub platforms: Vec<Platform>,
}

/// The documents of an image that can have annotations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AnnotateOn {
    /// The manifests and, if there is one, the index.
    #[default]
    ManifestsAndIndex,
    /// The manifests.
    Manifests,
    /// The index.
    Index,
    /// The descriptors in the index.
    Descriptors,
    /// All of these.
    All,
}

impl AnnotateOn {
    fn manifests(self) -> bool {
        matches!(self, AnnotateOn::ManifestsAndIndex | AnnotateOn::Manifests | AnnotateOn::All)
    }

    fn index(self) -> bool {
        matches!(self, AnnotateOn::ManifestsAndIndex | AnnotateOn::Index | AnnotateOn::All)
    }

    fn descriptors(self) -> bool {
        matches!(self, AnnotateOn::Descriptors | AnnotateOn::All)
    }
}

/// Changes annotations of an image, or of all images of an index. Layers and configs are unchanged.
///
/// BuildKit's attestation manifests are not annotated. If the manifest that one refers to gets a new digest, its
/// descriptor in the index and its subject are updated. The statement in it is unchanged.
///
/// # Errors
///
/// [`Error::NoPlatform`] if there is no image for one of the platforms, [`Error::Unsupported`] if the document to
/// annotate does not exist or has no annotations: the index of a single image, or a schema 1 manifest.
pub async fn annotate(root: &Root, options: &AnnotateOptions) -> Result<Root> {
    let unsupported = |what: &str| {
        Err(Error::Unsupported { place: root.source().to_string(), what: format!("{} {what}", root.digest()) })
    };
    match root {
        Root::Index(index) => {
            let below = Below::read(index, options).await?;
            let (edited, _) = annotate_index(index, options, 0, &below, &mut Done::new())?;
            let missing = options.platforms.iter().filter(|wanted| !below.matched.contains(wanted));
            let missing: Vec<_> = missing.cloned().collect();
            if !missing.is_empty() {
                return Err(Error::no_platform(&missing, below.platforms, &index.source));
            }
            Ok(Root::Index(edited))
        }
        Root::Image(_) | Root::Other(_) if !options.on.manifests() => {
            unsupported("is a manifest and has no index to annotate")
        }
        Root::Image(_) => {
            // By the same rule as everywhere.
            select_platforms(root, &options.platforms).await?;
            edit_manifest(root, |edit| change(edit, options))
        }
        Root::Other(Artifact { manifest: Some(_), .. }) => edit_manifest(root, |edit| change(edit, options)),
        Root::Other(artifact) => {
            unsupported(&format!("is of type {}, which has no annotations", artifact.descriptor.media_type))
        }
    }
}

fn change(edit: &mut ImageEdit, options: &AnnotateOptions) {
    for key in &options.remove {
        edit.remove_annotation(key);
    }
    for (key, value) in &options.set {
        edit.annotate(key, value);
    }
}

/// Edits the manifest of an image or artifact, which have the same format.
fn edit_manifest(root: &Root, change: impl FnOnce(&mut ImageEdit)) -> Result<Root> {
    let image = match root {
        Root::Image(image) => image.clone(),
        Root::Other(Artifact { descriptor, manifest: Some(manifest), source }) => {
            Image { descriptor: descriptor.clone(), manifest: manifest.clone(), source: source.clone() }
        }
        _ => return Ok(root.clone()),
    };
    let mut edit = image.edit();
    change(&mut edit);
    let Image { descriptor, manifest, source } = edit.finish()?;
    Ok(match root {
        Root::Other(_) => Root::Other(Artifact { descriptor, manifest: Some(manifest), source }),
        _ => Root::Image(Image { descriptor, manifest, source }),
    })
}

/// The documents below an index that the edit needs, by digest.
#[derive(Default)]
struct Below {
    roots: HashMap<Digest, Result<Root, Arc<Error>>>,
    /// For each index the positions of the entries that were selected; `None` if all are.
    chosen: HashMap<Digest, Option<HashSet<usize>>>,
    /// The requested platforms that some image is for.
    matched: HashSet<Platform>,
    /// The platforms of all images.
    platforms: Vec<Platform>,
}

impl Below {
    async fn read(index: &Index, options: &AnnotateOptions) -> Result<Below> {
        let source = &index.source;
        let mut below = Below::default();
        let mut walk = Walk::reading(&**source, Limits::IMAGE, |entry| Root::at(source.clone(), entry));
        walk.start_with(&index.descriptor, Ok(Root::Index(index.clone())))?;
        while let Some(node) = walk.next().await {
            let Found::Content(opened) = node.found else { continue };
            if let Ok(Root::Index(index)) = &opened {
                let chosen = below.choose(index, options).await?;
                let entries = index.manifests().iter().enumerate();
                let edited = entries.filter(|(at, entry)| is_edited(entry, is_chosen(chosen.as_ref(), *at), options));
                let edited: HashSet<_> = edited.map(|(_, entry)| entry.digest).collect();
                for (position, entry) in index.manifests().iter().enumerate() {
                    let about = entry.annotations.get(annotations::DOCKER_REFERENCE_DIGEST);
                    let about = about.and_then(|about| about.parse().ok());
                    if edited.contains(&entry.digest) || about.is_some_and(|about| edited.contains(&about)) {
                        walk.add(&node.path, Edge::Manifest(position), entry)?;
                    }
                }
                below.chosen.insert(node.path.digest, chosen);
            }
            below.roots.insert(node.path.digest, opened.map_err(Arc::new));
        }
        Ok(below)
    }

    /// Returns the positions of the entries with the best rank for the platforms; `None` if all are selected.
    async fn choose(&mut self, index: &Index, options: &AnnotateOptions) -> Result<Option<HashSet<usize>>> {
        if options.platforms.is_empty() {
            return Ok(None);
        }
        let found = index.platforms().await?;
        let mut chosen = HashSet::new();
        for platform in &options.platforms {
            // A platform that is missing here may be in another index of the same root.
            if let Ok(best) = best_entries(std::slice::from_ref(platform), &found) {
                self.matched.insert(platform.clone());
                chosen.extend(best);
            }
        }
        self.platforms.extend(found.into_iter().flatten());
        Ok(Some(chosen))
    }

    /// Returns a document that was needed; `None` if it was not.
    fn root(&self, digest: &Digest) -> Result<Option<&Root>> {
        self.roots.get(digest).map(Result::as_ref).transpose().map_err(Error::again)
    }
}

/// Returns whether an entry may get another digest: one that may be an index, or a manifest that is annotated.
fn is_edited(entry: &Descriptor, is_chosen: bool, options: &AnnotateOptions) -> bool {
    match &entry.media_type {
        _ if entry.is_attestation() => false,
        kind if kind.is_manifest() => is_chosen && options.on.manifests(),
        kind => !kind.is_blob(),
    }
}

fn is_chosen(chosen: Option<&HashSet<usize>>, position: usize) -> bool {
    chosen.is_none_or(|chosen| chosen.contains(&position))
}

/// The edited manifests and indexes by their old digest, with the number of images that were selected in each. One that
/// is listed several times is edited once.
type Done = HashMap<Digest, (Root, usize)>;

/// Returns the new index and the number of its images that were selected.
fn annotate_index(
    index: &Index,
    options: &AnnotateOptions,
    depth: usize,
    below: &Below,
    done: &mut Done,
) -> Result<(Index, usize)> {
    if depth > MAX_DEPTH {
        return Err(too_deep(&index.digest(), &index.source));
    }
    let mut edit = index.edit();
    let chosen = below.chosen.get(&index.digest()).and_then(Option::as_ref);
    let mut touched = 0_usize;
    for (position, entry) in index.manifests().iter().enumerate() {
        if entry.is_attestation() || entry.media_type.is_blob() {
            continue;
        }
        let is_chosen = is_chosen(chosen, position);
        let root = match is_edited(entry, is_chosen, options) {
            true => below.root(&entry.digest)?,
            false => None,
        };
        if let Some(Root::Index(nested)) = root {
            if !done.contains_key(&entry.digest) {
                let (edited, chosen) = annotate_index(nested, options, depth + 1, below, done)?;
                done.insert(entry.digest, (Root::Index(edited), chosen));
            }
            if let Some((edited, chosen)) = done.get(&entry.digest) {
                touched = touched.saturating_add(*chosen);
                replace(&mut edit, index, position, edited, below)?;
            }
            continue;
        }
        if !is_chosen {
            continue;
        }
        if options.on.manifests() {
            let Some(root @ Root::Image(_)) = root else { continue };
            let edited = match done.entry(entry.digest) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert((edit_manifest(root, |edit| change(edit, options))?, 1)),
            };
            replace(&mut edit, index, position, &edited.0, below)?;
        }
        if options.on.descriptors() {
            for key in &options.remove {
                edit.remove_entry_annotation(position, key);
            }
            for (key, value) in &options.set {
                edit.annotate_entry(position, key, value);
            }
        }
        touched += 1;
    }
    if depth == 0 && options.on.index() && (touched > 0 || options.platforms.is_empty()) {
        for key in &options.remove {
            edit.remove_annotation(key);
        }
        for (key, value) in &options.set {
            edit.annotate(key, value);
        }
    }
    Ok((edit.finish()?, touched))
}

/// Points an entry to an edited root, and the attestation manifests of the old one to the new one.
fn replace(edit: &mut IndexEdit, index: &Index, position: usize, root: &Root, below: &Below) -> Result<()> {
    let old = index.manifests()[position].digest;
    let new = root.descriptor();
    if new.digest == old {
        return Ok(());
    }
    edit.replace(position, root);
    let old_text = old.to_string();
    for (position, entry) in index.manifests().iter().enumerate() {
        if entry.annotations.get(annotations::DOCKER_REFERENCE_DIGEST) != Some(&old_text) {
            continue;
        }
        edit.annotate_entry(position, annotations::DOCKER_REFERENCE_DIGEST, &new.digest.to_string());
        let Some(attestation) = below.root(&entry.digest)? else { continue };
        if attestation.document().as_ref().and_then(Document::subject).is_some_and(|subject| subject.digest == old) {
            let repoint = |edit: &mut ImageEdit| {
                edit.repoint_subject(&new.digest, new.size);
            };
            edit.replace(position, &edit_manifest(attestation, repoint)?);
        }
    }
    Ok(())
}
