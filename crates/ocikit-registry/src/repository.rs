use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use ocikit_image::{Body, ByteRange, Error, Name, Naming, Put, Result, Sink, Source, SourceExt};
use ocikit_spec::{Descriptor, Digest, Document, MediaType, Repository, Tag};

use crate::ahead::Ahead;
use crate::client::Inner;
use crate::hosts::{Place, Serves};
use crate::http::transport::lock;
use crate::manifests::{self, Found, Key};
use crate::target::Target;
use crate::upload::{JournalKey, Mount};
use crate::{blobs, download, referrers, tags, upload};

/// How many bytes of manifests are kept at hand.
const CACHED: usize = 8 << 20;

/// A repository in a registry. Cheap to clone; all clones write to the same place.
#[derive(Debug, Clone)]
pub struct RemoteRepository(Arc<Remote>);

#[derive(Debug)]
struct Remote {
    inner: Arc<Inner>,
    repository: Repository,
    /// Where it is written.
    target: Arc<Target>,
    /// Where it is read: mirrors, if there are any, and at last the registry itself.
    reads: Vec<Read>,
    state: Mutex<State>,
}

/// A place to read from.
#[derive(Debug)]
struct Read {
    target: Arc<Target>,
    serves: Serves,
}

#[derive(Debug, Default)]
struct State {
    /// Manifests that were read or put, by digest.
    documents: HashMap<Digest, Found>,
    cached: usize,
    /// The last of what is expected: roots, whose manifests are sent when they get their name, so that they are sent
    /// once.
    roots: HashSet<Digest>,
    /// Roots that were put and have no name yet.
    waiting: HashMap<Digest, Found>,
    /// Blobs that are expected and that nobody has asked for.
    expected: Vec<Digest>,
    ahead: Ahead,
    /// Blobs that were not here before: a manifest that names one of them is not here either.
    new: HashSet<Digest>,
}

impl State {
    fn cache(&mut self, found: Found) {
        if self.cached + found.bytes.len() > CACHED {
            self.documents.clear();
            self.cached = 0;
        }
        let size = found.bytes.len();
        if self.documents.insert(found.descriptor.digest, found).is_none() {
            self.cached += size;
        }
    }
}

impl RemoteRepository {
    pub(crate) fn new(inner: Arc<Inner>, repository: Repository) -> Result<RemoteRepository> {
        let routes = inner.options.hosts.registries.routes(&repository)?;
        let target = |repository: &Repository, insecure, place: String| {
            let endpoint = inner.endpoint(repository.registry(), insecure)?;
            Ok::<_, Error>(Arc::new(Target { endpoint, path: repository.path().to_owned(), place }))
        };
        let name = repository.to_string();
        let itself = target(&repository, routes.insecure, name.clone())?;
        let read = |Place { repository: found, insecure, serves }: &Place| {
            let target = match found == &repository {
                true => itself.clone(),
                false => target(found, *insecure, format!("{name} at {found}"))?,
            };
            Ok(Read { target, serves: *serves })
        };
        let reads = routes.reads.iter().map(read).collect::<Result<_>>()?;
        Ok(RemoteRepository(Arc::new(Remote { target: itself, inner, repository, reads, state: Mutex::default() })))
    }

    /// Which one it is.
    pub fn name(&self) -> &Repository {
        &self.0.repository
    }

    /// The descriptor of a manifest, by a request that carries no manifest; `None` if there is no such.
    ///
    /// [`Source::resolve`] gets the manifest along with it, which is best for whoever reads on. This is for those who
    /// only want to know: some registries count manifests against a limit and such requests not.
    ///
    /// # Errors
    ///
    /// Those of the registry.
    pub async fn head(&self, name: &Name) -> Result<Option<Descriptor>> {
        match key(name) {
            Some(key) => {
                let head = |target: Arc<Target>| {
                    let key = &key;
                    async move { manifests::head(&self.0.inner, &target, key).await }
                };
                self.read(serves(&key), head).await
            }
            None => Ok(None),
        }
    }

