use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use ocikit_spec::{Algorithm, Descriptor, Digest, Hasher, MediaType};

use crate::body::Body;
use crate::bridge::{blocking, file_body};
use crate::error::{Error, Result};
use crate::root::Layer;
use crate::source::{ByteRange, Name, Source};

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

    /// Returns a file whose digest was computed while it was written.
    pub(crate) fn known(name: String, file: File, descriptor: Descriptor) -> BlobFile {
        BlobFile { name, file: Arc::new(file), descriptor }
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
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut buffer = vec![0; 256 << 10];
    let mut size = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((hasher.finish(), size)),
            Ok(read) => {
                hasher.update(&buffer[..read]);
                size += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
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
}
