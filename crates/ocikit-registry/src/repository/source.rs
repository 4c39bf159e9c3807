use std::sync::Arc;

use async_trait::async_trait;
use ocikit_http::{TimeLimit, lock};
use ocikit_image::{Body, ByteRange, Error, Name, Result, Source};
use ocikit_spec::{Descriptor, Digest, MAX_DOCUMENT_BYTES, MediaType, Repository, Tag};

use super::{ReadTarget, RemoteRepository, TagRead};
use crate::hosts::MirrorScope;
use crate::manifests::{self, FetchedManifest};
use crate::tags::ListOptions;
use crate::target::{ManifestKey, Target};
use crate::{blobs, download, referrers};

/// The number of tags that registries list on one page.
const MAX_FEW_TAGS: usize = 100;

#[async_trait]
impl Source for RemoteRepository {
    async fn resolve(&self, name: &Name) -> Result<Descriptor> {
        let find = || async {
            let found = match ManifestKey::of(name) {
                Some(key) => self.manifest(&key).await?,
                None => None,
            };
            found.map(|found| found.descriptor).ok_or_else(|| Error::not_found(name, self))
        };
        self.explain_denial(find().await).await
    }

    async fn open_unverified(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        // The config of an image is small whether it is read or copied.
        let is_config = descriptor.media_type.is_image_config() && descriptor.size <= MAX_DOCUMENT_BYTES;
        let limit = if is_config { TimeLimit::Document } else { TimeLimit::None };
        self.explain_denial(self.open_within(descriptor, range, limit).await).await
    }

    async fn open_small(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        self.explain_denial(self.open_within(descriptor, range, TimeLimit::Document).await).await
    }

    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        let is_document = descriptor.media_type.is_document();
        let exists = |target: Arc<Target>| async move {
            let (digest, size) = (&descriptor.digest, descriptor.size);
            let found = blobs::exists(&target, &target.access(), digest, size).await?;
            Ok(found.then_some(()))
        };
        if !is_document {
            let found = self.read(MirrorScope::DigestOnly, exists).await?.is_some();
            if found || !may_be_manifest(descriptor) {
                return Ok(found);
            }
        }
        let key = &ManifestKey::Digest(descriptor.digest);
        let head = |target: Arc<Target>| async move { manifests::head(&target, key, &target.access()).await };
        let found = self.read(MirrorScope::DigestOnly, head).await?.is_some();
        // As in `open_within`.
        let is_blob = lock(&self.0.state).read_as_blobs.contains(&descriptor.digest);
        Ok(found || is_document && is_blob && self.read(MirrorScope::DigestOnly, exists).await?.is_some())
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.explain_denial(self.list_referrers(subject, None).await).await
    }

    async fn few_tags(&self) -> Result<Option<Vec<Tag>>> {
        let options = ListOptions { limit: Some(MAX_FEW_TAGS), ..ListOptions::default() };
        let tags = self.tags_part(&options).await?;
        Ok(Some(tags).filter(|tags| tags.len() < MAX_FEW_TAGS))
    }

    fn repository(&self, descriptor: &Descriptor) -> Option<&Repository> {
        (!descriptor.media_type.is_document()).then_some(&self.0.repository)
    }
}

impl RemoteRepository {
    async fn open_within(&self, descriptor: &Descriptor, range: ByteRange, limit: TimeLimit) -> Result<Body> {
        if let Some(found) = lock(&self.0.state).documents.get(&descriptor.digest) {
            return Ok(range.of(&found.bytes).into());
        }
        if !descriptor.media_type.is_document() {
            match self.open_blob(descriptor, range, limit).await {
                Ok(body) => {
                    if may_be_manifest(descriptor) {
                        lock(&self.0.state).read_as_blobs.insert(descriptor.digest);
                    }
                    return Ok(body);
                }
                // The descriptor may have a wrong, unknown or empty media type for a manifest.
                Err(error) if error.is_not_found() && may_be_manifest(descriptor) => {}
                Err(error) => return Err(error),
            }
        }
        match self.manifest(&ManifestKey::Digest(descriptor.digest)).await? {
            Some(found) => Ok(range.of(&found.bytes).into()),
            // olareg 0.1 returns a manifest that an index lists with an unknown media type as a blob only, although it was
            // pushed as a manifest. It has been read as a blob before, to find out what it is.
            None if lock(&self.0.state).read_as_blobs.contains(&descriptor.digest) => {
                self.open_blob(descriptor, range, limit).await
            }
            None => Err(Error::not_found(descriptor.digest, self)),
        }
    }

