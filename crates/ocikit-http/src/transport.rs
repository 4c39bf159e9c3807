use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, USER_AGENT};
use reqwest::{Method, Proxy, StatusCode, Version};
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::address::{GuardedResolver, OutOfReach, Reach, Resolver, Zone};
use crate::answer::Answer;
use crate::body::StreamBody;
use crate::error::{Error, Result};
use crate::lock::lock;
use crate::proxy::ProxyOptions;
use crate::proxy_failure::ProxyFailure;
use crate::request_error::{RequestError, attribute_to_proxy, classify};
use crate::settings::{TlsSettings, Verify};
use crate::spare::{LostConnections, SpareConnections, SpareLayer, SpareQueue, SpareRole};
use crate::speculation::SPARE_RTT;
use crate::stall::StallWatch;
use crate::timeouts::{TimeLimit, Timeouts};
use crate::tls;
use crate::tls_config::TlsConfig;
use crate::url::Url;
use ocikit_spec::NoAnswer;

/// One request to one server, without retries and redirects.
#[derive(Debug)]
pub(crate) struct Exchange<'a> {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Payload,
    pub(crate) tls: &'a TlsSettings,
    pub(crate) lane: Lane,
    pub(crate) limit: TimeLimit,
    pub(crate) reach: Reach,
}

/// The body of a request.
#[derive(Debug)]
pub(crate) enum Payload {
    Empty,
    Bytes(Bytes),
    Stream(StreamBody),
}

impl Exchange<'_> {
    /// Returns the same request with another scheme; `None` if its body can be read only once.
    fn with_scheme(&self, scheme: &str) -> Option<Self> {
        let payload = match &self.payload {
            Payload::Empty => Payload::Empty,
            Payload::Bytes(bytes) => Payload::Bytes(bytes.clone()),
            Payload::Stream(_) => return None,
        };
        let Exchange { tls, lane, limit, reach, .. } = *self;
        let (method, url, headers) = (self.method.clone(), self.url.clone(), self.headers.clone());
        let mut exchange = Exchange { method, url, headers, payload, tls, lane, limit, reach };
        exchange.change_scheme(scheme);
        Some(exchange)
    }

    /// Changes the scheme. Without an explicit port, plain HTTP uses port 80; TLS keeps the port of the request.
    fn change_scheme(&mut self, scheme: &str) {
        let port = if scheme == "https" { Some(self.url.port()) } else { self.url.explicit_port() };
        self.url.set_scheme(scheme, port);
    }

    fn server(&self) -> Server {
        server_of(&self.url)
    }
}

pub(crate) fn server_of(url: &Url) -> Server {
    (url.host().to_owned(), url.port())
}

/// The host and port of a server.
pub(crate) type Server = (String, u16);

/// The connections that a request uses.
///
/// Small requests share one HTTP/2 connection, which saves handshakes. Large bodies use HTTP/1.1, with one connection
/// each: HTTP/2 servers in Go grant all uploads of a connection a window of 1 MiB together, which limits them to 20
/// MB/s at a round-trip time of 50 ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// The connection that small requests share.
    Small,
    /// A connection for one large body at a time.
    Bulk,
}

impl Lane {
    /// Returns the application protocols to offer with TLS.
    fn protocols(self) -> &'static [&'static str] {
        match self {
            Lane::Small => &["h2", "http/1.1"],
            Lane::Bulk => &["http/1.1"],
        }
    }
}

