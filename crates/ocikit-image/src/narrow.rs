use std::collections::HashSet;

use ocikit_spec::{Descriptor, Platform, annotations};

use crate::error::{Error, Result};
use crate::platform::best_entries;
use crate::root::{Index, Root};

/// What a root has for some platforms: for one the image itself, for several an index of those, with the attestations that
/// are about them. The images stay as they are; an index that leaves something out is a new one, with another digest.
///
/// # Errors
///
/// [`Error::NoPlatform`] if there is no image for one of the platforms.
pub async fn narrow(root: &Root, platforms: &[Platform]) -> Result<Root> {
    match (root, platforms) {
        (_, []) => Ok(root.clone()),
        (Root::Index(index), [platform]) => Ok(Root::Image(index.image_for(platform).await?)),
        (Root::Index(index), _) => of_index(index, platforms).await.map(Root::Index),
        (Root::Image(image), _) => {
            let config = image.config().await?;
            let runs = |platform: &&Platform| !config.platform().is_some_and(|found| platform.accepts(found));
            match platforms.iter().find(runs) {
                None => Ok(root.clone()),
                Some(missing) => {
                    Err(Error::no_platform(std::slice::from_ref(missing), config.platform().cloned(), root.source()))
                }
            }
        }
        (Root::Other(_), _) => Err(Error::no_platform(platforms, [], root.source())),
    }
}

async fn of_index(index: &Index, platforms: &[Platform]) -> Result<Index> {
    let entries = index.manifests();
    let found = index.platforms().await?;
    let chosen = best_entries(platforms, &found)
        .map_err(|missing| Error::no_platform(&[missing], found.iter().flatten().cloned(), &index.source))?;
    let kept: HashSet<_> = chosen.into_iter().map(|at| entries[at].digest.to_string()).collect();
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
