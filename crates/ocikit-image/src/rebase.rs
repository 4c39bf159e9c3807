use ocikit_spec::{Digest, Platform, annotations};

use crate::bound::check_plain;
use crate::error::{Error, Result};
use crate::map_images::{Mapped, Selection, map_images, map_index};
use crate::root::{Image, Root};
use crate::select_platforms::select_platforms;

/// Options of [`rebase`].
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RebaseOptions {
    /// The platforms whose images are rebased; all if empty.
    pub platforms: Vec<Platform>,
    /// Where the settings of containers come from.
    pub config: RebaseConfig,
    /// The reference of the new base image, for the annotation `org.opencontainers.image.base.name`. Without it, that
    /// annotation is removed.
    pub name: Option<String>,
}

ocikit_spec::setters! {
    RebaseOptions {
        platforms: Vec<Platform>,
        config: RebaseConfig,
        name: Option<String>,
    }
}

/// Where the settings of containers of a rebased image come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RebaseConfig {
    /// Settings that the image inherited from its old base image change to those of the new one; see
    /// [`ConfigEdit::inherit`](ocikit_spec::ConfigEdit::inherit).
    #[default]
    Inherit,
    /// All settings of the image are kept, as crane does.
    Keep,
}

/// The base image that an image names in its annotations.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BaseImage {
    /// Its reference: `org.opencontainers.image.base.name`.
    pub name: String,
    /// Its digest when the image was built: `org.opencontainers.image.base.digest`.
    pub digest: Option<Digest>,
}

/// Returns the base image that an image or index names in its annotations, or that the images of an index agree about.
///
/// # Errors
///
/// Those of reading the manifests; [`Error::Unsupported`] if the images of an index name different base images;
/// [`Error::NotFound`] if there is no such annotation, or if its digest is none.
pub async fn base_of(root: &Root, platforms: &[Platform]) -> Result<BaseImage> {
    let mut found: Option<BaseImage> = named(root)?;
    if found.is_none() {
        let all = std::sync::Mutex::new(Vec::new());
        if matches!(root, Root::Index(_)) {
            let collect = |image: Image| {
                let named = named(&Root::Image(image.clone()));
                all.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(named);
                async move { Ok(image) }
            };
            map_images(root, &Selection::of(platforms), collect).await?;
        }
        for base in all.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            let base = base?;
            match (&found, base) {
                (Some(known), Some(base)) if known.name != base.name => {
                    let what = format!("its images name different base images: {} and {}", known.name, base.name);
                    return Err(Error::Unsupported { place: root.source().to_string(), what });
                }
                // Platform by platform, the digest of the base can be that of its image.
                (Some(known), Some(base)) if known.digest != base.digest => {
                    found = Some(BaseImage { digest: None, ..base });
                }
                (None, Some(base)) => found = Some(base),
                _ => {}
            }
        }
    }
    found.ok_or_else(|| Error::not_found(format!("annotation {}", annotations::BASE_NAME), root.source()))
}

fn named(root: &Root) -> Result<Option<BaseImage>> {
    let annotations = root.annotations();
    let Some(name) = annotations.get(annotations::BASE_NAME) else { return Ok(None) };
    let digest = match annotations.get(annotations::BASE_DIGEST) {
        Some(text) => Some(text.parse().map_err(|source| Error::document(&root.digest(), root.source(), source))?),
        None => None,
    };
    Ok(Some(BaseImage { name: name.to_owned(), digest }))
}

/// Replaces the base image of an image, or of all images of an index: the lowest layers, their history, and the settings
/// that come from it. The layers of the new base stay in its place, so that a registry mounts them; no layer is read.
///
/// Both bases may be indexes, of which the image for the platform is used. The annotations
/// `org.opencontainers.image.base.name` and `.digest` of the manifests, and of the index if it has them, name the new
/// base.
///
/// # Errors
///
/// [`Error::Unsupported`] if the lowest layers of an image are not those of the old base, by their `diff_ids`;
/// [`Error::NoPlatform`] if a base has no image for a platform; [`Error::Unmet`] if an image or its new base is a Nydus image; those of reading manifests and configs.
pub async fn rebase(root: &Root, old: &Root, new: &Root, options: &RebaseOptions) -> Result<Mapped> {
    let selection = Selection::of(options.platforms.clone());
    let change = |image: Image| async { rebased(image, old, new, options).await };
    match root {
        Root::Index(index) => {
            map_index(index, &selection, Some(&change), &|edit, selected| {
                if selected.is_root && index.document.annotations().get(annotations::BASE_DIGEST).is_some() {
                    edit.annotate(annotations::BASE_DIGEST, &new.digest().to_string());
                }
                if selected.is_root && index.document.annotations().get(annotations::BASE_NAME).is_some() {
                    match &options.name {
                        Some(name) => edit.annotate(annotations::BASE_NAME, name),
                        None => edit.remove_annotation(annotations::BASE_NAME),
                    };
                }
            })
            .await
        }
        Root::Image(_) | Root::Other(_) => map_images(root, &selection, change).await,
    }
}

async fn rebased(image: Image, old: &Root, new: &Root, options: &RebaseOptions) -> Result<Image> {
    let config = image.config().await?;
    let (old, new_image) = (base_for(&config, old).await?, base_for(&config, new).await?);
    check_plain(&image).await?;
    check_plain(&new_image).await?;
    let (old_config, new_config) = (old.config().await?, new_image.config().await?);
    let refuse = |what: String| Err(Error::Unsupported { place: image.source.to_string(), what });
    for (image, config) in [(&image, &config), (&old, &old_config), (&new_image, &new_config)] {
        let (listed, layers) = (config.rootfs().diff_ids.len(), image.manifest.layers().len());
        if listed != layers {
            return refuse(format!("{} has {layers} layers, and its config lists {listed}", image.digest()));
        }
    }
    let old_ids = &old_config.rootfs().diff_ids;
    if !config.rootfs().diff_ids.starts_with(old_ids) {
        let what = format!(
            "the lowest layers of {} are not the {} layers of its old base {}",
            image.digest(),
            old_ids.len(),
            old.digest()
        );
        return refuse(what);
    }
    let count = old_ids.len();
    let mut edit = image.edit();
    edit.with_config(config).replace_base(count, &new_image, move |config| {
        config.replace_base(&old_config, &new_config);
        match options.config {
            RebaseConfig::Inherit => config.inherit(&old_config, &new_config),
            RebaseConfig::Keep => config,
        }
    });
    edit.annotate(annotations::BASE_DIGEST, &new.digest().to_string());
    match &options.name {
        Some(name) => edit.annotate(annotations::BASE_NAME, name),
        None => edit.remove_annotation(annotations::BASE_NAME),
    };
    edit.finish().await
}

/// Returns the image of a base for the platform of a config.
async fn base_for(config: &ocikit_spec::Config, base: &Root) -> Result<Image> {
    match (base, config.platform()) {
        (Root::Image(image), Some(platform)) => {
            select_platforms(base, std::slice::from_ref(platform)).await?;
            Ok(image.clone())
        }
        (Root::Image(image), None) => Ok(image.clone()),
        (Root::Index(index), Some(platform)) => index.image_for(platform).await,
        (Root::Index(_), None) => {
            let what = "the image states no platform to select an image of the base for".to_owned();
            Err(Error::Unsupported { place: base.source().to_string(), what })
        }
        (Root::Other(_), _) => {
            let what = format!("{} is an artifact, not a base image", base.digest());
            Err(Error::Unsupported { place: base.source().to_string(), what })
        }
    }
}
