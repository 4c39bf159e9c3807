//! The responses that several endpoints send.

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_LENGTH, ETAG, HeaderName, LOCATION};
use axum::response::Response;
use ocikit_spec::Digest;

use crate::condition::entity_tag;
use crate::refusal::append;

pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// Returns a response without a body.
pub(super) fn empty(status: StatusCode, headers: impl IntoIterator<Item = (HeaderName, String)>) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    append(&mut response, headers);
    response
}

/// Returns a response to `HEAD`, with the length of the omitted body.
pub(super) fn head(
    status: StatusCode,
    length: u64,
    headers: impl IntoIterator<Item = (HeaderName, String)>,
) -> Response {
    let mut response = empty(status, headers);
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
    response
}

/// Returns status 201 with a location.
pub(super) fn created(location: String, digest: &Digest) -> Response {
    empty(StatusCode::CREATED, [(LOCATION, location), (CONTENT_DIGEST, digest.to_string())])
}

pub(super) fn not_modified(digest: &Digest) -> Response {
    empty(StatusCode::NOT_MODIFIED, [(ETAG, entity_tag(digest)), (CONTENT_DIGEST, digest.to_string())])
}
