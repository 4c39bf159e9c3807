use std::collections::HashMap;
use std::fmt;
use std::future::ready;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use ocikit_archive::{Compression, END, Encoder, Header, padding};
use ocikit_image::bridge::{blocking, consume, file_body};
use ocikit_image::{Body, ByteRange, Error, Name, Naming, Put, Result, Sink, Source, SourceExt};
use ocikit_spec::{Algorithm, Descriptor, Digest, Index};
use tokio::sync::watch;

use crate::docker::{DockerList, MANIFEST_JSON, manifest_json};
use crate::edit::{lay_out, padding_header};
use crate::file::{failure_of, write_at, write_entry};
use crate::output::OutputFile;
use crate::roots::{self, INDEX_JSON, OCI_LAYOUT, OCI_LAYOUT_FILE, Subjects};
use crate::staged::Staged;

/// How an archive is written.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct TarOptions {
    /// The modification time of its entries, in seconds since 1970.
    pub modified: u64,
    /// Whether it gets a `manifest.json` for `docker load`.
    pub docker: DockerList,
    /// The compression of the whole file; layers are usually compressed already.
    pub compression: Compression,
}

ocikit_spec::setters! {
    TarOptions {
        modified: u64,
        docker: DockerList,
        compression: Compression,
    }
}

/// A new OCI archive: a file that gets its name when it is finished, or a stream. A compressed file is written like a
/// stream.
///
/// Blobs are stored in the order in which they were [expected](Sink::expect), so the same images give the same bytes
/// however many blobs are written in parallel. In a stream each blob waits for those before it.
#[derive(Debug)]
pub struct TarWriter {
    output: Output,
    options: TarOptions,
    state: Mutex<WriterState>,
    subjects: Subjects,
}

#[derive(Debug)]
enum Output {
    /// `None` after it got its name.
    File { path: PathBuf, staged: Mutex<Option<Arc<Staged>>> },
    Stream {
        name: String,
        /// `None` after it was completed.
        writer: Arc<Mutex<Option<Encoder<OutputFile>>>>,
        written: watch::Sender<u64>,
        /// The path of the file, if it is one.
        path: Option<PathBuf>,
    },
}

#[derive(Debug)]
struct WriterState {
    slots: HashMap<Digest, Arc<Slot>>,
    /// The algorithms whose directories were written.
    directories: Vec<Algorithm>,
    /// The position of the next slot.
    end: u64,
    roots: Index,
    /// Manifests and indexes, which are needed again when the archive is finished.
    documents: HashMap<Digest, Bytes>,
}

/// The position of a blob in the archive.
#[derive(Debug)]
struct Slot {
    /// The header of the blob, after those of its directories if it is the first of its algorithm.
    header: Vec<u8>,
    start: u64,
    size: u64,
    done: AtomicBool,
    /// Held by the writer of the blob.
    writing: tokio::sync::Mutex<()>,
}

impl Slot {
    fn data(&self) -> u64 {
        self.start + self.header.len() as u64
    }

    fn end(&self) -> u64 {
        self.data() + self.size + padding(self.size)
    }
}

/// The maximum size of a blob in bytes. The sum of a million of them still fits into an offset.
const MAX_BLOB_BYTES: u64 = 1 << 42;

/// The position of a stream after a failure: nothing more can be written.
const FAILED_POSITION: u64 = u64::MAX;

impl Output {
    fn stream(name: String, writer: Option<Encoder<OutputFile>>, path: Option<PathBuf>) -> Output {
        Output::Stream { name, writer: Arc::new(Mutex::new(writer)), written: watch::Sender::new(0), path }
    }
}

impl TarWriter {
    /// Creates an archive with this name; an existing file is kept until the new one is finished. A device or pipe is
    /// written to directly: see [`OutputFile`].
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if the file cannot be created.
    pub async fn create(path: impl Into<PathBuf>, options: TarOptions) -> Result<TarWriter> {
        let path = path.into();
        let file = blocking({
            let path = path.clone();
            move || OutputFile::create(&path).map_err(|error| Error::failed("create", path.display(), error))
        });
        let (file, name) = (file.await?, path.display().to_string());
        let output = match file.into_staged_if(options.compression == Compression::None) {
            Ok(staged) => Output::File { path, staged: Mutex::new(Some(Arc::new(staged))) },
            Err(file) => {
                let encoder = Encoder::new(options.compression, file);
                let encoder = encoder.map_err(|error| Error::failed("write to", &name, error))?;
                Output::stream(name, Some(encoder), Some(path))
            }
        };
        Ok(TarWriter::new(output, options))
    }

    /// Creates an archive that is written to a stream; the name is for messages.
    pub fn stream(name: impl Into<String>, writer: impl Write + Send + 'static, options: TarOptions) -> TarWriter {
        // Without compression, this does not fail.
        let encoder = Encoder::new(Compression::None, OutputFile::direct(Box::new(writer))).ok();
        TarWriter::new(Output::stream(name.into(), encoder, None), options)
    }

