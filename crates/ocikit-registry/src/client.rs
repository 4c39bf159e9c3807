use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use ocikit_image::{Body, Error, Result};
use ocikit_spec::{Registry, Repository};
use reqwest::header::HeaderMap;
use reqwest::{Method, Url};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::auth::{Access, Authenticator, Authorization, Scopes};
use crate::client_cache::ClientCache;
use crate::credentials::{Anonymous, Keychain};
use crate::download::ParallelOptions;
use crate::endpoint::Endpoint;
use crate::hosts::{HostOptions, HostSettings, ProxyOptions, Scheme, Verify};
use crate::http::fault::Fault;
use crate::http::observe::{ObserverHandle, RequestObserver};
use crate::http::problem::{self, Problem};
use crate::http::send::{Http, Reply, Request};
use crate::http::transport::{Transport, lock};
use crate::http::{Clock, RetryOptions, SystemClock, Timeouts, tls};
use crate::manifests::is_web_page;
use crate::probe::{self, Capabilities};
use crate::repository::RemoteRepository;
use crate::tags::{self, ListOptions};
use crate::target::Target;
use crate::upload::Journal;

/// Maximum number of bytes that are read of the response to `GET /v2/`.
const MAX_PING_BYTES: u64 = 64 << 10;

/// Configures a [`Client`].
#[derive(Debug, Clone)]
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
    /// The capabilities of registries, as found by [`Client::probe`]. A registry without an entry is used as the
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
    /// The source of time and randomness.
    pub clock: Arc<dyn Clock>,
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
            clock: Arc::new(SystemClock),
        }
    }
}

impl ClientOptions {
    /// Checks that the certificate and key files that these options name can be used. This function blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if a file cannot be read, [`Error::Broken`] if it contains no certificate or key.
    pub fn check(&self) -> Result<()> {
        let settings = self.hosts.named.values().chain([&self.hosts.others]);
        settings.map(|settings| &settings.tls).try_for_each(tls::check)
    }
}

/// Which servers a registry may name in redirects and as token services.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Redirects {
    /// Only servers with addresses as public as its own: a public server cannot redirect to a private network, to this
    /// machine, or to the metadata service of a cloud, which returns secrets of the machine.
    #[default]
    Guarded,
    /// Any server.
    Trusted,
}

/// A client of registries. Cheap to clone; all clones share connections, tokens and the cache.
#[derive(Debug, Clone)]
pub struct Client(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) options: ClientOptions,
    pub(crate) http: Http,
    authenticator: Authenticator,
    pub(crate) cache: ClientCache,
    /// Held by the one blob that is downloaded in several ranges.
    pub(crate) parallel: Arc<Semaphore>,
    /// Number of downloads in progress.
    pub(crate) downloads: AtomicUsize,
    /// The upload sessions that are being cancelled because the future of their push was dropped.
    pub(crate) cancellations: Mutex<JoinSet<()>>,
}

impl Client {
    /// Creates a client with these options. Reads no file and opens no connection before the first request.
    pub fn new(options: ClientOptions) -> Client {
        let transport = Transport::new(&options.user_agent, options.timeouts.clone(), options.proxies.clone());
        let http = Http::new(
            transport,
            options.retry.clone(),
            options.clock.clone(),
            options.hosts.clone(),
            options.requests_per_host,
            options.redirects == Redirects::Trusted,
            ObserverHandle(options.observer.clone()),
        );
        let authenticator = Authenticator::new(options.keychain.clone());
        Client(Arc::new(Inner {
            options,
            http,
            authenticator,
            cache: ClientCache::default(),
            parallel: Arc::new(Semaphore::new(1)),
            downloads: AtomicUsize::new(0),
            cancellations: Mutex::default(),
        }))
    }

    /// Waits until the upload sessions of dropped pushes are cancelled, at most 5 seconds for each. If a program exits
    /// without this call, those sessions remain at the registry until they expire.
    pub async fn settle(&self) {
        let mut cancellations = std::mem::take(&mut *lock(&self.0.cancellations));
        while cancellations.join_next().await.is_some() {}
    }

    /// Returns a repository, for reading and writing.
    ///
    /// # Errors
    ///
    /// [`Error::Broken`] if the settings of its registry are invalid, [`Error::Blocked`] if `registries.conf` blocks
    /// it.
    pub fn repository(&self, repository: Repository) -> Result<RemoteRepository> {
        RemoteRepository::new(self.0.clone(), repository)
    }

    /// Announces that many requests will be made concurrently. When a server then turns out to be far away and to speak
    /// no HTTP/2, the client opens this many connections to it before they are needed; the largest number announced so
    /// far applies. Connections that no request needs carry no data.
    pub fn open_ahead(&self, connections: usize) {
        self.0.http.open_ahead(connections.min(self.0.options.requests_per_host));
    }

