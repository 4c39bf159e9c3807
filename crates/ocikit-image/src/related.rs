use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use futures::future::try_join;
use futures::{StreamExt, TryStreamExt, stream};
use ocikit_spec::{Content, Descriptor, Digest, Document, MediaType, Platform, Tag};

use crate::error::{Error, Result};
use crate::graph::{AT_ONCE, DEEPEST, Held};
use crate::referrer_tag::{COSIGN_ENDINGS as ENDINGS, ReferrerTag};
use crate::root::Root;
use crate::source::{Name, Naming, Source, SourceExt};

/// Which of the things that are about an image go along with it: signatures, attestations, SBOMs, whatever has it as its
/// subject.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Referrers {
    /// None.
    #[default]
    None,
    /// All, and what cosign keeps under tags of its own: `sha256-….sig`, `.att` and `.sbom`.
    All,
    /// Those of one of these artifact types.
    OfTypes(Vec<MediaType>),
    /// Of those that another choice means, the ones whose manifests have these digests: a policy verified them, for one.
    Among(Box<Referrers>, Arc<BTreeSet<Digest>>),
}

impl Referrers {
    /// The same, and only those whose manifests have these digests.
    #[must_use]
    pub fn among(self, digests: BTreeSet<Digest>) -> Referrers {
        match self {
            Referrers::None => Referrers::None,
            other => Referrers::Among(Box::new(other), Arc::new(digests)),
        }
    }

    /// What any of several choices for images means, which differ in nothing but the digests that are allowed.
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

    /// Whether none is meant.
    pub fn is_none(&self) -> bool {
        match self {
            Referrers::None => true,
            Referrers::All | Referrers::OfTypes(_) => false,
            Referrers::Among(which, digests) => which.is_none() || digests.is_empty(),
        }
    }

    /// Whether what cosign keeps under tags of its own is meant too.
    fn takes_tags(&self) -> bool {
        match self {
            Referrers::None | Referrers::OfTypes(_) => false,
            Referrers::All => true,
            Referrers::Among(which, _) => which.takes_tags(),
        }
    }

    /// Whether a manifest with this digest may be meant.
    fn may_have(&self, digest: &Digest) -> bool {
        match self {
            Referrers::None | Referrers::All | Referrers::OfTypes(_) => true,
            Referrers::Among(which, digests) => digests.contains(digest) && which.may_have(digest),
        }
    }
}

/// More things about one image than this are a mistake or an attack.
const MOST: usize = 10_000;

/// What is about a root and what is below it, and what is about that in turn; each with the name it had.
pub(crate) async fn related(root: &Root, which: &Referrers, platforms: &[Platform]) -> Result<Vec<(Root, Naming)>> {
    let mut found = Vec::new();
    if which.is_none() {
        return Ok(found);
    }
    let source = root.source();
    let mut seen = HashSet::new();
    let Below { mut subjects, parts } = Below::of(root, platforms).await?;
    let held = Held::default();
    for _ in 0..DEEPEST {
        let lists: Vec<_> = stream::iter(std::mem::take(&mut subjects))
            .map(|subject| about(source, subject, which, &held))
            .buffered(AT_ONCE)
            .boxed()
            .try_collect()
            .await?;
        for (root, naming) in lists.into_iter().flatten() {
            // BuildKit's attestations have a subject, and are parts of the index all the same.
            if !parts.contains(&root.digest()) && seen.insert((root.digest(), naming.tag.clone())) {
                subjects.push(root.digest());
                found.push((root, naming));
            }
        }
        if found.len() > MOST {
            return Err(Error::broken(source, format!("more than {MOST} things are about {}", root.digest())));
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
    /// What it is about.
    pub subject: Digest,
    /// The referrer.
    pub referrer: Descriptor,
    /// The tag that leads to it, if it is one of cosign's.
    pub tag: Option<Tag>,
}

/// Returns what is said about digests that an image, or anything below it, had before an edit and does not have after it.
///
/// # Errors
///
/// Those of the place of the image.
pub async fn orphans(before: &Root, after: &Root) -> Result<Vec<Orphan>> {
    let source = before.source();
    let (old, new) = (Below::of(before, &[]).await?, Below::of(after, &[]).await?);
    let mut subjects: Vec<_> = old.subjects.into_iter().filter(|subject| !new.parts.contains(subject)).collect();
    let (mut seen, mut found) = (old.parts, Vec::new());
    let held = Held::default();
    for _ in 0..DEEPEST {
        for subject in std::mem::take(&mut subjects) {
            for (root, naming) in about(source, subject, &Referrers::All, &held).await? {
                if seen.insert(root.digest()) {
                    subjects.push(root.digest());
                    found.push(Orphan { subject, referrer: root.descriptor().clone(), tag: naming.tag });
                }
            }
        }
        if found.len() > MOST {
            return Err(Error::broken(source, format!("more than {MOST} referrers of {}", before.digest())));
        }
    }
    Ok(found)
}

/// What is copied of a tag that stands for what is said about an image, as one of all tags of a place; each with the name it
/// gets at the target.
///
/// A list of referrers is copied as the referrers that it lists: a target that finds referrers by itself has no use for the tag,
/// and any other adds them to its own list.
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
            open_listed(source, index.manifests().to_vec(), &root.digest(), which, &Held::default()).await
        }
        _ => Ok(vec![(root, Naming { tag: Some(tag.clone()), ..Naming::default() })]),
    }
}

