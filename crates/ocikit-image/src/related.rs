use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use futures::future::try_join;
use futures::{StreamExt, TryStreamExt, stream};
use ocikit_spec::{Content, Descriptor, Digest, Document, MediaType, Platform, Tag};

use crate::error::{Error, Result};
use crate::graph::{DocumentBudget, MAX_INDEX_DEPTH, MAX_PARALLEL_READS};
use crate::referrer_tag::{COSIGN_SUFFIXES, ReferrerTag};
use crate::root::Root;
use crate::source::{Name, Naming, Source, SourceExt};

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

/// The maximum number of referrers of one image.
const MAX_REFERRERS: usize = 10_000;

/// Returns the referrers of a root and of the manifests below it, and their referrers in turn, each with its name.
pub(crate) async fn related(root: &Root, which: &Referrers, platforms: &[Platform]) -> Result<Vec<(Root, Naming)>> {
    let mut found = Vec::new();
    if which.is_none() {
        return Ok(found);
    }
    let source = root.source();
    let mut seen = HashSet::new();
    let Below { mut subjects, parts } = Below::of(root, platforms).await?;
    let held = DocumentBudget::default();
    for _ in 0..MAX_INDEX_DEPTH {
        let lists: Vec<_> = stream::iter(std::mem::take(&mut subjects))
            .map(|subject| about(source, subject, which, &held))
            .buffered(MAX_PARALLEL_READS)
            .boxed()
            .try_collect()
            .await?;
        for (root, naming) in lists.into_iter().flatten() {
            // BuildKit's attestation manifests can have a subject and are entries of the index as well.
            if !parts.contains(&root.digest()) && seen.insert((root.digest(), naming.tag.clone())) {
                subjects.push(root.digest());
                found.push((root, naming));
            }
        }
        if found.len() > MAX_REFERRERS {
            return Err(Error::broken(source, format!("more than {MAX_REFERRERS} referrers of {}", root.digest())));
        }
        if subjects.is_empty() {
            break;
        }
    }
    Ok(found)
}

/// A signature or other referrer of a digest that an edited image no longer has.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    let source = before.source();
    let (old, new) = (Below::of(before, &[]).await?, Below::of(after, &[]).await?);
    let mut subjects: Vec<_> = old.subjects.into_iter().filter(|subject| !new.parts.contains(subject)).collect();
    let (mut seen, mut found) = (old.parts, Vec::new());
    let held = DocumentBudget::default();
    for _ in 0..MAX_INDEX_DEPTH {
        for subject in std::mem::take(&mut subjects) {
            for (root, naming) in about(source, subject, &Referrers::All, &held).await? {
                if seen.insert(root.digest()) {
                    subjects.push(root.digest());
                    found.push(Orphan { subject, referrer: root.descriptor().clone(), tag: naming.tag });
                }
            }
        }
        if found.len() > MAX_REFERRERS {
            return Err(Error::broken(source, format!("more than {MAX_REFERRERS} referrers of {}", before.digest())));
        }
    }
    Ok(found)
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
    match &root {
        Root::Index(index) if kind == ReferrerTag::List => {
            open_listed(source, index.manifests().to_vec(), &root.digest(), which, &DocumentBudget::default()).await
        }
        _ => Ok(vec![(root, Naming { tag: Some(tag.clone()), ..Naming::default() })]),
    }
}

/// The manifests and indexes of a root, including itself.
struct Below {
    /// The digests that may have referrers, in order.
    subjects: Vec<Digest>,
    /// The same digests, as a set.
    parts: HashSet<Digest>,
}

impl Below {
    async fn of(root: &Root, platforms: &[Platform]) -> Result<Below> {
        let mut below = Below { subjects: vec![root.digest()], parts: HashSet::from([root.digest()]) };
        let held = DocumentBudget::default();
        let mut waiting: Vec<_> = root.document().map(|document| (document, 0)).into_iter().collect();
        while let Some((document, depth)) = waiting.pop() {
            let Document::Index(index) = document else { continue };
            for entry in wanted(index.manifests().iter(), platforms) {
                if entry.media_type.is_blob() || !below.parts.insert(entry.digest) {
                    continue;
                }
                // BuildKit's attestation manifests included: they can be signed like images.
                below.subjects.push(entry.digest);
                if !entry.media_type.is_manifest() && depth < MAX_INDEX_DEPTH {
                    held.add(entry, &root.digest(), root.source())?;
                    if let Content::Document(document) = root.source().content(entry).await? {
                        waiting.push((document, depth + 1));
                    }
                }
            }
        }
        Ok(below)
    }
}

