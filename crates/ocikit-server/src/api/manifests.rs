//! Manifests and indexes, by tag and by digest.

use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use ocikit_spec::{Digest, Document, MediaType, Tag};

use super::reply::{CONTENT_DIGEST, created, empty, head, not_modified};
use crate::condition::{Condition, entity_tag};
use crate::desk::{Call, Desk, read, too_large};
use crate::name::RepositoryName;
use crate::refusal::{Code, Refusal, Result, append};
use crate::route::ManifestReference;
use crate::rules::{Rules, Switch};
use crate::storage::{ManifestEntry, NewManifest, Refused};

const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const TAG: HeaderName = HeaderName::from_static("oci-tag");

/// Maximum number of tags that one request sets.
const MAX_TAGS: usize = 100;

pub(super) async fn get(
    desk: &Arc<Desk>,
    name: &RepositoryName,
    reference: &ManifestReference,
    call: &Call,
) -> Result<Response> {
    let found = desk.store.manifest(name, reference);
    let (digest, entry) = found.ok_or_else(|| Refusal::manifest_unknown(reference))?;
    if Condition::of(&call.headers).is_known(Some(&digest)) {
        return Ok(not_modified(&digest));
    }
    let headers = [
        (CONTENT_TYPE, entry.media_type.to_string()),
        (CONTENT_DIGEST, digest.to_string()),
        (ETAG, entity_tag(&digest)),
    ];
    let mut response = head(StatusCode::OK, entry.size, headers);
    if call.method != Method::HEAD {
        let bytes = desk.store.read(digest, entry.size).await.map_err(Refusal::internal)?;
        *response.body_mut() = Body::from(bytes);
    }
    Ok(response)
}

