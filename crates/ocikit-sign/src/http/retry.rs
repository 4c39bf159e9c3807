//! Whether to ask a service again, and when. The client of registries decides in the same way, and neither crate sees the
//! other.

use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand;
use jiff::Timestamp;
use reqwest::Url;

use super::{HttpAnswer, chain, failed};
use crate::error::Result;

/// How often and how patiently a service is asked again.
#[derive(Debug, Clone)]
pub struct HttpRetries {
    /// How often it is asked at most, the first time included.
    pub attempts: u32,
    /// How long to wait after the first failure; after every further one it is twice as long.
    pub first: Duration,
    /// How long to wait at most.
    pub longest: Duration,
    /// How long a service may ask us to wait. One that asks for more has failed.
    pub patience: Duration,
}

impl Default for HttpRetries {
    /// As registries are asked: six attempts within about ten seconds, up to two minutes each where the service asks for it.
    fn default() -> HttpRetries {
        HttpRetries {
            attempts: 6,
            first: Duration::from_millis(250),
            longest: Duration::from_secs(15),
            patience: Duration::from_secs(120),
        }
    }
}

impl HttpRetries {
    /// Asks once.
    pub fn never() -> HttpRetries {
        HttpRetries { attempts: 1, ..HttpRetries::default() }
    }

    /// How long to wait before a service that was asked so often is asked again, if that may help.
    pub(super) fn after(&self, attempts: u32, outcome: &Result<HttpAnswer, Fault>) -> Option<Duration> {
        let asked = match outcome {
            Ok(answer) if is_passing(answer.status) => answer.retry_after,
            Err(fault) if !fault.is_final => None,
            _ => return None,
        };
        let mut random = [0; 8];
        // Without randomness everyone comes back at the same time, and that is all.
        let _ = rand::fill(&mut random);
        self.pause(attempts, asked, u64::from_be_bytes(random))
    }

    /// The wait is between half and all of what the schedule says; what the service asked for is never cut short.
    fn pause(&self, attempts: u32, asked: Option<Duration>, random: u64) -> Option<Duration> {
        if attempts >= self.attempts || asked.is_some_and(|asked| asked > self.patience) {
            return None;
        }
        let doubled = 2u32.saturating_pow(attempts.saturating_sub(1));
        let planned = self.first.saturating_mul(doubled).min(self.longest);
        let chance = random as f64 / u64::MAX as f64;
        let varied = planned.mul_f64(0.5 + chance / 2.0);
        Some(match asked {
            // Everyone who was told the same moment would come back at once.
            Some(asked) => asked.max(varied).saturating_add(self.first.mul_f64(chance)),
            None => varied,
        })
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) struct Fault {
    problem: String,
    /// It would be the same again.
    is_final: bool,
}

impl Fault {
    pub(super) fn last(problem: String) -> Fault {
        Fault { problem, is_final: true }
    }
}

impl From<reqwest::Error> for Fault {
    fn from(error: reqwest::Error) -> Fault {
        let error = error.without_url();
        // What TLS finds in a connection that stands is what became of the bytes on the way.
        let is_refused = error.is_connect() && causes(&error).any(|cause| cause.is::<rustls::Error>());
        Fault { problem: chain(&error), is_final: is_refused || error.is_builder() }
    }
}

fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn StdError + 'static)| cause(*error))
}

/// An IO error passes over what it wraps when it is asked for its source.
fn cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
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

/// Whether a service that answers with this status may answer otherwise a little later.
fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// Reads a `Retry-After` header: seconds, or a date.
pub(super) fn retry_after(header: &str, now: SystemTime) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(header).ok()?;
    Some(SystemTime::from(Timestamp::from(&date)).duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_longer_each_time_and_as_long_as_it_is_asked_to() {
        let second = Duration::from_secs(1);
        let retries = HttpRetries { attempts: 5, first: second, longest: 5 * second, ..HttpRetries::default() };
        for (attempts, asked, random, expected) in [
            (1, None, u64::MAX, Some(1)),
            (2, None, u64::MAX, Some(2)),
            (3, None, u64::MAX, Some(4)),
            (3, None, 0, Some(2)),
            (4, None, u64::MAX, Some(5)),
            (5, None, u64::MAX, None),
            (1, Some(30), 0, Some(30)),
            (1, Some(30), u64::MAX, Some(31)),
            (1, Some(0), u64::MAX, Some(2)),
            (1, Some(120), 0, Some(120)),
            (1, Some(121), 0, None),
        ] {
            let pause = retries.pause(attempts, asked.map(Duration::from_secs), random);
            assert_eq!(pause, expected.map(Duration::from_secs), "{attempts} {asked:?}");
        }
        assert_eq!(HttpRetries::never().pause(1, None, 0), None);
    }

    #[test]
    fn reads_seconds_and_dates() {
        let now = SystemTime::from("1994-11-06T08:49:30Z".parse::<Timestamp>().unwrap());
        for (header, seconds) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(7)),
            ("Sun, 06 Nov 1994 08:49:07 GMT", Some(0)),
            ("", None),
            ("-1", None),
            ("soon", None),
        ] {
            assert_eq!(retry_after(header, now), seconds.map(Duration::from_secs), "{header}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_read_or_ignored(header in ".*", random: u64, attempts in 1u32..100) {
            let retries = HttpRetries { attempts: u32::MAX, ..HttpRetries::default() };
            let asked = retry_after(&header, SystemTime::UNIX_EPOCH);
            if let Some(pause) = retries.pause(attempts, asked, random) {
                proptest::prop_assert!(pause <= retries.patience + retries.first);
            }
        }
    }
}
