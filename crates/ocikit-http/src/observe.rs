//! Reports requests to an observer, without secrets.

use std::fmt::Debug;
use std::time::Duration;

use ocikit_spec::Registry;

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
