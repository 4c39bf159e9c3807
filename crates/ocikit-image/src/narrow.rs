use std::collections::HashSet;

use ocikit_spec::{Descriptor, Platform, annotations};

use crate::error::{Error, Result};
use crate::root::{Index, Root};

/// What a root has for some platforms: for one the image itself, for several an index of those, with the attestations that
/// are about them. The images stay as they are; an index that leaves something out is a new one, with another digest.
///
/// # Errors
///
/// [`Error::NotFound`] if there is no image for one of the platforms.
pub async fn narrow(root: &Root, platforms: &[Platform]) -> Result<Root> {
    match (root, platforms) {
        (_, []) => Ok(root.clone()),
        (Root::Index(index), [platform]) => Ok(Root::Image(index.image_for(platform).await?)),
        (Root::Index(index), _) => of_index(index, platforms).map(Root::Index),
        (Root::Image(image), _) => {
            let config = image.config().await?;
            let runs = |platform: &&Platform| !config.platform().is_some_and(|found| platform.accepts(found));
            match platforms.iter().find(runs) {
                None => Ok(root.clone()),
                Some(missing) => Err(not_found(missing, root)),
            }
        }
        (Root::Other(_), [platform, ..]) => Err(not_found(platform, root)),
    }
}

fn of_index(index: &Index, platforms: &[Platform]) -> Result<Index> {
    let entries = index.manifests();
    let runs = |entry: &Descriptor, platform: &Platform| {
        !entry.is_attestation() && entry.platform.as_ref().is_some_and(|found| platform.accepts(found))
    };
    for platform in platforms {
        if !entries.iter().any(|entry| runs(entry, platform)) {
            return Err(not_found(platform, &Root::Index(index.clone())));
        }
    }
    let images = entries.iter().filter(|entry| platforms.iter().any(|platform| runs(entry, platform)));
    let kept: HashSet<_> = images.map(|entry| entry.digest.to_string()).collect();
    let is_kept = |entry: &Descriptor| match entry.annotations.get(annotations::DOCKER_REFERENCE_DIGEST) {
        Some(subject) if entry.is_attestation() => kept.contains(subject),
        _ => kept.contains(&entry.digest.to_string()),
    };
    let mut edit = index.edit();
    // From the back, so that positions stay right.
    for position in (0..entries.len()).rev().filter(|position| !is_kept(&entries[*position])) {
        edit.remove(position);
    }
    edit.finish()
}

fn not_found(platform: &Platform, root: &Root) -> Error {
    Error::not_found(format!("image for {platform}"), root.source())
}
