use std::fmt;

use bytes::Bytes;
use ocikit_image::{Error, Mismatch, Result};
use ocikit_spec::{Algorithm, Content, Descriptor, Digest, MAX_DOCUMENT_SIZE, MediaType, Tag};
use reqwest::Method;

use crate::auth::Access;
use crate::client::{Fetched, Inner};
use crate::http::problem::{self, Problem};
use crate::http::send::Request;
use crate::target::Target;

/// What chooses a manifest in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    Tag(Tag),
    Digest(Digest),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Tag(tag) => fmt::Display::fmt(tag, f),
            Key::Digest(digest) => fmt::Display::fmt(digest, f),
        }
    }
}

impl Key {
    fn shown(&self) -> String {
        match self {
            Key::Tag(tag) => format!("tag {tag}"),
            Key::Digest(digest) => digest.to_string(),
        }
    }
}

/// A manifest as it came, with the digest that its bytes have.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) descriptor: Descriptor,
    pub(crate) bytes: Bytes,
}

/// What a registry said when it took a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Whether it lists the manifest among the referrers of its subject by itself.
    pub(crate) subject: bool,
}

/// The descriptor of a manifest, `None` if there is no such.
pub(crate) async fn head(inner: &Inner, target: &Target, key: &Key) -> Result<Option<Descriptor>> {
    head_as(inner, target, key, &target.access()).await
}

/// The same for whoever is about to write, with the token for that. Who may push and not pull is refused, which tells
/// nothing: ECR without `ecr:BatchGetImage` (bazel-contrib/rules_oci#648). Then the manifest is put.
pub(crate) async fn head_to_push(inner: &Inner, target: &Target, key: &Key) -> Result<Option<Descriptor>> {
    match head_as(inner, target, key, &target.access_to_push()).await {
        Err(Error::Denied { .. }) => Ok(None),
        outcome => outcome,
    }
}

async fn head_as(inner: &Inner, target: &Target, key: &Key, access: &Access) -> Result<Option<Descriptor>> {
    let request = accepting(Request::new(Method::HEAD, target.manifest(key)));
    let reply = inner.call(&target.endpoint, access, request, &target.place).await?;
    match reply.answer.status {
        200 => {}
        404 => return Ok(None),
        // Nexus answers HEAD of a manifest with an error (merll/docker-registry-util#3).
        405 | 400 => return get_as(inner, target, key, access).await.map(|found| found.map(|found| found.descriptor)),
        _ => return Err(problem::error(reply, &key.shown(), &target.place).await),
    }
    let mut named = named_digest(reply.answer.header("docker-content-digest"));
    if let Key::Digest(pinned) = key {
        // One of another algorithm says nothing.
        named = named.filter(|named| named.algorithm() == pinned.algorithm());
        if let Some(named) = named.filter(|named| named != pinned) {
            return Err(Error::mismatch(pinned, &target.place, Mismatch::Digest(named)));
        }
    }
    let media_type = label(reply.answer.header("content-type"));
    // Missing or zero: Trow (containerd/containerd#5124), Artifactory (containerd/containerd#3110).
    match (named, reply.answer.length().filter(|size| *size > 0)) {
        (Some(digest), Some(size)) if media_type.is_document() => Ok(Some(Descriptor::new(media_type, digest, size))),
        // A web page has a status and a length too: the bytes have to tell.
        _ => get_as(inner, target, key, access).await.map(|found| found.map(|found| found.descriptor)),
    }
}

/// A manifest, `None` if there is no such. Its bytes have the digest that was asked for, whatever the registry says of them;
/// asked for by tag, the digest that the registry names.
pub(crate) async fn get(inner: &Inner, target: &Target, key: &Key) -> Result<Option<Found>> {
    get_as(inner, target, key, &target.access()).await
}

/// The same for whoever is about to write, with the token for that.
pub(crate) async fn get_to_push(inner: &Inner, target: &Target, key: &Key) -> Result<Option<Found>> {
    get_as(inner, target, key, &target.access_to_push()).await
}

