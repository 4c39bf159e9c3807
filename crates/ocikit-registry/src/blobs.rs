use ocikit_http::{Method, Reply};
use ocikit_image::{Error, Mismatch, Result};
use ocikit_spec::Digest;

use crate::auth::Scopes;
use crate::manifests::named_digest;
use crate::target::Target;

/// Blobs of at least this many bytes are transferred over a connection of their own.
pub(crate) const MIN_BULK_BYTES: u64 = 4 << 20;

async fn head(target: &Target, access: &Scopes, digest: &Digest) -> Result<Reply> {
    target.call(access, target.request(Method::HEAD, target.blob(digest))).await
}

/// Returns whether a blob exists. Status 200 alone is no proof, since a web page has it too: the answer must state the
/// digest or the size of the blob, and neither may differ.
pub(crate) async fn exists(target: &Target, access: &Scopes, digest: &Digest, size: u64) -> Result<bool> {
    let reply = head(target, access, digest).await?;
    match reply.answer.status {
        200 => {
            let named = named_digest(reply.answer.header("docker-content-digest"));
            let named = named.filter(|named| named.algorithm() == digest.algorithm());
            // A proxy may drop the length of `HEAD`, or set it to 0 (yusing/godoxy#169).
            let length = reply.answer.length().filter(|length| *length > 0 || size == 0);
            Ok(named.is_none_or(|named| named == *digest)
                && length.is_none_or(|length| length == size)
                && (named.is_some() || length.is_some()))
        }
        201..300 | 404 => Ok(false),
        _ => Err(target.error(reply, &digest.to_string()).await),
    }
}

/// Returns whether a blob is known to exist. A user who may push and not pull gets 403, as on Amazon ECR without
/// `ecr:BatchGetImage` (bazel-contrib/rules_oci#648). That counts as unknown, and the blob is uploaded.
pub(crate) async fn exists_to_push(target: &Target, access: &Scopes, digest: &Digest, size: u64) -> Result<bool> {
    match exists(target, access, digest, size).await {
        Err(Error::Denied { .. }) => Ok(false),
        outcome => outcome,
    }
}

/// Returns the size of a blob in bytes; `None` if it does not exist.
pub(crate) async fn size(target: &Target, digest: &Digest) -> Result<Option<u64>> {
    let reply = head(target, &target.access(), digest).await?;
    match reply.answer.status {
        200 => {
            let named = named_digest(reply.answer.header("docker-content-digest"));
            if let Some(named) = named.filter(|named| named.algorithm() == digest.algorithm() && named != digest) {
                return Err(Error::mismatch(digest, &target.place, Mismatch::Digest(named)));
            }
            let is_page = reply.answer.header("content-type").is_some_and(|found| found.starts_with("text/html"));
            if named.is_none() && is_page {
                let problem = format!("it answers a request for {digest} with a web page");
                return Err(Error::protocol(&target.place, problem));
            }
            let unsaid = || Error::protocol(&target.place, format!("it does not state the size of {digest}"));
            reply.answer.length().ok_or_else(unsaid).map(Some)
        }
        404 => Ok(None),
        _ => Err(target.error(reply, &digest.to_string()).await),
    }
}

/// Deletes a blob.
pub(crate) async fn delete(target: &Target, digest: &Digest) -> Result<()> {
    let request = target.request(Method::DELETE, target.blob(digest));
    let reply = target.call(&target.access_to_delete(), request).await?;
    match reply.answer.status {
        202 => Ok(()),
        // The specification requires 202. Any other success is checked.
        200..300 => {
            let reply = head(target, &target.access_to_delete(), digest).await?;
            match reply.answer.status {
                404 => Ok(()),
                200..300 => {
                    let problem = format!("it reported that {digest} was deleted and still has it");
                    Err(Error::protocol(&target.place, problem))
                }
                _ => Err(target.error(reply, &digest.to_string()).await),
            }
        }
        // An earlier attempt may have deleted it and its answer was lost.
        404 if reply.attempts > 1 => Ok(()),
        _ => Err(target.error(reply, &digest.to_string()).await),
    }
}
