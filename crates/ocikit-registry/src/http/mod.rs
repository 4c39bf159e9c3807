//! The HTTP client: single exchanges, redirects, retries, and limits on concurrency.

pub(crate) mod address;
mod certificate;
mod clock;
pub(crate) mod fault;
mod limit;
pub(crate) mod link;
pub(crate) mod observe;
pub(crate) mod problem;
mod proxy_failure;
pub(crate) mod range;
mod redact;
pub(crate) mod redirect;
pub(crate) mod send;
mod spare;
mod stall;
pub(crate) mod tls;
pub(crate) mod transport;

pub use clock::{Clock, SystemClock};
pub use observe::{RequestEvent, RequestObserver, RequestOutcome};
pub use ocikit_image::RetryOptions;
pub use transport::Timeouts;
