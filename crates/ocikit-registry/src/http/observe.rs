//! Telling what is asked of servers, without anything that nobody should see.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use ocikit_spec::Registry;
use reqwest::{Method, Url};

use super::fault::Fault;

/// Something that became of a request.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct RequestEvent<'a> {
    /// Its method.
    pub method: &'a str,
    /// Where it went, without what may be secret: names, passwords, the query, and the name of an upload's session.
    pub url: &'a str,
    /// What came of it.
    pub outcome: RequestOutcome<'a>,
}

/// What came of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestOutcome<'a> {
    /// There is an answer, whose body may be still to come.
    Answered {
        /// Its HTTP status.
        status: u16,
        /// How long it took from the beginning of the request to that of the answer.
        time: Duration,
    },
    /// There is none.
    Failed {
        /// Why.
        problem: &'a str,
        /// How long it took to find out.
        time: Duration,
    },
    /// It will be made again.
    Retried {
        /// After this time.
        pause: Duration,
        /// How often it has failed.
        failures: u32,
    },
}

/// Whoever wants to know what is asked of servers. It is called from several tasks and should not keep them waiting.
pub trait RequestObserver: Debug + Send + Sync + 'static {
    /// Something became of a request.
    fn request(&self, event: RequestEvent<'_>);

    /// The credential for a registry could not be found out: a file cannot be read, or a credential helper is missing or
    /// fails. Requests are made without.
    fn credential_failed(&self, registry: &Registry, problem: &str) {
        let _ = (registry, problem);
    }
}

/// Tells whoever wants to know, if there is anybody.
#[derive(Debug, Clone, Default)]
pub(crate) struct Teller(pub(crate) Option<Arc<dyn RequestObserver>>);

impl Teller {
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

/// What of a URL may be seen by everybody. Whoever knows the name of an upload's session may be able to write to it.
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
    fn nothing_secret_is_shown() {
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
