use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::Method;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};

use crate::address::{Reach, Resolver, SystemResolver, Zone};
use crate::answer::Answer;
use crate::body::BodySource;
use crate::clock::{Clock, SystemClock};
use crate::error::Error;
use crate::limit::{Limit, LoadReport, Permit};
use crate::lock::lock;
use crate::observe::{RequestEvent, RequestObserver, RequestOutcome};
use crate::proxy::ProxyOptions;
use crate::redact::Secrets;
use crate::request::{Document, Reply, Request};
use crate::request_error::RequestError;
use crate::retry::{self, RetryOptions};
use crate::settings::TlsSettings;
use crate::speculation::{Latency, Speculation};
use crate::timeouts::{TimeLimit, Timeouts};
use crate::transport::{Exchange, Payload, Server, Transport, server_of};
use crate::trust::{self, Origin};
use crate::url::Url;

/// Configures an [`HttpClient`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HttpClientOptions {
    /// The value of the `User-Agent` header.
    pub user_agent: String,
    /// Proxies. None by default.
    pub proxies: ProxyOptions,
    /// How often, and after which delays, requests are retried.
    pub retry: RetryOptions,
    /// Time limits.
    pub timeouts: Timeouts,
    /// Maximum number of concurrent requests per host, and of concurrent requests with a streamed body in addition. The
    /// client lowers it for a host that reports overload.
    pub requests_per_host: usize,
    /// Which servers a server may name.
    pub redirects: Redirects,
    /// The TLS settings for servers that other servers name.
    pub others: Arc<dyn OtherServers>,
    /// Resolves host names.
    pub resolver: Arc<dyn Resolver>,
    /// An observer of all requests. None by default.
    pub observer: Option<Arc<dyn RequestObserver>>,
    /// The source of time and randomness.
    pub clock: Arc<dyn Clock>,
}

ocikit_spec::setters! {
    HttpClientOptions {
        user_agent: String,
        proxies: ProxyOptions,
        retry: RetryOptions,
        timeouts: Timeouts,
        requests_per_host: usize,
        redirects: Redirects,
        others: Arc<dyn OtherServers>,
        resolver: Arc<dyn Resolver>,
        observer: Option<Arc<dyn RequestObserver>>,
        clock: Arc<dyn Clock>,
    }
}

impl Default for HttpClientOptions {
    /// Returns options without proxies, with 24 requests per host.
    fn default() -> HttpClientOptions {
        HttpClientOptions {
            user_agent: concat!("ocikit/", env!("CARGO_PKG_VERSION")).to_owned(),
            proxies: ProxyOptions::default(),
            retry: RetryOptions::default(),
            timeouts: Timeouts::default(),
            requests_per_host: 24,
            redirects: Redirects::default(),
            others: Arc::new(TlsSettings::default()),
            resolver: Arc::new(SystemResolver),
            observer: None,
            clock: Arc::new(SystemClock),
        }
    }
}

/// Which servers a server may name in redirects, as token services and as locations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Redirects {
    /// Only servers with addresses as public as its own: a public server cannot redirect to a private network, to this
    /// machine, or to the metadata service of a cloud, which returns secrets of the machine.
    #[default]
    Guarded,
    /// Any server.
    Trusted,
    /// Redirects are not followed: they are answers like others.
    Never,
}

/// Provides the TLS settings for servers that other servers name: in redirects, as token services, as locations of
/// upload sessions.
pub trait OtherServers: Debug + Send + Sync + 'static {
    /// Returns the settings for the server of a URL. It blocks at most for reading small files.
    ///
    /// # Errors
    ///
    /// If the settings for the server cannot be used.
    fn tls(&self, url: &Url) -> Result<TlsSettings, Error>;
}

/// The same settings for all servers. Its client certificate is not for them.
impl OtherServers for TlsSettings {
    fn tls(&self, _: &Url) -> Result<TlsSettings, Error> {
        Ok(self.without_identity())
    }
}

/// Sends requests: limits their number per host, retries, and follows redirects.
#[derive(Debug)]
pub struct HttpClient {
    options: HttpClientOptions,
    transport: Transport,
    /// The TLS settings of servers that other servers named.
    tls: Mutex<HashMap<Server, Arc<TlsSettings>>>,
    limits: Mutex<HashMap<(Server, PermitKind), Arc<Limit>>>,
    /// The shortest time in which each server has answered a request without a body.
    fastest: Mutex<HashMap<Server, Duration>>,
}

/// The maximum number of attempts for a small document that times out without an answer.
const MAX_TIMEOUTS: u32 = 2;

/// The kinds of requests that are limited separately: an upload may wait for its source, which may be a download from
/// the same host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum PermitKind {
    Request,
    Upload,
}

