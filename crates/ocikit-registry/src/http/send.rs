use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use ocikit_image::{Body, RetryOptions, retry};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Url};

use super::address::{Reach, Zone};
use super::clock::Clock;
use super::fault::Fault;
use super::limit::{Limit, LoadReport, Permit};
use super::observe::ObserverHandle;
use super::redact::Secrets;
use super::redirect::{self, Hop};
use super::transport::{Answer, Exchange, Lane, Payload, TimeLimit, Transport, lock};
use crate::hosts::{HostOptions, TlsSettings};

/// A request that can be repeated.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) lane: Lane,
    /// The limit on the total time of each response.
    pub(crate) limit: TimeLimit,
    /// The addresses that the first request may be sent to. A redirect goes no further than the server that sent it may
    /// name.
    pub(crate) reach: Reach,
    /// Sent to the first server only.
    pub(crate) authorization: Option<HeaderValue>,
    /// Whether the body is secret as well. Then a redirect to another server is an error.
    pub(crate) is_secret: bool,
}

impl Request {
    pub(crate) fn new(method: Method, url: Url) -> Request {
        let is_small = matches!(method, Method::GET | Method::HEAD);
        Request {
            limit: if is_small { TimeLimit::Document } else { TimeLimit::None },
            method,
            url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            lane: Lane::Small,
            reach: Reach::Anywhere,
            authorization: None,
            is_secret: false,
        }
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Request {
        // The value comes from a document with an invalid media type. The registry reports what is wrong with the
        // request.
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.append(name, value);
        }
        self
    }

    pub(crate) fn body(mut self, media_type: &str, body: Bytes) -> Request {
        self.body = body;
        self.header("content-type", media_type)
    }
}

/// An answer and its origin.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) answer: Answer,
    /// The URL that answered, after redirects.
    pub(crate) url: Url,
    /// Whether that is the server of the request.
    pub(crate) direct: bool,
    /// Whether an earlier attempt failed, as far as the client can tell.
    pub(crate) retried: bool,
    /// The secrets of the request, to be removed from everything that is shown of the answer.
    pub(crate) secrets: Secrets,
}

/// Sends requests: limits their number per host, retries, and follows redirects.
#[derive(Debug)]
pub(crate) struct Http {
    transport: Transport,
    retry: RetryOptions,
    clock: Arc<dyn Clock>,
    hosts: HostOptions,
    /// The TLS settings of servers that other servers named.
    tls: Mutex<HashMap<String, TlsSettings>>,
    /// Maximum number of concurrent requests per host.
    max_requests_per_host: usize,
    limits: Mutex<HashMap<(String, PermitKind), Arc<Limit>>>,
    /// The shortest time in which each server has answered a request without a body.
    fastest: Mutex<HashMap<String, Duration>>,
    /// Whether servers may name addresses in any zone.
    trust_redirects: bool,
    observer: ObserverHandle,
}

/// The maximum number of attempts for a small document that times out without an answer.
const MAX_TIMEOUTS: u32 = 2;

/// A server is far away if even its fastest answer took at least this long. Then one additional request is better than
/// an additional round trip.
const FAR_RTT: Duration = Duration::from_millis(40);

/// The kinds of requests that are limited separately: an upload may wait for its source, which may be a download from
/// the same host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum PermitKind {
    Request,
    Upload,
}

impl Http {
    pub(crate) fn new(
        transport: Transport,
        retry: RetryOptions,
        clock: Arc<dyn Clock>,
        hosts: HostOptions,
        max_requests_per_host: usize,
        trust_redirects: bool,
        observer: ObserverHandle,
    ) -> Http {
        let (tls, limits, fastest) = (Mutex::default(), Mutex::default(), Mutex::default());
        Http { transport, retry, clock, hosts, tls, max_requests_per_host, limits, fastest, trust_redirects, observer }
    }

    /// Opens this many connections in advance to each server that is far away.
    pub(crate) fn open_ahead(&self, connections: usize) {
        self.transport.open_ahead(connections);
    }

    /// Returns whether requests to a server are sent with TLS, including those whose URL has the scheme `http`.
    pub(crate) fn uses_tls(&self, url: &Url) -> bool {
        url.scheme() == "https" || self.transport.is_upgraded(url)
    }

