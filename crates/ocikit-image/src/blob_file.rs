use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use ocikit_spec::{Algorithm, Descriptor, Digest, Hasher, MediaType};

use crate::body::Body;
use crate::bridge::{CopyFailed, blocking, copy, file_body};
use crate::error::{Error, Result};
use crate::root::Layer;
use crate::source::{ByteRange, Name, Source};

/// The maximum size of a blob of a stream, in bytes. A larger one is opened as a file.
pub const MAX_STREAM_BYTES: u64 = 64 << 30;

/// A file as the source of a single blob.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use ocikit_image::{BlobFile, Layer};
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("policy.wasm");
/// # std::fs::write(&path, b"\0asm")?;
/// let file = BlobFile::open(&path).await?.with_media_type("application/wasm");
/// assert_eq!(file.descriptor().size, 4);
/// let layer = Layer::from(file);
/// assert_eq!(layer.descriptor().media_type.as_str(), "application/wasm");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct BlobFile {
    name: String,
    file: Arc<File>,
    descriptor: Descriptor,
}

impl BlobFile {
    /// Reads a file once to compute its digest.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if it cannot be read.
    pub async fn open(path: impl Into<PathBuf>) -> Result<BlobFile> {
        let path = path.into();
        let file = blocking({
            let path = path.clone();
            move || File::open(&path).map_err(|error| Error::failed("open", path.display(), error))
        });
        BlobFile::of(path.display().to_string(), file.await?).await
    }

    /// Reads an open file once to compute its digest; messages use this name.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if it cannot be read.
    pub async fn of(name: impl Into<String>, file: File) -> Result<BlobFile> {
        let name = name.into();
        blocking(move || {
            let (digest, size) = digest(&file).map_err(|error| Error::failed("read", &name, error))?;
            let descriptor = Descriptor::new(MediaType::OCTET_STREAM, digest, size);
            Ok(BlobFile { name, file: Arc::new(file), descriptor })
        })
        .await
    }

    /// Reads a stream of unknown length and digest to its end into an unnamed temporary file in a directory, and computes
    /// the digest on the way; messages use this name. At most [`MAX_STREAM_BYTES`] are read, because a device such as
    /// `/dev/zero` never ends and would fill the disk.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use ocikit_image::BlobFile;
    ///
    /// let blob = BlobFile::of_reader("standard input", &b"{}"[..], std::env::temp_dir()).await?;
    /// assert_eq!(blob.descriptor().size, 2);
    /// # Ok::<(), ocikit_image::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if the stream cannot be read or the file cannot be written.
    pub async fn of_reader(
        name: impl Into<String>,
        reader: impl Read + Send + 'static,
        directory: impl Into<PathBuf>,
    ) -> Result<BlobFile> {
        let (name, directory) = (name.into(), directory.into());
        blocking(move || {
            let unwritable = |error| Error::failed("write to a temporary file in", directory.display(), error);
            let mut file = tempfile::tempfile_in(&directory).map_err(unwritable)?;
            let (digest, size) = match hash(reader.take(MAX_STREAM_BYTES + 1), &mut file) {
                Ok((_, size)) if size > MAX_STREAM_BYTES => {
                    let problem = format!("it has more than {} GiB; save it to a file first", MAX_STREAM_BYTES >> 30);
                    let error = io::Error::new(io::ErrorKind::FileTooLarge, problem);
                    return Err(Error::failed("read", &name, error));
                }
                Ok(copied) => copied,
                Err(CopyFailed::Reading(error)) => return Err(Error::failed("read", &name, error)),
                Err(CopyFailed::Writing(error)) => return Err(unwritable(error)),
            };
            Ok(BlobFile::known(name, file, Descriptor::new(MediaType::OCTET_STREAM, digest, size)))
        })
        .await
    }

    /// Returns a file whose digest was computed while it was written. It is checked when the file is read.
    pub fn known(name: impl Into<String>, file: File, descriptor: Descriptor) -> BlobFile {
        BlobFile { name: name.into(), file: Arc::new(file), descriptor }
    }

