//! The contents of files of a Nydus image, and the image as a plain one.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path as DirectoryPath, PathBuf};
use std::sync::Arc;

use futures::StreamExt;
use ocikit_archive::layer::Writer;
use ocikit_image::bridge::{blocking, read_some};
use ocikit_image::files::{Entry, FileKind, Kind, Path, Reader};
use ocikit_image::{Error as ImageError, Image, Layer, LayerOptions, NewLayer, Result as ImageResult};
use ocikit_spec::History;

use crate::error::{Error, Result};
use crate::rafs::bootstrap::{BOOTSTRAP_PATH, is_nydus};
use crate::rafs::chunk::{Chunk, Stored};
use crate::rafs::read::NydusBootstrap;

/// The maximum size of a bootstrap in bytes.
const MAX_BOOTSTRAP_BYTES: u64 = 1 << 30;

/// A Nydus image that is read: its bootstrap, and the layers that are its blobs.
#[derive(Debug)]
pub struct NydusReader {
    bootstrap: NydusBootstrap,
    /// The layer of each blob of the bootstrap.
    layers: Vec<Layer>,
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
        let directory = directory.into();
        let place = image.source().to_string();
        let layers: Vec<Layer> = image.layers().collect();
        let Some(last) = layers.last().filter(|_| is_nydus(image.manifest())) else {
            let what = format!("{} is not a Nydus image", image.digest());
            return Err(ImageError::Unsupported { place, what });
        };
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

    pub(super) fn into_parts(self) -> (NydusBootstrap, Vec<Layer>) {
        (self.bootstrap, self.layers)
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
        for at in self.bootstrap.chunks_of(position) {
            let chunk = self.bootstrap.chunk(*at).ok_or_else(missing)?;
            let layer = &self.layers[usize::from(at.blob)];
            let range = ocikit_image::ByteRange { offset: chunk.offset, length: Some(u64::from(chunk.stored)) };
            let body = layer.source().open_unverified(layer.descriptor(), range).await?;
            // The digest of the chunk takes the place of that of the blob.
            let stored = body.bytes().await?;
            let bytes = self.bootstrap.unpack(usize::from(at.blob), chunk, &stored);
            let bytes = bytes.map_err(|error| damaged(&format!("blob {}", layer.digest()), error))?;
            let failed = |error| ImageError::failed("write", format!("the bytes of /{path}"), error);
            writer.write_all(&bytes).map_err(failed)?;
        }
        Ok(())
    }

    /// Returns one layer with all files. The blobs are copied to temporary files first, and checked.
    ///
    /// # Errors
    ///
    /// Those of reading the blobs; [`ImageError::Broken`] if a chunk is damaged; [`ImageError::Failed`] if a temporary file
    /// cannot be written.
    pub async fn layer(self, options: &LayerOptions) -> ImageResult<NewLayer> {
        let mut blobs: Vec<Arc<File>> = Vec::new();
        for layer in &self.layers {
            blobs.push(Arc::new(stored_copy(layer, &self.directory).await?));
        }
        let (options, bootstrap) = (options.clone(), self.bootstrap);
        NewLayer::write(options, move |writer| {
            for (position, entry) in bootstrap.entries().iter().enumerate() {
                bootstrap.append(position, entry, &blobs, writer)?;
            }
            Ok(())
        })
        .await
    }
}

/// Returns a plain image with the files of a Nydus image: one layer, since a bootstrap has no layers.
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
        edit.remove_layer(position);
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

    /// Writes an entry to a layer.
    fn append(
        &self,
        position: usize,
        entry: &Entry,
        blobs: &[Arc<File>],
        writer: &mut Writer<File>,
    ) -> ocikit_archive::Result<()> {
        let contents = FileContents {
            bootstrap: self,
            chunks: self.chunks_of(position).iter(),
            blobs,
            chunk: Vec::new(),
            read: 0,
        };
        writer.append(entry, contents)
    }
}

/// The contents of a file, chunk by chunk.
struct FileContents<'a> {
    bootstrap: &'a NydusBootstrap,
    chunks: std::slice::Iter<'a, crate::rafs::chunk::ChunkRef>,
    blobs: &'a [Arc<File>],
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
            let stored = exactly(file, chunk.offset, chunk.stored)?;
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

fn exactly(file: &File, offset: u64, length: u32) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    let mut filled = 0;
    while filled < bytes.len() {
        match read_some(file, &mut bytes[filled..], offset + filled as u64)? {
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