/// The connection pools, by everything that has to be equal for a connection to be shared.
#[derive(Debug)]
pub(crate) struct Transport {
    user_agent: HeaderValue,
    timeouts: Timeouts,
    proxies: ProxyOptions,
    resolver: Arc<dyn Resolver>,
    clients: Mutex<HashMap<PoolKey, Pool>>,
    /// Number of concurrent requests that the caller announced.
    announced: Arc<AtomicUsize>,
    /// One configuration for each set of settings, since reading the system's certificates takes longer than a request.
    configurations: tokio::sync::Mutex<HashMap<TlsSettings, TlsConfig>>,
    /// Servers that speak no HTTP/2. Both lanes share their connections.
    http1_only: Mutex<HashSet<Server>>,
    /// Servers that were found to speak plain HTTP only, where the settings allow it.
    plain_http: Mutex<HashSet<Server>>,
    /// Servers that have spoken TLS. A later downgrade to plain HTTP is refused.
    has_spoken_tls: Mutex<HashSet<Server>>,
    /// Loopback servers that were found to speak TLS although no setting says so.
    upgraded: Mutex<HashSet<Server>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct PoolKey {
    server: Server,
    tls: Option<TlsSettings>,
    lane: Lane,
    reach: Reach,
}

/// The connections to a server.
#[derive(Debug, Clone)]
struct Pool {
    client: reqwest::Client,
    /// Whether the server has answered a request.
    answered: Arc<AtomicBool>,
    lost: LostConnections,
}

impl Transport {
    pub(crate) fn new(
        user_agent: &str,
        timeouts: Timeouts,
        proxies: ProxyOptions,
        resolver: Arc<dyn Resolver>,
    ) -> Transport {
        Transport {
            user_agent: HeaderValue::from_str(user_agent).unwrap_or(HeaderValue::from_static("ocikit")),
            timeouts,
            proxies,
            resolver,
            clients: Mutex::default(),
            announced: Arc::default(),
            configurations: tokio::sync::Mutex::default(),
            http1_only: Mutex::default(),
            plain_http: Mutex::default(),
            has_spoken_tls: Mutex::default(),
            upgraded: Mutex::default(),
        }
    }

    /// Returns whether a server has answered in this process, which distinguishes a restart from a wrong address.
    pub(crate) fn has_answered(&self, url: &Url) -> bool {
        let server = server_of(url);
        lock(&self.clients).iter().any(|(key, pool)| key.server == server && pool.answered.load(Ordering::Relaxed))
    }

    /// Returns whether a server turned out to speak TLS, so that requests for `http` URLs are sent with TLS.
    pub(crate) fn is_upgraded(&self, url: &Url) -> bool {
        lock(&self.upgraded).contains(&server_of(url))
    }

    /// Sends a request and waits for the start of the answer. Falls back to plain HTTP where the settings allow it and
    /// the server does not speak TLS; upgrades to TLS where a loopback server speaks nothing else.
    pub(crate) async fn exchange(&self, mut exchange: Exchange<'_>) -> Result<Answer, RequestError> {
        if exchange.url.scheme() == "http" {
            return self.exchange_plain(exchange).await;
        }
        if exchange.tls.verify != Verify::InsecureAllowHttp || exchange.url.scheme() != "https" {
            return self.once(exchange).await;
        }
        let server = exchange.server();
        if lock(&self.plain_http).contains(&server) {
            exchange.change_scheme("http");
            return self.once(exchange).await;
        }
        let plain = exchange.with_scheme("http").filter(|_| !lock(&self.has_spoken_tls).contains(&server));
        let outcome = self.once(exchange).await;
        if outcome.is_ok() {
            lock(&self.has_spoken_tls).insert(server.clone());
        }
        match (outcome, plain) {
            (Err(fault @ (RequestError::Final(_) | RequestError::Unsent(_))), Some(plain)) => {
                match self.once(plain).await {
                    Ok(answer) => {
                        lock(&self.plain_http).insert(server);
                        Ok(answer)
                    }
                    Err(_) => Err(fault),
                }
            }
            (outcome, _) => outcome,
        }
    }

    async fn exchange_plain(&self, mut exchange: Exchange<'_>) -> Result<Answer, RequestError> {
        let server = exchange.server();
        if lock(&self.upgraded).contains(&server) {
            exchange.change_scheme("https");
            return self.once(exchange).await;
        }
        let is_new = !self.has_answered(&exchange.url);
        let (secure, reach) = (if is_new { exchange.with_scheme("https") } else { None }, exchange.reach);
        let outcome = self.once(exchange).await;
        let Some(secure) = secure else { return outcome };
        // A TLS server answers plain HTTP with status 400 (Go, nginx), or with a TLS alert, which is no HTTP answer.
        let is_suspect = match &outcome {
            Ok(answer) => answer.status == 400,
            Err(fault) => matches!(fault, RequestError::Cut(_)),
        };
        if !is_suspect || !self.speaks_tls(&secure.url, reach).await {
            return outcome;
        }
        if secure.url.is_loopback_registry() {
            lock(&self.upgraded).insert(server);
            return self.once(secure).await;
        }
        Err(RequestError::SpeaksTls)
    }

