//! The digest of what an image is built from.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use ocikit::Digest;
use ocikit::spec::{Algorithm, Hasher};

use super::error::ProjectError;
use super::model::{Project, ProjectImage};

/// The maximum number of files in the directory of an image.
const MAX_FILES: usize = 1_000_000;

impl Project {
    /// Returns the digest of the inputs of each image, in the order of the project: the files of its directory with their names
    /// and the permission to execute them, and the inputs of the images of the project that it is built from. Times and owners do
    /// not count.
    ///
    /// # Errors
    ///
    /// [`ProjectError::Io`] if a file cannot be read.
    pub fn inputs(&self) -> Result<Vec<Digest>, ProjectError> {
        let mut all: Vec<Digest> = Vec::with_capacity(self.images().len());
        for image in self.images() {
            let digest = self.inputs_of(image, &all)?;
            all.push(digest);
        }
        Ok(all)
    }

    fn inputs_of(&self, image: &ProjectImage, before: &[Digest]) -> Result<Digest, ProjectError> {
        let mut hash = Hasher::new(Algorithm::Sha256);
        hash.update(b"ocikit project inputs 1\n");
        let directory = self.root().join(&image.directory);
        for path in files(&directory)? {
            add_file(&mut hash, &directory, &path).map_err(ProjectError::io("read", directory.join(&path)))?;
        }
        let mut parents: Vec<_> = image.parents().collect();
        parents.sort_unstable();
        parents.dedup();
        for parent in parents {
            add(&mut hash, b"image", self.images()[parent].name.as_bytes());
            add(&mut hash, b"inputs", before[parent].to_string().as_bytes());
        }
        Ok(hash.finish())
    }
}

/// Adds a field with its length, so that no two lists of fields give the same bytes.
fn add(hash: &mut Hasher, kind: &[u8], value: &[u8]) {
    hash.update(kind);
    hash.update(&(value.len() as u64).to_be_bytes());
    hash.update(value);
}

/// Returns the files and symlinks below a directory, sorted, relative to it. Directories without files do not count.
fn files(directory: &Path) -> Result<Vec<PathBuf>, ProjectError> {
    let mut found = Vec::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(below) = pending.pop() {
        let path = directory.join(&below);
        let failed = |source| ProjectError::Io { operation: "read the directory", path: path.clone(), source };
        for entry in fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let below = below.join(entry.file_name());
            match entry.file_type().map_err(failed)?.is_dir() {
                true => pending.push(below),
                false => found.push(below),
            }
            if found.len() + pending.len() > MAX_FILES {
                return Err(failed(io::Error::other(format!("it has more than {MAX_FILES} files"))));
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn add_file(hash: &mut Hasher, directory: &Path, below: &Path) -> io::Result<()> {
    let path = directory.join(below);
    add(hash, b"path", below.as_os_str().as_encoded_bytes());
    let metadata = fs::symlink_metadata(&path)?;
    if metadata.is_symlink() {
        add(hash, b"link", fs::read_link(&path)?.as_os_str().as_encoded_bytes());
        return Ok(());
    }
    if !metadata.is_file() {
        // Sockets and devices are not in a build context.
        return Ok(());
    }
    let mut content = Hasher::new(Algorithm::Sha256);
    let (mut file, mut buffer) = (File::open(&path)?, vec![0; 64 << 10]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => content.update(&buffer[..count]),
        }
    }
    add(hash, if is_executable(&metadata) { b"program" } else { b"file" }, content.finish().as_bytes());
    Ok(())
}

#[cfg(unix)]
fn is_executable(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o111 != 0
}

#[cfg(not(unix))]
fn is_executable(_: &fs::Metadata) -> bool {
    false
}
