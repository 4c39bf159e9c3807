//! How many requests a host gets at once.

use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::transport::lock;

/// How many are let through, found out as TCP does: one more for every round that went well, half when the host says
/// that it is too much.
#[derive(Debug)]
struct Window {
    most: f64,
    size: f64,
    running: usize,
    /// How many of those that run now began before the size was halved: their complaints are about the old size.
    old: usize,
}

impl Window {
    fn new(most: usize) -> Window {
        let most = most.max(1) as f64;
        Window { most, size: most, running: 0, old: 0 }
    }

    fn begin(&mut self) -> bool {
        let free = (self.running as f64) < self.size;
        if free {
            self.running += 1;
        }
        free
    }

    fn end(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Overload if self.old == 0 => {
                self.size = (self.size / 2.0).max(1.0).floor();
                self.old = self.running;
            }
            Outcome::Fine => self.size = (self.size + 1.0 / self.size).min(self.most),
            Outcome::Overload | Outcome::Other => {}
        }
        self.old = self.old.saturating_sub(1);
        self.running = self.running.saturating_sub(1);
    }
}

/// How a request went, as far as the number of requests is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
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

/// Permission for one request, given back when it goes.
#[derive(Debug)]
pub(crate) struct Permit {
    limit: Arc<Limit>,
    outcome: Outcome,
}

impl Limit {
    pub(crate) fn new(most: usize) -> Arc<Limit> {
        Arc::new(Limit { window: Mutex::new(Window::new(most)), free: Notify::new() })
    }

    pub(crate) async fn begin(self: &Arc<Limit>) -> Permit {
        loop {
            let mut freed = std::pin::pin!(self.free.notified());
            // What is freed after the look below is not missed, though several look at the same time.
            freed.as_mut().enable();
            if lock(&self.window).begin() {
                return Permit { limit: self.clone(), outcome: Outcome::Other };
            }
            freed.await;
        }
    }
}

impl Permit {
    pub(crate) fn end(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        lock(&self.limit.window).end(self.outcome);
        // A grown window has room for one more.
        self.limit.free.notify_one();
        self.limit.free.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_once_for_all_that_ran_together_and_grows_again() {
        let mut window = Window::new(8);
        assert_eq!((0..10).filter(|_| window.begin()).count(), 8);
        for _ in 0..8 {
            window.end(Outcome::Overload);
        }
        assert_eq!((window.size, window.running), (4.0, 0));
        assert!(window.begin());
        window.end(Outcome::Overload);
        assert_eq!(window.size, 2.0);
        for _ in 0..100 {
            assert!(window.begin());
            window.end(Outcome::Fine);
        }
        assert_eq!(window.size, 8.0);
    }

    #[test]
    fn one_is_always_let_through() {
        let mut window = Window::new(0);
        for _ in 0..10 {
            assert!(window.begin());
            window.end(Outcome::Overload);
        }
    }

    #[tokio::test]
    async fn nobody_waits_forever() {
        let limit = Limit::new(3);
        let tasks: Vec<_> = (0..100)
            .map(|number| {
                let limit = limit.clone();
                tokio::spawn(async move {
                    let permit = limit.begin().await;
                    tokio::task::yield_now().await;
                    permit.end(if number % 7 == 0 { Outcome::Overload } else { Outcome::Fine });
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(lock(&limit.window).running, 0);
    }
}
