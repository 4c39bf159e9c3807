//! Retries of requests to signing services.

use std::future::Future;
use std::time::Duration;

use aws_lc_rs::rand;
use ocikit_image::RetryOptions;
use ocikit_image::retry::{causes, is_passing};
use reqwest::Url;

use super::{HttpResponse, chain, failed};
use crate::error::Result;

/// Returns the delay before the next attempt, or `None` if a retry cannot help or enough attempts were made.
pub(super) fn after(
    retries: &RetryOptions,
    attempts: u32,
    outcome: &Result<HttpResponse, RequestError>,
) -> Option<Duration> {
    let asked = match outcome {
        Ok(answer) if is_passing(answer.status) => answer.retry_after,
        Err(fault) if !fault.is_final => None,
        _ => return None,
    };
    let retries = match outcome {
        Err(fault) if fault.is_lasting => &retries.briefly(),
        _ => retries,
    };
    let mut random = [0; 8];
    // Without randomness the delay has no jitter, which is acceptable.
    let _ = rand::fill(&mut random);
    retries.pause(attempts, asked, u64::from_be_bytes(random))
}

/// Why there is no response.
#[derive(Debug)]
pub(crate) struct RequestError {
    problem: String,
    /// A retry would fail in the same way.
    is_final: bool,
    /// A retry hardly ever helps: the connection was refused, or the host name was not resolved.
    is_lasting: bool,
}

impl RequestError {
    pub(super) fn last(problem: String) -> RequestError {
        RequestError { problem, is_final: true, is_lasting: false }
    }
}

impl From<reqwest::Error> for RequestError {
    fn from(error: reqwest::Error) -> RequestError {
        let error = error.without_url();
        // Only TLS errors during the handshake are final. Later ones mean that data was damaged in transit.
        let is_refused = error.is_connect() && causes(&error).any(|cause| cause.is::<rustls::Error>());
        let is_lasting = error.is_connect() && causes(&error).any(is_unreachable);
        RequestError { problem: chain(&error), is_final: is_refused || error.is_builder(), is_lasting }
    }
}

/// Returns whether a connection was refused or a host name was not resolved. The latter has no error type of its own.
fn is_unreachable(cause: &(dyn std::error::Error + 'static)) -> bool {
    let kind = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    kind == Some(std::io::ErrorKind::ConnectionRefused) || cause.to_string() == "dns error"
}

/// Calls `ask` until `pause` returns `None`. `pause` gets the number of attempts and the last outcome. Returns the
/// last outcome.
pub(super) async fn again<A: Future<Output = Result<HttpResponse, RequestError>>>(
    url: &Url,
    ask: impl Fn() -> A,
    pause: impl Fn(u32, &Result<HttpResponse, RequestError>) -> Option<Duration>,
) -> Result<HttpResponse> {
    let mut attempts = 0;
    loop {
        let outcome = ask().await;
        attempts += 1;
        match (pause(attempts, &outcome), outcome) {
            (Some(pause), _) => tokio::time::sleep(pause).await,
            (None, Ok(answer)) => return Ok(HttpResponse { attempts, ..answer }),
            (None, Err(fault)) => return Err(failed(url, fault.problem + &times(attempts))),
        }
    }
}

/// Returns the number of attempts as a suffix for an error message; empty for a single attempt.
pub(super) fn times(attempts: u32) -> String {
    if attempts > 1 { format!(", asked {attempts} times") } else { String::new() }
}