    /// Finds out what a registry supports by trying it in a scratch repository, and in a second one whose name ends in
    /// `-from`. Deletes what it has uploaded as far as the registry allows.
    ///
    /// # Errors
    ///
    /// Those of the registry, if it accepts no upload at all. Failures of single checks are results.
    pub async fn probe(&self, scratch: &Repository) -> Result<Capabilities> {
        probe::run(self, scratch).await
    }

    /// Checks that a registry accepts the credential that the keychain has for it, if the registry requires one.
    ///
    /// # Errors
    ///
    /// [`Error::Denied`] if it does not, [`Error::Unreachable`] without an answer.
    pub async fn check(&self, registry: &Registry) -> Result<()> {
        let endpoint = self.0.endpoint(registry, false)?;
        let access = Access { path: String::new(), scopes: Scopes::default() };
        let (request, place) = (Request::new(Method::GET, endpoint.url("")), registry.to_string());
        let reply = self.0.call(&endpoint, &access, request, &place).await?;
        match reply.answer.status {
            200 => match reply.answer.read(MAX_PING_BYTES).await {
                Ok(Some(body)) if is_web_page(&body) => Err(Error::protocol(&place, "it answers with a web page")),
                _ => Ok(()),
            },
            _ => Err(problem::error(reply, "registry API", &place).await),
        }
    }

    /// Returns the repositories of a registry.
    ///
    /// # Errors
    ///
    /// [`Error::Protocol`] if the list may be incomplete or has an entry that is not a valid repository name. Those of
    /// the registry; many have no catalog.
    pub async fn catalog(&self, registry: &Registry) -> Result<Vec<Repository>> {
        self.catalog_part(registry, &ListOptions::default()).await
    }

    /// Returns a part of the repositories of a registry.
    ///
    /// # Errors
    ///
    /// As [`Client::catalog`].
    pub async fn catalog_part(&self, registry: &Registry, options: &ListOptions) -> Result<Vec<Repository>> {
        let listed = tags::catalog(&self.0, &self.0.endpoint(registry, false)?, options).await?;
        let invalid = |error| Error::protocol(registry, format!("its list of repositories cannot be used: {error}"));
        listed.iter().map(|path| Repository::new(registry.clone(), path).map_err(invalid)).collect()
    }
}

impl Default for Client {
    fn default() -> Client {
        Client::new(ClientOptions::default())
    }
}

impl Inner {
    /// Returns the endpoint of a registry; `insecure` as defined by `registries.conf`.
    pub(crate) fn endpoint(&self, registry: &Registry, insecure: bool) -> Result<Endpoint> {
        self.endpoint_with(registry, self.options.hosts.of(registry)?, insecure)
    }

    /// Returns the endpoint of a mirror, or of the `location` that replaces a registry in `registries.conf`.
    pub(crate) fn mirror(&self, registry: &Registry, insecure: bool) -> Result<Endpoint> {
        self.endpoint_with(registry, self.options.hosts.of_other(registry)?, insecure)
    }

    fn endpoint_with(&self, registry: &Registry, mut settings: HostSettings, insecure: bool) -> Result<Endpoint> {
        if insecure && settings.scheme == Scheme::Https {
            settings.tls.verify = Verify::InsecureAllowHttp;
        }
        let is_tls_expected = self.options.hosts.is_tls_expected(registry);
        Ok(Endpoint { is_tls_expected, ..Endpoint::new(registry, settings)? })
    }

    /// Returns a repository at the registry that its name states.
    pub(crate) fn target(&self, repository: &Repository) -> Result<Target> {
        let endpoint = self.endpoint(repository.registry(), false)?;
        Ok(Target { endpoint, path: repository.path().to_owned(), place: repository.to_string() })
    }

    /// Sends a request, authenticates where the registry requires it, and retries. The answer can have any status
    /// except those that another attempt may change.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`] without an answer, [`Error::Denied`] without a credential that is accepted.
    pub(crate) async fn call(
        &self,
        endpoint: &Endpoint,
        access: &Access,
        mut request: Request,
        place: &str,
    ) -> Result<Reply> {
        let mut authorization = Authorization::default();
        loop {
            authorization = self.authorize(endpoint, access, place).await?.after(&authorization);
            request.authorization = authorization.header.clone();
            let outcome = self.http.send(&request, &endpoint.tls).await;
            let reply = outcome.map_err(|fault| problem::unreachable(fault, place))?;
            if !self.learn(endpoint, access, &mut authorization, &reply, place).await? {
                return Ok(reply);
            }
            reply.answer.drain().await;
        }
    }

