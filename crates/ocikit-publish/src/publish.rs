//! Publishes an image under all tags in all repositories as one transaction.
//!
//! 1. The tags of each repository decide which moving tags would go back.
//! 2. Everything is uploaded to every repository and read back. If one repository fails, no tag changes in any.
//! 3. The image is signed in every repository, by digest.
//! 4. The tags are put, and each is read back.
//!
//! A rerun skips what exists, and does nothing if all of it does.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt, join_all};
use ocikit::image::{Staged, Target, plan_to_each, stage_to_each};
use ocikit::{Descriptor, Digest, Error, Naming, Planned, Put, Repository, Root, Session, Sink, Tag};
use ocikit_sign::{Format, SignOptions, Signer, Trust, VerifyOptions};

use crate::plan::{Destination, Plan, Signing};
use crate::tags::{PlannedTag, SkippedTag, TagSet};

/// Who signs, and how.
#[derive(Clone)]
#[non_exhaustive]
pub struct ImageSigner {
    /// The signer.
    pub signer: Arc<dyn Signer>,
    /// The options; the reference is replaced by the repository of each destination.
    pub options: SignOptions,
}

impl ImageSigner {
    /// Creates a signer.
    pub fn new(signer: Arc<dyn Signer>, options: SignOptions) -> ImageSigner {
        ImageSigner { signer, options }
    }
}

impl fmt::Debug for ImageSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImageSigner").field("formats", &self.options.formats).finish_non_exhaustive()
    }
}

/// The result of [`publish`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Published {
    /// The descriptor of the image: the same everywhere.
    pub root: Descriptor,
    /// The destinations, in the order of the plan.
    pub targets: Vec<PublishedTarget>,
}

/// The result for one destination.
#[derive(Debug)]
#[non_exhaustive]
pub struct PublishedTarget {
    /// The destination.
    pub destination: Destination,
    /// The tags that point to the image, or should.
    pub tags: Vec<PublishedTag>,
    /// The tags that were not used, and why.
    pub skipped: Vec<SkippedTag>,
    /// What was transferred.
    pub transfer: Transfer,
    /// The signatures that were made, by the digest of their manifests.
    pub signatures: Vec<Digest>,
    /// Whether the image has a signature of the signer now.
    pub signed: bool,
}

/// The numbers of blobs and documents, and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Transfer {
    /// Those that were uploaded.
    pub uploaded: (usize, u64),
    /// Those that were mounted from another repository.
    pub mounted: (usize, u64),
    /// Those that existed.
    pub skipped: (usize, u64),
}

/// A tag after publishing.
#[derive(Debug)]
#[non_exhaustive]
pub struct PublishedTag {
    /// The tag as it was planned.
    pub planned: PlannedTag,
    /// What was found.
    pub state: TagState,
}

/// The state of a tag after publishing.
#[derive(Debug)]
#[non_exhaustive]
pub enum TagState {
    /// It was read back and points to the image.
    Verified,
    /// It could not be put or read back.
    Failed(Error),
    /// It points to something else, or to nothing: another client moved it.
    Moved(Option<Digest>),
}

impl Published {
    /// Returns the tags that do not point to the image, with their repositories.
    pub fn failed(&self) -> impl Iterator<Item = (&Repository, &PublishedTag)> {
        let tags = self.targets.iter().flat_map(|target| target.tags.iter().map(|tag| (&target.destination.push, tag)));
        tags.filter(|(_, tag)| !matches!(tag.state, TagState::Verified))
    }

    /// Returns whether every repository has a signature of the signer.
    pub fn is_signed(&self) -> bool {
        self.targets.iter().all(|target| target.signed)
    }
}

