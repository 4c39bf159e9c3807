use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use ocikit_image::{Body, Error, NoAnswer, Result, bridge};
use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, USER_AGENT};
use reqwest::{Method, Proxy, StatusCode, Url, Version};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::address::{OutOfReach, Reach, Resolver, Zone};
use super::fault::{Fault, classify};
use super::proxy_failure::{self, ProxyFailure};
use super::spare::{LostConnections, SPARE_RTT, SpareLayer, SpareQueue, SpareRole};
use super::stall::StallWatch;
use super::tls;
use crate::hosts::{ProxyOptions, TlsSettings, Verify};

/// Time limits. None of them ends a transfer that makes progress, however slow.
#[derive(Debug, Clone)]
pub struct Timeouts {
    /// For opening a connection.
    pub connect: Duration,
    /// For the start of an answer. After an upload, one second more for every 16 MiB, since registries read the bytes
    /// again or move them.
    pub answer: Duration,
    /// For a transfer without progress, in either direction; ten times as long if an upload waits for its source.
    pub silence: Duration,
    /// The maximum time of a small document, from the request to the end of the body: a manifest, a config, a signature, a
    /// token, a page of a list, an error. One second more for every 64 KiB received.
    pub document: Duration,
}

impl Default for Timeouts {
    /// Returns 15 s to connect and 60 s for everything else.
    fn default() -> Timeouts {
        let minute = Duration::from_secs(60);
        Timeouts { connect: minute / 4, answer: minute, silence: minute, document: minute }
    }
}

/// Every this many bytes, a small document gets one second more.
const DOCUMENT_BYTES_PER_SECOND: usize = 64 << 10;

/// Bodies up to this size are read to the end to reuse the connection, which is cheaper than opening a new one.
const MAX_DRAINED_BYTES: u64 = 64 << 10;

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
    Stream(Body),
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
        let port = if scheme == "https" { self.url.port_or_known_default() } else { self.url.port() };
        // Changing between `http` and `https` cannot fail.
        let _ = self.url.set_scheme(scheme);
        let _ = self.url.set_port(port);
    }

    fn server(&self) -> Server {
        server_of(&self.url)
    }
}

fn server_of(url: &Url) -> Server {
    (url.host_str().unwrap_or_default().to_owned(), url.port_or_known_default().unwrap_or_default())
}

/// The host and port of a server.
type Server = (String, u16);

/// The connections that a request uses.
///
/// Small requests share one HTTP/2 connection, which saves handshakes. Large bodies use HTTP/1.1, with one connection
/// each: HTTP/2 servers in Go grant all uploads of a connection a window of 1 MiB together, which limits them to 20
/// MB/s at a round-trip time of 50 ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    Small,
    Bulk,
}

/// The limit on the total time of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeLimit {
    /// None while bytes arrive.
    None,
    /// That of a small document, [`Timeouts::document`], from the request to the end of the body.
    Document,
}

/// An answer whose body has not been read yet.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// The zone of the server; `None` behind a proxy.
    pub(crate) zone: Option<Zone>,
    response: reqwest::Response,
    silence: Duration,
    document: Duration,
    /// When the request was sent; for a streamed body, when the response began.
    begun: Instant,
}

/// The connection pools, by everything that has to be equal for a connection to be shared.
#[derive(Debug)]
pub(crate) struct Transport {
    user_agent: HeaderValue,
    timeouts: Timeouts,
    proxies: ProxyOptions,
    clients: Mutex<HashMap<PoolKey, Pool>>,
    /// Number of connections that are opened in advance to a server that is far away.
    ahead: Arc<AtomicUsize>,
    /// One configuration for each set of settings, since reading the system's certificates takes longer than a request.
    configurations: tokio::sync::Mutex<HashMap<TlsSettings, Arc<rustls::ClientConfig>>>,
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
    pub(crate) fn new(user_agent: &str, timeouts: Timeouts, proxies: ProxyOptions) -> Transport {
        Transport {
            user_agent: HeaderValue::from_str(user_agent).unwrap_or(HeaderValue::from_static("ocikit")),
            timeouts,
            proxies,
            clients: Mutex::default(),
            ahead: Arc::default(),
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
    pub(crate) async fn exchange(&self, mut exchange: Exchange<'_>) -> Result<Answer, Fault> {
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
            (Err(fault @ (Fault::Final(_) | Fault::Unsent(_))), Some(plain)) => match self.once(plain).await {
                Ok(answer) => {
                    lock(&self.plain_http).insert(server);
                    Ok(answer)
                }
                Err(_) => Err(fault),
            },
            (outcome, _) => outcome,
        }
    }

    async fn exchange_plain(&self, mut exchange: Exchange<'_>) -> Result<Answer, Fault> {
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
            Err(fault) => matches!(fault, Fault::Cut(_)),
        };
        if !is_suspect || !self.speaks_tls(&secure.url, reach).await {
            return outcome;
        }
        let host = secure.url.host_str().unwrap_or_default();
        if host.parse::<ocikit_spec::Registry>().is_ok_and(|registry| registry.is_loopback()) {
            lock(&self.upgraded).insert(server);
            return self.once(secure).await;
        }
        Err(Fault::SpeaksTls)
    }

