//! The files of a layout in a directory.

use std::fs;
use std::io;
use std::path::Path;

/// Files below `blobs`, by their path from the layout, without temporary ones.
pub(crate) fn list_blobs(layout: &Path) -> io::Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    for algorithm in list(&layout.join("blobs"))? {
        if !algorithm.metadata()?.is_dir() {
            continue;
        }
        for blob in list(&algorithm.path())? {
            let name = format!("blobs/{}/{}", algorithm.file_name().display(), blob.file_name().display());
            // For reading links are followed: several layouts may share blobs.
            match fs::metadata(blob.path()) {
                Ok(metadata) if metadata.is_file() && !is_temporary(&name) => found.push((name, metadata.len())),
                Ok(_) => {}
                // Gone since it was listed, or a link to nothing.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The entries of a directory, none where it is missing.
fn list(path: &Path) -> io::Result<Vec<fs::DirEntry>> {
    match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.collect(),
    }
}

/// Whether a path has the name of a temporary file of this program.
pub(crate) fn is_temporary(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|name| name.starts_with(".ocikit-"))
}
