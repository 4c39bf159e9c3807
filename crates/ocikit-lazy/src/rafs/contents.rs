//! The contents of files of a Nydus image, and the image as a plain one.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path as DirectoryPath, PathBuf};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use ocikit_archive::layer::{Budget, Writer};
use ocikit_image::bridge::{CHUNK, Feed, blocking, produce, read_some};
use ocikit_image::files::{FileKind, Kind, Path, Reader};
use ocikit_image::{Body, Error as ImageError, Image, Layer, LayerOptions, NewLayer, Result as ImageResult};
use ocikit_spec::{Digest, History};

use crate::error::{Error, Result};
use crate::rafs::bootstrap::{BOOTSTRAP_PATH, is_nydus};
use crate::rafs::chunk::{Chunk, ChunkRef, Stored};
use crate::rafs::read::NydusBootstrap;
use crate::ranged::read_range;

/// The maximum size of a bootstrap in bytes.
const MAX_BOOTSTRAP_BYTES: u64 = 1 << 30;

/// The number of bytes, stored or uncompressed, from which following chunks are a request of their own.
const MAX_REQUEST_BYTES: u64 = 4 << 20;

/// A Nydus image that is read: its bootstrap, and the layers that are its blobs.
#[derive(Debug)]
pub struct NydusReader {
    pub(super) bootstrap: NydusBootstrap,
    /// The layer of each blob of the bootstrap.
    pub(super) layers: Vec<Layer>,
    directory: PathBuf,
}

impl NydusReader {
    /// Reads the bootstrap of an image; temporary files are made in the directory.
    ///
    /// # Errors
    ///
    /// [`ImageError::Unsupported`] if it is no Nydus image; [`ImageError::Broken`] if its bootstrap is damaged, or names
    /// a blob that is no layer of the image; those of reading the layer.
    pub async fn open(image: &Image, directory: impl Into<PathBuf>) -> ImageResult<NydusReader> {
        let missing = || ImageError::Unsupported {
            place: image.source().to_string(),
            what: format!("{} is not a Nydus image", image.digest()),
        };
        NydusReader::detect(image, directory).await?.ok_or_else(missing)
    }

    /// Reads the bootstrap of an image; `None` if it is no Nydus image. Its content decides: one that only has the annotation of
    /// a bootstrap on an ordinary layer is not.
    ///
    /// # Errors
    ///
    /// As [`NydusReader::open`], for an image that [has the format](Image::has_nydus_layers).
    pub async fn detect(image: &Image, directory: impl Into<PathBuf>) -> ImageResult<Option<NydusReader>> {
        if !is_nydus(image.manifest()) {
            return Ok(None);
        }
        match NydusReader::read(image, directory.into()).await {
            Ok(reader) => Ok(Some(reader)),
            Err(error @ (ImageError::NotFound { .. } | ImageError::Broken { .. })) => {
                match image.has_nydus_layers().await? {
                    true => Err(error),
                    // All layers are tars, so that they are what the image has.
                    false => Ok(None),
                }
            }
            Err(error) => Err(error),
        }
    }

    async fn read(image: &Image, directory: PathBuf) -> ImageResult<NydusReader> {
        let place = image.source().to_string();
        let layers: Vec<Layer> = image.layers().collect();
        let Some(last) = layers.last() else { return Err(ImageError::not_found(BOOTSTRAP_PATH, place)) };
        let file = bootstrap_file(last, &directory).await?;
        let broken = format!("bootstrap of {} in {place}", image.digest());
        let bootstrap = blocking(move || NydusBootstrap::read(&file).map_err(|error| damaged(&broken, error))).await?;
        let found = bootstrap.blob_ids().map(|id| {
            let layer = layers.iter().find(|layer| layer.digest().hex() == id);
            layer.cloned().ok_or_else(|| ImageError::not_found(format!("blob sha256:{id} of the bootstrap"), &place))
        });
        let found: Vec<Layer> = found.collect::<ImageResult<_>>()?;
        Ok(NydusReader { bootstrap, layers: found, directory })
    }

    /// Returns the bootstrap.
    pub fn bootstrap(&self) -> &NydusBootstrap {
        &self.bootstrap
    }

