//! Whether to ask a server again, and when: the same for registries and for the services around signing.

use std::error::Error;
use std::io;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

/// How often and how patiently a request is made again.
#[derive(Debug, Clone)]
pub struct RetryOptions {
    /// How often a request is made at most, the first time included. An upload or download that gets on between two
    /// failures begins to count anew.
    pub attempts: u32,
    /// How long to wait after the first failure; after every further one it is twice as long.
    pub first: Duration,
    /// How long to wait at most.
    pub longest: Duration,
    /// How long a server may ask us to wait. One that asks for more has failed.
    pub patience: Duration,
}

impl Default for RetryOptions {
    /// Six attempts within about ten seconds; up to two minutes each where the server asks for it.
    fn default() -> RetryOptions {
        RetryOptions {
            attempts: 6,
            first: Duration::from_millis(250),
            longest: Duration::from_secs(15),
            patience: Duration::from_secs(120),
        }
    }
}

impl RetryOptions {
    /// Never tries again.
    pub fn never() -> RetryOptions {
        RetryOptions { attempts: 1, ..RetryOptions::default() }
    }

    /// The same for failures that hardly ever pass, such as a refused connection: at most 3 attempts within a second.
    pub fn briefly(&self) -> RetryOptions {
        let first = self.first.min(Duration::from_millis(250));
        RetryOptions { attempts: self.attempts.min(3), first, ..self.clone() }
    }

    /// How long to wait after so many failures, if it is worth trying again; `random` is any number. The wait is between
    /// half and all of what the schedule says; what the server asked for is never cut short.
    pub fn pause(&self, failures: u32, asked: Option<Duration>, random: u64) -> Option<Duration> {
        if failures >= self.attempts || asked.is_some_and(|asked| asked > self.patience) {
            return None;
        }
        let doubled = 2u32.saturating_pow(failures.saturating_sub(1));
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

/// Whether a server that answers with this status may answer otherwise a little later.
pub fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// Whether this status says that a server has too much to do.
pub fn is_overload(status: u16) -> bool {
    matches!(status, 429 | 503)
}

/// Reads a `Retry-After` header (RFC 9110, 10.2.3): seconds, or a date. `None` if it is neither.
pub fn retry_after(header: &str, now: SystemTime) -> Option<Duration> {
    let header = header.trim();
    if !header.is_empty() && header.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are more than anybody waits for.
        return Some(Duration::from_secs(header.parse().unwrap_or(u64::MAX)));
    }
    let date = jiff::fmt::rfc2822::parse(header).ok()?;
    Some(SystemTime::from(Timestamp::from(&date)).duration_since(now).unwrap_or_default())
}

/// An error and everything that it goes back to: what it says of itself does not tell whether another attempt may help.
pub fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| cause(*error))
}

/// An IO error passes over what it wraps when it is asked for its source.
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
            first: Duration::from_secs(1),
            longest: Duration::from_secs(5),
            ..Default::default()
        }
    }

    #[test]
    fn waits_longer_each_time_and_then_gives_up() {
        let pauses: Vec<_> = (1..=5).map(|failures| options().pause(failures, None, u64::MAX)).collect();
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(pauses, [seconds(1), seconds(2), seconds(4), seconds(5), None]);
        assert_eq!(options().pause(3, None, 0), seconds(2));
        assert_eq!(RetryOptions::never().pause(1, None, 0), None);
    }

    #[test]
    fn what_hardly_ever_passes_is_given_up_within_a_second() {
        let pauses: Vec<_> =
            (1..=5).map_while(|failures| options().briefly().pause(failures, None, u64::MAX)).collect();
        assert!(pauses.len() == 2 && pauses.iter().sum::<Duration>() < Duration::from_secs(1), "{pauses:?}");
        assert_eq!(RetryOptions::never().briefly().pause(1, None, 0), None);
    }

    #[test]
    fn waits_as_long_as_it_is_asked_to() {
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
        fn no_wait_is_longer_than_allowed(failures in 1u32..100, random: u64, asked in proptest::option::of(0u64..200)) {
            let options = options();
            if let Some(pause) = options.pause(failures, asked.map(Duration::from_secs), random) {
                proptest::prop_assert!(failures < 5);
                proptest::prop_assert!(pause <= options.patience + options.first);
                proptest::prop_assert!(pause >= Duration::from_secs(asked.unwrap_or(0)));
            }
        }

        #[test]
        fn any_header_is_read_or_ignored(header in ".*") {
            retry_after(&header, SystemTime::UNIX_EPOCH);
        }
    }
}
