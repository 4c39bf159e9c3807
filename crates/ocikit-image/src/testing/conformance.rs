use std::fmt;
use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use ocikit_spec::{Descriptor, Digest, MediaType, Platform, Tag};

use super::{image, index, random, referrer};
use crate::body::Body;
use crate::copy::{CopyOptions, copy};
use crate::error::{Error, Mismatch, Result};
use crate::memory::Memory;
use crate::root::Root;
use crate::source::{ByteRange, Name, Naming, Put, Sink, Source, SourceExt};

/// A place under test, which is empty at first.
#[async_trait]
pub trait Place: Send + Sync {
    /// Opens the place for writing. An archive may be created again or extended.
    async fn sink(&self) -> Arc<dyn Sink>;

    /// Opens the place for reading, after the sink was finished.
    async fn source(&self) -> Result<Arc<dyn Source>>;

    /// Returns whether a root can be published without a tag.
    fn lists_untagged(&self) -> bool {
        true
    }

    /// Returns whether the place keeps its contents when it is opened for writing again.
    fn keeps(&self) -> bool {
        true
    }

    /// Returns whether the place lists referrers.
    fn finds_referrers(&self) -> bool {
        true
    }
}

/// Runs every check, each against a new place.
///
/// # Panics
///
/// If the place breaks a promise of [`Source`] or [`Sink`].
pub async fn conformance<P: Place, F: Future<Output = P>>(new: impl Fn() -> F) {
    holds_what_was_copied(&new().await).await;
    holds_blobs_of_every_size(&new().await).await;
    says_what_is_missing(&new().await).await;
    refuses_damaged_blobs(&new().await).await;
    puts_a_blob_once(&new().await).await;
    shows_nothing_before_it_is_published(&new().await).await;
    let place = new().await;
    if place.lists_untagged() {
        finds_the_only_root(&place).await;
    }
    let place = new().await;
    if place.keeps() {
        moves_tags(&place).await;
        replaces_roots(&new().await).await;
    }
    let place = new().await;
    if place.finds_referrers() {
        finds_referrers(&place).await;
    }
}

fn tag(text: &str) -> Tag {
    text.parse().expect("a tag")
}

fn named(text: &str) -> CopyOptions {
    CopyOptions { names: vec![Naming::of_tag(tag(text))], ..CopyOptions::default() }
}

/// Creates two images that share a layer, and an index of both.
fn fixture(memory: &Memory) -> Descriptor {
    let one = image(memory, 1, &Platform::new("linux", "amd64"), &[10, 70_000]);
    let two = image(memory, 2, &Platform::new("linux", "arm64"), &[70_000, 1]);
    index(memory, &[one, two])
}

async fn open(memory: Arc<Memory>, descriptor: &Descriptor) -> Root {
    Root::at(memory, descriptor.clone()).await.expect("a root in memory")
}

async fn holds_what_was_copied(place: &impl Place) {
    let memory = Arc::new(Memory::new());
    let root = open(memory.clone(), &fixture(&memory)).await;
    let copied = copy(&root, &place.sink().await, &named("v1")).await.expect("a copy");
    assert_eq!(copied.root.digest, root.digest());
    assert!(copied.blobs.iter().all(|(_, put)| *put == Put::Copied), "everything was new: {:?}", copied.blobs);

    let source = place.source().await.expect("a finished place opens");
    for name in [Name::Tag(tag("v1")), Name::Digest(root.digest())] {
        let found = source.resolve(&name).await.expect("a name that was published");
        assert_eq!((found.digest, found.size), (root.digest(), root.descriptor().size), "{name}");
        assert_eq!(found.media_type, MediaType::OCI_INDEX, "{name}");
    }
    for (blob, _) in &copied.blobs {
        assert!(source.has(blob).await.expect("an answer"), "{}", blob.digest);
        let (here, there) = (memory.read(blob).await, source.read(blob).await);
        assert_eq!(here.expect("a blob in memory"), there.expect("a blob that was put"), "{}", blob.digest);
    }
    let opened = Root::open(source.clone(), &Name::Tag(tag("v1"))).await.expect("a root");
    let Root::Index(index) = opened else { unreachable!("an index was copied") };
    let child = index.manifests()[1].digest;
    let found = source.resolve(&Name::Digest(child)).await.expect("a document below a root has a name: its digest");
    assert_eq!(found.media_type, MediaType::OCI_MANIFEST);
}

