//! Processes a request: log, faults, authentication, handler.

use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::http::header::{EXPECT, HOST, HeaderName};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Request};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use tokio::sync::Notify;

use crate::api;
use crate::auth::Access;
use crate::deadline;
use crate::desk::{Call, Desk};
use crate::fault::{Action, Cut, FaultContext, Quirks};
use crate::leftover;
use crate::log::{Farewell, LogEntry, Side, counted};
use crate::origin;
use crate::query::Query;
use crate::refusal::{Refusal, Result};
use crate::route::Route;

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
    let (parts, result) = match desk.guard.authentication.is_slow() {
        true => {
            let (desk, wanted) = (desk.clone(), quirks.clone());
            let admitted = tokio::task::spawn_blocking(move || {
                let result = admit(&desk, &parts, &wanted);
                (parts, result)
            });
            match admitted.await {
                Ok(admitted) => admitted,
                Err(error) => return refused(Refusal::internal(std::io::Error::other(error)), entry),
            }
        }
        false => {
            let result = admit(desk, &parts, &quirks);
            (parts, result)
        }
    };
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

fn admit(desk: &Desk, parts: &Parts, quirks: &Quirks) -> Result<(Route, Query, Access)> {
    origin::check(parts, &desk.allowed_hosts)?;
    if quirks.has(&Action::ExpireTokens) {
        desk.guard.tokens.expire_all();
    }
    let route = Route::parse(&parts.method, parts.uri.path())?;
    let query = Query::parse(parts.uri.query());
    let host = host(desk, parts);
    let access = desk.guard.admit(parts.method.as_str(), &route, &query, &parts.headers, &host)?;
    if let (Route::Upload(_, id), true) = (&route, quirks.has(&Action::LoseUpload)) {
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

/// Old Docker clients recognize a registry by this header.
const API_VERSION: (HeaderName, HeaderValue) =
    (HeaderName::from_static("docker-distribution-api-version"), HeaderValue::from_static("registry/2.0"));
