//! The files of a layout in a directory.

use std::fs;
use std::io;
use std::path::Path;

/// Lists the files below `blobs` by their path in the layout, without temporary files.
pub(crate) fn list_blobs(layout: &Path) -> io::Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    for algorithm in list(&layout.join("blobs"))? {
        if !algorithm.metadata()?.is_dir() {
            continue;
        }
        for blob in list(&algorithm.path())? {
            let name = format!("blobs/{}/{}", algorithm.file_name().display(), blob.file_name().display());
            // For reading, symlinks are followed: several layouts may share blobs that way.
            match fs::metadata(blob.path()) {
                Ok(metadata) if metadata.is_file() && !is_temporary(&name) => found.push((name, metadata.len())),
                Ok(_) => {}
                // Removed after it was listed, or a dangling symlink.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Returns the entries of a directory; none if it does not exist.
fn list(path: &Path) -> io::Result<Vec<fs::DirEntry>> {
    match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.collect(),
    }
}

/// Returns whether a path has the name of a temporary file of this program.
pub(crate) fn is_temporary(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|name| name.starts_with(".ocikit-"))
}