    pub(crate) fn observer(&self) -> &ObserverHandle {
        &self.observer
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Sends a request, and retries until the answer is one that a retry would not change, or no attempt is left.
    /// Returns the last answer, whatever its status, or the last fault.
    pub(crate) async fn send(&self, request: &Request, tls: &TlsSettings) -> Result<Reply, Fault> {
        let (mut failures, mut timeouts) = (0, 0);
        loop {
            let mut outcome = self.attempt(request, tls).await;
            if request.limit == TimeLimit::Document && matches!(outcome, Err(Fault::Silent(_))) {
                timeouts += 1;
                if timeouts >= MAX_TIMEOUTS {
                    return outcome;
                }
            }
            if let Ok(reply) = &mut outcome {
                reply.retried = failures > 0;
            }
            let asked = match &outcome {
                Ok(reply) if retry::is_passing(reply.answer.status) => self.retry_after(&reply.answer),
                Ok(_) => return outcome,
                Err(fault) if fault.is_final() => return outcome,
                Err(_) => None,
            };
            failures += 1;
            // A server that has answered before in this process is probably being restarted.
            let is_lasting =
                outcome.as_ref().is_err_and(Fault::is_lasting) && !self.transport.has_answered(&request.url);
            let retry = if is_lasting { &self.retry.briefly() } else { &self.retry };
            let Some(pause) = retry.pause(failures, asked, self.clock.random()) else { return outcome };
            if let Ok(reply) = outcome {
                reply.answer.drain().await;
            }
            self.observer.retried(&request.method, &request.url, pause, failures);
            self.clock.sleep(pause).await;
        }
    }

    /// Returns whether every answer of a server took at least [`FAR_RTT`], so that one additional request is better
    /// than an additional round trip.
    pub(crate) fn is_far(&self, url: &Url) -> bool {
        lock(&self.fastest).get(&server(url)).is_some_and(|fastest| *fastest >= FAR_RTT)
    }

    /// Returns the delay before the next attempt; `None` if no attempt is left.
    pub(crate) fn pause(&self, failures: u32, asked: Option<Duration>) -> Option<Duration> {
        self.retry.pause(failures, asked, self.clock.random())
    }

    pub(crate) fn retry_after(&self, answer: &Answer) -> Option<Duration> {
        retry::retry_after(answer.header(RETRY_AFTER.as_str())?, self.clock.now())
    }

    /// Sends a body that can be read only once, to one server and without retry. The caller decides about redirects and
    /// retries.
    pub(crate) async fn stream(&self, request: Request, body: Body, tls: &TlsSettings) -> Result<Reply, Fault> {
        let Request { method, url, headers, authorization, reach, lane, limit, .. } = request;
        let permit = self.begin(&url, PermitKind::Upload).await;
        let headers = authorized(headers, authorization.as_ref());
        let secrets = Secrets::of(authorization.as_ref(), None);
        let payload = Payload::Stream(body);
        let exchange = Exchange { method, url: url.clone(), headers, payload, tls, lane, limit, reach };
        let answer = finish(permit, self.exchange(exchange).await)?;
        Ok(Reply { answer, url, direct: true, retried: false, secrets })
    }

    async fn exchange(&self, exchange: Exchange<'_>) -> Result<Answer, Fault> {
        let (method, url, begun) = (exchange.method.clone(), exchange.url.clone(), self.clock.now());
        let small = matches!(exchange.payload, Payload::Empty);
        let outcome = self.transport.exchange(exchange).await;
        let time = self.clock.now().duration_since(begun).unwrap_or_default();
        if small && outcome.is_ok() {
            let mut fastest = lock(&self.fastest);
            let fastest = fastest.entry(server(&url)).or_insert(time);
            *fastest = time.min(*fastest);
        }
        self.observer.outcome(&method, &url, &outcome.as_ref().map(|answer| answer.status), time);
        outcome
    }

    /// Makes one attempt, which follows redirects.
    async fn attempt(&self, request: &Request, tls: &TlsSettings) -> Result<Reply, Fault> {
        let mut visited = vec![request.url.clone()];
        let mut hop = Hop { url: request.url.clone(), method: request.method.clone(), same: true };
        let (mut direct, mut reach, mut tls) = (true, request.reach, Cow::Borrowed(tls));
        loop {
            let Hop { url, method, .. } = hop;
            let permit = self.begin(&url, PermitKind::Request).await;
            let unchanged = method == request.method && !request.body.is_empty();
            let exchange = Exchange {
                method: method.clone(),
                url: url.clone(),
                headers: authorized(request.headers.clone(), request.authorization.as_ref().filter(|_| direct)),
                payload: if unchanged { Payload::Bytes(request.body.clone()) } else { Payload::Empty },
                tls: &tls,
                lane: request.lane,
                limit: request.limit,
                reach,
            };
            let answer = finish(permit, self.exchange(exchange).await)?;
            if !redirect::is_redirect(answer.status) {
                let form = request.is_secret.then_some(&*request.body);
                let secrets = Secrets::of(request.authorization.as_ref(), form);
                return Ok(Reply { answer, url, direct, retried: false, secrets });
            }
            let next = redirect::follow(&visited, &method, answer.status, answer.header("location"));
            hop = next.map_err(|problem| Fault::Final(problem.into()))?;
            let zone = answer.zone;
            answer.drain().await;
            if !hop.same {
                if request.is_secret {
                    let problem = format!("it redirects a request with credentials to {}", redirect::shown(&hop.url));
                    return Err(Fault::Final(problem.into()));
                }
                if direct {
                    reach = self.reach_from(zone);
                }
                direct = false;
                tls = Cow::Owned(self.tls_of(&hop.url)?);
            }
            visited.push(hop.url.clone());
        }
    }

    /// Returns the addresses that a server in this zone may name.
    pub(crate) fn reach_from(&self, zone: Option<Zone>) -> Reach {
        if self.trust_redirects { Reach::Anywhere } else { Reach::From(zone.unwrap_or(Zone::Public)) }
    }

    /// Returns the TLS settings for a server that another server named.
    pub(crate) fn tls_of(&self, url: &Url) -> Result<TlsSettings, Fault> {
        let server = server(url);
        if let Some(found) = lock(&self.tls).get(&server) {
            return Ok(found.clone());
        }
        let found = self.hosts.of_url(url).map_err(Fault::Setup)?;
        lock(&self.tls).insert(server, found.clone());
        Ok(found)
    }

    async fn begin(&self, url: &Url, kind: PermitKind) -> Permit {
        let limit = lock(&self.limits)
            .entry((server(url), kind))
            .or_insert_with(|| Limit::new(self.max_requests_per_host))
            .clone();
        limit.begin().await
    }
}

/// Returns the host and port of a URL.
fn server(url: &Url) -> String {
    format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default())
}