    /// Returns whether a server speaks TLS, whatever its certificate. Sends no secret.
    async fn speaks_tls(&self, url: &Url, reach: Reach) -> bool {
        let mut url = url.clone();
        url.set_path_and_query("/", None);
        let tls = TlsSettings { verify: Verify::Nothing, ..TlsSettings::default() };
        let (method, headers) = (Method::HEAD, HeaderMap::new());
        let (payload, lane, limit) = (Payload::Empty, Lane::Small, TimeLimit::Document);
        let exchange = Exchange { method, url, headers, payload, tls: &tls, lane, limit, reach };
        match self.once(exchange).await {
            Ok(_) => true,
            // It may require a client certificate.
            Err(fault) => fault.cause() == NoAnswer::Tls,
        }
    }

    async fn once(&self, exchange: Exchange<'_>) -> Result<Answer, RequestError> {
        let server = exchange.server();
        let Exchange { method, url, mut headers, payload, tls, lane, limit, reach } = exchange;
        if !reach.permits_url(&url) {
            return Err(RequestError::Final(Box::new(OutOfReach::Private(url.host().to_owned()))));
        }
        let proxy = self.proxy(&url);
        if proxy.is_some() {
            reach
                .permits_by_proxy(&url, &*self.resolver)
                .await
                .map_err(|error| RequestError::Final(Box::new(error)))?;
        }
        let lane = if lock(&self.http1_only).contains(&server) { Lane::Small } else { lane };
        let tls = (url.scheme() == "https").then_some(tls);
        if tls.is_some() && !tls::AVAILABLE {
            return Err(RequestError::Final(Box::new(Error::NoTls)));
        }
        let Pool { client, answered, lost } =
            self.pool(&server, &url, tls, lane, reach).await.map_err(RequestError::Setup)?;

        headers.insert(USER_AGENT, self.user_agent.clone());
        let (body, stall_watch) = match payload {
            Payload::Empty => (None, StallWatch::none()),
            Payload::Bytes(bytes) => (Some(bytes.into()), StallWatch::none()),
            Payload::Stream(body) => {
                headers.insert(CONTENT_LENGTH, body.length.into());
                let (body, stall_watch) = StallWatch::of(body, self.timeouts.answer);
                (Some(reqwest::Body::wrap_stream(body)), stall_watch)
            }
        };
        let begun = (!stall_watch.is_streamed()).then(Instant::now);
        let mut request = client.request(method.clone(), url.inner().clone()).headers(headers);
        if let Some(body) = body {
            request = request.body(body);
        } else if matches!(method, Method::POST | Method::PUT | Method::PATCH) {
            // Google Artifact Registry answers 411 without `Content-Length` (oras-project/rust-oci-client#176).
            request = request.header(CONTENT_LENGTH, 0);
        }
        let mut timeouts = self.timeouts.clone();
        if limit == TimeLimit::Document {
            timeouts.answer = timeouts.answer.min(timeouts.document);
        }
        match stall_watch.watch(request.send(), &timeouts).await {
            // The proxy of a plain HTTP request answers in place of the server.
            Ok(Ok(response)) if response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED && proxy.is_some() => {
                let proxy = proxy.as_deref().map_or("", String::as_str);
                Err(RequestError::Final(Box::new(ProxyFailure::needs_credentials(proxy))))
            }
            Ok(Ok(response)) => {
                answered.store(true, Ordering::Relaxed);
                if tls.is_some() && lane == Lane::Small && response.version() < Version::HTTP_2 {
                    lock(&self.http1_only).insert(server);
                }
                let address = response.remote_addr().filter(|_| proxy.is_none());
                Ok(Answer {
                    status: response.status().as_u16(),
                    headers: response.headers().clone(),
                    zone: address.map(|address| Zone::of(address.ip())),
                    silence: self.timeouts.silence,
                    document: self.timeouts.document,
                    begun: begun.unwrap_or_else(Instant::now),
                    response,
                })
            }
            Ok(Err(error)) => {
                lost.count();
                let fault = stall_watch.problem().map_or_else(|| classify(error), RequestError::Payload);
                Err(match proxy {
                    Some(proxy) => attribute_to_proxy(fault, &proxy, &server.0),
                    None => fault,
                })
            }
            Err(silent) => {
                lost.count();
                Err(silent)
            }
        }
    }

    /// Announces this many concurrent requests; the largest number so far applies.
    pub(crate) fn announce(&self, requests: usize) {
        self.announced.fetch_max(requests, Ordering::Relaxed);
    }

