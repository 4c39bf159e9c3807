//! Publishes an image that was built, by the same engine as `publish`.

use jiff::Timestamp;
use ocikit::{AnnotateOn, AnnotateOptions, Digest, Error, Naming, Repository, Root, Session, Sink, Tag};

use super::model::{BuildOptions, Done, ImageError, Publishing};
use crate::changes::{Changes, change, platforms};
use crate::plan::{Destination, Plan, Signing};
use crate::project::plan::INPUTS_ANNOTATION;
use crate::publish::{GuardedTag, PublishError, PublishedTag, PublishedTarget, TagState, existing, publish_guarded};
use crate::report::{Report, ReportInput};
use crate::tags::TagSet;

/// Returns an image with the annotations of a run, and with the digest of what it was built from on its index. An image that
/// has them stays as it is.
pub(super) async fn marked(root: &Root, options: &BuildOptions<'_>, inputs: &Digest) -> Result<Root, Error> {
    let changes = Changes { annotations: options.annotations.clone(), ..Changes::default() };
    let changed = change(root, &changes).await?.root;
    // The provenance names the images that are published.
    let changed = ocikit_build::follow(root, &changed).await?;
    let set = vec![(INPUTS_ANNOTATION.to_owned(), inputs.to_string())];
    ocikit::image::annotate(&changed, &AnnotateOptions::default().set(set).on(AnnotateOn::Index)).await
}

/// Publishes an image: `latest` first and the version last, so that a version that exists says that nothing is missing, and
/// an interrupted publication is finished by the next run.
///
/// Returns the image of the version if another process published it meanwhile: a version is not replaced.
pub(super) async fn publish_image(
    session: &Session,
    root: &Root,
    repository: Repository,
    tags: TagSet,
    options: &BuildOptions<'_>,
    version: GuardedTag,
    done: &mut Done,
) -> Result<Option<Digest>, ImageError> {
    let Some(publishing) = &options.publishing else { return Ok(None) };
    let (plan, started) = (plan(&repository, tags, publishing), now(session));
    let wants_signer = plan.signing == Signing::Wanted || plan.attest.any();
    let signer = match publishing.signers.filter(|_| wants_signer) {
        Some(signers) => Some(signers.signer().await.map_err(ImageError::Signer)?),
        None => None,
    };
    let mut published = match publish_guarded(session, root, &plan, signer.as_ref(), &version).await {
        Err(PublishError::Taken { digest, .. }) => return Ok(Some(digest)),
        published => published?,
    };
    for target in &mut published.targets {
        if let Some(winner) = settle(session, target, &version.tag, root.digest()).await? {
            return Ok(Some(winner));
        }
    }
    let mut input = ReportInput::default();
    repository.path().clone_into(&mut input.image);
    input.platforms = platforms(root).await?;
    (input.started, input.finished) = (started, now(session));
    let report = Box::new(Report::of(&published, &plan, &input));
    let statement_failed = published.targets.iter_mut().find_map(|target| target.statement_failed.take());
    let tags = published.targets.into_iter().flat_map(|target| target.tags);
    let (tags, failed): (Vec<_>, Vec<_>) = tags.partition(|tag| matches!(tag.state, TagState::Verified));
    if !failed.is_empty() {
        return Err(ImageError::Tagged { tags: failed, report });
    }
    if let Some(error) = statement_failed {
        return Err(ImageError::Statement { source: Box::new(error), report });
    }
    done.tags = tags.iter().map(|tag| tag.planned.tag.to_string()).collect();
    done.published = Some(repository);
    done.report = Some(report);
    Ok(None)
}

/// Settles the tags if another process put them at the same time: the version says which image counts, and `latest` follows
/// it. Returns that image if it is the one of the other process.
async fn settle(
    session: &Session,
    target: &mut PublishedTarget,
    version: &Tag,
    root: Digest,
) -> Result<Option<Digest>, Error> {
    let is_moved = |tag: &PublishedTag| matches!(tag.state, TagState::Moved(Some(_)));
    if !target.tags.iter().any(is_moved) {
        return Ok(None);
    }
    let repository = &target.destination.push;
    let sink = session.client().repository(repository.clone())?;
    let Some(winner) = sink.tagged_later(version).await? else { return Ok(None) };
    let mut tags = TagSet::default();
    tags.tags = target.tags.iter().map(|tag| tag.planned.clone()).collect();
    // `latest` may have moved to a newer version.
    let TagSet { tags, skipped, .. } = tags.never_back(&existing(session, repository).await?);
    for planned in &tags {
        if sink.tagged(&planned.tag).await?.map(|found| found.digest) != Some(winner.digest) {
            sink.publish(&winner, &Naming::of_tag(planned.tag.clone())).await?;
        }
    }
    sink.finish().await?;
    target.tags.retain(|tag| skipped.iter().all(|skipped| skipped.tag != tag.planned.tag));
    target.tags.iter_mut().filter(|tag| is_moved(tag)).for_each(|tag| tag.state = TagState::Verified);
    target.skipped.extend(skipped);
    Ok(Some(winner.digest).filter(|digest| *digest != root))
}

fn plan(repository: &Repository, mut tags: TagSet, publishing: &Publishing<'_>) -> Plan {
    // The version is the first tag of a set.
    tags.tags.reverse();
    let mut plan = Plan::new(publishing.git.event, vec![Destination::new(repository.clone())], tags);
    plan.source = publishing.git.clone();
    plan.in_order = true;
    plan.attest = publishing.attest;
    match publishing.signers {
        Some(_) => plan.signed_by_event(),
        None => plan,
    }
}

/// Returns the time of the clock of the session.
fn now(session: &Session) -> Timestamp {
    Timestamp::try_from(session.client().clock().now()).unwrap_or_default()
}