    /// Sends a request and reads the whole answer; repeats both if the answer breaks off. The inner error is an answer
    /// with another status than 200.
    pub(crate) async fn fetch(
        &self,
        endpoint: &Endpoint,
        access: &Access,
        request: Request,
        max_bytes: u64,
        place: &str,
    ) -> Result<Result<Fetched, Refusal>> {
        let mut failures = 0;
        loop {
            let reply = self.call(endpoint, access, request.clone(), place).await?;
            let status = reply.answer.status;
            if status != 200 {
                return Ok(Err(Refusal { status, problem: Problem::of(reply).await }));
            }
            let (url, headers) = (reply.url, reply.answer.headers.clone());
            match reply.answer.read(max_bytes).await {
                Ok(Some(body)) => return Ok(Ok(Fetched { url, headers, body })),
                Ok(None) => {
                    let what = format!("the answer has more than {max_bytes} bytes");
                    return Err(Error::Unsupported { place: place.to_owned(), what });
                }
                Err(fault) => {
                    failures += 1;
                    let Some(pause) = self.http.pause(failures, None).filter(|_| !fault.is_final()) else {
                        return Err(problem::unreachable(fault, place));
                    };
                    self.http.clock().sleep(pause).await;
                }
            }
        }
    }

    /// Sends a body that can be read only once. The answer may have any status. [`Streamed::Challenged`] means that a
    /// new token is available for the next request.
    pub(crate) async fn stream(
        &self,
        endpoint: &Endpoint,
        access: &Access,
        mut request: Request,
        body: Body,
        place: &str,
    ) -> Result<Streamed> {
        let mut authorization = self.authorize(endpoint, access, place).await?;
        request.authorization = authorization.header.clone();
        let reply = match self.http.stream(request, body, &endpoint.tls).await {
            Ok(reply) => reply,
            Err(fault) => return Ok(Streamed::Broken(fault)),
        };
        if self.learn(endpoint, access, &mut authorization, &reply, place).await? {
            return Ok(Streamed::Challenged);
        }
        Ok(Streamed::Answered(Box::new(reply)))
    }

    /// Adds to an error what is known about the credential: its origin, if access was denied; and that it is rejected,
    /// if the registry answers 404 instead of denying access.
    ///
    /// GitHub Packages answers 404 to a wrong password (containerd/containerd#3291).
    pub(crate) async fn explain_denial(&self, target: &Target, error: Error) -> Error {
        let (endpoint, access) = (&target.endpoint, target.access());
        let problem = match &error {
            Error::Denied { place, problem } if *place == target.place => problem.clone(),
            Error::NotFound { place, .. } | Error::Refused { place, status: 404, .. } if *place == target.place => {
                match self.authenticator.rejection(&self.http, endpoint, &access).await {
                    Some(problem) => format!("{problem}; it answers 404 to requests without a valid credential"),
                    None => return error,
                }
            }
            _ => return error,
        };
        let origin = self.authenticator.origin(&self.http, endpoint, &access.path).await;
        let problem = match origin.map(|origin| format!("; the credential is from {origin}")) {
            Some(origin) if !problem.ends_with(&origin) => format!("{problem}{origin}"),
            _ => problem,
        };
        Error::Denied { place: target.place.clone(), problem }
    }

    async fn authorize(&self, endpoint: &Endpoint, access: &Access, place: &str) -> Result<Authorization> {
        let outcome = self.authenticator.authorize(&self.http, endpoint, access).await;
        outcome.map_err(|error| denied_at(error, place))
    }

    async fn learn(
        &self,
        endpoint: &Endpoint,
        access: &Access,
        authorization: &mut Authorization,
        reply: &Reply,
        place: &str,
    ) -> Result<bool> {
        let outcome = self.authenticator.learn(&self.http, endpoint, access, authorization, reply).await;
        outcome.map_err(|error| denied_at(error, place))
    }
}

/// A complete answer with status 200.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// An answer with another status than 200.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) problem: Problem,
}

impl Refusal {
    pub(crate) fn error(self, what: &str, place: &str) -> Error {
        problem::error_of_status(self.status, self.problem, what, place)
    }
}

/// The outcome of one attempt to send a body.
#[derive(Debug)]
pub(crate) enum Streamed {
    Answered(Box<Reply>),
    Challenged,
    Broken(Fault),
}

/// Replaces the place of an [`Error::Denied`], which names the token service, by the one that the request was for.
fn denied_at(error: Error, place: &str) -> Error {
    match error {
        Error::Denied { problem, .. } => Error::Denied { place: place.to_owned(), problem },
        other => other,
    }
}
