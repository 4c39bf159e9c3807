use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use ocikit_spec::{Content, Descriptor, Digest, Document, MediaType, Platform, Tag};

use crate::error::Result;
use crate::referrer_tag::{COSIGN_SUFFIXES, ReferrerTag};
use crate::root::Root;
use crate::source::{Name, Naming, Source};
use crate::walk::limits::Limits;
use crate::walk::{Edge, Found, Node, Walk, children};

/// Which referrers of an image (signatures, attestations, SBOMs and other artifacts with it as their subject) are
/// copied with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Referrers {
    /// No referrers.
    #[default]
    None,
    /// All referrers, including those of cosign under the tags `sha256-HEX.sig`, `.att` and `.sbom`.
    All,
    /// The referrers of one of these artifact types.
    OfTypes(Vec<MediaType>),
    /// The referrers of another selection whose manifests have one of these digests, for example those that a policy
    /// verified.
    Among(Box<Referrers>, Arc<BTreeSet<Digest>>),
}

impl Referrers {
    /// Restricts the selection to manifests with these digests.
    #[must_use]
    pub fn among(self, digests: BTreeSet<Digest>) -> Referrers {
        match self {
            Referrers::None => Referrers::None,
            other => Referrers::Among(Box::new(other), Arc::new(digests)),
        }
    }

    /// Combines selections that differ only in the digests that they allow.
    #[must_use]
    pub fn of_any(choices: Vec<Referrers>) -> Referrers {
        let mut choices = choices.into_iter().filter(|choice| !matches!(choice, Referrers::None));
        let Some(first) = choices.next() else { return Referrers::None };
        let Referrers::Among(which, digests) = first else { return first };
        let mut all = (*digests).clone();
        for choice in choices {
            match choice {
                Referrers::Among(_, digests) => all.extend(digests.iter().copied()),
                other => return other,
            }
        }
        which.among(all)
    }

    /// Returns whether nothing is selected.
    pub fn is_none(&self) -> bool {
        match self {
            Referrers::None => true,
            Referrers::All | Referrers::OfTypes(_) => false,
            Referrers::Among(which, digests) => which.is_none() || digests.is_empty(),
        }
    }

    /// Returns whether the artifacts under cosign's tags are selected.
    fn takes_tags(&self) -> bool {
        match self {
            Referrers::None | Referrers::OfTypes(_) => false,
            Referrers::All => true,
            Referrers::Among(which, _) => which.takes_tags(),
        }
    }

    /// Returns whether a manifest with this digest can be selected.
    fn may_have(&self, digest: &Digest) -> bool {
        match self {
            Referrers::None | Referrers::All | Referrers::OfTypes(_) => true,
            Referrers::Among(which, digests) => digests.contains(digest) && which.may_have(digest),
        }
    }
}

/// Returns the referrers of a root and of the manifests below it, and their referrers in turn, each with its name.
/// Those of manifests in `present` are left out.
pub(crate) async fn related(
    root: &Root,
    which: &Referrers,
    platforms: &[Platform],
    present: &HashSet<Digest>,
) -> Result<Vec<(Root, Naming)>> {
    if which.is_none() {
        return Ok(Vec::new());
    }
    let parts = parts(root, platforms, present).await?;
    let suffixes: &'static [&'static str] = if which.takes_tags() { &COSIGN_SUFFIXES } else { &[] };
    let found = referrers_of(root.source(), &parts, &parts, which, suffixes).await?;
    Ok(found.into_iter().map(|(_, root, naming)| (root, naming)).collect())
}

/// A signature or other referrer of a digest that an edited image no longer has.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Orphan {
    /// The digest that it refers to.
    pub subject: Digest,
    /// The referrer.
    pub referrer: Descriptor,
    /// Its tag, if it is stored under one of cosign's.
    pub tag: Option<Tag>,
}

/// Returns the referrers of manifests and indexes that an image contained before an edit and no longer contains.
///
/// # Errors
///
/// Those of the source of the image.
pub async fn orphans(before: &Root, after: &Root) -> Result<Vec<Orphan>> {
    let none = HashSet::new();
    let (old, new) = (parts(before, &[], &none).await?, parts(after, &[], &none).await?);
    let kept: HashSet<_> = new.iter().map(|part| part.digest).collect();
    let lost: Vec<_> = old.iter().filter(|part| !kept.contains(&part.digest)).cloned().collect();
    // Most repositories have no tags of cosign. One list tells, instead of three requests for each digest.
    let tags = before.source().few_tags().await.unwrap_or_default();
    let has_none = tags.is_some_and(|tags| tags.iter().all(|tag| ReferrerTag::of(tag).is_none()));
    let suffixes: &'static [&'static str] = if has_none { &[] } else { &COSIGN_SUFFIXES };
    let found = referrers_of(before.source(), &lost, &old, &Referrers::All, suffixes).await?;
    let mut seen = HashSet::new();
    let once = found.into_iter().filter(|(_, root, _)| seen.insert(root.digest()));
    let orphan = |(subject, root, naming): (Digest, Root, Naming)| Orphan {
        subject,
        referrer: root.descriptor().clone(),
        tag: naming.tag,
    };
    Ok(once.map(orphan).collect())
}

