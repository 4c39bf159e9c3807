use std::fmt;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

use crate::request_error::BoxError;

/// The body of a request, read once while it is sent.
pub struct StreamBody {
    /// The number of bytes.
    pub length: u64,
    /// The bytes.
    pub chunks: BoxStream<'static, Result<Bytes, BoxError>>,
}

impl fmt::Debug for StreamBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamBody").field("length", &self.length).finish_non_exhaustive()
    }
}

/// Opens the body of a request: once, and again for each redirect.
pub trait BodySource: Sync {
    /// Returns the body from its first byte on.
    fn open(&self) -> BoxFuture<'_, Result<StreamBody, BoxError>>;
}
