use std::io;
use std::path::{Path, PathBuf};

/// What a scratch directory is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScratchKind {
    /// The Dockerfile of a build.
    Build,
    /// A BuildKit daemon.
    BuildKit,
    /// The next state of a build cache, beside the last one.
    Cache,
    /// A build context that was read from a stream.
    Context,
    /// The files that a build exports, beside their target.
    Export,
    /// An image on its way to registries.
    Publish,
    /// Secrets of a build.
    Secrets,
    /// Files of a demonstration.
    Tour,
}

impl ScratchKind {
    const ALL: [ScratchKind; 8] = [
        ScratchKind::Build,
        ScratchKind::BuildKit,
        ScratchKind::Cache,
        ScratchKind::Context,
        ScratchKind::Export,
        ScratchKind::Publish,
        ScratchKind::Secrets,
        ScratchKind::Tour,
    ];

    /// Returns the beginning of the names of its directories.
    pub fn prefix(self) -> &'static str {
        match self {
            ScratchKind::Build => "ocikit-build-",
            ScratchKind::BuildKit => "ocikit-buildkit-",
            ScratchKind::Cache => ".ocikit-cache-",
            ScratchKind::Context => "ocikit-context-",
            ScratchKind::Export => ".ocikit-export-",
            ScratchKind::Publish => "ocikit-publish-",
            ScratchKind::Secrets => "ocikit-secrets-",
            ScratchKind::Tour => "ocikit-tour-",
        }
    }
}

/// A directory for temporary files that only this user can read. It is removed with everything in it when it is dropped.
///
/// It is locked while it is used. If the process is killed, the next one that makes a scratch directory of any kind in the same
/// place removes it: only directories of the same user, without a lock and without a mount below them.
///
/// ```
/// use ocikit_image::{ScratchDirectory, ScratchKind};
///
/// let scratch = ScratchDirectory::create(&ScratchDirectory::default_parent(), ScratchKind::Build)?;
/// std::fs::write(scratch.path().join("file"), "text")?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct ScratchDirectory {
    path: PathBuf,
    #[cfg(unix)]
    _directory: ocikit_archive::unpack::TemporaryDirectory,
    #[cfg(not(unix))]
    _directory: tempfile::TempDir,
}

impl ScratchDirectory {
    /// Creates a directory in a parent directory, and removes those that killed processes have left there.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    #[cfg(unix)]
    pub fn create(parent: &Path, kind: ScratchKind) -> io::Result<ScratchDirectory> {
        let directory = ocikit_archive::unpack::TemporaryDirectory::create_among(
            parent,
            kind.prefix(),
            &ScratchKind::ALL.map(ScratchKind::prefix),
        );
        let directory = directory.map_err(io::Error::from)?;
        Ok(ScratchDirectory { path: directory.path(), _directory: directory })
    }

    /// Creates a directory in a parent directory.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    #[cfg(not(unix))]
    pub fn create(parent: &Path, kind: ScratchKind) -> io::Result<ScratchDirectory> {
        let directory = tempfile::Builder::new().prefix(kind.prefix()).tempdir_in(parent)?;
        Ok(ScratchDirectory { path: directory.path().to_owned(), _directory: directory })
    }

    /// Returns the directory for temporary files of this machine, such as `/tmp`.
    pub fn default_parent() -> PathBuf {
        tempfile::env::temp_dir()
    }

    /// Returns the path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
