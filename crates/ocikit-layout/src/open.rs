use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ocikit_archive::{Compression, Decoder, Kind, TarStream};
use ocikit_image::bridge::blocking;
use ocikit_image::{Error, Result, Sink, Source};
use ocikit_spec::{Digest, Index};

use crate::docker::MANIFEST_JSON;
use crate::pipe::unreadable;
use crate::roots::{INDEX_JSON, OCI_LAYOUT_FILE};
use crate::scratch::Scratch;
use crate::tar::{NO_INDEX_JSON, cannot_open, entry, read_index};
use crate::{Dir, DockerArchive, Pipe, Tar};

/// Opens a layout or archive for reading. Its contents decide which it is.
///
/// # Errors
///
/// [`Error::Failed`] if the path does not exist, [`Error::Broken`] if it holds no images.
pub async fn open(path: impl Into<PathBuf>, scratch: &Scratch) -> Result<Arc<dyn Source>> {
    let path = path.into();
    let metadata = blocking({
        let path = path.clone();
        move || fs::metadata(&path).map_err(|error| cannot_open(&path, error))
    });
    match metadata.await? {
        metadata if metadata.is_dir() => Ok(Arc::new(Dir::open(path).await?)),
        metadata if metadata.is_file() => open_archive(path, scratch).await,
        _ => Err(Error::pipe(path.display())),
    }
}

/// Opens an archive of either format. One that has both lists is read as an OCI archive, which has more information. A
/// compressed archive is decompressed to a temporary file.
///
/// # Errors
///
/// [`Error::Failed`] if the file cannot be opened or decompressed; [`Error::Broken`] if it is not a tar, is truncated,
/// decompresses to far more than images do, or holds no images.
pub async fn open_archive(path: impl Into<PathBuf>, scratch: &Scratch) -> Result<Arc<dyn Source>> {
    Ok(archive_at(&path.into(), scratch).await?.into_source())
}

/// Opens an archive by the `manifest.json` of `docker save`, even if it is an OCI archive as well.
///
/// # Errors
///
/// As [`open_archive`]; [`Error::Broken`] if it has no such list.
pub async fn open_docker_archive(path: impl Into<PathBuf>, scratch: &Scratch) -> Result<Arc<dyn Source>> {
    let (path, scratch) = (path.into(), scratch.clone());
    blocking(move || docker_archive(path.clone(), plain(&path, open_regular(&path)?, &scratch)?, &scratch)).await
}

fn docker_archive(path: PathBuf, file: File, scratch: &Scratch) -> Result<Arc<dyn Source>> {
    let index = read_index(&path, &file)?;
    match entry(&file, &index, MANIFEST_JSON, &path)? {
        Some(list) => {
            let roots = entry(&file, &index, INDEX_JSON, &path)?;
            // The listed images are read even if the layout is invalid.
            let roots = roots.and_then(|roots| Index::parse(roots).ok());
            Ok(Arc::new(DockerArchive::of(path, file, &index, &list, roots.as_ref(), scratch)?))
        }
        None => Err(Error::broken(path.display(), "it has no `manifest.json`, so it is not a docker archive")),
    }
}

/// Returns whether an archive has a `manifest.json` for `docker load`, possibly in addition to that of its layout.
///
/// # Errors
///
/// As [`open_archive`].
pub async fn has_docker_list(path: impl Into<PathBuf>, scratch: &Scratch) -> Result<bool> {
    let (path, scratch) = (path.into(), scratch.clone());
    blocking(move || {
        let file = plain(&path, open_regular(&path)?, &scratch)?;
        Ok(read_index(&path, &file)?.file(MANIFEST_JSON).is_some())
    })
    .await
}

/// Opens an archive, which must be a regular file: opening a pipe would wait for its writer.
fn open_regular(path: &Path) -> Result<File> {
    let failed = |error| cannot_open(path, error);
    match fs::metadata(path).map_err(failed)? {
        metadata if metadata.is_file() => File::open(path).map_err(failed),
        metadata if metadata.is_dir() => Err(cannot_open(path, io::ErrorKind::IsADirectory.into())),
        _ => Err(Error::pipe(path.display())),
    }
}

/// An archive of either format.
pub(crate) enum Archive {
    Oci(Tar),
    Docker(DockerArchive),
}

impl Archive {
    fn into_source(self) -> Arc<dyn Source> {
        match self {
            Archive::Oci(tar) => Arc::new(tar),
            Archive::Docker(archive) => Arc::new(archive),
        }
    }
}

pub(crate) async fn archive_at(path: &Path, scratch: &Scratch) -> Result<Archive> {
    let (path, scratch) = (path.to_owned(), scratch.clone());
    blocking(move || archive(&path, plain(&path, open_regular(&path)?, &scratch)?, &scratch)).await
}

