use std::fmt;

use bytes::Bytes;
use ocikit_image::{Error, Mismatch, Result};
use ocikit_spec::{Descriptor, Digest, Document, MAX_DOCUMENT_SIZE, MediaType, Tag};
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

/// The same for whoever is about to write, with the token for that.
pub(crate) async fn head_to_push(inner: &Inner, target: &Target, key: &Key) -> Result<Option<Descriptor>> {
    head_as(inner, target, key, &target.access_to_push()).await
}

async fn head_as(inner: &Inner, target: &Target, key: &Key, access: &Access) -> Result<Option<Descriptor>> {
    let request = accepting(Request::new(Method::HEAD, target.manifest(key)));
    let reply = inner.call(&target.endpoint, access, request, &target.place).await?;
    match reply.answer.status {
        200 => {}
        404 => return Ok(None),
        // Some registries know no HEAD, or not for everything.
        405 | 400 => return get(inner, target, key).await.map(|found| found.map(|found| found.descriptor)),
        _ => return Err(problem::error(reply, &key.shown(), &target.place).await),
    }
    let digest = match key {
        Key::Digest(digest) => Some(*digest),
        Key::Tag(_) => reply.answer.header("docker-content-digest").and_then(|text| text.parse().ok()),
    };
    let media_type = stated(reply.answer.header("content-type"));
    // Some say zero where they mean that nothing follows.
    match (digest, media_type, reply.answer.length().filter(|size| *size > 0)) {
        (Some(digest), Some(media_type), Some(size)) => Ok(Some(Descriptor::new(media_type, digest, size))),
        // The headers are not enough, so the bytes have to tell.
        _ => get(inner, target, key).await.map(|found| found.map(|found| found.descriptor)),
    }
}

/// A manifest, `None` if there is no such. Its bytes are those of the digest that the registry named; whether that is
/// the wanted one is the caller's to see.
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
    let media_type = stated(header("content-type"))
        .or_else(|| Document::sniff(body.clone()).ok().map(|(media_type, _)| media_type))
        .unwrap_or(MediaType::OCTET_STREAM);
    let named: Option<Digest> = match key {
        Key::Digest(digest) => Some(*digest),
        Key::Tag(_) => header("docker-content-digest").and_then(|text| text.parse().ok()),
    };
    let algorithm = named.map_or(ocikit_spec::Algorithm::Sha256, |digest| digest.algorithm());
    let actual = Digest::of(algorithm, &body);
    // The digest of a signed manifest of docker's first schema leaves its signatures out, so it proves nothing here.
    if let (Key::Tag(_), Some(named)) = (key, named)
        && named != actual
        && !media_type.is_schema1()
    {
        return Err(Error::mismatch(&named, &target.place, Mismatch::Digest(actual)));
    }
    Ok(Some(Found { descriptor: Descriptor::new(media_type, actual, body.len() as u64), bytes: body }))
}

/// Asks for a manifest that was put, and waits a little where a registry takes a moment before it shows one.
///
/// # Errors
///
/// [`Error::Mismatch`] if there is another under its digest, [`Error::Broken`] if there is none.
pub(crate) async fn confirm(inner: &Inner, target: &Target, descriptor: &Descriptor) -> Result<()> {
    let (key, access) = (Key::Digest(descriptor.digest), target.access_to_push());
    let mut failures = 0;
    loop {
        let request = accepting(Request::new(Method::HEAD, target.manifest(&key)));
        let reply = inner.call(&target.endpoint, &access, request, &target.place).await?;
        let found = match reply.answer.status {
            200 => {
                let named = reply.answer.header("docker-content-digest").and_then(|text| text.parse::<Digest>().ok());
                let named = named.filter(|named| named.algorithm() == descriptor.digest.algorithm());
                // Some say zero where they mean that nothing follows.
                let size = reply.answer.length().filter(|size| *size > 0);
                Some((named.unwrap_or(descriptor.digest), size.unwrap_or(descriptor.size)))
            }
            404 => None,
            // Some registries know no HEAD.
            400 | 405 => {
                let found = get(inner, target, &key).await?;
                found.map(|found| (found.descriptor.digest, found.descriptor.size))
            }
            _ => return Err(problem::error(reply, &key.shown(), &target.place).await),
        };
        return match found {
            Some((digest, _)) if digest != descriptor.digest => {
                Err(Error::mismatch(&descriptor.digest, &target.place, Mismatch::Digest(digest)))
            }
            Some((_, actual)) if actual != descriptor.size => {
                let mismatch = Mismatch::Size { expected: descriptor.size, actual };
                Err(Error::mismatch(&descriptor.digest, &target.place, mismatch))
            }
            Some(_) => Ok(()),
            None => {
                failures += 1;
                let Some(pause) = inner.http.pause(failures, None) else {
                    let problem = format!("it took {} and does not have it", descriptor.digest);
                    return Err(Error::broken(&target.place, problem));
                };
                inner.http.clock().sleep(pause).await;
                continue;
            }
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
    let named = reply.answer.header("docker-content-digest").and_then(|text| text.parse::<Digest>().ok());
    if let Some(named) = named
        && named.algorithm() == descriptor.digest.algorithm()
        && named != descriptor.digest
    {
        return Err(Error::mismatch(&descriptor.digest, &target.place, Mismatch::Digest(named)));
    }
    Ok(Taken { subject: reply.answer.header("oci-subject").is_some() })
}

/// Removes a tag, or a manifest and every tag that leads to it.
pub(crate) async fn delete(inner: &Inner, target: &Target, key: &Key) -> Result<()> {
    let request = Request::new(Method::DELETE, target.manifest(key));
    let reply = inner.call(&target.endpoint, &target.access_to_delete(), request, &target.place).await?;
    match reply.answer.status {
        200..300 => Ok(()),
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

/// The media type of a header, if it says what kind of document it is.
fn stated(header: Option<&str>) -> Option<MediaType> {
    let name = header?.split(';').next()?.trim().to_ascii_lowercase();
    let media_type = MediaType::new(name);
    media_type.is_document().then_some(media_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_a_media_type_are_left_out() {
        for (header, expected) in [
            ("application/vnd.oci.image.index.v1+json", Some(MediaType::OCI_INDEX)),
            ("application/vnd.oci.image.manifest.v1+json; charset=utf-8", Some(MediaType::OCI_MANIFEST)),
            ("application/json", None),
            ("text/plain", None),
            ("", None),
        ] {
            assert_eq!(stated(Some(header)), expected, "{header}");
        }
    }
}
