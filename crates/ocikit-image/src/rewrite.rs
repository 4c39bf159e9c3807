//! New layers from the bytes or entries of existing ones.

use std::fs::File;
use std::io::{self, Read};

use ocikit_archive::Compression;
use ocikit_archive::layer::{Budget, Reader, Writer};

use crate::blob_file::BlobFile;
use crate::bridge::consume;
use crate::error::{Error, Result};
use crate::layer::{DiffId, LayerTar};
use crate::new_layer::{LayerOptions, NewLayer, Place, TemporaryBlob};
use crate::root::Layer;
use crate::source::ByteRange;

impl Layer {
    /// Returns the compression of the layer, by its first bytes.
    ///
    /// # Errors
    ///
    /// Those of the source.
    pub async fn compression(&self) -> Result<Compression> {
        let start = ByteRange { offset: 0, length: Some(Compression::MAGIC_BYTES as u64) };
        let bytes = self.source().open_small(self.descriptor(), start).await?.bytes().await?;
        Ok(Compression::detect(&bytes))
    }

    /// Compresses the layer anew. The uncompressed tar is the same byte for byte, and so is its digest.
    ///
    /// ```
    /// # #[cfg(feature = "testing")]
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # use std::sync::Arc;
    /// # use ocikit_image::{Memory, Root, testing};
    /// # let memory = Arc::new(Memory::new());
    /// # let descriptor = testing::image(&memory, 1, &"linux/amd64".parse()?, &[1000]);
    /// # let Root::Image(image) = Root::at(memory, descriptor).await? else { panic!("it is an image") };
    /// use ocikit_archive::Compression;
    /// use ocikit_image::files::Budget;
    ///
    /// let layer = image.layers().next().unwrap();
    /// let smaller = layer.recompress(&Budget::new(), Compression::Zstd).await?;
    /// assert_eq!(smaller.diff_id(), image.config().await?.rootfs().diff_ids[0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Layer::decode_within`]; [`Error::Failed`] if the temporary file cannot be written.
    pub async fn recompress(&self, budget: &Budget, options: impl Into<LayerOptions>) -> Result<NewLayer> {
        let options = options.into();
        let write = move |tar: &mut LayerTar<'_>| {
            let mut blob = TemporaryBlob::create(&options)?;
            blob.copy(tar, |error| Failed::Reading(error.into()))?;
            Ok(blob.finish()?)
        };
        self.decode_within(budget, DiffId::Skip, move |tar| write(tar).map(Ok).or_else(Failed::split)).await?.0
    }

    /// Writes a new layer from the entries of this one. The function gets a reader of the entries and the writer of the
    /// new layer, and runs on a thread for blocking work.
    ///
    /// # Errors
    ///
    /// As [`Layer::decode_within`]; [`Error::Failed`] if the temporary file cannot be written.
    pub async fn rewrite(
        &self,
        budget: &Budget,
        options: impl Into<LayerOptions>,
        work: impl FnOnce(&mut Reader<&mut dyn Read>, &mut Writer<File>) -> ocikit_archive::Result<()> + Send + 'static,
    ) -> Result<NewLayer> {
        let (options, within) = (options.into(), budget.clone());
        let write = move |tar: &mut LayerTar<'_>| {
            let place = Place::of(&options);
            let mut layer = Writer::new(&options.encoder, place.file()?).map_err(|error| place.failed(error))?;
            let done = work(&mut Reader::within(&within, &mut *tar), &mut layer);
            done.map_err(|error| Failed::of(error, tar, &place))?;
            let (file, written) = layer.finish().map_err(|error| place.failed(error))?;
            Ok(NewLayer::of_written(file, &written)?)
        };
        self.decode_within(budget, DiffId::Skip, move |tar| write(tar).map(Ok).or_else(Failed::split)).await?.0
    }

    /// Returns the layer with its compressed bytes in a temporary file, if it is in a registry: for a layer that is read
    /// more than once.
    pub(crate) async fn nearby(&self, options: &LayerOptions) -> Result<Layer> {
        if self.source().repository(self.descriptor()).is_none() {
            return Ok(self.clone());
        }
        let place = Place::of(options);
        let written = consume(self.open().await?, move |chunks| {
            let mut file = place.file()?;
            for chunk in chunks {
                io::Write::write_all(&mut file, &chunk?).map_err(|error| place.failed(error.into()))?;
            }
            Ok(file)
        });
        let descriptor = self.descriptor().clone();
        Ok(BlobFile::known(format!("layer {}", descriptor.digest), written.await?, descriptor).into())
    }
}

/// The failure of one side.
pub(crate) enum Failed {
    /// The layer that is read.
    Reading(ocikit_archive::Error),
    /// The new layer.
    Writing(Error),
}

impl Failed {
    /// Sorts an error by its side.
    pub(crate) fn of(error: ocikit_archive::Error, tar: &LayerTar<'_>, place: &Place) -> Failed {
        let is_of_reader =
            tar.has_failed() || !matches!(error, ocikit_archive::Error::Io(_)) || error.unsupported().is_some();
        if is_of_reader { Failed::Reading(error) } else { Failed::Writing(place.failed(error)) }
    }

    /// Returns the result of the work for [`Layer::decode_within`], which adds the name of the layer to the errors of
    /// reading.
    pub(crate) fn split<T>(self) -> ocikit_archive::Result<Result<T>> {
        match self {
            Failed::Reading(error) => Err(error),
            Failed::Writing(error) => Ok(Err(error)),
        }
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed::Writing(error)
    }
}
