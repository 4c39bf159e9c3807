use std::collections::HashSet;

use ocikit_spec::{Descriptor, Platform, annotations};

use crate::error::{Error, Result};
use crate::platform::best_entries;
use crate::root::{Index, Root};

/// Returns the part of a root for some platforms: the image itself for one platform, and for several an index with
/// their images and the attestation manifests of these. The images keep their bytes; an index without some of its
/// entries is a new document with a different digest.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # use std::sync::Arc;
/// # use ocikit_image::{Memory, testing};
/// # let memory = Arc::new(Memory::new());
/// # let manifest = testing::image(&memory, 1, &"linux/amd64".parse()?, &[1000]);
/// # let root = Root::at(memory.clone(), testing::index(&memory, &[manifest])).await?;
/// use ocikit_image::{Root, select_platforms};
///
/// let selected = select_platforms(&root, &["linux/amd64".parse()?]).await?;
/// println!("{}", selected.digest());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # Errors
///
/// [`Error::NoPlatform`] if a platform has no image.
pub async fn select_platforms(root: &Root, platforms: &[Platform]) -> Result<Root> {
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
    // In reverse order, so that the positions of the remaining entries stay valid.
    for position in (0..entries.len()).rev().filter(|position| !is_kept(&entries[*position])) {
        edit.remove(position);
    }
    edit.finish()
}
