use bytes::Bytes;
use ocikit_http::{Method, Request};
use ocikit_image::{Error, Mismatch, Result};
use ocikit_spec::{Algorithm, Content, Descriptor, Digest, MAX_DOCUMENT_BYTES, MediaType};

use crate::auth::Scopes;
use crate::call::Fetched;
use crate::problem::{self, Problem};
use crate::target::{ManifestKey, Target};

/// A manifest as received, with the digest of its bytes.
#[derive(Debug, Clone)]
pub(crate) struct FetchedManifest {
    pub(crate) descriptor: Descriptor,
    pub(crate) bytes: Bytes,
    /// As [`StatedManifest::entity_tag`]; `None` if it was not read.
    pub(crate) entity_tag: Option<String>,
}

/// What a registry states about a manifest without its bytes.
#[derive(Debug, Clone)]
pub(crate) struct StatedManifest {
    pub(crate) descriptor: Descriptor,
    /// The strong entity tag for a conditional request. RFC 9110, section 8.8.3.
    pub(crate) entity_tag: Option<String>,
}

/// Returns the descriptor of a manifest that is about to be pushed, with the token for pushing. A user who may push and
/// not pull gets 403, as on Amazon ECR without `ecr:BatchGetImage` (bazel-contrib/rules_oci#648). That counts as
/// unknown, and the manifest is put.
pub(crate) async fn head_to_push(target: &Target, key: &ManifestKey) -> Result<Option<Descriptor>> {
    match head(target, key, &target.access_to_push()).await {
        Err(Error::Denied { .. }) => Ok(None),
        outcome => outcome,
    }
}

/// Returns what a tag leads to that is about to be moved, with a digest of the given algorithm if the registry has it.
pub(crate) async fn head_to_move(
    target: &Target,
    key: &ManifestKey,
    algorithm: Algorithm,
) -> Result<Option<StatedManifest>> {
    let Some(mut found) = state_as(target, key, &target.access_to_push()).await? else { return Ok(None) };
    if found.descriptor.digest.algorithm() != algorithm {
        // The registry describes the tag with another algorithm, so the bytes decide.
        let Some(fetched) = get(target, key, &target.access_to_push()).await? else { return Ok(None) };
        found.descriptor.digest = Digest::of(algorithm, &fetched.bytes);
    }
    Ok(Some(found))
}

/// Returns the descriptor of a manifest; `None` if it does not exist.
pub(crate) async fn head(target: &Target, key: &ManifestKey, access: &Scopes) -> Result<Option<Descriptor>> {
    Ok(state_as(target, key, access).await?.map(|found| found.descriptor))
}

async fn state_as(target: &Target, key: &ManifestKey, access: &Scopes) -> Result<Option<StatedManifest>> {
    let fetched = || async {
        let found = get(target, key, access).await?;
        Ok::<_, Error>(found.map(|found| StatedManifest { descriptor: found.descriptor, entity_tag: found.entity_tag }))
    };
    let request = accepting(target.request(Method::HEAD, target.manifest(key)));
    let reply = target.call(access, request).await?;
    match reply.answer.status {
        200 => {}
        404 => return Ok(None),
        // Nexus answers `HEAD` of a manifest with an error (merll/docker-registry-util#3).
        405 | 400 => return fetched().await,
        _ => return Err(target.error(reply, &key.describe()).await),
    }
    let mut named = named_digest(reply.answer.header("docker-content-digest"));
    if let ManifestKey::Digest(pinned) = key {
        // A digest of another algorithm cannot be compared.
        named = named.filter(|named| named.algorithm() == pinned.algorithm());
        if let Some(named) = named.filter(|named| named != pinned) {
            return Err(Error::mismatch(pinned, &target.place, Mismatch::Digest(named)));
        }
    }
    let media_type = label(reply.answer.header("content-type"));
    // Missing or zero: Trow (containerd/containerd#5124), Artifactory (containerd/containerd#3110).
    match (named, reply.answer.length().filter(|size| *size > 0)) {
        (Some(digest), Some(size)) if media_type.is_document() => {
            let entity_tag = reply.answer.header("etag").and_then(strong);
            Ok(Some(StatedManifest { descriptor: Descriptor::new(media_type, digest, size), entity_tag }))
        }
        // A web page has a status and a length too, so the bytes decide.
        _ => fetched().await,
    }
}