/// The attempts of one request so far.
#[derive(Debug, Default)]
struct Attempts {
    made: u32,
    /// Those without any answer in time.
    timeouts: u32,
}

impl HttpClient {
    /// Creates a client. Reads no file and opens no connection before the first request.
    pub fn new(options: HttpClientOptions) -> HttpClient {
        let HttpClientOptions { user_agent, timeouts, proxies, resolver, .. } = &options;
        let transport = Transport::new(user_agent, timeouts.clone(), proxies.clone(), resolver.clone());
        HttpClient { options, transport, tls: Mutex::default(), limits: Mutex::default(), fastest: Mutex::default() }
    }

    /// Sends a request, and retries until the answer is one that a retry would not change, or no attempt is left.
    /// Returns the last answer, whatever its status.
    ///
    /// # Errors
    ///
    /// The failure of the last attempt.
    pub async fn send(&self, request: &Request) -> Result<Reply, RequestError> {
        let mut attempts = Attempts::default();
        loop {
            let outcome = self.attempt(request, None).await;
            let status = outcome.as_ref().map(|reply| (reply.answer.status, self.retry_after(&reply.answer)));
            let Some(pause) = self.retry_pause(request, &mut attempts, status) else {
                return outcome.map(|reply| Reply { attempts: attempts.made, ..reply });
            };
            if let Ok(reply) = outcome {
                reply.answer.drain().await;
            }
            self.wait(&request.method, &request.url, pause, attempts.made).await;
        }
    }

    /// Sends a body that can be read only once, in one attempt. It is opened again for each redirect.
    ///
    /// # Errors
    ///
    /// The failure of the attempt; [`RequestError::Payload`] with the error of the source.
    pub async fn stream(&self, request: &Request, body: &dyn BodySource) -> Result<Reply, RequestError> {
        self.attempt(request, Some(body)).await
    }

    /// Sends a request and reads the complete answer, and retries both. Returns the last answer, whatever its status.
    ///
    /// # Errors
    ///
    /// The failure of the last attempt, with the number of attempts; [`RequestError::TooLong`] for a body of more than
    /// `max_bytes` bytes.
    pub async fn fetch(&self, request: &Request, max_bytes: u64) -> Result<Document, (RequestError, u32)> {
        let mut attempts = Attempts::default();
        self.fetch_until(request, max_bytes, |_, outcome| {
            let status = outcome.map(|document| (document.status, document.retry_after));
            self.retry_pause(request, &mut attempts, status)
        })
        .await
    }

    /// As [`HttpClient::fetch`], with a retry rule of the caller. `pause` gets the number of attempts and the last
    /// outcome, and returns the delay before the next attempt, or `None` to stop.
    ///
    /// # Errors
    ///
    /// As [`HttpClient::fetch`].
    pub async fn fetch_until(
        &self,
        request: &Request,
        max_bytes: u64,
        mut pause: impl FnMut(u32, Result<&Document, &RequestError>) -> Option<Duration> + Send,
    ) -> Result<Document, (RequestError, u32)> {
        let mut attempts = 0;
        loop {
            let outcome = self.fetch_once(request, max_bytes).await;
            attempts += 1;
            match (pause(attempts, outcome.as_ref()), outcome) {
                (Some(pause), _) => self.wait(&request.method, &request.url, pause, attempts).await,
                (None, Ok(document)) => return Ok(Document { attempts, ..document }),
                (None, Err(error)) => return Err((error, attempts)),
            }
        }
    }

    async fn fetch_once(&self, request: &Request, max_bytes: u64) -> Result<Document, RequestError> {
        let answer = self.attempt(request, None).await?.answer;
        let (status, headers, retry_after) = (answer.status, answer.headers.clone(), self.retry_after(&answer));
        Ok(Document { status, headers, retry_after, body: answer.read(max_bytes).await?, attempts: 1 })
    }

