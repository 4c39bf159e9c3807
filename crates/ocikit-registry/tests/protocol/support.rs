use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use ocikit_registry::{Client, ClientOptions, Clock, RemoteRepository};

use crate::double::Double;

/// A clock without real delays: `sleep` advances it.
#[derive(Debug, Default)]
pub(crate) struct FakeClock {
    slept: Mutex<Vec<Duration>>,
}

impl FakeClock {
    /// The total of all delays so far.
    pub(crate) fn slept(&self) -> Vec<Duration> {
        self.slept.lock().unwrap().clone()
    }

    pub(crate) fn pass(&self, time: Duration) {
        self.slept.lock().unwrap().push(time);
    }
}

impl Clock for FakeClock {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000) + self.slept().iter().sum::<Duration>()
    }

    fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.pass(time);
        Box::pin(tokio::task::yield_now())
    }

    fn random(&self) -> u64 {
        u64::MAX / 2
    }
}

/// Options with a clock without real delays.
pub(crate) fn options() -> ClientOptions {
    ClientOptions::default().clock(Arc::new(FakeClock::default()))
}

pub(crate) fn client() -> Client {
    Client::new(options())
}

pub(crate) fn repository(client: &Client, double: &Double, path: &str) -> RemoteRepository {
    client.repository(format!("{}/{path}", double.host()).parse().unwrap()).unwrap()
}

/// Returns an error and its causes on one line.
pub(crate) fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

pub(crate) fn failed<T: fmt::Debug>(result: Result<T, ocikit_registry::Error>) -> String {
    with_causes(&result.unwrap_err())
}
