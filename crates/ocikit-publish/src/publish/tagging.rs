//! Puts the tags of a destination that has the whole image, also if other clients publish there at the same time.

use std::collections::BTreeMap;
use std::sync::Arc;

use ocikit::image::Staged;
use ocikit::{Digest, Error, Naming, Repository, Root, Session, Sink, Tag};

use super::result::{PublishedTag, TagState};
use crate::plan::Plan;
use crate::tags::{PlannedTag, SkipReason, SkippedTag, TagSet};

/// Maximum number of times that a moving tag is put again because another client moved it.
const MAX_CORRECTIONS: usize = 5;

/// The tags of the plain image that tags of a lazily pulled one belong beside.
#[derive(Debug, Clone)]
pub(super) struct Beside {
    /// The plain image.
    pub(super) image: Digest,
    /// The tags of the lazily pulled image, each with that of the plain one.
    pub(super) tags: Vec<(Tag, Tag)>,
}

impl Beside {
    /// Returns the tags of the lazily pulled image whose plain tag does not point to the plain image.
    async fn outdated(&self, sink: &Arc<dyn Sink>) -> BTreeMap<Tag, TagState> {
        let mut outdated = BTreeMap::new();
        for (lazy, plain) in &self.tags {
            let state = match sink.tagged(plain).await {
                Ok(Some(found)) if found.digest == self.image => continue,
                Ok(found) => TagState::Outdated { plain: plain.clone(), found: found.map(|found| found.digest) },
                Err(error) => TagState::Failed(error),
            };
            outdated.insert(lazy.clone(), state);
        }
        outdated
    }
}

/// Returns the tags of a repository; none if it does not exist yet.
pub(crate) async fn existing(session: &Session, repository: &Repository) -> Result<Vec<Tag>, Error> {
    match session.tags(repository).await {
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        found => found,
    }
}

/// What putting the tags of a destination needs.
#[derive(Clone, Copy)]
pub(super) struct Tagging<'a> {
    pub(super) session: &'a Session,
    pub(super) root: &'a Root,
    pub(super) plan: &'a Plan,
    pub(super) repository: &'a Repository,
    pub(super) sink: &'a Arc<dyn Sink>,
}

