//! What is bound to the layers of an image, so that a change of the layers has to respect it: the bootstrap of Nydus, and SOCI
//! indexes.

use ocikit_spec::{Descriptor, Digest, Manifest, MediaType, annotations};

use crate::error::{Error, Need, Result};
use crate::nydus::is_bootstrap;
use crate::root::Image;

/// Returns whether two manifests have the same layers.
pub(crate) fn has_layers_of(one: &Manifest, other: &Manifest) -> bool {
    let digests = |manifest: &Manifest| manifest.layers().iter().map(|layer| layer.digest).collect::<Vec<_>>();
    digests(one) == digests(other)
}

/// Refuses to change the layers of a Nydus image: its last layer lists the files of all others.
pub(crate) async fn check_plain(image: &Image) -> Result<()> {
    match image.has_nydus_layers().await? {
        true => Err(nydus(image, "whose layers cannot be changed")),
        false => Ok(()),
    }
}

/// Refuses other layers that mix those of Nydus with others. All of them can be replaced: by plain ones, or by blobs and their
/// bootstrap.
pub(crate) async fn check_layers(image: &Image, new: &Manifest) -> Result<()> {
    if new.has_nydus_blobs() || new.layers().iter().any(is_bootstrap) {
        check_plain(image).await?;
    }
    if !new.has_nydus_blobs() {
        return Ok(());
    }
    let is_complete = new.layers().split_last().is_some_and(|(last, blobs)| {
        let is_blob = |layer: &Descriptor| layer.media_type == MediaType::NYDUS_BLOB;
        is_bootstrap(last) && blobs.iter().all(is_blob)
    });
    match is_complete {
        true => Ok(()),
        false => {
            let what = format!("{} would have layers of Nydus among its own", image.digest());
            Err(Error::unmet(image.source(), what, Need::PlainLayers))
        }
    }
}

/// Returns the error for a Nydus image.
pub(crate) fn nydus(image: &Image, why: &str) -> Error {
    let what = format!("{} has the format of Nydus, {why}", image.digest());
    Error::unmet(image.source(), what, Need::PlainLayers)
}

/// Returns whether an entry of an index is the Nydus image that was made from the image of another entry.
pub(crate) fn is_nydus_of(entry: &Descriptor, digest: &Digest) -> bool {
    entry.annotations.get(annotations::NYDUS_SOURCE_DIGEST).is_some_and(|source| source == digest.to_string())
}

/// Returns whether an entry of an index is the SOCI index of an image.
pub(crate) fn is_soci_of(entry: &Descriptor, digest: &Digest) -> bool {
    entry.annotations.get(annotations::SOCI_IMAGE_DIGEST).is_some_and(|image| image == digest.to_string())
}