/// Returns a manifest; `None` if it does not exist. Requested by digest, its bytes have that digest, whatever the
/// registry states; requested by tag, they have the digest that the registry states.
pub(crate) async fn get(target: &Target, key: &ManifestKey, access: &Scopes) -> Result<Option<FetchedManifest>> {
    let request = accepting(target.request(Method::GET, target.manifest(key)));
    let fetched = target.fetch(access, request, MAX_DOCUMENT_BYTES).await?;
    let Fetched { headers, body, .. } = match fetched {
        Ok(fetched) => fetched,
        Err(refusal) if refusal.status == 404 => return Ok(None),
        Err(refusal) => return Err(refusal.error(&key.describe(), &target.place)),
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
        (ManifestKey::Digest(pinned), _) => {
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
        (ManifestKey::Tag(_), named) => {
            if is_web_page(&body) {
                let problem = format!("it answers a request for {} with a web page", key.describe());
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
    let entity_tag = header("etag").and_then(strong);
    let descriptor = Descriptor::new(media_type, actual, body.len() as u64);
    Ok(Some(FetchedManifest { descriptor, bytes: body, entity_tag }))
}

/// Returns whether a body is HTML or XML. Proxies and login pages answer any request with status 200 and a page.
pub(crate) fn is_web_page(body: &[u8]) -> bool {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'<')
}

/// Checks that a registry returns a manifest that it has accepted. Without permission to read it, the answer to the
/// `PUT`, which named its digest, is all there is.
///
/// # Errors
///
/// Those of [`read_back`], except [`Error::Denied`].
pub(crate) async fn confirm(target: &Target, key: &ManifestKey, descriptor: &Descriptor) -> Result<()> {
    match read_back(target, key, descriptor).await {
        Err(Error::Denied { .. }) => Ok(()),
        outcome => outcome,
    }
}

/// Checks that a registry returns a manifest. Waits and retries, since replicas and caches can lag behind.
///
/// # Errors
///
/// [`Error::Mismatch`] if another manifest has the digest or tag, [`Error::Protocol`] if there is none,
/// [`Error::Denied`] if the manifest must not be read.
async fn read_back(target: &Target, key: &ManifestKey, descriptor: &Descriptor) -> Result<()> {
    let mut failures = 0;
    loop {
        let Some(found) = head_to_move(target, key, descriptor.digest.algorithm()).await? else {
            failures += 1;
            if !target.inner.http.back_off(&Method::HEAD, &target.manifest(key), failures, None).await {
                let problem = format!("it accepted {} and does not return it", descriptor.digest);
                return Err(Error::protocol(&target.place, problem));
            }
            continue;
        };
        let Descriptor { digest, size: actual, .. } = found.descriptor;
        let mismatch = |mismatch| Err(Error::mismatch(&descriptor.digest, &target.place, mismatch));
        return if digest != descriptor.digest {
            mismatch(Mismatch::Digest(digest))
        } else if actual != descriptor.size {
            mismatch(Mismatch::Size { expected: descriptor.size, actual })
        } else {
            Ok(())
        };
    }
}

/// Uploads a manifest. With an entity tag, a registry that supports conditional requests accepts it only while the tag
/// leads to what has that entity tag. Returns whether the registry adds the manifest to the referrers of its subject by
/// itself (`OCI-Subject`).
///
/// # Errors
///
/// [`Error::Conflict`] if the registry states that it does not.
pub(crate) async fn put(
    target: &Target,
    key: &ManifestKey,
    descriptor: &Descriptor,
    bytes: Bytes,
    entity_tag: Option<&str>,
) -> Result<bool> {
    let request = target.request(Method::PUT, target.manifest(key)).body(descriptor.media_type.as_str(), bytes);
    let request = entity_tag.into_iter().fold(request, |request, tag| request.header("if-match", tag));
    let reply = target.call(&target.access_to_push(), request).await?;
    let status = reply.answer.status;
    if !(200..300).contains(&status) {
        let problem = Problem::of(reply).await;
        if problem.has("MANIFEST_BLOB_UNKNOWN") || problem.has("BLOB_UNKNOWN") {
            // The cache is wrong: another client has deleted blobs of the repository.
            target.inner.cache.forget_all(&target.path);
        }
        return Err(match status {
            412 if entity_tag.is_some() => Error::conflict(key, &target.place, None),
            404 => Error::Refused { place: target.place.clone(), status, problem: problem.text },
            _ => problem::error_of_status(status, problem, &key.describe(), &target.place),
        });
    }
    let named = named_digest(reply.answer.header("docker-content-digest"));
    let named = named.filter(|named| named.algorithm() == descriptor.digest.algorithm());
    let is_located = reply.answer.header("location").is_some_and(|url| url.contains(&descriptor.digest.hex()));
    let handles_subject = reply.answer.header("oci-subject").is_some();
    match named {
        Some(named) if named != descriptor.digest => {
            Err(Error::mismatch(&descriptor.digest, &target.place, Mismatch::Digest(named)))
        }
        Some(_) if status == 201 => Ok(handles_subject),
        None if status == 201 && is_located => Ok(handles_subject),
        // The specification requires 201 and the location. Proxies answer 200 to anything, so that an answer that names
        // no digest is no proof.
        _ => match read_back(target, key, descriptor).await {
            Err(Error::Denied { .. }) => {
                let problem = format!(
                    "it answers the upload of {} with status {status} and no digest, and does not permit to read it back",
                    key.describe()
                );
                Err(Error::protocol(&target.place, problem))
            }
            outcome => outcome.map(|()| handles_subject),
        },
    }
}

/// Deletes a tag, or a manifest and every tag that refers to it, and checks that it is gone.
pub(crate) async fn delete(target: &Target, key: &ManifestKey) -> Result<()> {
    let request = target.request(Method::DELETE, target.manifest(key));
    let reply = target.call(&target.access_to_delete(), request).await?;
    match reply.answer.status {
        200..300 => confirm_deleted(target, key).await,
        // An earlier attempt may have deleted it and its answer was lost.
        404 if reply.attempts > 1 => Ok(()),
        _ => Err(target.error(reply, &key.describe()).await),
    }
}

/// Checks that a registry no longer returns a manifest. Waits and retries, since replicas and caches can lag behind.
/// Without permission to read it, the answer to the `DELETE` is all there is.
///
/// # Errors
///
/// [`Error::Protocol`] if the registry still returns it.
async fn confirm_deleted(target: &Target, key: &ManifestKey) -> Result<()> {
    let mut failures = 0;
    loop {
        match head(target, key, &target.access_to_delete()).await {
            Ok(None) | Err(Error::Denied { .. }) => return Ok(()),
            Ok(Some(_)) => {}
            Err(error) => return Err(error),
        }
        failures += 1;
        if !target.inner.http.back_off(&Method::HEAD, &target.manifest(key), failures, None).await {
            let problem = format!("it reported that {} was deleted and still returns it", key.describe());
            return Err(Error::protocol(&target.place, problem));
        }
    }
}

/// The media types of manifests that are understood, or at least passed on.
pub(crate) const ACCEPTED: [MediaType; 7] = [
    MediaType::OCI_INDEX,
    MediaType::OCI_MANIFEST,
    MediaType::DOCKER_MANIFEST_LIST,
    MediaType::DOCKER_MANIFEST,
    MediaType::OCI_ARTIFACT_MANIFEST,
    MediaType::DOCKER_SCHEMA1_SIGNED,
    MediaType::DOCKER_SCHEMA1,
];

/// Adds the media types to the `Accept` header. Without it, registries convert manifests to formats of 2015: Docker
/// schema 1.
pub(crate) fn accepting(request: Request) -> Request {
    ACCEPTED.iter().fold(request, |request, media_type| request.header("accept", media_type.as_str()))
}

/// Returns an entity tag unless it is a weak one, which no condition for a write can use.
fn strong(entity_tag: &str) -> Option<String> {
    entity_tag.starts_with('"').then(|| entity_tag.to_owned())
}

/// Returns the media type of a header; a hint, see [`Content`].
fn label(header: Option<&str>) -> MediaType {
    let label = MediaType::new(header.unwrap_or_default()).essence();
    if label.is_document() { label } else { MediaType::OCTET_STREAM }
}

/// Parses a `Docker-Content-Digest` header.
pub(crate) fn named_digest(header: Option<&str>) -> Option<Digest> {
    header?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_media_types_are_removed() {
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
    fn web_page_is_recognized() {
        for (body, expected) in
            [("<!DOCTYPE html>", true), ("\u{feff} \n<html>", true), ("{}", false), ("", false), ("true", false)]
        {
            assert_eq!(is_web_page(body.as_bytes()), expected, "{body}");
        }
    }
}
