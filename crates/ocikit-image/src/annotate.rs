use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use ocikit_spec::{Digest, Document, Platform, annotations};

use crate::edit::{ImageEdit, IndexEdit};
use crate::error::{Error, Result};
use crate::platform::best_entries;
use crate::root::{Artifact, Image, Index, Root};
use crate::select_platforms::select_platforms;
use crate::walk::limits::{MAX_DEPTH, too_deep};

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
/// [`Error::NoPlatform`] if there is no image for one of the platforms, [`Error::Unsupported`] if the document to annotate does not
/// exist or has no annotations: the index of a single image, or a schema 1 manifest.
pub async fn annotate(root: &Root, options: &AnnotateOptions) -> Result<Root> {
    let unsupported = |what: &str| {
        Err(Error::Unsupported { place: root.source().to_string(), what: format!("{} {what}", root.digest()) })
    };
    match root {
        Root::Index(index) => {
            let mut done = Done::default();
            let (edited, _) = annotate_index(index, options, 0, &mut done).await?;
            let missing: Vec<_> = options.platforms.iter().filter(|wanted| !done.matched.contains(wanted)).collect();
            if !missing.is_empty() {
                let missing: Vec<_> = missing.into_iter().cloned().collect();
                return Err(Error::no_platform(&missing, done.platforms, &index.source));
            }
            Ok(Root::Index(edited))
        }
        Root::Image(_) | Root::Other(_) if !options.on.manifests() => {
            unsupported("is a manifest and has no index to annotate")
        }
        Root::Image(_) => {
            if !options.platforms.is_empty() {
                // By the same rule as everywhere.
                select_platforms(root, &options.platforms).await?;
            }
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

/// What [`annotate_index`] has done so far.
#[derive(Default)]
struct Done {
    /// The edited manifests and indexes by their old digest, with the number of images that were selected in each. One
    /// that is listed several times is edited once.
    edited: HashMap<Digest, (Root, usize)>,
    /// The requested platforms that some image is for.
    matched: HashSet<Platform>,
    /// The platforms of all images.
    platforms: Vec<Platform>,
}

/// Returns the new index and the number of its images that were selected.
async fn annotate_index(
    index: &Index,
    options: &AnnotateOptions,
    depth: usize,
    done: &mut Done,
) -> Result<(Index, usize)> {
    if depth > MAX_DEPTH {
        return Err(too_deep(&index.digest(), &index.source));
    }
    let mut edit = index.edit();
    let chosen = chosen(index, options, done).await?;
    let mut touched = 0_usize;
    for (position, entry) in index.manifests().iter().enumerate() {
        if entry.is_attestation() || entry.media_type.is_blob() {
            continue;
        }
        let opened = match entry.media_type.is_manifest() || done.edited.contains_key(&entry.digest) {
            true => None,
            false => Some(index.open(entry).await?),
        };
        let known = done.edited.get(&entry.digest).map(|(root, _)| root);
        if matches!(opened.as_ref().or(known), Some(Root::Index(_))) {
            if let Some(Root::Index(nested)) = opened {
                let (edited, chosen) = Box::pin(annotate_index(&nested, options, depth + 1, done)).await?;
                done.edited.insert(entry.digest, (Root::Index(edited), chosen));
            }
            if let Some((edited, chosen)) = done.edited.get(&entry.digest) {
                touched = touched.saturating_add(*chosen);
                replace(&mut edit, index, position, edited).await?;
            }
            continue;
        }
        if chosen.as_ref().is_some_and(|chosen| !chosen.contains(&position)) {
            continue;
        }
        if options.on.manifests() {
            let edited = match done.edited.entry(entry.digest) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    let root = index.open(entry).await?;
                    if !matches!(root, Root::Image(_)) {
                        continue;
                    }
                    new.insert((edit_manifest(&root, |edit| change(edit, options))?, 1))
                }
            };
            replace(&mut edit, index, position, &edited.0).await?;
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
async fn replace(edit: &mut IndexEdit, index: &Index, position: usize, root: &Root) -> Result<()> {
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
        let attestation = index.open(entry).await?;
        if attestation.document().as_ref().and_then(Document::subject).is_some_and(|subject| subject.digest == old) {
            let repoint = |edit: &mut ImageEdit| {
                edit.repoint_subject(&new.digest, new.size);
            };
            edit.replace(position, &edit_manifest(&attestation, repoint)?);
        }
    }
    Ok(())
}

/// Returns the positions of the entries with the best rank for the platforms; `None` if all are selected.
async fn chosen(index: &Index, options: &AnnotateOptions, done: &mut Done) -> Result<Option<Vec<usize>>> {
    if options.platforms.is_empty() {
        return Ok(None);
    }
    let found = index.platforms().await?;
    // A platform that is missing here may be in another index of the same root.
    let mut chosen = Vec::new();
    for platform in &options.platforms {
        if let Ok(best) = best_entries(std::slice::from_ref(platform), &found) {
            done.matched.insert(platform.clone());
            chosen.extend(best);
        }
    }
    done.platforms.extend(found.into_iter().flatten());
    Ok(Some(chosen))
}
