use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::error::ProjectError;

/// The file in the directory of the project that lists what an interrupted cascade has still to do.
pub(super) const JOURNAL: &str = ".ocikit-cascade.json";

/// Fails if a cascade was interrupted.
pub(super) fn check_not_interrupted(root: &Path) -> Result<(), ProjectError> {
    let journal = root.join(JOURNAL);
    match journal.try_exists() {
        Ok(false) => Ok(()),
        _ => Err(ProjectError::Interrupted { journal }),
    }
}

/// Reads a file of at most `limit` bytes and one more; `None` if it does not exist.
pub(super) fn read_file(path: &Path, limit: usize) -> Result<Option<Vec<u8>>, ProjectError> {
    let failed = |source| ProjectError::Io { operation: "read", path: path.to_owned(), source };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed)?,
    };
    if !file.metadata().map_err(failed)?.is_file() {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
        return Err(failed(source));
    }
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(Some(bytes))
}
