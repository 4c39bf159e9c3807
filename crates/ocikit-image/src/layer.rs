use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

use ocikit_archive::layer::{Budget, Listing, MAX_INFLATION_RATIO, Reader, Tree};
use ocikit_archive::{Compression, Decoder};
use ocikit_spec::{Algorithm, Descriptor, Digest, Hasher};

use crate::body::Body;
use crate::bridge::{self, ChunkReader};
use crate::error::{Error, Result};
use crate::layer_files::LayerFiles;
use crate::root::Layer;

/// Whether to compute the digest of the uncompressed tar, which is the `diff_id` in a config. It costs about as much as
/// decompression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiffId {
    /// Compute the digest.
    Compute,
    /// Do not compute the digest.
    Skip,
}

impl Layer {
    /// Passes the decompressed tar of the layer to blocking work, on a thread of its own, with a new budget.
    ///
    /// # Errors
    ///
    /// As [`Layer::decode_within`].
    pub async fn decode<T: Send + 'static>(
        &self,
        diff_id: DiffId,
        work: impl FnOnce(&mut LayerTar<'_>) -> ocikit_archive::Result<T> + Send + 'static,
    ) -> Result<(T, Option<Digest>)> {
        self.decode_within(&Budget::new(), diff_id, work).await
    }

    /// Passes the decompressed tar of the layer to blocking work, on a thread of its own. The decompressed bytes count
    /// against the budget, which the layers of one operation share.
    ///
    /// The layer is read to its end and checked against size and digest, even if the work reads less. The result of the
    /// work is returned only if they match. The second value is the `diff_id`, if it was requested.
    ///
    /// # Errors
    ///
    /// As [`Layer::open`]; [`Error::Broken`] if the work fails, or the bytes cannot be decompressed;
    /// [`Error::Unsupported`] if it is not a tar of files, and if a limit of the budget is reached.
    pub async fn decode_within<T: Send + 'static>(
        &self,
        budget: &Budget,
        diff_id: DiffId,
        work: impl FnOnce(&mut LayerTar<'_>) -> ocikit_archive::Result<T> + Send + 'static,
    ) -> Result<(T, Option<Digest>)> {
        let (body, size) = self.tar().await?;
        let place = format!("layer {} in {}", self.digest(), self.source());
        budget.layer(size);
        decode(body, place, self.files().cloned(), budget, diff_id, work).await
    }

    /// Opens the tar, and returns how many bytes are stored of it.
    async fn tar(&self) -> Result<(Body, u64)> {
        if let Some(files) = self.files()
            && let Some(tar) = files.tar().await?
        {
            return Ok(tar);
        }
        let descriptor = self.descriptor();
        if !descriptor.media_type.is_tar_layer() {
            let what =
                format!("{} is of type {}, which is not a tar of files", descriptor.digest, descriptor.media_type);
            return Err(Error::Unsupported { place: self.source().to_string(), what });
        }
        Ok((self.open().await?, descriptor.size))
    }

    /// Returns the files and whiteouts if they are found without reading the layer.
    pub(crate) async fn listed_tree(&self, budget: &Budget) -> Result<Option<Tree>> {
        match self.files() {
            Some(files) => files.tree(budget).await,
            None => Ok(None),
        }
    }

    /// Returns the entries of the layer in their order, including whiteouts.
    ///
    /// # Errors
    ///
    /// As [`Layer::decode_within`].
    pub async fn entries(&self) -> Result<Listing> {
        let budget = Budget::new();
        let within = budget.clone();
        let work = move |tar: &mut LayerTar<'_>| Listing::read(&mut Reader::within(&within, tar));
        Ok(self.decode_within(&budget, DiffId::Skip, work).await?.0)
    }

    /// Returns the length of the uncompressed tar in bytes.
    ///
    /// # Errors
    ///
    /// As [`Layer::decode_within`].
    pub async fn length_within(&self, budget: &Budget) -> Result<u64> {
        let count = |tar: &mut LayerTar<'_>| Ok(io::copy(tar, &mut io::sink())?);
        Ok(self.decode_within(budget, DiffId::Skip, count).await?.0)
    }

    /// Returns the maximum uncompressed size of a layer in bytes: 1 GiB plus a hundred times its compressed size.
    pub fn inflates_to(descriptor: &Descriptor) -> u64 {
        const ALWAYS_BYTES: u64 = 1 << 30;
        descriptor.size.saturating_mul(MAX_INFLATION_RATIO).saturating_add(ALWAYS_BYTES)
    }