    /// The tags, in the order in which the registry lists them. What it lists that is no tag by the specification is
    /// left out.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if there is no such repository, and others of the registry.
    pub async fn tags(&self) -> Result<Vec<Tag>> {
        let list = |target: Arc<Target>| async move { tags::list(&self.0.inner, &target).await.map(Some) };
        let listed = self.read(Serves::All, list).await?;
        let listed = listed.unwrap_or_default();
        Ok(listed.into_iter().filter_map(|tag| tag.parse().ok()).collect())
    }

    /// Removes a tag and leaves what it led to.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], and [`Error::Refused`] by registries that remove manifests only by digest. That is not
    /// done in place of this: it would take other tags along.
    pub async fn delete_tag(&self, tag: &Tag) -> Result<()> {
        manifests::delete(&self.0.inner, &self.0.target, &Key::Tag(tag.clone())).await
    }

    /// Removes a manifest and every tag that leads to it; one that is about another is no longer listed there.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], and [`Error::Refused`] where nothing is ever removed.
    pub async fn delete_manifest(&self, digest: &Digest) -> Result<()> {
        let Remote { inner, target, state, .. } = &*self.0;
        let key = Key::Digest(*digest);
        let found = self.manifest(&key).await?.ok_or_else(|| Error::not_found(digest, self))?;
        lock(state).documents.remove(digest);
        manifests::delete(inner, target, &key).await?;
        let document = Document::parse(&found.descriptor.media_type, found.bytes.clone()).ok();
        match document.as_ref().and_then(Document::subject) {
            Some(subject) if referrers::is_by_tag(inner, target, &subject.digest).await? => {
                referrers::remove(inner, target, &found).await
            }
            _ => Ok(()),
        }
    }

    /// The manifests that are about a subject, of one type of artifact. [`Source::referrers`] has those of all types.
    ///
    /// # Errors
    ///
    /// Those of the registry; none is an empty list.
    pub async fn referrers_of_type(&self, subject: &Digest, artifact_type: &MediaType) -> Result<Vec<Descriptor>> {
        self.list_referrers(subject, Some(artifact_type)).await
    }

    /// Removes a blob, whether or not a manifest names it.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], and [`Error::Refused`] where nothing is ever removed.
    pub async fn delete_blob(&self, digest: &Digest) -> Result<()> {
        let Remote { inner, target, .. } = &*self.0;
        inner.memory.forget(&target.endpoint, &target.path, digest);
        blobs::delete(inner, target, digest).await
    }

    async fn list_referrers(&self, subject: &Digest, artifact_type: Option<&MediaType>) -> Result<Vec<Descriptor>> {
        // A mirror may have the image and not what was said of it later.
        let list = |target: Arc<Target>| async move {
            let found = referrers::list(&self.0.inner, &target, subject, artifact_type).await?;
            Ok(Some(found).filter(|found| !found.is_empty()))
        };
        Ok(self.read(Serves::All, list).await?.unwrap_or_default())
    }

    /// Asks the mirrors and then the registry itself until one has it. What a mirror fails with is passed over; what
    /// the registry says is the answer.
    async fn read<T, F: Future<Output = Result<Option<T>>> + Send>(
        &self,
        kind: Serves,
        ask: impl Fn(Arc<Target>) -> F,
    ) -> Result<Option<T>> {
        let asked = |read: &&Read| kind == Serves::All || read.serves == Serves::All || read.serves == kind;
        let mut answer = Ok(None);
        for read in self.0.reads.iter().filter(asked) {
            answer = ask(read.target.clone()).await;
            if matches!(answer, Ok(Some(_))) {
                break;
            }
        }
        answer
    }

