//! Publishes lazily pulled images beside an image that is published. A tag of them appears only when the whole image is in
//! every repository; a failure changes nothing.

use std::sync::Arc;

use futures::FutureExt;
use ocikit::spec::with_causes;
use ocikit::{Digest, Location, Reference, Repository, Root, Session, Sink};
use ocikit_lazy::{Format, Warning};

use super::tagging::Beside;
use super::{ImageSigner, Prepared, Publication, PublishError, Published, TagState};
use crate::lazy::{LazyError, LazyImage, LazyPlacement, LazyRequest};
use crate::plan::Plan;
use crate::tags::{PlannedTag, TagSet};

/// A lazily pulled image that was published, or why not.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct PublishedLazy {
    /// The name of the format.
    pub format: &'static str,
    /// The references that it has, or should have: with tags, or for referrers with the digest of the image.
    pub wanted: Vec<Reference>,
    /// The digests of the image, or of the referrers of each platform; empty if there are none.
    pub digests: Vec<Digest>,
    /// What was published at its tags; `None` for referrers, and if nothing was.
    pub published: Option<Published>,
    /// Whether it has signatures of the signer.
    pub signed: bool,
    /// What the format cannot express, and was left as it is.
    pub warnings: Vec<Warning>,
    /// Why it is missing.
    pub problem: Option<LazyPublishError>,
}

/// Why a lazily pulled image is missing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LazyPublishError {
    /// It could not be made.
    #[error(transparent)]
    Lazy(#[from] LazyError),
    /// Some repositories do not have it; its tags were put in none.
    #[error("{}", not_stored(.failures, *.of))]
    Store {
        /// The repositories and their errors.
        failures: Vec<(Repository, ocikit::Error)>,
        /// The number of repositories.
        of: usize,
    },
    /// It could not be published; no tag of it was put.
    #[error(transparent)]
    Publish(PublishError),
    /// It could not be stored as a referrer.
    #[error("cannot store it as a referrer of the image")]
    Referrer(#[source] Box<ocikit::Error>),
    /// A tag could not be put, or was moved.
    #[error("the tag {reference} does not point to it: {problem}")]
    Tag {
        /// The tag.
        reference: Box<Reference>,
        /// The problem.
        problem: String,
    },
}

impl From<PublishError> for LazyPublishError {
    fn from(error: PublishError) -> LazyPublishError {
        match error {
            PublishError::Store { failures, of } => LazyPublishError::Store { failures, of },
            error => LazyPublishError::Publish(error),
        }
    }
}

/// References that do not point to a lazily pulled image, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LazyFailure {
    /// The references.
    pub references: Vec<Reference>,
    /// The problem, with its causes.
    pub problem: String,
}

impl PublishedLazy {
    /// Returns what failed. References that are missing only because another repository failed are not in it, but in
    /// [`PublishedLazy::missing`].
    pub fn failures(&self) -> Vec<LazyFailure> {
        match (&self.problem, &self.published) {
            (None, _) => Vec::new(),
            (Some(LazyPublishError::Store { failures, .. }), _) => failures
                .iter()
                .map(|(repository, error)| {
                    let here = self.wanted.iter().filter(|wanted| wanted.repository() == repository);
                    LazyFailure { references: here.cloned().collect(), problem: with_causes(error) }
                })
                .collect(),
            (Some(_), Some(published)) => published
                .failed()
                .map(|(repository, tag)| {
                    let reference = Reference::tagged(repository.clone(), tag.planned.tag.clone());
                    LazyFailure { references: vec![reference], problem: tag.state.problem().unwrap_or_default() }
                })
                .collect(),
            (Some(problem), None) => {
                vec![LazyFailure { references: self.missing(), problem: with_causes(problem) }]
            }
        }
    }

    /// Returns the references that point to it.
    pub fn references(&self) -> Vec<Reference> {
        match &self.published {
            Some(published) => tagged(published),
            None if self.problem.is_none() => self.wanted.clone(),
            None => Vec::new(),
        }
    }

    /// Returns the references that should point to it and do not.
    pub fn missing(&self) -> Vec<Reference> {
        let found = self.references();
        self.wanted.iter().filter(|wanted| !found.contains(wanted)).cloned().collect()
    }
}

/// Returns the tags that point to what was published.
fn tagged(published: &Published) -> Vec<Reference> {
    let targets = published.targets.iter().flat_map(|target| target.tags.iter().map(move |tag| (target, tag)));
    let verified = targets.filter(|(_, tag)| matches!(tag.state, TagState::Verified));
    verified.map(|(target, tag)| Reference::tagged(target.destination.push.clone(), tag.planned.tag.clone())).collect()
}

/// Publishes lazily pulled images of a root that was published, at the same places and with the same signer: at the tags
/// with the suffix of the request, for the tags that point to the root; or as its referrers. Attestations of the build
/// are those of the plain image and are not made again.
///
/// A format that fails does not stop the others. For [`LazyPlacement::Index`] nothing is done: the images are part of the
/// root, see [`LazyRequest::convert`].
pub async fn publish_lazy(
    session: &Session,
    root: &Root,
    plan: &Plan,
    published: &Published,
    request: &LazyRequest,
    signer: Option<&ImageSigner>,
) -> Vec<PublishedLazy> {
    let mut plan = plan.clone();
    plan.attest.build = false;
    let mut all = Vec::new();
    for format in &request.formats {
        let job = Job { session, root, plan: &plan, published, request, format, signer };
        match request.placement {
            LazyPlacement::Tag => all.push(job.tags().boxed().await),
            LazyPlacement::Referrer => all.push(job.referrers().boxed().await),
            LazyPlacement::Index => {}
        }
    }
    all
}

