use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use ocikit_archive::Span;
use ocikit_image::bridge::{blocking, consume, file_body};
use ocikit_image::{Body, ByteRange, Error, Name, Naming, Put, Result, Sink, Source, SourceExt};
use ocikit_spec::{Descriptor, Digest, Index, MAX_ROOTS_BYTES, Tag};

use crate::file::{Presence, failure_of, read_small};
use crate::folder::Folder;
use crate::listing::list_blobs;
use crate::roots::{self, BLOBS, INDEX_JSON, OCI_LAYOUT, OCI_LAYOUT_FILE, Subjects};
use crate::siblings::Siblings;
use crate::staged::{Staged, write_in};
use crate::unlisted::{self, Unlisted};

/// An OCI layout in a directory.
///
/// Blobs get their name after they were checked, so an interrupted copy leaves complete blobs and the old `index.json`.
/// Changes to `index.json` are serialized between processes by a lock on the `oci-layout` file.
#[derive(Debug)]
pub struct Dir {
    path: PathBuf,
    /// The directory of the blobs, usually in the layout.
    blobs: PathBuf,
    /// Shared with all writers, so that the directory is not removed before the last of them ends.
    tentative: Arc<Tentative>,
    /// Held from the first blob on, so that garbage collection does not remove blobs that are not listed yet.
    writing: Mutex<Option<File>>,
    subjects: Subjects,
    presence: Presence,
    /// Other layouts, whose blobs are linked.
    siblings: Option<Arc<Siblings>>,
    /// The lock on the list of roots, from [`Dir::exclusive`] to [`Sink::finish`].
    held: Mutex<Option<File>>,
}

/// Removes a directory that was created here, unless something in it was published.
#[derive(Debug)]
struct Tentative {
    path: PathBuf,
    /// The directories above it that were created here too, the lowest first.
    above: Vec<PathBuf>,
    goes: AtomicBool,
}

impl Drop for Tentative {
    fn drop(&mut self) {
        // Another process may have published something in it meanwhile.
        if self.goes.load(Ordering::Relaxed) && !self.path.join(OCI_LAYOUT_FILE).exists() {
            // The layout was never visible, so a failure is harmless.
            let _ = fs::remove_dir_all(&self.path);
            // This fails for one that is not empty.
            let _ = self.above.iter().try_for_each(fs::remove_dir);
        }
    }
}

