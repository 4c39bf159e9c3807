use std::collections::HashMap;
use std::sync::Arc;

use ocikit_http::{Clock, Redirects, RequestObserver, Resolver, RetryOptions, SystemClock, SystemResolver, Timeouts};
use ocikit_image::Result;
use ocikit_spec::Registry;

use crate::capabilities::Capabilities;
use crate::credentials::{Anonymous, Keychain};
use crate::hosts::{HostOptions, ProxyOptions};
use crate::journal::Journal;
use crate::problem;

/// Configures a [`Client`](crate::Client).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientOptions {
    /// The source of credentials. None by default.
    pub keychain: Arc<dyn Keychain>,
    /// How to connect to registries.
    pub hosts: HostOptions,
    /// Proxies. None by default.
    pub proxies: ProxyOptions,
    /// How often, and after which delays, requests are retried.
    pub retry: RetryOptions,
    /// Time limits.
    pub timeouts: Timeouts,
    /// Maximum number of concurrent requests per host, and of concurrent uploads in addition. The client lowers it for
    /// a host that reports overload.
    pub requests_per_host: usize,
    /// The capabilities of registries, as found by [`Client::probe`](crate::Client::probe). A registry without an entry is used as the
    /// specification allows for every registry.
    pub capabilities: HashMap<Registry, Capabilities>,
    /// Where upload sessions are recorded, for another process to resume them. None by default.
    pub journal: Option<Arc<dyn Journal>>,
    /// When a blob is downloaded in several concurrent ranges.
    pub parallel: ParallelOptions,
    /// The value of the `User-Agent` header.
    pub user_agent: String,
    /// Which servers a redirect or a challenge may name.
    pub redirects: Redirects,
    /// An observer of all requests. None by default.
    pub observer: Option<Arc<dyn RequestObserver>>,
    /// Resolves host names. By default the operating system does.
    pub resolver: Arc<dyn Resolver>,
    /// The source of time and randomness.
    pub clock: Arc<dyn Clock>,
}

ocikit_spec::setters! {
    ClientOptions {
        keychain: Arc<dyn Keychain>,
        hosts: HostOptions,
        proxies: ProxyOptions,
        retry: RetryOptions,
        timeouts: Timeouts,
        requests_per_host: usize,
        capabilities: HashMap<Registry, Capabilities>,
        journal: Option<Arc<dyn Journal>>,
        parallel: ParallelOptions,
        user_agent: String,
        redirects: Redirects,
        observer: Option<Arc<dyn RequestObserver>>,
        resolver: Arc<dyn Resolver>,
        clock: Arc<dyn Clock>,
    }
}

impl Default for ClientOptions {
    /// Returns options without credentials and proxies, with 24 requests per host.
    fn default() -> ClientOptions {
        ClientOptions {
            keychain: Arc::new(Anonymous),
            hosts: HostOptions::default(),
            proxies: ProxyOptions::default(),
            retry: RetryOptions::default(),
            timeouts: Timeouts::default(),
            requests_per_host: 24,
            capabilities: HashMap::new(),
            journal: None,
            parallel: ParallelOptions::default(),
            user_agent: concat!("ocikit/", env!("CARGO_PKG_VERSION")).to_owned(),
            redirects: Redirects::default(),
            observer: None,
            resolver: Arc::new(SystemResolver),
            clock: Arc::new(SystemClock),
        }
    }
}

impl ClientOptions {
    /// Checks that the certificate and key files that these options name can be used. This function blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`](ocikit_image::Error::Failed) if a file cannot be read, [`Error::Broken`](ocikit_image::Error::Broken) if it contains no certificate or key.
    pub fn check(&self) -> Result<()> {
        let settings = self.hosts.named.values().chain([&self.hosts.others]);
        settings.map(|settings| &settings.tls).try_for_each(|tls| tls.check().map_err(problem::unusable))
    }
}

/// When and how a blob is downloaded in several concurrent ranges.
///
/// This helps if a single connection does not fill the bandwidth, and costs time if it does. So a large blob is
/// requested in one piece, and the throughput of its first bytes decides how everything after the first two parts is
/// requested. The time until the answer starts does not count: it is latency, which more requests do not reduce.
///
/// One blob at a time is downloaded like this; others are downloaded in one piece meanwhile. So at most `part` times
/// `ahead` bytes wait in memory, however many blobs there are.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ParallelOptions {
    /// Minimum size of a blob, in bytes.
    pub threshold: u64,
    /// Size of a range, in bytes.
    pub part: u64,
    /// Number of ranges that are downloaded besides the one that is being returned; 0 disables parallel downloads.
    pub ahead: usize,
    /// Throughput in bytes per second below which a connection is slow, counting all concurrent downloads together.
    pub slow: u64,
}

ocikit_spec::setters! {
    ParallelOptions {
        threshold: u64,
        part: u64,
        ahead: usize,
        slow: u64,
    }
}

impl Default for ParallelOptions {
    /// Returns a threshold of 32 MiB, ranges of 4 MiB, three ahead, below 100 MiB/s.
    fn default() -> ParallelOptions {
        ParallelOptions { threshold: 32 << 20, part: 4 << 20, ahead: 3, slow: 100 << 20 }
    }
}
