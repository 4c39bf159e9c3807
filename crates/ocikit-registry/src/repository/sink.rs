use async_trait::async_trait;
use ocikit_http::lock;
use ocikit_image::{Error, Naming, Put, Result, Sink, Source, SourceExt};
use ocikit_spec::{Descriptor, Digest, Document, Tag};

use super::{Remote, RemoteRepository};
use crate::existence::{ExistenceChecks, ExistsReceiver};
use crate::journal::JournalKey;
use crate::manifests::{self, FetchedManifest};
use crate::target::ManifestKey;
use crate::upload::Mount;
use crate::{blobs, referrers, upload};

/// The maximum size in bytes of a blob that is uploaded without the question whether it exists, if it was created by an
/// edit a moment ago: the config of an image.
const MAX_UNCHECKED_BYTES: u64 = 64 << 10;

#[async_trait]
impl Sink for RemoteRepository {
    async fn expect(&self, descriptors: &[Descriptor]) -> Result<()> {
        let mut state = lock(&self.0.state);
        let blobs = descriptors.iter().filter(|blob| !blob.media_type.is_document());
        state.expected = blobs.map(|blob| (blob.digest, blob.size)).collect();
        Ok(())
    }

    async fn put(&self, descriptor: &Descriptor, from: &dyn Source) -> Result<Put> {
        let put = match descriptor.media_type.is_document() {
            true => self.put_document(descriptor, from).await,
            false => self.put_blob(descriptor, from).await,
        };
        self.explain_denial(put).await
    }

    fn announce(&self, root: &Descriptor, naming: &Naming) {
        if naming.tag.is_some() {
            lock(&self.0.state).deferred.insert(root.digest, None);
        }
    }

    async fn confirm(&self, root: &Descriptor) -> Result<()> {
        if lock(&self.0.state).deferred.contains_key(&root.digest) {
            return Ok(());
        }
        manifests::confirm(&self.0.target, &ManifestKey::Digest(root.digest), root).await
    }

    async fn publish(&self, root: &Descriptor, naming: &Naming) -> Result<()> {
        let Some(tag) = &naming.tag else { return Ok(()) };
        let deferred = lock(&self.0.state).deferred.get(&root.digest).cloned().flatten();
        let is_deferred = deferred.is_some();
        let found = match deferred {
            Some(found) => found,
            None => {
                let found = self.manifest(&ManifestKey::Digest(root.digest)).await?;
                found.ok_or_else(|| Error::not_found(root.digest, self))?
            }
        };
        let found = FetchedManifest { descriptor: root.clone(), ..found };
        let key = ManifestKey::Tag(tag.clone());
        match &naming.replaces {
            Some(replaced) => self.move_tag(&key, &found, replaced).await?,
            None => {
                self.send_document(&key, &found, None).await?;
                if is_deferred {
                    self.confirm_tagged(&key, root).await?;
                }
            }
        }
        let mut state = lock(&self.0.state);
        state.deferred.remove(&root.digest);
        state.cache(found);
        Ok(())
    }

    fn keeps_order(&self) -> bool {
        false
    }

    async fn tagged(&self, tag: &Tag) -> Result<Option<Descriptor>> {
        let Remote { target, state, .. } = &*self.0;
        lock(state).tags_read.insert(tag.clone(), target.inner.options.clock.now());
        let found = manifests::get(target, &ManifestKey::Tag(tag.clone()), &target.access_to_push()).await?;
        Ok(found.map(|found| {
            let descriptor = found.descriptor.clone();
            lock(state).cache(found);
            descriptor
        }))
    }

    async fn tagged_later(&self, tag: &Tag) -> Result<Option<Descriptor>> {
        let Remote { target, state, .. } = &*self.0;
        let read = lock(state).tags_read.get(tag).copied();
        referrers::await_other_writers(&target.inner, read.unwrap_or_else(|| target.inner.options.clock.now())).await;
        self.tagged(tag).await
    }