    /// Returns whether a server speaks TLS, whatever its certificate. Sends no secret.
    async fn speaks_tls(&self, url: &Url, reach: Reach) -> bool {
        let mut url = url.clone();
        url.set_path("/");
        url.set_query(None);
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

    async fn once(&self, exchange: Exchange<'_>) -> Result<Answer, Fault> {
        let server = exchange.server();
        let Exchange { method, url, mut headers, payload, tls, lane, limit, reach } = exchange;
        if !reach.permits_url(&url) {
            return Err(Fault::Final(Box::new(OutOfReach::private(url.host_str().unwrap_or_default()))));
        }
        let proxy = self.proxy(&url);
        if proxy.is_some() {
            reach.permits_by_proxy(&url).await.map_err(|error| Fault::Final(Box::new(error)))?;
        }
        let lane = if lock(&self.http1_only).contains(&server) { Lane::Small } else { lane };
        let tls = (url.scheme() == "https").then_some(tls);
        let Pool { client, answered, lost } = self.pool(&server, &url, tls, lane, reach).await.map_err(Fault::Setup)?;

        headers.insert(USER_AGENT, self.user_agent.clone());
        let (body, stall_watch) = match payload {
            Payload::Empty => (None, StallWatch::none()),
            Payload::Bytes(bytes) => (Some(bytes.into()), StallWatch::none()),
            Payload::Stream(body) => {
                headers.insert(CONTENT_LENGTH, body.length().into());
                let (body, stall_watch) = StallWatch::of(body, self.timeouts.answer);
                (Some(reqwest::Body::wrap_stream(body)), stall_watch)
            }
        };
        let begun = (!stall_watch.is_streamed()).then(Instant::now);
        let no_body = body.is_none();
        let mut request = client.request(method.clone(), url).headers(headers);
        if let Some(body) = body {
            request = request.body(body);
        } else if no_body && matches!(method, Method::POST | Method::PUT | Method::PATCH) {
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
                Err(Fault::Final(Box::new(ProxyFailure::needs_credentials(proxy))))
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
                let fault = stall_watch.problem().map_or_else(|| classify(error), Fault::Payload);
                Err(match proxy {
                    Some(proxy) => proxy_failure::attribute(fault, &proxy, &server.0),
                    None => fault,
                })
            }
            Err(silent) => {
                lost.count();
                Err(silent)
            }
        }
    }

    /// Opens this many connections in advance to each server that is far away.
    pub(crate) fn open_ahead(&self, connections: usize) {
        self.ahead.fetch_max(connections, Ordering::Relaxed);
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
        let mut configuration = match tls {
            None => tls::none(),
            Some(settings) => (*self.configuration(settings).await?).clone(),
        };
        configuration.alpn_protocols = match lane {
            Lane::Small => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            Lane::Bulk => vec![b"http/1.1".to_vec()],
        };
        let broken = |error| Error::broken("the HTTP client", error);
        let lost = LostConnections::default();
        let queue = SpareQueue::new(lost.clone());
        // Connections for large bodies are opened when there are such bodies: then their number is known.
        let spare = match lane {
            Lane::Small => Some(self.builder(configuration.clone(), url, reach)?),
            Lane::Bulk => None,
        };
        let keep = SpareLayer { queue: queue.clone(), role: SpareRole::Fill };
        let fill = self.fill(spare.map(|spare| spare.connector_layer(keep)), url);
        let builder = self
            .builder(configuration, url, reach)?
            .connector_layer(SpareLayer { queue, role: SpareRole::Use(fill.clone()) });
        let made = Pool { client: builder.build().map_err(broken)?, answered: Arc::default(), lost };
        // If two tasks created one at the same time, both use the first.
        let pool = lock(&self.clients).entry(key).or_insert(made).clone();
        if tls.is_none() && self.ahead.load(Ordering::Relaxed) > 0 {
            let answered = pool.answered.clone();
            tokio::spawn(async move {
                tokio::time::sleep(SPARE_RTT).await;
                if !answered.load(Ordering::Relaxed) {
                    fill();
                }
            });
        }
        Ok(pool)
    }

