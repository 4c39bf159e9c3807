//! Downloads blobs, with as many requests as needed.

mod parallel;
mod part;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use ocikit_http::TimeLimit;
use ocikit_image::{Body, ByteRange, Result};
use ocikit_spec::Descriptor;

use crate::inner::Inner;
use crate::target::Target;

use part::Part;

/// Returns the bytes of a range of a blob, not verified. If an answer breaks off, the rest is requested again, and
/// finally from `others`.
pub(crate) async fn open(
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
        target: target.clone(),
        others,
        digest: descriptor.digest,
        whole: offset == 0 && length == descriptor.size,
        position: offset,
        end: offset + length,
        limit,
    };
    let inner = &target.inner;
    let running = RunningDownload::new(inner);
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
    Ok(body.watched(move |_| running.keep_alive()))
}

/// Counts a running download, since downloads share the bandwidth.
struct RunningDownload(Arc<Inner>);

impl RunningDownload {
    fn new(inner: &Arc<Inner>) -> RunningDownload {
        inner.downloads.fetch_add(1, Ordering::Relaxed);
        RunningDownload(inner.clone())
    }

    /// Does nothing. Calling it makes the closure own the counter, so that it is dropped with the body.
    fn keep_alive(&self) {}
}

impl Drop for RunningDownload {
    fn drop(&mut self) {
        self.0.downloads.fetch_sub(1, Ordering::Relaxed);
    }
}
