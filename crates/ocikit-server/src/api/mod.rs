//! The endpoints of the distribution specification.

mod blobs;
mod lists;
mod manifests;
mod reply;
mod uploads;

use std::sync::Arc;

use axum::body::Body;
use axum::http::Method;
use axum::http::header::{ALLOW, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

use crate::auth::MAX_FORM_BYTES;
use crate::desk::{Call, Desk, read};
use crate::refusal::{Refusal, Result};
use crate::route::Route;
use crate::rules::Switch;

/// Calls the handler of a request.
pub(crate) async fn dispatch(desk: &Arc<Desk>, route: Route, call: Call, body: Body) -> Result<Response> {
    // The token endpoint stores nothing.
    if desk.rules.writes == Switch::Off && route != Route::Token && ![Method::GET, Method::HEAD].contains(&call.method)
    {
        return Err(Refusal::unsupported("this registry is read-only").with_header(ALLOW, "GET, HEAD".to_owned()));
    }
    match (&call.method, route) {
        (&Method::GET | &Method::HEAD, Route::Ping) => Ok(([(CONTENT_TYPE, "application/json")], "{}").into_response()),
        (&Method::GET | &Method::POST, Route::Token) => token(desk, &call, body).await,
        (&Method::GET, Route::Catalog) => lists::catalog(desk, &call),
        (&Method::GET, Route::Tags(name)) => lists::tags(desk, &name, &call),
        (&Method::GET, Route::Referrers(name, subject)) => lists::referrers(desk, &name, subject, &call),
        (&Method::GET | &Method::HEAD, Route::Manifest(name, reference)) => {
            manifests::get(desk, &name, &reference, &call).await
        }
        (&Method::PUT, Route::Manifest(name, reference)) => manifests::put(desk, name, reference, &call, body).await,
        (&Method::DELETE, Route::Manifest(name, reference)) => manifests::delete(desk, name, reference).await,
        (&Method::GET | &Method::HEAD, Route::Blob(name, digest)) => blobs::get(desk, &name, digest, &call).await,
        (&Method::DELETE, Route::Blob(name, digest)) => blobs::delete(desk, name, digest).await,
        (&Method::POST, Route::Uploads(name)) => uploads::begin(desk, name, call, body).await,
        (&Method::GET | &Method::HEAD, Route::Upload(name, id)) => uploads::status(desk, &name, &id, &call).await,
        (&Method::PATCH, Route::Upload(name, id)) => uploads::append(desk, &name, &id, call, body).await,
        (&Method::PUT, Route::Upload(name, id)) => uploads::finish(desk, &name, &id, call, body).await,
        (&Method::DELETE, Route::Upload(name, id)) => uploads::cancel(desk, &name, &id, &call),
        (_, route) => Err(Refusal::unsupported("the method is not for this path").with_header(ALLOW, allowed(&route))),
    }
}

fn allowed(route: &Route) -> &'static str {
    match route {
        Route::Ping => "GET, HEAD",
        Route::Token => "GET, POST",
        Route::Catalog | Route::Tags(_) | Route::Referrers(..) => "GET",
        Route::Manifest(..) => "GET, HEAD, PUT, DELETE",
        Route::Blob(..) => "GET, HEAD, DELETE",
        Route::Uploads(_) => "POST",
        Route::Upload(..) => "GET, HEAD, PATCH, PUT, DELETE",
    }
}

async fn token(desk: &Desk, call: &Call, body: Body) -> Result<Response> {
    let form = read(desk, body, MAX_FORM_BYTES).await?;
    desk.guard.issue(&call.method, &call.headers, &call.query, &form.bytes)
}
