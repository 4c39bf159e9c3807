use async_trait::async_trait;
use ocikit_image::{Error, Naming, Put, Result, Sink, Source, SourceExt};
use ocikit_spec::{Descriptor, Digest, Document, Tag};

use super::{Remote, RemoteRepository};
use crate::ahead::{Ahead, Answer};
use crate::http::transport::lock;
use crate::manifests::{self, Found, Key};
use crate::upload::{JournalKey, Mount};
use crate::{blobs, referrers, upload};

#[async_trait]
impl Sink for RemoteRepository {
    async fn expect(&self, descriptors: &[Descriptor]) -> Result<()> {
        let mut state = lock(&self.0.state);
        let blobs = descriptors.iter().filter(|blob| !blob.media_type.is_document());
        state.expected = blobs.map(|blob| (blob.digest, blob.size)).collect();
        Ok(())
    }

    async fn put(&self, descriptor: &Descriptor, from: &dyn Source) -> Result<Put> {
        if descriptor.media_type.is_document() {
            self.put_document(descriptor, from).await
        } else {
            self.put_blob(descriptor, from).await
        }
    }

    async fn confirm(&self, root: &Descriptor) -> Result<()> {
        manifests::confirm(&self.0.inner, &self.0.target, &Key::Digest(root.digest), root).await
    }

    async fn publish(&self, root: &Descriptor, naming: &Naming) -> Result<()> {
        let Some(tag) = &naming.tag else { return Ok(()) };
        let found = self.manifest(&Key::Digest(root.digest)).await?;
        let found = found.ok_or_else(|| Error::not_found(root.digest, self))?;
        let found = Found { descriptor: root.clone(), ..found };
        self.send_document(&Key::Tag(tag.clone()), &found).await?;
        lock(&self.0.state).cache(found);
        Ok(())
    }

    fn keeps_order(&self) -> bool {
        false
    }

    async fn tagged(&self, tag: &Tag) -> Result<Option<Descriptor>> {
        let Remote { inner, target, state, .. } = &*self.0;
        let found = manifests::get_to_push(inner, target, &Key::Tag(tag.clone())).await?;
        Ok(found.map(|found| {
            let descriptor = found.descriptor.clone();
            lock(state).cache(found);
            descriptor
        }))
    }

    async fn is_complete(&self, root: &Descriptor, naming: &Naming) -> Result<bool> {
        let Remote { inner, target, .. } = &*self.0;
        let key = naming.tag.clone().map_or(Key::Digest(root.digest), Key::Tag);
        let found = manifests::head_to_push(inner, target, &key).await?;
        let is_there = found.is_some_and(|found| found.digest == root.digest && found.size == root.size);
        // What has a tag was listed before. What has none may be there without, if whoever put it got no further.
        let listed = naming.tag.is_some() || inner.memory.lists_referrers(&target.endpoint) == Some(true);
        if !is_there || listed {
            return Ok(is_there);
        }
        match manifests::get_to_push(inner, target, &key).await? {
            Some(found) => referrers::is_listed(inner, target, &found).await,
            None => Ok(false),
        }
    }
}

impl RemoteRepository {
    async fn put_blob(&self, descriptor: &Descriptor, from: &dyn Source) -> Result<Put> {
        let Remote { inner, target, repository, .. } = &*self.0;
        let (endpoint, digest) = (&target.endpoint, &descriptor.digest);
        let source = from.repository(descriptor);
        if source == Some(repository) {
            return Ok(Put::Present);
        }
        let _flight = inner.memory.board(endpoint, digest).await;
        if inner.memory.holds(endpoint, &target.path, digest) {
            return Ok(Put::Present);
        }
        let neighbor = source.filter(|source| source.registry() == repository.registry());
        let neighbor = neighbor.map(|source| source.path().to_owned());
        let neighbor = neighbor.or_else(|| inner.memory.holder(endpoint, digest)).map(Mount::From);
        let mount = match neighbor {
            None => self.mount_instead_of_asking(),
            neighbor => neighbor,
        };
        let key = JournalKey { repository: repository.clone(), digest: *digest, size: descriptor.size };
        let put = match mount {
            Some(mount) => upload::put(inner, target, &key, descriptor, from, Some(&mount), None).await?,
            // An answer is far away: the upload begins before it is known whether it is needed. As it is a mount, most
            // registries tell that too.
            None if inner.http.is_far(&endpoint.base)
                && inner.memory.mounts_from_itself(endpoint).is_none()
                && let Some(answer) = self.question(digest) =>
            {
                let mount = Mount::From(target.path.clone());
                upload::put(inner, target, &key, descriptor, from, Some(&mount), Some(answer)).await?
            }
            None if self.exists(digest, descriptor.size).await? => {
                if let Some(journal) = &inner.options.journal {
                    // A process may have died between the end of its upload and writing that down.
                    journal.forget(&key).await;
                }
                Put::Present
            }
            None => upload::put(inner, target, &key, descriptor, from, None, None).await?,
        };
        if put == Put::Copied {
            lock(&self.0.state).new.insert(*digest);
        }
        inner.memory.remember(endpoint, &target.path, digest);
        Ok(put)
    }

