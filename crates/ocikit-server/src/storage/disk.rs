//! The storage directory. The documentation of the crate describes its layout.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ocikit_spec::{Digest, Tag};
use tempfile::NamedTempFile;

use super::state::{ManifestEntry, RegistryIndex};
use crate::error::{Error, Result};
use crate::name::RepositoryName;

/// Which failures acknowledged data survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A crash of the process.
    Crash,
    /// A power loss too: acknowledged data is synced to the disk. Slower.
    PowerLoss,
}

/// Marks a storage directory and states its version; locked while a server uses it.
const MARKER: &str = "ocikit-server";
const VERSION: &str = "1\n";
const BLOBS: &str = "blobs";
const REPOSITORIES: &str = "repositories";
const UNFINISHED: &str = "unfinished";

/// The directories of a repository. No component of a repository name begins with `_`.
const REPOSITORY_BLOBS: &str = "_blobs";
const REPOSITORY_MANIFESTS: &str = "_manifests";
const REPOSITORY_TAGS: &str = "_tags";

/// A storage directory, locked against other processes.
#[derive(Debug)]
pub(crate) struct Disk {
    root: PathBuf,
    durability: Durability,
    /// Locked until it is dropped.
    _marker: File,
}

impl Disk {
    /// Opens a storage directory, or creates one in a missing or empty directory, and reads its contents.
    pub(crate) fn open(root: &Path, durability: Durability) -> Result<(Disk, RegistryIndex)> {
        let marker = Disk::mark(root)?;
        let disk = Disk { root: root.to_owned(), durability, _marker: marker };
        let state = disk.load()?;
        Ok((disk, state))
    }