/// A root and the manifests below it.
struct Below {
    /// Those that something may be about, in their order.
    subjects: Vec<Digest>,
    /// The same, to look them up.
    parts: HashSet<Digest>,
}

impl Below {
    async fn of(root: &Root, platforms: &[Platform]) -> Result<Below> {
        let mut below = Below { subjects: vec![root.digest()], parts: HashSet::from([root.digest()]) };
        let held = Held::default();
        let mut waiting: Vec<_> = root.document().map(|document| (document, 0)).into_iter().collect();
        while let Some((document, depth)) = waiting.pop() {
            let Document::Index(index) = document else { continue };
            for entry in wanted(index.manifests().iter(), platforms) {
                if entry.media_type.is_blob() || !below.parts.insert(entry.digest) {
                    continue;
                }
                // BuildKit's attestations too: they are signed like images.
                below.subjects.push(entry.digest);
                if !entry.media_type.is_manifest() && depth < DEEPEST {
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

/// Of what a document points to, what is for one of these platforms, or for none in particular; everything if none is named.
/// Of several variants the [best](Platform::rank) is meant.
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

/// What is directly about a digest: what is listed, then what cosign keeps. Both are asked for at once.
async fn about(
    source: &Arc<dyn Source>,
    subject: Digest,
    which: &Referrers,
    held: &Held,
) -> Result<Vec<(Root, Naming)>> {
    let endings: &[&str] = if which.takes_tags() { &ENDINGS } else { &[] };
    let tagged = stream::iter(endings).map(|ending| tagged(source, subject, ending)).buffered(ENDINGS.len()).boxed();
    let (mut found, tagged): (_, Vec<_>) = try_join(listed(source, subject, which, held), tagged.try_collect()).await?;
    found.extend(tagged.into_iter().flatten().filter(|(root, _)| which.may_have(&root.digest())));
    Ok(found)
}

async fn listed(
    source: &Arc<dyn Source>,
    subject: Digest,
    which: &Referrers,
    held: &Held,
) -> Result<Vec<(Root, Naming)>> {
    let listed = source.referrers(&subject).await.map_err(|error| Error::referrers(&subject, source, error))?;
    open_listed(source, listed, &subject, which, held).await
}

/// Opens referrers that are listed, except those that do not exist.
async fn open_listed(
    source: &Arc<dyn Source>,
    listed: Vec<Descriptor>,
    subject: &Digest,
    which: &Referrers,
    held: &Held,
) -> Result<Vec<(Root, Naming)>> {
    let opened = stream::iter(listed.into_iter().filter(|listed| which.may_have(&listed.digest)))
        .map(|listed| async move {
            held.add(&listed, subject, source)?;
            match Root::at(source.clone(), listed).await {
                Ok(root) => Ok(Some(root).filter(|root| is_of(root, which))),
                // A list may name what is gone.
                Err(error) if error.is_not_found() => Ok(None),
                Err(error) => Err(error),
            }
        })
        .buffered(AT_ONCE)
        .boxed();
    let opened: Vec<_> = opened.try_collect().await?;
    Ok(opened.into_iter().flatten().map(|root| (root, Naming::default())).collect())
}

/// What cosign keeps under a tag of its own.
async fn tagged(source: &Arc<dyn Source>, subject: Digest, ending: &str) -> Result<Option<(Root, Naming)>> {
    let tag = format!("{}-{}.{ending}", subject.algorithm().name(), subject.hex());
    // The name of a sha512 digest is longer than a tag may be.
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
