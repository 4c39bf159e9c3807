//! The files of images in a lazy format, for the functions of [`Image`] that read files.

mod access;
mod listed;
mod nydus;
mod soci;
mod table;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use ocikit_image::{Image, Layer, Result as ImageResult};

use crate::form::has_annotations;
use crate::rafs::NydusReader;
pub use access::FileAccess;
use nydus::NydusFiles;
pub(crate) use soci::ztocs as find_ztocs;
use table::TableFiles;

/// Returns the image with a way to read its files, whatever the format of its layers is: [`Image::files`],
/// [`Image::read_file`], [`Image::unpack`] and [`Image::export`] then read a lazy image like a plain one. Files that only
/// eStargz has are not among them. A plain image is returned as it is.
///
/// A layer is in a format if its content is: one with a wrong annotation, or a table that cannot be true, is read as the tar
/// that it is. Temporary files are made in the directory.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # use std::sync::Arc;
/// # use ocikit_image::{Memory, Root, testing};
/// # let memory = Arc::new(Memory::new());
/// # let tar = testing::Tar::new().file("etc/motd", b"hello").finish();
/// # let descriptor = testing::image_of(&memory, &"linux/amd64".parse()?, testing::Compression::Gzip, &[tar]);
/// # let root = Root::at(memory, descriptor).await?;
/// use ocikit_lazy::rafs::{NydusOptions, to_nydus};
/// use ocikit_lazy::{FileAccess, with_files};
///
/// # let Root::Image(image) = root else { unreachable!() };
/// let nydus = to_nydus(&image, &NydusOptions::default()).await?.image;
/// let files = with_files(nydus, FileAccess::Tables, &std::env::temp_dir()).await?.files().await?;
/// assert!(files.iter().any(|(path, _)| path.to_string() == "etc/motd"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # Errors
///
/// Those of reading a bootstrap; [`Error::Broken`](ocikit_image::Error::Broken) and [`Error::NotFound`](ocikit_image::Error::NotFound) if a Nydus image is damaged.
pub async fn with_files(image: Image, access: FileAccess, directory: &Path) -> ImageResult<Image> {
    if let Some(reader) = NydusReader::detect(&image, directory).await? {
        let Some(bootstrap) = image.layers().last() else { return Ok(image) };
        let files = Arc::new(NydusFiles::new(reader, bootstrap.clone()));
        return Ok(image.with_file_layers(vec![bootstrap.with_files(files)]));
    }
    let mut ztocs = match access {
        FileAccess::Tables => soci::ztocs(&image).await?,
        FileAccess::Contents => HashMap::new(),
    };
    let mut is_plain = true;
    let layers: Vec<Layer> = image
        .layers()
        .map(|layer| {
            let (is_listed, ztoc) = (has_annotations(layer.descriptor()), ztocs.remove(&layer.digest()));
            is_plain &= !is_listed && ztoc.is_none();
            match ztoc {
                _ if is_listed => layer.clone().with_files(Arc::new(TableFiles::new(layer, access))),
                Some(ztoc) => layer.clone().with_files(Arc::new(soci::ZtocFiles::new(layer, ztoc))),
                None => layer,
            }
        })
        .collect();
    Ok(if is_plain { image } else { image.with_file_layers(layers) })
}