impl Dir {
    /// Opens a layout for reading and adding images.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if the directory does not exist, [`Error::Broken`] if it is not a layout.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Dir> {
        let dir = Dir::new(path.into(), None);
        dir.roots().await?;
        Ok(dir)
    }

    /// Opens a layout for adding images. If there is none, it is created when an image is published.
    ///
    /// # Errors
    ///
    /// [`Error::Broken`] if the directory exists with other contents, [`Error::Failed`] if it cannot be created.
    pub async fn create(path: impl Into<PathBuf>) -> Result<Dir> {
        let path = path.into();
        let shown = path.display().to_string();
        let failed = move |error| Error::failed("create", &shown, error);
        let made = blocking({
            let path = path.clone();
            move || {
                if path.join(OCI_LAYOUT_FILE).exists() {
                    return Ok(None);
                }
                let mut entries = match fs::read_dir(&path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        let is_missing = |above: &&Path| !above.as_os_str().is_empty() && !above.exists();
                        let above = path.ancestors().skip(1).take_while(is_missing).map(Path::to_owned).collect();
                        fs::create_dir_all(&path).map_err(failed)?;
                        return Ok(Some(above));
                    }
                    entries => entries.map_err(failed)?,
                };
                // An empty directory, or one that an interrupted attempt has started to fill.
                match entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == BLOBS)) {
                    true => Ok(None),
                    false => Err(Error::broken(path.display(), "it has other files in it and is not an OCI layout")),
                }
            }
        });
        let made = made.await?;
        Ok(Dir::new(path, made))
    }

    /// `made` is the directories above it that were created, if it was created.
    fn new(path: PathBuf, made: Option<Vec<PathBuf>>) -> Dir {
        let goes = AtomicBool::new(made.is_some());
        let tentative = Tentative { path: path.clone(), above: made.unwrap_or_default(), goes };
        Dir {
            blobs: path.join(BLOBS),
            path,
            tentative: Arc::new(tentative),
            writing: Mutex::new(None),
            subjects: Subjects::default(),
            presence: Presence::default(),
            siblings: None,
            held: Mutex::new(None),
        }
    }

    /// Selects when a blob that exists is written again.
    #[must_use]
    pub fn with_presence(self, presence: Presence) -> Dir {
        Dir { presence, ..self }
    }

    /// Locks the list of roots until the sink is finished or dropped, so that a change that depends on it is not lost
    /// to a parallel one. Other writers wait.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if the layout cannot be locked.
    pub async fn exclusive(self) -> Result<Dir> {
        let (path, failed) = (self.path.clone(), failure_of(&self, "lock"));
        let lock = blocking(move || lock(&path).map_err(failed)).await?;
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(lock);
        Ok(self)
    }

    fn is_exclusive(&self) -> bool {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Returns the layout with its blobs in a directory that several layouts share. A blob is stored there as
    /// `ALGORITHM/HEX`, as skopeo does.
    pub fn sharing(self, blobs: impl Into<PathBuf>) -> Dir {
        Dir { blobs: blobs.into(), ..self }
    }

    /// Returns the layout with the blobs that other layouts have linked to theirs.
    pub fn linking(self, siblings: Arc<Siblings>) -> Dir {
        Dir { siblings: Some(siblings), ..self }
    }

    /// Returns whether the layout lacks one of the files that the first published image writes.
    async fn is_unwritten(&self) -> Result<bool> {
        let files = [OCI_LAYOUT_FILE, INDEX_JSON].map(|name| self.path.join(name));
        blocking(move || Ok(files.iter().any(|file| !file.exists()))).await
    }

    /// Returns the path of the layout.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the list of roots.
    ///
    /// # Errors
    ///
    /// As for [`Dir::open`].
    pub async fn roots(&self) -> Result<Index> {
        let path = self.path.clone();
        blocking(move || read_roots(&path)).await
    }

    /// Takes a shared lock that tells garbage collection that blobs are being written, until this is dropped.
    async fn announce(&self) -> Result<()> {
        if self.writing.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            return Ok(());
        }
        let (place, failed) = (self.blob_place(), failure_of(self, "write to"));
        let lock = blocking(move || {
            let blobs = place.made().map_err(failed)?;
            // If the directory or file system does not support locks, garbage collection cannot be prevented.
            Ok(blobs.lockable().and_then(|blobs| blobs.lock_shared().map(|()| blobs)).ok())
        });
        let lock = lock.await?;
        *self.writing.lock().unwrap_or_else(PoisonError::into_inner) = lock;
        Ok(())
    }

    /// Returns whether its blobs may belong to other layouts as well.
    pub(crate) fn is_shared(&self) -> bool {
        self.blobs != self.path.join(BLOBS)
    }

    /// Returns manifests with a subject that may not be listed. Blobs in a shared directory may belong to other layouts
    /// and are not read.
    pub(crate) async fn unlisted(&self) -> Result<Vec<Unlisted>> {
        if self.is_shared() {
            return Ok(Vec::new());
        }
        let (path, place, failed) = (self.path.clone(), self.to_string(), failure_of(self, "read"));
        blocking(move || {
            let blobs = list_blobs(&path).map_err(failed)?.into_iter();
            let blobs = blobs.filter_map(|(name, size)| Some((Digest::from_blob_path(&name)?, size)));
            unlisted::find(&place, blobs, |digest, length| {
                // A file that was removed or replaced meanwhile is not a referrer.
                let Ok(Some((file, size))) = open_file(&path.join(digest.blob_path())) else { return Ok(Bytes::new()) };
                read_small(&file, 0, length.min(size))
            })
        })
        .await
    }

    /// Returns the directory that blobs are written to.
    fn blob_place(&self) -> BlobPlace {
        match self.is_shared() {
            true => BlobPlace::Shared(self.blobs.clone()),
            false => BlobPlace::Own(self.path.clone()),
        }
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.algorithm().name()).join(digest.hex())
    }

    /// Removes an image from the list and returns the removed entries. Blobs are kept, because other images may share
    /// them.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] and [`Error::Ambiguous`] if the name matches no image or several.
    pub async fn remove(&self, name: &Name) -> Result<Vec<Descriptor>> {
        let (path, failed) = (self.path.clone(), failure_of(self, "write to"));
        let is_held = self.is_exclusive();
        let locked = blocking(move || (!is_held).then(|| lock(&path)).transpose().map_err(failed)).await?;
        let (roots, removed) = roots::remove(&self.roots().await?, self, name).await?;
        let (path, failed) = (self.path.clone(), failure_of(self, "write to"));
        blocking(move || Folder::open(&path).and_then(|at| write_in(at, INDEX_JSON, roots.bytes())).map_err(failed))
            .await?;
        drop(locked);
        Ok(removed)
    }
}

