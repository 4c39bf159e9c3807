//! What all repositories of a client share.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

use ocikit_http::{HttpClient, HttpClientOptions};
use ocikit_image::Result;
use ocikit_spec::Registry;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::auth::Authenticator;
use crate::client_cache::ClientCache;
use crate::endpoint::Endpoint;
use crate::hosts::{HostSettings, Scheme, Verify};
use crate::options::ClientOptions;
use crate::problem;

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) options: ClientOptions,
    pub(crate) http: HttpClient,
    pub(crate) authenticator: Authenticator,
    pub(crate) cache: ClientCache,
    /// Held by the one blob that is downloaded in several ranges.
    pub(crate) parallel: Arc<Semaphore>,
    /// Number of downloads in progress.
    pub(crate) downloads: AtomicUsize,
    /// The upload sessions that are being cancelled because the future of their push was dropped.
    pub(crate) cancellations: Mutex<JoinSet<()>>,
}

impl Inner {
    pub(crate) fn new(options: ClientOptions) -> Inner {
        let http = HttpClient::new(
            HttpClientOptions::default()
                .user_agent(options.user_agent.clone())
                .proxies(options.proxies.clone())
                .retry(options.retry.clone())
                .timeouts(options.timeouts.clone())
                .requests_per_host(options.requests_per_host)
                .redirects(options.redirects)
                .others(Arc::new(options.hosts.clone()))
                .resolver(options.resolver.clone())
                .observer(options.observer.clone())
                .clock(options.clock.clone()),
        );

        Inner {
            options,
            http,
            authenticator: Authenticator::default(),
            cache: ClientCache::default(),
            parallel: Arc::new(Semaphore::new(1)),
            downloads: AtomicUsize::new(0),
            cancellations: Mutex::default(),
        }
    }

    /// Returns the endpoint of a registry; `insecure` as defined by `registries.conf`. The caller has checked that
    /// `registries.conf` does not block what it requests.
    pub(crate) fn endpoint(&self, registry: &Registry, insecure: bool) -> Result<Endpoint> {
        self.endpoint_with(registry, self.options.hosts.of(registry)?, insecure)
    }

    /// Returns the endpoint of a mirror, or of the `location` that replaces a registry in `registries.conf`.
    pub(crate) fn mirror(&self, registry: &Registry, insecure: bool) -> Result<Endpoint> {
        self.endpoint_with(registry, self.options.hosts.of_other(registry).map_err(problem::unusable)?, insecure)
    }

    fn endpoint_with(&self, registry: &Registry, mut settings: HostSettings, insecure: bool) -> Result<Endpoint> {
        if insecure && settings.scheme == Scheme::Https {
            settings.tls.verify = Verify::InsecureAllowHttp;
        }
        let is_tls_expected = self.options.hosts.is_tls_expected(registry);
        Ok(Endpoint { is_tls_expected, ..Endpoint::new(registry, settings)? })
    }
}
