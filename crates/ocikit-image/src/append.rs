use std::sync::{Mutex, PoisonError};

use ocikit_archive::Compression;
use ocikit_archive::layer::{Last, Path};
use ocikit_spec::MediaType;

use crate::error::{Error, Result};
use crate::map_images::{Mapped, Selection, map_images};
use crate::new_layer::NewLayer;
use crate::recompress::check_compression;
use crate::root::{Image, Root};

/// Adds layers on top of the selected images, in this order. Existing layers stay where they are.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # use std::sync::Arc;
/// # use ocikit_image::{Memory, Root, testing};
/// # let memory = Arc::new(Memory::new());
/// # let descriptor = testing::image(&memory, 1, &"linux/amd64".parse()?, &[1000]);
/// # let root = Root::at(memory, descriptor).await?;
/// use ocikit_archive::{Compression, layer::Path};
/// use ocikit_image::{NewLayer, Selection, append_layers};
///
/// let layer = NewLayer::write(Compression::Gzip, |layer| layer.hide(&Path::confined(b"etc/motd"))).await?;
/// let mapped = append_layers(&root, &Selection::all(), &[layer]).await?;
/// assert_eq!(mapped.root.layers().count(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # Errors
///
/// As [`map_images`]; [`Error::Unmet`](crate::Error::Unmet) for zstd in Docker's format, which does not have
/// it.
pub async fn append_layers(root: &Root, selection: &Selection, layers: &[NewLayer]) -> Result<Mapped> {
    change_layers(root, selection, &[], layers).await
}

/// Removes layers of the selected images, by their positions from the lowest, and then adds layers on top. The entries
/// of removed layers in the history are removed too. Whether the layers above need the removed ones is not checked.
///
/// # Errors
///
/// As [`append_layers`]; [`Error::NotFound`] if an image has no layer at a position.
pub async fn change_layers(
    root: &Root,
    selection: &Selection,
    remove: &[usize],
    append: &[NewLayer],
) -> Result<Mapped> {
    let mut remove = remove.to_vec();
    remove.sort_unstable();
    remove.dedup();
    map_images(root, selection, |image| change_image(image, &remove, append)).await
}

/// Returns the paths that none of the selected images has. Symlinks in the path are followed, one at its end is not. Reads
/// every layer of these images.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # use std::sync::Arc;
/// # use ocikit_image::{Memory, Root, testing};
/// # let memory = Arc::new(Memory::new());
/// # let tar = testing::Tar::new().file("etc/motd", b"hello").finish();
/// # let image = testing::image_of(&memory, &"linux/amd64".parse()?, ocikit_archive::Compression::Gzip, &[tar]);
/// # let root = Root::at(memory, image).await?;
/// use ocikit_archive::layer::Path;
/// use ocikit_image::{Selection, missing_paths};
///
/// let paths = [b"etc/motd", b"etc/mtod"].map(|path| Path::confined(path));
/// assert_eq!(missing_paths(&root, &Selection::all(), &paths).await?, [Path::confined(b"etc/mtod")]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # Errors
///
/// As [`map_images`] and [`Image::files`].
pub async fn missing_paths(root: &Root, selection: &Selection, paths: &[Path]) -> Result<Vec<Path>> {
    let missing = Mutex::new(paths.to_vec());
    map_images(root, selection, async |image| {
        let files = image.files().await?;
        // A path that continues after a file, or in a loop of symlinks, is no file.
        let is_missing = |path: &Path| !matches!(files.resolve(path.as_bytes(), Last::Keep), Ok(Some(_)));
        missing.lock().unwrap_or_else(PoisonError::into_inner).retain(is_missing);
        Ok(image)
    })
    .await?;
    Ok(missing.into_inner().unwrap_or_else(PoisonError::into_inner))
}

async fn change_image(image: Image, remove: &[usize], append: &[NewLayer]) -> Result<Image> {
    let count = image.manifest().layers().len();
    if let Some(missing) = remove.iter().find(|position| **position >= count) {
        let what = format!("layer {} in image {}, which has {count}", missing + 1, image.digest());
        return Err(Error::not_found(what, &image.source));
    }
    let mut edit = image.edit();
    // From the top, so that the positions of the others stay the same.
    for position in remove.iter().rev() {
        edit.remove_layer(*position);
    }
    for layer in append {
        if layer.descriptor().media_type == MediaType::OCI_LAYER_ZSTD {
            check_compression(&image, Compression::Zstd)?;
        }
        edit.append_layer(layer.clone());
    }
    edit.finish().await
}
