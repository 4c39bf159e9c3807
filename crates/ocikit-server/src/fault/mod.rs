//! Misbehaving on request, which is how the resilience of clients is tested.

mod action;
mod apply;
mod body;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::log::Kind;

pub use action::{Action, Location, Point, Reply};
pub(crate) use apply::{Cut, Quirks, Scene, Troubles};

/// Something that goes wrong: for which requests, when, and how.
///
/// ```
/// use ocikit_server::{Action, Fault, Reply};
///
/// // The second time that a blob is asked for, the registry is overloaded.
/// let busy = Reply { headers: vec![("retry-after".into(), "1".into())], ..Reply::status(503) };
/// let fault = Fault::on("GET /v2/**/blobs/*", Action::Answer(busy)).nth(2);
/// ```
#[derive(Debug, Clone)]
pub struct Fault {
    kind: Kind,
    when: When,
    action: Action,
}

/// Which of the matching requests a fault happens to; they are counted from 1.
#[derive(Debug, Clone, Copy, PartialEq)]
enum When {
    Always,
    First(u64),
    Nth(u64),
    After(u64),
    Sometimes { probability: f64, seed: u64 },
}

impl Fault {
    /// Something that goes wrong with every request of a kind.
    ///
    /// A kind is a method and a [`Pattern`](crate::Pattern) for the path, `GET /v2/**/blobs/*`; `*` in place of the
    /// method is any. A pattern with a question mark is held against path and query.
    pub fn on(kind: &str, action: Action) -> Fault {
        Fault { kind: Kind::parse(kind), when: When::Always, action }
    }

    /// Only with this many of them, the first ones.
    pub fn first(self, times: u64) -> Fault {
        Fault { when: When::First(times), ..self }
    }

    /// Only with one of them, counted from 1.
    pub fn nth(self, nth: u64) -> Fault {
        Fault { when: When::Nth(nth), ..self }
    }

    /// Only with those that follow this many.
    pub fn after(self, times: u64) -> Fault {
        Fault { when: When::After(times), ..self }
    }

    /// Only with some of them, out of 1; the same seed chooses the same ones.
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

/// A number from 0 up to 1 that looks random: splitmix64 of seed and position.
fn fraction(seed: u64, nth: u64) -> f64 {
    let mut state = seed.wrapping_add(nth.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^= state >> 31;
    (state >> 11) as f64 / (1_u64 << 53) as f64
}

/// What goes wrong at present; it can be changed while the server runs. Clones are the same list.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<Vec<Armed>>>);

#[derive(Debug)]
struct Armed {
    fault: Fault,
    /// How many requests matched.
    seen: u64,
    happened: Arc<AtomicU64>,
}

impl Faults {
    /// Nothing goes wrong.
    pub fn new() -> Faults {
        Faults::default()
    }

    /// From now on this goes wrong, after what goes wrong already. Several faults can happen to one request.
    pub fn add(&self, fault: Fault) -> Active {
        let happened = Arc::new(AtomicU64::new(0));
        self.lock().push(Armed { fault, seen: 0, happened: happened.clone() });
        Active { happened, faults: self.clone() }
    }

    /// Nothing goes wrong any more.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// What happens to this request; it counts.
    pub(crate) fn strike(&self, method: &str, path: &str, query: Option<&str>) -> Troubles {
        let mut actions = Vec::new();
        for armed in self.lock().iter_mut().filter(|armed| armed.fault.kind.matches(method, path, query)) {
            armed.seen += 1;
            if armed.fault.when.happens(armed.seen) {
                armed.happened.fetch_add(1, Ordering::SeqCst);
                actions.push(armed.fault.action.clone());
            }
        }
        Troubles::new(actions)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Armed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A fault that was added.
#[derive(Debug, Clone)]
pub struct Active {
    happened: Arc<AtomicU64>,
    faults: Faults,
}

impl Active {
    /// How many times it has happened.
    pub fn happened(&self) -> u64 {
        self.happened.load(Ordering::SeqCst)
    }

    /// From now on it happens no more.
    pub fn remove(&self) {
        self.faults.lock().retain(|armed| !Arc::ptr_eq(&armed.happened, &self.happened));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn happens(when: When) -> Vec<u64> {
        (1..=5).filter(|nth| when.happens(*nth)).collect()
    }

    #[test]
    fn a_fault_happens_when_it_should() {
        assert_eq!(happens(When::Always), [1, 2, 3, 4, 5]);
        assert_eq!(happens(When::First(2)), [1, 2]);
        assert_eq!(happens(When::Nth(2)), [2]);
        assert_eq!(happens(When::After(3)), [4, 5]);
    }

    #[test]
    fn chance_is_fair_and_repeats_itself() {
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
            assert_eq!(!faults.strike(method, path, None).is_empty(), struck, "{method} {path}");
        }
        assert_eq!(active.happened(), 1);
        active.remove();
        assert!(faults.lock().is_empty());
    }
}
