use std::sync::Arc;

use ocikit_spec::{ConfigField, History};

use crate::bound::check_plain;
use crate::error::Result;
use crate::formats::ImageFormats;
use crate::map_images::{Mapped, Selection, map_images};
use crate::new_layer::LayerOptions;
use crate::recompress::check_compression;
use crate::root::{Image, Root};

/// The images to flatten, and how their layers are compressed.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct FlattenOptions {
    /// The images.
    pub selection: Selection,
    /// The compression of the new layers.
    pub layer: LayerOptions,
    /// Formats whose own entries in layers are left out of the new ones.
    pub formats: Option<Arc<dyn ImageFormats>>,
}

ocikit_spec::setters! {
    FlattenOptions {
        selection: Selection,
        layer: LayerOptions,
        formats: Option<Arc<dyn ImageFormats>>,
    }
}

/// Replaces the layers of each selected image by one with the same files; see [`Image::merged_layer`]. The config keeps
/// everything but its history, which gets one entry. An image with one layer or none is unchanged.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # use std::sync::Arc;
/// # use ocikit_image::{Memory, Root, testing};
/// # let memory = Arc::new(Memory::new());
/// # let tars = [vec![0; 1024], vec![0; 2048]];
/// # let descriptor = testing::image_of(&memory, &"linux/amd64".parse()?, ocikit_archive::Compression::Gzip, &tars);
/// # let root = Root::at(memory, descriptor).await?;
/// use ocikit_image::{FlattenOptions, flatten};
///
/// let mapped = flatten(&root, &FlattenOptions::default()).await?;
/// assert_eq!(mapped.root.layers().count(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # Errors
///
/// As [`map_images`] and [`Image::merged_layer`]; [`Error::Unmet`](crate::Error::Unmet) for zstd in Docker's
/// format.
pub async fn flatten(root: &Root, options: &FlattenOptions) -> Result<Mapped> {
    map_images(root, &options.selection, |image| flatten_image(image, options)).await
}

async fn flatten_image(image: Image, options: &FlattenOptions) -> Result<Image> {
    check_plain(&image).await?;
    check_compression(&image, options.layer.encoder.compression)?;
    let count = image.manifest().layers().len();
    if count < 2 {
        return Ok(image);
    }
    let created = image.config().await?.created().map(str::to_owned);
    let step = History { created, created_by: Some(format!("ocikit flatten ({count} layers)")), ..History::default() };
    let layer = image.merged_layer_of(&options.layer, options.formats.as_ref()).await?.with_history(step);
    let mut edit = image.edit();
    edit.config(|config| config.remove(ConfigField::History));
    for position in (0..count).rev() {
        edit.remove_layer(position);
    }
    edit.append_layer(layer);
    edit.finish().await
}
