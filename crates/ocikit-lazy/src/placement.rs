//! Converted images beside the ones that they come from: as further entries of an image index, or as referrers.

use std::collections::HashMap;

use ocikit_image::{Error, Image, Index, Result, Root};
use ocikit_spec::{Annotations, Descriptor, Digest, Platform, annotations};

/// Where the converted images are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Placement {
    /// In the place of the images that they come from.
    #[default]
    Replace,
    /// Beside them in one image index, after all others: clients that do not know the format take the first image for
    /// their platform. Not possible for eStargz, whose images look like any other.
    ///
    /// The entries of Nydus have the feature `nydus.remoteimage.v1` in their platform (nydus-snapshotter,
    /// `pkg/remote/remote.go`: "index detection"), those of zstd:chunked the annotation
    /// `io.github.containers.compression.zstd` (containers/image, `internal/manifest/oci_index.go`). SOCI indexes name
    /// their image.
    Index,
    /// As referrers of them, which keep their digests: Nydus and SOCI.
    Referrer,
}

/// The feature that nydus-snapshotter looks for in the platforms of an index.
const NYDUS_FEATURE: &str = "nydus.remoteimage.v1";

/// The annotation by which containers/image prefers an entry with zstd layers.
const ZSTD_ANNOTATION: &str = "io.github.containers.compression.zstd";

/// The annotation of nydusify with the digest of the image that an entry was made from.
const SOURCE_DIGEST: &str = annotations::NYDUS_SOURCE_DIGEST;

/// How clients tell the entries of a format from plain ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// A feature in the platform.
    Nydus,
    /// An annotation.
    Zstd,
}

impl Mark {
    pub(crate) fn is_on(self, entry: &Descriptor) -> bool {
        match self {
            Mark::Nydus => entry.platform.as_ref().is_some_and(has_feature),
            Mark::Zstd => entry.annotations.get(ZSTD_ANNOTATION).is_some_and(|value| value == "true"),
        }
    }

    /// Returns the entry of a converted image.
    fn entry(self, converted: &Image, plain: &Descriptor, platform: Platform) -> Descriptor {
        let mut entry = Descriptor { annotations: Annotations::new(), ..converted.descriptor().clone() };
        let mut platform = platform;
        match self {
            Mark::Nydus => {
                platform.os_features.push(NYDUS_FEATURE.to_owned());
                entry.annotations.insert(SOURCE_DIGEST, plain.digest.to_string());
            }
            Mark::Zstd => entry.annotations.insert(ZSTD_ANNOTATION, "true"),
        }
        entry.platform = Some(platform);
        entry
    }
}

fn has_feature(platform: &Platform) -> bool {
    platform.os_features.iter().any(|feature| feature == NYDUS_FEATURE)
}

/// Returns whether an index has an entry of a format for an image that it lists.
pub(crate) fn is_listed(root: &Root, mark: Mark, image: &Image) -> bool {
    let Root::Index(index) = root else { return false };
    let entries = index.manifests();
    let mut own = entries.iter().filter(|entry| entry.digest == image.digest());
    own.any(|own| mark.is_on(own) || entries.iter().any(|entry| mark.is_on(entry) && is_of(entry, own)))
}

/// Returns whether an index has an image as one of a lazy format only, beside another one for its platform: it is not converted
/// itself.
pub(crate) fn is_beside(root: &Root, image: &Image) -> bool {
    let Root::Index(index) = root else { return false };
    let entries = index.manifests();
    let is_marked = |entry: &Descriptor| [Mark::Nydus, Mark::Zstd].iter().any(|mark| mark.is_on(entry));
    let is_plain = |entry: &Descriptor| !is_marked(entry) && !entry.is_attestation();
    let has_plain =
        |own: &Descriptor| entries.iter().any(|other| is_plain(other) && is_for(own, other.platform.as_ref()));
    let mut own = entries.iter().filter(|entry| entry.digest == image.digest()).peekable();
    own.peek().is_some() && own.all(|own| is_marked(own) && has_plain(own))
}

