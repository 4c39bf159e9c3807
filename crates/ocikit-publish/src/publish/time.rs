use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use ocikit::image::{Event, Observer};
use ocikit::registry::Clock;

/// Records when each target has the whole image, and passes all events on.
#[derive(Debug)]
pub(super) struct Stopwatch {
    inner: Option<Arc<dyn Observer>>,
    clock: Arc<dyn Clock>,
    started: SystemTime,
    stored: Mutex<HashMap<String, Duration>>,
}

impl Stopwatch {
    pub(super) fn start(clock: Arc<dyn Clock>, inner: Option<Arc<dyn Observer>>) -> Arc<Stopwatch> {
        Arc::new(Stopwatch { inner, started: clock.now(), clock, stored: Mutex::default() })
    }

    /// Returns the time since the start; zero if the clock was set back.
    pub(super) fn elapsed(&self) -> Duration {
        self.clock.now().duration_since(self.started).unwrap_or_default()
    }

    /// Returns when a target had the image, by its name.
    pub(super) fn stored(&self, target: &str) -> Option<Duration> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).get(target).copied()
    }
}

impl Observer for Stopwatch {
    fn event(&self, event: Event<'_>) {
        if let Event::Stored { target } = event {
            let elapsed = self.elapsed();
            self.stored.lock().unwrap_or_else(PoisonError::into_inner).insert(target.to_owned(), elapsed);
        }
        if let Some(inner) = &self.inner {
            inner.event(event);
        }
    }
}
