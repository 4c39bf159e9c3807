//! Limits the number of concurrent requests per host.

use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::lock::lock;

/// The number of requests that may run, adapted as TCP adapts its congestion window: it grows by one per successful
/// round, and is halved when the host reports overload.
#[derive(Debug)]
struct Window {
    max: f64,
    size: f64,
    running: usize,
    /// Number of running requests that began before the window was halved. Their overload reports concern the old size
    /// and are ignored.
    before_halving: usize,
}

impl Window {
    fn new(max: usize) -> Window {
        let max = max.max(1) as f64;
        Window { max, size: max, running: 0, before_halving: 0 }
    }

    fn begin(&mut self) -> bool {
        let free = (self.running as f64) < self.size;
        if free {
            self.running += 1;
        }
        free
    }

    fn end(&mut self, outcome: LoadReport) {
        match outcome {
            LoadReport::Overload if self.before_halving == 0 => {
                self.size = (self.size / 2.0).max(1.0).floor();
                self.before_halving = self.running;
            }
            LoadReport::Fine => self.size = (self.size + 1.0 / self.size).min(self.max),
            LoadReport::Overload | LoadReport::Other => {}
        }
        self.before_halving = self.before_halving.saturating_sub(1);
        self.running = self.running.saturating_sub(1);
    }
}

/// The outcome of a request, as far as the window is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LoadReport {
    Fine,
    Overload,
    Other,
}

/// The limit of one host.
#[derive(Debug)]
pub(crate) struct Limit {
    window: Mutex<Window>,
    free: Notify,
}

/// Permission for one request. Dropping it returns it.
#[derive(Debug)]
pub(crate) struct Permit {
    limit: Arc<Limit>,
    outcome: LoadReport,
}

impl Limit {
    pub(crate) fn new(max: usize) -> Arc<Limit> {
        Arc::new(Limit { window: Mutex::new(Window::new(max)), free: Notify::new() })
    }

    pub(crate) async fn begin(self: &Arc<Limit>) -> Permit {
        loop {
            let mut freed = std::pin::pin!(self.free.notified());
            // Registers before checking, so that a permit freed after the check is not missed.
            freed.as_mut().enable();
            if lock(&self.window).begin() {
                return Permit { limit: self.clone(), outcome: LoadReport::Other };
            }
            freed.await;
        }
    }
}

impl Permit {
    pub(crate) fn end(mut self, outcome: LoadReport) {
        self.outcome = outcome;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        lock(&self.limit.window).end(self.outcome);
        // A window that has grown has room for two waiting requests.
        self.limit.free.notify_one();
        self.limit.free.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_halves_once_per_round_and_grows_again() {
        let mut window = Window::new(8);
        assert_eq!((0..10).filter(|_| window.begin()).count(), 8);
        for _ in 0..8 {
            window.end(LoadReport::Overload);
        }
        assert_eq!((window.size, window.running), (4.0, 0));
        assert!(window.begin());
        window.end(LoadReport::Overload);
        assert_eq!(window.size, 2.0);
        for _ in 0..100 {
            assert!(window.begin());
            window.end(LoadReport::Fine);
        }
        assert_eq!(window.size, 8.0);
    }

    #[test]
    fn window_never_falls_below_one() {
        let mut window = Window::new(0);
        for _ in 0..10 {
            assert!(window.begin());
            window.end(LoadReport::Overload);
        }
    }

    #[tokio::test]
    async fn every_waiting_request_gets_a_permit() {
        let limit = Limit::new(3);
        let tasks: Vec<_> = (0..100)
            .map(|number| {
                let limit = limit.clone();
                tokio::spawn(async move {
                    let permit = limit.begin().await;
                    tokio::task::yield_now().await;
                    permit.end(if number % 7 == 0 { LoadReport::Overload } else { LoadReport::Fine });
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(lock(&limit.window).running, 0);
    }
}