    async fn pool(
        &self,
        server: &Server,
        url: &Url,
        tls: Option<&TlsSettings>,
        lane: Lane,
        reach: Reach,
    ) -> Result<Pool> {
        let lane = if tls.is_some() { lane } else { Lane::Small };
        let key = PoolKey { server: server.clone(), tls: tls.cloned(), lane, reach };
        if let Some(pool) = lock(&self.clients).get(&key) {
            return Ok(pool.clone());
        }
        let configuration = match tls {
            None => tls::none(),
            Some(settings) => tls::copy_of(&self.configuration(settings).await?),
        };
        let broken = |error| Error::Client(Box::new(error));
        let lost = LostConnections::default();
        let queue = SpareQueue::new(lost.clone());
        // Connections for large bodies are opened when there are such bodies: then their number is known.
        let spare = match lane {
            Lane::Small => Some(self.builder(configuration.clone(), lane, url, reach)?),
            Lane::Bulk => None,
        };
        let keep = SpareLayer { queue: queue.clone(), role: SpareRole::Fill };
        let spare = SpareConnections::new(
            spare.map(|spare| spare.connector_layer(keep)),
            url.inner().clone(),
            self.announced.clone(),
        );
        let builder = self
            .builder(configuration, lane, url, reach)?
            .connector_layer(SpareLayer { queue, role: SpareRole::Use(spare.clone()) });
        let made = Pool { client: builder.build().map_err(broken)?, answered: Arc::default(), lost };
        // If two tasks created one at the same time, both use the first.
        let pool = lock(&self.clients).entry(key).or_insert(made).clone();
        if tls.is_none() && self.announced.load(Ordering::Relaxed) > 0 {
            let answered = pool.answered.clone();
            tokio::spawn(async move {
                tokio::time::sleep(SPARE_RTT).await;
                if !answered.load(Ordering::Relaxed) {
                    // A server without TLS speaks no HTTP/2 here.
                    spare.measured(SPARE_RTT, false);
                }
            });
        }
        Ok(pool)
    }

    fn builder(
        &self,
        configuration: tls::Configuration,
        lane: Lane,
        url: &Url,
        reach: Reach,
    ) -> Result<reqwest::ClientBuilder> {
        let mut builder = tls::apply(reqwest::Client::builder(), configuration, lane.protocols())
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(self.timeouts.connect)
            .tcp_nodelay(true)
            .http2_initial_stream_window_size(4 << 20)
            .http2_initial_connection_window_size(16 << 20)
            .no_proxy();
        // `reqwest` sets `TCP_USER_TIMEOUT` to 30 s otherwise, which is less than the time limit of these options.
        #[cfg(target_os = "linux")]
        {
            builder = builder.tcp_user_timeout(self.timeouts.silence);
        }
        // The user chose the proxy, which is often in a private network, so its address is not restricted.
        let proxy = self.proxy(url);
        let reach = if proxy.is_some() { Reach::Anywhere } else { reach };
        builder = builder.dns_resolver(GuardedResolver { reach, resolver: self.resolver.clone() });
        if let Some(proxy) = proxy {
            let proxy = Proxy::all(proxy.as_str()).map_err(|error| {
                let variable = if url.scheme() == "https" { "HTTPS_PROXY" } else { "HTTP_PROXY" };
                // Only the innermost cause says what is wrong.
                let error = error.without_url();
                let mut cause: &dyn std::error::Error = &error;
                while let Some(inner) = cause.source() {
                    cause = inner;
                }
                Error::Proxy { variable, problem: cause.to_string() }
            });
            builder = builder.proxy(proxy?);
        }
        Ok(builder)
    }

    async fn configuration(&self, settings: &TlsSettings) -> Result<TlsConfig> {
        let mut configurations = self.configurations.lock().await;
        if let Some(found) = configurations.get(settings) {
            return Ok(found.clone());
        }
        let wanted = settings.clone();
        let made = match tokio::task::spawn_blocking(move || tls::configure(&wanted)).await {
            Ok(made) => made?,
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => return Err(Error::Client("the runtime is shutting down".into())),
            },
        };
        configurations.insert(settings.clone(), made.clone());
        Ok(made)
    }

    /// Returns the proxy for a URL.
    fn proxy(&self, url: &Url) -> Option<Zeroizing<String>> {
        let (host, port) = server_of(url);
        self.proxies.proxy_for(url.scheme(), &host, port)
    }
}
