//! A repository in a registry as a source and a sink.

mod move_tag;
mod sink;
mod source;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use bytes::Bytes;
use ocikit_http::lock;
use ocikit_image::{Error, Memory, Name, Result, Sink};
use ocikit_spec::{Descriptor, Digest, Document, MediaType, Repository, Tag};

use crate::existence::ExistenceChecks;
use crate::hosts::{MirrorScope, ReadLocation};
use crate::inner::Inner;
use crate::manifests::{self, FetchedManifest};
use crate::tags::{self, ListOptions};
use crate::target::{ManifestKey, Target};
use crate::{blobs, referrers};

/// Maximum total size of the manifests in the cache, in bytes.
const MAX_CACHED_MANIFEST_BYTES: usize = 8 << 20;

/// A repository in a registry. Cheap to clone; all clones share their state.
#[derive(Debug, Clone)]
pub struct RemoteRepository(Arc<Remote>);

#[derive(Debug)]
struct Remote {
    repository: Repository,
    /// Where it is written.
    target: Arc<Target>,
    /// Where it is read: from the mirrors, if there are any, and finally from the registry itself.
    reads: Vec<ReadTarget>,
    state: Mutex<RepositoryState>,
}

/// A location to read from.
#[derive(Debug)]
struct ReadTarget {
    target: Arc<Target>,
    scope: MirrorScope,
}

#[derive(Debug, Default)]
struct RepositoryState {
    /// Manifests that were read or put, by digest.
    documents: HashMap<Digest, FetchedManifest>,
    cached: usize,
    /// Blobs of unknown media types, which may be manifests.
    read_as_blobs: HashSet<Digest>,
    /// Blobs that were announced by `expect` and not checked yet.
    expected: Vec<(Digest, u64)>,
    checks: ExistenceChecks,
    /// New roots that are stored together with their tag, and their bytes once they were put.
    deferred: HashMap<Digest, Option<FetchedManifest>>,
    /// What tags led to when they were last read from the registry itself.
    tag_reads: HashMap<Tag, TagRead>,
    /// When tags were read that are about to be moved.
    tags_read: HashMap<Tag, SystemTime>,
    /// Blobs and manifests that did not exist before this push. A manifest that references one of them does not exist
    /// either.
    new: HashSet<Digest>,
}

/// What a tag led to.
#[derive(Debug, Clone)]
struct TagRead {
    digest: Digest,
    entity_tag: Option<String>,
    started: SystemTime,
    ended: SystemTime,
}

impl RepositoryState {
    fn cache(&mut self, found: FetchedManifest) {
        if self.cached + found.bytes.len() > MAX_CACHED_MANIFEST_BYTES {
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
            Ok::<_, Error>(Arc::new(Target { inner: inner.clone(), endpoint, path: found.path().to_owned(), place }))
        };
        let name = repository.to_string();
        let itself = target(&repository, routes.insecure, name.clone())?;
        let read = |ReadLocation { repository: found, insecure, scope }: &ReadLocation| {
            let target = match found == &repository {
                true => itself.clone(),
                false => target(found, *insecure, format!("{name} at {found}"))?,
            };
            Ok(ReadTarget { target, scope: *scope })
        };
        let reads = routes.reads.iter().map(read).collect::<Result<_>>()?;
        Ok(RemoteRepository(Arc::new(Remote { target: itself, repository, reads, state: Mutex::default() })))
    }

    /// Adds to an error what is known about the credential. Once the repository has returned a manifest, it does not hide,
    /// and 404 means that something does not exist.
    async fn explain_denial<T>(&self, outcome: Result<T>) -> Result<T> {
        let Remote { target, state, .. } = &*self.0;
        match outcome {
            Err(error @ (Error::NotFound { .. } | Error::Refused { .. })) if !lock(state).documents.is_empty() => {
                Err(error)
            }
            Err(error) => Err(target.explain_denial(error).await),
            outcome => outcome,
        }
    }

    /// Returns the name of the repository.
    pub fn name(&self) -> &Repository {
        &self.0.repository
    }

    /// Returns the descriptor of a manifest with a `HEAD` request; `None` if it does not exist.
    ///
    /// [`Source::resolve`](ocikit_image::Source::resolve) downloads the manifest, which saves a request if it is read
    /// next. Use `head` if only the descriptor is needed: Docker Hub counts `GET` requests for manifests against its
    /// rate limit, and `HEAD` requests not (containers/image#1078).
    ///
    /// # Errors
    ///
    /// Those of the registry.
    pub async fn head(&self, name: &Name) -> Result<Option<Descriptor>> {
        let Some(key) = &ManifestKey::of(name) else { return Ok(None) };
        let head = |target: Arc<Target>| async move { manifests::head(&target, key, &target.access()).await };
        self.explain_denial(self.read(key.mirror_scope(), head).await).await
    }

    /// Returns the tags, in the order of the registry.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if the repository does not exist, [`Error::Protocol`] if the list may be incomplete or has
    /// an invalid entry, and others of the registry.
    pub async fn tags(&self) -> Result<Vec<Tag>> {
        self.tags_part(&ListOptions::default()).await
    }

