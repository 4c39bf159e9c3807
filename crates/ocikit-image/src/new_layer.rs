use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use ocikit_archive::layer::{BlobWriter, FileOptions, Reader, Writer, Written};
use ocikit_archive::{Compression, Decoder, EncoderOptions};
use ocikit_spec::{Descriptor, Digest, History, MediaType};

use crate::blob_file::BlobFile;
use crate::bridge::{CopyFailed, blocking, copy};
use crate::error::{Error, Result};
use crate::root::Layer;

/// A layer that can be added to an image: its blob, and the digest of its uncompressed tar, which the config lists.
///
/// A layer from files is compressed and hashed in one pass into a temporary file without a name, which lives as long as
/// the layer. The memory needed does not depend on its size.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use ocikit_archive::{Compression, layer::Owner};
/// use ocikit_image::NewLayer;
///
/// # let directory = tempfile::tempdir()?;
/// # let root = directory.path().join("root");
/// # std::fs::create_dir(&root)?;
/// # std::fs::write(root.join("motd"), b"hello")?;
/// let layer = NewLayer::of_tree(&root, Owner::ROOT, Compression::Gzip).await?;
/// assert!(layer.descriptor().media_type.is_layer());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct NewLayer {
    layer: Layer,
    diff_id: Digest,
    history: Option<History>,
}

/// How a new layer is compressed, and where its temporary file is.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct LayerOptions {
    /// Compression, level and threads.
    pub encoder: EncoderOptions,
    /// The directory of the temporary file; the current one if `None`.
    pub directory: Option<PathBuf>,
}

ocikit_spec::setters! {
    LayerOptions {
        encoder: EncoderOptions,
        directory: Option<PathBuf>,
    }
}

impl From<EncoderOptions> for LayerOptions {
    fn from(encoder: EncoderOptions) -> LayerOptions {
        LayerOptions { encoder, directory: None }
    }
}

impl From<Compression> for LayerOptions {
    fn from(compression: Compression) -> LayerOptions {
        EncoderOptions::from(compression).into()
    }
}

impl From<&LayerOptions> for LayerOptions {
    fn from(options: &LayerOptions) -> LayerOptions {
        options.clone()
    }
}

impl NewLayer {
    /// Combines a layer with the digest of its uncompressed tar. The digest is not checked.
    pub fn new(layer: Layer, diff_id: Digest) -> NewLayer {
        NewLayer { layer, diff_id, history: None }
    }

    /// Returns the layer with the entry that it gets in the history of the image.
    #[must_use]
    pub fn with_history(self, history: History) -> NewLayer {
        NewLayer { history: Some(history), ..self }
    }

    /// Returns the entry for the history of the image, if it was given.
    pub fn history(&self) -> Option<&History> {
        self.history.as_ref()
    }

    /// Creates a layer from the contents of a directory. The same files give the same bytes; see
    /// [`Writer::append_tree`] and [`FileOptions`].
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if a file cannot be read or the temporary file not be written; [`Error::Unsupported`] for a name
    /// that is reserved for whiteouts, and for a compression that is only read.
    pub async fn of_tree(
        directory: impl Into<PathBuf>,
        files: impl Into<FileOptions>,
        options: impl Into<LayerOptions>,
    ) -> Result<NewLayer> {
        let (directory, files) = (directory.into(), files.into());
        NewLayer::write(options, move |layer| layer.append_tree(&directory, &files)).await
    }

    /// Creates a layer with one file, whose path in the layer is [`FileOptions::destination`].
    ///
    /// # Errors
    ///
    /// As [`NewLayer::of_tree`].
    pub async fn of_file(
        path: impl Into<PathBuf>,
        files: impl Into<FileOptions>,
        options: impl Into<LayerOptions>,
    ) -> Result<NewLayer> {
        let (path, files) = (path.into(), files.into());
        NewLayer::write(options, move |layer| layer.append_file(&path, &files)).await
    }

    /// Creates a layer from a tar of any compression, byte for byte: the digest of the tar is the
    /// [`NewLayer::diff_id`]. The reader is read to its end; the tar is not parsed.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if reading or writing fails, [`Error::Unsupported`] for a compression that is only read.
    pub async fn of_tar(tar: impl Read + Send + 'static, options: impl Into<LayerOptions>) -> Result<NewLayer> {
        NewLayer::of_archive("the tar", tar, options).await
    }

    /// As [`NewLayer::of_tar`], with a name for errors, such as that of a file.
    ///
    /// # Errors
    ///
    /// As [`NewLayer::of_tar`]; [`Error::Broken`] with the name for a damaged tar.
    pub async fn of_archive(
        name: impl ToString,
        tar: impl Read + Send + 'static,
        options: impl Into<LayerOptions>,
    ) -> Result<NewLayer> {
        let (name, options) = (name.to_string(), options.into());
        blocking(move || {
            let decoder = Decoder::new(tar).map_err(|error| Error::failed("read", &name, error))?;
            let mut blob = TemporaryBlob::create(&options)?;
            blob.copy_tar(&name, decoder)?;
            blob.finish()
        })
        .await
    }