    /// Writes the contents of one file, for which only its chunks are read. Hard links are followed, symlinks are not.
    ///
    /// # Errors
    ///
    /// [`ImageError::NotFound`] if there is no regular file with this path; [`ImageError::Broken`] if a chunk is damaged;
    /// those of the source and the writer.
    pub async fn read_file(&self, path: &Path, writer: &mut (impl Write + Send)) -> ImageResult<()> {
        let missing = || ImageError::not_found(format!("file /{path}"), "the Nydus image");
        let entries = self.bootstrap.entries();
        let find = |path: &Path| entries.iter().position(|entry| entry.path == *path);
        let mut position = find(path).ok_or_else(missing)?;
        if let Kind::HardLink { target } = &entries[position].kind {
            position = find(target).ok_or_else(missing)?;
        }
        if !matches!(entries[position].kind, Kind::File(FileKind::Regular { .. })) {
            return Err(missing());
        }
        for request in self.requests(position) {
            for bytes in self.read_chunks(&request).await? {
                let failed = |error| ImageError::failed("write", format!("the bytes of /{path}"), error);
                writer.write_all(&bytes).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Returns the contents of the entry with this number; empty if it is not a regular file.
    pub(crate) fn contents(reader: &Arc<NydusReader>, entry: usize) -> Body {
        let size = match reader.bootstrap.entries().get(entry).map(|entry| &entry.kind) {
            Some(Kind::File(FileKind::Regular { size })) => *size,
            _ => 0,
        };
        let reader = reader.clone();
        let parts = stream::iter(reader.requests(entry)).then(move |request| {
            let reader = reader.clone();
            async move {
                let chunks = reader.read_chunks(&request).await?;
                Ok::<_, ImageError>(stream::iter(chunks).map(|chunk| Ok(bytes::Bytes::from(chunk))))
            }
        });
        Body::new(size, parts.try_flatten())
    }

    /// Returns the chunks of an entry, in lists of those that follow each other in a blob, of up to 4 MiB before and after
    /// decompression.
    fn requests(&self, entry: usize) -> Vec<Vec<ChunkRef>> {
        let mut requests: Vec<Vec<ChunkRef>> = Vec::new();
        let (mut next, mut length) = (None, 0);
        for at in self.bootstrap.chunks_of(entry) {
            let Some(chunk) = self.bootstrap.chunk(*at) else { continue };
            // All chunks of a request are in memory at the same time.
            let held = u64::from(chunk.stored.max(chunk.size));
            match requests.last_mut() {
                Some(request) if next == Some((at.blob, chunk.offset)) && length + held <= MAX_REQUEST_BYTES => {
                    request.push(*at);
                    length += held;
                }
                _ => {
                    requests.push(vec![*at]);
                    length = held;
                }
            }
            next = Some((at.blob, chunk.offset.saturating_add(chunk.stored.into())));
        }
        requests
    }

    /// Reads chunks that follow each other in a blob. Their digests take the place of that of the blob.
    async fn read_chunks(&self, request: &[ChunkRef]) -> ImageResult<Vec<Vec<u8>>> {
        let chunks: Vec<_> = request.iter().filter_map(|at| Some((at.blob, self.bootstrap.chunk(*at)?))).collect();
        let (Some((blob, first)), Some((_, last))) = (chunks.first(), chunks.last()) else { return Ok(Vec::new()) };
        let layer = &self.layers[usize::from(*blob)];
        let length = last.offset.saturating_add(last.stored.into()) - first.offset;
        let stored = read_range(layer, first.offset, length).await?;
        let unpack = |(blob, chunk): &(u16, &Chunk)| {
            let start = usize::try_from(chunk.offset - first.offset).unwrap_or(usize::MAX);
            let end = start.saturating_add(usize::try_from(chunk.stored).unwrap_or(usize::MAX));
            let stored = stored.get(start..end).unwrap_or_default();
            let bytes = self.bootstrap.unpack(usize::from(*blob), chunk, stored);
            bytes.map_err(|error| damaged(&format!("blob {}", layer.digest()), error))
        };
        chunks.iter().map(unpack).collect()
    }

    /// Reads every chunk that a file has, and returns the blobs with a damaged or missing one.
    ///
    /// # Errors
    ///
    /// Those of reading the blobs.
    pub(crate) async fn check_chunks(self) -> ImageResult<Vec<(Digest, String)>> {
        let (mut problems, budget, reader) = (Vec::new(), self.budget(), Arc::new(self));
        for (blob, layer) in reader.layers.iter().enumerate() {
            let file = stored_copy(layer, &reader.directory).await?;
            let (reader, budget) = (reader.clone(), budget.clone());
            let check = move || Ok::<_, ImageError>(reader.bootstrap.damaged_chunk(blob, &file, &budget));
            let problem = blocking(check).await?;
            problems.extend(problem.map(|problem| (layer.digest(), problem)));
        }
        Ok(problems)
    }

    /// Returns the number of bytes of all blobs.
    pub(crate) fn stored_bytes(&self) -> u64 {
        let mut seen = HashSet::new();
        let layers = self.layers.iter().filter(|layer| seen.insert(layer.digest()));
        layers.fold(0, |sum, layer| sum.saturating_add(layer.descriptor().size))
    }

    /// Returns the limits for what the blobs decompress to, since many files and chunks may name the same bytes.
    fn budget(&self) -> Budget {
        let budget = Budget::new();
        budget.layer(self.stored_bytes());
        budget
    }

    /// Copies the blobs to temporary files, and checks their digests.
    async fn blobs(&self) -> ImageResult<Vec<Arc<File>>> {
        let mut blobs: Vec<Arc<File>> = Vec::new();
        for layer in &self.layers {
            blobs.push(Arc::new(stored_copy(layer, &self.directory).await?));
        }
        Ok(blobs)
    }

    /// Returns all files as an uncompressed tar, whose entries are those of the bootstrap. The blobs are copied to temporary
    /// files first, and checked. The length of the body is not known.
    ///
    /// # Errors
    ///
    /// Those of reading the blobs; reading the body fails with [`ImageError::Broken`] if a chunk is damaged.
    pub(crate) async fn tar(self: &Arc<NydusReader>) -> ImageResult<Body> {
        let (blobs, budget, reader) = (self.blobs().await?, self.budget(), self.clone());
        Ok(produce(0, move |feed| {
            let mut failed = false;
            let sink = io::BufWriter::with_capacity(CHUNK, Fed { feed, failed: &mut failed });
            let written = reader.bootstrap.write(&blobs, &budget, sink);
            match written {
                // The consumer wants no more.
                Err(_) if failed => Ok(()),
                written => written.map_err(|error| ImageError::broken("a Nydus image", error)),
            }
        }))
    }

    /// Returns one layer with all files. The blobs are copied to temporary files first, and checked.
    ///
    /// # Errors
    ///
    /// Those of reading the blobs; [`ImageError::Broken`] if a chunk is damaged, and if the files are too large for the size of
    /// the blobs; [`ImageError::Failed`] if a temporary file cannot be written.
    pub async fn layer(self, options: &LayerOptions) -> ImageResult<NewLayer> {
        let (blobs, budget) = (self.blobs().await?, self.budget());
        let (options, bootstrap) = (options.clone(), self.bootstrap);
        NewLayer::write(options, move |writer| bootstrap.append_all(&blobs, &budget, writer)).await
    }
}

/// Returns a plain image with the files of a Nydus image: one layer, since a bootstrap has no layers. The history keeps its
/// steps, which create no layers then.
///
/// # Errors
///
/// As [`NydusReader::open`] and [`NydusReader::layer`].
pub async fn from_nydus(image: &Image, options: &LayerOptions) -> ImageResult<Image> {
    let directory = options.directory.clone().unwrap_or_else(|| DirectoryPath::new(".").to_owned());
    let layer = NydusReader::open(image, directory).await?.layer(options).await?;
    let step = History { created_by: Some("ocikit convert --to plain".to_owned()), ..History::default() };
    let mut edit = image.edit();
    for position in (0..image.manifest().layers().len()).rev() {
        edit.empty_layer(position);
    }
    edit.append_layer(layer.with_history(step));
    edit.finish().await
}

impl NydusBootstrap {
    /// Returns the uncompressed bytes of a chunk.
    pub(super) fn unpack(&self, blob: usize, chunk: &Chunk, stored: &[u8]) -> Result<Vec<u8>> {
        let info = self.blobs.get(blob).ok_or_else(|| Error::invalid("Nydus blob", "it is missing"))?;
        let damaged = |problem: &str| Error::invalid("Nydus blob", format_args!("chunk {} {problem}", chunk.index));
        let size = usize::try_from(chunk.size).unwrap_or(usize::MAX);
        let bytes = match (chunk.is_compressed, info.stored) {
            (false, _) | (true, Stored::None) => stored.to_vec(),
            (true, Stored::Zstd) => {
                zstd::bulk::decompress(stored, size).map_err(|_| damaged("cannot be decompressed"))?
            }
            (true, Stored::Lz4) => {
                lz4_flex::block::decompress(stored, size).map_err(|_| damaged("cannot be decompressed"))?
            }
            (true, Stored::Gzip) => {
                let mut bytes = Vec::new();
                let decoder = ocikit_archive::Decoder::with(ocikit_archive::Compression::Gzip, stored)?;
                let read = decoder.take(u64::from(chunk.size) + 1).read_to_end(&mut bytes);
                read.map_err(|_| damaged("cannot be decompressed"))?;
                bytes
            }
        };
        match bytes.len() == size && info.digester.digest(&bytes) == chunk.digest {
            true => Ok(bytes),
            false => Err(damaged("does not have the digest in the bootstrap")),
        }
    }

    /// Returns what is wrong with the first chunk of a blob that is damaged.
    fn damaged_chunk(&self, blob: usize, file: &File, budget: &Budget) -> Option<String> {
        self.chunks.get(blob)?.iter().find_map(|chunk| match stored_chunk(file, chunk, budget) {
            Ok(stored) => self.unpack(blob, chunk, &stored).err().map(|error| error.to_string()),
            Err(error) => Some(error.to_string()),
        })
    }

    /// Writes all entries as an uncompressed tar.
    fn write(&self, blobs: &[Arc<File>], budget: &Budget, sink: impl Write) -> ocikit_archive::Result<()> {
        let mut writer = Writer::new(&ocikit_archive::Compression::None.into(), sink)?;
        self.append_all(blobs, budget, &mut writer)?;
        let (mut sink, _) = writer.finish()?;
        Ok(sink.flush()?)
    }

    /// Writes all entries to a layer.
    fn append_all<W: Write>(
        &self,
        blobs: &[Arc<File>],
        budget: &Budget,
        writer: &mut Writer<W>,
    ) -> ocikit_archive::Result<()> {
        for (position, entry) in self.entries().iter().enumerate() {
            let chunks = self.chunks_of(position).iter();
            let contents = FileContents { bootstrap: self, chunks, blobs, budget, chunk: Vec::new(), read: 0 };
            writer.append(entry, contents)?;
        }
        Ok(())
    }
}

/// Passes bytes to a body.
struct Fed<'a> {
    feed: &'a mut Feed,
    /// Whether the body was dropped.
    failed: &'a mut bool,
}

impl Write for Fed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.feed.send(bytes.to_vec().into()) {
            true => Ok(bytes.len()),
            false => {
                *self.failed = true;
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The contents of a file, chunk by chunk.
struct FileContents<'a> {
    bootstrap: &'a NydusBootstrap,
    chunks: std::slice::Iter<'a, ChunkRef>,
    blobs: &'a [Arc<File>],
    budget: &'a Budget,
    chunk: Vec<u8>,
    read: usize,
}

impl Read for FileContents<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.chunk.len() {
            let Some(at) = self.chunks.next() else { return Ok(0) };
            let blob = usize::from(at.blob);
            let (Some(chunk), Some(file)) = (self.bootstrap.chunk(*at), self.blobs.get(blob)) else {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a chunk is missing"));
            };
            let stored = stored_chunk(file, chunk, self.budget)?;
            let bytes = self.bootstrap.unpack(blob, chunk, &stored);
            self.chunk = bytes.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            self.read = 0;
        }
        let length = buffer.len().min(self.chunk.len() - self.read);
        buffer[..length].copy_from_slice(&self.chunk[self.read..self.read + length]);
        self.read += length;
        Ok(length)
    }
}

/// Reads a chunk as it is stored. Its uncompressed size is taken from the budget.
fn stored_chunk(file: &File, chunk: &Chunk, budget: &Budget) -> io::Result<Vec<u8>> {
    budget.inflated(chunk.size.into())?;
    let mut bytes = vec![0; usize::try_from(chunk.stored).map_err(io::Error::other)?];
    let mut filled = 0;
    while filled < bytes.len() {
        match read_some(file, &mut bytes[filled..], chunk.offset + filled as u64)? {
            0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the blob is shorter than its chunks")),
            read => filled += read,
        }
    }
    Ok(bytes)
}

fn damaged(place: &str, error: Error) -> ImageError {
    match error {
        Error::Io(error) => ImageError::failed("read", place, error),
        error => ImageError::broken(place, error),
    }
}

/// Copies a layer to a temporary file; its digest is checked.
async fn stored_copy(layer: &Layer, directory: &DirectoryPath) -> ImageResult<File> {
    let failed = |error| ImageError::failed("write a temporary file in", directory.display(), error);
    let mut file = tempfile::tempfile_in(directory).map_err(failed)?;
    let mut body = layer.open().await?;
    while let Some(chunk) = body.next().await {
        let chunk = chunk?;
        file = blocking(move || match file.write_all(&chunk) {
            Ok(()) => Ok(file),
            Err(error) => Err(ImageError::failed("write", "a temporary file", error)),
        })
        .await?;
    }
    Ok(file)
}

/// Copies the bootstrap of a layer to a temporary file.
async fn bootstrap_file(layer: &Layer, directory: &DirectoryPath) -> ImageResult<File> {
    let directory = directory.to_owned();
    let found = layer.decode(ocikit_image::DiffId::Skip, move |tar| {
        let mut reader = Reader::new(tar);
        while let Some(entry) = reader.next_entry()? {
            if entry.path.as_bytes() == BOOTSTRAP_PATH.as_bytes() {
                let mut file = tempfile::tempfile_in(&directory)?;
                let copied = io::copy(&mut reader.take(MAX_BOOTSTRAP_BYTES + 1), &mut file)?;
                return Ok((copied <= MAX_BOOTSTRAP_BYTES).then_some(file));
            }
        }
        Ok(None)
    });
    let missing = || ImageError::not_found(BOOTSTRAP_PATH, format!("layer {}", layer.digest()));
    found.await?.0.ok_or_else(missing)
}
