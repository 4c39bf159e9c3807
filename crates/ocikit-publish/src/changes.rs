//! Changes of an image before it is published.

use std::path::PathBuf;

use ocikit::image::{annotate, orphans};
use ocikit::{AnnotateOn, AnnotateOptions, Annotations, Digest, Result, Root};
use ocikit_lazy::Warning;

use crate::formats::{Formatted, LayerFormat, image_digests, with_formats};

/// What changes before an image is published.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Changes {
    /// Annotations to set on index and manifests.
    pub annotations: Annotations,
    /// The formats of the layers; as they are if empty.
    pub formats: Vec<LayerFormat>,
    /// The directory of temporary files; the current one if `None`.
    pub directory: Option<PathBuf>,
}

/// An image after its changes.
#[derive(Debug)]
#[non_exhaustive]
pub struct Changed {
    /// The image or index.
    pub root: Root,
    /// The digests that its images had before, if anything changed.
    pub annotated_from: Vec<Digest>,
    /// The number of signatures and other referrers that do not apply to the changed image.
    pub orphans: usize,
    /// What a format cannot express, and was left as it is.
    pub warnings: Vec<Warning>,
}

/// Changes an image.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use std::sync::Arc;
/// use ocikit::{Memory, Root};
/// use ocikit_publish::{Changes, change};
/// # use ocikit_image::testing;
///
/// let memory = Arc::new(Memory::new());
/// # let image = testing::image(&memory, 1, &"linux/amd64".parse()?, &[1000]);
/// let root = Root::at(memory, image).await?;
/// let mut changes = Changes::default();
/// changes.annotations.insert("org.opencontainers.image.vendor", "Acme");
/// let changed = change(&root, &changes).await?;
/// assert_eq!(changed.annotated_from, [root.digest()]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # Errors
///
/// Those of [`with_formats`] and of [`annotate`].
pub async fn change(root: &Root, changes: &Changes) -> Result<Changed> {
    let set = || changes.annotations.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let annotates = !changes.annotations.is_empty();
    // First, because entries of formats name the digests of the images that they belong to.
    let annotated = match annotates {
        true => annotate(root, &AnnotateOptions::default().set(set()).on(AnnotateOn::ManifestsAndIndex)).await?,
        false => root.clone(),
    };
    let Formatted { root: mut after, warnings } =
        with_formats(&annotated, &changes.formats, changes.directory.clone()).await?;
    if let (Root::Image(_), Root::Index(_), true) = (&annotated, &after, annotates) {
        after = annotate(&after, &AnnotateOptions::default().set(set()).on(AnnotateOn::Index)).await?;
    }
    if after.digest() == root.digest() {
        return Ok(Changed { root: after, annotated_from: Vec::new(), orphans: 0, warnings });
    }
    let orphans = orphans(root, &after).await?.len();
    Ok(Changed { root: after, annotated_from: image_digests(root), orphans, warnings })
}

/// Returns the platforms of an image or index, without attestation manifests and without repetitions.
///
/// # Errors
///
/// Those of reading the configs.
pub async fn platforms(root: &Root) -> Result<Vec<String>> {
    let found = match root {
        Root::Index(index) => index.platforms().await?,
        Root::Image(image) => vec![image.config().await?.platform().cloned()],
        Root::Other(_) => Vec::new(),
    };
    let mut names: Vec<String> = Vec::new();
    for name in found.into_iter().flatten().map(|platform| platform.to_string()) {
        if !name.starts_with("unknown") && !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}
