use std::collections::HashSet;

use ocikit_image::{Error, Index, Root};
use ocikit_spec::{Descriptor, Digest, Platform};

/// What of a root is signed or verified.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Depth {
    /// The root itself: of an index its own bytes, which name those of its entries.
    #[default]
    Root,
    /// The root and, of an index, every image and index below it.
    Images,
    /// Every image below an index, and none of the indexes; a root that is no index itself.
    Leaves,
    /// The root, whatever is below it, and BuildKit's attestations.
    Everything,
}

/// Something that has or gets a signature of its own.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) root: Root,
    pub(crate) platform: Option<Platform>,
}

impl Subject {
    pub(crate) fn digest(&self) -> Digest {
        self.root.digest()
    }

    /// Its descriptor as signatures name it: type, digest and size.
    pub(crate) fn descriptor(&self) -> Descriptor {
        let Descriptor { media_type, digest, size, .. } = self.root.descriptor().clone();
        Descriptor::new(media_type, digest, size)
    }
}

/// Indexes within indexes go no deeper than this, and hold no more than that.
const DEEPEST: usize = 8;
const MOST: usize = 10_000;

/// The root and whatever else of it is meant, each once, the root first. Each was read, and its digest is right.
pub(crate) async fn subjects(root: &Root, depth: Depth) -> Result<Vec<Subject>, Error> {
    let mut found = vec![Subject { root: root.clone(), platform: root.descriptor().platform.clone() }];
    if depth == Depth::Root {
        return Ok(found);
    }
    let mut seen = HashSet::from([root.digest()]);
    let mut level: Vec<Index> = index_of(root).into_iter().collect();
    for _ in 0..DEEPEST {
        let mut next = Vec::new();
        for index in level {
            for entry in index.manifests() {
                let is_wanted = depth == Depth::Everything || !is_attestation(entry);
                if !is_wanted || !entry.media_type.is_document() || !seen.insert(entry.digest) {
                    continue;
                }
                let root = index.open(entry).await?;
                next.extend(index_of(&root));
                found.push(Subject { root, platform: entry.platform.clone() });
                if found.len() > MOST {
                    return Err(Error::broken(index.digest(), format!("it leads to more than {MOST} manifests")));
                }
            }
        }
        if next.is_empty() {
            found.retain(|subject| depth != Depth::Leaves || index_of(&subject.root).is_none());
            return Ok(found);
        }
        level = next;
    }
    Err(Error::broken(root.digest(), "its indexes are nested too deep"))
}

/// Whether an entry is what BuildKit says and not an image. One for a platform, or for any, would be run as an image, whatever
/// its annotations say.
fn is_attestation(entry: &Descriptor) -> bool {
    entry.is_attestation() && entry.platform.as_ref().is_some_and(|platform| platform.os == "unknown")
}

fn index_of(root: &Root) -> Option<Index> {
    match root {
        Root::Index(index) => Some(index.clone()),
        _ => None,
    }
}
