use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use ocikit_archive::{Compression, Header, TarIndex, padding};
use ocikit_image::bridge::{blocking, consume, file_body, read_some};
use ocikit_image::walk::{Found, children};
use ocikit_image::{Body, ByteRange, Error, Name, Naming, Put, Result, Sink, Source, SourceExt};
use ocikit_spec::{Content, Descriptor, Digest, Index};

use crate::docker::{DockerList, MANIFEST_JSON, manifest_json, manifest_json_with};
use crate::edit::{self, EditStep, METADATA, Tail};
use crate::file::{Presence, failure_of, write_at, write_entry};
use crate::names;
use crate::roots::{self, INDEX_JSON, OCI_LAYOUT, OCI_LAYOUT_FILE, Subjects};
use crate::staged::Staged;
use crate::tar::{Tar, cannot_open};

/// An OCI archive that is edited in place.
///
/// Documents that are put and roots that are published become part of the archive when it is finished, atomically and
/// without moving a layer: the cost does not depend on the size of the archive. If the process is killed, the archive
/// has either the old or the new contents. The file is locked against other edits until it is finished or dropped.
///
/// An archive without a proper end (two zero blocks) is the exception: it is copied with an end, and the copy replaces it.
///
/// This file reads and writes; the module `edit` computes which bytes go where.
#[derive(Debug)]
pub struct TarEdit {
    tar: Tar,
    /// The file, open for writing.
    file: Arc<File>,
    /// The original file, locked until the edit is finished.
    locked: File,
    /// The file that replaces it, if the archive has no proper end and was copied.
    copy: Mutex<Option<Staged>>,
    tail: Tail,
    docker: Option<DockerList>,
    docker_if_missing: DockerList,
    state: Mutex<EditState>,
    subjects: Subjects,
    presence: Presence,
}

#[derive(Debug)]
struct EditState {
    roots: Index,
    /// Documents that were put, which are part of every tail from now on.
    documents: BTreeMap<Digest, Bytes>,
    /// Blobs that were written after the end, with their position.
    grown: BTreeMap<Digest, (u64, u64)>,
    /// The position of the next such blob.
    end: u64,
    /// Whether a damaged blob was written again, which changes the archive even if its roots stay.
    repaired: bool,
    finished: bool,
}

impl TarEdit {
    /// Opens an archive for an edit.
    ///
    /// # Errors
    ///
    /// As [`Tar::open`]; [`Error::Failed`] if the file is not writable.
    pub async fn open(path: impl Into<PathBuf>) -> Result<TarEdit> {
        let path = path.into();
        blocking(move || TarEdit::begin(&path)).await
    }

    /// Selects whether to write a `manifest.json` for `docker load` on finish. By default, an archive keeps the one
    /// that it has.
    pub fn for_docker(mut self, list: DockerList) -> TarEdit {
        self.docker = Some(list);
        self
    }

    /// Selects when a blob that exists is written again.
    #[must_use]
    pub fn with_presence(mut self, presence: Presence) -> TarEdit {
        self.presence = presence;
        self
    }

    /// Selects the `manifest.json` to write for an archive that has none and changes. By default none is added.
    pub fn for_docker_if_missing(mut self, list: DockerList) -> TarEdit {
        self.docker_if_missing = list;
        self
    }

    /// Removes an image from the list, when the edit is finished, and returns the removed entries. Blobs are kept,
    /// because other images may share them.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] and [`Error::Ambiguous`] if the name matches no image or several.
    pub async fn remove(&self, name: &Name) -> Result<Vec<Descriptor>> {
        let roots = self.state().roots.clone();
        let (roots, removed) = roots::remove(&roots, self, name).await?;
        self.state().roots = roots;
        Ok(removed)
    }