    /// Returns the files and whiteouts of the layer.
    ///
    /// # Errors
    ///
    /// As [`Layer::decode_within`].
    pub async fn tree(&self) -> Result<Tree> {
        self.tree_within(&Budget::new()).await
    }

    /// Returns the files and whiteouts of the layer, within the budget of an operation.
    ///
    /// # Errors
    ///
    /// As [`Layer::decode_within`].
    pub async fn tree_within(&self, budget: &Budget) -> Result<Tree> {
        if let Some(tree) = self.listed_tree(budget).await? {
            return Ok(tree);
        }
        let within = budget.clone();
        let work = move |tar: &mut LayerTar<'_>| Tree::read(&mut Reader::within(&within, tar));
        Ok(self.decode_within(budget, DiffId::Skip, work).await?.0)
    }
}

/// Passes the decompressed bytes of a body to blocking work; see [`Layer::decode_within`].
pub(crate) async fn decode<T: Send + 'static>(
    body: Body,
    place: String,
    files: Option<Arc<dyn LayerFiles>>,
    budget: &Budget,
    diff_id: DiffId,
    work: impl FnOnce(&mut LayerTar<'_>) -> ocikit_archive::Result<T> + Send + 'static,
) -> Result<(T, Option<Digest>)> {
    let budget = budget.clone();
    bridge::consume(body, move |chunks| {
        let outcome = chunks.with_reader(|reader| -> ocikit_archive::Result<_> {
            let decoder = Decoder::new(reader)?;
            let hasher = (diff_id == DiffId::Compute).then(|| Hasher::new(Algorithm::Sha256));
            let compression = decoder.compression();
            let tar = match &files {
                Some(files) => Tar::Filtered(files.filter(Box::new(decoder))),
                None => Tar::Whole(decoder),
            };
            let mut tar = LayerTar { tar, compression, hasher, budget, failed: false };
            let value = work(&mut tar)?;
            Ok((value, tar.digest()?))
        })?;
        outcome.map_err(|error| match error.unsupported() {
            Some(what) => Error::Unsupported { place, what },
            None => Error::broken(place, error),
        })
    })
    .await
}

/// The tar of a layer, which is decompressed while it is read.
#[derive(Debug)]
pub struct LayerTar<'a> {
    tar: Tar<'a>,
    compression: Compression,
    hasher: Option<Hasher>,
    budget: Budget,
    failed: bool,
}

/// The decompressed bytes, with or without the entries that only a format of layers has.
enum Tar<'a> {
    Whole(Decoder<ChunkReader<'a>>),
    Filtered(Box<dyn Read + Send + 'a>),
}

impl fmt::Debug for Tar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Tar::Whole(_)) { "Whole" } else { "Filtered" })
    }
}

impl Read for Tar<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Tar::Whole(tar) => tar.read(buffer),
            Tar::Filtered(tar) => tar.read(buffer),
        }
    }
}

impl LayerTar<'_> {
    /// Returns the compression of the layer.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Returns whether reading failed, so that an error is not that of a writer.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed
    }

    /// Returns the digest of the whole tar, if it was requested.
    fn digest(&mut self) -> io::Result<Option<Digest>> {
        if self.hasher.is_some() {
            io::copy(self, &mut io::sink())?;
        }
        Ok(self.hasher.take().map(Hasher::finish))
    }
}

impl Read for LayerTar<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.tar.read(buffer).inspect_err(|_| self.failed = true)?;
        self.budget.inflated(read as u64).inspect_err(|_| self.failed = true)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..read]);
        }
        Ok(read)
    }
}

#[cfg(test)]
#[cfg(not(feature = "zstd"))]
mod tests {
    use ocikit_spec::MediaType;

    use super::*;
    use crate::{Memory, NewLayer};

    #[tokio::test]
    async fn a_compression_that_is_left_out_names_its_feature() {
        let layer = [0x28, 0xb5, 0x2f, 0xfd, 0, 0, 0, 0, 0, 0];
        let memory = Arc::new(Memory::new().with_bytes(layer.to_vec()));
        let layer = Layer::at(memory, Descriptor::of(MediaType::OCI_LAYER_ZSTD, &layer));
        let new = NewLayer::of_tar(&[0; 1024][..], Compression::Zstd).await.unwrap_err();
        for error in [layer.tree().await.unwrap_err(), new] {
            assert!(
                matches!(&error, Error::Unsupported { what, .. } if what.contains("the feature `zstd`")),
                "{error:?}"
            );
        }
        let copied = layer.open().await.unwrap().bytes().await.unwrap();
        assert_eq!(copied.len(), 10, "its bytes can be copied");
    }
}
