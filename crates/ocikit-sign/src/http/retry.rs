//! Asking a service again where a fault may pass.

use std::future::Future;
use std::time::Duration;

use aws_lc_rs::rand;
use ocikit_image::RetryOptions;
use ocikit_image::retry::{causes, is_passing};
use reqwest::Url;

use super::{HttpAnswer, chain, failed};
use crate::error::Result;

/// How long to wait before a service that was asked so often is asked again, if that may help.
pub(super) fn after(retries: &RetryOptions, attempts: u32, outcome: &Result<HttpAnswer, Fault>) -> Option<Duration> {
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
    // Without randomness everyone comes back at the same time, and that is all.
    let _ = rand::fill(&mut random);
    retries.pause(attempts, asked, u64::from_be_bytes(random))
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) struct Fault {
    problem: String,
    /// It would be the same again.
    is_final: bool,
    /// Another attempt hardly ever helps: nothing listens, or the name has no address.
    is_lasting: bool,
}

impl Fault {
    pub(super) fn last(problem: String) -> Fault {
        Fault { problem, is_final: true, is_lasting: false }
    }
}

impl From<reqwest::Error> for Fault {
    fn from(error: reqwest::Error) -> Fault {
        let error = error.without_url();
        // What TLS finds in a connection that stands is what became of the bytes on the way.
        let is_refused = error.is_connect() && causes(&error).any(|cause| cause.is::<rustls::Error>());
        let is_lasting = error.is_connect() && causes(&error).any(is_unreachable);
        Fault { problem: chain(&error), is_final: is_refused || error.is_builder(), is_lasting }
    }
}

/// Whether a connection was refused, or the name of the host was not resolved. The latter has no type of its own.
fn is_unreachable(cause: &(dyn std::error::Error + 'static)) -> bool {
    let kind = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    kind == Some(std::io::ErrorKind::ConnectionRefused) || cause.to_string() == "dns error"
}

/// Asks as often as `pause` gives a time to wait for, which gets how often that was and what came of it. The last outcome
/// counts.
pub(super) async fn again<A: Future<Output = Result<HttpAnswer, Fault>>>(
    url: &Url,
    ask: impl Fn() -> A,
    pause: impl Fn(u32, &Result<HttpAnswer, Fault>) -> Option<Duration>,
) -> Result<HttpAnswer> {
    let mut attempts = 0;
    loop {
        let outcome = ask().await;
        attempts += 1;
        match (pause(attempts, &outcome), outcome) {
            (Some(pause), _) => tokio::time::sleep(pause).await,
            (None, Ok(answer)) => return Ok(HttpAnswer { attempts, ..answer }),
            (None, Err(fault)) => return Err(failed(url, fault.problem + &times(attempts))),
        }
    }
}

/// How often a service was asked, to be put behind what is wrong; nothing if it was once.
pub(super) fn times(attempts: u32) -> String {
    if attempts > 1 { format!(", asked {attempts} times") } else { String::new() }
}
