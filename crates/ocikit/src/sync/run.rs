use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, stream};
use ocikit_image::{
    Copied, CopyOptions, Error, Name, Naming, ReferrerTag, Referrers, Result, Root, Sink, Source, copy, copy_all, plan,
    select_platforms, tagged_referrers,
};
use ocikit_registry::RemoteRepository;
use ocikit_spec::{Digest, Reference, Repository, Tag};

use super::config::{Config, Rule};
use crate::Session;

/// Options of [`sync`].
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct SyncOptions {
    /// Whether to report what would be copied, without copying.
    pub dry_run: bool,
    /// Whether to continue after an image failed.
    pub keep_going: bool,
}

ocikit_spec::setters! {
    SyncOptions {
        dry_run: bool,
        keep_going: bool,
    }
}

/// Why a sync is incomplete.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// Two images have the same target. Nothing was copied.
    #[error("cannot mirror to {target}: {first} and {second} both map to it")]
    Conflict {
        /// The target.
        target: String,
        /// The first image.
        first: String,
        /// The second image.
        second: String,
    },
    /// Some images failed; each was reported.
    #[error("cannot mirror {failed} of {} images", .failed + .done)]
    Incomplete {
        /// The number of images that are mirrored.
        done: usize,
        /// The number of images that failed.
        failed: usize,
    },
}

/// An image that a rule selects.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Item {
    /// The source reference.
    pub from: String,
    /// The target reference.
    pub to: String,
}

/// The outcome for an image.
#[derive(Debug, Clone)]
pub enum Done {
    /// The target already had the image and its referrers.
    Same(Digest),
    /// The image was copied.
    Copied(Box<Copied>),
    /// The image would be copied: its digest, and the number of bytes that the target lacks.
    Planned(Digest, u64),
}

impl Done {
    fn of(copied: Copied) -> Done {
        match copied.blobs.is_empty() && copied.kept.is_empty() {
            true => Done::Same(copied.root.digest),
            false => Done::Copied(Box::new(copied)),
        }
    }
}

/// Decides which images are mirrored, for example by their signatures. A rejection is its own kind of error.
#[async_trait]
pub trait Gate<E>: Send + Sync {
    /// Accepts or rejects an image. The root includes all platforms, even those that are not mirrored, and the check
    /// also runs for an image that the target already has. This root is then copied, even if the tag moves meanwhile.
    ///
    /// Returns the part of `which`, the referrers that the configuration selects, that may be copied too.
    async fn check(&self, from: &Reference, root: &Root, which: &Referrers) -> Result<Referrers, E>;
}

/// Mirrors the images of a configuration that the gate accepts, if there is one. Each image is reported when it is
/// finished, and a rule whose tags cannot be listed is reported like an image.
///
/// Without [`SyncOptions::keep_going`], the sync stops after the first failure, which is reported like the others.
/// Nothing is ever removed at the target. Signatures and lists of referrers under tags are merged with those of the
/// target. With a gate they are copied only together with their subject.
///
/// Returns the number of images that are mirrored.
///
/// # Errors
///
/// [`SyncError::Conflict`] before anything is copied; [`SyncError::Incomplete`] if any image failed.
pub async fn sync<E: From<Error> + Send>(
    session: &Session,
    config: &Config,
    options: SyncOptions,
    gate: Option<&dyn Gate<E>>,
    tell: &mut (dyn FnMut(&Item, Result<Done, E>) + Send),
) -> Result<usize, SyncError> {
    let begin = config.per_minute.map(|most| Duration::from_secs(60) / most.max(1));
    let mut first = true;
    let mut expanded = Vec::new();
    for rule in &config.rules {
        expanded.push((rule, expand(session, rule, gate.is_some()).await));
    }
    refuse_conflicts(&expanded)?;
    let (mut done, mut failed) = (0, 0);
    for (rule, found) in expanded {
        let (names, from) = match found {
            Ok(found) => found,
            Err(error) => {
                failed += 1;
                tell(&Item { from: rule.from.to_string(), to: rule.to.to_string() }, Err(error.into()));
                if options.keep_going {
                    continue;
                }
                return Err(SyncError::Incomplete { done, failed });
            }
        };
        let paced = stream::iter(names).then(|name| {
            let pause = begin.filter(|_| !std::mem::take(&mut first)).unwrap_or_default();
            async move {
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
                name
            }
        });
        let copies = paced.map(|name| {
            let (from, dry_run) = (from.clone(), options.dry_run);
            async move {
                let item =
                    Item { from: reference(&rule.from, &name).to_string(), to: reference(&rule.to, &name).to_string() };
                let copy = async {
                    let to = session.client().repository(rule.to.clone())?;
                    if let Some(kind) = referrer_tag(&name) {
                        return Ok(said(session, rule, &name, kind, from, Arc::new(to), dry_run).await?);
                    }
                    let (root, referrers) = open(rule, &name, from, gate).await?;
                    let options = session.copy_options(Vec::new()).referrers(referrers);
                    Ok(one(&name, root, to, options, dry_run).await?)
                };
                (item, copy.await)
            }
        });
        let mut copies = copies.buffer_unordered(config.jobs).boxed();
        while let Some((item, outcome)) = copies.next().await {
            let is_failure = outcome.is_err();
            *if is_failure { &mut failed } else { &mut done } += 1;
            tell(&item, outcome);
            if is_failure && !options.keep_going {
                return Err(SyncError::Incomplete { done, failed });
            }
        }
    }
    if failed == 0 { Ok(done) } else { Err(SyncError::Incomplete { done, failed }) }
}