    /// Creates a layer from the entries that a function writes, on a thread for blocking work.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use ocikit_archive::{Compression, layer::Path};
    /// use ocikit_image::NewLayer;
    ///
    /// let layer = NewLayer::write(Compression::Zstd, |layer| layer.hide(&Path::confined(b"etc/motd"))).await?;
    /// assert_eq!(layer.descriptor().size, layer.layer().descriptor().size);
    /// # Ok::<(), ocikit_image::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Those of the function, as for [`NewLayer::of_tree`], and [`Error::Failed`] if the temporary file cannot be
    /// written.
    pub async fn write(
        options: impl Into<LayerOptions>,
        work: impl FnOnce(&mut Writer<File>) -> ocikit_archive::Result<()> + Send + 'static,
    ) -> Result<NewLayer> {
        let options = options.into();
        blocking(move || {
            let place = Place::of(&options);
            let file = place.file()?;
            let mut layer = Writer::new(&options.encoder, file).map_err(|error| place.failed(error))?;
            work(&mut layer).map_err(|error| place.failed(error))?;
            let (file, written) = layer.finish().map_err(|error| place.failed(error))?;
            NewLayer::of_written(file, &written)
        })
        .await
    }

    /// Returns the layer with another media type, for a manifest of another format.
    #[must_use]
    pub fn with_media_type(self, media_type: MediaType) -> NewLayer {
        let descriptor = Descriptor { media_type, ..self.layer.descriptor().clone() };
        NewLayer { layer: Layer::at(self.layer.source().clone(), descriptor), ..self }
    }

    pub(crate) fn of_written(file: File, written: &Written) -> Result<NewLayer> {
        let descriptor = Descriptor::new(oci_media_type(written.compression)?, written.digest, written.size);
        let file = BlobFile::known(format!("layer {}", written.digest), file, descriptor);
        Ok(NewLayer::new(file.into(), written.diff_id))
    }

    /// Returns the blob.
    pub fn layer(&self) -> &Layer {
        &self.layer
    }

    /// Returns the descriptor of the blob.
    pub fn descriptor(&self) -> &Descriptor {
        self.layer.descriptor()
    }

    /// Returns the digest of the blob.
    pub fn digest(&self) -> Digest {
        self.layer.descriptor().digest
    }

    /// Returns the digest of the uncompressed tar. Image specification, "Layer DiffID".
    pub fn diff_id(&self) -> Digest {
        self.diff_id
    }
}

/// Returns the media type of an OCI layer.
fn oci_media_type(compression: Compression) -> Result<MediaType> {
    match compression {
        Compression::None => Ok(MediaType::OCI_LAYER),
        Compression::Gzip => Ok(MediaType::OCI_LAYER_GZIP),
        Compression::Zstd => Ok(MediaType::OCI_LAYER_ZSTD),
        Compression::Xz | Compression::Bzip2 => {
            let what = "layers cannot be compressed with xz or bzip2".to_owned();
            Err(Error::Unsupported { place: "a new layer".to_owned(), what })
        }
    }
}

/// The bytes of a tar on their way to a temporary file.
pub(crate) struct TemporaryBlob {
    place: Place,
    blob: BlobWriter<File>,
}

impl TemporaryBlob {
    pub(crate) fn create(options: &LayerOptions) -> Result<TemporaryBlob> {
        let place = Place::of(options);
        let blob = BlobWriter::new(&options.encoder, place.file()?).map_err(|error| place.failed(error.into()))?;
        Ok(TemporaryBlob { place, blob })
    }

    /// Copies a reader to its end.
    pub(crate) fn copy<E: From<Error>>(
        &mut self,
        reader: &mut impl Read,
        unreadable: impl Fn(io::Error) -> E,
    ) -> Result<(), E> {
        copy(reader, |bytes| io::Write::write_all(&mut self.blob, bytes)).map_err(|failed| match failed {
            CopyFailed::Reading(error) => unreadable(error),
            CopyFailed::Writing(error) => self.place.failed(error.into()).into(),
        })
    }

    /// Copies a tar to its end, and checks that its entries can be read.
    fn copy_tar(&mut self, name: &str, tar: impl Read) -> Result<()> {
        let mut copying = Copying { tar, blob: &mut self.blob, length: 0, failed: None };
        let mut reader = Reader::new(&mut copying);
        let mut read = || -> ocikit_archive::Result<()> {
            while reader.next_entry()?.is_some() {}
            Ok(())
        };
        let entries = read();
        drop(reader);
        // What follows the last entry belongs to the layer too.
        let rest = io::copy(&mut copying, &mut io::sink());
        if let Some(error) = copying.failed.take() {
            return Err(self.place.failed(error.into()));
        }
        let is_empty = copying.length == 0;
        let broken = |error: ocikit_archive::Error| Error::broken(name, error);
        entries.map_err(broken)?;
        rest.map_err(|error| broken(error.into()))?;
        match is_empty {
            true => Err(Error::broken(name, "it has no bytes".to_owned())),
            false => Ok(()),
        }
    }

