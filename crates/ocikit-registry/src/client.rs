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
use crate::credentials::{Anonymous, Keychain};
use crate::download::ParallelOptions;
use crate::endpoint::Endpoint;
use crate::hosts::{HostOptions, HostSettings, ProxyOptions, Scheme, Verify};
use crate::http::fault::Fault;
use crate::http::observe::{RequestObserver, Teller};
use crate::http::problem::{self, Problem};
use crate::http::send::{Http, Reply, Request};
use crate::http::transport::{Transport, lock};
use crate::http::{Clock, RetryOptions, SystemClock, Timeouts, tls};
use crate::manifests::is_web_page;
use crate::memory::Memory;
use crate::probe::{self, Capabilities};
use crate::repository::RemoteRepository;
use crate::tags::{self, ListOptions};
use crate::target::Target;
use crate::upload::Journal;

/// How much of the answer to `GET /v2/` is read.
const MAX_PING_BYTES: u64 = 64 << 10;

/// How a client behaves.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Who knows credentials. Nobody by default.
    pub keychain: Arc<dyn Keychain>,
    /// How registries are spoken to.
    pub hosts: HostOptions,
    /// Proxies. None by default.
    pub proxies: ProxyOptions,
    /// How often requests are tried again.
    pub retry: RetryOptions,
    /// Limits on silence.
    pub timeouts: Timeouts,
    /// How many requests a host gets at once, and how many uploads beside them. Fewer where it says that it is too
    /// much.
    pub requests_per_host: usize,
    /// What registries were found to be able to; see [`Client::probe`]. What nobody found out is done
    /// as every registry can.
    pub capabilities: HashMap<Registry, Capabilities>,
    /// Where uploads are written down, to be continued by another process. Nowhere by default.
    pub journal: Option<Arc<dyn Journal>>,
    /// When a blob is downloaded in several ranges at the same time.
    pub parallel: ParallelOptions,
    /// What the client calls itself.
    pub user_agent: String,
    /// Where servers may send us by redirects and as token services.
    pub redirects: Redirects,
    /// Whoever wants to know what is asked of servers. Nobody by default.
    pub observer: Option<Arc<dyn RequestObserver>>,
    /// Time and chance.
    pub clock: Arc<dyn Clock>,
}

impl Default for ClientOptions {
    /// Without credentials and proxies; twenty-four requests per host.
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
    /// Checks that the files with certificates and keys that these options name can be used. It blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] for a file that cannot be read, [`Error::Broken`] for one that holds no certificate or key.
    pub fn check(&self) -> Result<()> {
        let settings = self.hosts.named.values().chain([&self.hosts.others]);
        settings.map(|settings| &settings.tls).try_for_each(tls::check)
    }
}

/// Where servers may send us.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Redirects {
    /// Only to addresses that are as public as their own: no public server sends us to a private network, to this
    /// machine, or to where clouds keep a machine's secrets.
    #[default]
    Guarded,
    /// Anywhere.
    Trusted,
}

/// A client of registries. Cheap to clone; all clones share connections, tokens and what is known of registries.
#[derive(Debug, Clone)]
pub struct Client(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) options: ClientOptions,
    pub(crate) http: Http,
    authenticator: Authenticator,
    pub(crate) memory: Memory,
    /// Held by the one blob that is downloaded in several ranges.
    pub(crate) parallel: Arc<Semaphore>,
    /// How many blobs are being downloaded.
    pub(crate) downloads: AtomicUsize,
    /// Upload sessions that are being cancelled because the future of their push was dropped.
    pub(crate) cancellations: Mutex<JoinSet<()>>,
}

impl Client {
    /// A client that behaves like this. Nothing is read or connected before the first request.
    pub fn new(options: ClientOptions) -> Client {
        let transport = Transport::new(&options.user_agent, options.timeouts.clone(), options.proxies.clone());
        let http = Http::new(
            transport,
            options.retry.clone(),
            options.clock.clone(),
            options.hosts.clone(),
            options.requests_per_host,
            options.redirects == Redirects::Trusted,
            Teller(options.observer.clone()),
        );
        let authenticator = Authenticator::new(options.keychain.clone());
        Client(Arc::new(Inner {
            options,
            http,
            authenticator,
            memory: Memory::default(),
            parallel: Arc::new(Semaphore::new(1)),
            downloads: AtomicUsize::new(0),
            cancellations: Mutex::default(),
        }))
    }