    fn new(output: Output, options: TarOptions) -> TarWriter {
        let state = WriterState {
            slots: HashMap::new(),
            directories: Vec::new(),
            end: 0,
            roots: Index::of(&[]),
            documents: HashMap::new(),
        };
        TarWriter { output, options, state: Mutex::new(state), subjects: Subjects::default() }
    }

    /// Returns the path of the archive; `None` for a stream without one.
    pub fn path(&self) -> Option<&Path> {
        match &self.output {
            Output::File { path, .. } => Some(path),
            Output::Stream { path, .. } => path.as_deref(),
        }
    }

    fn state(&self) -> MutexGuard<'_, WriterState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the slot of a blob, which is added at the end if it has none.
    fn slot(&self, state: &mut WriterState, blob: &Descriptor) -> Result<Arc<Slot>> {
        if let Some(slot) = state.slots.get(&blob.digest) {
            return Ok(slot.clone());
        }
        if blob.size > MAX_BLOB_BYTES || state.end > u64::MAX >> 2 {
            let what = format!("{} is too large for an archive: {} bytes", blob.digest, blob.size);
            return Err(Error::Unsupported { place: self.to_string(), what });
        }
        let algorithm = blob.digest.algorithm();
        let header = |header: Header<'_>| Header { modified: self.options.modified, ..header }.to_bytes();
        let mut bytes = Vec::new();
        if !state.directories.contains(&algorithm) {
            if state.directories.is_empty() {
                bytes.extend(header(Header::directory("blobs/")));
            }
            bytes.extend(header(Header::directory(&format!("blobs/{}/", algorithm.name()))));
            state.directories.push(algorithm);
        }
        bytes.extend(header(Header { mode: 0o444, ..Header::file(&blob.digest.blob_path(), blob.size) }));
        let slot = Slot {
            header: bytes,
            start: state.end,
            size: blob.size,
            done: AtomicBool::new(false),
            writing: tokio::sync::Mutex::new(()),
        };
        let slot = Arc::new(slot);
        state.end = slot.end();
        state.slots.insert(blob.digest, slot.clone());
        Ok(slot)
    }

    /// Returns the temporary file; an error after it was finished.
    fn staged(&self, staged: &Mutex<Option<Arc<Staged>>>) -> Result<Arc<Staged>> {
        let staged = staged.lock().unwrap_or_else(PoisonError::into_inner).clone();
        staged.ok_or_else(|| failure_of(self, "write to")(finished_already()))
    }

    async fn write(&self, slot: &Arc<Slot>, body: Body) -> Result<()> {
        let (slot, failed) = (slot.clone(), failure_of(self, "write to"));
        match &self.output {
            Output::File { staged, .. } => {
                let staged = self.staged(staged)?;
                consume(body, move |chunks| write_entry(staged.file(), slot.start, &slot.header, chunks, failed)).await
            }
            Output::Stream { writer, written, .. } => {
                let writer = writer.clone();
                let end = slot.end();
                let result = consume(body, move |chunks| {
                    let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
                    let writer = writer.as_mut().ok_or_else(|| failed(finished_already()))?;
                    writer.write_all(&slot.header).map_err(&failed)?;
                    for chunk in chunks {
                        writer.write_all(&chunk?).map_err(&failed)?;
                    }
                    writer.write_all(&END[..padding(slot.size) as usize]).map_err(&failed)
                })
                .await;
                written.send_replace(if result.is_ok() { end } else { FAILED_POSITION });
                result
            }
        }
    }

    /// Waits until the stream has reached this slot.
    async fn turn(&self, slot: &Slot) -> Result<()> {
        if let Output::Stream { written, .. } = &self.output {
            let mut written = written.subscribe();
            let at = written.wait_for(|at| *at >= slot.start).await.map(|at| *at);
            if at.is_ok_and(|at| at != slot.start) {
                return Err(failure_of(self, "write to")(io::Error::other("an earlier blob could not be written")));
            }
        }
        Ok(())
    }

    /// Returns what follows the blobs: the files of a layout, and the end.
    async fn trailer(&self) -> Result<Vec<u8>> {
        let roots = self.state().roots.clone();
        let list = manifest_json(&roots, self, &self.options.docker).await?;
        let mut files = vec![(INDEX_JSON, roots.bytes().clone())];
        files.extend(list.map(|text| (MANIFEST_JSON, text.into())));
        files.push((OCI_LAYOUT_FILE, Bytes::from_static(OCI_LAYOUT.as_bytes())));
        let mut bytes = lay_out(&files, self.options.modified);
        bytes.extend(END);
        Ok(bytes)
    }
}

