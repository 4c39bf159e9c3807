use std::collections::HashMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use ocikit_archive::Compression;
use ocikit_archive::layer::Budget;
use ocikit_spec::{Descriptor, Digest};

use crate::bound::check_plain;
use crate::error::{Error, Mismatch, Need, Result};
use crate::formats::{ImageFormats, without_own_entries};
use crate::layer_pool::LayerPool;
use crate::map_images::{Mapped, Selection, map_images};
use crate::new_layer::{LayerOptions, NewLayer};
use crate::root::{Image, Layer, Root};

/// The number of layers of an image that are prepared in parallel. [`LayerPool`] limits those that are changed.
pub(crate) const MAX_WAITING_LAYERS: usize = 8;

/// The images to recompress, and how.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RecompressOptions {
    /// The images.
    pub selection: Selection,
    /// The compression, level and number of threads. A layer that has the compression already is kept, unless a level is
    /// given.
    pub layer: LayerOptions,
    /// The layers whose result is known, by their digests; `None` for those that are kept. They are not read.
    pub known: HashMap<Digest, Option<NewLayer>>,
    /// Formats whose own entries in layers are left out of the new ones.
    pub formats: Option<Arc<dyn ImageFormats>>,
}

ocikit_spec::setters! {
    RecompressOptions {
        selection: Selection,
        layer: LayerOptions,
        known: HashMap<Digest, Option<NewLayer>>,
        formats: Option<Arc<dyn ImageFormats>>,
    }
}

/// Changes the compression of all layers of the selected images. The uncompressed layers, and so the digests of them in
/// the configs, are unchanged, and so are the configs. A layer that several images have is compressed once; two layers
/// are compressed in parallel. The bytes do not depend on the number of threads.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # use std::sync::Arc;
/// # use ocikit_image::{Memory, Root, testing};
/// # let memory = Arc::new(Memory::new());
/// # let descriptor = testing::image(&memory, 1, &"linux/amd64".parse()?, &[1000]);
/// # let root = Root::at(memory, descriptor).await?;
/// use ocikit_archive::Compression;
/// use ocikit_image::{RecompressOptions, recompress};
///
/// let mut options = RecompressOptions::default();
/// options.layer = Compression::Zstd.into();
/// let mapped = recompress(&root, &options).await?;
/// assert!(mapped.root.layers().all(|layer| layer.descriptor().media_type.as_str().ends_with("+zstd")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # Errors
///
/// As [`map_images`] and [`Layer::recompress`]. [`Error::Unmet`] for zstd in Docker's format, which does not have
/// it. [`Error::Mismatch`] if a layer is not the one that the config lists.
pub async fn recompress(root: &Root, options: &RecompressOptions) -> Result<Mapped> {
    let (pool, budget) = (LayerPool::new(), Budget::new());
    map_images(root, &options.selection.keeping_files(), |image| recompress_image(image, options, &pool, &budget)).await
}

async fn recompress_image(
    image: Image,
    options: &RecompressOptions,
    pool: &LayerPool<Digest>,
    budget: &Budget,
) -> Result<Image> {
    check_plain(&image).await?;
    check_compression(&image, options.layer.encoder.compression)?;
    let layers = without_own_entries(&image, options.formats.as_ref()).await?.file_layers();
    let is_filtered = |layer: &Layer| layer.files().is_some_and(|files| files.is_filtered());
    let changed = stream::iter(layers.clone()).map(|layer| recompressed(layer, options, pool, budget));
    let changed: Vec<_> = changed.buffered(MAX_WAITING_LAYERS).boxed().try_collect().await?;
    let config = image.config().await?;
    let mut edit = image.edit();
    for (position, new) in changed.into_iter().enumerate() {
        let Some(new) = new else { continue };
        // What is left out of a tar is not in its new digest.
        if !layers.get(position).is_some_and(is_filtered) {
            check_diff_id(&image, config.rootfs().diff_ids.get(position), position, &new)?;
        }
        edit.replace_layer(position, new);
    }
    edit.finish().await
}

/// Returns the layer in its new compression; `None` if it is kept.
async fn recompressed(
    layer: Layer,
    options: &RecompressOptions,
    pool: &LayerPool<Digest>,
    budget: &Budget,
) -> Result<Option<NewLayer>> {
    if let Some(known) = options.known.get(&layer.digest()) {
        return Ok(known.clone());
    }
    let encoder = options.layer.encoder;
    // The bytes of a foreign layer may be elsewhere, and must not be distributed.
    if layer.descriptor().media_type.is_foreign_layer() {
        return Ok(None);
    }
    if encoder.level.is_none() && layer.compression().await? == encoder.compression {
        return Ok(None);
    }
    pool.once(layer.digest(), layer.recompress(budget, &options.layer)).await.map(Some)
}

/// Checks that the format of an image has layers of a compression.
pub(crate) fn check_compression(image: &Image, compression: Compression) -> Result<()> {
    if compression == Compression::Zstd && image.manifest().media_type().is_docker() {
        let what = format!("{} has Docker's format, which has no zstd layers", image.digest());
        return Err(Error::unmet(image.source(), what, Need::OciFormat));
    }
    Ok(())
}

/// Checks that the uncompressed bytes of a layer are those that the config lists.
fn check_diff_id(image: &Image, listed: Option<&Digest>, position: usize, new: &NewLayer) -> Result<()> {
    let place = || format!("{} of {}", descriptor_of(image, position), image.source());
    match listed {
        Some(listed) if *listed != new.diff_id() => {
            Err(Error::mismatch(listed, place(), Mismatch::Digest(new.diff_id())))
        }
        // Configs without the list are left to the edit.
        _ => Ok(()),
    }
}

fn descriptor_of(image: &Image, position: usize) -> String {
    let digest = |layer: &Descriptor| format!("layer {}", layer.digest);
    image.manifest().layers().get(position).map_or_else(|| format!("layer {position}"), digest)
}
