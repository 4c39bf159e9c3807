use std::io::{self, Read};

use ocikit_archive::layer::{Entry, Reader, Tree};
use ocikit_archive::{Compression, Decoder};
use ocikit_spec::{Algorithm, Descriptor, Digest, Hasher};

use crate::bridge::{self, ChunkReader};
use crate::error::{Error, Result};
use crate::root::Layer;

/// What a layer may inflate to however small it is, in bytes.
const ALWAYS_ALLOWED: u64 = 1 << 30;

/// And how many times its compressed size beyond that: layers are rarely beyond ten.
const TIMES_ALLOWED: u64 = 100;

/// Whether the digest of a layer's tar is wanted, by which a config names the layer. It costs about as much as inflating.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiffId {
    /// It is.
    Compute,
    /// It is not.
    Skip,
}

impl Layer {
    /// Lets work that blocks read the tar of the layer, decompressed, on a thread made for it.
    ///
    /// Size and digest of the layer are checked as it is read, to its end however much the work reads: what the work made of
    /// it is returned only if they are right. The second value is the `diff_id`, if it was wanted.
    ///
    /// # Errors
    ///
    /// As [`Layer::open`]; [`Error::Broken`] where the work fails, or the bytes cannot be decompressed;
    /// [`Error::Unsupported`] for what is no layer of files.
    pub async fn decode<T: Send + 'static>(
        &self,
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
        bridge::consume(self.open().await?, move |chunks| {
            let mut failed = None;
            let outcome = Decoder::new(ChunkReader::new(chunks, &mut failed))
                .map_err(ocikit_archive::Error::from)
                .and_then(|decoder| {
                    let hasher = (diff_id == DiffId::Compute).then(|| Hasher::new(Algorithm::Sha256));
                    let mut tar = LayerTar { decoder, hasher };
                    let value = work(&mut tar)?;
                    Ok((value, tar.digest()?))
                });
            // Bytes that are not those of the layer are why they made no sense, so the rest is looked at first.
            match failed {
                Some(error) => Err(error),
                None => chunks.try_for_each(|chunk| chunk.map(drop)),
            }?;
            outcome.map_err(|error| Error::broken(place, error))
        })
        .await
    }

    /// The entries of the layer, in its order, whiteouts among them.
    ///
    /// # Errors
    ///
    /// As [`Layer::decode`].
    pub async fn entries(&self) -> Result<Vec<Entry>> {
        let entries = self.decode(DiffId::Skip, |tar| {
            let mut reader = Reader::new(tar);
            std::iter::from_fn(|| reader.next_entry().transpose()).collect()
        });
        Ok(entries.await?.0)
    }

    /// How many bytes its tar has, decompressed.
    ///
    /// # Errors
    ///
    /// As [`Layer::decode`]; [`Error::Unsupported`] for a layer that [inflates](Layer::inflates_to) beyond all measure.
    pub async fn length(&self) -> Result<u64> {
        let most = Layer::inflates_to(self.descriptor());
        let count = move |tar: &mut LayerTar<'_>| Ok(io::copy(&mut tar.take(most.saturating_add(1)), &mut io::sink())?);
        let (length, _) = self.decode(DiffId::Skip, count).await?;
        if length > most {
            let what = format!("{} inflates to more than {most} bytes", self.descriptor().digest);
            return Err(Error::Unsupported { place: self.source().to_string(), what });
        }
        Ok(length)
    }

    /// The bytes that a layer may inflate to without being suspected: 1 GiB, and a hundred times its compressed size.
    pub fn inflates_to(descriptor: &Descriptor) -> u64 {
        descriptor.size.saturating_mul(TIMES_ALLOWED).saturating_add(ALWAYS_ALLOWED)
    }

    /// Everything that the layer has and hides.
    ///
    /// # Errors
    ///
    /// As [`Layer::decode`].
    pub async fn tree(&self) -> Result<Tree> {
        Ok(self.decode(DiffId::Skip, |tar| Tree::read(&mut Reader::new(tar))).await?.0)
    }
}

/// The tar of a layer, decompressed as it is read.
#[derive(Debug)]
pub struct LayerTar<'a> {
    decoder: Decoder<ChunkReader<'a>>,
    hasher: Option<Hasher>,
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
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..read]);
        }
        Ok(read)
    }
}
