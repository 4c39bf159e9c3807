//! Lists: repositories, tags, referrers.

use axum::http::StatusCode;
use axum::http::header::{HeaderName, LINK};
use axum::response::{IntoResponse, Response};
use ocikit_spec::{Descriptor, Digest, MediaType};
use serde::Serialize;

use crate::desk::{Call, Desk};
use crate::name::RepositoryName;
use crate::page::Page;
use crate::query::Query;
use crate::refusal::{Code, Refusal, Result, json};
use crate::rules::Switch;

const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// Maximum size of a page of referrers, in bytes: clients read no larger manifests.
const MAX_REFERRERS_PAGE_BYTES: usize = 4 << 20;

pub(super) fn catalog(desk: &Desk, call: &Call) -> Result<Response> {
    if desk.rules.catalog == Switch::Off {
        return Err(Refusal::new(StatusCode::NOT_FOUND, Code::Unsupported, "this registry has no catalog"));
    }
    let page = page(&call.query)?;
    let (names, more) = desk.store.repositories(&page, desk.page());
    let next = next(more, names.last(), |last| page.link("/v2/_catalog", last.as_str(), None));
    let names: Vec<_> = names.iter().map(RepositoryName::as_str).collect();
    Ok((next, json("application/json", &serde_json::json!({ "repositories": names }))).into_response())
}

pub(super) fn tags(desk: &Desk, name: &RepositoryName, call: &Call) -> Result<Response> {
    let page = page(&call.query)?;
    let found = desk.store.tags(name, &page, desk.page());
    let (tags, more) = found.ok_or_else(|| Refusal::name_unknown(name))?;
    let path = format!("/v2/{name}/tags/list");
    let next = next(more, tags.last(), |last| page.link(&path, last.as_str(), None));
    let tags: Vec<_> = tags.iter().map(ToString::to_string).collect();
    Ok((next, json("application/json", &serde_json::json!({ "name": name.as_str(), "tags": tags }))).into_response())
}

pub(super) fn referrers(desk: &Desk, name: &RepositoryName, subject: Digest, call: &Call) -> Result<Response> {
    if desk.rules.referrers == Switch::Off {
        return Err(Refusal::new(StatusCode::NOT_FOUND, Code::Unsupported, "this registry has no referrers API"));
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct ReferrersIndex {
        schema_version: u32,
        media_type: MediaType,
        manifests: Vec<Descriptor>,
    }
    let page = page(&call.query)?;
    // Media types contain no spaces, so a space is a `+` that the client did not escape.
    let filter = call.query.get("artifactType").map(|filter| filter.replace(' ', "+"));
    let filter = filter.as_deref();
    let wanted = |found: &Descriptor| {
        filter.is_none_or(|wanted| found.artifact_type.as_ref().is_some_and(|found| found.as_str() == wanted))
    };
    let found = desk.store.referrers(name, &subject).into_iter().filter(wanted);
    let (mut manifests, mut more) = page.cut(found, |found| found.digest.to_string(), desk.page());
    let fitting = fitting(&manifests, MAX_REFERRERS_PAGE_BYTES);
    more |= fitting < manifests.len();
    manifests.truncate(fitting);

    let path = format!("/v2/{name}/referrers/{subject}");
    let filter = filter.map(|filter| ("artifactType", filter));
    let next = next(more, manifests.last(), |last| page.link(&path, &last.digest.to_string(), filter));
    let applied = filter.map(|_| [(FILTERS_APPLIED, "artifactType")]);
    let index = ReferrersIndex { schema_version: 2, media_type: MediaType::OCI_INDEX, manifests };
    let mut response = (next, json(MediaType::OCI_INDEX.as_str(), &index)).into_response();
    for (name, value) in applied.into_iter().flatten() {
        response.headers_mut().insert(name, axum::http::HeaderValue::from_static(value));
    }
    Ok(response)
}

fn page(query: &Query) -> Result<Page> {
    Page::of(query).ok_or_else(|| Refusal::invalid(Code::Unsupported, "`n` is not a number"))
}

/// Returns how many descriptors fit into a response of this size; at least one.
fn fitting(descriptors: &[Descriptor], max_bytes: usize) -> usize {
    let mut length = 0;
    for (at, descriptor) in descriptors.iter().enumerate() {
        length += serde_json::to_vec(descriptor).map_or(0, |text| text.len() + 1);
        if length > max_bytes {
            return at.max(1);
        }
    }
    descriptors.len()
}

fn next<T>(more: bool, last: Option<&T>, link: impl Fn(&T) -> String) -> Option<[(HeaderName, String); 1]> {
    last.filter(|_| more).map(|last| [(LINK, link(last))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_of_referrers_is_limited_in_size() {
        let descriptors: Vec<_> = (0..10_u8).map(|byte| Descriptor::of(MediaType::OCI_MANIFEST, &[byte])).collect();
        let one = serde_json::to_vec(&descriptors[0]).unwrap().len() + 1;
        for (max_bytes, expected) in [(usize::MAX, 10), (3 * one, 3), (3 * one + 1, 3), (1, 1), (0, 1)] {
            assert_eq!(fitting(&descriptors, max_bytes), expected, "{max_bytes}");
        }
        assert_eq!(fitting(&[], 0), 0);
    }
}
