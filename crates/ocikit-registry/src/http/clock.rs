use std::collections::hash_map::RandomState;
use std::fmt::Debug;
use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::pin::Pin;
use std::time::{Duration, SystemTime};

/// Time and chance, as a client sees them: when tokens end, how long it waits before it tries again, and by how much
/// that varies.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The time.
    fn now(&self) -> SystemTime;

    /// Waits.
    fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>>;

    /// A number that nobody can foresee, so that many clients that failed together do not come back together.
    fn random(&self) -> u64;
}

/// The clock of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(time))
    }

    fn random(&self) -> u64 {
        // Every state has keys of its own, drawn from the system's randomness.
        RandomState::new().build_hasher().finish()
    }
}
