use ocikit_image::Result;
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

/// Removes a blob.
pub(crate) async fn delete(inner: &Inner, target: &Target, digest: &Digest) -> Result<()> {
    let request = Request::new(Method::DELETE, target.blob(digest));
    let reply = inner.call(&target.endpoint, &target.access_to_delete(), request, &target.place).await?;
    match reply.answer.status {
        200..300 => Ok(()),
        _ => Err(problem::error(reply, &digest.to_string(), &target.place).await),
    }
}