fn authorized(mut headers: HeaderMap, authorization: Option<&HeaderValue>) -> HeaderMap {
    if let Some(authorization) = authorization {
        headers.insert(AUTHORIZATION, authorization.clone());
    }
    headers
}

fn finish(permit: Permit, outcome: Result<Answer, Fault>) -> Result<Answer, Fault> {
    permit.end(match &outcome {
        Ok(answer) if retry::is_overload(answer.status) => LoadReport::Overload,
        Ok(answer) if answer.status < 500 => LoadReport::Fine,
        _ => LoadReport::Other,
    });
    outcome
}

#[cfg(test)]
mod tests {
    use super::super::clock::SystemClock;
    use super::super::transport::Timeouts;
    use super::*;
    use crate::hosts::ProxyOptions;

    #[test]
    fn redirects_are_limited_by_zone_unless_trusted() {
        let http = |trust_redirects| {
            let transport = Transport::new("test", Timeouts::default(), ProxyOptions::default());
            let (retry, hosts) = (RetryOptions::default(), HostOptions::default());
            Http::new(transport, retry, Arc::new(SystemClock), hosts, 1, trust_redirects, ObserverHandle::default())
        };
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
            assert_eq!(http(false).reach_from(zone).permits_url(&url), permitted, "{zone:?} to {to}");
            assert!(http(true).reach_from(zone).permits_url(&url), "{to}");
        }
    }
}