    /// Makes one attempt, which follows redirects.
    async fn attempt(&self, request: &Request, source: Option<&dyn BodySource>) -> Result<Reply, RequestError> {
        let (mut url, mut method) = (request.url.clone(), request.method.clone());
        let (mut origin, mut direct) = (request.origin.clone(), true);
        let mut visited = vec![url.clone()];
        loop {
            let tls = self.tls_of(&origin, &url)?;
            let payload = match source {
                _ if method != request.method => Payload::Empty,
                Some(source) => Payload::Stream(source.open().await.map_err(RequestError::Payload)?),
                None if request.body.is_empty() => Payload::Empty,
                None => Payload::Bytes(request.body.clone()),
            };
            let kind = if source.is_some() { PermitKind::Upload } else { PermitKind::Request };
            let permit = self.begin(&url, kind).await;
            let exchange = Exchange {
                method: method.clone(),
                url: url.clone(),
                headers: authorized(request.headers.clone(), request.authorization.as_ref().filter(|_| direct)),
                payload,
                tls: &tls,
                lane: request.lane,
                limit: request.limit,
                reach: origin.reach(),
            };
            let answer = finish(permit, self.exchange(exchange).await)?;
            if !trust::is_redirect(answer.status) || self.options.redirects == Redirects::Never {
                let form = request.is_secret.then_some(&*request.body);
                let secrets = Secrets::of(request.authorization.as_ref(), form);
                return Ok(Reply { answer, url, origin, direct, attempts: 1, secrets });
            }
            let next = trust::follow(&visited, &method, answer.status, answer.header("location"));
            let (next, next_method) = next.map_err(|problem| RequestError::Final(problem.into()))?;
            let other = origin.of_other(&url, &next, self.reach_from(answer.zone));
            answer.drain().await;
            if let Some(other) = other {
                if request.is_secret {
                    let problem = format!("it redirects a request with credentials to {next}");
                    return Err(RequestError::Final(problem.into()));
                }
                (origin, direct) = (other, false);
            }
            visited.push(next.clone());
            (url, method) = (next, next_method);
        }
    }

    async fn exchange(&self, exchange: Exchange<'_>) -> Result<Answer, RequestError> {
        let (method, url, begun) = (exchange.method.clone(), exchange.url.clone(), self.options.clock.now());
        let small = matches!(exchange.payload, Payload::Empty);
        let outcome = self.transport.exchange(exchange).await;
        let time = self.options.clock.now().duration_since(begun).unwrap_or_default();
        if small && outcome.is_ok() {
            let mut fastest = lock(&self.fastest);
            let fastest = fastest.entry(server_of(&url)).or_insert(time);
            *fastest = time.min(*fastest);
        }
        if let Some(observer) = &self.options.observer {
            let problem = outcome.as_ref().map_or_else(ToString::to_string, |_| String::new());
            let outcome = match &outcome {
                Ok(answer) => RequestOutcome::Answered { status: answer.status, time },
                Err(_) => RequestOutcome::Failed { problem: &problem, time },
            };
            observer.request(RequestEvent { method: method.as_str(), url: &url.to_string(), outcome });
        }
        outcome
    }

    /// Returns the delay before the next attempt, or `None` if the outcome is one that a retry would not change, or no
    /// attempt is left. An answer has a status, and the delay that it asks for.
    fn retry_pause(
        &self,
        request: &Request,
        attempts: &mut Attempts,
        outcome: Result<(u16, Option<Duration>), &RequestError>,
    ) -> Option<Duration> {
        attempts.made += 1;
        if request.limit == TimeLimit::Document && matches!(outcome, Err(RequestError::Silent(_))) {
            attempts.timeouts += 1;
            if attempts.timeouts >= MAX_TIMEOUTS {
                return None;
            }
        }
        let asked = match outcome {
            Ok((status, asked)) if retry::is_passing(status) => asked,
            Ok(_) => return None,
            Err(error) if error.is_final() => return None,
            Err(_) => None,
        };
        // A server that has answered before in this process is probably being restarted.
        let is_lasting = outcome.is_err_and(RequestError::is_lasting) && !self.transport.has_answered(&request.url);
        let retry = if is_lasting { &self.options.retry.briefly() } else { &self.options.retry };
        retry.pause(attempts.made, asked, self.options.clock.random())
    }

    /// Waits before the next attempt of a request that the caller repeats by itself. Returns `false` at once if no
    /// attempt is left. `asked` is the `Retry-After` of the answer.
    pub async fn back_off(&self, method: &Method, url: &Url, failures: u32, asked: Option<Duration>) -> bool {
        match self.options.retry.pause(failures, asked, self.options.clock.random()) {
            None => false,
            Some(pause) => {
                self.wait(method, url, pause, failures).await;
                true
            }
        }
    }

    async fn wait(&self, method: &Method, url: &Url, pause: Duration, failures: u32) {
        if let Some(observer) = &self.options.observer {
            let outcome = RequestOutcome::Retried { pause, failures };
            observer.request(RequestEvent { method: method.as_str(), url: &url.to_string(), outcome });
        }
        self.options.clock.sleep(pause).await;
    }

    /// Returns the `Retry-After` of an answer, as a delay from now on.
    pub fn retry_after(&self, answer: &Answer) -> Option<Duration> {
        retry::retry_after(answer.header(RETRY_AFTER.as_str())?, self.options.clock.now())
    }

