use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// The source of the time, which expires tokens and idle uploads.
///
/// Clones share one clock, so a test keeps a clone and advances it.
#[derive(Clone)]
pub struct Clock {
    stopped_at: Option<SystemTime>,
    /// In milliseconds.
    ahead: Arc<AtomicU64>,
}

impl Clock {
    /// Uses the clock of the operating system.
    pub fn system() -> Clock {
        Clock { stopped_at: None, ahead: Arc::default() }
    }

    /// Creates a clock that stands still until it is advanced.
    pub fn stopped(at: SystemTime) -> Clock {
        Clock { stopped_at: Some(at), ahead: Arc::default() }
    }

    /// Advances the clock.
    pub fn advance(&self, by: Duration) {
        self.ahead.fetch_add(by.as_millis().try_into().unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    pub(crate) fn now(&self) -> SystemTime {
        let ahead = Duration::from_millis(self.ahead.load(Ordering::SeqCst));
        let base = self.stopped_at.unwrap_or_else(SystemTime::now);
        base.checked_add(ahead).unwrap_or(base)
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::system()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.stopped_at.is_some() { "Clock (stopped)" } else { "Clock" })
    }
}
