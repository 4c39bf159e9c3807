use ocikit_spec::Platform;

use crate::edit::ImageEdit;
use crate::error::{Error, Result};
use crate::map_images::{Mapped, Selected, Selection, map_images, map_index};
use crate::root::{Artifact, Image, Root};

/// The annotations to change, and the documents to change them in.
///
/// ```
/// use ocikit_image::{AnnotateOn, AnnotateOptions};
///
/// let set = vec![("org.opencontainers.image.revision".to_owned(), "6c22711".to_owned())];
/// let options = AnnotateOptions::default().set(set).on(AnnotateOn::All);
/// assert!(options.platforms.is_empty(), "all platforms");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
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

ocikit_spec::setters! {
    AnnotateOptions {
        set: Vec<(String, String)>,
        remove: Vec<String>,
        on: AnnotateOn,
        platforms: Vec<Platform>,
    }
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
    pub(crate) fn manifests(self) -> bool {
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
    annotate_images(root, options).await.map(|mapped| mapped.root)
}

/// As [`annotate`], and returns what changed.
///
/// # Errors
///
/// As [`annotate`].
pub async fn annotate_images(root: &Root, options: &AnnotateOptions) -> Result<Mapped> {
    let unsupported = |what: &str| {
        Err(Error::Unsupported { place: root.source().to_string(), what: format!("{} {what}", root.digest()) })
    };
    let selection = Selection::of(options.platforms.clone());
    match root {
        Root::Index(index) => {
            let image = |image: Image| async move { annotated(&image, options).await };
            let image = options.on.manifests().then_some(&image);
            map_index(index, &selection, image, &|edit, selected| annotate_index(edit, &selected, options)).await
        }
        Root::Image(_) | Root::Other(_) if !options.on.manifests() => {
            unsupported("is a manifest and has no index to annotate")
        }
        Root::Image(_) => map_images(root, &selection, |image| async move { annotated(&image, options).await }).await,
        Root::Other(Artifact { descriptor, manifest: Some(manifest), source }) => {
            // Manifests of images and artifacts have the same format.
            let image = Image::of(descriptor.clone(), manifest.clone(), source.clone());
            let Image { descriptor, manifest, source, .. } = annotated(&image, options).await?;
            let artifact = Root::Other(Artifact { descriptor, manifest: Some(manifest), source });
            Ok(Mapped::single(root.digest(), artifact))
        }
        Root::Other(artifact) => {
            unsupported(&format!("is of type {}, which has no annotations", artifact.descriptor.media_type))
        }
    }
}

async fn annotated(image: &Image, options: &AnnotateOptions) -> Result<Image> {
    let mut edit = image.edit();
    annotate_image(&mut edit, options);
    edit.finish().await
}

/// Annotates the manifest of an image.
pub(crate) fn annotate_image(edit: &mut ImageEdit<'_>, options: &AnnotateOptions) {
    for key in &options.remove {
        edit.remove_annotation(key);
    }
    for (key, value) in &options.set {
        edit.annotate(key, value);
    }
}

/// Annotates the selected entries of an index, and the index itself if it is the root.
pub(crate) fn annotate_index(edit: &mut ocikit_spec::IndexEdit, selected: &Selected<'_>, options: &AnnotateOptions) {
    if options.on.descriptors() {
        for position in selected.positions {
            for key in &options.remove {
                edit.remove_entry_annotation(*position, key);
            }
            for (key, value) in &options.set {
                edit.annotate_entry(*position, key, value);
            }
        }
    }
    let is_selected = selected.images > 0 || options.platforms.is_empty();
    if selected.is_root && options.on.index() && is_selected {
        for key in &options.remove {
            edit.remove_annotation(key);
        }
        for (key, value) in &options.set {
            edit.annotate(key, value);
        }
    }
}