async fn holds_blobs_of_every_size(place: &impl Place) {
    let memory = Arc::new(Memory::new());
    // Around the sizes of tar blocks, of chunks, and of the read-ahead.
    let sizes = [0, 1, 511, 512, 513, 262_143, 262_144, 262_145, 1_500_000];
    let root = open(memory.clone(), &image(&memory, 1, &Platform::new("linux", "amd64"), &sizes)).await;
    copy(&root, &place.sink().await, &named("sizes")).await.expect("a copy");
    let source = place.source().await.expect("a finished place opens");
    let Root::Image(image) = root else { unreachable!("an image") };
    for layer in image.manifest().layers() {
        let whole = source.read(layer).await.expect("a layer");
        assert_eq!(Digest::sha256_of(&whole), layer.digest, "{} bytes", layer.size);
        for range in [
            ByteRange::from(layer.size / 2),
            ByteRange { offset: 0, length: Some(1) },
            ByteRange { offset: layer.size / 3, length: Some(300_000) },
        ] {
            let (offset, length) = range.within(layer.size);
            if length == 0 {
                continue;
            }
            let body = source.open_unverified(layer, range).await.expect("a range");
            assert_eq!(body.length(), length);
            let bytes = body.bytes().await.expect("the bytes of a range");
            assert_eq!(bytes, whole.slice(offset as usize..(offset + length) as usize), "{range:?} of {}", layer.size);
        }
    }
}

async fn says_what_is_missing(place: &impl Place) {
    let memory = Arc::new(Memory::new());
    let root = open(memory.clone(), &fixture(&memory)).await;
    copy(&root, &place.sink().await, &named("here")).await.expect("a copy");
    let source = place.source().await.expect("a finished place opens");
    let absent = Descriptor::of(MediaType::OCI_LAYER, b"a missing layer");
    let document = Descriptor::of(MediaType::OCI_MANIFEST, b"nor this");
    for name in [Name::Tag(tag("gone")), Name::Digest(document.digest)] {
        assert!(source.resolve(&name).await.expect_err("a name that nothing has").is_not_found(), "{name}");
    }
    for descriptor in [absent, document] {
        assert!(!source.has(&descriptor).await.expect("an answer"));
        assert!(source.open(&descriptor).await.expect_err("a blob that is not there").is_not_found());
    }
}

async fn refuses_damaged_blobs(place: &impl Place) {
    let sink = place.sink().await;
    let blob = Descriptor::of(MediaType::OCI_LAYER, &random(1, 300_000));
    for bytes in [random(2, 300_000), random(1, 299_999), random(1, 300_001), Vec::new()] {
        let liar = Liar { bytes: bytes.into(), claims: blob.size };
        match sink.put(&blob, &liar).await {
            Err(Error::Mismatch { digest, place, mismatch }) => {
                assert_eq!((digest, place.as_str()), (blob.digest, "liar"));
                assert!(matches!(*mismatch, Mismatch::Digest(_) | Mismatch::Size { .. }));
            }
            other => unreachable!("damaged bytes were answered with {other:?}"),
        }
        assert!(!sink.has(&blob).await.expect("an answer"), "a damaged blob is not there");
    }
    // The right bytes are accepted after wrong ones.
    let honest = Liar { bytes: random(1, 300_000).into(), claims: blob.size };
    assert_eq!(sink.put(&blob, &honest).await.expect("a put"), Put::Copied);
}

async fn puts_a_blob_once(place: &impl Place) {
    let sink = place.sink().await;
    let memory = Memory::new();
    let bytes = random(1, 300_000);
    memory.insert(bytes.clone());
    let blob = Descriptor::of(MediaType::OCI_LAYER, &bytes);
    assert_eq!(sink.put(&blob, &memory).await.expect("a put"), Put::Copied);
    assert_eq!(sink.put(&blob, &memory).await.expect("a put"), Put::Present);
    let empty = Memory::new();
    assert_eq!(sink.put(&blob, &empty).await.expect("an existing blob is not read"), Put::Present);
}

async fn shows_nothing_before_it_is_published(place: &impl Place) {
    let memory = Arc::new(Memory::new());
    let root = fixture(&memory);
    {
        let sink = place.sink().await;
        let plan = crate::graph::Graph::of(&[&open(memory.clone(), &root).await], &[], false, &Default::default())
            .await
            .expect("a graph")
            .plan();
        sink.expect(&plan).await.expect("room");
        for blob in &plan {
            sink.put(blob, &*memory).await.expect("a put");
        }
    }
    if let Ok(source) = place.source().await {
        for name in [Name::Only, Name::Tag(tag("v1"))] {
            assert!(source.resolve(&name).await.expect_err("nothing was published").is_not_found(), "{name}");
        }
    }
}

