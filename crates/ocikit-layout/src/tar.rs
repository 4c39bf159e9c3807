use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use ocikit_archive::TarIndex;
use ocikit_image::bridge::{blocking, file_body};
use ocikit_image::{Body, ByteRange, Error, Name, Need, Result, Source};
use ocikit_spec::{Descriptor, Digest, Index, MAX_ROOTS_BYTES};

use crate::docker::MANIFEST_JSON;
use crate::file::read_small;
use crate::names::Names;
use crate::roots::{self, INDEX_JSON, Subjects};
use crate::unlisted::{self, Unlisted};

/// An OCI layout in a tar, which is read in place: its headers once, its blobs at random.
#[derive(Debug, Clone)]
pub struct Tar {
    path: PathBuf,
    file: Arc<File>,
    index: Arc<TarIndex>,
    roots: Index,
    /// The digest of the list of roots, which is an image itself if it lists platforms.
    own: Digest,
    subjects: Arc<Subjects>,
}

impl Tar {
    /// Opens an archive.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if the file cannot be opened; [`Error::Broken`] if it is not a tar, is truncated, or holds no
    /// OCI layout; [`Error::Unmet`] if it is a docker archive, which [`open`](crate::open) reads.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Tar> {
        let path = path.into();
        blocking(move || {
            let file = File::open(&path).map_err(|error| cannot_open(&path, error))?;
            Tar::of(path, file)
        })
        .await
    }

    /// Reads the headers of an open file.
    pub(crate) fn of(path: PathBuf, file: File) -> Result<Tar> {
        let index = read_index(&path, &file)?;
        match entry(&file, &index, INDEX_JSON, &path)? {
            Some(text) => Tar::with(path, file, index, text),
            None if index.file(MANIFEST_JSON).is_some() => {
                let what = "a docker archive, without an `index.json`, cannot be changed in place".to_owned();
                Err(Error::unmet(path.display(), what, Need::OciArchive))
            }
            None => Err(Error::broken(path.display(), NO_INDEX_JSON)),
        }
    }

    /// Creates an archive from headers and a list of roots that were read before.
    pub(crate) fn with(path: PathBuf, file: File, index: TarIndex, roots: Bytes) -> Result<Tar> {
        let roots = Index::parse(roots).map_err(|source| Error::broken(path.display(), source))?;
        Ok(Tar {
            path,
            file: Arc::new(file),
            index: Arc::new(index),
            own: roots.digest(),
            roots,
            subjects: Arc::default(),
        })
    }

    /// Returns the path of the archive.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the list of roots.
    pub fn roots(&self) -> &Index {
        &self.roots
    }

    /// Returns manifests with a subject that may not be listed.
    pub(crate) async fn unlisted(&self) -> Result<Vec<Unlisted>> {
        let tar = self.clone();
        blocking(move || {
            let entries = tar.index.entries().iter().enumerate().filter(|(at, _)| tar.index.counts(*at));
            let blobs = entries.filter_map(|(_, entry)| {
                let name = entry.name.as_deref()?;
                Some((Digest::from_blob_path(name)?, tar.index.file(name)?.size))
            });
            unlisted::find(&tar.to_string(), blobs, |digest, length| match tar.index.file(&digest.blob_path()) {
                Some(span) => read_small(&*tar.file, span.offset, length.min(span.size)),
                None => Ok(Bytes::new()),
            })
        })
        .await
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn index(&self) -> &TarIndex {
        &self.index
    }

    /// Reads a small entry that is not a blob.
    pub(crate) fn entry(&self, name: &str) -> Result<Option<Bytes>> {
        entry(&self.file, &self.index, name, &self.path)
    }
}

/// The error for a tar that is not an OCI archive.
pub(crate) const NO_INDEX_JSON: &str = "it has no `index.json`, so it is not an OCI archive";

pub(crate) fn read_index(path: &Path, file: &File) -> Result<TarIndex> {
    let index = TarIndex::read(file).map_err(|error| match error {
        ocikit_archive::Error::Io(error) => Error::failed("read", path.display(), error),
        error => Error::broken(path.display(), error),
    })?;
    let mut names = Names::default();
    for entry in index.entries() {
        names.add(entry).map_err(|problem| Error::broken(path.display(), problem))?;
    }
    Ok(index)
}

pub(crate) fn cannot_open(path: &Path, error: io::Error) -> Error {
    Error::failed("open", path.display(), error)
}

pub(crate) fn entry(file: &File, index: &TarIndex, name: &str, path: &Path) -> Result<Option<Bytes>> {
    let Some(span) = index.file(name) else { return Ok(None) };
    if span.size > MAX_ROOTS_BYTES {
        return Err(Error::broken(path.display(), format!("its `{name}` has {} bytes", span.size)));
    }
    let bytes = read_small(file, span.offset, span.size);
    bytes.map(Some).map_err(|error| Error::failed("read", path.display(), error))
}

impl fmt::Display for Tar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

#[async_trait]
impl Source for Tar {
    async fn resolve(&self, name: &Name) -> Result<Descriptor> {
        roots::resolve(&self.roots, self, name).await
    }

    async fn open_unverified(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        let Some(span) = self.index.file(&descriptor.digest.blob_path()) else {
            return roots::own(&self.roots, &self.own, descriptor, range, self);
        };
        Ok(file_body(self.file.clone(), span.offset, span.size, range, self))
    }

    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        Ok(descriptor.digest == self.own || self.index.file(&descriptor.digest.blob_path()).is_some())
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.subjects.about(subject, &self.roots, self, self.unlisted()).await
    }
}