    fn begin(path: &Path) -> Result<TarEdit> {
        let failed = |operation| move |error| Error::failed(operation, path.display(), error);
        let locked = lock(path)?;
        refuse_compressed(&locked, path)?;
        let mut tar = Tar::of(path.to_owned(), locked.try_clone().map_err(failed("open"))?)?;
        let (tail, copy, writable) = match Tail::find(tar.index()) {
            Some(tail) => (tail, None, locked.try_clone().map_err(failed("open"))?),
            None => {
                let copy = with_an_end(&locked, tar.index(), path).map_err(failed("copy"))?;
                let writable = copy.file().try_clone().map_err(failed("open"))?;
                tar = Tar::of(path.to_owned(), copy.file().try_clone().map_err(failed("open"))?)?;
                let tail = Tail::find(tar.index()).ok_or_else(|| Error::broken(path.display(), "it has no end"))?;
                (tail, Some(copy), writable)
            }
        };
        let state = EditState {
            roots: tar.roots().clone(),
            documents: BTreeMap::new(),
            grown: BTreeMap::new(),
            end: edit::growth(tar.index()),
            repaired: false,
            finished: false,
        };
        let (file, copy, state) = (Arc::new(writable), Mutex::new(copy), Mutex::new(state));
        Ok(TarEdit {
            tar,
            file,
            locked,
            copy,
            tail,
            docker: None,
            docker_if_missing: DockerList::None,
            state,
            subjects: Subjects::default(),
            presence: Presence::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, EditState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether an existing blob is the right one, as far as that is checked.
    async fn is_intact(&self, blob: &Descriptor) -> Result<bool> {
        let is_new = {
            let state = self.state();
            state.documents.contains_key(&blob.digest) || state.grown.contains_key(&blob.digest)
        };
        let span = self.tar.index().file(&blob.digest.blob_path()).filter(|_| !is_new);
        let Some(span) = span else { return Ok(true) };
        let (file, blob, presence, failed) = (self.file.clone(), blob.clone(), self.presence, failure_of(self, "read"));
        blocking(move || presence.is_at(&*file, span, &blob).map_err(failed)).await
    }

    /// Writes a blob after the end, where no reader looks before the edit is committed.
    async fn grow(&self, descriptor: &Descriptor, from: &dyn Source) -> Result<()> {
        let body = from.open(descriptor).await?;
        let name = names::spelled(self.tar.index(), &descriptor.digest.blob_path());
        let header = Header { mode: 0o444, ..Header::file(&name, descriptor.size) }.to_bytes();
        let size = descriptor.size;
        let start = {
            let mut state = self.state();
            let start = state.end;
            state.end = start + header.len() as u64 + size + padding(size);
            start
        };
        let data = start + header.len() as u64;
        let (file, failed) = (self.file.clone(), failure_of(self, "write to"));
        let written = consume(body, move |chunks| write_entry(&file, start, &header, chunks, failed));
        if let Err(error) = written.await {
            let (file, failed) = (self.file.clone(), failure_of(self, "write to"));
            let hole = edit::padding_header(start, data + size + padding(size));
            blocking(move || write_at(&file, &hole, start).map_err(failed)).await?;
            return Err(error);
        }
        self.state().grown.insert(descriptor.digest, (data, size));
        Ok(())
    }

    /// Returns the tail to replace and the files that replace it: the metadata, and every reachable document that is
    /// not before the tail.
    async fn edition(&self) -> Result<(Tail, Vec<(String, Bytes)>)> {
        let roots = self.state().roots.clone();
        let mut tail = self.tail;
        let mut reachable = self.reachable(&roots, tail).await?;
        if reachable.blob_in_tail {
            // Another program appended layers after the documents. They are kept, together with everything before them.
            tail = Tail::at_end(self.tar.index());
            reachable = self.reachable(&roots, tail).await?;
        }
        let documents = reachable.documents.into_iter();
        let spelled = |digest: Digest| names::spelled(self.tar.index(), &digest.blob_path());
        let mut files: Vec<_> = documents.map(|(digest, bytes)| (spelled(digest), bytes)).collect();
        for name in METADATA {
            let old = self.tar.entry(name)?;
            let new = match name {
                INDEX_JSON => Some(roots.bytes().clone()),
                OCI_LAYOUT_FILE => old.or(Some(Bytes::from_static(OCI_LAYOUT.as_bytes()))),
                MANIFEST_JSON => match (&self.docker, old) {
                    (Some(list), _) => manifest_json(&roots, self, list).await?.map(Bytes::from),
                    (None, None) => manifest_json(&roots, self, &self.docker_if_missing).await?.map(Bytes::from),
                    (None, Some(old)) => self.docker_list_for(&roots, old).await?,
                },
                _ => old,
            };
            files.extend(new.map(|bytes| (names::spelled(self.tar.index(), name), bytes)));
        }
        Ok((tail, files))
    }

    /// Returns the `manifest.json` for the new roots: the old one if it fits, so that its names and order stay.
    async fn docker_list_for(&self, roots: &Index, old: Bytes) -> Result<Option<Bytes>> {
        let Some(images) = self.tar.loadable().await? else { return Ok(Some(old)) };
        let names = |roots: &Index| {
            roots.manifests().iter().filter_map(roots::full_name_of).map(str::to_owned).collect::<BTreeSet<_>>()
        };
        let configs = images.configs();
        let new = manifest_json_with(roots, self, &DockerList::default(), &configs).await?;
        let has_no_more = new.as_ref().is_none_or(|(_, listed)| listed.is_subset(&configs));
        let fits = has_no_more && names(roots) == names(self.tar.roots());
        if fits && images.disagreement(roots, self).await?.is_none() {
            return Ok(Some(old));
        }
        Ok(new.map(|(text, _)| text.into()))
    }

    /// Returns whether the `manifest.json` is unchanged.
    async fn keeps_docker_list(&self) -> Result<bool> {
        let Some(list) = &self.docker else { return Ok(true) };
        let roots = self.state().roots.clone();
        Ok(manifest_json(&roots, self, list).await?.map(Bytes::from) == self.tar.entry(MANIFEST_JSON)?)
    }

    async fn reachable(&self, roots: &Index, tail: Tail) -> Result<Reachable> {
        let mut found = Reachable::default();
        let span = |digest: &Digest| self.tar.index().file(&digest.blob_path());
        let is_in_tail = |digest: &Digest| span(digest).is_some_and(|span| tail.holds(span.offset));
        let mut walk = roots::walk_below(roots, self, |_| true)?;
        while let Some(node) = walk.next().await {
            let (Found::Content(content), digest) = (node.found, node.path.digest) else { continue };
            let bytes = match content {
                Ok(Content::Document(document)) => {
                    for (edge, child) in children(&document) {
                        match document.may_be_document(child) {
                            true => _ = walk.add(&node.path, edge, child)?,
                            false => found.blob_in_tail |= is_in_tail(&child.digest),
                        }
                    }
                    document.bytes().clone()
                }
                Ok(Content::Blob) => {
                    found.blob_in_tail |= is_in_tail(&digest);
                    continue;
                }
                Ok(Content::Schema1) | Err(Error::Document { .. }) => self.read(&node.descriptor).await?,
                // A missing document is not an error here: an index that was copied in part can be edited.
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(error),
            };
            if is_in_tail(&digest) || span(&digest).is_none() || self.state().documents.contains_key(&digest) {
                found.documents.insert(digest, bytes);
            }
        }
        Ok(found)
    }

    /// Makes the edit visible.
    async fn commit(&self, grown: Option<Range<u64>>) -> Result<()> {
        let (tail, files) = self.edition().await?;
        let roots = self.state().roots.clone();
        let steps = edit::splice(self.tar.index(), tail, &files, grown);
        let (file, path) = (self.file.clone(), self.tar.path().to_owned());
        let copy = self.copy.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (failed, length) = (failure_of(self, "write to"), self.tar.index().end().file);
        blocking(move || {
            apply(&file, steps, length).map_err(&failed)?;
            if let Some(copy) = copy {
                copy.commit().map_err(&failed)?;
            }
            let written = Tar::of(path.clone(), file.try_clone().map_err(&failed)?)?;
            match written.roots().text() == roots.text() {
                true => Ok(()),
                false => Err(Error::broken(path.display(), "it does not contain what was just written")),
            }
        })
        .await
    }

    /// Releases the lock. Closing is not enough, because the file was duplicated for reading.
    fn unlock(&self) {
        // If this fails, the lock ends with the last duplicate.
        let _ = self.locked.unlock();
    }

    /// Removes what was written and is not visible.
    fn undo(&self) {
        let length = self.tar.index().end().file;
        // A blob that could not be written completely has grown the file as well.
        let is_longer = || self.file.metadata().is_ok_and(|metadata| metadata.len() > length);
        if self.copy.lock().unwrap_or_else(PoisonError::into_inner).is_none() && is_longer() {
            // Bytes after the end are harmless if this fails.
            let _ = self.file.set_len(length);
        }
    }
}

/// The reachable documents that the new tail has to contain.
#[derive(Debug, Default)]
struct Reachable {
    documents: BTreeMap<Digest, Bytes>,
    /// Whether a layer, config or other blob is in the tail.
    blob_in_tail: bool,
}

/// Rejects a compressed archive, in which no offset can be written or copied.
pub(crate) fn refuse_compressed(file: &File, path: &Path) -> Result<()> {
    let mut start = [0; Compression::MAGIC_BYTES];
    let read = read_some(file, &mut start, 0).map_err(|error| Error::failed("read", path.display(), error))?;
    if Compression::detect(&start[..read]) == Compression::None {
        return Ok(());
    }
    let what = "a compressed archive cannot be changed in place; write a new archive".to_owned();
    Err(Error::Unsupported { place: path.display().to_string(), what })
}

/// Opens the file for writing and waits for the lock.
pub(crate) fn lock(path: &Path) -> Result<File> {
    loop {
        let failed = |error| cannot_open(path, error);
        // Opening a device may have side effects.
        match std::fs::metadata(path).map_err(failed)? {
            found if found.is_dir() => {
                return Err(Error::broken(path.display(), "it is a directory, not an archive"));
            }
            found if !found.is_file() => return Err(Error::pipe(path.display())),
            _ => {}
        }
        let file = File::options().read(true).write(true).open(path).map_err(failed)?;
        match file.lock() {
            // Some file systems have no locks; edits are then not protected against each other.
            Err(error) if error.kind() != io::ErrorKind::Unsupported => {
                return Err(Error::failed("lock", path.display(), error));
            }
            _ => {}
        }
        // The previous holder of the lock may have replaced the file.
        if is_at(&file, path).map_err(|error| Error::failed("open", path.display(), error))? {
            return Ok(file);
        }
    }
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let (here, there) = (file.metadata()?, std::fs::metadata(path)?);
    Ok((here.dev(), here.ino()) == (there.dev(), there.ino()))
}

#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> io::Result<bool> {
    Ok(true)
}

/// Copies an archive and adds a proper end.
fn with_an_end(file: &File, index: &TarIndex, path: &Path) -> io::Result<Staged> {
    use std::io::{Read, Seek, Write};
    let staged = Staged::create(path)?;
    let mut source = file.try_clone()?;
    source.rewind()?;
    let copied = io::copy(&mut source.take(index.end().start), &mut staged.file())?;
    let zeros = padding(copied) as usize;
    staged.file().write_all(&ocikit_archive::END[..zeros])?;
    staged.file().write_all(&ocikit_archive::END)?;
    if let Ok(metadata) = file.metadata() {
        staged.file().set_permissions(metadata.permissions())?;
    }
    Ok(staged)
}

/// Executes the steps. A failure before the first flush to the disk is rolled back.
fn apply(file: &File, steps: Vec<EditStep>, length: u64) -> io::Result<()> {
    let mut visible = false;
    for step in steps {
        let done = match step {
            EditStep::Write { at, bytes } => write_at(file, &bytes, at),
            EditStep::Sync => file.sync_data().inspect(|()| visible = true),
            EditStep::Cut { at } => file.set_len(at),
        };
        if let Err(error) = done {
            if !visible && file.metadata().is_ok_and(|metadata| metadata.len() > length) {
                // Bytes after the end are harmless if this fails.
                let _ = file.set_len(length);
            }
            return Err(error);
        }
    }
    Ok(())
}

impl fmt::Display for TarEdit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tar.fmt(f)
    }
}