    fn mark(root: &Path) -> Result<File> {
        let refuse = |problem| Error::Foreign { place: root.to_owned(), problem };
        make_directory(root)?;
        let path = root.join(MARKER);
        let is_new = !path.try_exists().map_err(broken(&path))?;
        if is_new && fs::read_dir(root).map_err(broken(root))?.next().is_some() {
            return Err(refuse("it holds other files"));
        }
        let file = File::options().read(true).append(true).create(true).open(&path).map_err(broken(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::InUse { place: root.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(broken(&path)(source)),
        }
        // Written under the lock, so that two servers that start at the same time write it once.
        match fs::read_to_string(&path).map_err(broken(&path))?.as_str() {
            "" => (&file).write_all(VERSION.as_bytes()).map_err(broken(&path))?,
            VERSION => {}
            _ => return Err(refuse("its format is of another version")),
        }
        for directory in [BLOBS, REPOSITORIES, UNFINISHED] {
            make_directory(&root.join(directory))?;
        }
        Ok(file)
    }

    /// Reads the contents, and deletes unfinished uploads.
    fn load(&self) -> Result<RegistryIndex> {
        for path in files(&self.unfinished())? {
            fs::remove_file(&path).map_err(broken(&path))?;
        }
        let mut sizes = Sizes::new();
        for algorithm in subdirectories(&self.root.join(BLOBS))? {
            for path in files(&algorithm)? {
                if let Some(digest) = digest_of(&path) {
                    sizes.insert(digest, fs::metadata(&path).map_err(broken(&path))?.len());
                }
            }
        }
        let mut state = RegistryIndex::default();
        self.load_repositories(&self.root.join(REPOSITORIES), "", &sizes, &mut state)?;
        for digest in sizes.keys().filter(|digest| state.held(digest).is_none()) {
            let path = self.blob_path(digest);
            fs::remove_file(&path).map_err(broken(&path))?;
        }
        Ok(state)
    }

    fn load_repositories(&self, directory: &Path, name: &str, sizes: &Sizes, state: &mut RegistryIndex) -> Result<()> {
        if let Ok(name) = name.parse::<RepositoryName>() {
            self.load_repository(directory, &name, sizes, state)?;
        }
        for path in subdirectories(directory)? {
            let Some(part) = path.file_name().and_then(OsStr::to_str) else { continue };
            let name = if name.is_empty() { part.to_owned() } else { format!("{name}/{part}") };
            // The length of a repository name is limited, and so is the depth of this recursion.
            if name.parse::<RepositoryName>().is_ok() {
                self.load_repositories(&path, &name, sizes, state)?;
            }
        }
        Ok(())
    }

    /// Reads a repository. References to missing bytes are ignored and kept: a crash does not cause them, and the bytes
    /// may be restored.
    fn load_repository(
        &self,
        directory: &Path,
        name: &RepositoryName,
        sizes: &Sizes,
        state: &mut RegistryIndex,
    ) -> Result<()> {
        for algorithm in subdirectories(&directory.join(REPOSITORY_BLOBS))? {
            for path in files(&algorithm)? {
                if let Some((digest, size)) = found(&path, sizes) {
                    state.add_blob(name, digest, size);
                }
            }
        }
        for algorithm in subdirectories(&directory.join(REPOSITORY_MANIFESTS))? {
            for path in files(&algorithm)? {
                let Some((digest, size)) = found(&path, sizes) else { continue };
                let bytes = fs::read(&path).map_err(broken(&path))?;
                let damaged = |error| broken(&path)(io::Error::new(io::ErrorKind::InvalidData, error));
                let entry: ManifestEntry = serde_json::from_slice(&bytes).map_err(damaged)?;
                state.add_manifest(name, digest, ManifestEntry { size, ..entry });
            }
        }
        for path in files(&directory.join(REPOSITORY_TAGS))? {
            let tag = path.file_name().and_then(OsStr::to_str).and_then(|name| name.parse::<Tag>().ok());
            let digest = fs::read_to_string(&path).map_err(broken(&path))?.trim().parse::<Digest>().ok();
            if let (Some(tag), Some(digest)) = (tag, digest) {
                state.set_tag(name, tag, digest);
            }
        }
        Ok(())
    }

    /// Returns the directory for drafts, on the same file system, so that they can be renamed.
    pub(crate) fn unfinished(&self) -> PathBuf {
        self.root.join(UNFINISHED)
    }

    pub(crate) fn open_blob(&self, digest: &Digest) -> io::Result<File> {
        File::open(self.blob_path(digest))
    }

    /// Syncs the bytes of a draft, before anything references them.
    pub(crate) fn sync(&self, draft: &NamedTempFile) -> io::Result<()> {
        match self.durability {
            Durability::PowerLoss => draft.as_file().sync_data(),
            Durability::Crash => Ok(()),
        }
    }

    /// Stores a synced draft under a digest.
    pub(crate) fn store(&self, draft: NamedTempFile, digest: &Digest) -> io::Result<()> {
        self.rename(draft, &self.blob_path(digest))
    }

    pub(crate) fn remove_bytes(&self, digest: &Digest) -> io::Result<()> {
        self.remove(&self.blob_path(digest))
    }

    pub(crate) fn add_blob(&self, name: &RepositoryName, digest: &Digest) -> io::Result<()> {
        let path = self.repository_entry_path(name, REPOSITORY_BLOBS, digest);
        self.ensure(parent(&path))?;
        File::create(&path)?;
        self.sync_directory(parent(&path))
    }

    pub(crate) fn remove_blob(&self, name: &RepositoryName, digest: &Digest) -> io::Result<()> {
        self.remove(&self.repository_entry_path(name, REPOSITORY_BLOBS, digest))
    }

    pub(crate) fn add_manifest(&self, name: &RepositoryName, digest: &Digest, entry: &ManifestEntry) -> io::Result<()> {
        self.write(&self.repository_entry_path(name, REPOSITORY_MANIFESTS, digest), &serde_json::to_vec(entry)?)
    }

    pub(crate) fn remove_manifest(&self, name: &RepositoryName, digest: &Digest) -> io::Result<()> {
        self.remove(&self.repository_entry_path(name, REPOSITORY_MANIFESTS, digest))
    }

    pub(crate) fn set_tag(&self, name: &RepositoryName, tag: &Tag, digest: &Digest) -> io::Result<()> {
        self.write(&self.tag_path(name, tag), digest.to_string().as_bytes())
    }

    pub(crate) fn remove_tag(&self, name: &RepositoryName, tag: &Tag) -> io::Result<()> {
        self.remove(&self.tag_path(name, tag))
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join(digest.blob_path())
    }

    fn repository_entry_path(&self, name: &RepositoryName, kind: &str, digest: &Digest) -> PathBuf {
        self.repository_path(name).join(kind).join(digest.algorithm().name()).join(digest.hex())
    }

    fn tag_path(&self, name: &RepositoryName, tag: &Tag) -> PathBuf {
        self.repository_path(name).join(REPOSITORY_TAGS).join(tag.as_str())
    }

    fn repository_path(&self, name: &RepositoryName) -> PathBuf {
        self.root.join(REPOSITORIES).join(name.as_str())
    }

    /// Writes a small file atomically.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = tempfile::Builder::new().prefix("write-").tempfile_in(self.unfinished())?;
        file.write_all(bytes)?;
        self.sync(&file)?;
        self.rename(file, path)
    }

    fn rename(&self, file: NamedTempFile, path: &Path) -> io::Result<()> {
        self.ensure(parent(path))?;
        file.persist(path)?;
        self.sync_directory(parent(path))
    }

    /// Deletes a file, and the directories that become empty.
    fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            removed => removed?,
        }
        self.sync_directory(parent(path))?;
        let repositories = self.root.join(REPOSITORIES);
        let above = path.ancestors().skip(1).take_while(|above| above.starts_with(&repositories));
        for directory in above.filter(|above| **above != repositories) {
            if fs::remove_dir(directory).is_err() {
                break; // Something else is in it.
            }
        }
        Ok(())
    }

    /// Creates a directory and its parents.
    fn ensure(&self, directory: &Path) -> io::Result<()> {
        if directory.is_dir() {
            return Ok(());
        }
        self.ensure(parent(directory))?;
        fs::create_dir(directory)?;
        self.sync_directory(parent(directory))
    }

    /// Syncs a directory, which contains the name of a new file.
    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        match self.durability {
            Durability::PowerLoss if cfg!(unix) => File::open(directory)?.sync_all(),
            _ => Ok(()),
        }
    }
}

