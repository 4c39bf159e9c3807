use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use super::error::ProjectError;

/// The file in the directory of the project that lists what an interrupted cascade has still to do.
pub(super) const JOURNAL: &str = ".ocikit-cascade.json";

/// The directory in the directory of the project with the new contents of files, until they are renamed into place.
pub(super) const NEW_CONTENTS: &str = ".ocikit-cascade";

/// Fails if a cascade was interrupted.
pub(super) fn check_not_interrupted(root: &Path) -> Result<(), ProjectError> {
    let journal = root.join(JOURNAL);
    match journal.try_exists() {
        Ok(false) => Ok(()),
        _ => Err(ProjectError::Interrupted { journal }),
    }
}

/// Reads a file of at most `limit` bytes and one more; `None` if it does not exist. Anything but a regular file is refused
/// before it is opened, because opening a named pipe would wait for its writer.
pub(super) fn read_file(path: &Path, limit: usize) -> Result<Option<Vec<u8>>, ProjectError> {
    let failed = |source| ProjectError::Io { operation: "read", path: path.to_owned(), source };
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Err(ProjectError::NotAFile { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    }
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(Some(bytes))
}

/// Returns the file that a path means: symlinks are followed, so that they stay.
///
/// # Errors
///
/// [`ProjectError::Outside`] if a symlink leads out of the project. A path that is itself outside was named by the user.
pub(super) fn target(root: &Path, path: &Path) -> Result<PathBuf, ProjectError> {
    let find = |path: PathBuf| fs::canonicalize(&path).map_err(ProjectError::io("find", path));
    let target = find(root.join(path))?;
    let is_below = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    // Otherwise the directory of the images, in which each image has a directory, is the limit.
    let limit = match (is_below, path.ancestors().nth(2)) {
        (false, Some(contexts)) => find(root.join(contexts))?,
        _ => find(root.join("."))?,
    };
    match target.starts_with(limit) {
        true => Ok(target),
        false => Err(ProjectError::Outside { path: path.to_owned(), target }),
    }
}