    /// A manifest from memory, or from the registry.
    async fn manifest(&self, key: &Key) -> Result<Option<Found>> {
        if let Key::Digest(digest) = key {
            let state = lock(&self.0.state);
            if let Some(found) = state.waiting.get(digest).or_else(|| state.documents.get(digest)) {
                return Ok(Some(found.clone()));
            }
        }
        let get = |target: Arc<Target>| async move { manifests::get(&self.0.inner, &target, key).await };
        let found = self.read(serves(key), get).await?;
        if let Some(found) = &found
            && !matches!(key, Key::Digest(digest) if *digest != found.descriptor.digest)
        {
            lock(&self.0.state).cache(found.clone());
        }
        Ok(found)
    }

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
        let put = if mount.is_none() && self.exists(digest).await? {
            Put::Present
        } else {
            let key = JournalKey { repository: repository.clone(), digest: *digest, size: descriptor.size };
            upload::put(inner, target, &key, descriptor, from, mount.as_ref()).await?
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
        let capabilities = inner.options.capabilities.get(repository.registry().as_str())?;
        if capabilities.anonymous_mount == Some(true) {
            Some(Mount::FromAnywhere)
        } else if capabilities.mount_from_itself == Some(true) {
            Some(Mount::From(target.path.clone()))
        } else {
            None
        }
    }

    /// Whether a blob is there. With the first that is asked for goes the question for all that are expected.
    async fn exists(&self, digest: &Digest) -> Result<bool> {
        let Remote { inner, target, state, .. } = &*self.0;
        let answer = {
            let mut state = lock(state);
            if !state.expected.is_empty() {
                let expected = std::mem::take(&mut state.expected).into_iter();
                let unknown =
                    |expected: &Digest| expected != digest && inner.memory.holder(&target.endpoint, expected).is_none();
                state.ahead = Ahead::ask(inner, target, expected.filter(unknown).collect());
            }
            state.ahead.take(digest)
        };
        if let Some(answer) = answer
            && let Ok(exists) = answer.await
        {
            return Ok(exists);
        }
        blobs::exists(inner, target, &target.access_to_push(), digest).await
    }

    async fn put_document(&self, descriptor: &Descriptor, from: &dyn Source) -> Result<Put> {
        let Remote { inner, target, .. } = &*self.0;
        let key = Key::Digest(descriptor.digest);
        let bytes = from.read(descriptor).await?;
        let found = Found { descriptor: descriptor.clone(), bytes: bytes.clone() };
        if !self.is_new(&found) && manifests::head_to_push(inner, target, &key).await?.is_some() {
            lock(&self.0.state).cache(found);
            return Ok(Put::Present);
        }
        {
            let mut state = lock(&self.0.state);
            if state.roots.remove(&descriptor.digest) {
                state.waiting.insert(descriptor.digest, found);
                return Ok(Put::Copied);
            }
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

    /// Sends a root by its digest, if it still waits for a name.
    async fn send_waiting(&self, digest: &Digest) -> Result<()> {
        let waiting = lock(&self.0.state).waiting.get(digest).cloned();
        if let Some(found) = waiting {
            self.send_document(&Key::Digest(*digest), &found).await?;
            self.sent(found);
        }
        Ok(())
    }

    fn sent(&self, found: Found) {
        let mut state = lock(&self.0.state);
        state.waiting.remove(&found.descriptor.digest);
        state.cache(found);
    }
}

/// What a name chooses here, where nothing is the only one and nothing has a full name.
fn key(name: &Name) -> Option<Key> {
    match name {
        Name::Tag(tag) => Some(Key::Tag(tag.clone())),
        Name::Digest(digest) => Some(Key::Digest(*digest)),
        Name::Only | Name::Full(_) => None,
    }
}

/// What a place has to serve to be asked for a manifest.
fn serves(key: &Key) -> Serves {
    match key {
        Key::Tag(_) => Serves::TagOnly,
        Key::Digest(_) => Serves::DigestOnly,
    }
}

impl fmt::Display for RemoteRepository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.repository, f)
    }
}

