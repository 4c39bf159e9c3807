//! Processes a request: log, faults, authentication, handler.

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
use crate::auth::{Access, Guard, MAX_FORM_BYTES};
use crate::clock::Clock;
use crate::deadline;
use crate::fault::{Cut, FaultContext, Faults, Quirks};
use crate::leftover;
use crate::limits::{Limits, MemoryBudget, Share};
use crate::log::{Farewell, Log, LogEntry, Side, counted};
use crate::origin;
use crate::query::Query;
use crate::refusal::{Code, Refusal, Result};
use crate::route::Route;
use crate::rules::Rules;
use crate::storage::Store;

/// The state that all requests share.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) address: SocketAddr,
    pub(crate) store: Arc<Store>,
    pub(crate) allowed_hosts: Vec<String>,
    pub(crate) rules: Rules,
    pub(crate) limits: Limits,
    /// Memory for unfinished uploads, if the storage is in memory.
    pub(crate) upload_memory: MemoryBudget,
    /// Memory for the manifests and forms of all requests.
    pub(crate) memory: MemoryBudget,
    /// Notified while clients wait for a free connection.
    pub(crate) crowded: Notify,
    pub(crate) guard: Guard,
    pub(crate) faults: Faults,
    pub(crate) clock: Clock,
    pub(crate) log: Log,
    /// Cancelled at shutdown.
    pub(crate) closing: CancellationToken,
    /// Tasks that continue when their connection is lost.
    pub(crate) tasks: TaskTracker,
}

impl Desk {
    pub(crate) fn forget_idle_uploads(&self) {
        self.store.uploads.forget_idle(self.rules.idle_upload, self.clock.now());
    }

    /// Returns the maximum number of entries per page.
    pub(crate) fn page(&self) -> usize {
        self.rules.page.unwrap_or(usize::MAX)
    }
}

/// An authorized request, without its body.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) query: Query,
    pub(crate) access: Access,
    pub(crate) quirks: Quirks,
}

impl Call {
    /// Returns the value of a header, if it is text.
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
    let faults = desk.faults.faults_of(parts.method.as_str(), parts.uri.path(), parts.uri.query());
    let response = if faults.is_empty() {
        handle(&desk, parts, Quirks::default(), body, &entry).await
    } else {
        let context = FaultContext {
            host: host(&desk, &parts),
            target: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
            flushed,
            closing: desk.closing.clone(),
        };
        let response = match faults.before(&context).await? {
            Some(response) => {
                if !expects_continue(&parts) {
                    drain(&desk, body);
                }
                response
            }
            None => {
                let body = faults.request_body(body, &context);
                handle(&desk, parts, faults.quirks(), body, &entry).await
            }
        };
        faults.after(response, &context).await?
    };
    if let Some(entry) = &entry {
        entry.answered(response.status().as_u16());
    }
    Ok(response.map(|body| counted(body, &entry, Side::Response, farewell)))
}

async fn handle(desk: &Arc<Desk>, parts: Parts, quirks: Quirks, body: Body, entry: &Option<Arc<LogEntry>>) -> Response {
    let result = admit(desk, &parts, quirks);
    let expects_continue = expects_continue(&parts);
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
    if let Some(rest) = leftover.take().filter(|_| !expects_continue) {
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

fn refused(refusal: Refusal, entry: &Option<Arc<LogEntry>>) -> Response {
    if let (Some(entry), Some(cause)) = (entry, &refusal.cause) {
        entry.failed(cause.clone());
    }
    refusal.into_response()
}

/// Returns the name by which the client addresses this server.
fn host(desk: &Desk, parts: &Parts) -> String {
    let header = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
    let authority = parts.uri.authority().map(|authority| authority.as_str());
    authority.or(header).map_or_else(|| desk.address.to_string(), str::to_owned)
}

/// Returns whether the client waits for a response before it sends the body (`Expect: 100-continue`).
fn expects_continue(parts: &Parts) -> bool {
    parts.headers.contains_key(EXPECT)
}

/// Reads and discards the rest of a body in the background, while the response is sent.
fn drain(desk: &Desk, rest: Body) {
    if !rest.is_end_stream() {
        let closing = desk.closing.clone();
        desk.tasks.spawn(async move { closing.run_until_cancelled(leftover::drain(rest)).await });
    }
}

/// A body in memory.
#[derive(Debug)]
pub(crate) struct BodyBytes {
    pub(crate) bytes: Bytes,
    /// Reserves memory from the shared budget until it is dropped.
    _share: Share,
}

/// Reads a whole body, within the limits of size, time and shared memory.
pub(crate) async fn read(desk: &Desk, body: Body, max_bytes: u64) -> Result<BodyBytes> {
    let mut body = body.into_data_stream();
    let mut read = Vec::new();
    let mut share = desk.memory.share();
    let reading = async {
        while let Some(bytes) = body.next().await {
            let bytes = bytes.map_err(|error| Refusal::invalid(Code::SizeInvalid, error))?;
            let needed = read.len() + bytes.len();
            if needed as u64 > max_bytes {
                return Err(too_large(max_bytes));
            }
            if needed > read.capacity() {
                let more = needed.max(read.capacity().saturating_mul(2)).min(max_bytes as usize) - read.capacity();
                share.grow(more).map_err(|_| too_busy())?;
                read.reserve_exact(read.capacity() + more - read.len());
            }
            read.extend_from_slice(&bytes);
        }
        Ok(())
    };
    timeout(desk.limits.document_timeout, reading).await.map_err(|_| too_slow())??;
    Ok(BodyBytes { bytes: read.into(), _share: share })
}

fn too_slow() -> Refusal {
    Refusal::new(StatusCode::REQUEST_TIMEOUT, Code::SizeInvalid, "the body took too long")
}

/// Returns status 503 for a shortage that is likely to end soon.
pub(crate) fn too_busy() -> Refusal {
    let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, Code::Unknown, "too many requests are in progress");
    refusal.with_header(RETRY_AFTER, "1")
}

pub(crate) fn too_large(max_bytes: u64) -> Refusal {
    let message = format_args!("the body has more than {max_bytes} bytes");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, Code::SizeInvalid, message)
}

/// Reads a form for the token endpoint.
pub(crate) async fn read_form(desk: &Desk, body: Body) -> Result<BodyBytes> {
    read(desk, body, MAX_FORM_BYTES as u64).await
}

/// Old Docker clients recognize a registry by this header.
const API_VERSION: (HeaderName, HeaderValue) =
    (HeaderName::from_static("docker-distribution-api-version"), HeaderValue::from_static("registry/2.0"));
