//! Reports requests to an observer, without secrets.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use ocikit_spec::Registry;
use reqwest::{Method, Url};

use super::fault::Fault;

/// An event in the life of a request.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct RequestEvent<'a> {
    /// The HTTP method.
    pub method: &'a str,
    /// The URL without the parts that may be secret: user, password, query, and the name of an upload session.
    pub url: &'a str,
    /// The outcome.
    pub outcome: RequestOutcome<'a>,
}

/// The outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestOutcome<'a> {
    /// The server answered. The body may not have been read yet.
    Answered {
        /// The HTTP status.
        status: u16,
        /// The time from the start of the request to the first byte of the answer.
        time: Duration,
    },
    /// The server did not answer.
    Failed {
        /// The reason.
        problem: &'a str,
        /// The time from the start of the request to the failure.
        time: Duration,
    },
    /// The request will be retried.
    Retried {
        /// The delay before the retry.
        pause: Duration,
        /// Number of failed attempts so far.
        failures: u32,
    },
}

/// Observes the requests of a client. It is called from several tasks and should return quickly.
pub trait RequestObserver: Debug + Send + Sync + 'static {
    /// Is called for each event of a request.
    fn request(&self, event: RequestEvent<'_>);

    /// Is called when the credential for a registry cannot be read: a file is unreadable, or a credential helper is
    /// missing or fails. Requests are made without a credential.
    fn credential_failed(&self, registry: &Registry, problem: &str) {
        let _ = (registry, problem);
    }
}

/// Reports to the observer, if there is one.
#[derive(Debug, Clone, Default)]
pub(crate) struct ObserverHandle(pub(crate) Option<Arc<dyn RequestObserver>>);

impl ObserverHandle {
    pub(crate) fn outcome(&self, method: &Method, url: &Url, outcome: &Result<u16, &Fault>, time: Duration) {
        let Some(observer) = &self.0 else { return };
        let problem = outcome.as_ref().map_or_else(ToString::to_string, |_| String::new());
        let outcome = match outcome {
            Ok(status) => RequestOutcome::Answered { status: *status, time },
            Err(_) => RequestOutcome::Failed { problem: &problem, time },
        };
        observer.request(RequestEvent { method: method.as_str(), url: &shown(url), outcome });
    }

    pub(crate) fn credential_failed(&self, registry: &Registry, problem: &str) {
        if let Some(observer) = &self.0 {
            observer.credential_failed(registry, problem);
        }
    }

    pub(crate) fn retried(&self, method: &Method, url: &Url, pause: Duration, failures: u32) {
        let Some(observer) = &self.0 else { return };
        let outcome = RequestOutcome::Retried { pause, failures };
        observer.request(RequestEvent { method: method.as_str(), url: &shown(url), outcome });
    }
}

/// Returns a URL without secrets. The name of an upload session is one, since it may be all that is needed to write to
/// the session.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    const UPLOADS: &str = "/blobs/uploads/";
    match url.as_str().find(UPLOADS) {
        Some(at) if url.as_str().len() > at + UPLOADS.len() => format!("{}…", &url.as_str()[..at + UPLOADS.len()]),
        _ => url.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observed_urls_contain_no_secrets() {
        for (url, expected) in [
            ("https://a/v2/x/manifests/1", "https://a/v2/x/manifests/1"),
            (
                "https://user:secret@a:5000/v2/x/blobs/sha256:ab?token=secret#secret",
                "https://a:5000/v2/x/blobs/sha256:ab",
            ),
            ("https://a/v2/x/blobs/uploads/", "https://a/v2/x/blobs/uploads/"),
            ("https://a/v2/x/blobs/uploads/?digest=sha256:ab&mount=secret", "https://a/v2/x/blobs/uploads/"),
            ("https://a/v2/x/blobs/uploads/secret?_state=secret", "https://a/v2/x/blobs/uploads/…"),
            ("https://a/v2/x/blobs/uploads/secret/secret", "https://a/v2/x/blobs/uploads/…"),
            ("https://a/token?service=a&scope=b&account=c", "https://a/token"),
        ] {
            assert_eq!(shown(&url.parse().unwrap()), expected);
        }
    }
}
