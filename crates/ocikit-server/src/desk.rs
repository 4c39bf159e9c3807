//! What all requests share, and the bodies that they bring.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{HeaderName, RETRY_AFTER};
use axum::http::{HeaderMap, Method, StatusCode};
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::{Access, Guard};
use crate::clock::Clock;
use crate::fault::{Faults, Quirks};
use crate::limits::{MemoryBudget, ServerLimits, Share};
use crate::log::Log;
use crate::query::Query;
use crate::refusal::{Code, Refusal, Result};
use crate::rules::Rules;
use crate::storage::Store;

/// The state that all requests share.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) address: SocketAddr,
    pub(crate) store: Arc<Store>,
    pub(crate) allowed_hosts: Vec<String>,
    pub(crate) rules: Rules,
    pub(crate) limits: ServerLimits,
    /// Memory for unfinished uploads, if the storage is in memory.
    pub(crate) upload_memory: MemoryBudget,
    /// Memory for the manifests and forms of all requests.
    pub(crate) memory: MemoryBudget,
    /// Notified while clients wait for a free connection.
    pub(crate) crowded: Notify,
    pub(crate) guard: Guard,
    pub(crate) faults: Faults,
    pub(crate) clock: Clock,
    pub(crate) log: Log,
    /// Cancelled at shutdown.
    pub(crate) closing: CancellationToken,
    /// Tasks that continue when their connection is lost.
    pub(crate) tasks: TaskTracker,
}

impl Desk {
    pub(crate) fn forget_idle_uploads(&self) {
        self.store.uploads.forget_idle(self.rules.idle_upload, self.clock.now());
    }

    /// Returns the maximum number of entries per page.
    pub(crate) fn page(&self) -> usize {
        self.rules.page.unwrap_or(usize::MAX)
    }
}

/// An authorized request, without its body.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) query: Query,
    pub(crate) access: Access,
    pub(crate) quirks: Quirks,
}

impl Call {
    /// Returns the value of a header, if it is text.
    pub(crate) fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A body in memory.
#[derive(Debug)]
pub(crate) struct BodyBytes {
    pub(crate) bytes: Bytes,
    /// Reserves memory from the shared budget until it is dropped.
    _share: Share,
}

/// Reads a whole body, within the limits of size, time and shared memory.
pub(crate) async fn read(desk: &Desk, body: Body, max_bytes: u64) -> Result<BodyBytes> {
    let mut body = body.into_data_stream();
    let mut read = Vec::new();
    let mut share = desk.memory.share();
    let reading = async {
        while let Some(bytes) = body.next().await {
            let bytes = bytes.map_err(|error| Refusal::invalid(Code::SizeInvalid, error))?;
            let needed = read.len() + bytes.len();
            if needed as u64 > max_bytes {
                return Err(too_large(max_bytes));
            }
            if needed > read.capacity() {
                let more = needed.max(read.capacity().saturating_mul(2)).min(max_bytes as usize) - read.capacity();
                share.grow(more).map_err(|_| too_busy())?;
                read.reserve_exact(read.capacity() + more - read.len());
            }
            read.extend_from_slice(&bytes);
        }
        Ok(())
    };
    timeout(desk.limits.document_timeout, reading).await.map_err(|_| too_slow())??;
    Ok(BodyBytes { bytes: read.into(), _share: share })
}

fn too_slow() -> Refusal {
    Refusal::new(StatusCode::REQUEST_TIMEOUT, Code::SizeInvalid, "the body took too long")
}

/// Returns status 503 for a shortage that is likely to end soon.
pub(crate) fn too_busy() -> Refusal {
    let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, Code::Unknown, "too many requests are in progress");
    refusal.with_header(RETRY_AFTER, "1")
}

pub(crate) fn too_large(max_bytes: u64) -> Refusal {
    let message = format_args!("the body has more than {max_bytes} bytes");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, Code::SizeInvalid, message)
}
