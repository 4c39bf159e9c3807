//! A repository as a place to read from and to write to.

mod sink;
mod source;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use ocikit_image::{Error, Memory, Name, Result, Sink};
use ocikit_spec::{Descriptor, Digest, Document, MediaType, Repository, Tag};

use crate::ahead::Ahead;
use crate::client::Inner;
use crate::hosts::{Place, Serves};
use crate::http::transport::lock;
use crate::manifests::{self, Found, Key};
use crate::tags::{self, ListOptions};
use crate::target::Target;
use crate::{blobs, referrers};

use source::{key, serves};

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
    /// Blobs that are expected and that nobody has asked for.
    expected: Vec<(Digest, u64)>,
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
        let target = |found: &Repository, insecure, place: String| {
            let endpoint = match found.registry() == repository.registry() {
                true => inner.endpoint(found.registry(), insecure)?,
                false => inner.mirror(found.registry(), insecure)?,
            };
            Ok::<_, Error>(Arc::new(Target { endpoint, path: found.path().to_owned(), place }))
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
    /// [`Source::resolve`](ocikit_image::Source::resolve) gets the manifest along with it, which is best for whoever
    /// reads on. This is for those who only want to know: some registries count manifests against a limit and such
    /// requests not.
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

    /// The tags, in the order in which the registry lists them.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if there is no such repository, [`Error::Protocol`] if the list may lack tags or has something
    /// that is no tag by the specification, and others of the registry.
    pub async fn tags(&self) -> Result<Vec<Tag>> {
        self.tags_part(&ListOptions::default()).await
    }

    /// The same for a part of the list.
    ///
    /// # Errors
    ///
    /// As [`RemoteRepository::tags`].
    pub async fn tags_part(&self, options: &ListOptions) -> Result<Vec<Tag>> {
        let list = |target: Arc<Target>| async move { tags::list(&self.0.inner, &target, options).await.map(Some) };
        let listed = self.read(Serves::All, list).await?;
        let invalid = |error| Error::protocol(self, format!("its list of tags cannot be used: {error}"));
        listed.unwrap_or_default().iter().map(|tag| tag.parse().map_err(invalid)).collect()
    }

    /// A blob by its digest alone; `None` if there is no such.
    ///
    /// # Errors
    ///
    /// Those of the registry; [`Error::Protocol`] if it does not say how many bytes the blob has.
    pub async fn blob(&self, digest: &Digest) -> Result<Option<Descriptor>> {
        let size = |target: Arc<Target>| async move { blobs::size(&self.0.inner, &target, digest).await };
        let size = self.read(Serves::DigestOnly, size).await?;
        Ok(size.map(|size| Descriptor::new(MediaType::OCTET_STREAM, *digest, size)))
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

    /// Removes a tag from a registry that removes manifests only by digest: the tag is given to a manifest that nobody
    /// else has, and that manifest is removed with it. For a moment the tag leads to nothing that could be run.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if there is no such tag; [`Error::Refused`] where nothing is ever removed and
    /// [`Error::Unsupported`] where tags outlive what they lead to: then the tag is given back to what it led to.
    pub async fn delete_tag_by_replacing(&self, tag: &Tag) -> Result<()> {
        let Remote { inner, target, .. } = &*self.0;
        let key = Key::Tag(tag.clone());
        // Of the registry itself: what a mirror has may be old.
        let old =
            manifests::get(inner, target, &key).await?.ok_or_else(|| Error::not_found(format!("tag {tag}"), self))?;
        let text = format!("a stand-in for a tag that is removed: {:016x}", inner.options.clock.random());
        let memory = Memory::new();
        let config = Descriptor::of(MediaType::OCI_EMPTY, b"{}");
        memory.insert(&b"{}"[..]);
        self.put(&config, &memory).await?;
        let bytes = stand_in(&config, &text);
        let descriptor = Descriptor::of(MediaType::OCI_MANIFEST, &bytes);
        manifests::put(inner, target, &key, &descriptor, bytes).await?;
        let mut deleted = manifests::delete(inner, target, &Key::Digest(descriptor.digest)).await;
        if deleted.is_ok() && manifests::head(inner, target, &key).await?.is_some() {
            let what = "it keeps tags that lead to what it has removed".to_owned();
            deleted = Err(Error::Unsupported { place: target.place.clone(), what });
        }
        if deleted.is_err() {
            manifests::put(inner, target, &key, &old.descriptor, old.bytes).await?;
        }
        deleted
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

    /// The manifests that are about a subject, of one type of artifact.
    /// [`Source::referrers`](ocikit_image::Source::referrers) has those of all types.
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
}

/// An artifact of nothing, which its annotation makes different from all others.
fn stand_in(config: &Descriptor, text: &str) -> Bytes {
    let (size, digest) = (config.size, config.digest);
    let empty = format!(r#"{{"mediaType":"{}","digest":"{digest}","size":{size}}}"#, config.media_type);
    let media_type = MediaType::OCI_MANIFEST;
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{media_type}","artifactType":"application/vnd.ocikit.removed","config":{empty},"layers":[{empty}],"annotations":{{"org.opencontainers.image.description":"{text}"}}}}"#
    );
    manifest.into()
}

impl fmt::Display for RemoteRepository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.repository, f)
    }
}