/// Opens an archive that is read from a pipe, compressed or not, for a copy to this sink.
///
/// The layers of an OCI archive go to the sink while they arrive, see [`Pipe::drain`]. A docker archive, whose list may
/// be its last entry, is first read to its end into a temporary file.
///
/// # Errors
///
/// As [`open_archive`] and [`Pipe::drain`].
pub async fn receive(
    name: impl Into<String>,
    reader: impl Read + Send + 'static,
    to: &Arc<dyn Sink>,
    scratch: &Scratch,
) -> Result<Received> {
    let (name, scratch) = (name.into(), scratch.clone());
    let begun = {
        let name = name.clone();
        blocking(move || {
            let counter = Arc::new(AtomicU64::new(0));
            let counted = Counted { reader, counter: counter.clone() };
            let failed = |error| unreadable(&name, error);
            let mut decoder = Decoder::new(counted).map_err(failed)?;
            let mut start = Vec::new();
            decoder.by_ref().take(LOOK_AHEAD_BYTES).read_to_end(&mut start).map_err(failed)?;
            let is_docker = begins_like_docker(&start);
            let mut whole = Decoder::with(Compression::None, io::Cursor::new(start).chain(decoder)).map_err(failed)?;
            if !is_docker {
                return Ok(Begun::Oci(whole));
            }
            let path = Path::new(&name);
            let file = scratch.unpack(&name, path, &mut whole, &|| counter.load(Ordering::Relaxed))?;
            Ok(Begun::Opened(archive(path, file, &scratch)?.into_source()))
        })
        .await?
    };
    match begun {
        Begun::Oci(whole) => {
            let pipe = Pipe::drain(name, whole, to).await?;
            Ok(Received { has_docker_list: pipe.has_docker_list(), source: Arc::new(pipe) })
        }
        Begun::Opened(source) => Ok(Received { source, has_docker_list: true }),
    }
}

/// Reads an archive that comes through a pipe, compressed or not, to its end into a temporary file, and opens it there.
/// `name` is how messages name it.
///
/// # Errors
///
/// As [`open_archive`].
pub async fn open_pipe(
    name: impl Into<String>,
    reader: impl Read + Send + 'static,
    scratch: &Scratch,
) -> Result<Received> {
    let (name, scratch) = (PathBuf::from(name.into()), scratch.clone());
    blocking(move || {
        let file = unpack_pipe(&name, reader, &scratch)?;
        let has_docker_list = read_index(&name, &file)?.file(MANIFEST_JSON).is_some();
        Ok(Received { source: archive(&name, file, &scratch)?.into_source(), has_docker_list })
    })
    .await
}

/// Opens an archive that comes through a pipe as [`open_pipe`] does, by the list that `docker save` writes.
///
/// # Errors
///
/// As [`open_docker_archive`].
pub async fn open_docker_pipe(
    name: impl Into<String>,
    reader: impl Read + Send + 'static,
    scratch: &Scratch,
) -> Result<Arc<dyn Source>> {
    let (name, scratch) = (PathBuf::from(name.into()), scratch.clone());
    blocking(move || docker_archive(name.clone(), unpack_pipe(&name, reader, &scratch)?, &scratch)).await
}

/// The bytes of an archive that comes through a pipe, without its compression, in a temporary file.
fn unpack_pipe(name: &Path, reader: impl Read, scratch: &Scratch) -> Result<File> {
    let name = name.display().to_string();
    let counter = Arc::new(AtomicU64::new(0));
    let counted = Counted { reader, counter: counter.clone() };
    let mut decoder = Decoder::new(counted).map_err(|error| Error::failed("read", &name, error))?;
    // Not beside the pipe: `/dev` and `/proc` hold no files.
    scratch.unpack(&name, Path::new("-"), &mut decoder, &|| counter.load(Ordering::Relaxed))
}

/// An archive that was read from a pipe.
#[derive(Debug)]
#[non_exhaustive]
pub struct Received {
    /// The source of the documents, and of the blobs that are not in the sink.
    pub source: Arc<dyn Source>,
    /// Whether it has a `manifest.json` for `docker load`.
    pub has_docker_list: bool,
}

enum Begun<R> {
    Oci(R),
    Opened(Arc<dyn Source>),
}

/// The number of bytes of a pipe that are read to detect the format: a few headers.
const LOOK_AHEAD_BYTES: u64 = 8 << 10;

/// Returns whether the first file is not one of an OCI archive. Docker archives start with a layer or a config under a
/// name of their own, unless they are OCI archives as well.
fn begins_like_docker(start: &[u8]) -> bool {
    let mut tar = TarStream::new(start);
    while let Ok(Some(entry)) = tar.next_entry() {
        if let (Kind::File, Some(name)) = (entry.kind, entry.name) {
            return ![INDEX_JSON, OCI_LAYOUT_FILE, MANIFEST_JSON].contains(&name.as_str())
                && Digest::from_blob_path(&name).is_none();
        }
    }
    false
}

/// Returns the archive, or the file that it was decompressed to.
fn plain(path: &Path, file: File, scratch: &Scratch) -> Result<File> {
    let mut decoder = Decoder::new(&file).map_err(|error| cannot_open(path, error))?;
    if decoder.compression() == Compression::None {
        return Ok(file);
    }
    let size = file.metadata().map_err(|error| cannot_open(path, error))?.len();
    scratch.unpack(&path.display().to_string(), path, &mut decoder, &|| size)
}

fn archive(path: &Path, file: File, scratch: &Scratch) -> Result<Archive> {
    let index = read_index(path, &file)?;
    if let Some(roots) = entry(&file, &index, INDEX_JSON, path)? {
        return Ok(Archive::Oci(Tar::with(path.to_owned(), file, index, roots)?));
    }
    match entry(&file, &index, MANIFEST_JSON, path)? {
        Some(list) => Ok(Archive::Docker(DockerArchive::of(path.to_owned(), file, &index, &list, None, scratch)?)),
        None => Err(Error::broken(path.display(), NO_INDEX_JSON)),
    }
}

/// Counts the bytes that were read.
struct Counted<R> {
    reader: R,
    counter: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.counter.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}
