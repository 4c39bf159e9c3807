//! Whether an image has the format of Nydus, in which its last layer, the bootstrap, lists the files of all others.

use std::io::Read;

use ocikit_archive::layer::{Budget, Reader};
use ocikit_spec::{Descriptor, Manifest, annotations};

use crate::error::{Error, Result};
use crate::layer::{DiffId, LayerTar, decode};
use crate::root::Image;
use crate::source::{Source, SourceExt};

/// The path of the bootstrap in its layer.
const BOOTSTRAP_PATH: &[u8] = b"image/image.boot";

/// The first bytes of a bootstrap of RAFS 5.
const RAFS_5_MAGIC: [u8; 4] = 0x5241_4653_u32.to_le_bytes();

/// The offset of the superblock of a bootstrap of RAFS 6, which is an EROFS image.
const RAFS_6_OFFSET: usize = 1024;

/// The first bytes of that superblock.
const RAFS_6_MAGIC: [u8; 4] = 0xe0f5_e1e2_u32.to_le_bytes();

impl Image {
    /// Returns whether it has the format of Nydus, see [`has_nydus_layers`].
    ///
    /// # Errors
    ///
    /// As [`has_nydus_layers`].
    pub async fn has_nydus_layers(&self) -> Result<bool> {
        has_nydus_layers(&self.manifest, &*self.source).await
    }
}

/// Returns whether an image has the format of Nydus: a layer is a blob of Nydus, or the last layer has the annotation of a
/// bootstrap and is one. An image whose files are all empty has no blobs. The annotation alone can be wrong, so that a layer that
/// has it is read if there are no blobs.
///
/// # Errors
///
/// Those of reading the layer. One that does not exist or is damaged is not a bootstrap.
pub async fn has_nydus_layers(manifest: &Manifest, source: &dyn Source) -> Result<bool> {
    if manifest.has_nydus_blobs() {
        return Ok(true);
    }
    let last = manifest.layers().last().filter(|layer| is_bootstrap(layer) && layer.media_type.is_tar_layer());
    let Some(last) = last else { return Ok(false) };
    match has_bootstrap(last, source).await {
        Err(Error::NotFound { .. } | Error::Broken { .. }) => Ok(false),
        found => found,
    }
}

/// Returns whether a layer has the annotation of a bootstrap.
pub(crate) fn is_bootstrap(layer: &Descriptor) -> bool {
    layer.annotations.get(annotations::NYDUS_BOOTSTRAP).is_some()
}

async fn has_bootstrap(layer: &Descriptor, source: &dyn Source) -> Result<bool> {
    let body = source.open(layer).await?;
    let budget = Budget::new();
    budget.layer(layer.size);
    let within = budget.clone();
    let work = move |tar: &mut LayerTar<'_>| {
        let mut reader = Reader::within(&within, tar);
        while let Some(entry) = reader.next_entry()? {
            if entry.path.as_bytes() == BOOTSTRAP_PATH {
                let mut start = Vec::new();
                reader.take((RAFS_6_OFFSET + RAFS_6_MAGIC.len()) as u64).read_to_end(&mut start)?;
                let has_superblock = start.get(RAFS_6_OFFSET..).is_some_and(|block| block == RAFS_6_MAGIC);
                return Ok(start.starts_with(&RAFS_5_MAGIC) || has_superblock);
            }
        }
        Ok(false)
    };
    let place = format!("layer {} in {source}", layer.digest);
    Ok(decode(body, place, None, &budget, DiffId::Skip, work).await?.0)
}