#[async_trait]
impl Source for RemoteRepository {
    async fn resolve(&self, name: &Name) -> Result<Descriptor> {
        let found = match key(name) {
            Some(key) => self.manifest(&key).await?,
            None => None,
        };
        found.map(|found| found.descriptor).ok_or_else(|| Error::not_found(name, self))
    }

    async fn open_unverified(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        if !descriptor.media_type.is_document() {
            let open = |target: Arc<Target>| async move {
                download::open(&self.0.inner, &target, descriptor, range).await.map(Some)
            };
            let body = self.read(Serves::DigestOnly, open).await?;
            return body.ok_or_else(|| Error::not_found(descriptor.digest, self));
        }
        let found = self.manifest(&Key::Digest(descriptor.digest)).await?;
        let bytes = found.ok_or_else(|| Error::not_found(descriptor.digest, self))?.bytes;
        let (offset, length) = range.within(bytes.len() as u64);
        Ok(slice(&bytes, offset, length).into())
    }

    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        let Remote { inner, state, .. } = &*self.0;
        if !descriptor.media_type.is_document() {
            let exists = |target: Arc<Target>| async move {
                let found = blobs::exists(inner, &target, &target.access(), &descriptor.digest).await?;
                Ok(found.then_some(()))
            };
            return Ok(self.read(Serves::DigestOnly, exists).await?.is_some());
        }
        if lock(state).waiting.contains_key(&descriptor.digest) {
            return Ok(true);
        }
        let key = Key::Digest(descriptor.digest);
        let head = |target: Arc<Target>| {
            let key = &key;
            async move { manifests::head(inner, &target, key).await }
        };
        Ok(self.read(Serves::DigestOnly, head).await?.is_some())
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.list_referrers(subject, None).await
    }

    fn repository(&self, descriptor: &Descriptor) -> Option<&Repository> {
        (!descriptor.media_type.is_document()).then_some(&self.0.repository)
    }
}

#[async_trait]
impl Sink for RemoteRepository {
    async fn expect(&self, descriptors: &[Descriptor]) -> Result<()> {
        let mut state = lock(&self.0.state);
        let root = descriptors.last().filter(|last| last.media_type.is_document());
        state.roots.extend(root.map(|root| root.digest));
        let blobs = descriptors.iter().filter(|blob| !blob.media_type.is_document());
        state.expected = blobs.map(|blob| blob.digest).collect();
        Ok(())
    }

    async fn put(&self, descriptor: &Descriptor, from: &dyn Source) -> Result<Put> {
        if descriptor.media_type.is_document() {
            self.put_document(descriptor, from).await
        } else {
            self.put_blob(descriptor, from).await
        }
    }

    async fn publish(&self, root: &Descriptor, naming: &Naming) -> Result<()> {
        let Some(tag) = &naming.tag else { return self.send_waiting(&root.digest).await };
        let found = self.manifest(&Key::Digest(root.digest)).await?;
        let found = found.ok_or_else(|| Error::not_found(root.digest, self))?;
        let found = Found { descriptor: root.clone(), ..found };
        self.send_document(&Key::Tag(tag.clone()), &found).await?;
        self.sent(found);
        Ok(())
    }

    async fn finish(&self) -> Result<()> {
        let waiting: Vec<_> = lock(&self.0.state).waiting.keys().copied().collect();
        for digest in waiting {
            self.send_waiting(&digest).await?;
        }
        Ok(())
    }

    async fn is_complete(&self, root: &Descriptor, naming: &Naming) -> Result<bool> {
        let key = naming.tag.clone().map_or(Key::Digest(root.digest), Key::Tag);
        let found = manifests::head_to_push(&self.0.inner, &self.0.target, &key).await?;
        Ok(found.is_some_and(|found| found.digest == root.digest))
    }
}

fn slice(bytes: &Bytes, offset: u64, length: u64) -> Bytes {
    // Both are within the length of the bytes.
    bytes.slice(offset as usize..(offset + length) as usize)
}
