//! Upload sessions that are open at a registry, and how they are cancelled.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, Url};
use tokio::runtime::Handle;

use crate::auth::Access;
use crate::client::Inner;
use crate::http::address::Reach;
use crate::http::send::Request;
use crate::http::transport::lock;
use crate::target::Target;

/// How long the cancellation of an upload session may take, retries included.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// The upload session that an upload uses now, if there is one.
///
/// Registries keep the bytes of a session until it expires, often for a week. So a session that nobody will continue is
/// cancelled: at once by [`cancel`](OpenSession::cancel), or in the background if this is dropped with an open session,
/// because the future of the push was dropped. A session that the journal keeps for the next attempt stays open.
pub(super) struct OpenSession {
    inner: Arc<Inner>,
    target: Arc<Target>,
    access: Access,
    /// Whether the journal keeps it, for another attempt to continue.
    kept: bool,
    open: Option<Open>,
}

struct Open {
    url: Url,
    /// How far the session may be reached, if it is on another host: it gets no credentials.
    foreign: Option<Reach>,
}

impl OpenSession {
    /// No session yet.
    pub(super) fn none(inner: &Arc<Inner>, target: &Arc<Target>, kept: bool) -> OpenSession {
        let access = target.access_to_push();
        OpenSession { inner: inner.clone(), target: target.clone(), access, kept, open: None }
    }

    /// Notes the session that is used from now on, if one was begun.
    pub(super) fn note(&mut self, url: Option<&Url>, foreign: Option<Reach>) {
        if let Some(url) = url {
            self.open = Some(Open { url: url.clone(), foreign });
        }
    }

    /// Whether another attempt may continue the session.
    pub(super) fn is_kept(&self) -> bool {
        self.kept
    }

    /// Leaves the session as it is.
    pub(super) fn release(mut self) {
        self.open = None;
    }

    /// Cancels the session. The registry removes it some day if this fails.
    pub(super) async fn cancel(mut self) {
        if let Some(open) = self.open.take() {
            cancel(self.inner.clone(), self.target.clone(), self.access.clone(), open).await;
        }
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        if let Some(open) = self.open.take()
            && !self.kept
            && let Ok(runtime) = Handle::try_current()
        {
            let cancelled = cancel(self.inner.clone(), self.target.clone(), self.access.clone(), open);
            let mut cancellations = lock(&self.inner.cancellations);
            while cancellations.try_join_next().is_some() {}
            cancellations.spawn_on(cancelled, &runtime);
        }
    }
}

async fn cancel(inner: Arc<Inner>, target: Arc<Target>, access: Access, Open { url, foreign }: Open) {
    let mut request = Request::new(Method::DELETE, url);
    let cancelled = async {
        match foreign {
            None => drop(inner.call(&target.endpoint, &access, request, &target.place).await),
            Some(reach) => {
                request.reach = reach;
                if let Ok(tls) = inner.http.tls_of(&request.url) {
                    drop(inner.http.send(&request, &tls).await);
                }
            }
        }
    };
    // Whether it worked changes nothing: an expired session is removed all the same.
    let _ = tokio::time::timeout(CANCEL_TIMEOUT, cancelled).await;
}
