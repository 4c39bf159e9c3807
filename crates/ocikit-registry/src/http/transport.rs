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
use reqwest::{Method, Proxy, Url, Version};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::address::{OutOfReach, Reach, Resolver, Zone};
use super::fault::{Fault, sort};
use super::pulse::Pulse;
use super::spare::{Between, Cuts, Does, FAR, Shelf};
use super::tls;
use crate::hosts::{ProxyOptions, TlsSettings, Verify};

/// Limits of time. None of them ends the transfer of a blob that gets on, however slowly.
#[derive(Debug, Clone)]
pub struct Timeouts {
    /// How long it may take to be connected.
    pub connect: Duration,
    /// How long a registry may think before it begins to answer. After an upload it may take a second more for every
    /// 16 MiB, since it reads them again or moves them.
    pub answer: Duration,
    /// How long nothing may move, in either direction, while bytes are on their way; ten times as long where what is sent
    /// has yet to come from elsewhere.
    pub silence: Duration,
    /// How long a small document may take from the request until it is complete: a manifest, a config, a signature, a
    /// token, a page of a list, an error. It may take a second more for every 64 KiB received.
    pub document: Duration,
}

impl Default for Timeouts {
    /// A quarter of a minute to connect, a minute otherwise.
    fn default() -> Timeouts {
        let minute = Duration::from_secs(60);
        Timeouts { connect: minute / 4, answer: minute, silence: minute, document: minute }
    }
}

/// How many bytes of a small document are allowed a second more.
const SLOWEST_DOCUMENT: usize = 64 << 10;

/// Up to how many bytes it is cheaper to read a body than to make another connection.
const DRAINED: u64 = 64 << 10;

/// One request to one server, without any thought about what to do if it fails.
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

/// What a request carries.
#[derive(Debug)]
pub(crate) enum Payload {
    Empty,
    Bytes(Bytes),
    Stream(Body),
}

impl Exchange<'_> {
    /// The same with another scheme, if it could be made twice.
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

    /// Changes the scheme. A port that was not spelled out is that of plain HTTP once there is no TLS.
    fn change_scheme(&mut self, scheme: &str) {
        let port = if scheme == "https" { self.url.port_or_known_default() } else { self.url.port() };
        // Between `http` and `https` this never fails.
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

/// The name and port of a server.
type Server = (String, u16);

/// Which connections a request uses.
///
/// HTTP/2 saves a handshake for every small request that is made beside another. Large bodies go over HTTP/1.1, each
/// with a connection of its own: HTTP/2 servers commonly grant all uploads on a connection 1 MiB in flight together,
/// which is 20 MB/s at 50 ms.
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

/// An answer whose body is still to come.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// Where the server is, if we see it.
    pub(crate) zone: Option<Zone>,
    response: reqwest::Response,
    silence: Duration,
    document: Duration,
    /// When the request was sent; for a streamed body, when the response began.
    begun: Instant,
}

/// Connections, kept for further use, by what has to be the same for them to be shared.
#[derive(Debug)]
pub(crate) struct Transport {
    user_agent: HeaderValue,
    timeouts: Timeouts,
    proxies: ProxyOptions,
    clients: Mutex<HashMap<Key, Pool>>,
    /// How many connections are opened ahead to a server that is far away.
    ahead: Arc<AtomicUsize>,
    /// Set up once for each, since reading the system's certificates takes longer than a request.
    configurations: tokio::sync::Mutex<HashMap<TlsSettings, Arc<rustls::ClientConfig>>>,
    /// Servers that speak no HTTP/2: there both lanes are one, and connections need not be made twice.
    old: Mutex<HashSet<Server>>,
    /// Servers that turned out to speak no TLS at all, where that is allowed.
    plain: Mutex<HashSet<Server>>,
    /// Servers of which that will not be believed: they have spoken it.
    secure: Mutex<HashSet<Server>>,
    /// Servers on this machine that speak TLS, though nothing said so beforehand.
    upgraded: Mutex<HashSet<Server>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    server: Server,
    tls: Option<TlsSettings>,
    lane: Lane,
    reach: Reach,
}