type Expanded = Result<(Vec<Name>, RemoteRepository)>;

/// Rejects two images with the same target tag. Several rules may select the same image for the same platforms.
fn refuse_conflicts(expanded: &[(&Rule, Expanded)]) -> Result<(), SyncError> {
    let mut targets = HashMap::new();
    for (rule, found) in expanded {
        let Ok((names, _)) = found else { continue };
        for name in names.iter().filter(|name| tag_of(name).is_some() && referrer_tag(name).is_none()) {
            let (from, to) = (reference(&rule.from, name).to_string(), reference(&rule.to, name).to_string());
            let (first, platforms) = targets.entry(to.clone()).or_insert((from.clone(), &rule.platforms));
            if *first != from || **platforms != rule.platforms {
                return Err(SyncError::Conflict { target: to, first: first.clone(), second: from });
            }
        }
    }
    Ok(())
}

fn referrer_tag(name: &Name) -> Option<ReferrerTag> {
    match name {
        Name::Tag(tag) => ReferrerTag::of(tag),
        _ => None,
    }
}

/// Copies the referrers under a referrer tag.
async fn said(
    session: &Session,
    rule: &Rule,
    name: &Name,
    kind: ReferrerTag,
    from: RemoteRepository,
    to: Arc<dyn Sink>,
    dry_run: bool,
) -> Result<Done> {
    let root = from.resolve(name).await?;
    let from: Arc<dyn Source> = Arc::new(from);
    let tag = tag_of(name).unwrap_or_else(Tag::latest);
    let found = tagged_referrers(&from, &tag, kind, &rule.referrers).await?;
    let options = session.copy_options(Vec::new()).referrers(Referrers::None);
    if dry_run {
        let mut missing = 0_u64;
        for (root, _) in &found {
            missing = missing.saturating_add(plan(root, &to, &options).await?.missing_bytes());
        }
        return Ok(if missing == 0 { Done::Same(root.digest) } else { Done::Planned(root.digest, missing) });
    }
    let roots: Vec<_> = found.into_iter().map(|(root, naming)| (root, vec![naming])).collect();
    let copied = copy_all(&roots, &to, &options).await?;
    let mut all = Copied::nothing(root);
    for Copied { blobs, kept, .. } in copied {
        all.blobs.extend(blobs);
        all.kept.extend(kept);
    }
    Ok(Done::of(all))
}

/// Returns the images that a rule selects. Referrer tags in a list of tags are skipped if their referrers would not be
/// copied, or if a gate decides about the images.
async fn expand(session: &Session, rule: &Rule, has_gate: bool) -> Expanded {
    let from = session.client().repository(rule.from.clone())?;
    // A target that must not be written to fails before any image is read.
    session.client().repository(rule.to.clone())?;
    let tags = if rule.select.needs_list() { from.tags().await? } else { Vec::new() };
    let wanted = |tag: &Tag| match ReferrerTag::of(tag) {
        None => true,
        Some(_) if has_gate => false,
        Some(ReferrerTag::List) => rule.referrers != Referrers::None,
        Some(_) => rule.referrers == Referrers::All,
    };
    let tags: Vec<_> = tags.into_iter().filter(wanted).collect();
    Ok((rule.select.choose(&tags), from))
}

/// Opens an image, if the gate accepts it, with the referrers to copy. From here on it is identified by its digest.
async fn open<E: From<Error>>(
    rule: &Rule,
    name: &Name,
    from: RemoteRepository,
    gate: Option<&dyn Gate<E>>,
) -> Result<(Root, Referrers), E> {
    let root = Root::open(Arc::new(from) as Arc<dyn Source>, name).await?;
    let referrers = match gate {
        Some(gate) => gate.check(&reference(&rule.from, name), &root, &rule.referrers).await?,
        None => rule.referrers.clone(),
    };
    Ok((select_platforms(&root, &rule.platforms).await?, referrers))
}

async fn one(name: &Name, root: Root, to: RemoteRepository, options: CopyOptions, dry_run: bool) -> Result<Done> {
    let options = options.names(vec![Naming::default().tag(tag_of(name))]);
    let there = match name {
        _ if !dry_run => None,
        Name::Digest(_) => to.head(&Name::Digest(root.digest())).await?,
        name => to.head(name).await?,
    };
    let to: Arc<dyn Sink> = Arc::new(to);
    if dry_run {
        let missing = plan(&root, &to, &options).await?.missing_bytes();
        let is_same = missing == 0 && there.is_some_and(|there| there.digest == root.digest());
        return Ok(if is_same { Done::Same(root.digest()) } else { Done::Planned(root.digest(), missing) });
    }
    Ok(Done::of(copy(&root, &to, &options).await?))
}

fn tag_of(name: &Name) -> Option<Tag> {
    match name {
        Name::Tag(tag) => Some(tag.clone()),
        _ => None,
    }
}

fn reference(repository: &Repository, name: &Name) -> Reference {
    match name {
        Name::Digest(digest) => Reference::digested(repository.clone(), *digest),
        name => Reference::tagged(repository.clone(), tag_of(name).unwrap_or_else(Tag::latest)),
    }
}
