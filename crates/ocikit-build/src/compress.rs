//! Compresses the layers of a build while they arrive.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use ocikit_archive::layer::Budget;
use ocikit_archive::{BLOCK, Compression, EncoderOptions};
use ocikit_image::{
    Body, ByteRange, Layer, LayerOptions, Name, Naming, NewLayer, Put, ReadOnce, RecompressOptions, Result, Root,
    ScratchDirectory, Sink, Source, recompress,
};
use ocikit_spec::{Descriptor, Digest, MediaType};
use tokio::sync::watch;

use crate::attestation::follow;

/// A sink that compresses each layer and puts the result into another sink.
///
/// Each layer is read once: it is compressed into a temporary file without a name while it arrives, and put when its digest is
/// known. Layers are put in the order of their arrival, so that an archive gets the same bytes every time.
#[derive(Debug)]
pub(crate) struct Compressing {
    to: Arc<dyn Sink>,
    options: LayerOptions,
    budget: Budget,
    /// The compressed layers by the digests that they had, `None` for blobs that stay as they are.
    known: Mutex<HashMap<Digest, Option<NewLayer>>>,
    arrived: AtomicUsize,
    /// The number of layers that were put.
    turn: watch::Sender<usize>,
}

impl Compressing {
    pub(crate) fn new(to: Arc<dyn Sink>, encoder: EncoderOptions) -> Compressing {
        let options = LayerOptions::from(encoder).directory(Some(ScratchDirectory::default_parent()));
        Compressing {
            to,
            options,
            budget: Budget::new(),
            known: Mutex::default(),
            arrived: AtomicUsize::new(0),
            turn: watch::Sender::new(0),
        }
    }

    /// Returns the root with the compressed layers. The uncompressed layers, and so the configs, are the same; the statements of
    /// BuildKit follow the new digests.
    pub(crate) async fn root(&self, root: &Root) -> Result<Root> {
        let mut options = RecompressOptions::default().layer(self.options.clone());
        options.known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        follow(root, &recompress(root, &options).await?.root).await
    }

    /// Returns whether a blob with this beginning is a layer that has to be compressed. Another blob, such as a large SBOM, stays
    /// as it is.
    fn is_for(&self, start: &[u8]) -> bool {
        let EncoderOptions { compression, level, .. } = self.options.encoder;
        match Compression::detect(start) {
            Compression::None if !is_tar(start) => false,
            found => level.is_some() || found != compression,
        }
    }
}

/// Returns whether bytes are the beginning of a tar in one of the formats that BuildKit writes.
fn is_tar(start: &[u8]) -> bool {
    const MAGIC: std::ops::Range<usize> = 257..262;
    let Some(header) = start.get(..BLOCK as usize) else { return false };
    header.get(MAGIC) == Some(b"ustar") || header.iter().all(|byte| *byte == 0)
}

#[async_trait]
impl Sink for Compressing {
    async fn put(&self, descriptor: &Descriptor, from: &dyn Source) -> Result<Put> {
        let number = self.arrived.fetch_add(1, Ordering::Relaxed);
        let mut body = from.open_unverified(descriptor, ByteRange::ALL).await?;
        let (length, start) = (body.length(), body.try_next().await?.unwrap_or_default());
        let is_for = self.is_for(&start);
        let body = Body::new(length, stream::iter((!start.is_empty()).then_some(Ok(start))).chain(body));
        let blob = Arc::new(ReadOnce::new(from.to_string(), descriptor.digest, body));
        let new = match is_for {
            true => {
                // The manifest, which has the media type, comes last in the stream.
                let layer = Descriptor { media_type: MediaType::OCI_LAYER, ..descriptor.clone() };
                Some(Layer::at(blob.clone(), layer).recompress(&self.budget, &self.options).await?)
            }
            false => None,
        };
        // It fails only if the sender is dropped, and `self` has it.
        let _ = self.turn.subscribe().wait_for(|turn| *turn == number).await;
        let put = match &new {
            Some(new) => self.to.put(new.descriptor(), &**new.layer().source()).await?,
            None => self.to.put(descriptor, &*blob).await?,
        };
        self.turn.send_replace(number + 1);
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(descriptor.digest, new);
        Ok(put)
    }

    async fn publish(&self, root: &Descriptor, naming: &Naming) -> Result<()> {
        self.to.publish(root, naming).await
    }
}

impl fmt::Display for Compressing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to.fmt(f)
    }
}

#[async_trait]
impl Source for Compressing {
    async fn resolve(&self, name: &Name) -> Result<Descriptor> {
        self.to.resolve(name).await
    }

    async fn open_unverified(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        self.to.open_unverified(descriptor, range).await
    }

    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        self.to.has(descriptor).await
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.to.referrers(subject).await
    }
}