    /// Returns a function that opens spare connections to a server, at most once. It builds the second client only
    /// then.
    fn fill(&self, spare: Option<reqwest::ClientBuilder>, url: &Url) -> Arc<dyn Fn() + Send + Sync> {
        let (ahead, spare, mut url) = (self.ahead.clone(), Mutex::new(spare), url.clone());
        url.set_path("");
        url.set_query(None);
        Arc::new(move || {
            let connections = ahead.load(Ordering::Relaxed);
            if connections == 0 {
                return;
            }
            let Some(Ok(spare)) = lock(&spare).take().map(reqwest::ClientBuilder::build) else { return };
            for _ in 0..connections {
                // The request ends with an error as soon as there is a connection.
                tokio::spawn(spare.head(url.clone()).send());
            }
        })
    }

    fn builder(&self, configuration: rustls::ClientConfig, url: &Url, reach: Reach) -> Result<reqwest::ClientBuilder> {
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(configuration)
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
        builder = builder.dns_resolver(Resolver(reach));
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

    async fn configuration(&self, settings: &TlsSettings) -> Result<Arc<rustls::ClientConfig>> {
        let mut configurations = self.configurations.lock().await;
        if let Some(found) = configurations.get(settings) {
            return Ok(found.clone());
        }
        let wanted = settings.clone();
        let made = Arc::new(bridge::blocking(move || tls::configure(&wanted)).await?);
        configurations.insert(settings.clone(), made.clone());
        Ok(made)
    }

    /// Returns the proxy for a URL.
    fn proxy(&self, url: &Url) -> Option<Zeroizing<String>> {
        let (host, port) = server_of(url);
        self.proxies.proxy_for(url.scheme(), &host, port)
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Returns the length of the body as the server states it.
    pub(crate) fn length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    /// Returns the body as a stream with a limit on its total time.
    ///
    /// # Errors
    ///
    /// [`Fault::Slow`] for a small document that is not complete within [`Timeouts::document`], however much it moves.
    pub(crate) fn chunks_within(self, limit: TimeLimit) -> BoxStream<'static, Result<Bytes, Fault>> {
        let (begun, document) = (self.begun, self.document);
        let chunks = self.chunks().boxed();
        if limit == TimeLimit::None {
            return chunks;
        }
        let limited = stream::unfold(Some((chunks, 0)), move |state| async move {
            let (mut chunks, received) = state?;
            let allowed = document + Duration::from_secs((received / DOCUMENT_BYTES_PER_SECOND) as u64);
            match tokio::time::timeout_at(begun + allowed, chunks.next()).await {
                Ok(Some(Ok(chunk))) => {
                    let received = received + chunk.len();
                    Some((Ok(chunk), Some((chunks, received))))
                }
                Ok(Some(Err(fault))) => Some((Err(fault), None)),
                Ok(None) => None,
                Err(_) => Some((Err(Fault::Slow(allowed)), None)),
            }
        });
        limited.boxed()
    }

    /// Returns the body as a stream.
    pub(crate) fn chunks(self) -> impl Stream<Item = Result<Bytes, Fault>> + Send + 'static {
        stream::unfold(Some((self.response, self.silence)), |state| async {
            let (mut response, silence) = state?;
            match tokio::time::timeout(silence, response.chunk()).await {
                Ok(Ok(Some(chunk))) => Some((Ok(chunk), Some((response, silence)))),
                Ok(Ok(None)) => None,
                Ok(Err(error)) => Some((Err(classify(error)), None)),
                Err(_) => Some((Err(Fault::Silent(silence)), None)),
            }
        })
    }

    /// Reads and discards a short body, so that the connection can be reused.
    pub(crate) async fn drain(self) {
        if self.length().is_some_and(|length| length <= MAX_DRAINED_BYTES) {
            let _ = self.read(MAX_DRAINED_BYTES).await;
        }
    }

    /// Returns the body of a small document; `None` if it has more than this many bytes.
    ///
    /// # Errors
    ///
    /// [`Fault::Slow`] if it is not complete within [`Timeouts::document`].
    pub(crate) async fn read(self, max_bytes: u64) -> Result<Option<Bytes>, Fault> {
        if self.length().is_some_and(|length| length > max_bytes) {
            return Ok(None);
        }
        let mut chunks = self.chunks_within(TimeLimit::Document);
        let mut all = BytesMut::new();
        loop {
            let Some(chunk) = chunks.next().await.transpose()? else { return Ok(Some(all.freeze())) };
            if (all.len() + chunk.len()) as u64 > max_bytes {
                return Ok(None);
            }
            all.extend_from_slice(&chunk);
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("status", &self.status).finish_non_exhaustive()
    }
}

pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