impl Tagging<'_> {
    /// Puts the tags and reads them back. A moving tag that belongs to a newer version by then is put back to it, and is
    /// among the skipped ones.
    pub(super) async fn put(
        self,
        tags: TagSet,
        beside: Option<Beside>,
        staged: Staged,
    ) -> (Vec<PublishedTag>, Vec<SkippedTag>) {
        let TagSet { tags, mut skipped } = tags;
        let mut outdated = match &beside {
            Some(beside) => beside.outdated(self.sink).await,
            None => BTreeMap::new(),
        };
        let is_planned = |naming: &Naming| {
            let mut planned = tags.iter().filter(|planned| !outdated.contains_key(&planned.tag));
            planned.any(|planned| naming.tag.as_ref() == Some(&planned.tag))
        };
        // Names that are not published stay as they are.
        let (staged, _) = staged.split_names(is_planned);
        let mut failed = self.publish(&tags, staged).await;
        let mut published = Vec::new();
        for planned in tags {
            let state = match (outdated.remove(&planned.tag), failed.remove(&planned.tag)) {
                (Some(state), _) => state,
                (None, Some(error)) => TagState::Failed(error),
                (None, None) => self.read_back(&planned.tag).await,
            };
            published.push(PublishedTag { planned, state });
        }
        if let Some(beside) = &beside {
            let mut outdated = beside.outdated(self.sink).await;
            for tag in published.iter_mut().filter(|tag| matches!(tag.state, TagState::Verified)) {
                if let Some(state) = outdated.remove(&tag.planned.tag) {
                    tag.state = state;
                }
            }
        }
        (self.settle(published, &mut skipped).await, skipped)
    }

    /// Publishes the names of the root, and returns the tags that failed.
    async fn publish(&self, tags: &[PlannedTag], staged: Staged) -> BTreeMap<Tag, Error> {
        let moves = |naming: &Naming| {
            let mut moving = tags.iter().filter(|planned| planned.follows.is_some());
            moving.any(|planned| naming.tag.as_ref() == Some(&planned.tag))
        };
        let published = match self.plan.in_order {
            true => staged.publish_in_order().await.map(|published| published.failed),
            // The tag of a version is put before those that move to it, so that a publication of an older version, which
            // puts them after this one, finds it.
            false => {
                let (fixed, moving) = staged.split_names(|naming| !moves(naming));
                let both = async {
                    let mut failed = fixed.publish().await?.failed;
                    failed.extend(moving.publish().await?.failed);
                    Ok(failed)
                };
                both.await
            }
        };
        match published {
            Ok(failed) => failed.into_iter().filter_map(|(naming, error)| Some((naming.tag?, error))).collect(),
            Err(error) => {
                let error = Arc::new(error);
                tags.iter().map(|planned| (planned.tag.clone(), Error::again(&error))).collect()
            }
        }
    }

    async fn read_back(&self, tag: &Tag) -> TagState {
        match self.sink.tagged(tag).await {
            Ok(Some(found)) if found.digest == self.root.digest() => TagState::Verified,
            Ok(found) => TagState::Moved(found.map(|found| found.digest)),
            Err(error) => TagState::Failed(error),
        }
    }

    /// Puts moving tags again that point to another version than the newest.
    async fn settle(&self, published: Vec<PublishedTag>, skipped: &mut Vec<SkippedTag>) -> Vec<PublishedTag> {
        let is_moving = |tag: &PublishedTag| {
            tag.planned.follows.is_some() && matches!(tag.state, TagState::Verified | TagState::Moved(_))
        };
        if self.plan.allow_back || !published.iter().any(is_moving) {
            return published;
        }
        let listed = existing(self.session, self.repository).await;
        let is_settled = |tag: &PublishedTag| {
            let is_newest = listed.as_ref().is_ok_and(|listed| tag.planned.newer(listed).is_none());
            is_newest && matches!(tag.state, TagState::Verified)
        };
        let mut settled = Vec::new();
        for tag in published {
            if !is_moving(&tag) || is_settled(&tag) {
                settled.push(tag);
                continue;
            }
            let PublishedTag { planned, .. } = tag;
            match self.correct(&planned).await {
                Ok(Ok(newer)) => {
                    let reason = SkipReason::Newer(newer);
                    skipped.push(SkippedTag { tag: planned.tag, name: planned.name, reason });
                }
                Ok(Err(state)) => settled.push(PublishedTag { planned, state }),
                Err(error) => settled.push(PublishedTag { planned, state: TagState::Failed(error) }),
            }
        }
        settled
    }

    /// Puts a moving tag until it points to the newest version. Returns the tag of that version, or the state of the moving
    /// tag if the version is the published one.
    async fn correct(&self, planned: &PlannedTag) -> Result<Result<Tag, TagState>, Error> {
        let mut found = None;
        for _ in 0..=MAX_CORRECTIONS {
            let newer = planned.newer(&existing(self.session, self.repository).await?);
            let wanted = match &newer {
                // A tag that was just removed is not in the next list.
                Some(newer) => match self.sink.tagged(newer).await? {
                    Some(wanted) => wanted,
                    None => continue,
                },
                None => self.root.descriptor().clone(),
            };
            found = self.sink.tagged(&planned.tag).await?.map(|found| found.digest);
            if found == Some(wanted.digest) {
                return Ok(newer.ok_or(TagState::Verified));
            }
            self.sink.publish(&wanted, &Naming::of_tag(planned.tag.clone())).await?;
        }
        Ok(Err(TagState::Moved(found)))
    }
}