    pub(crate) fn finish(self) -> Result<NewLayer> {
        let (file, written) = self.blob.finish().map_err(|error| self.place.failed(error.into()))?;
        NewLayer::of_written(file, &written)
    }
}

/// A tar that is written to a layer while it is read.
struct Copying<'a, R> {
    tar: R,
    blob: &'a mut BlobWriter<File>,
    length: u64,
    /// The error of the layer, which is no damage of the tar.
    failed: Option<io::Error>,
}

impl<R: Read> Read for Copying<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.tar.read(buffer)?;
        self.length += length as u64;
        if let Err(error) = io::Write::write_all(self.blob, &buffer[..length]) {
            let kind = error.kind();
            self.failed = Some(error);
            return Err(kind.into());
        }
        Ok(length)
    }
}

/// The directory of temporary files.
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn of(options: &LayerOptions) -> Place {
        let current = || Path::new(".").to_owned();
        Place(options.directory.clone().filter(|path| !path.as_os_str().is_empty()).unwrap_or_else(current))
    }

    pub(crate) fn file(&self) -> Result<File> {
        tempfile::tempfile_in(&self.0).map_err(|error| self.failed(error.into()))
    }

    /// Returns the error for a layer that could not be written.
    pub(crate) fn failed(&self, error: ocikit_archive::Error) -> Error {
        use ocikit_archive::Error as Cause;
        if let Some(what) = error.unsupported() {
            return Error::Unsupported { place: "a new layer".to_owned(), what };
        }
        match error {
            Cause::File { verb, path, source } => Error::failed(verb, path.display(), source),
            Cause::Io(source) if source.get_ref().is_some_and(|inner| inner.is::<Cause>()) => {
                match source.downcast::<Cause>() {
                    Ok(cause) => self.failed(cause),
                    Err(source) => Error::failed("write a layer to a temporary file in", self.0.display(), source),
                }
            }
            // A level or format that does not exist.
            Cause::Io(source) if matches!(source.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
                Error::Unsupported { place: "a new layer".to_owned(), what: source.to_string() }
            }
            Cause::Io(source) => Error::failed("write a layer to a temporary file in", self.0.display(), source),
            Cause::Archive { archive, source } => Error::broken(archive.display(), source),
            Cause::Layer { .. } => Error::Unsupported { place: "a new layer".to_owned(), what: error.to_string() },
            error => Error::broken("a tar", error),
        }
    }
}

#[cfg(test)]
mod tests {
    use ocikit_archive::layer::Owner;

    use super::*;
    use crate::layer::DiffId;

    #[tokio::test]
    async fn a_layer_of_a_tree_can_be_read() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a"), b"hello").unwrap();
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let layer = NewLayer::of_tree(directory.path(), Owner::ROOT, compression).await.unwrap();
            let count = |tar: &mut crate::LayerTar<'_>| Ok((tar.compression(), io::copy(tar, &mut io::sink())?));
            let ((found, _), diff_id) = layer.layer().decode(DiffId::Compute, count).await.unwrap();
            assert_eq!((found, diff_id), (compression, Some(layer.diff_id())));
        }
    }

    #[tokio::test]
    async fn a_tar_keeps_its_bytes() {
        let tar = vec![0; 100 << 10];
        let plain = NewLayer::of_tar(io::Cursor::new(tar.clone()), Compression::Gzip).await.unwrap();
        assert_eq!(plain.diff_id(), Digest::sha256_of(&tar));
        let mut encoder = ocikit_archive::Encoder::new(Compression::Zstd, Vec::new()).unwrap();
        io::Write::write_all(&mut encoder, &tar).unwrap();
        let compressed = encoder.finish().unwrap();
        let again = NewLayer::of_tar(io::Cursor::new(compressed), Compression::Gzip).await.unwrap();
        assert_eq!((again.digest(), again.diff_id()), (plain.digest(), plain.diff_id()));
        for damaged in [&b""[..], b"text", &[7; 1024]] {
            let error = NewLayer::of_tar(damaged, Compression::Gzip).await.unwrap_err();
            assert!(matches!(error, Error::Broken { .. }), "{error}");
        }
    }

    #[tokio::test]
    async fn failures_name_their_cause() {
        let gone = NewLayer::of_tree("/nonexistent/tree", Owner::ROOT, Compression::Gzip).await.unwrap_err();
        assert!(gone.to_string().contains("cannot read /nonexistent/tree"), "{gone}");
        let options = LayerOptions { directory: Some("/nonexistent".into()), ..Compression::Gzip.into() };
        let error = NewLayer::of_tar(io::empty(), options).await.unwrap_err();
        assert!(error.to_string().contains("temporary file in /nonexistent"), "{error}");
        let error = NewLayer::of_tar(io::empty(), Compression::Xz).await.unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    }
}
