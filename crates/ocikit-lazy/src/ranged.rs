//! Reading parts of a blob.

use futures::StreamExt;
use ocikit_image::{ByteRange, Error as ImageError, Layer, Result as ImageResult};

use crate::error::Error;

/// Reads a part of a blob into memory. The caller has checked that it is not too large, and checks its digest.
///
/// # Errors
///
/// [`ImageError::Broken`] if the blob does not have the part; those of the source.
pub(crate) async fn read_range(layer: &Layer, offset: u64, length: u64) -> ImageResult<Vec<u8>> {
    let broken = |problem: &str| {
        let place = format!("layer {} in {}", layer.digest(), layer.source());
        ImageError::broken(place, Error::invalid("layer", problem))
    };
    if offset.checked_add(length).is_none_or(|end| end > layer.descriptor().size) {
        return Err(broken("a part of it is behind its end"));
    }
    let mut bytes = Vec::new();
    if length == 0 {
        return Ok(bytes);
    }
    let range = ByteRange { offset, length: Some(length) };
    let mut body = layer.source().open_unverified(layer.descriptor(), range).await?;
    while let Some(chunk) = body.next().await {
        let chunk = chunk?;
        // The memory follows the bytes that arrive, and ends with those that were asked for.
        if (bytes.len() + chunk.len()) as u64 > length {
            return Err(broken("its source returned more than was asked for"));
        }
        bytes.extend_from_slice(&chunk);
    }
    match bytes.len() as u64 == length {
        true => Ok(bytes),
        false => Err(broken("its source returned less than was asked for")),
    }
}