/// The connections to a server.
#[derive(Debug, Clone)]
struct Pool {
    client: reqwest::Client,
    /// Whether the server has answered anything yet.
    answered: Arc<AtomicBool>,
    cuts: Cuts,
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
            old: Mutex::default(),
            plain: Mutex::default(),
            secure: Mutex::default(),
            upgraded: Mutex::default(),
        }
    }

    /// Whether a server has answered in this process, which tells a restart from a wrong address.
    pub(crate) fn has_answered(&self, url: &Url) -> bool {
        let server = server_of(url);
        lock(&self.clients).iter().any(|(key, pool)| key.server == server && pool.answered.load(Ordering::Relaxed))
    }

    /// Returns whether a server turned out to speak TLS, so that requests for `http` URLs are sent with TLS.
    pub(crate) fn is_upgraded(&self, url: &Url) -> bool {
        lock(&self.upgraded).contains(&server_of(url))
    }

    /// Sends a request and waits for the beginning of the answer; without TLS where the settings say that this may be
    /// and there is none, with TLS where a server on this machine turns out to speak nothing else.
    pub(crate) async fn exchange(&self, mut exchange: Exchange<'_>) -> Result<Answer, Fault> {
        if exchange.url.scheme() == "http" {
            return self.exchange_plain(exchange).await;
        }
        if exchange.tls.verify != Verify::NorTls || exchange.url.scheme() != "https" {
            return self.once(exchange).await;
        }
        let server = exchange.server();
        if lock(&self.plain).contains(&server) {
            exchange.change_scheme("http");
            return self.once(exchange).await;
        }
        let plain = exchange.with_scheme("http").filter(|_| !lock(&self.secure).contains(&server));
        let outcome = self.once(exchange).await;
        if outcome.is_ok() {
            lock(&self.secure).insert(server.clone());
        }
        match (outcome, plain) {
            (Err(fault @ (Fault::Final(_) | Fault::Unsent(_))), Some(plain)) => match self.once(plain).await {
                Ok(answer) => {
                    lock(&self.plain).insert(server);
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
        // Go and nginx answer what is no TLS with status 400, others with an alert, which is no HTTP.
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

    /// Whether a server speaks TLS, whatever its certificate. Nothing secret is sent.
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
            // It may want to see a certificate.
            Err(fault) => fault.cause() == NoAnswer::Tls,
        }
    }

    async fn once(&self, exchange: Exchange<'_>) -> Result<Answer, Fault> {
        let server = exchange.server();
        let Exchange { method, url, mut headers, payload, tls, lane, limit, reach } = exchange;
        if !reach.permits_url(&url) {
            return Err(Fault::Final(Box::new(OutOfReach::private(url.host_str().unwrap_or_default()))));
        }
        let is_proxied = self.proxy(&url).is_some();
        if is_proxied {
            reach.permits_by_proxy(&url).await.map_err(|error| Fault::Final(Box::new(error)))?;
        }
        let lane = if lock(&self.old).contains(&server) { Lane::Small } else { lane };
        let tls = (url.scheme() == "https").then_some(tls);
        let Pool { client, answered, cuts } = self.pool(&server, &url, tls, lane, reach).await.map_err(Fault::Setup)?;

        headers.insert(USER_AGENT, self.user_agent.clone());
        let (body, pulse) = match payload {
            Payload::Empty => (None, Pulse::none()),
            Payload::Bytes(bytes) => (Some(bytes.into()), Pulse::none()),
            Payload::Stream(body) => {
                headers.insert(CONTENT_LENGTH, body.length().into());
                let (body, pulse) = Pulse::of(body, self.timeouts.answer);
                (Some(reqwest::Body::wrap_stream(body)), pulse)
            }
        };
        let begun = (!pulse.is_streamed()).then(Instant::now);
        let no_body = body.is_none();
        let mut request = client.request(method.clone(), url).headers(headers);
        if let Some(body) = body {
            request = request.body(body);
        } else if no_body && matches!(method, Method::POST | Method::PUT | Method::PATCH) {
            // Google Artifact Registry answers 411 without (oras-project/rust-oci-client#176).
            request = request.header(CONTENT_LENGTH, 0);
        }
        let mut timeouts = self.timeouts.clone();
        if limit == TimeLimit::Document {
            timeouts.answer = timeouts.answer.min(timeouts.document);
        }
        match pulse.watch(request.send(), &timeouts).await {
            Ok(Ok(response)) => {
                answered.store(true, Ordering::Relaxed);
                if tls.is_some() && lane == Lane::Small && response.version() < Version::HTTP_2 {
                    lock(&self.old).insert(server);
                }
                let address = response.remote_addr().filter(|_| !is_proxied);
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
                cuts.count();
                Err(pulse.problem().map_or_else(|| sort(error), Fault::Payload))
            }
            Err(silent) => {
                cuts.count();
                Err(silent)
            }
        }
    }

    /// From now on so many connections are opened ahead to each server that is far away.
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
        let key = Key { server: server.clone(), tls: tls.cloned(), lane, reach };
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
        let cuts = Cuts::default();
        let shelf = Shelf::new(cuts.clone());
        // Those of large bodies are made when there are such: by then it is known how many.
        let spare = match lane {
            Lane::Small => Some(self.builder(configuration.clone(), url, reach)?),
            Lane::Bulk => None,
        };
        let keep = Between { shelf: shelf.clone(), does: Does::Keep };
        let fill = self.fill(spare.map(|spare| spare.connector_layer(keep)), url);
        let builder =
            self.builder(configuration, url, reach)?.connector_layer(Between { shelf, does: Does::Use(fill.clone()) });
        let made = Pool { client: builder.build().map_err(broken)?, answered: Arc::default(), cuts };
        // Of two that were made at the same time the first is kept, so that there is one.
        let pool = lock(&self.clients).entry(key).or_insert(made).clone();
        if tls.is_none() && self.ahead.load(Ordering::Relaxed) > 0 {
            let answered = pool.answered.clone();
            tokio::spawn(async move {
                tokio::time::sleep(FAR).await;
                if !answered.load(Ordering::Relaxed) {
                    fill();
                }
            });
        }
        Ok(pool)
    }

    /// Opens connections to a server, once. The client that does is not made before.
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
                // It ends with an error when there is a connection.
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
        // Otherwise the system gives up on a silent connection when it sees fit.
        #[cfg(target_os = "linux")]
        {
            builder = builder.tcp_user_timeout(self.timeouts.silence);
        }
        // A proxy is where the user said, which is often in a private network.
        let proxy = self.proxy(url);
        let reach = if proxy.is_some() { Reach::Anywhere } else { reach };
        builder = builder.dns_resolver(Resolver(reach));
        if let Some(proxy) = proxy {
            let proxy = Proxy::all(proxy.as_str());
            builder =
                builder.proxy(proxy.map_err(|error| Error::broken("the address of the proxy", error.without_url()))?);
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

    /// The proxy for a URL.
    fn proxy(&self, url: &Url) -> Option<Zeroizing<String>> {
        let (host, port) = server_of(url);
        self.proxies.proxy_for(url.scheme(), &host, port)
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// How many bytes the server says the body has.
    pub(crate) fn length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    /// The body as it comes, within a limit.
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
            let allowed = document + Duration::from_secs((received / SLOWEST_DOCUMENT) as u64);
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

    /// The body as it comes.
    pub(crate) fn chunks(self) -> impl Stream<Item = Result<Bytes, Fault>> + Send + 'static {
        stream::unfold(Some((self.response, self.silence)), |state| async {
            let (mut response, silence) = state?;
            match tokio::time::timeout(silence, response.chunk()).await {
                Ok(Ok(Some(chunk))) => Some((Ok(chunk), Some((response, silence)))),
                Ok(Ok(None)) => None,
                Ok(Err(error)) => Some((Err(sort(error)), None)),
                Err(_) => Some((Err(Fault::Silent(silence)), None)),
            }
        })
    }

    /// Reads what nobody wants to know if it is short: then the connection can be used again.
    pub(crate) async fn drain(self) {
        if self.length().is_some_and(|length| length <= DRAINED) {
            let _ = self.read(DRAINED).await;
        }
    }

    /// The whole body of a small document; `None` if it has more bytes than this.
    ///
    /// # Errors
    ///
    /// [`Fault::Slow`] if it is not complete within [`Timeouts::document`], however much it moves.
    pub(crate) async fn read(self, most: u64) -> Result<Option<Bytes>, Fault> {
        if self.length().is_some_and(|length| length > most) {
            return Ok(None);
        }
        let mut chunks = self.chunks_within(TimeLimit::Document);
        let mut all = BytesMut::new();
        loop {
            let Some(chunk) = chunks.next().await.transpose()? else { return Ok(Some(all.freeze())) };
            if (all.len() + chunk.len()) as u64 > most {
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
