//! Tracks open upload sessions, and cancels them.

use std::sync::Arc;
use std::time::Duration;

use ocikit_http::{Method, Origin, Request, Url, lock};
use tokio::runtime::Handle;

use crate::target::Target;

/// Time limit for cancelling an upload session, retries included.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// The current session of an upload, if there is one.
///
/// Registries keep the bytes of a session until it expires, often for a week. So a session that will not be resumed is
/// cancelled: by [`cancel`](OpenSession::cancel), or in the background if this value is dropped with an open session,
/// because the future of the push was dropped. A session that the journal keeps for the next attempt stays open.
pub(super) struct OpenSession {
    target: Arc<Target>,
    /// Whether the journal keeps it for another attempt.
    pub(super) kept: bool,
    open: Option<Open>,
}

struct Open {
    url: Url,
    /// Whether the session is on the registry or on another host, which gets no credentials.
    origin: Origin,
}

impl OpenSession {
    /// Starts without a session.
    pub(super) fn none(target: &Arc<Target>, kept: bool) -> OpenSession {
        OpenSession { target: target.clone(), kept, open: None }
    }

    /// Sets the current session, if there is one.
    pub(super) fn note(&mut self, url: Option<&Url>, origin: &Origin) {
        if let Some(url) = url {
            self.open = Some(Open { url: url.clone(), origin: origin.clone() });
        }
    }

    /// Keeps the session open.
    pub(super) fn release(mut self) {
        self.open = None;
    }

    /// Cancels the session. If this fails, the registry expires it.
    pub(super) async fn cancel(mut self) {
        if let Some(open) = self.open.take() {
            cancel(self.target.clone(), open).await;
        }
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        if let Some(open) = self.open.take()
            && !self.kept
            && let Ok(runtime) = Handle::try_current()
        {
            let cancelled = cancel(self.target.clone(), open);
            let mut cancellations = lock(&self.target.inner.cancellations);
            while cancellations.try_join_next().is_some() {}
            cancellations.spawn_on(cancelled, &runtime);
        }
    }
}

async fn cancel(target: Arc<Target>, Open { url, origin }: Open) {
    let request = Request::new(Method::DELETE, url, origin);
    let access = target.access_to_push();
    let cancelled = target.call(&access, request);
    // The outcome does not matter: the registry expires the session anyway.
    let _ = tokio::time::timeout(CANCEL_TIMEOUT, cancelled).await;
}
