//! Publishes an image under all tags in all repositories as one transaction.
//!
//! 1. The tags of each repository decide which moving tags would go back.
//! 2. Everything is uploaded to every repository and read back. If one repository fails, no tag changes in any.
//! 3. The image is signed and attested in every repository, by digest.
//! 4. The tags of each repository decide again. The tags are put, versions before moving tags, and each is read back. A moving
//!    tag goes to a newer version that was published at the same time. A statement about the publication follows, if it is asked for.
//!
//! A rerun skips what exists, and does nothing if all of it does.

mod error;
mod lazy;
mod result;
mod signer;
mod tagging;
mod time;

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt, join_all};
use ocikit::image::{Staged, Target, plan_to_each, stage_to_each};
use ocikit::{Descriptor, Digest, Error, Naming, Planned, Put, Root, Session, Sink, Tag};
use serde_json::{Value, json};

pub use error::PublishError;
pub use lazy::{LazyFailure, LazyPublishError, PublishedLazy, publish_lazy};
pub use result::{Published, PublishedTag, PublishedTarget, TagState, Times, Transfer};
pub use signer::{ImageSigner, PUBLISHED_PREDICATE_TYPE};

pub(crate) use tagging::existing;

use crate::plan::{Destination, Plan, Signing};
use crate::tags::{PlannedTag, TagSet};
use signer::Stored;
use tagging::{Beside, Tagging};
use time::Stopwatch;

/// A destination, and what is done there.
struct Prepared {
    destination: Destination,
    sink: Arc<dyn Sink>,
    tags: TagSet,
    /// For a lazily pulled image: the tags that its own belong beside.
    beside: Option<Beside>,
}

impl Prepared {
    /// Returns whether newer versions decide about tags.
    fn is_bound_to_versions(&self, plan: &Plan) -> bool {
        !plan.allow_back && self.tags.tags.iter().any(|planned| planned.follows.is_some())
    }

    fn target(&self) -> Target {
        let naming = |planned: &PlannedTag| Naming::of_tag(planned.tag.clone());
        Target { sink: self.sink.clone(), names: self.tags.tags.iter().map(naming).collect() }
    }
}

/// A tag that is not replaced if another process published it meanwhile.
#[derive(Debug)]
pub(crate) struct GuardedTag {
    pub(crate) tag: Tag,
    /// What it pointed to when the publication was decided.
    pub(crate) before: Option<Digest>,
}

impl GuardedTag {
    /// Fails if the tag points to an image that is neither the new one nor the one before.
    async fn check(&self, prepared: &Prepared, root: &Root) -> Result<(), PublishError> {
        let repository = &prepared.destination.push;
        let found = prepared.sink.tagged(&self.tag).await;
        let found =
            found.map_err(|error| PublishError::Store { failures: vec![(repository.clone(), error)], of: 1 })?;
        match found.map(|found| found.digest) {
            Some(digest) if digest != root.digest() && Some(digest) != self.before => {
                Err(PublishError::Taken { repository: Box::new(repository.clone()), tag: self.tag.clone(), digest })
            }
            _ => Ok(()),
        }
    }
}

/// Publishes a root as [`publish`] does, unless another process published a tag meanwhile. That is checked right before the
/// tags are put, because uploads and signatures take long.
///
/// # Errors
///
/// [`PublishError::Taken`] in that case, and those of [`publish`].
pub(crate) async fn publish_guarded(
    session: &Session,
    root: &Root,
    plan: &Plan,
    signer: Option<&ImageSigner>,
    guarded: &GuardedTag,
) -> Result<Published, PublishError> {
    Publication { session, root, plan, signer }.run(Some(guarded)).await
}

/// Publishes a root as planned.
///
/// # Errors
///
/// [`PublishError`] if no tag was changed. A tag that fails after that is in the result.
pub async fn publish(
    session: &Session,
    root: &Root,
    plan: &Plan,
    signer: Option<&ImageSigner>,
) -> Result<Published, PublishError> {
    Publication { session, root, plan, signer }.run(None).await
}

/// What is published, and how.
#[derive(Clone, Copy)]
struct Publication<'a> {
    session: &'a Session,
    root: &'a Root,
    plan: &'a Plan,
    signer: Option<&'a ImageSigner>,
}