async fn finds_the_only_root(place: &impl Place) {
    let memory = Arc::new(Memory::new());
    let root = open(memory.clone(), &fixture(&memory)).await;
    copy(&root, &place.sink().await, &CopyOptions::default()).await.expect("a copy");
    let source = place.source().await.expect("a finished place opens");
    assert_eq!(source.resolve(&Name::Only).await.expect("the only root").digest, root.digest());
    assert!(source.resolve(&Name::Tag(tag("latest"))).await.expect_err("it has no tag").is_not_found());
}

async fn moves_tags(place: &impl Place) {
    let memory = Arc::new(Memory::new());
    let platform = Platform::new("linux", "amd64");
    let one = open(memory.clone(), &image(&memory, 1, &platform, &[10])).await;
    let two = open(memory.clone(), &image(&memory, 2, &platform, &[10])).await;
    for (root, name) in [(&one, "a"), (&one, "b"), (&two, "a")] {
        copy(root, &place.sink().await, &named(name)).await.expect("a copy");
    }
    let source = place.source().await.expect("a finished place opens");
    for (name, root) in [("a", &two), ("b", &one)] {
        assert_eq!(source.resolve(&Name::Tag(tag(name))).await.expect("a tag").digest, root.digest(), "{name}");
    }
    if place.lists_untagged() {
        match source.resolve(&Name::Only).await {
            Err(Error::Ambiguous { choices, .. }) => assert_eq!(choices.len(), 2),
            other => unreachable!("two roots were answered with {other:?}"),
        }
    }
    let again = copy(&two, &place.sink().await, &named("a")).await.expect("a copy");
    assert_eq!(again.count(Put::Copied).0, 0, "nothing is copied twice");
}

async fn replaces_roots(place: &impl Place) {
    let memory = Arc::new(Memory::new());
    let platform = Platform::new("linux", "amd64");
    let old = open(memory.clone(), &image(&memory, 1, &platform, &[10])).await;
    let new = open(memory.clone(), &image(&memory, 2, &platform, &[10])).await;
    copy(&old, &place.sink().await, &named("a")).await.expect("a copy");
    let naming = Naming { tag: Some(tag("a")), replaces: Some(old.digest()), ..Naming::default() };
    let options = CopyOptions { names: vec![naming], ..CopyOptions::default() };
    copy(&new, &place.sink().await, &options).await.expect("a copy");
    let source = place.source().await.expect("a finished place opens");
    assert_eq!(source.resolve(&Name::Tag(tag("a"))).await.expect("a tag").digest, new.digest());
    if place.lists_untagged() {
        assert_eq!(source.resolve(&Name::Only).await.expect("the old root is gone").digest, new.digest());
    }
}

async fn finds_referrers(place: &impl Place) {
    let memory = Arc::new(Memory::new());
    let root = fixture(&memory);
    let about = referrer(&memory, &root, "application/vnd.example");
    let sink = place.sink().await;
    copy(&open(memory.clone(), &root).await, &sink, &named("a")).await.expect("a copy");
    let sink = if place.keeps() { place.sink().await } else { sink };
    copy(&open(memory.clone(), &about).await, &sink, &CopyOptions::default()).await.expect("a copy");
    let source = place.source().await.expect("a finished place opens");
    let found = source.referrers(&root.digest).await.expect("an answer");
    assert_eq!(found.iter().map(|found| found.digest).collect::<Vec<_>>(), [about.digest]);
    assert_eq!(source.referrers(&about.digest).await.expect("an answer"), []);
    if place.lists_untagged() {
        let only = source.resolve(&Name::Only).await.expect("a referrer is not another image");
        assert_eq!(only.digest, root.digest);
    }
}

/// A source whose bytes do not match their descriptor.
#[derive(Debug)]
struct Liar {
    bytes: Bytes,
    claims: u64,
}

impl fmt::Display for Liar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("liar")
    }
}

#[async_trait]
impl Source for Liar {
    async fn resolve(&self, name: &Name) -> Result<Descriptor> {
        Err(Error::not_found(name, self))
    }

    async fn open_unverified(&self, _: &Descriptor, range: ByteRange) -> Result<Body> {
        let start = (range.offset as usize).min(self.bytes.len());
        let bytes = self.bytes.slice(start..);
        let chunks: Vec<_> = bytes.chunks(100_000).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        Ok(Body::new(self.claims - range.offset, futures::stream::iter(chunks)))
    }

    async fn has(&self, _: &Descriptor) -> Result<bool> {
        Ok(true)
    }

    async fn referrers(&self, _: &Digest) -> Result<Vec<Descriptor>> {
        Ok(Vec::new())
    }
}