/// Why nothing was published: no tag has changed in any repository.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// Some repositories do not have the image. The others have it without a tag.
    #[error("{}", not_stored(.failures, *.of))]
    Store {
        /// The repositories and their errors.
        failures: Vec<(Repository, Error)>,
        /// The number of repositories.
        of: usize,
    },
    /// The image could not be signed.
    #[error("cannot sign the image in {repository}")]
    Sign {
        /// The repository.
        repository: Box<Repository>,
        /// The reason.
        source: Box<ocikit_sign::Error>,
    },
    /// Every tag would be moved back.
    #[error("cannot publish to {repository}: every tag would be moved back to an older version")]
    AllOlder {
        /// The repository.
        repository: Box<Repository>,
    },
    /// The image should be signed, and there is no signer.
    #[error("cannot publish: images of this event are signed, and no signer is given")]
    NoSigner,
}

fn not_stored(failures: &[(Repository, Error)], of: usize) -> String {
    let names: Vec<_> = failures.iter().map(|(repository, _)| repository.to_string()).collect();
    format!("cannot store the image in {} of {of} repositories; no tag was changed: {}", names.len(), names.join(", "))
}

/// A destination, and what is about to happen there.
struct Prepared {
    destination: Destination,
    sink: Arc<dyn Sink>,
    tags: TagSet,
}

impl Prepared {
    fn target(&self) -> Target {
        let naming = |planned: &PlannedTag| Naming::of_tag(planned.tag.clone());
        Target { sink: self.sink.clone(), names: self.tags.tags.iter().map(naming).collect() }
    }
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
    let signer = match (plan.signing, signer) {
        (Signing::Wanted, None) => return Err(PublishError::NoSigner),
        (Signing::Wanted, signer) => signer,
        (Signing::NotForEvent(_) | Signing::NoSigner, _) => None,
    };
    let prepared = prepare(session, plan).await?;
    let targets: Vec<_> = prepared.iter().map(Prepared::target).collect();
    let staged = stage_to_each(root, &targets, &session.copy_options(Vec::new())).boxed().await;
    let staged = all(&prepared, staged.into_iter())?;
    let mut signatures = Vec::new();
    for prepared in &prepared {
        signatures.push(match signer {
            Some(signer) => Some(sign(session, root, prepared, signer).await?),
            None => None,
        });
    }
    let finished = prepared.into_iter().zip(staged).zip(signatures);
    let finished = finished.map(|((prepared, staged), signatures)| finish(root, prepared, staged, signatures).boxed());
    Ok(Published { root: root.descriptor().clone(), targets: join_all(finished).await })
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
    let planned = all(&prepared, planned.into_iter())?;
    Ok(planned.into_iter().zip(prepared).map(|(planned, prepared)| (planned, prepared.tags)).collect())
}

/// Opens the destinations and decides which moving tags stay.
async fn prepare(session: &Session, plan: &Plan) -> Result<Vec<Prepared>, PublishError> {
    session.expect_transfer();
    let of = plan.destinations.len();
    let one = |destination: &Destination| prepare_one(session, destination.clone(), plan);
    let (mut prepared, mut failures) = (Vec::new(), Vec::new());
    for (found, destination) in join_all(plan.destinations.iter().map(one)).await.into_iter().zip(&plan.destinations) {
        match found {
            Ok(found) => prepared.push(found),
            Err(error) => failures.push((destination.push.clone(), error)),
        }
    }
    if !failures.is_empty() {
        return Err(PublishError::Store { failures, of });
    }
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
        let moves = plan.tags.tags.iter().any(|planned| planned.follows.is_some());
        let tags = match moves && !plan.allow_back {
            true => plan.tags.clone().never_back(&existing(session, &destination.push).await?),
            false => plan.tags.clone(),
        };
        Ok(Prepared { destination, sink, tags })
    }
    .boxed()
}

/// Returns the tags of a repository; none if it does not exist yet.
async fn existing(session: &Session, repository: &Repository) -> Result<Vec<Tag>, Error> {
    match session.tags(repository).await {
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        found => found,
    }
}