    /// Where the registry was found to answer a mount by what it has, one request begins an upload and tells whether it
    /// is needed.
    fn mount_instead_of_asking(&self) -> Option<Mount> {
        let Remote { inner, target, repository, .. } = &*self.0;
        let probed = inner.options.capabilities.get(repository.registry());
        if probed.is_some_and(|capabilities| capabilities.anonymous_mount == Some(true)) {
            Some(Mount::FromAnywhere)
        } else if probed.is_some_and(|capabilities| capabilities.mount_from_itself == Some(true))
            || inner.memory.mounts_from_itself(&target.endpoint) == Some(true)
        {
            Some(Mount::From(target.path.clone()))
        } else {
            None
        }
    }

    /// Whether a blob is there.
    async fn exists(&self, digest: &Digest, size: u64) -> Result<bool> {
        if let Some(answer) = self.question(digest)
            && let Ok(exists) = answer.await
        {
            return Ok(exists);
        }
        let Remote { inner, target, .. } = &*self.0;
        blobs::exists_to_push(inner, target, &target.access_to_push(), digest, size).await
    }

    /// The answer to whether a blob is there, if it was expected. With the first goes the question for all of them.
    fn question(&self, digest: &Digest) -> Option<Answer> {
        let Remote { inner, target, state, .. } = &*self.0;
        let mut state = lock(state);
        if !state.expected.is_empty() {
            let expected = std::mem::take(&mut state.expected).into_iter();
            let unknown = |(expected, _): &(Digest, u64)| {
                expected == digest || inner.memory.holder(&target.endpoint, expected).is_none()
            };
            state.ahead = Ahead::ask(inner, target, expected.filter(unknown).collect());
        }
        state.ahead.take(digest)
    }

    async fn put_document(&self, descriptor: &Descriptor, from: &dyn Source) -> Result<Put> {
        let Remote { inner, target, .. } = &*self.0;
        let key = Key::Digest(descriptor.digest);
        let bytes = from.read(descriptor).await?;
        let found = Found { descriptor: descriptor.clone(), bytes: bytes.clone() };
        let is_it = |there: Descriptor| there.digest == descriptor.digest && there.size == descriptor.size;
        if !self.is_new(&found) && manifests::head_to_push(inner, target, &key).await?.is_some_and(is_it) {
            referrers::add_again(inner, target, &found).await?;
            lock(&self.0.state).cache(found);
            return Ok(Put::Present);
        }
        self.send_document(&key, &found).await?;
        let mut state = lock(&self.0.state);
        state.new.insert(descriptor.digest);
        state.cache(found);
        Ok(Put::Copied)
    }

    /// Whether a manifest cannot be here, because something that it names was not until now.
    fn is_new(&self, found: &Found) -> bool {
        let state = lock(&self.0.state);
        let document = Document::parse(&found.descriptor.media_type, found.bytes.clone());
        !state.new.is_empty()
            && document.is_ok_and(|document| document.children().any(|child| state.new.contains(&child.digest)))
    }

    async fn send_document(&self, key: &Key, found: &Found) -> Result<()> {
        let Remote { inner, target, .. } = &*self.0;
        let taken = manifests::put(inner, target, key, &found.descriptor, found.bytes.clone()).await?;
        if taken.subject { Ok(()) } else { referrers::add(inner, target, found).await }
    }
}