    /// Returns the origin of a URL that an answer names, other than as a redirect: a token service, the location of an
    /// upload session. `home` is a server that the user named.
    pub fn origin_of(&self, to: &Url, home: (&Url, &Arc<TlsSettings>), named_by: &Reply) -> Origin {
        let Reply { url, origin, answer, .. } = named_by;
        let reach = self.reach_from(answer.zone);
        let user = Origin::User(home.1.clone());
        match user.of_other(home.0, to, reach) {
            None => user,
            Some(_) => origin.of_other(url, to, reach).unwrap_or_else(|| origin.clone()),
        }
    }

    /// Returns the origin of a URL that a server named to another process.
    pub fn origin_of_recorded(&self, to: &Url, home: (&Url, &Arc<TlsSettings>)) -> Origin {
        let user = Origin::User(home.1.clone());
        user.of_other(home.0, to, self.reach_from(None)).unwrap_or(user)
    }

    /// Returns the addresses that a server in this zone may name. The zone is not known behind a proxy.
    fn reach_from(&self, zone: Option<Zone>) -> Reach {
        match self.options.redirects {
            Redirects::Trusted => Reach::Anywhere,
            Redirects::Guarded | Redirects::Never => Reach::From(zone.unwrap_or(Zone::Public)),
        }
    }

    fn tls_of(&self, origin: &Origin, url: &Url) -> Result<Arc<TlsSettings>, RequestError> {
        if let Origin::User(tls) = origin {
            return Ok(tls.clone());
        }
        let server = server_of(url);
        if let Some(found) = lock(&self.tls).get(&server) {
            return Ok(found.clone());
        }
        let found = Arc::new(self.options.others.tls(url).map_err(RequestError::Setup)?);
        lock(&self.tls).insert(server, found.clone());
        Ok(found)
    }

    async fn begin(&self, url: &Url, kind: PermitKind) -> Permit {
        let limit = lock(&self.limits)
            .entry((server_of(url), kind))
            .or_insert_with(|| Limit::new(self.options.requests_per_host))
            .clone();
        limit.begin().await
    }

    /// Announces that this many requests will be made concurrently. To a server that is far away and speaks no HTTP/2,
    /// the client opens as many connections before they are needed; see [`Speculation`].
    pub fn announce(&self, concurrent_requests: usize) {
        self.transport.announce(concurrent_requests);
    }

    /// Returns what is done in advance for a server, by its latency so far.
    pub fn speculation(&self, url: &Url) -> Speculation {
        let fastest_answer = lock(&self.fastest).get(&server_of(url)).copied();
        Speculation::of(&Latency { fastest_answer, ..Latency::default() }, 0)
    }

    /// Returns whether requests to a server are sent with TLS, including those whose URL has the scheme `http`.
    pub fn uses_tls(&self, url: &Url) -> bool {
        url.scheme() == "https" || self.transport.is_upgraded(url)
    }

    /// Returns the observer of all requests.
    pub fn observer(&self) -> Option<&Arc<dyn RequestObserver>> {
        self.options.observer.as_ref()
    }

    /// Returns the source of time and randomness.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.options.clock
    }
}

fn authorized(mut headers: HeaderMap, authorization: Option<&HeaderValue>) -> HeaderMap {
    if let Some(authorization) = authorization {
        headers.insert(AUTHORIZATION, authorization.clone());
    }
    headers
}

fn finish(permit: Permit, outcome: Result<Answer, RequestError>) -> Result<Answer, RequestError> {
    permit.end(match &outcome {
        Ok(answer) if retry::is_overload(answer.status) => LoadReport::Overload,
        Ok(answer) if answer.status < 500 => LoadReport::Fine,
        _ => LoadReport::Other,
    });
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_limited_by_zone_unless_trusted() {
        let http = |redirects| HttpClient::new(HttpClientOptions { redirects, ..HttpClientOptions::default() });
        for (zone, to, permitted) in [
            (Some(Zone::Public), "http://10.0.0.1/", false),
            (Some(Zone::Public), "http://[::1]/", false),
            (Some(Zone::Private), "http://10.0.0.1/", true),
            (Some(Zone::Private), "http://169.254.169.254/", false),
            // Behind a proxy the zone of the server is unknown.
            (None, "http://10.0.0.1/", false),
            (None, "https://8.8.8.8/", true),
        ] {
            let url = to.parse().unwrap();
            assert_eq!(http(Redirects::Guarded).reach_from(zone).permits_url(&url), permitted, "{zone:?} to {to}");
            assert!(http(Redirects::Trusted).reach_from(zone).permits_url(&url), "{to}");
        }
    }
}
