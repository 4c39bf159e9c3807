//! Blobs: downloading whole or in ranges, and deleting.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{ACCEPT_RANGES, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, RANGE};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use ocikit_spec::Digest;

use super::reply::{CONTENT_DIGEST, empty, head, not_modified};
use crate::condition::{Condition, entity_tag, range_holds};
use crate::desk::{Call, Desk};
use crate::fault::Action;
use crate::name::RepositoryName;
use crate::random;
use crate::range::{RequestedRanges, requested_ranges};
use crate::refusal::{Code, Refusal, Result};
use crate::rules::Switch;
use crate::storage::Reader;

const OCTETS: &str = "application/octet-stream";

pub(super) async fn get(desk: &Arc<Desk>, name: &RepositoryName, digest: Digest, call: &Call) -> Result<Response> {
    let size = desk.store.blob(name, &digest).ok_or_else(|| Refusal::blob_unknown(&digest))?;
    if Condition::of(&call.headers).is_known(Some(&digest)) {
        return Ok(not_modified(&digest));
    }
    let headers = [
        (ACCEPT_RANGES, "bytes".to_owned()),
        (ETAG, entity_tag(&digest)),
        (CONTENT_DIGEST, digest.to_string()),
        (CONTENT_TYPE, OCTETS.to_owned()),
    ];
    if call.method == Method::HEAD {
        return Ok(head(StatusCode::OK, size, headers));
    }
    let parts = match requested_ranges(range(call, &digest), size) {
        RequestedRanges::Unsatisfiable => {
            let refusal = Refusal::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                Code::SizeInvalid,
                "the range starts beyond the end of the blob",
            );
            return Err(refusal.with_header(CONTENT_RANGE, format!("bytes */{size}")));
        }
        RequestedRanges::Whole => Vec::new(),
        RequestedRanges::Ranges(parts) => parts,
    };
    let reader = desk.store.reader(digest).await.map_err(Refusal::internal)?;
    Ok(match &parts[..] {
        [] => streamed(&reader, StatusCode::OK, 0..size, headers),
        [part] => {
            let headers = headers.into_iter().chain([(CONTENT_RANGE, content_range(part, size))]);
            streamed(&reader, StatusCode::PARTIAL_CONTENT, part.clone(), headers)
        }
        _ => multipart(&reader, parts, size, headers)?,
    })
}

pub(super) async fn delete(desk: &Arc<Desk>, name: RepositoryName, digest: Digest) -> Result<Response> {
    if desk.rules.delete == Switch::Off {
        return Err(Refusal::unsupported("this registry does not delete blobs"));
    }
    match desk.store.delete_blob(name, digest).await.map_err(Refusal::internal)? {
        true => Ok(empty(StatusCode::ACCEPTED, [])),
        false => Err(Refusal::blob_unknown(&digest)),
    }
}

/// Returns the `Range` header, unless `If-Range` names other content (RFC 9110, section 13.1.5).
fn range<'a>(call: &'a Call, digest: &Digest) -> Option<&'a str> {
    if !range_holds(&call.headers, digest) || call.quirks.has(&Action::IgnoreRange) {
        return None;
    }
    call.header(RANGE)
}

fn streamed(
    reader: &Reader,
    status: StatusCode,
    part: Range<u64>,
    headers: impl IntoIterator<Item = (HeaderName, String)>,
) -> Response {
    let mut response = head(status, part.end - part.start, headers);
    *response.body_mut() = Body::from_stream(reader.stream(part));
    response
}

/// Returns several ranges in one response (RFC 9110, section 14.6). Clients that pull lazily request them.
fn multipart(
    reader: &Reader,
    parts: Vec<Range<u64>>,
    size: u64,
    headers: impl IntoIterator<Item = (HeaderName, String)>,
) -> Result<Response> {
    let boundary = random::uuid().map_err(Refusal::internal)?;
    let heads: Vec<_> = parts
        .iter()
        .map(|part| {
            let range = content_range(part, size);
            Bytes::from(format!("\r\n--{boundary}\r\ncontent-type: {OCTETS}\r\ncontent-range: {range}\r\n\r\n"))
        })
        .collect();
    let end = Bytes::from(format!("\r\n--{boundary}--\r\n"));
    let content: u64 = parts.iter().map(|part| part.end - part.start).sum();
    let around: usize = heads.iter().chain([&end]).map(Bytes::len).sum();

    let mut response = head(StatusCode::PARTIAL_CONTENT, content + around as u64, headers);
    let content_type = format!("multipart/byteranges; boundary={boundary}");
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_str(&content_type).map_err(Refusal::internal)?);
    let reader = reader.clone();
    let parts = stream::iter(heads.into_iter().zip(parts))
        .flat_map(move |(head, part)| one(head).chain(reader.stream(part)))
        .chain(one(end));
    *response.body_mut() = Body::from_stream(parts);
    Ok(response)
}

fn one(bytes: Bytes) -> stream::BoxStream<'static, io::Result<Bytes>> {
    stream::iter([Ok(bytes)]).boxed()
}

fn content_range(part: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", part.start, part.end - 1)
}