pub(super) async fn put(
    desk: &Arc<Desk>,
    name: RepositoryName,
    reference: ManifestReference,
    call: &Call,
    body: Body,
) -> Result<Response> {
    let max_bytes = desk.rules.max_manifest;
    let claimed = call.header(CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    if claimed.is_some_and(|claimed| claimed > max_bytes) {
        return Err(too_large(max_bytes));
    }
    let tags = tags(&reference, call)?;
    let stated = call.header(CONTENT_TYPE).map(str::to_owned);
    let held = read(desk, body, max_bytes).await?;
    let bytes = held.bytes.clone();
    let digest = match &reference {
        ManifestReference::Digest(digest) => *digest,
        ManifestReference::Tag(_) => Digest::sha256_of(&bytes),
    };
    let (entry, document) = metadata(stated.as_deref(), &bytes, &desk.rules)?;
    let subject = entry.subject;
    let put = NewManifest {
        bytes,
        digest,
        entry,
        children: document.map(|document| (document, desk.rules.children)),
        tags: tags.clone(),
        condition: Some((reference.clone(), Condition::of(&call.headers))),
    };
    desk.store.put_manifest(name.clone(), put).await.map_err(|refused| match refused {
        Refused::Changed => {
            let message = format_args!("{reference} is not what the request expects");
            Refusal::new(StatusCode::PRECONDITION_FAILED, Code::ManifestInvalid, message)
        }
        Refused::Missing(missing) => Refusal::children_unknown(&missing),
        Refused::Failed(error) => Refusal::internal(error),
        Refused::Digest(actual) => {
            let message = format_args!("the manifest has digest {actual}, not {digest}");
            Refusal::invalid(Code::DigestInvalid, message)
        }
    })?;
    let mut response = created(format!("/v2/{name}/manifests/{digest}"), &digest);
    let subject = subject.filter(|_| desk.rules.referrers == Switch::On).map(|subject| (SUBJECT, subject.to_string()));
    let named = matches!(reference, ManifestReference::Digest(_)) && !tags.is_empty();
    let tags = named.then(|| (TAG, tags.iter().map(Tag::as_str).collect::<Vec<_>>().join(", ")));
    append(&mut response, subject.into_iter().chain(tags));
    Ok(response)
}

pub(super) async fn delete(desk: &Arc<Desk>, name: RepositoryName, reference: ManifestReference) -> Result<Response> {
    let unknown = Refusal::manifest_unknown(&reference);
    let deleted = match reference {
        ManifestReference::Tag(_) if desk.rules.delete_tags == Switch::Off => {
            return Err(Refusal::unsupported("this registry does not delete tags"));
        }
        ManifestReference::Digest(_) if desk.rules.delete == Switch::Off => {
            return Err(Refusal::unsupported("this registry does not delete manifests"));
        }
        ManifestReference::Tag(tag) => desk.store.delete_tag(name, tag).await,
        ManifestReference::Digest(digest) => desk.store.delete_manifest(name, digest).await,
    };
    match deleted.map_err(Refusal::internal)? {
        true => Ok(empty(StatusCode::ACCEPTED, [])),
        false => Err(unknown),
    }
}

/// Returns the tags that a request sets: the one in its path, or those in its query if the path has a digest.
fn tags(reference: &ManifestReference, call: &Call) -> Result<Vec<Tag>> {
    if let ManifestReference::Tag(tag) = reference {
        return Ok(vec![tag.clone()]);
    }
    let tags: Vec<_> = call.query.all("tag").map(str::parse::<Tag>).collect();
    if tags.len() > MAX_TAGS {
        let message = format_args!("one request sets at most {MAX_TAGS} tags");
        return Err(Refusal::new(StatusCode::URI_TOO_LONG, Code::ManifestInvalid, message));
    }
    tags.into_iter().collect::<Result<_, _>>().map_err(|error| Refusal::invalid(Code::ManifestInvalid, error))
}

/// Determines the media type of a manifest from the header, which the document must not contradict.
fn metadata(stated: Option<&str>, bytes: &Bytes, rules: &Rules) -> Result<(ManifestEntry, Option<Document>)> {
    let invalid = |problem: &dyn std::fmt::Display| Refusal::invalid(Code::ManifestInvalid, problem);
    // The specification requires that parameters of the media type are ignored.
    let stated = stated.and_then(|stated| stated.split(';').next()).map(str::trim).filter(|stated| !stated.is_empty());
    let (media_type, document) = match stated.map(MediaType::from) {
        None => {
            let (media_type, document) = Document::sniff(bytes.clone()).map_err(|error| invalid(&error))?;
            (media_type, Some(document))
        }
        Some(media_type) if media_type.is_index() || media_type.is_manifest() => {
            let document = Document::parse_exactly(&media_type, bytes.clone()).map_err(|error| invalid(&error))?;
            (media_type, Some(document))
        }
        Some(media_type) if rules.unknown_manifests == Switch::On => (media_type, None),
        Some(media_type) => return Err(invalid(&format_args!("`{media_type}` is not a media type of manifests"))),
    };
    Ok((ManifestEntry::of(media_type, bytes, document.as_ref()), document))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = r#"{"mediaType":"application/vnd.oci.empty.v1+json","size":2,
        "digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}"#;

    #[test]
    fn header_and_document_must_agree_on_the_media_type() {
        let plain = format!(r#"{{"schemaVersion":2,"config":{EMPTY},"layers":[]}}"#);
        let docker = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","config":{EMPTY},"layers":[]}}"#,
            MediaType::DOCKER_MANIFEST
        );
        let oci = MediaType::OCI_MANIFEST.to_string();
        let rules = Rules::default();
        for (stated, text, expected) in [
            (Some(oci.as_str()), &plain, Some(&oci)),
            (Some(&format!("{oci}; charset=utf-8")), &plain, Some(&oci)),
            (None, &plain, Some(&oci)),
            (Some(""), &plain, Some(&oci)),
            (None, &docker, Some(&MediaType::DOCKER_MANIFEST.to_string())),
            (Some(&oci), &docker, None),
            (Some(MediaType::OCI_INDEX.as_str()), &plain, None),
            (Some("application/json"), &plain, None),
            (Some(MediaType::DOCKER_SCHEMA1_SIGNED.as_str()), &plain, None),
            (Some(&oci), &"{}".to_owned(), None),
            (Some(&oci), &"nonsense".to_owned(), None),
            (None, &"[]".to_owned(), None),
        ] {
            let found = metadata(stated, &Bytes::from(text.clone()), &rules).ok();
            let found = found.map(|(entry, _)| entry.media_type.to_string());
            assert_eq!(found.as_ref(), expected, "{stated:?} {text}");
        }
        let lenient = Rules { unknown_manifests: Switch::On, ..rules };
        assert!(metadata(Some("application/x"), &Bytes::from_static(b"?"), &lenient).is_ok());
    }
}
