use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// The time at which a signature is made.
///
/// ```
/// use std::time::{Duration, UNIX_EPOCH};
/// use ocikit_sign::Created;
///
/// let seconds = 1_767_225_600;
/// assert_eq!(Created::from(seconds), Created::from(UNIX_EPOCH + Duration::from_secs(seconds)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Created(Timestamp);

impl Created {
    /// Returns the time.
    pub fn timestamp(self) -> Timestamp {
        self.0
    }
}

impl From<Timestamp> for Created {
    fn from(time: Timestamp) -> Created {
        Created(time)
    }
}

impl From<SystemTime> for Created {
    /// Returns the time; the last representable one, in the year 9999, for a later time, and the first for an earlier.
    fn from(time: SystemTime) -> Created {
        let limit = if time < UNIX_EPOCH { Timestamp::MIN } else { Timestamp::MAX };
        Created(Timestamp::try_from(time).unwrap_or(limit))
    }
}

impl From<u64> for Created {
    /// Returns the time that many seconds after 1970, as in `SOURCE_DATE_EPOCH`; the last representable one, in the year
    /// 9999, for a later time.
    fn from(seconds: u64) -> Created {
        let time = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
        Created(time.unwrap_or(Timestamp::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_of_all_types_are_the_same() {
        let jiff = Timestamp::from_second(1_767_225_600).unwrap();
        let system = UNIX_EPOCH + Duration::from_secs(1_767_225_600);
        assert_eq!(Created::from(jiff), Created::from(system));
        assert_eq!(Created::from(jiff), Created::from(1_767_225_600));
        assert_eq!(Created::from(u64::MAX).timestamp(), Timestamp::MAX);
        assert_eq!(Created::from(UNIX_EPOCH + Duration::from_secs(1 << 50)).timestamp(), Timestamp::MAX);
    }
}
