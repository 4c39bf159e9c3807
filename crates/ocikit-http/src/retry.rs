//! Retries: whether and when to repeat a request.

use std::error::Error;
use std::io;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

/// The number and the timing of retries.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RetryOptions {
    /// The maximum number of attempts, including the first. The count starts again when an upload or download has made
    /// progress between two failures.
    pub attempts: u32,
    /// The delay after the first failure; it doubles after each further one.
    pub initial_delay: Duration,
    /// The maximum delay.
    pub max_delay: Duration,
    /// The maximum `Retry-After` that is honored. A request whose answer asks for a longer delay fails.
    pub max_retry_after: Duration,
}

ocikit_spec::setters! {
    RetryOptions {
        attempts: u32,
        initial_delay: Duration,
        max_delay: Duration,
        max_retry_after: Duration,
    }
}

impl Default for RetryOptions {
    /// Returns 6 attempts within about 10 seconds, and a `Retry-After` of up to 120 seconds.
    fn default() -> RetryOptions {
        RetryOptions {
            attempts: 6,
            initial_delay: Duration::from_millis(250),
            max_delay: Duration::from_secs(15),
            max_retry_after: Duration::from_secs(120),
        }
    }
}

impl RetryOptions {
    /// Returns options without retries.
    pub fn never() -> RetryOptions {
        RetryOptions { attempts: 1, ..RetryOptions::default() }
    }

    /// Returns the options for failures that rarely pass, such as a refused connection: at most 3 attempts within a
    /// second.
    pub fn briefly(&self) -> RetryOptions {
        let initial_delay = self.initial_delay.min(Duration::from_millis(250));
        RetryOptions { attempts: self.attempts.min(3), initial_delay, ..self.clone() }
    }

    /// Returns the delay after this many failures, or `None` if the request is not to be repeated; `random` is any
    /// number. The delay is between 50 and 100 percent of the schedule, and never shorter than `asked`, the
    /// `Retry-After` of the server.
    pub fn pause(&self, failures: u32, asked: Option<Duration>, random: u64) -> Option<Duration> {
        if failures >= self.attempts || asked.is_some_and(|asked| asked > self.max_retry_after) {
            return None;
        }
        let doubled = 2u32.saturating_pow(failures.saturating_sub(1));
        let planned = self.initial_delay.saturating_mul(doubled).min(self.max_delay);
        let chance = random as f64 / u64::MAX as f64;
        let varied = planned.mul_f64(0.5 + chance / 2.0);
        Some(match asked {
            // Jitter: otherwise all clients with the same `Retry-After` would return at the same moment.
            Some(asked) => asked.max(varied).saturating_add(self.initial_delay.mul_f64(chance)),
            None => varied,
        })
    }
}

/// Returns whether a request that was answered with this status may succeed later.
pub fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// Returns whether this status says that the server is overloaded.
pub fn is_overload(status: u16) -> bool {
    matches!(status, 429 | 503)
}

/// Parses a `Retry-After` header (RFC 9110, 10.2.3): seconds or a date. Returns `None` for anything else.
pub fn retry_after(header: &str, now: SystemTime) -> Option<Duration> {
    let header = header.trim();
    if !header.is_empty() && header.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number that exceeds 64 bits is longer than any accepted delay.
        return Some(Duration::from_secs(header.parse().unwrap_or(u64::MAX)));
    }
    let date = jiff::fmt::rfc2822::parse(header).ok()?;
    Some(SystemTime::from(Timestamp::from(&date)).duration_since(now).unwrap_or_default())
}

/// Returns an error and its chain of sources, which decide whether a retry may help.
pub fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| cause(*error))
}

/// The `source` of an IO error skips the error that it wraps.
fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> RetryOptions {
        RetryOptions {
            attempts: 5,
            initial_delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(5),
            ..Default::default()
        }
    }

    #[test]
    fn delay_doubles_up_to_the_last_attempt() {
        let pauses: Vec<_> = (1..=5).map(|failures| options().pause(failures, None, u64::MAX)).collect();
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(pauses, [seconds(1), seconds(2), seconds(4), seconds(5), None]);
        assert_eq!(options().pause(3, None, 0), seconds(2));
        assert_eq!(RetryOptions::never().pause(1, None, 0), None);
    }

    #[test]
    fn brief_retries_end_within_a_second() {
        let pauses: Vec<_> =
            (1..=5).map_while(|failures| options().briefly().pause(failures, None, u64::MAX)).collect();
        assert!(pauses.len() == 2 && pauses.iter().sum::<Duration>() < Duration::from_secs(1), "{pauses:?}");
        assert_eq!(RetryOptions::never().briefly().pause(1, None, 0), None);
    }

    #[test]
    fn retry_after_is_honored_up_to_its_limit() {
        let ask = |seconds, random| options().pause(1, Some(Duration::from_secs(seconds)), random);
        assert_eq!(ask(30, 0), Some(Duration::from_secs(30)));
        assert_eq!(ask(30, u64::MAX), Some(Duration::from_secs(31)));
        assert_eq!(ask(0, u64::MAX), Some(Duration::from_secs(2)));
        assert_eq!(ask(121, 0), None);
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
            ("99999999999999999999999999", Some(u64::MAX)),
            ("-1", None),
            ("soon", None),
            ("1.5", None),
        ] {
            assert_eq!(retry_after(header, now), seconds.map(Duration::from_secs), "{header}");
        }
    }

    proptest::proptest! {
        #[test]
        fn delay_never_exceeds_its_limit(failures in 1u32..100, random: u64, asked in proptest::option::of(0u64..200)) {
            let options = options();
            if let Some(pause) = options.pause(failures, asked.map(Duration::from_secs), random) {
                proptest::prop_assert!(failures < 5);
                proptest::prop_assert!(pause <= options.max_retry_after + options.initial_delay);
                proptest::prop_assert!(pause >= Duration::from_secs(asked.unwrap_or(0)));
            }
        }

        #[test]
        fn any_header_is_read_or_ignored(header in ".*") {
            retry_after(&header, SystemTime::UNIX_EPOCH);
        }
    }
}
