//! Injects faults, to test the resilience of clients.

mod action;
mod apply;
mod body;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::log::RequestKind;

pub use action::{Action, Location, Point, Reply};
pub(crate) use apply::{FaultContext, Quirks, RequestFaults};
pub(crate) use body::Cut;

/// A fault: the requests that it affects, when, and how.
///
/// ```
/// use ocikit_server::{Action, Fault, Reply};
///
/// // The second request for a blob is answered with 503.
/// let busy = Reply::status(503).headers(vec![("retry-after".into(), "1".into())]);
/// let fault = Fault::on("GET /v2/**/blobs/*", Action::Answer(busy)).nth(2);
/// ```
#[derive(Debug, Clone)]
pub struct Fault {
    kind: RequestKind,
    when: When,
    action: Action,
}

/// Which of the matching requests are affected, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq)]
enum When {
    Always,
    First(u64),
    Nth(u64),
    After(u64),
    Sometimes { probability: f64, seed: u64 },
}

impl Fault {
    /// Creates a fault for all requests of a kind.
    ///
    /// A kind is a method and a [`Pattern`](crate::Pattern) for the path, such as `GET /v2/**/blobs/*`; `*` matches any
    /// method. A pattern with a question mark is matched against path and query.
    pub fn on(kind: &str, action: Action) -> Fault {
        Fault { kind: RequestKind::parse(kind), when: When::Always, action }
    }

    /// Affects only the first `times` requests.
    pub fn first(self, times: u64) -> Fault {
        Fault { when: When::First(times), ..self }
    }

    /// Affects only one request, counted from 1.
    pub fn nth(self, nth: u64) -> Fault {
        Fault { when: When::Nth(nth), ..self }
    }

    /// Affects only the requests after the first `times`.
    pub fn after(self, times: u64) -> Fault {
        Fault { when: When::After(times), ..self }
    }

    /// Affects each request with a probability from 0 to 1. The same seed selects the same requests.
    pub fn sometimes(self, probability: f64, seed: u64) -> Fault {
        Fault { when: When::Sometimes { probability, seed }, ..self }
    }
}

impl When {
    fn happens(self, nth: u64) -> bool {
        match self {
            When::Always => true,
            When::First(times) => nth <= times,
            When::Nth(only) => nth == only,
            When::After(times) => nth > times,
            When::Sometimes { probability, seed } => fraction(seed, nth) < probability,
        }
    }
}

/// Returns a pseudorandom number from 0 (inclusive) to 1 (exclusive): splitmix64 of seed and position.
fn fraction(seed: u64, nth: u64) -> f64 {
    let mut state = seed.wrapping_add(nth.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^= state >> 31;
    (state >> 11) as f64 / (1_u64 << 53) as f64
}

/// The active faults, which can be changed while the server runs. Clones share one list.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<Vec<FaultEntry>>>);

#[derive(Debug)]
struct FaultEntry {
    fault: Fault,
    /// Number of requests that have matched.
    seen: u64,
    happened: Arc<AtomicU64>,
}

impl Faults {
    /// Creates an empty list.
    pub fn new() -> Faults {
        Faults::default()
    }

    /// Adds a fault after the existing ones. Several faults can affect one request.
    pub fn add(&self, fault: Fault) -> Active {
        let happened = Arc::new(AtomicU64::new(0));
        self.lock().push(FaultEntry { fault, seen: 0, happened: happened.clone() });
        Active { happened, faults: self.clone() }
    }

    /// Removes all faults.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// Returns the faults of a request, and counts it.
    pub(crate) fn faults_of(&self, method: &str, path: &str, query: Option<&str>) -> RequestFaults {
        let mut actions = Vec::new();
        for entry in self.lock().iter_mut().filter(|entry| entry.fault.kind.matches(method, path, query)) {
            entry.seen += 1;
            if entry.fault.when.happens(entry.seen) {
                entry.happened.fetch_add(1, Ordering::SeqCst);
                actions.push(entry.fault.action.clone());
            }
        }
        RequestFaults::new(actions)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<FaultEntry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A fault in the list.
#[derive(Debug, Clone)]
pub struct Active {
    happened: Arc<AtomicU64>,
    faults: Faults,
}

impl Active {
    /// Returns how many requests the fault has affected.
    pub fn happened(&self) -> u64 {
        self.happened.load(Ordering::SeqCst)
    }

    /// Removes the fault.
    pub fn remove(&self) {
        self.faults.lock().retain(|entry| !Arc::ptr_eq(&entry.happened, &self.happened));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn happens(when: When) -> Vec<u64> {
        (1..=5).filter(|nth| when.happens(*nth)).collect()
    }

    #[test]
    fn faults_affect_the_selected_requests() {
        assert_eq!(happens(When::Always), [1, 2, 3, 4, 5]);
        assert_eq!(happens(When::First(2)), [1, 2]);
        assert_eq!(happens(When::Nth(2)), [2]);
        assert_eq!(happens(When::After(3)), [4, 5]);
    }

    #[test]
    fn probability_is_fair_and_reproducible() {
        let count =
            |probability, seed| (1..=10_000).filter(|nth| When::Sometimes { probability, seed }.happens(*nth)).count();
        assert_eq!(count(0.0, 1), 0);
        assert_eq!(count(1.0, 1), 10_000);
        assert!((1_800..2_200).contains(&count(0.2, 7)), "{}", count(0.2, 7));
        let chosen = |seed| happens(When::Sometimes { probability: 0.5, seed });
        assert_eq!(chosen(3), chosen(3));
        assert!((0..20).any(|seed| chosen(seed) != chosen(3)));
    }

    #[test]
    fn only_matching_requests_count() {
        let faults = Faults::new();
        let active = faults.add(Fault::on("GET /v2/**/blobs/*", Action::ExpireTokens).nth(2));
        for (method, path, struck) in [
            ("GET", "/v2/a/blobs/x", false),
            ("HEAD", "/v2/a/blobs/x", false),
            ("GET", "/v2/a/manifests/x", false),
            ("GET", "/v2/a/blobs/y", true),
            ("GET", "/v2/a/blobs/y", false),
        ] {
            assert_eq!(!faults.faults_of(method, path, None).is_empty(), struck, "{method} {path}");
        }
        assert_eq!(active.happened(), 1);
        active.remove();
        assert!(faults.lock().is_empty());
    }
}