    async fn is_complete(&self, root: &Descriptor, naming: &Naming) -> Result<bool> {
        let Remote { target, .. } = &*self.0;
        let key = naming.tag.clone().map_or(ManifestKey::Digest(root.digest), ManifestKey::Tag);
        let found = manifests::head_to_push(target, &key).await?;
        let is_there = found.is_some_and(|found| found.digest == root.digest && found.size == root.size);
        // A push tags the root last, so a tagged root is complete. An untagged one may lack its entry in the list of
        // referrers, if an earlier push stopped before that.
        if !is_there || naming.tag.is_some() {
            return Ok(is_there);
        }
        let _check = target.inner.cache.acquire_referrers_check(&target.endpoint).await;
        if target.inner.cache.lists_referrers(&target.endpoint) == Some(true) {
            return Ok(true);
        }
        match manifests::get(target, &key, &target.access_to_push()).await? {
            Some(found) => referrers::is_listed(target, &found).await,
            None => Ok(false),
        }
    }
}

impl RemoteRepository {
    async fn put_blob(&self, descriptor: &Descriptor, from: &dyn Source) -> Result<Put> {
        let Remote { target, repository, .. } = &*self.0;
        let (endpoint, digest) = (&target.endpoint, &descriptor.digest);
        let source = from.repository(descriptor);
        if source == Some(repository) {
            return Ok(Put::Present);
        }
        let _inflight = target.inner.cache.acquire(endpoint, digest).await;
        if target.inner.cache.holds(endpoint, &target.path, digest) {
            return Ok(Put::Present);
        }
        let is_new = from.is_new(digest) && descriptor.size <= MAX_UNCHECKED_BYTES;
        let other_repository = source.filter(|source| source.registry() == repository.registry());
        let other_repository = other_repository.map(|source| source.path().to_owned());
        let other_repository = other_repository.or_else(|| target.inner.cache.repository_with(endpoint, digest));
        let mount = other_repository.map(Mount::From).or_else(|| self.mount_instead_of_head());
        let key = JournalKey { repository: repository.clone(), digest: *digest, size: descriptor.size };
        let put = match mount.filter(|_| !is_new) {
            Some(mount) => upload::put(target, &key, descriptor, from, Some(&mount), None).await?,
            None if is_new => upload::put(target, &key, descriptor, from, None, None).await?,
            // The round-trip time is long: the upload starts before it is known whether the blob exists. It starts as a
            // mount from the target repository itself, since most registries answer that with 201 if the blob exists.
            None if target.inner.http.speculation(&endpoint.base).requests
                && target.inner.cache.mounts_from_itself(endpoint).is_none()
                && let Some(answer) = self.pending_check(digest) =>
            {
                let mount = Mount::From(target.path.clone());
                upload::put(target, &key, descriptor, from, Some(&mount), Some(answer)).await?
            }
            None if self.exists(digest, descriptor.size).await? => {
                if let Some(journal) = &target.inner.options.journal {
                    // An earlier process may have completed the upload and died before it removed the entry.
                    journal.forget(&key).await;
                }
                Put::Present
            }
            None => upload::put(target, &key, descriptor, from, None, None).await?,
        };
        if put == Put::Copied {
            lock(&self.0.state).new.insert(*digest);
        }
        target.inner.cache.record(endpoint, &target.path, digest);
        Ok(put)
    }

    /// Returns the mount that replaces the `HEAD` request, where the registry is known to answer it by whether the blob
    /// exists. One request then checks the blob and starts the upload.
    fn mount_instead_of_head(&self) -> Option<Mount> {
        let Remote { target, repository, .. } = &*self.0;
        let probed = target.inner.options.capabilities.get(repository.registry());
        if probed.is_some_and(|capabilities| capabilities.anonymous_mount == Some(true)) {
            Some(Mount::FromAnywhere)
        } else if probed.is_some_and(|capabilities| capabilities.mount_from_itself == Some(true))
            || target.inner.cache.mounts_from_itself(&target.endpoint) == Some(true)
        {
            Some(Mount::From(target.path.clone()))
        } else {
            None
        }
    }

