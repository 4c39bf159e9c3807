use std::io::{self, Read};

use ocikit_archive::layer::{Budget, Listing, MAX_INFLATION_RATIO, Reader, Tree};
use ocikit_archive::{Compression, Decoder};
use ocikit_spec::{Algorithm, Descriptor, Digest, Hasher};

use crate::bridge::{self, ChunkReader};
use crate::error::{Error, Result};
use crate::root::Layer;

/// Whether the digest of a layer's tar is wanted, by which a config names the layer. It costs about as much as inflating.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiffId {
    /// It is.
    Compute,
    /// It is not.
    Skip,
}

impl Layer {
    /// Lets work that blocks read the tar of the layer, decompressed, on a thread made for it, with a budget of its own.
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

    /// Lets work that blocks read the tar of the layer, decompressed, on a thread made for it. What it inflates to counts
    /// against the budget, which the layers of one operation share.
    ///
    /// Size and digest of the layer are checked as it is read, to its end however much the work reads: what the work made of
    /// it is returned only if they are right. The second value is the `diff_id`, if it was wanted.
    ///
    /// # Errors
    ///
    /// As [`Layer::open`]; [`Error::Broken`] where the work fails, or the bytes cannot be decompressed;
    /// [`Error::Unsupported`] for what is no layer of files, and where a limit of the budget is reached.
    pub async fn decode_within<T: Send + 'static>(
        &self,
        budget: &Budget,
        diff_id: DiffId,
        work: impl FnOnce(&mut LayerTar<'_>) -> ocikit_archive::Result<T> + Send + 'static,
    ) -> Result<(T, Option<Digest>)> {
        let descriptor = self.descriptor();
        if !descriptor.media_type.is_layer() {
            let what =
                format!("{} is of type {}, which is no layer of files", descriptor.digest, descriptor.media_type);
            return Err(Error::Unsupported { place: self.source().to_string(), what });
        }
        let place = format!("layer {} in {}", descriptor.digest, self.source());
        let budget = budget.clone();
        budget.layer(descriptor.size);
        bridge::consume(self.open().await?, move |chunks| {
            let mut failed = None;
            let outcome = Decoder::new(ChunkReader::new(chunks, &mut failed))
                .map_err(ocikit_archive::Error::from)
                .and_then(|decoder| {
                    let hasher = (diff_id == DiffId::Compute).then(|| Hasher::new(Algorithm::Sha256));
                    let mut tar = LayerTar { decoder, hasher, budget };
                    let value = work(&mut tar)?;
                    Ok((value, tar.digest()?))
                });
            // Bytes that are not those of the layer are why they made no sense, so the rest is looked at first.
            match failed {
                Some(error) => Err(error),
                None => chunks.try_for_each(|chunk| chunk.map(drop)),
            }?;
            outcome.map_err(|error| match error.limit() {
                Some(limit) => Error::Unsupported { place, what: limit.to_string() },
                None => Error::broken(place, error),
            })
        })
        .await
    }

    /// The entries of the layer, in its order, whiteouts among them.
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

    /// The number of bytes that its tar has, decompressed.
    ///
    /// # Errors
    ///
    /// As [`Layer::decode_within`].
    pub async fn length_within(&self, budget: &Budget) -> Result<u64> {
        let count = |tar: &mut LayerTar<'_>| Ok(io::copy(tar, &mut io::sink())?);
        Ok(self.decode_within(budget, DiffId::Skip, count).await?.0)
    }

    /// The bytes that a layer may inflate to without being suspected: 1 GiB, and a hundred times its compressed size.
    pub fn inflates_to(descriptor: &Descriptor) -> u64 {
        const ALWAYS_BYTES: u64 = 1 << 30;
        descriptor.size.saturating_mul(MAX_INFLATION_RATIO).saturating_add(ALWAYS_BYTES)
    }

    /// Everything that the layer has and hides.
    ///
    /// # Errors
    ///
    /// As [`Layer::decode_within`].
    pub async fn tree(&self) -> Result<Tree> {
        self.tree_within(&Budget::new()).await
    }

    /// The same within the budget of an operation.
    ///
    /// # Errors
    ///
    /// As [`Layer::decode_within`].
    pub async fn tree_within(&self, budget: &Budget) -> Result<Tree> {
        let within = budget.clone();
        let work = move |tar: &mut LayerTar<'_>| Tree::read(&mut Reader::within(&within, tar));
        Ok(self.decode_within(budget, DiffId::Skip, work).await?.0)
    }
}

/// The tar of a layer, decompressed as it is read.
#[derive(Debug)]
pub struct LayerTar<'a> {
    decoder: Decoder<ChunkReader<'a>>,
    hasher: Option<Hasher>,
    budget: Budget,
}

impl LayerTar<'_> {
    /// How the layer is compressed.
    pub fn compression(&self) -> Compression {
        self.decoder.compression()
    }

    /// The digest of the whole tar, if it is wanted.
    fn digest(&mut self) -> io::Result<Option<Digest>> {
        if self.hasher.is_some() {
            io::copy(self, &mut io::sink())?;
        }
        Ok(self.hasher.take().map(Hasher::finish))
    }
}

impl Read for LayerTar<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.decoder.read(buffer)?;
        self.budget.inflated(read as u64)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..read]);
        }
        Ok(read)
    }
}
