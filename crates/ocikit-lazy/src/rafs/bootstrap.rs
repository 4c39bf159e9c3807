//! Bootstraps of all versions, and the layer that holds one.

use std::io::{self, Write};

use ocikit_archive::{BLOCK, END, Header, padding};
use ocikit_spec::{Manifest, annotations};

use crate::rafs::blob::information_file;
use crate::rafs::options::RafsVersion;
use crate::rafs::table::{Contents, TooLarge};
use crate::rafs::{v5, v6};

/// The path of the bootstrap in its layer.
pub(super) const BOOTSTRAP_PATH: &str = "image/image.boot";

/// The annotation of the bootstrap layer, which is the last one.
pub(crate) const BOOTSTRAP_ANNOTATION: &str = annotations::NYDUS_BOOTSTRAP;
/// The annotation with the version of RAFS.
pub(crate) const VERSION_ANNOTATION: &str = "containerd.io/snapshot/nydus-fs-version";

/// The annotation with the blobs that the bootstrap refers to, as a list in JSON.
pub(super) const BLOB_IDS_ANNOTATION: &str = "containerd.io/snapshot/nydus-blob-ids";

/// Returns whether a manifest says that its image is in the format of Nydus: a layer is a blob of Nydus, or the last layer has
/// the annotation of a bootstrap. [`NydusReader::detect`](crate::rafs::NydusReader::detect) finds out whether it is true.
pub fn is_nydus(manifest: &Manifest) -> bool {
    manifest.is_nydus()
}

/// A bootstrap that is ready to be written.
#[derive(Debug)]
pub(super) enum Bootstrap<'a> {
    V5(v5::Plan<'a>),
    V6(v6::Plan<'a>),
}

impl<'a> Bootstrap<'a> {
    pub(super) fn of(contents: &'a Contents<'a>) -> Result<Bootstrap<'a>, TooLarge> {
        match contents.settings.version {
            RafsVersion::V5 => Ok(Bootstrap::V5(v5::Plan::of(contents)?)),
            RafsVersion::V6 => Ok(Bootstrap::V6(v6::Plan::of(contents)?)),
        }
    }

    pub(super) fn size(&self) -> u64 {
        match self {
            Bootstrap::V5(plan) => plan.size,
            Bootstrap::V6(plan) => plan.size,
        }
    }

    pub(super) fn write(&self, writer: impl Write) -> io::Result<()> {
        match self {
            Bootstrap::V5(plan) => plan.write(writer),
            Bootstrap::V6(plan) => plan.write(writer),
        }
    }
}

/// Writes the tar of the bootstrap layer: the bootstrap, and for version 6 the chunk information of each new blob.
pub(super) fn write_layer(contents: &Contents<'_>, bootstrap: &Bootstrap<'_>, out: &mut impl Write) -> io::Result<()> {
    const READ_ONLY: u32 = 0o444;
    let file = |name: &str, size: u64| Header { mode: READ_ONLY, ..Header::file(name, size) }.to_bytes();
    let pad = |size: u64, out: &mut dyn Write| {
        let zeros = [0; BLOCK as usize];
        out.write_all(&zeros[..usize::try_from(padding(size)).unwrap_or_default()])
    };
    out.write_all(&Header::directory("image/").to_bytes())?;
    out.write_all(&file(BOOTSTRAP_PATH, bootstrap.size()))?;
    bootstrap.write(&mut *out)?;
    pad(bootstrap.size(), out)?;
    if contents.settings.version == RafsVersion::V6 {
        for blob in &contents.table.blobs {
            // That of a dictionary is not known completely; readers fetch it from the blob.
            if blob.info.information.real_size == 0 || blob.chunks.len() != blob.info.chunk_count as usize {
                continue;
            }
            let bytes = information_file(blob.chunks, &blob.info);
            let id = String::from_utf8_lossy(&blob.info.id);
            out.write_all(&file(&format!("image/{id}.blob.meta"), bytes.len() as u64))?;
            out.write_all(&bytes)?;
            pad(bytes.len() as u64, out)?;
        }
    }
    // Exactly this end: nydusify hashes no more than a tar reader reads.
    out.write_all(&END)
}