impl fmt::Display for Dir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

#[async_trait]
impl Source for Dir {
    async fn resolve(&self, name: &Name) -> Result<Descriptor> {
        roots::resolve(&self.roots().await?, self, name).await
    }

    async fn open_unverified(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        let (path, place, digest) = (self.blob_path(&descriptor.digest), self.to_string(), descriptor.digest);
        let opened = blocking(move || match open_file(&path) {
            Ok(Some((file, size))) => Ok((file, size)),
            Ok(None) => Err(Error::not_found(digest, place)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::not_found(digest, place)),
            Err(error) => Err(Error::failed("open", place, error)),
        })
        .await;
        match opened {
            Ok((file, size)) => Ok(file_body(Arc::new(file), 0, size, range, self)),
            // A list of roots that lists platforms is an image itself.
            Err(error) if error.is_not_found() && descriptor.media_type.is_index() => {
                let roots = self.roots().await?;
                roots::own(&roots, &roots.digest(), descriptor, range, self)
            }
            Err(error) => Err(error),
        }
    }

    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        let (path, failed) = (self.blob_path(&descriptor.digest), failure_of(self, "read"));
        blocking(move || match fs::metadata(path) {
            Ok(metadata) => Ok(metadata.is_file()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed(error)),
        })
        .await
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.subjects.about(subject, &self.roots().await?, self, self.unlisted()).await
    }
}

#[async_trait]
impl Sink for Dir {
    async fn put(&self, descriptor: &Descriptor, from: &dyn Source) -> Result<Put> {
        self.announce().await?;
        let siblings = self.siblings.clone();
        let _turn = match &siblings {
            Some(siblings) => Some(siblings.turn(&descriptor.digest).await),
            None => None,
        };
        // A blob with a wrong size was left by a killed writer and is written again.
        let (place, digest, blob, presence) = (self.blob_place(), descriptor.digest, descriptor.clone(), self.presence);
        let failed = failure_of(self, "write to");
        let others = siblings.clone();
        let found = blocking(move || {
            let folder = place.made().and_then(|blobs| blobs.made(digest.algorithm().name())).map_err(&failed)?;
            let is_present = || match folder.regular(digest.hex())? {
                Some(found) if found.size == blob.size => {
                    let span = Span { offset: 0, size: found.size };
                    presence.is_at(&folder.file(digest.hex())?, span, &blob)
                }
                _ => Ok(false),
            };
            if is_present().map_err(&failed)? {
                return Ok(Err(Put::Present));
            }
            if others.is_some_and(|others| others.link(&digest, &folder)) {
                if is_present().map_err(&failed)? {
                    return Ok(Err(Put::Mounted));
                }
                // The other layout has a damaged one.
                folder.remove(digest.hex()).map_err(&failed)?;
            }
            Ok(Ok(folder))
        });
        let folder = match found.await? {
            Ok(folder) => folder,
            Err(put) => return Ok(put),
        };
        let failed = failure_of(self, "write to");
        let tentative = self.tentative.clone();
        let staged = consume(from.open(descriptor).await?, move |chunks| {
            let _here_until_done = tentative;
            let staged = Staged::create_in(folder, &digest.hex()).map_err(&failed)?;
            for chunk in chunks {
                staged.file().write_all(&chunk?).map_err(&failed)?;
            }
            Ok(staged)
        });
        let (staged, failed) = (staged.await?, failure_of(self, "write to"));
        blocking(move || staged.commit().map_err(failed)).await?;
        if let Some(siblings) = siblings {
            siblings.add(digest, &self.path);
        }
        Ok(Put::Copied)
    }