/// Returns all values, or the failures with their repositories.
fn all<T>(prepared: &[Prepared], results: impl Iterator<Item = Result<T, Error>>) -> Result<Vec<T>, PublishError> {
    let (mut values, mut failures) = (Vec::new(), Vec::new());
    for (prepared, result) in prepared.iter().zip(results) {
        match result {
            Ok(value) => values.push(value),
            Err(error) => failures.push((prepared.destination.push.clone(), error)),
        }
    }
    if failures.is_empty() { Ok(values) } else { Err(PublishError::Store { failures, of: prepared.len() }) }
}

/// Signs the image in a repository, in the formats in which it has no signature of this signer yet.
async fn sign(
    session: &Session,
    root: &Root,
    prepared: &Prepared,
    signer: &ImageSigner,
) -> Result<Vec<Digest>, PublishError> {
    let repository = &prepared.destination.push;
    let failed = |source: ocikit_sign::Error| PublishError::Sign {
        repository: Box::new(repository.clone()),
        source: Box::new(source),
    };
    let stored = Root::at(prepared.sink.clone(), root.descriptor().clone()).await;
    let stored = stored.map_err(|error| failed(error.into()))?;
    let formats = missing_formats(&stored, signer).await;
    if formats.is_empty() {
        return Ok(Vec::new());
    }
    let options = signer
        .options
        .clone()
        .formats(formats)
        .expect(Some(root.digest()))
        .reference(prepared.destination.read.to_string());
    let made = ocikit_sign::sign(&stored, &*signer.signer, &options).await.map_err(failed)?;
    ocikit_sign::attach(&made, &prepared.sink, &session.copy_options(Vec::new())).await.map_err(failed)?;
    Ok(made.iter().map(|signature| signature.root.digest()).collect())
}

/// Returns the formats in which the image has no signature of the key. Keyless signatures have a new key each time, so
/// they are always made.
async fn missing_formats(stored: &Root, signer: &ImageSigner) -> Vec<Format> {
    let mut missing = Vec::new();
    for format in &signer.options.formats {
        let trust = Trust::Key { name: String::new(), key: signer.signer.public_key().clone() };
        let options = VerifyOptions::new(vec![trust]).formats(vec![*format]).depth(signer.options.depth);
        let is_signed = ocikit_sign::verify(stored, &options).await.is_ok_and(|report| report.is_complete());
        if signer.options.material.is_some() || !is_signed {
            missing.push(*format);
        }
    }
    missing
}

/// Puts the tags of a destination and reads them back.
async fn finish(root: &Root, prepared: Prepared, staged: Staged, signatures: Option<Vec<Digest>>) -> PublishedTarget {
    let Prepared { destination, sink, tags } = prepared;
    let count = |put| staged.copied().count(put);
    let transfer =
        Transfer { uploaded: count(Put::Copied), mounted: count(Put::Mounted), skipped: count(Put::Present) };
    let mut failed = BTreeMap::new();
    match staged.publish().await {
        Ok(published) => {
            let named =
                published.failed.into_iter().filter_map(|(naming, error)| Some((naming.tag?.to_string(), error)));
            failed.extend(named);
        }
        Err(error) => {
            let error = Arc::new(error);
            failed.extend(tags.tags.iter().map(|planned| (planned.tag.to_string(), Error::again(&error))));
        }
    }
    let mut published = Vec::new();
    for planned in tags.tags {
        let state = match failed.remove(planned.tag.as_str()) {
            Some(error) => TagState::Failed(error),
            None => match sink.tagged(&planned.tag).await {
                Ok(Some(found)) if found.digest == root.digest() => TagState::Verified,
                Ok(found) => TagState::Moved(found.map(|found| found.digest)),
                Err(error) => TagState::Failed(error),
            },
        };
        published.push(PublishedTag { planned, state });
    }
    PublishedTarget {
        destination,
        tags: published,
        skipped: tags.skipped,
        transfer,
        signed: signatures.is_some(),
        signatures: signatures.unwrap_or_default(),
    }
}