    /// Returns whether a blob exists.
    async fn exists(&self, digest: &Digest, size: u64) -> Result<bool> {
        if let Some(answer) = self.pending_check(digest)
            && let Ok(exists) = answer.await
        {
            return Ok(exists);
        }
        let Remote { target, .. } = &*self.0;
        blobs::exists_to_push(target, &target.access_to_push(), digest, size).await
    }

    /// Returns the receiver of the check whether a blob exists, if `expect` announced the blob. The first call starts
    /// the checks for all announced blobs.
    fn pending_check(&self, digest: &Digest) -> Option<ExistsReceiver> {
        let Remote { target, state, .. } = &*self.0;
        let mut state = lock(state);
        if !state.expected.is_empty() {
            let expected = std::mem::take(&mut state.expected).into_iter();
            let unknown = |(expected, _): &(Digest, u64)| {
                expected == digest || target.inner.cache.repository_with(&target.endpoint, expected).is_none()
            };
            state.checks = ExistenceChecks::start(target, expected.filter(unknown).collect());
        }
        state.checks.take(digest)
    }

    async fn put_document(&self, descriptor: &Descriptor, from: &dyn Source) -> Result<Put> {
        let Remote { target, .. } = &*self.0;
        let key = ManifestKey::Digest(descriptor.digest);
        let bytes = from.read(descriptor).await?;
        let found = FetchedManifest { descriptor: descriptor.clone(), bytes: bytes.clone(), entity_tag: None };
        if let Some(deferred) = lock(&self.0.state).deferred.get_mut(&descriptor.digest) {
            *deferred = Some(found);
            return Ok(Put::Copied);
        }
        let is_it = |there: Descriptor| there.digest == descriptor.digest && there.size == descriptor.size;
        // The repository is not asked for a document that was created by an edit a moment ago: an unnecessary upload of a few
        // KiB costs as much as the question.
        let is_new = from.is_new(&descriptor.digest) || self.cannot_exist(&found);
        if !is_new && manifests::head_to_push(target, &key).await?.is_some_and(is_it) {
            referrers::add_if_missing(target, &found).await?;
            lock(&self.0.state).cache(found);
            return Ok(Put::Present);
        }
        self.send_document(&key, &found, None).await?;
        let mut state = lock(&self.0.state);
        state.new.insert(descriptor.digest);
        state.cache(found);
        Ok(Put::Copied)
    }

    /// Returns whether a manifest cannot exist, because a child of it did not exist before this push.
    fn cannot_exist(&self, found: &FetchedManifest) -> bool {
        let state = lock(&self.0.state);
        let document = Document::parse(&found.descriptor.media_type, found.bytes.clone());
        !state.new.is_empty()
            && document.is_ok_and(|document| document.children().any(|child| state.new.contains(&child.digest)))
    }

    /// Uploads a manifest, where the registry supports it only while the tag leads to what has this entity tag.
    pub(super) async fn send_document(
        &self,
        key: &ManifestKey,
        found: &FetchedManifest,
        entity_tag: Option<&str>,
    ) -> Result<()> {
        let Remote { target, .. } = &*self.0;
        // olareg 0.1 loses entries if several referrers of one subject are put at the same time.
        let turn = match referrers::subject_and_entry(found) {
            Some((subject, _)) => {
                Some(target.inner.cache.acquire_index(&target.endpoint, &target.path, &subject).await)
            }
            None => None,
        };
        let FetchedManifest { descriptor, bytes, .. } = found;
        let handles_subject = manifests::put(target, key, descriptor, bytes.clone(), entity_tag).await?;
        drop(turn);
        if handles_subject { Ok(()) } else { referrers::add(target, found).await }
    }
}
