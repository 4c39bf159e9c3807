//! From a request to its answer: log, faults, authentication, and whoever handles it.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::http::header::{EXPECT, HOST, HeaderName, RETRY_AFTER};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt;
use hyper::body::Incoming;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api;
use crate::auth::{Access, Guard, MAX_FORM};
use crate::clock::Clock;
use crate::deadline;
use crate::fault::{Cut, Faults, Quirks, Scene};
use crate::leftover;
use crate::limits::{Limits, Memory, Share};
use crate::log::{Entry, Farewell, Log, Side, counted};
use crate::origin;
use crate::query::Query;
use crate::refusal::{Code, Refusal, Result};
use crate::route::Route;
use crate::rules::Rules;
use crate::storage::Store;

/// Everything that is the same for all requests.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) address: SocketAddr,
    pub(crate) store: Arc<Store>,
    pub(crate) allowed_hosts: Vec<String>,
    pub(crate) rules: Rules,
    pub(crate) limits: Limits,
    /// For the unfinished uploads of a storage in memory.
    pub(crate) upload_memory: Memory,
    /// For the documents of all requests under way.
    pub(crate) memory: Memory,
    /// Told while clients wait for a connection.
    pub(crate) crowded: Notify,
    pub(crate) guard: Guard,
    pub(crate) faults: Faults,
    pub(crate) clock: Clock,
    pub(crate) log: Log,
    /// Cancelled when the server is to end.
    pub(crate) closing: CancellationToken,
    /// Work that goes on when its connection breaks.
    pub(crate) tasks: TaskTracker,
}

impl Desk {
    pub(crate) fn forget_idle_uploads(&self) {
        self.store.uploads.forget_idle(self.rules.idle_upload, self.clock.now());
    }

    /// How many entries a page has at most.
    pub(crate) fn page(&self) -> usize {
        self.rules.page.unwrap_or(usize::MAX)
    }
}

/// A request that is allowed, as its handler sees it, but for its body.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) query: Query,
    pub(crate) access: Access,
    pub(crate) quirks: Quirks,
}