    async fn open_blob(&self, descriptor: &Descriptor, range: ByteRange, limit: TimeLimit) -> Result<Body> {
        let open = |target: Arc<Target>| async move {
            let others = self.places(MirrorScope::DigestOnly).skip_while(|place| !Arc::ptr_eq(place, &target)).skip(1);
            let others = others.cloned().collect();
            download::open(&target, others, descriptor, range, limit).await.map(Some)
        };
        let body = self.read(MirrorScope::DigestOnly, open).await?;
        body.ok_or_else(|| Error::not_found(descriptor.digest, self))
    }

    pub(super) async fn list_referrers(
        &self,
        subject: &Digest,
        artifact_type: Option<&MediaType>,
    ) -> Result<Vec<Descriptor>> {
        // A mirror may have the image and not its newer referrers.
        let list = |target: Arc<Target>| async move {
            let found = referrers::list(&target, subject, artifact_type).await?;
            Ok(Some(found).filter(|found| !found.is_empty()))
        };
        Ok(self.read(MirrorScope::DigestOnly, list).await?.unwrap_or_default())
    }

    /// Asks the mirrors and then the registry itself, until one has the object. Errors of mirrors are ignored; the
    /// outcome of the registry is returned.
    pub(super) async fn read<T, F: Future<Output = Result<Option<T>>> + Send>(
        &self,
        scope: MirrorScope,
        ask: impl Fn(Arc<Target>) -> F,
    ) -> Result<Option<T>> {
        let mut answer = Ok(None);
        for place in self.places(scope) {
            answer = ask(place.clone()).await;
            if matches!(answer, Ok(Some(_))) {
                break;
            }
        }
        answer
    }

    /// Returns the locations that serve a request, in their order.
    fn places(&self, scope: MirrorScope) -> impl Iterator<Item = &Arc<Target>> {
        let asked = move |read: &&ReadTarget| read.scope == MirrorScope::All || read.scope == scope;
        self.0.reads.iter().filter(asked).map(|read| &read.target)
    }

    /// Returns a manifest from the cache, or from the registry.
    pub(super) async fn manifest(&self, key: &ManifestKey) -> Result<Option<FetchedManifest>> {
        if let ManifestKey::Digest(digest) = key {
            let state = lock(&self.0.state);
            if let Some(found) = state.documents.get(digest) {
                return Ok(Some(found.clone()));
            }
        }
        let clock = &self.0.target.inner.options.clock;
        let started = clock.now();
        let get = |target: Arc<Target>| async move { manifests::get(&target, key, &target.access()).await };
        let found = self.read(key.mirror_scope(), get).await?;
        if let Some(found) = &found {
            let mut state = lock(&self.0.state);
            state.cache(found.clone());
            // A mirror may be outdated.
            if let (ManifestKey::Tag(tag), [_]) = (key, &self.0.reads[..]) {
                let (digest, entity_tag) = (found.descriptor.digest, found.entity_tag.clone());
                state.tag_reads.insert(tag.clone(), TagRead { digest, entity_tag, started, ended: clock.now() });
            }
        }
        Ok(found)
    }
}

/// Returns whether a registry may store an object among its manifests although its media type is not that of a
/// manifest.
fn may_be_manifest(descriptor: &Descriptor) -> bool {
    !descriptor.media_type.is_blob() && descriptor.size <= MAX_DOCUMENT_BYTES
}