impl Publication<'_> {
    /// Publishes to the destinations of the plan, after checking that there is a signer if the plan needs one.
    async fn run(self, guarded: Option<&GuardedTag>) -> Result<Published, PublishError> {
        let signs = self.plan.signing == Signing::Wanted;
        if self.signer.is_none() && (signs || self.plan.attest.any()) {
            return Err(PublishError::NoSigner);
        }
        self.transact(prepare(self.session, self.plan).await?, guarded).await
    }

    /// Uploads the root to every destination, then signs it, and then puts the tags.
    async fn transact(self, prepared: Vec<Prepared>, guarded: Option<&GuardedTag>) -> Result<Published, PublishError> {
        let Publication { session, root, plan, .. } = self;
        let mut options = session.copy_options(Vec::new());
        let stopwatch = Stopwatch::start(session.client().clock().clone(), options.observer.take());
        options.observer = Some(stopwatch.clone());
        let targets: Vec<_> = prepared.iter().map(Prepared::target).collect();
        let staged = stage_to_each(root, &targets, &options).boxed().await;
        let staged = all(destinations(&prepared), staged)?;
        let mut marks = Vec::new();
        for prepared in &prepared {
            marks.push(self.mark(prepared).boxed().await?);
        }
        let prepared = decide_again(session, plan, prepared).await?;
        if let Some(guarded) = guarded {
            for prepared in &prepared {
                guarded.check(prepared, root).await?;
            }
        }
        let finished = prepared.into_iter().zip(staged).zip(marks);
        let finished =
            finished.map(|((prepared, staged), marks)| self.finish(prepared, staged, marks, &stopwatch).boxed());
        Ok(Published { root: root.descriptor().clone(), targets: join_all(finished).await })
    }

    /// Signs and attests the image in a repository, by its digest: no tag leads to it yet.
    async fn mark(self, prepared: &Prepared) -> Result<Marks, PublishError> {
        let Publication { session, root, plan, signer } = self;
        let mut marks = Marks::default();
        let Some(signer) = signer else { return Ok(marks) };
        let Prepared { destination, sink, .. } = prepared;
        let stored = Stored { session, root, destination, sink };
        let repository = || Box::new(destination.push.clone());
        if plan.signing == Signing::Wanted {
            let made = stored.sign(signer).await;
            let failed = |source| PublishError::Sign { repository: repository(), source: Box::new(source) };
            marks.signatures = Some(made.map_err(failed)?);
        }
        if plan.attest.build {
            let made = stored.attest_build(signer, plan).await;
            let failed = |source| PublishError::Attest { repository: repository(), source: Box::new(source) };
            marks.attestations = made.map_err(failed)?;
        }
        Ok(marks)
    }

    /// Puts the tags of a destination, reads them back, and states what was published if that is asked for.
    async fn finish(self, prepared: Prepared, staged: Staged, marks: Marks, stopwatch: &Stopwatch) -> PublishedTarget {
        let Publication { session, root, plan, signer } = self;
        let Prepared { destination, sink, tags, beside } = prepared;
        let count = |put| staged.copied().count(put);
        let transfer =
            Transfer { uploaded: count(Put::Copied), mounted: count(Put::Mounted), skipped: count(Put::Present) };
        let stored = stopwatch.stored(&sink.to_string()).unwrap_or_default();
        let Marks { signatures, mut attestations } = marks;
        let tagging = Tagging { session, root, plan, repository: &destination.push, sink: &sink };
        let (put, skipped) = tagging.put(tags, beside, staged).await;
        let mut statement_failed = None;
        if let (true, Some(signer)) = (plan.attest.published, signer) {
            let predicate = predicate(plan, &destination, root, &put);
            let stored = Stored { session, root, destination: &destination, sink: &sink };
            match stored.attest_published(signer, predicate).await {
                Ok(made) => attestations.extend(made),
                Err(error) => statement_failed = Some(error),
            }
        }
        PublishedTarget {
            destination,
            tags: put,
            skipped,
            transfer,
            times: Times { stored, finished: stopwatch.elapsed() },
            signed: signatures.is_some(),
            signatures: signatures.unwrap_or_default(),
            attestations,
            statement_failed,
        }
    }
}

/// The signatures and attestations that were made in a repository.
#[derive(Debug, Default)]
struct Marks {
    /// `None` if the image is not signed.
    signatures: Option<Vec<Digest>>,
    attestations: Vec<Digest>,
}

