//! The bytes of blobs, as many requests as it takes.

mod parallel;
mod part;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use ocikit_image::{Body, ByteRange, Result};
use ocikit_spec::Descriptor;

use crate::client::Inner;
use crate::http::transport::TimeLimit;
use crate::target::Target;

pub use parallel::ParallelOptions;
use part::Part;

/// The bytes of a range of a blob, not checked. Where an answer breaks off the rest is asked for, in the end of others.
pub(crate) async fn open(
    inner: &Arc<Inner>,
    target: &Arc<Target>,
    others: VecDeque<Arc<Target>>,
    descriptor: &Descriptor,
    range: ByteRange,
    limit: TimeLimit,
) -> Result<Body> {
    let (offset, length) = range.within(descriptor.size);
    if length == 0 && descriptor.size > 0 {
        return Ok(Bytes::new().into());
    }
    let part = Part {
        inner: inner.clone(),
        target: target.clone(),
        others,
        digest: descriptor.digest,
        whole: offset == 0 && length == descriptor.size,
        position: offset,
        end: offset + length,
        limit,
    };
    let counted = Counted::new(inner);
    let options = &inner.options.parallel;
    let body = if options.ahead > 0
        && length >= options.threshold.max(1)
        && let Ok(permit) = inner.parallel.clone().try_acquire_owned()
    {
        parallel::open(part, options, permit).await?
    } else {
        let opened = part.open().await?;
        Body::new(part.length(&opened), part.stream(opened))
    };
    Ok(body.watched(move |_| counted.passes()))
}

/// One of the downloads that share a line, for as long as it runs.
struct Counted(Arc<Inner>);

impl Counted {
    fn new(inner: &Arc<Inner>) -> Counted {
        inner.downloads.fetch_add(1, Ordering::Relaxed);
        Counted(inner.clone())
    }

    /// Nothing is to be done for a chunk: it is there to be dropped with the body.
    fn passes(&self) {}
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.downloads.fetch_sub(1, Ordering::Relaxed);
    }
}