    async fn publish(&self, root: &Descriptor, naming: &Naming) -> Result<()> {
        let (path, root, naming) = (self.path.clone(), root.clone(), naming.clone());
        let (place, failed, is_held) = (self.to_string(), failure_of(self, "write to"), self.is_exclusive());
        blocking(move || {
            let open = || Folder::open(&path);
            let new = !open().and_then(|layout| layout.has(OCI_LAYOUT_FILE)).map_err(&failed)?;
            if new {
                open().and_then(|at| write_in(at, OCI_LAYOUT_FILE, OCI_LAYOUT.as_bytes())).map_err(&failed)?;
            }
            let _lock = (!is_held).then(|| lock(&path)).transpose().map_err(&failed)?;
            // A process that was killed may have written the first of the two files only, and another one the second.
            let is_unwritten = !open().and_then(|layout| layout.has(INDEX_JSON)).map_err(&failed)?;
            let old = if is_unwritten { Index::of(&[]) } else { read_roots(&path)? };
            let roots = roots::publish(&old, &root, &naming).map_err(|source| Error::broken(place, source))?;
            if is_unwritten || roots.text() != old.text() {
                open().and_then(|at| write_in(at, INDEX_JSON, roots.bytes())).map_err(&failed)?;
            }
            Ok(())
        })
        .await?;
        self.tentative.goes.store(false, Ordering::Relaxed);
        Ok(())
    }

    async fn finish(&self) -> Result<()> {
        drop(self.held.lock().unwrap_or_else(PoisonError::into_inner).take());
        Ok(())
    }

    async fn tagged(&self, tag: &Tag) -> Result<Option<Descriptor>> {
        // A layout that is not written yet has no tags.
        if self.is_unwritten().await? {
            return Ok(None);
        }
        match self.resolve(&Name::Tag(tag.clone())).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The directory that the blobs of a layout are written to.
enum BlobPlace {
    /// In the layout, which is untrusted: no symlinks are followed.
    Own(PathBuf),
    /// In a directory that the user named.
    Shared(PathBuf),
}

impl BlobPlace {
    /// Returns the directory, which is created if it does not exist.
    fn made(&self) -> io::Result<Folder> {
        match self {
            BlobPlace::Own(layout) => {
                fs::create_dir_all(layout)?;
                Folder::open(layout)?.made(BLOBS)
            }
            BlobPlace::Shared(blobs) => {
                fs::create_dir_all(blobs)?;
                Folder::open(blobs)
            }
        }
    }
}

/// Locks the list of roots against changes by other processes until this is dropped.
pub(crate) fn lock(path: &Path) -> io::Result<File> {
    let lock = Folder::open(path)?.file(OCI_LAYOUT_FILE)?;
    lock.lock()?;
    Ok(lock)
}

/// Opens a file and returns its size; `None` if it is not a regular file, because opening a pipe would wait for its
/// writer.
fn open_file(path: &Path) -> io::Result<Option<(File, u64)>> {
    if !fs::metadata(path)?.is_file() {
        return Ok(None);
    }
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    Ok(Some((file, size)))
}

fn read_roots(path: &Path) -> Result<Index> {
    let place = path.display();
    if !path.is_dir() {
        let error = fs::metadata(path).err().unwrap_or_else(|| io::ErrorKind::NotADirectory.into());
        return Err(Error::failed("open", place, error));
    }
    let marker = path.join(OCI_LAYOUT_FILE);
    if !marker.is_file() {
        return Err(Error::broken(place, "it has no `oci-layout` file, so it is not an OCI layout"));
    }
    let opened = open_file(&path.join(INDEX_JSON)).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::broken(place.to_string(), "it has no `index.json`"),
        _ => Error::failed("read", place.to_string(), error),
    })?;
    let (index, size) = opened.ok_or_else(|| Error::broken(place.to_string(), "its `index.json` is not a file"))?;
    if size > MAX_ROOTS_BYTES {
        return Err(Error::broken(place, format!("its `index.json` has {size} bytes")));
    }
    let bytes = read_small(&index, 0, size).map_err(|error| Error::failed("read", place.to_string(), error))?;
    Index::parse(bytes).map_err(|source| Error::broken(place, source))
}