impl Call {
    /// The value of a header, if it is text.
    pub(crate) fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Answers a request. An error cuts the connection.
pub(crate) async fn answer(desk: Arc<Desk>, flushed: Arc<Notify>, request: Request<Incoming>) -> Result<Response, Cut> {
    let (parts, body) = request.into_parts();
    let entry = desk.log.begin(&parts);
    let farewell = Farewell::of(&entry);
    let body = deadline::with_idle_timeout(Body::new(body), desk.limits.body_idle_timeout);
    let body = counted(body, &entry, Side::Request, None);
    let troubles = desk.faults.strike(parts.method.as_str(), parts.uri.path(), parts.uri.query());
    let response = if troubles.is_empty() {
        handle(&desk, parts, Quirks::default(), body, &entry).await
    } else {
        let scene = Scene {
            host: host(&desk, &parts),
            target: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
            flushed,
            closing: desk.closing.clone(),
        };
        let response = match troubles.before(&scene).await? {
            Some(response) => {
                if !asks_first(&parts) {
                    drain(&desk, body);
                }
                response
            }
            None => {
                let body = troubles.request_body(body, &scene);
                handle(&desk, parts, troubles.quirks(), body, &entry).await
            }
        };
        troubles.after(response, &scene).await?
    };
    if let Some(entry) = &entry {
        entry.answered(response.status().as_u16());
    }
    Ok(response.map(|body| counted(body, &entry, Side::Response, farewell)))
}

async fn handle(desk: &Arc<Desk>, parts: Parts, quirks: Quirks, body: Body, entry: &Option<Arc<Entry>>) -> Response {
    let result = admit(desk, &parts, quirks);
    let asks_first = asks_first(&parts);
    let (body, leftover) = leftover::lend(body);
    let result = match result {
        Err(refusal) => {
            drop(body);
            Err(refusal)
        }
        Ok((route, query, access)) => {
            let call = Call { method: parts.method, headers: parts.headers, query, access, quirks };
            api::dispatch(desk, route, call, body).await
        }
    };
    let mut response = result.unwrap_or_else(|refusal| refused(refusal, entry));
    if let Some(rest) = leftover.take().filter(|_| !asks_first) {
        drain(desk, rest);
    }
    response.headers_mut().insert(API_VERSION.0, API_VERSION.1);
    response
}

fn admit(desk: &Desk, parts: &Parts, quirks: Quirks) -> Result<(Route, Query, Access)> {
    origin::check(parts, &desk.allowed_hosts)?;
    if quirks.expire_tokens {
        desk.guard.expire_tokens();
    }
    let route = Route::parse(&parts.method, parts.uri.path())?;
    let query = Query::parse(parts.uri.query());
    let host = host(desk, parts);
    let access = desk.guard.admit(parts.method.as_str(), &route, &query, &parts.headers, &host)?;
    if let (Route::Upload(_, id), true) = (&route, quirks.lose_upload) {
        desk.store.uploads.forget(id);
    }
    Ok((route, query, access))
}

fn refused(refusal: Refusal, entry: &Option<Arc<Entry>>) -> Response {
    if let (Some(entry), Some(cause)) = (entry, &refusal.cause) {
        entry.failed(cause.clone());
    }
    refusal.into_response()
}

/// What the client calls this server.
fn host(desk: &Desk, parts: &Parts) -> String {
    let header = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
    let authority = parts.uri.authority().map(|authority| authority.as_str());
    authority.or(header).map_or_else(|| desk.address.to_string(), str::to_owned)
}

/// Whether the client asks before it sends. Then it has not sent anything, and is told by the answer.
fn asks_first(parts: &Parts) -> bool {
    parts.headers.contains_key(EXPECT)
}

/// Throws away what is left of a body, while the answer goes out.
fn drain(desk: &Desk, rest: Body) {
    if !rest.is_end_stream() {
        let closing = desk.closing.clone();
        desk.tasks.spawn(async move { closing.run_until_cancelled(leftover::drain(rest)).await });
    }
}

/// A body that is in memory.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) bytes: Bytes,
    /// As long as it lives, other requests have so much less memory.
    _share: Share,
}

/// Reads a whole body of limited length, within the time and the memory that there is for documents.
pub(crate) async fn read(desk: &Desk, body: Body, most: u64) -> Result<Held> {
    let mut body = body.into_data_stream();
    let mut read = Vec::new();
    let mut share = desk.memory.share();
    let reading = async {
        while let Some(bytes) = body.next().await {
            let bytes = bytes.map_err(|error| Refusal::invalid(Code::SizeInvalid, error))?;
            let needed = read.len() + bytes.len();
            if needed as u64 > most {
                return Err(too_large(most));
            }
            if needed > read.capacity() {
                let more = needed.max(read.capacity().saturating_mul(2)).min(most as usize) - read.capacity();
                share.grow(more).map_err(|_| too_busy())?;
                read.reserve_exact(read.capacity() + more - read.len());
            }
            read.extend_from_slice(&bytes);
        }
        Ok(())
    };
    timeout(desk.limits.document_timeout, reading).await.map_err(|_| too_slow())??;
    Ok(Held { bytes: read.into(), _share: share })
}

fn too_slow() -> Refusal {
    Refusal::new(StatusCode::REQUEST_TIMEOUT, Code::SizeInvalid, "the body took too long")
}

/// What the server has not enough of now and may have soon.
pub(crate) fn too_busy() -> Refusal {
    let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, Code::Unknown, "too much is under way");
    refusal.with_header(RETRY_AFTER, "1")
}

pub(crate) fn too_large(most: u64) -> Refusal {
    let message = format_args!("the body is longer than the {most} bytes that are taken");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, Code::SizeInvalid, message)
}

/// The longest form that the token endpoint reads.
pub(crate) async fn read_form(desk: &Desk, body: Body) -> Result<Held> {
    read(desk, body, MAX_FORM as u64).await
}

/// Docker's clients of old take a server for a registry by this.
const API_VERSION: (HeaderName, HeaderValue) =
    (HeaderName::from_static("docker-distribution-api-version"), HeaderValue::from_static("registry/2.0"));