/// Returns what to copy for a referrer tag when all tags of a repository are copied, each root with its name at the
/// target.
///
/// A list of referrers is replaced by the referrers that it lists: a target with the referrers API needs no such tag,
/// and any other target merges them into its own list.
///
/// # Errors
///
/// Those of the source.
pub async fn tagged_referrers(
    source: &Arc<dyn Source>,
    tag: &Tag,
    kind: ReferrerTag,
    which: &Referrers,
) -> Result<Vec<(Root, Naming)>> {
    if *which == Referrers::None || (kind != ReferrerTag::List && *which != Referrers::All) {
        return Ok(Vec::new());
    }
    let root = Root::open(source.clone(), &Name::Tag(tag.clone())).await?;
    let index = match &root {
        Root::Index(index) if kind == ReferrerTag::List => index,
        _ => return Ok(vec![(root, Naming::of_tag(tag.clone()))]),
    };
    let mut walk = Walk::new(&**source, Limits::IMAGE);
    let mut found = Vec::new();
    walk.start_unread(root.descriptor())?;
    while let Some(node) = walk.next().await {
        if node.path.distance > 0 {
            found.extend(opened(source, node, which)?.map(|(_, root, naming)| (root, naming)));
            continue;
        }
        let listed = index.manifests().iter().enumerate();
        for (position, entry) in listed.filter(|(_, entry)| which.may_have(&entry.digest)) {
            walk.add(&node.path, Edge::Referrer(position), entry)?;
        }
    }
    Ok(found)
}

/// Returns the manifests and indexes of a root that may have referrers, including itself. BuildKit's attestation
/// manifests are among them: they can be signed like images.
async fn parts(root: &Root, platforms: &[Platform], present: &HashSet<Digest>) -> Result<Vec<Descriptor>> {
    let mut parts = Vec::new();
    let mut walk = Walk::new(&**root.source(), Limits::IMAGE);
    walk.start_at(root)?;
    while let Some(node) = walk.next().await {
        if let Found::Content(content) = node.found
            && let Content::Document(document @ Document::Index(_)) = content?
        {
            let children = children(&document).filter(|(_, entry)| !present.contains(&entry.digest));
            for (edge, entry) in wanted(children, platforms) {
                match &entry.media_type {
                    kind if kind.is_blob() => false,
                    kind if kind.is_manifest() => walk.add_unread(&node.path, edge, entry)?,
                    _ => walk.add(&node.path, edge, entry)?,
                };
            }
        }
        parts.push(Descriptor::new(node.descriptor.media_type, node.path.digest, node.descriptor.size));
    }
    Ok(parts)
}

/// Returns the referrers of these subjects, and their referrers in turn, each with its subject and its name. A referrer
/// that is also one of the parts of the image is left out: BuildKit's attestation manifests can have a subject and are
/// entries of the index as well.
async fn referrers_of(
    source: &Arc<dyn Source>,
    subjects: &[Descriptor],
    parts: &[Descriptor],
    which: &Referrers,
    suffixes: &'static [&'static str],
) -> Result<Vec<(Digest, Root, Naming)>> {
    let mut walk = Walk::new(&**source, Limits::IMAGE);
    for subject in subjects {
        walk.start_unread(subject)?;
    }
    let parts: HashSet<_> = parts.iter().map(|part| part.digest).collect();
    let is_selected = |digest: &Digest| which.may_have(digest) && !parts.contains(digest);
    let mut found = Vec::new();
    while let Some(node) = walk.next().await {
        let path = node.path.clone();
        match node.found {
            Found::Referrers(listed) => {
                for referrer in listed?.into_iter().filter(|referrer| is_selected(&referrer.descriptor.digest)) {
                    walk.add(&path, referrer.edge, &referrer.descriptor)?;
                }
                continue;
            }
            Found::Content(_) => match opened(source, node, which)? {
                Some(referrer) => found.push(referrer),
                None => continue,
            },
            Found::Unread => {}
        }
        walk.add_referrers(&path, suffixes);
    }
    Ok(found)
}

/// Returns the children for these platforms and those without a platform; all of them if `platforms` is empty. If
/// several variants match, the [best](Platform::rank) is selected.
pub(crate) fn wanted<'a>(
    children: impl Iterator<Item = (Edge, &'a Descriptor)>,
    platforms: &[Platform],
) -> Vec<(Edge, &'a Descriptor)> {
    let mut children: Vec<_> = children.collect();
    if platforms.is_empty() {
        return children;
    }
    let best = |platform: &Platform| {
        let found = children.iter().filter_map(|(_, child)| child.platform.as_ref());
        found.filter_map(|found| platform.rank(found)).min()
    };
    let best: Vec<_> = platforms.iter().filter_map(|platform| Some((platform, best(platform)?))).collect();
    let is_best = |found: &Platform| best.iter().any(|(platform, rank)| platform.rank(found) == Some(*rank));
    children.retain(|(_, child)| child.platform.as_ref().is_none_or(is_best));
    children
}

/// Returns a referrer that was read, with its subject and its name, if it is selected.
fn opened(source: &Arc<dyn Source>, node: Node, which: &Referrers) -> Result<Option<(Digest, Root, Naming)>> {
    let (Found::Content(content), Some(subject)) = (node.found, &node.path.parent) else { return Ok(None) };
    let tag = match &node.path.edge {
        Edge::Tag(tag) => Some(tag.clone()),
        _ => None,
    };
    let content = match content {
        // A list of referrers may contain manifests that were deleted.
        Err(error) if error.is_not_found() && tag.is_none() => return Ok(None),
        content => content?,
    };
    let root = Root::of(source.clone(), node.descriptor, content);
    let is_selected = tag.is_some() || is_of(&root, which);
    Ok(is_selected.then(|| (subject.digest, root, Naming { tag, ..Naming::default() })))
}

fn is_of(root: &Root, which: &Referrers) -> bool {
    let types = match which {
        Referrers::None | Referrers::All => return true,
        Referrers::OfTypes(types) => types,
        Referrers::Among(which, _) => return is_of(root, which),
    };
    root.document().is_some_and(|document| document.listed_artifact_type().is_some_and(|found| types.contains(found)))
}