    /// Returns a part of the tags.
    ///
    /// # Errors
    ///
    /// As [`RemoteRepository::tags`].
    pub async fn tags_part(&self, options: &ListOptions) -> Result<Vec<Tag>> {
        let list = |target: Arc<Target>| async move { tags::list(&target, options).await.map(Some) };
        let listed = self.explain_denial(self.read(MirrorScope::All, list).await).await?;
        let invalid = |error| Error::protocol(self, format!("its list of tags cannot be used: {error}"));
        listed.unwrap_or_default().iter().map(|tag| tag.parse().map_err(invalid)).collect()
    }

    /// Returns the descriptor of a blob by its digest alone; `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// Those of the registry; [`Error::Protocol`] if it does not state the size of the blob.
    pub async fn blob(&self, digest: &Digest) -> Result<Option<Descriptor>> {
        let size = |target: Arc<Target>| async move { blobs::size(&target, digest).await };
        let size = self.read(MirrorScope::DigestOnly, size).await?;
        Ok(size.map(|size| Descriptor::new(MediaType::OCTET_STREAM, *digest, size)))
    }

    /// Deletes a tag and keeps the manifest.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], and [`Error::Refused`] by registries that delete manifests only by digest. The manifest is
    /// not deleted instead, since its other tags would be lost.
    pub async fn delete_tag(&self, tag: &Tag) -> Result<()> {
        let deleted = manifests::delete(&self.0.target, &ManifestKey::Tag(tag.clone())).await;
        self.explain_denial(deleted).await
    }

    /// Deletes a tag from a registry that deletes manifests only by digest: moves the tag to a placeholder manifest
    /// without other tags, and deletes the placeholder. Until then the tag refers to an artifact that cannot run.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if the tag does not exist; [`Error::Refused`] if the registry deletes nothing and
    /// [`Error::Unsupported`] if it keeps tags of deleted manifests: then the tag is moved back.
    pub async fn delete_tag_by_replacing(&self, tag: &Tag) -> Result<()> {
        let Remote { target, .. } = &*self.0;
        let key = ManifestKey::Tag(tag.clone());
        // Read from the registry itself, since a mirror may be outdated.
        let old = manifests::get(target, &key, &target.access())
            .await?
            .ok_or_else(|| Error::not_found(format!("tag {tag}"), self))?;
        let text = format!("a stand-in for a tag that is removed: {:016x}", target.inner.options.clock.random());
        let memory = Memory::new();
        let config = Descriptor::of(MediaType::OCI_EMPTY, b"{}");
        memory.insert(&b"{}"[..]);
        self.put(&config, &memory).await?;
        let bytes = stand_in(&config, &text);
        let descriptor = Descriptor::of(MediaType::OCI_MANIFEST, &bytes);
        manifests::put(target, &key, &descriptor, bytes, None).await?;
        let mut deleted = manifests::delete(target, &ManifestKey::Digest(descriptor.digest)).await;
        if deleted.is_ok() && manifests::head(target, &key, &target.access()).await?.is_some() {
            let what = "it keeps the tags of deleted manifests".to_owned();
            deleted = Err(Error::Unsupported { place: target.place.clone(), what });
        }
        if deleted.is_err() {
            manifests::put(target, &key, &old.descriptor, old.bytes, None).await?;
        }
        deleted
    }

    /// Deletes a manifest and every tag that refers to it. A referrer is also removed from the list of its subject.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], and [`Error::Refused`] if the registry deletes nothing.
    pub async fn delete_manifest(&self, digest: &Digest) -> Result<()> {
        let Remote { target, state, .. } = &*self.0;
        let key = ManifestKey::Digest(*digest);
        let found = self.manifest(&key).await?.ok_or_else(|| Error::not_found(digest, self))?;
        lock(state).documents.remove(digest);
        manifests::delete(target, &key).await?;
        let document = Document::parse(&found.descriptor.media_type, found.bytes.clone()).ok();
        match document.as_ref().and_then(Document::subject) {
            Some(subject) if referrers::uses_fallback_tag(target, &subject.digest).await? => {
                referrers::remove(target, &found).await
            }
            _ => Ok(()),
        }
    }

    /// Returns the referrers of a subject with one artifact type.
    /// [`Source::referrers`](ocikit_image::Source::referrers) returns those of all types.
    ///
    /// # Errors
    ///
    /// Those of the registry; having no referrers is an empty list.
    pub async fn referrers_of_type(&self, subject: &Digest, artifact_type: &MediaType) -> Result<Vec<Descriptor>> {
        self.list_referrers(subject, Some(artifact_type)).await
    }

    /// Deletes a blob, whether or not a manifest references it.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], and [`Error::Refused`] if the registry deletes nothing.
    pub async fn delete_blob(&self, digest: &Digest) -> Result<()> {
        let Remote { target, .. } = &*self.0;
        target.inner.cache.forget(&target.endpoint, &target.path, digest);
        blobs::delete(target, digest).await
    }
}

/// Returns a placeholder manifest, whose annotation makes its digest unique.
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