impl fmt::Display for TarWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.output {
            Output::File { path, .. } => path.display().fmt(f),
            Output::Stream { name, .. } => f.write_str(name),
        }
    }
}

fn finished_already() -> io::Error {
    io::Error::other("the archive is finished already")
}

#[async_trait]
impl Source for TarWriter {
    async fn resolve(&self, name: &Name) -> Result<Descriptor> {
        let roots = self.state().roots.clone();
        roots::resolve(&roots, self, name).await
    }

    async fn open_unverified(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        let (document, slot) = {
            let state = self.state();
            let digest = &descriptor.digest;
            (state.documents.get(digest).cloned(), state.slots.get(digest).cloned())
        };
        if let Some(bytes) = document {
            return Ok(range.of(&bytes).into());
        }
        let slot = slot.filter(|slot| slot.done.load(Ordering::Acquire));
        let slot = slot.ok_or_else(|| Error::not_found(descriptor.digest, self))?;
        match &self.output {
            Output::File { staged, .. } => {
                let file = Arc::new(self.staged(staged)?.file().try_clone().map_err(failure_of(self, "read"))?);
                Ok(file_body(file, slot.data(), slot.size, range, self))
            }
            Output::Stream { name, .. } => {
                let what = "a stream cannot be read back".to_owned();
                Err(Error::Unsupported { place: name.clone(), what })
            }
        }
    }

    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        Ok(self.state().slots.get(&descriptor.digest).is_some_and(|slot| slot.done.load(Ordering::Acquire)))
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        let roots = self.state().roots.clone();
        // Referrers in a new archive are listed, or not published yet.
        self.subjects.about(subject, &roots, self, ready(Ok(Vec::new()))).await
    }
}

#[async_trait]
impl Sink for TarWriter {
    async fn expect(&self, descriptors: &[Descriptor]) -> Result<()> {
        let state = &mut self.state();
        for descriptor in descriptors {
            // A blob beyond the limit is rejected later, by `put`, if it is ever put.
            if descriptor.size <= MAX_BLOB_BYTES {
                self.slot(state, descriptor)?;
            }
        }
        Ok(())
    }

    async fn put(&self, descriptor: &Descriptor, from: &dyn Source) -> Result<Put> {
        if descriptor.size > MAX_BLOB_BYTES {
            // The size is a claim of the descriptor: opening the blob reports a missing one or another size first.
            from.open(descriptor).await?;
        }
        let slot = self.slot(&mut self.state(), descriptor)?;
        let _writing = slot.writing.lock().await;
        if slot.done.load(Ordering::Acquire) {
            return Ok(Put::Present);
        }
        self.turn(&slot).await?;
        if descriptor.media_type.is_document() {
            let bytes = from.read(descriptor).await?;
            self.write(&slot, bytes.clone().into()).await?;
            self.state().documents.insert(descriptor.digest, bytes);
        } else {
            self.write(&slot, from.open(descriptor).await?).await?;
        }
        slot.done.store(true, Ordering::Release);
        Ok(Put::Copied)
    }

    async fn publish(&self, root: &Descriptor, naming: &Naming) -> Result<()> {
        let mut state = self.state();
        state.roots = roots::publish(&state.roots, root, naming).map_err(|source| Error::broken(self, source))?;
        Ok(())
    }

    async fn finish(&self) -> Result<()> {
        let trailer = self.trailer().await?;
        let (end, undone) = {
            let state = self.state();
            let undone = state.slots.values().filter(|slot| !slot.done.load(Ordering::Acquire));
            (state.end, undone.cloned().collect::<Vec<_>>())
        };
        let failed = failure_of(self, "write to");
        match &self.output {
            Output::File { staged, .. } => {
                let Some(staged) = staged.lock().unwrap_or_else(PoisonError::into_inner).take() else { return Ok(()) };
                blocking(move || {
                    // A slot that is still zero would end the archive for readers.
                    for slot in undone {
                        let header = padding_header(slot.start, slot.end());
                        write_at(staged.file(), &header, slot.start).map_err(&failed)?;
                    }
                    write_at(staged.file(), &trailer, end).map_err(&failed)?;
                    let staged = Arc::into_inner(staged)
                        .ok_or_else(|| failed(io::Error::other("a blob is still being written")))?;
                    staged.commit().map_err(&failed)
                })
                .await
            }
            Output::Stream { writer, written, .. } => {
                if *written.borrow() != end {
                    return Err(failed(io::Error::other("an announced blob is missing")));
                }
                let writer = writer.clone();
                blocking(move || {
                    let writer = writer.lock().unwrap_or_else(PoisonError::into_inner).take();
                    let Some(mut writer) = writer else { return Ok(()) };
                    writer.write_all(&trailer).and_then(|()| writer.finish()?.commit()).map_err(failed)
                })
                .await
            }
        }
    }
}