    /// Waits until the upload sessions of dropped pushes are cancelled, each for at most 5 seconds. A program that ends
    /// without it leaves them to expire at the registry.
    pub async fn settle(&self) {
        let mut cancellations = std::mem::take(&mut *lock(&self.0.cancellations));
        while cancellations.join_next().await.is_some() {}
    }

    /// A repository, to be read or written.
    ///
    /// # Errors
    ///
    /// [`Error::Broken`] if the settings for its registry make no sense, [`Error::Blocked`].
    pub fn repository(&self, repository: Repository) -> Result<RemoteRepository> {
        RemoteRepository::new(self.0.clone(), repository)
    }

    /// Says that many requests will be made at the same time: from now on, when a server turns out to be far away and to
    /// speak no HTTP/2, this many connections are opened to it before they are needed, or as many as was said before if
    /// that is more. Nothing is sent over those that nobody needs.
    pub fn open_ahead(&self, connections: usize) {
        self.0.http.open_ahead(connections.min(self.0.options.requests_per_host));
    }

    /// Finds out what a registry can do, by trying it in a repository that nobody needs, and in a second one with
    /// `-from` at the end of its name. What is put there is removed again as far as the registry allows.
    ///
    /// # Errors
    ///
    /// Those of the registry, if it cannot be written to at all. What fails by itself is what was to be found out.
    pub async fn probe(&self, scratch: &Repository) -> Result<Capabilities> {
        probe::run(self, scratch).await
    }

    /// Asks a registry whether it lets us in: with the credential that the keychain has for it, if it asks for one.
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

    /// The repositories of a registry that lists them.
    ///
    /// # Errors
    ///
    /// [`Error::Protocol`] if the list may lack repositories or has something that is none by the specification. Those of the
    /// registry; many have no such list.
    pub async fn catalog(&self, registry: &Registry) -> Result<Vec<Repository>> {
        self.catalog_part(registry, &ListOptions::default()).await
    }

    /// The same for a part of the list.
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
    /// Where a registry answers; `insecure` as `registries.conf` means it.
    pub(crate) fn endpoint(&self, registry: &Registry, insecure: bool) -> Result<Endpoint> {
        self.endpoint_with(registry, self.options.hosts.of(registry)?, insecure)
    }

    /// The same for a mirror, or for what `registries.conf` has in the place of a registry.
    pub(crate) fn mirror(&self, registry: &Registry, insecure: bool) -> Result<Endpoint> {
        self.endpoint_with(registry, self.options.hosts.of_other(registry)?, insecure)
    }

    fn endpoint_with(&self, registry: &Registry, mut settings: HostSettings, insecure: bool) -> Result<Endpoint> {
        if insecure && settings.scheme == Scheme::Https {
            settings.tls.verify = Verify::NorTls;
        }
        let is_tls_expected = self.options.hosts.is_tls_expected(registry);
        Ok(Endpoint { is_tls_expected, ..Endpoint::new(registry, settings)? })
    }

    /// A repository where its name says that it is.
    pub(crate) fn target(&self, repository: &Repository) -> Result<Target> {
        let endpoint = self.endpoint(repository.registry(), false)?;
        Ok(Target { endpoint, path: repository.path().to_owned(), place: repository.to_string() })
    }

    /// Makes a request and shows who we are if that is asked for. The answer has any status but one that another
    /// attempt may change.
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

    /// Makes a request and reads the answer, again if it breaks off. The inner error is an answer that is none.
    pub(crate) async fn fetch(
        &self,
        endpoint: &Endpoint,
        access: &Access,
        request: Request,
        most: u64,
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
            match reply.answer.read(most).await {
                Ok(Some(body)) => return Ok(Ok(Fetched { url, headers, body })),
                Ok(None) => {
                    let what = format!("an answer of more than {most} bytes is not read");
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

    /// Sends a body that can be read only once. The answer may have any status; [`Streamed::Challenged`] means that a
    /// new token is ready for whatever the caller does next.
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

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// An answer that says no.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) problem: Problem,
}

impl Refusal {
    pub(crate) fn error(self, what: &str, place: &str) -> Error {
        problem::sort(self.status, self.problem, what, place)
    }
}

/// How the sending of a body went.
#[derive(Debug)]
pub(crate) enum Streamed {
    Answered(Box<Reply>),
    Challenged,
    Broken(Fault),
}

/// Whoever was denied wants to know what, not by which token service.
fn denied_at(error: Error, place: &str) -> Error {
    match error {
        Error::Denied { problem, .. } => Error::Denied { place: place.to_owned(), problem },
        other => other,
    }
}
