//! Requests: one exchange, what follows from its outcome, and how many there are at once.

pub(crate) mod address;
mod clock;
pub(crate) mod fault;
mod limit;
pub(crate) mod link;
pub(crate) mod observe;
pub(crate) mod problem;
mod pulse;
pub(crate) mod range;
mod redact;
pub(crate) mod redirect;
pub(crate) mod send;
mod spare;
pub(crate) mod tls;
pub(crate) mod transport;

pub use clock::{Clock, SystemClock};
pub use observe::{RequestEvent, RequestObserver, RequestOutcome};
pub use ocikit_image::RetryOptions;
pub use transport::Timeouts;