/// Returns what [`publish`] would transfer to each destination, and its tags.
///
/// # Errors
///
/// Those of reading the source and the destinations.
pub async fn dry_run(session: &Session, root: &Root, plan: &Plan) -> Result<Vec<(Planned, TagSet)>, PublishError> {
    let prepared = prepare(session, plan).await?;
    let sinks: Vec<_> = prepared.iter().map(|prepared| prepared.sink.clone()).collect();
    let planned = plan_to_each(root, &sinks, &session.copy_options(Vec::new())).boxed().await;
    let planned = all(destinations(&prepared), planned)?;
    Ok(planned.into_iter().zip(prepared).map(|(planned, prepared)| (planned, prepared.tags)).collect())
}

/// Opens the destinations and decides which moving tags stay.
async fn prepare(session: &Session, plan: &Plan) -> Result<Vec<Prepared>, PublishError> {
    session.expect_transfer();
    let one = |destination: &Destination| prepare_one(session, destination.clone(), plan);
    let prepared = join_all(plan.destinations.iter().map(one)).await;
    not_empty(all(plan.destinations.iter(), prepared)?)
}

/// Decides again which moving tags stay: another version may have been published during the upload.
async fn decide_again(
    session: &Session,
    plan: &Plan,
    mut prepared: Vec<Prepared>,
) -> Result<Vec<Prepared>, PublishError> {
    let lists = prepared.iter().map(|prepared| async move {
        match prepared.is_bound_to_versions(plan) {
            true => existing(session, &prepared.destination.push).await,
            false => Ok(Vec::new()),
        }
    });
    let lists = join_all(lists).boxed().await;
    let lists = all(destinations(&prepared), lists)?;
    for (prepared, list) in prepared.iter_mut().zip(lists) {
        if prepared.is_bound_to_versions(plan) {
            prepared.tags = std::mem::take(&mut prepared.tags).never_back(&list);
        }
    }
    not_empty(prepared)
}

/// Returns the destinations if each has a tag.
fn not_empty(prepared: Vec<Prepared>) -> Result<Vec<Prepared>, PublishError> {
    match prepared.iter().find(|prepared| prepared.tags.tags.is_empty()) {
        Some(empty) => Err(PublishError::AllOlder { repository: Box::new(empty.destination.push.clone()) }),
        None => Ok(prepared),
    }
}

fn prepare_one<'a>(
    session: &'a Session,
    destination: Destination,
    plan: &'a Plan,
) -> BoxFuture<'a, Result<Prepared, Error>> {
    async move {
        let sink: Arc<dyn Sink> = Arc::new(session.client().repository(destination.push.clone())?);
        let mut prepared = Prepared { destination, sink, tags: plan.tags.clone(), beside: None };
        if prepared.is_bound_to_versions(plan) {
            prepared.tags = prepared.tags.never_back(&existing(session, &prepared.destination.push).await?);
        }
        Ok(prepared)
    }
    .boxed()
}

fn destinations(prepared: &[Prepared]) -> impl ExactSizeIterator<Item = &Destination> {
    prepared.iter().map(|prepared| &prepared.destination)
}

/// Returns all values, or the failures with their repositories.
fn all<'a, T>(
    destinations: impl ExactSizeIterator<Item = &'a Destination>,
    results: impl IntoIterator<Item = Result<T, Error>>,
) -> Result<Vec<T>, PublishError> {
    let (of, mut values, mut failures) = (destinations.len(), Vec::new(), Vec::new());
    for (destination, result) in destinations.zip(results) {
        match result {
            Ok(value) => values.push(value),
            Err(error) => failures.push((destination.push.clone(), error)),
        }
    }
    if failures.is_empty() { Ok(values) } else { Err(PublishError::Store { failures, of }) }
}

/// Returns what a statement says about a publication: where, under which tags, and from which commit. It names no other
/// repository.
fn predicate(plan: &Plan, destination: &Destination, root: &Root, tags: &[PublishedTag]) -> Value {
    let verified = tags.iter().filter(|tag| matches!(tag.state, TagState::Verified));
    let tags: Vec<_> = verified.map(|tag| tag.planned.tag.to_string()).collect();
    let Descriptor { media_type, size, .. } = root.descriptor();
    json!({
        "repository": destination.read.to_string(),
        "tags": tags,
        "mediaType": media_type,
        "size": size,
        "event": plan.event,
        "source": plan.source,
    })
}
