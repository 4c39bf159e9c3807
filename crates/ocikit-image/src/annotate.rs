use ocikit_spec::{Descriptor, Digest, Platform, annotations};

use crate::edit::{ImageEdit, IndexEdit};
use crate::error::{Error, Result};
use crate::graph::{DEEPEST, too_deep};
use crate::root::{Artifact, Image, Index, Root};

/// Which annotations to change, and where.
#[derive(Debug, Clone, Default)]
pub struct AnnotateOptions {
    /// Keys and their new values, byte for byte.
    pub set: Vec<(String, String)>,
    /// Keys that go, before the others are set.
    pub remove: Vec<String>,
    /// On which documents.
    pub on: AnnotateOn,
    /// Only for images of these platforms; for all if empty.
    pub platforms: Vec<Platform>,
}

/// The places where annotations of an image can be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AnnotateOn {
    /// The manifests and, if there is one, the index above them.
    #[default]
    ManifestsAndIndex,
    /// The manifests.
    Manifests,
    /// The index.
    Index,
    /// The entries of the index.
    Descriptors,
    /// All of them.
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

/// Changes annotations of an image or of all images of an index. Layers and configs stay as they are.
///
/// BuildKit's attestations are not images and are not annotated; where the manifest that one speaks about gets another
/// digest, its entry in the index follows. The statement inside is left as BuildKit wrote it.
///
/// # Errors
///
/// [`Error::NotFound`] if no image is for the platforms, [`Error::Unsupported`] if the place for the annotations does
/// not exist: an index above a single image, or anything on a manifest of docker's first schema.
pub async fn annotate(root: &Root, options: &AnnotateOptions) -> Result<Root> {
    let unsupported = |what: &str| {
        Err(Error::Unsupported { place: root.source().to_string(), what: format!("{} {what}", root.digest()) })
    };
    match root {
        Root::Index(index) => {
            let (edited, touched) = annotate_index(index, options, 0).await?;
            if touched == 0 && !options.platforms.is_empty() {
                return Err(no_such_platform(index, options));
            }
            Ok(Root::Index(edited))
        }
        Root::Image(_) | Root::Other(_) if !options.on.manifests() => {
            unsupported("is a manifest: there is no index above it to annotate")
        }
        Root::Image(image) => {
            if !runs_there(image, options).await? {
                let wanted = options.platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                return Err(Error::not_found(format!("image for {wanted}"), root.source()));
            }
            Ok(Root::Image(annotate_image(image, options)?))
        }
        Root::Other(Artifact { descriptor, manifest: Some(manifest), source }) => {
            let (descriptor, manifest, source) = (descriptor.clone(), manifest.clone(), source.clone());
            let Image { descriptor, manifest, source } =
                annotate_image(&Image { descriptor, manifest, source }, options)?;
            Ok(Root::Other(Artifact { descriptor, manifest: Some(manifest), source }))
        }
        Root::Other(artifact) => {
            unsupported(&format!("is of type {}, which has no annotations", artifact.descriptor.media_type))
        }
    }
}

fn annotate_image(image: &Image, options: &AnnotateOptions) -> Result<Image> {
    let mut edit: ImageEdit = image.edit();
    for key in &options.remove {
        edit.remove_annotation(key);
    }
    for (key, value) in &options.set {
        edit.annotate(key, value);
    }
    edit.finish()
}

/// Whether an image without index above it is for one of the platforms, by its config.
async fn runs_there(image: &Image, options: &AnnotateOptions) -> Result<bool> {
    if options.platforms.is_empty() {
        return Ok(true);
    }
    let config = image.config().await?;
    Ok(config.platform().is_some_and(|found| options.platforms.iter().any(|wanted| wanted.accepts(found))))
}

/// The new index and how many of its images were chosen.
async fn annotate_index(index: &Index, options: &AnnotateOptions, depth: usize) -> Result<(Index, usize)> {
    if depth > DEEPEST {
        return Err(too_deep(&index.digest(), &index.source));
    }
    let mut edit = index.edit();
    let mut touched = 0;
    for (position, entry) in index.manifests().iter().enumerate() {
        if entry.is_attestation() || !entry.media_type.is_document() {
            continue;
        }
        if entry.media_type.is_index() {
            let Root::Index(nested) = index.open(entry).await? else { continue };
            let (edited, chosen) = Box::pin(annotate_index(&nested, options, depth + 1)).await?;
            touched += chosen;
            replace(&mut edit, index, position, &Root::Index(edited));
            continue;
        }
        if !is_chosen(entry, options) {
            continue;
        }
        if options.on.manifests() {
            let Root::Image(image) = index.open(entry).await? else { continue };
            replace(&mut edit, index, position, &Root::Image(annotate_image(&image, options)?));
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

/// Points an entry to an edited root, and the attestations about the old one to the new one.
fn replace(edit: &mut IndexEdit, index: &Index, position: usize, root: &Root) {
    let old: Digest = index.manifests()[position].digest;
    if root.digest() == old {
        return;
    }
    edit.replace(position, root);
    let old = old.to_string();
    for (position, entry) in index.manifests().iter().enumerate() {
        if entry.annotations.get(annotations::DOCKER_REFERENCE_DIGEST) == Some(&old) {
            edit.annotate_entry(position, annotations::DOCKER_REFERENCE_DIGEST, &root.digest().to_string());
        }
    }
}

fn is_chosen(entry: &Descriptor, options: &AnnotateOptions) -> bool {
    let runs_on = |wanted: &Platform| entry.platform.as_ref().is_some_and(|found| wanted.accepts(found));
    options.platforms.is_empty() || options.platforms.iter().any(runs_on)
}

fn no_such_platform(index: &Index, options: &AnnotateOptions) -> Error {
    let join = |platforms: Vec<String>| platforms.join(", ");
    let wanted = join(options.platforms.iter().map(ToString::to_string).collect());
    let known =
        index.manifests().iter().filter_map(|entry| entry.platform.as_ref()).filter(|found| !found.is_unknown());
    let known = join(known.map(ToString::to_string).collect());
    Error::not_found(format!("image for {wanted}, only for {known}"), &index.source)
}