async fn get_as(inner: &Inner, target: &Target, key: &Key, access: &Access) -> Result<Option<Found>> {
    let request = accepting(Request::new(Method::GET, target.manifest(key)));
    let fetched = inner.fetch(&target.endpoint, access, request, MAX_DOCUMENT_SIZE, &target.place).await?;
    let Fetched { headers, body, .. } = match fetched {
        Ok(fetched) => fetched,
        Err(refusal) if refusal.status == 404 => return Ok(None),
        Err(refusal) => return Err(refusal.error(&key.shown(), &target.place)),
    };
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let label = label(header("content-type"));
    let content = Content::of(&label, body.clone());
    let media_type = match &content {
        Ok(content) => content.media_type(&label),
        Err(_) => label,
    };
    let is_schema1 = matches!(content, Ok(Content::Schema1));
    let actual = match (key, named_digest(header("docker-content-digest"))) {
        (Key::Digest(pinned), _) => {
            let actual = Digest::of(pinned.algorithm(), &body);
            if actual != *pinned && is_schema1 {
                let what = format!("{pinned} leads to a signed docker schema 1 manifest, which is only read by tag");
                return Err(Error::Unsupported { place: target.place.clone(), what });
            }
            if actual != *pinned {
                return Err(Error::mismatch(pinned, &target.place, Mismatch::Digest(actual)));
            }
            actual
        }
        (Key::Tag(_), named) => {
            if is_web_page(&body) {
                let problem = format!("it answers a request for {} with a web page", key.shown());
                return Err(Error::protocol(&target.place, problem));
            }
            let algorithm = named.map_or(Algorithm::Sha256, |named| named.algorithm());
            let actual = Digest::of(algorithm, &body);
            // The digest of a signed schema 1 manifest leaves its signatures out.
            if let Some(named) = named.filter(|named| *named != actual && !is_schema1) {
                return Err(Error::mismatch(&named, &target.place, Mismatch::Digest(actual)));
            }
            actual
        }
    };
    Ok(Some(Found { descriptor: Descriptor::new(media_type, actual, body.len() as u64), bytes: body }))
}

/// Whether a body is HTML or XML, as proxies and login pages answer anything with status 200.
pub(crate) fn is_web_page(body: &[u8]) -> bool {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'<')
}

/// Asks for a manifest that was put, and waits a little where a registry takes a moment before it shows one.
///
/// # Errors
///
/// [`Error::Mismatch`] if there is another under its digest or tag, [`Error::Protocol`] if there is none.
pub(crate) async fn confirm(inner: &Inner, target: &Target, key: &Key, descriptor: &Descriptor) -> Result<()> {
    let mut failures = 0;
    loop {
        let found = match head_as(inner, target, key, &target.access_to_push()).await {
            // Who may not look has to believe what the registry said when it accepted the manifest.
            Err(Error::Denied { .. }) => return Ok(()),
            found => found?,
        };
        let Some(found) = found else {
            failures += 1;
            let Some(pause) = inner.http.pause(failures, None) else {
                let problem = format!("it accepted {} and does not return it", descriptor.digest);
                return Err(Error::protocol(&target.place, problem));
            };
            inner.http.clock().sleep(pause).await;
            continue;
        };
        let mut digest = found.digest;
        if digest.algorithm() != descriptor.digest.algorithm() {
            // A tag, described with an algorithm of the registry's choice.
            let found = get_to_push(inner, target, key).await?;
            digest = found.map_or(digest, |found| Digest::of(descriptor.digest.algorithm(), &found.bytes));
        }
        let mismatch = if digest != descriptor.digest {
            Some(Mismatch::Digest(digest))
        } else if found.size != descriptor.size {
            Some(Mismatch::Size { expected: descriptor.size, actual: found.size })
        } else {
            None
        };
        return match mismatch {
            Some(mismatch) => Err(Error::mismatch(&descriptor.digest, &target.place, mismatch)),
            None => Ok(()),
        };
    }
}

