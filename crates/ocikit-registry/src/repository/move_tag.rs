//! Moving a tag from the root that was changed to its successor.
//!
//! The protocol has no compare-and-swap. The tag is read right before it is moved, moved with a condition that some
//! registries honour (`If-Match`), and read back after a moment: of several clients that moved it at the same time, the
//! last one wins, and all others report a conflict.

use std::time::Duration;

use ocikit_http::{Method, lock};
use ocikit_image::{Error, Mismatch, Result};
use ocikit_spec::{Descriptor, Digest};

use super::{Remote, RemoteRepository, TagRead};
use crate::manifests::{self, FetchedManifest, StatedManifest};
use crate::target::ManifestKey;

/// Minimum time from moving a tag to reading it back, as the registry sees it. Another client that read the tag right
/// before it was moved has moved it too by then.
const MIN_READ_BACK_DELAY: Duration = Duration::from_millis(100);

/// Maximum pause between moving a tag and reading it back.
const MAX_READ_BACK_DELAY: Duration = Duration::from_secs(2);

impl RemoteRepository {
    /// Moves a tag that still leads to the replaced root.
    ///
    /// # Errors
    ///
    /// [`Error::Conflict`] if it leads to something else, before or after.
    pub(super) async fn move_tag(&self, key: &ManifestKey, root: &FetchedManifest, replaced: &Digest) -> Result<()> {
        let Remote { target, .. } = &*self.0;
        let clock = &target.inner.options.clock;
        let started;
        let mut entity_tag = None;
        match self.just_read(key, replaced) {
            Some(read) => (started, entity_tag) = (read.started, read.entity_tag),
            None => {
                started = clock.now();
                let found = match manifests::head_to_move(target, key, replaced.algorithm()).await {
                    // A user who may push and not pull. What follows decides.
                    Err(Error::Denied { .. }) => None,
                    found => Some(found?),
                };
                if let Some(found) = found {
                    let digest = found.as_ref().map(|found| found.descriptor.digest);
                    if digest != Some(*replaced) {
                        return Err(Error::conflict(key, self, digest));
                    }
                    entity_tag = found.and_then(|found| found.entity_tag);
                }
            }
        }
        match self.send_document(key, root, entity_tag.as_deref()).await {
            // An earlier attempt may have moved the tag and its answer was lost.
            Err(Error::Conflict { .. }) => {}
            sent => sent?,
        }
        // Two requests took about two round trips. Reading the tag back takes one, half of it before the registry answers.
        let round_trip = clock.now().duration_since(started).unwrap_or_default() / 2;
        let pause = MIN_READ_BACK_DELAY.saturating_sub(round_trip).max(round_trip).min(MAX_READ_BACK_DELAY);
        clock.sleep(pause).await;
        self.read_back(key, &root.descriptor, replaced).await
    }

    /// Returns what a tag led to, if that is the replaced root and was read so recently that reading it again would tell
    /// nothing new: a moment that is short beside the time of a request.
    fn just_read(&self, key: &ManifestKey, replaced: &Digest) -> Option<TagRead> {
        let ManifestKey::Tag(tag) = key else { return None };
        let read = lock(&self.0.state).tag_reads.remove(tag).filter(|read| read.digest == *replaced)?;
        let took = read.ended.duration_since(read.started).ok()?;
        let since = self.0.target.inner.options.clock.now().duration_since(read.ended).ok()?;
        (since * 2 <= took).then_some(read)
    }

    /// Checks that a tag leads to a root. The replaced one, or none, is what replicas and caches that lag behind return.
    async fn read_back(&self, key: &ManifestKey, root: &Descriptor, replaced: &Digest) -> Result<()> {
        let Remote { target, .. } = &*self.0;
        let mut failures = 0;
        loop {
            let found = match manifests::head_to_move(target, key, root.digest.algorithm()).await {
                Err(Error::Denied { .. }) => return Ok(()),
                found => found?.map(|StatedManifest { descriptor, .. }| descriptor),
            };
            match found.as_ref().map(|found| (found.digest, found.size)) {
                Some((digest, size)) if digest == root.digest && size == root.size => return Ok(()),
                Some((digest, actual)) if digest == root.digest => {
                    let mismatch = Mismatch::Size { expected: root.size, actual };
                    return Err(Error::mismatch(&digest, self, mismatch));
                }
                Some((digest, _)) if digest != *replaced => return Err(Error::conflict(key, self, Some(digest))),
                _ => {}
            }
            failures += 1;
            if !target.inner.http.back_off(&Method::HEAD, &target.manifest(key), failures, None).await {
                return Err(match found.map(|found| found.digest) {
                    // Another client moved it back, or the registry rejected the condition and not the tag.
                    Some(digest) => Error::conflict(key, self, Some(digest)),
                    None => Error::protocol(self, format!("it accepted tag {key} and does not return it")),
                });
            }
        }
    }

    /// Checks that a registry returns a root that was stored together with its tag. The tag may have moved on since
    /// then.
    pub(super) async fn confirm_tagged(&self, key: &ManifestKey, root: &Descriptor) -> Result<()> {
        let Remote { target, .. } = &*self.0;
        match manifests::confirm(target, key, root).await {
            Err(Error::Mismatch { mismatch, .. }) if matches!(*mismatch, Mismatch::Digest(_)) => {
                manifests::confirm(target, &ManifestKey::Digest(root.digest), root).await
            }
            confirmed => confirmed,
        }
    }
}