/// Returns the children for these platforms and those without a platform; all of them if `platforms` is empty. If
/// several variants match, the [best](Platform::rank) is selected.
pub(crate) fn wanted<'a>(
    children: impl Iterator<Item = &'a Descriptor>,
    platforms: &[Platform],
) -> Vec<&'a Descriptor> {
    let children: Vec<_> = children.collect();
    if platforms.is_empty() {
        return children;
    }
    let best = |platform: &Platform| {
        let found = children.iter().filter_map(|child| child.platform.as_ref());
        found.filter_map(|found| platform.rank(found)).min()
    };
    let best: Vec<_> = platforms.iter().filter_map(|platform| Some((platform, best(platform)?))).collect();
    let is_best = |found: &Platform| best.iter().any(|(platform, rank)| platform.rank(found) == Some(*rank));
    children.into_iter().filter(|child| child.platform.as_ref().is_none_or(is_best)).collect()
}

/// Returns the direct referrers of a digest: those that the source lists, then those under cosign's tags. Both are
/// requested at the same time.
async fn about(
    source: &Arc<dyn Source>,
    subject: Digest,
    which: &Referrers,
    held: &DocumentBudget,
) -> Result<Vec<(Root, Naming)>> {
    let endings: &[&str] = if which.takes_tags() { &COSIGN_SUFFIXES } else { &[] };
    let tagged =
        stream::iter(endings).map(|ending| tagged(source, subject, ending)).buffered(COSIGN_SUFFIXES.len()).boxed();
    let (mut found, tagged): (_, Vec<_>) = try_join(listed(source, subject, which, held), tagged.try_collect()).await?;
    found.extend(tagged.into_iter().flatten().filter(|(root, _)| which.may_have(&root.digest())));
    Ok(found)
}

async fn listed(
    source: &Arc<dyn Source>,
    subject: Digest,
    which: &Referrers,
    held: &DocumentBudget,
) -> Result<Vec<(Root, Naming)>> {
    let listed = source.referrers(&subject).await.map_err(|error| Error::referrers(&subject, source, error))?;
    open_listed(source, listed, &subject, which, held).await
}

/// Opens listed referrers and skips those that do not exist.
async fn open_listed(
    source: &Arc<dyn Source>,
    listed: Vec<Descriptor>,
    subject: &Digest,
    which: &Referrers,
    held: &DocumentBudget,
) -> Result<Vec<(Root, Naming)>> {
    let opened = stream::iter(listed.into_iter().filter(|listed| which.may_have(&listed.digest)))
        .map(|listed| async move {
            held.add(&listed, subject, source)?;
            match Root::at(source.clone(), listed).await {
                Ok(root) => Ok(Some(root).filter(|root| is_of(root, which))),
                // A list of referrers may contain manifests that were deleted.
                Err(error) if error.is_not_found() => Ok(None),
                Err(error) => Err(error),
            }
        })
        .buffered(MAX_PARALLEL_READS)
        .boxed();
    let opened: Vec<_> = opened.try_collect().await?;
    Ok(opened.into_iter().flatten().map(|root| (root, Naming::default())).collect())
}

/// Returns the artifact under a tag of cosign, if there is one.
async fn tagged(source: &Arc<dyn Source>, subject: Digest, ending: &str) -> Result<Option<(Root, Naming)>> {
    let tag = format!("{}-{}.{ending}", subject.algorithm().name(), subject.hex());
    // A tag with a sha512 digest would exceed 128 characters.
    let Ok(tag) = tag.parse::<Tag>() else { return Ok(None) };
    match source.resolve(&Name::Tag(tag.clone())).await {
        Ok(descriptor) => {
            let naming = Naming { tag: Some(tag), ..Naming::default() };
            Ok(Some((Root::at(source.clone(), descriptor).await?, naming)))
        }
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(Error::referrers(&subject, source, error)),
    }
}

fn is_of(root: &Root, which: &Referrers) -> bool {
    let types = match which {
        Referrers::None | Referrers::All => return true,
        Referrers::OfTypes(types) => types,
        Referrers::Among(which, _) => return is_of(root, which),
    };
    let document = root.document();
    let found = match &document {
        Some(Document::Manifest(manifest)) => {
            manifest.artifact_type().or_else(|| manifest.config().map(|config| &config.media_type))
        }
        Some(Document::Index(index)) => index.artifact_type(),
        None => None,
    };
    found.is_some_and(|found| types.contains(found))
}