    /// Returns the file with a media type; that of a new one is `application/octet-stream`.
    #[must_use]
    pub fn with_media_type(self, media_type: impl Into<MediaType>) -> BlobFile {
        let descriptor = Descriptor { media_type: media_type.into(), ..self.descriptor };
        BlobFile { descriptor, ..self }
    }

    /// Returns the media type, digest and size.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Returns the digest.
    pub fn digest(&self) -> Digest {
        self.descriptor.digest
    }
}

fn digest(mut file: &File) -> io::Result<(Digest, u64)> {
    file.rewind()?;
    hash(file, &mut io::sink()).map_err(|failed| match failed {
        CopyFailed::Reading(error) | CopyFailed::Writing(error) => error,
    })
}

/// Copies a reader to its end, and returns the digest and the number of the bytes.
fn hash(reader: impl Read, writer: &mut impl Write) -> Result<(Digest, u64), CopyFailed> {
    let (mut hasher, mut size) = (Hasher::new(Algorithm::Sha256), 0);
    copy(reader, |bytes| {
        hasher.update(bytes);
        size += bytes.len() as u64;
        writer.write_all(bytes)
    })?;
    Ok((hasher.finish(), size))
}

impl From<BlobFile> for Layer {
    /// Returns the file as a layer, with the media type of the file.
    fn from(file: BlobFile) -> Layer {
        let descriptor = file.descriptor.clone();
        Layer::at(Arc::new(file), descriptor)
    }
}

impl fmt::Display for BlobFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[async_trait]
impl Source for BlobFile {
    async fn resolve(&self, name: &Name) -> Result<Descriptor> {
        Err(Error::not_found(name, self))
    }

    async fn open_unverified(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        match self.has(descriptor).await? {
            true => Ok(file_body(self.file.clone(), 0, self.descriptor.size, range, self)),
            false => Err(Error::not_found(descriptor.digest, self)),
        }
    }

    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        Ok(descriptor.digest == self.descriptor.digest)
    }

    async fn referrers(&self, _: &Digest) -> Result<Vec<Descriptor>> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::SourceExt;

    #[tokio::test]
    async fn a_file_is_one_blob() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("blob");
        std::fs::write(&path, b"content").unwrap();
        let blob = BlobFile::open(&path).await.unwrap();
        assert_eq!(*blob.descriptor(), Descriptor::of(MediaType::OCTET_STREAM, b"content"));
        assert_eq!(blob.read(blob.descriptor()).await.unwrap(), "content");
        let range = ByteRange { offset: 2, length: Some(3) };
        assert_eq!(blob.open_unverified(blob.descriptor(), range).await.unwrap().bytes().await.unwrap(), "nte");
        let other = Descriptor::of(MediaType::OCTET_STREAM, b"other");
        assert!(blob.open(&other).await.unwrap_err().is_not_found());
        assert!(BlobFile::open(directory.path().join("gone")).await.is_err());
    }

    #[tokio::test]
    async fn a_stream_of_unknown_length_is_one_blob() {
        let directory = tempfile::tempdir().unwrap();
        let bytes = vec![7; 1_000_000];
        let reader = io::Cursor::new(bytes.clone());
        let blob = BlobFile::of_reader("a stream", reader, directory.path()).await.unwrap();
        assert_eq!(*blob.descriptor(), Descriptor::of(MediaType::OCTET_STREAM, &bytes));
        assert_eq!(blob.read(blob.descriptor()).await.unwrap(), bytes);
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0, "the file has no name");

        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::ConnectionReset.into())
            }
        }
        let error = BlobFile::of_reader("a stream", Broken, directory.path()).await.unwrap_err();
        assert!(error.to_string().contains("cannot read a stream"), "{error}");
        let error = BlobFile::of_reader("a stream", &b"x"[..], directory.path().join("gone")).await.unwrap_err();
        assert!(error.to_string().contains("temporary file in"), "{error}");
    }
}