/// One format of a published image.
struct Job<'a> {
    session: &'a Session,
    root: &'a Root,
    plan: &'a Plan,
    published: &'a Published,
    request: &'a LazyRequest,
    format: &'a Format,
    signer: Option<&'a ImageSigner>,
}

impl Job<'_> {
    async fn tags(&self) -> PublishedLazy {
        let mut outcome = PublishedLazy { format: self.format.name(), ..PublishedLazy::default() };
        match self.publish_tags(&mut outcome).await {
            Ok(published) => {
                outcome.digests = vec![published.root.digest];
                outcome.signed = published.is_signed() && self.signer.is_some();
                outcome.problem = failed_tag(&published);
                outcome.published = Some(published);
            }
            Err(problem) => outcome.problem = Some(problem),
        }
        outcome
    }

    async fn publish_tags(&self, outcome: &mut PublishedLazy) -> Result<Published, LazyPublishError> {
        let mut prepared = Vec::new();
        for target in &self.published.targets {
            let plain: Vec<_> = target.tags.iter().map(|tag| tag.planned.tag.clone()).collect();
            self.request.check_tags(&plain)?;
            let mut tags = TagSet::default();
            let mut beside = Beside { image: self.published.root.digest, tags: Vec::new() };
            for tag in target.tags.iter().filter(|tag| matches!(tag.state, TagState::Verified)) {
                let plain = tag.planned.tag.clone();
                let name = format!("{}{}", tag.planned.name, self.request.suffix.of(self.format));
                let tag = PlannedTag {
                    tag: self.request.tag(self.format, &tag.planned.tag)?,
                    name,
                    validation: None,
                    because: tag.planned.because,
                    // The tag of the image was not moved back, or it may be.
                    follows: None,
                };
                outcome.wanted.push(Reference::tagged(target.destination.push.clone(), tag.tag.clone()));
                beside.tags.push((tag.tag.clone(), plain));
                tags.tags.push(tag);
            }
            if !tags.tags.is_empty() {
                let destination = target.destination.clone();
                let sink = self.sink(&destination.push)?;
                prepared.push(Prepared { destination, sink, tags, beside: Some(beside) });
            }
        }
        let LazyImage { root, warnings, .. } = self.request.convert(self.root, self.format).await?;
        outcome.warnings = warnings;
        Ok(self.publication(&root).transact(prepared, None).await?)
    }

    async fn referrers(&self) -> PublishedLazy {
        let mut outcome = PublishedLazy { format: self.format.name(), ..PublishedLazy::default() };
        let image = self.published.root.digest;
        let pushes = self.published.targets.iter().map(|target| &target.destination.push);
        outcome.wanted = pushes.map(|push| Reference::digested(push.clone(), image)).collect();
        if let Err(problem) = self.store_referrers(&mut outcome).await {
            outcome.problem = Some(problem);
        }
        outcome
    }

    async fn store_referrers(&self, outcome: &mut PublishedLazy) -> Result<(), LazyPublishError> {
        let LazyImage { referrers, warnings, .. } = self.request.convert(self.root, self.format).await?;
        outcome.warnings = warnings;
        for target in &self.published.targets {
            let destination = target.destination.clone();
            let place = Reference::digested(destination.push.clone(), self.published.root.digest);
            let stored = self.session.store_referrers(&Location::Registry(place), &referrers).await;
            stored.map_err(|error| LazyPublishError::Referrer(Box::new(error)))?;
            let sink = self.sink(&destination.push)?;
            let prepared = Prepared { destination, sink, tags: TagSet::default(), beside: None };
            for referrer in &referrers {
                let marks = self.publication(referrer).mark(&prepared).boxed().await?;
                outcome.signed = marks.signatures.is_some();
            }
        }
        outcome.digests = referrers.iter().map(Root::digest).collect();
        Ok(())
    }

    fn publication<'b>(&'b self, root: &'b Root) -> Publication<'b> {
        Publication { session: self.session, root, plan: self.plan, signer: self.signer }
    }

    fn sink(&self, repository: &Repository) -> Result<Arc<dyn Sink>, LazyPublishError> {
        match self.session.client().repository(repository.clone()) {
            Ok(found) => Ok(Arc::new(found)),
            Err(error) => Err(LazyPublishError::Store { failures: vec![(repository.clone(), error)], of: 1 }),
        }
    }
}

/// Returns the problem of the first tag that does not point to the image.
fn failed_tag(published: &Published) -> Option<LazyPublishError> {
    let (repository, tag) = published.failed().next()?;
    let problem = tag.state.problem()?;
    let reference = Box::new(Reference::tagged(repository.clone(), tag.planned.tag.clone()));
    Some(LazyPublishError::Tag { reference, problem })
}

/// Returns the causes with their repositories.
fn not_stored(failures: &[(Repository, ocikit::Error)], of: usize) -> String {
    let causes: Vec<_> = failures.iter().map(|(at, error)| format!("{at}: {}", with_causes(error))).collect();
    match of {
        1 => format!("cannot store it: {}", causes.join("; ")),
        _ => format!(
            "cannot store it in {} of {of} repositories, so its tags were put in none: {}",
            causes.len(),
            causes.join("; ")
        ),
    }
}
