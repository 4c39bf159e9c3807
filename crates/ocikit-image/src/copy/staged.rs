use std::fmt;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use ocikit_spec::Descriptor;

use super::options::Copied;
use crate::error::{Error, Result};
use crate::event::{Event, Progress};
use crate::graph::MAX_PARALLEL_READS;
use crate::merge::{PendingRoot, publish_merged};
use crate::source::{Naming, Sink};

/// A copy to one target of which everything is stored and read back, and no name has changed. If it is dropped, no name
/// changes.
#[must_use = "the names of the target change when it is published"]
pub struct Staged {
    pub(super) copied: Copied,
    pub(super) unpublished: Unpublished,
}

/// The names of a target after [`Staged::publish`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Published {
    /// The copy.
    pub copied: Copied,
    /// The names that could not be given to the root, and why. The others were given.
    pub failed: Vec<(Naming, Error)>,
}

impl Staged {
    /// Returns what was copied.
    pub fn copied(&self) -> &Copied {
        &self.copied
    }

    /// Separates names that are published later, or not at all if the second value is dropped. The referrers are
    /// published with the first value.
    pub fn split_names(self, mut is_first: impl FnMut(&Naming) -> bool) -> (Staged, Staged) {
        let Staged { copied, unpublished } = self;
        let Unpublished { to, lists: [referrers, roots], keep_tags, progress } = unpublished;
        let (mut first, mut later) = (Vec::new(), Vec::new());
        for pending in roots {
            let (now, then): (Vec<_>, Vec<_>) = pending.names.iter().cloned().partition(&mut is_first);
            if !then.is_empty() {
                later.push(PendingRoot { names: then, ..pending.clone() });
            }
            if !now.is_empty() || pending.names.is_empty() {
                first.push(PendingRoot { names: now, ..pending });
            }
        }
        let staged = |lists| Staged {
            copied: copied.clone(),
            unpublished: Unpublished { to: to.clone(), lists, keep_tags, progress: progress.clone() },
        };
        (staged([referrers, first]), staged([Vec::new(), later]))
    }

    /// Gives the root its names, after its referrers have theirs.
    ///
    /// # Errors
    ///
    /// The first error of a name. The names after it are not given then.
    pub async fn publish_all(self) -> Result<Copied> {
        if !self.unpublished.is_empty() {
            self.unpublished.publish().await?;
        }
        Ok(self.copied)
    }

    /// Gives the root its names, after its referrers have theirs. A name that fails does not stop the others.
    ///
    /// # Errors
    ///
    /// Those of the target for the names of referrers, and of completing the target.
    pub async fn publish(self) -> Result<Published> {
        let Staged { copied, unpublished } = self;
        if unpublished.is_empty() {
            return Ok(Published { copied, failed: Vec::new() });
        }
        unpublished.publish_list(&unpublished.lists[0]).await?;
        let named = unpublished.names().map(|one| unpublished.publish_name(one));
        let outcomes: Vec<_> = stream::iter(named).buffered(unpublished.at_once()).boxed().collect().await;
        unpublished.to.finish().await?;
        let failed = outcomes.into_iter().filter_map(|(naming, outcome)| Some((naming, outcome.err()?)));
        Ok(Published { failed: failed.collect(), copied })
    }

    /// Gives the root its names one after another, in their order. After one that fails, the others are not given and fail
    /// with the same error, so a client that sees the last name knows that the root has all of them.
    ///
    /// # Errors
    ///
    /// As for [`Staged::publish`].
    pub async fn publish_in_order(self) -> Result<Published> {
        let Staged { copied, unpublished } = self;
        if unpublished.is_empty() {
            return Ok(Published { copied, failed: Vec::new() });
        }
        unpublished.publish_list(&unpublished.lists[0]).await?;
        let mut failed: Vec<(Naming, Error)> = Vec::new();
        let mut cause: Option<Arc<Error>> = None;
        for one in unpublished.names() {
            if let Some(cause) = &cause {
                failed.extend(one.names.into_iter().map(|naming| (naming, Error::again(cause))));
                continue;
            }
            if let (naming, Err(error)) = unpublished.publish_name(one).await {
                let error = Arc::new(error);
                failed.push((naming, Error::again(&error)));
                cause = Some(error);
            }
        }
        unpublished.to.finish().await?;
        Ok(Published { failed, copied })
    }
}

impl fmt::Debug for Staged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Staged").field("copied", &self.copied).finish_non_exhaustive()
    }
}

/// The roots that are stored at a target and do not have their names yet.
pub(super) struct Unpublished {
    to: Arc<dyn Sink>,
    /// Referrers, then the roots.
    lists: [Vec<PendingRoot>; 2],
    keep_tags: bool,
    progress: Progress,
}

impl Unpublished {
    pub(super) fn new(
        to: &Arc<dyn Sink>,
        lists: [Vec<PendingRoot>; 2],
        keep_tags: bool,
        progress: &Progress,
    ) -> Unpublished {
        Unpublished { to: to.clone(), lists, keep_tags, progress: progress.clone() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lists.iter().all(Vec::is_empty)
    }

    pub(super) fn roots(&self) -> impl Iterator<Item = &Descriptor> {
        self.lists.iter().flatten().map(|pending| pending.root.descriptor())
    }

    /// Returns how many roots are published in parallel: one if the target keeps their order.
    fn at_once(&self) -> usize {
        if self.to.keeps_order() { 1 } else { MAX_PARALLEL_READS }
    }

    /// Gives all roots their names. Referrers are published before the image, so that a client that sees the image also
    /// finds them.
    pub(super) async fn publish(&self) -> Result<()> {
        for list in &self.lists {
            self.publish_list(list).await?;
        }
        self.to.finish().await
    }

    /// Returns the roots, each with one of its names.
    fn names(&self) -> impl Iterator<Item = PendingRoot> {
        let of_one = |pending: &PendingRoot| {
            let one = |naming: &Naming| PendingRoot { names: vec![naming.clone()], ..pending.clone() };
            pending.names.iter().map(one).collect::<Vec<_>>()
        };
        self.lists[1].iter().flat_map(of_one)
    }

    /// Gives a root its only name.
    async fn publish_name(&self, one: PendingRoot) -> (Naming, Result<()>) {
        let outcome = self.publish_root(&one).await;
        (one.names.into_iter().next().unwrap_or_default(), outcome)
    }

    async fn publish_list(&self, list: &[PendingRoot]) -> Result<()> {
        let publish = list.iter().map(|pending| self.publish_root(pending));
        stream::iter(publish).buffered(self.at_once()).boxed().try_collect::<()>().await
    }

    async fn publish_root(&self, pending: &PendingRoot) -> Result<()> {
        let Unpublished { to, keep_tags, progress, .. } = self;
        if let Some((tag, _)) = pending.referrer_tag() {
            let root = publish_merged(pending, to, *keep_tags).await?;
            progress.event(Event::Published { root: root.descriptor(), tag: Some(tag) });
            return Ok(());
        }
        let root = pending.root.descriptor();
        for naming in &pending.names {
            to.publish(root, naming).await?;
            progress.event(Event::Published { root, tag: naming.tag.as_ref() });
        }
        Ok(())
    }
}
