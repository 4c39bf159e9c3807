use ocikit_image::{Error, Result};
use ocikit_spec::Digest;
use reqwest::Method;

use crate::auth::Access;
use crate::client::Inner;
use crate::http::problem;
use crate::http::send::Request;
use crate::target::Target;

/// From how many bytes on a blob has a connection to itself.
pub(crate) const BULK: u64 = 4 << 20;

/// Whether a blob is there.
pub(crate) async fn exists(inner: &Inner, target: &Target, access: &Access, digest: &Digest) -> Result<bool> {
    let request = Request::new(Method::HEAD, target.blob(digest));
    let reply = inner.call(&target.endpoint, access, request, &target.place).await?;
    match reply.answer.status {
        200..300 => Ok(true),
        404 => Ok(false),
        _ => Err(problem::error(reply, &digest.to_string(), &target.place).await),
    }
}

/// How many bytes a blob has, `None` if it is not there.
pub(crate) async fn size(inner: &Inner, target: &Target, digest: &Digest) -> Result<Option<u64>> {
    let request = Request::new(Method::HEAD, target.blob(digest));
    let reply = inner.call(&target.endpoint, &target.access(), request, &target.place).await?;
    match reply.answer.status {
        200..300 => {
            let unsaid = || Error::broken(&target.place, format!("it does not say how many bytes {digest} has"));
            reply.answer.length().ok_or_else(unsaid).map(Some)
        }
        404 => Ok(None),
        _ => Err(problem::error(reply, &digest.to_string(), &target.place).await),
    }
}

/// Removes a blob.
pub(crate) async fn delete(inner: &Inner, target: &Target, digest: &Digest) -> Result<()> {
    let request = Request::new(Method::DELETE, target.blob(digest));
    let reply = inner.call(&target.endpoint, &target.access_to_delete(), request, &target.place).await?;
    match reply.answer.status {
        200..300 => Ok(()),
        // The answer to the attempt that removed it was lost.
        404 if reply.retried => Ok(()),
        _ => Err(problem::error(reply, &digest.to_string(), &target.place).await),
    }
}
