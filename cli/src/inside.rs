//! Arguments that choose an image of a location and a layer of it, for commands that read files in images.

use std::sync::Arc;

use bytes::Bytes;
use ocikit::image::ImageFormats;
use ocikit::{Descriptor, Digest, Error, Image, Layer, Location, Platform, Root, Source, SourceExt};
use ocikit_lazy::{FileAccess, LazyFormats};

use crate::context::Context;
use crate::failure::{Failure, Result};

/// The image of a location, and optionally one of its layers.
#[derive(Debug, clap::Args)]
pub(crate) struct ImageSelection {
    /// Read only this layer: its digest, or its number, counted from 0
    #[arg(long, value_name = "N|DIGEST", value_parser = choice)]
    layer: Option<LayerChoice>,
    /// Read the image for this platform; default: that of this machine
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
}

#[derive(Debug, Clone)]
enum LayerChoice {
    Number(usize),
    Digest(Digest),
}

fn choice(text: &str) -> Result<LayerChoice, String> {
    if let Ok(number) = text.parse() {
        return Ok(LayerChoice::Number(number));
    }
    text.parse().map(LayerChoice::Digest).map_err(|_| "expected the number or the digest of a layer".to_owned())
}

/// Opens the image of a location for a platform. The location may be a pipe.
pub(crate) async fn image_at(context: &Context, location: &Location, platform: Option<&Platform>) -> Result<Image> {
    let session = context.session(&[location])?;
    Ok(image_of(crate::pipe::open_image(context, &session, location, true).await?, platform).await?)
}

/// As [`image_at`], with a way to read its files if it is in a lazy format.
pub(crate) async fn files_at(
    context: &Context,
    location: &Location,
    platform: Option<&Platform>,
    access: FileAccess,
) -> Result<Image> {
    let image = image_at(context, location, platform).await?;
    Ok(ocikit_lazy::with_files(image, access, &std::env::temp_dir()).await?)
}

/// Returns the lazy formats, for the operations that read images in any format.
pub(crate) fn lazy_formats() -> Arc<dyn ImageFormats> {
    Arc::new(LazyFormats::new(std::env::temp_dir()))
}

impl ImageSelection {
    /// Opens the image. With `--layer`, the layer is read as it is.
    pub(crate) async fn image(&self, context: &Context, location: &Location) -> Result<Image> {
        match self.layer {
            Some(_) => image_at(context, location, self.platform.as_ref()).await,
            None => files_at(context, location, self.platform.as_ref(), FileAccess::Tables).await,
        }
    }

    /// Returns the chosen layer and its number, or `None` without `--layer`.
    pub(crate) fn layer(&self, image: &Image) -> Result<Option<(usize, Layer)>> {
        let Some(choice) = &self.layer else { return Ok(None) };
        let count = image.layers().count();
        let mut layers = image.layers().enumerate();
        let found = match choice {
            LayerChoice::Number(number) => layers.nth(*number),
            LayerChoice::Digest(digest) => layers.find(|(_, layer)| layer.descriptor().digest == *digest),
        };
        let missing = || {
            let what = match choice {
                LayerChoice::Number(number) => format!("layer {number}"),
                LayerChoice::Digest(digest) => format!("layer {digest}"),
            };
            let failure = Failure::from(Error::not_found(what, image.source()));
            match count.checked_sub(1) {
                None => failure.hint("the image has no layers"),
                Some(last) => {
                    failure.hint(format_args!("choose a layer from 0 to {last}; `ocikit inspect` lists them"))
                }
            }
        };
        found.map(Some).ok_or_else(missing)
    }
}

/// Returns the root for a platform. Without one, returns the root itself, or of an index the image for this machine.
async fn selected(root: Root, platform: Option<&Platform>) -> ocikit::Result<Root> {
    match root {
        Root::Index(_) if platform.is_none() => root.for_platform(&Platform::of_this_machine()).await,
        root => for_platform(root, platform).await,
    }
}

/// Returns the root for a platform, or without one the root itself.
pub(crate) async fn for_platform(root: Root, platform: Option<&Platform>) -> ocikit::Result<Root> {
    match platform {
        Some(platform) => root.for_platform(platform).await,
        None => Ok(root),
    }
}

/// Returns the descriptor of the root of a location, or of its image for a platform.
pub(crate) async fn find(
    source: &Arc<dyn Source>,
    location: &Location,
    platform: Option<&Platform>,
) -> ocikit::Result<Descriptor> {
    let found = source.find_root(&location.name()).await?;
    match platform {
        Some(platform) => Ok(Root::at(source.clone(), found).await?.for_platform(platform).await?.descriptor().clone()),
        None => Ok(found),
    }
}

/// Returns the image of a root: the root itself, or the image of an index for a platform.
pub(crate) async fn image_of(root: Root, platform: Option<&Platform>) -> ocikit::Result<Image> {
    match selected(root, platform).await? {
        Root::Image(image) => Ok(image),
        other => Err(Error::not_found(format!("image at {}", other.digest()), other.source())),
    }
}

/// Returns the exact bytes of the config of an image. For an index, the image is that for `platform`, or for the platform of
/// this machine.
pub(crate) async fn config(root: Root, platform: Option<&Platform>) -> Result<Bytes> {
    let root = selected(root, platform).await?;
    let document = root.document();
    let config = match &document {
        Some(ocikit::spec::Document::Manifest(manifest)) => manifest.config(),
        _ => None,
    };
    let config = config.ok_or_else(|| Error::not_found("config", root.source()))?;
    Ok(root.source().read(config).await?)
}