impl Drop for TarEdit {
    fn drop(&mut self) {
        if !self.state().finished {
            self.undo();
        }
        self.unlock();
    }
}

#[async_trait]
impl Source for TarEdit {
    async fn resolve(&self, name: &Name) -> Result<Descriptor> {
        let roots = self.state().roots.clone();
        roots::resolve(&roots, self, name).await
    }

    async fn open_unverified(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        let (document, grown) = {
            let state = self.state();
            let digest = &descriptor.digest;
            (state.documents.get(digest).cloned(), state.grown.get(digest).copied())
        };
        if let Some(bytes) = document {
            return Ok(range.of(&bytes).into());
        }
        match grown {
            Some((offset, size)) => Ok(file_body(self.file.clone(), offset, size, range, self)),
            None => self.tar.open_unverified(descriptor, range).await,
        }
    }

    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        let digest = &descriptor.digest;
        let new = {
            let state = self.state();
            state.documents.contains_key(digest) || state.grown.contains_key(digest)
        };
        Ok(new || self.tar.has(descriptor).await?)
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        let roots = self.state().roots.clone();
        self.subjects.about(subject, &roots, self, self.tar.unlisted()).await
    }
}

#[async_trait]
impl Sink for TarEdit {
    async fn put(&self, descriptor: &Descriptor, from: &dyn Source) -> Result<Put> {
        let exists = self.has(descriptor).await?;
        if exists && self.is_intact(descriptor).await? {
            return Ok(Put::Present);
        }
        if descriptor.media_type.is_document() {
            let bytes = from.read(descriptor).await?;
            self.state().documents.insert(descriptor.digest, bytes);
        } else {
            self.grow(descriptor, from).await?;
        }
        self.state().repaired |= exists;
        Ok(Put::Copied)
    }

    async fn publish(&self, root: &Descriptor, naming: &Naming) -> Result<()> {
        let mut state = self.state();
        state.roots = roots::publish(&state.roots, root, naming).map_err(|source| Error::broken(self, source))?;
        Ok(())
    }

    async fn finish(&self) -> Result<()> {
        let same_list = self.keeps_docker_list().await?;
        let (unchanged, grown) = {
            let mut state = self.state();
            let start = edit::growth(self.tar.index());
            let unchanged = state.roots.text() == self.tar.roots().text() && same_list && !state.repaired;
            if std::mem::replace(&mut state.finished, true) {
                return Ok(());
            }
            (unchanged, (state.end > start).then_some(start..state.end))
        };
        if unchanged {
            self.undo();
        } else {
            self.commit(grown).await?;
        }
        self.unlock();
        Ok(())
    }
}