/// The sizes of the stored bytes by digest.
type Sizes = HashMap<Digest, u64>;

/// Returns the parent of a path below the root, which always has one.
fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// Returns the digest at the end of a path and its size, if the bytes are stored.
fn found(path: &Path, sizes: &Sizes) -> Option<(Digest, u64)> {
    sizes.get_key_value(&digest_of(path)?).map(|(digest, size)| (*digest, *size))
}

/// Parses the digest at the end of a path: `…/sha256/<hex>`.
fn digest_of(path: &Path) -> Option<Digest> {
    let hex = path.file_name()?.to_str()?;
    let algorithm = path.parent()?.file_name()?.to_str()?;
    format!("{algorithm}:{hex}").parse().ok()
}

/// Creates a directory and its parents.
fn make_directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|source| {
        let is_other = source.kind() == io::ErrorKind::AlreadyExists;
        broken(path)(if is_other { io::ErrorKind::NotADirectory.into() } else { source })
    })
}

/// Adds the path to an error.
fn broken(path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Storage { place: path.to_owned(), source }
}

fn subdirectories(path: &Path) -> Result<Vec<PathBuf>> {
    list(path, fs::FileType::is_dir)
}

fn files(path: &Path) -> Result<Vec<PathBuf>> {
    list(path, fs::FileType::is_file)
}

/// Returns the entries of a directory with a file type; symlinks are skipped. A missing directory is empty.
fn list(path: &Path, is: impl Fn(&fs::FileType) -> bool) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(broken(path))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(broken(path))?;
        if is(&entry.file_type().map_err(broken(&entry.path()))?) {
            found.push(entry.path());
        }
    }
    Ok(found)
}