/// Returns whether an entry was made from another one. nydus-snapshotter takes the first one for the platform; a stale one
/// names another source.
fn is_of(entry: &Descriptor, plain: &Descriptor) -> bool {
    let source = entry.annotations.get(SOURCE_DIGEST);
    source.is_none_or(|source| source == plain.digest.to_string()) && is_for(entry, plain.platform.as_ref())
}

fn is_for(entry: &Descriptor, platform: Option<&Platform>) -> bool {
    let without = |platform: &Platform| Platform { os_features: Vec::new(), ..platform.normalized() };
    entry.platform.as_ref().map(without) == platform.map(without)
}

/// Returns an index with an entry for each converted image, after the others. An entry of the same format and platform is
/// replaced. Entries of images get a platform, which nydus-snapshotter needs.
pub(crate) async fn add(index: &Index, mark: Mark, made: &HashMap<Digest, Image>) -> Result<Index> {
    let mut edit = index.edit();
    let platforms = index.platforms().await?;
    let (mut new, mut old) = (Vec::new(), Vec::new());
    for (position, (entry, platform)) in index.manifests().iter().zip(platforms).enumerate() {
        if entry.media_type.is_index() {
            let what = format!("the index {} below it; convert that index", entry.digest);
            return Err(Error::Unsupported { place: index.source().to_string(), what });
        }
        let Some(platform) = platform.filter(|platform| !platform.is_unknown()) else { continue };
        if entry.platform.is_none() {
            edit.set_platform(position, Some(&platform));
        }
        let Some(converted) = made.get(&entry.digest).filter(|_| !mark.is_on(entry)) else { continue };
        let others = index.manifests().iter().enumerate();
        let others = others.filter(|(_, other)| mark.is_on(other) && is_for(other, Some(&platform)));
        old.extend(others.map(|(position, _)| position));
        let descriptor = mark.entry(converted, entry, platform);
        new.push(Root::at(converted.source().clone(), descriptor).await?);
    }
    old.sort_unstable();
    old.dedup();
    for position in old.into_iter().rev() {
        edit.remove(position);
    }
    for root in &new {
        edit.push(root);
    }
    edit.finish()
}

/// Returns an index without the entries of a format that `is_removed` selects, if another entry is for the same platform.
pub(crate) fn detach(index: &Index, mark: Mark, is_removed: impl Fn(&Descriptor) -> bool) -> Result<Index> {
    let entries = index.manifests();
    let mut edit = index.edit();
    for (position, entry) in entries.iter().enumerate().rev().filter(|(_, entry)| mark.is_on(entry)) {
        let mut plain = entries.iter().filter(|other| !mark.is_on(other) && !other.is_attestation());
        if is_removed(entry) && plain.any(|other| is_for(entry, other.platform.as_ref())) {
            edit.remove(position);
        }
    }
    edit.finish()
}

/// Returns an index without the entries of a format for the platforms of new images, which have the format themselves.
pub(crate) fn detach_replaced(index: &Index, mark: Mark, is_new: impl Fn(&Descriptor) -> bool) -> Result<Index> {
    let entries = index.manifests();
    let is_replacement = |other: &Descriptor| !mark.is_on(other) && is_new(other);
    detach(index, mark, |entry| {
        entries.iter().any(|other| is_replacement(other) && is_for(entry, other.platform.as_ref()))
    })
}

/// Returns what an index is without the entries that were added to one image: the image. An index that had no such entries
/// stays an index, as does one with anything else of its own.
pub(crate) async fn alone(before: &Root, index: Index) -> Result<Root> {
    let Root::Index(old) = before else { return Ok(Root::Index(index)) };
    let has_more = old.manifests().len() > 1 && !has_own_fields(index.document());
    match index.manifests() {
        [image] if has_more => Root::at(index.source().clone(), image.bare()).await,
        _ => Ok(Root::Index(index)),
    }
}

/// Returns whether an index says more than which entries it has.
fn has_own_fields(index: &ocikit_spec::Index) -> bool {
    index.artifact_type().is_some() || index.subject().is_some() || index.annotations().iter().next().is_some()
}