/// Puts a manifest.
pub(crate) async fn put(
    inner: &Inner,
    target: &Target,
    key: &Key,
    descriptor: &Descriptor,
    bytes: Bytes,
) -> Result<Taken> {
    let request = Request::new(Method::PUT, target.manifest(key)).body(descriptor.media_type.as_str(), bytes);
    let reply = inner.call(&target.endpoint, &target.access_to_push(), request, &target.place).await?;
    let status = reply.answer.status;
    if !(200..300).contains(&status) {
        let problem = Problem::of(reply).await;
        if problem.has("MANIFEST_BLOB_UNKNOWN") || problem.has("BLOB_UNKNOWN") {
            // Somebody removed what we remember.
            inner.memory.forget_all(&target.path);
        }
        return Err(match status {
            404 => Error::Refused { place: target.place.clone(), status, problem: problem.text },
            _ => problem::sort(status, problem, &key.shown(), &target.place),
        });
    }
    let named = named_digest(reply.answer.header("docker-content-digest"));
    let named = named.filter(|named| named.algorithm() == descriptor.digest.algorithm());
    let taken = Taken { subject: reply.answer.header("oci-subject").is_some() };
    match named {
        Some(named) if named != descriptor.digest => {
            Err(Error::mismatch(&descriptor.digest, &target.place, Mismatch::Digest(named)))
        }
        Some(_) if status == 201 => Ok(taken),
        // The specification has 201 and the digest; anything may answer 200.
        _ => confirm(inner, target, key, descriptor).await.map(|()| taken),
    }
}

/// Removes a tag, or a manifest and every tag that leads to it.
pub(crate) async fn delete(inner: &Inner, target: &Target, key: &Key) -> Result<()> {
    let request = Request::new(Method::DELETE, target.manifest(key));
    let reply = inner.call(&target.endpoint, &target.access_to_delete(), request, &target.place).await?;
    match reply.answer.status {
        202 => Ok(()),
        // Not what the specification has.
        200..300 => match head_as(inner, target, key, &target.access_to_delete()).await? {
            None => Ok(()),
            Some(_) => {
                let problem = format!("it says that {} was removed and still returns it", key.shown());
                Err(Error::protocol(&target.place, problem))
            }
        },
        // The answer to the attempt that removed it was lost.
        404 if reply.retried => Ok(()),
        _ => Err(problem::error(reply, &key.shown(), &target.place).await),
    }
}

/// The kinds of documents that are understood, or at least passed on.
pub(crate) const ACCEPTED: [MediaType; 7] = [
    MediaType::OCI_INDEX,
    MediaType::OCI_MANIFEST,
    MediaType::DOCKER_MANIFEST_LIST,
    MediaType::DOCKER_MANIFEST,
    MediaType::OCI_ARTIFACT_MANIFEST,
    MediaType::DOCKER_SCHEMA1_SIGNED,
    MediaType::DOCKER_SCHEMA1,
];

/// A request that says so. Without, registries convert manifests to kinds that clients of ten years ago knew.
pub(crate) fn accepting(request: Request) -> Request {
    ACCEPTED.iter().fold(request, |request, media_type| request.header("accept", media_type.as_str()))
}

/// The media type of a header; a hint, see [`Content`].
fn label(header: Option<&str>) -> MediaType {
    let label = MediaType::new(header.unwrap_or_default()).essence();
    if label.is_document() { label } else { MediaType::OCTET_STREAM }
}

/// The digest in a `Docker-Content-Digest` header.
pub(crate) fn named_digest(header: Option<&str>) -> Option<Digest> {
    header?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_a_media_type_are_left_out() {
        for (header, expected) in [
            ("application/vnd.oci.image.index.v1+json", MediaType::OCI_INDEX),
            ("Application/vnd.oci.image.manifest.v1+JSON; charset=utf-8", MediaType::OCI_MANIFEST),
            ("application/json", MediaType::OCTET_STREAM),
            ("text/plain", MediaType::OCTET_STREAM),
            ("", MediaType::OCTET_STREAM),
        ] {
            assert_eq!(label(Some(header)), expected, "{header}");
        }
    }

    #[test]
    fn a_web_page_is_told_from_a_document() {
        for (body, expected) in
            [("<!DOCTYPE html>", true), ("\u{feff} \n<html>", true), ("{}", false), ("", false), ("true", false)]
        {
            assert_eq!(is_web_page(body.as_bytes()), expected, "{body}");
        }
    }
}
