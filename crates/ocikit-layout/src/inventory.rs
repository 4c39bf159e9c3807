//! The inventory of a layout or archive, for validation.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ocikit_archive::Kind;
use ocikit_image::bridge::blocking;
use ocikit_image::{Error, Fault, Inventory, Problem, Result};
use ocikit_spec::{Descriptor, Digest};
use serde::Deserialize;

use crate::docker::MANIFEST_JSON;
use crate::listing::list_blobs;
use crate::roots::OCI_LAYOUT_FILE;
use crate::unlisted::Unlisted;
use crate::{Dir, DockerArchive, Scratch, Tar};

/// The maximum size of an `oci-layout` file in bytes; a valid one has about thirty.
const MAX_MARKER_BYTES: u64 = 4096;

impl Dir {
    /// Lists the contents of the layout. Blobs in a shared directory may belong to other layouts and are not listed.
    ///
    /// # Errors
    ///
    /// Those of [`Dir::roots`] and of reading directories.
    pub async fn inventory(&self) -> Result<Inventory> {
        let (roots, unlisted) = (self.roots().await?, self.unlisted().await?);
        let (path, shared) = (self.path().to_owned(), self.is_shared());
        blocking(move || {
            let referrers = descriptors(unlisted);
            let mut found = Inventory { roots, referrers, blobs: Vec::new(), problems: Vec::new() };
            let failed = |error| Error::failed("read", path.display(), error);
            let blobs = if shared { Vec::new() } else { list_blobs(&path).map_err(failed)? };
            for (name, size) in blobs {
                file_under(&mut found, &name, size);
            }
            let marker = path.join(OCI_LAYOUT_FILE);
            let size = fs::metadata(&marker).map_err(failed)?.len();
            let text = (size <= MAX_MARKER_BYTES).then(|| fs::read(&marker)).transpose().map_err(failed)?;
            found.problems.extend(of_marker(text.as_deref()));
            found.blobs.sort_unstable();
            Ok(found)
        })
        .await
    }
}

impl Tar {
    /// Lists the contents of the archive.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if the file cannot be read.
    pub async fn inventory(&self) -> Result<Inventory> {
        let (tar, referrers) = (self.clone(), descriptors(self.unlisted().await?));
        let disagreement = match self.loadable().await? {
            Some(images) => images.disagreement(self.roots(), self).await?,
            None => None,
        };
        blocking(move || {
            let roots = tar.roots().clone();
            let mut found = Inventory { roots, referrers, blobs: Vec::new(), problems: Vec::new() };
            let entries = tar.index().entries().iter().enumerate();
            for (_, entry) in entries.filter(|(at, entry)| tar.index().counts(*at) && entry.kind != Kind::Directory) {
                let Some(name) = entry.name.as_deref().filter(|name| name.starts_with("blobs/")) else { continue };
                file_under(&mut found, name, tar.index().file(name).map_or(0, |span| span.size));
            }
            let small = tar.index().file(OCI_LAYOUT_FILE).is_none_or(|span| span.size <= MAX_MARKER_BYTES);
            let text: Option<Bytes> = if small { tar.entry(OCI_LAYOUT_FILE)? } else { None };
            found.problems.extend(of_marker(text.as_deref()));
            found.problems.extend(disagreement.map(|problem| {
                let fault = Fault::DockerList { problem };
                Problem::new(MANIFEST_JSON, None, fault)
            }));
            found.blobs.sort_unstable();
            Ok(found)
        })
        .await
    }
}

impl DockerArchive {
    /// Lists the images and their blobs; other entries are not blobs.
    pub fn inventory(&self) -> Inventory {
        let roots = self.roots().clone();
        Inventory { roots, referrers: Vec::new(), blobs: Vec::new(), problems: Vec::new() }
    }
}

fn descriptors(unlisted: Vec<Unlisted>) -> Vec<(Digest, Descriptor)> {
    unlisted.into_iter().map(|Unlisted { descriptor, subject }| (subject, descriptor)).collect()
}

fn file_under(found: &mut Inventory, name: &str, size: u64) {
    match Digest::from_blob_path(name) {
        Some(digest) => found.blobs.push((digest, size)),
        None => found.problems.push(Problem::new(name, None, Fault::UnknownFile)),
    }
}

/// Returns the problem of the `oci-layout` file, if there is one.
fn of_marker(text: Option<&[u8]>) -> Option<Problem> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Marker {
        image_layout_version: String,
    }
    let problem = match text.map(serde_json::from_slice::<Marker>) {
        Some(Ok(marker)) if marker.image_layout_version == "1.0.0" => return None,
        Some(Ok(marker)) => {
            let version: String = marker.image_layout_version.chars().take(40).collect();
            format!("its version is `{version}`, but only 1.0.0 is supported")
        }
        Some(Err(error)) => format!("it has no version: {error}"),
        None => "it is missing or too large".to_owned(),
    };
    Some(Problem::new(OCI_LAYOUT_FILE, None, Fault::LayoutVersion { problem }))
}

/// Opens a layout or archive with its inventory, to validate it as a whole.
///
/// # Errors
///
/// Those of [`open`](crate::open) and of listing.
pub async fn open_all(path: impl AsRef<Path>, scratch: &Scratch) -> Result<(Arc<dyn ocikit_image::Source>, Inventory)> {
    let path = path.as_ref();
    if path.is_dir() {
        let dir = Dir::open(path).await?;
        let inventory = dir.inventory().await?;
        return Ok((Arc::new(dir), inventory));
    }
    match crate::open::archive_at(path, scratch).await? {
        crate::open::Archive::Oci(tar) => {
            let inventory = tar.inventory().await?;
            Ok((Arc::new(tar), inventory))
        }
        crate::open::Archive::Docker(archive) => {
            let inventory = archive.inventory();
            Ok((Arc::new(archive), inventory))
        }
    }
}
