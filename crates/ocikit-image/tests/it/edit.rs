//! Edits of images, and changes to all images of an index.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says where it fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ocikit_image::testing::{self, random};
use ocikit_image::{
    CopyOptions, Error, Image, Layer, Memory, NewLayer, Root, Selection, Sink, Source, SourceExt, copy, map_images,
};
use ocikit_spec::{Descriptor, Digest, Document, History, MediaType, Platform};
use proptest::prelude::*;

/// Returns a layer in a place of its own.
fn layer(seed: u64) -> NewLayer {
    let bytes = random(seed, 100);
    let descriptor = Descriptor::of(MediaType::OCI_LAYER_GZIP, &bytes);
    let memory = Memory::new();
    memory.insert(bytes.clone());
    let history = History { created_by: Some(format!("step {seed}")), ..History::default() };
    NewLayer::new(Layer::at(Arc::new(memory), descriptor), Digest::sha256_of(&bytes)).with_history(history)
}

async fn image(memory: &Arc<Memory>, descriptor: Descriptor) -> Image {
    match Root::at(memory.clone(), descriptor).await.unwrap() {
        Root::Image(image) => image,
        other => panic!("{other:?} is not an image"),
    }
}

async fn one() -> Image {
    let memory = Arc::new(Memory::new());
    let descriptor = testing::image(&memory, 1, &Platform::new("linux", "amd64"), &[10, 20]);
    image(&memory, descriptor).await
}

/// Copies an image to an empty place, which reads and checks every part of it.
async fn copied(root: Root) -> Arc<dyn Sink> {
    let there: Arc<dyn Sink> = Arc::new(Memory::new());
    copy(&root, &there, &CopyOptions::default()).await.unwrap();
    there
}

#[tokio::test]
async fn layers_are_appended_replaced_and_removed_with_their_diff_ids() {
    let image = one().await;
    let mut edit = image.edit();
    edit.append_layer(layer(7)).insert_layer(0, layer(8)).replace_layer(1, layer(9)).remove_layer(2);
    let edited = edit.finish().await.unwrap();
    let expected = [layer(8), layer(9), layer(7)];
    let digests: Vec<_> = edited.layers().map(|layer| layer.descriptor().digest).collect();
    assert_eq!(digests, expected.iter().map(NewLayer::digest).collect::<Vec<_>>());
    let config = edited.config().await.unwrap();
    assert_eq!(config.rootfs().diff_ids, expected.iter().map(NewLayer::diff_id).collect::<Vec<_>>());
    copied(Root::Image(edited.clone())).await;
    assert_eq!(edit.finish().await.unwrap().digest(), edited.digest(), "an edit can be finished twice");
    let wrong = image.edit().remove_layer(2).finish().await.unwrap_err();
    assert!(matches!(wrong, Error::Document { .. }), "{wrong}");
}

#[tokio::test]
async fn an_edit_followed_by_its_inverse_gives_the_same_digest() {
    let image = one().await;
    let edited =
        image.edit().append_layer(layer(7)).config(|c| c.env("A", "b").label("c", "d")).finish().await.unwrap();
    assert_ne!(edited.digest(), image.digest());
    let back = edited.edit().remove_layer(2).config(|c| c.remove_env("A").remove_label("c")).finish().await.unwrap();
    assert_eq!(back.digest(), image.digest());
}

#[tokio::test]
async fn new_layers_have_the_media_types_of_the_manifest() {
    let memory = Arc::new(Memory::new());
    let oci = testing::image(&memory, 1, &Platform::new("linux", "amd64"), &[]);
    let image = image(&memory, oci).await;
    let docker = image
        .manifest()
        .edit()
        .set_media_type(&MediaType::DOCKER_MANIFEST)
        .set_config_media_type(&MediaType::DOCKER_CONFIG)
        .finish()
        .unwrap();
    memory.insert(docker.bytes().clone());
    let docker = self::image(&memory, Descriptor::of(MediaType::DOCKER_MANIFEST, docker.bytes())).await;
    for (image, expected) in [(image, MediaType::OCI_LAYER_GZIP), (docker, MediaType::DOCKER_LAYER_GZIP)] {
        let edited = image.edit().append_layer(layer(1)).config(|c| c.user("1")).finish().await.unwrap();
        assert_eq!(edited.manifest().layers()[0].media_type, expected);
        assert_eq!(edited.descriptor().media_type, image.descriptor().media_type);
        assert_eq!(edited.manifest().config().unwrap().media_type, image.manifest().config().unwrap().media_type);
    }
}

#[tokio::test]
async fn artifacts_have_no_config_to_change() {
    let memory = Arc::new(Memory::new());
    let subject = testing::image(&memory, 1, &Platform::new("linux", "amd64"), &[10]);
    let artifact = testing::referrer(&memory, &subject, "a/b");
    let root = Root::at(memory, artifact).await.unwrap();
    let failed = map_images(&root, &Selection::all(), async |image| Ok(image)).await.unwrap_err();
    assert!(matches!(failed, Error::Unsupported { .. }), "{failed}");
}

/// Returns an index with two images, an index with one of them and another, an artifact, and attestation manifests of an
/// image and of the image in the inner index.
async fn nested() -> Root {
    let memory = Arc::new(Memory::new());
    let amd64 = testing::image(&memory, 1, &Platform::new("linux", "amd64"), &[10, 20]);
    let arm64 = testing::image(&memory, 2, &"linux/arm64/v8".parse().unwrap(), &[20]);
    let s390x = testing::image(&memory, 3, &Platform::new("linux", "s390x"), &[30]);
    let plain = amd64.bare();
    let attests = |subject: &Descriptor| {
        let mut entry = testing::referrer(&memory, subject, "application/vnd.docker.attestation.manifest.v1+json");
        entry.platform = Some(Platform::new("unknown", "unknown"));
        entry.annotations.insert("vnd.docker.reference.type", "attestation-manifest");
        entry.annotations.insert("vnd.docker.reference.digest", subject.digest.to_string());
        entry
    };
    let inner = testing::index(&memory, &[amd64.clone(), s390x.clone(), attests(&s390x)]);
    let chart = testing::referrer(&memory, &plain, "a/b");
    let root = testing::index(&memory, &[amd64.clone(), arm64, inner, chart, attests(&amd64)]);
    Root::at(memory, root).await.unwrap()
}

async fn entries(root: &Root) -> Vec<(Descriptor, Document)> {
    let Root::Index(index) = root else { panic!("it is an index") };
    let mut found = Vec::new();
    for entry in index.manifests() {
        found.push((entry.clone(), index.open(entry).await.unwrap().document().unwrap()));
    }
    found
}

#[tokio::test]
async fn map_changes_each_image_once_and_what_refers_to_it() {
    let root = nested().await;
    let calls = AtomicUsize::new(0);
    let label = |image: Image| {
        calls.fetch_add(1, Ordering::Relaxed);
        async move { image.edit().config(|c| c.label("a", "b")).finish().await }
    };
    let mapped = map_images(&root, &Selection::all(), label).await.unwrap();
    assert_eq!(calls.into_inner(), 3, "an image that is listed twice is changed once");
    assert_eq!(mapped.images, 4);
    // Three images, two attestation manifests, two indexes.
    assert_eq!((mapped.replaced.len(), mapped.attestations.len()), (7, 2));
    let (old, new) = (entries(&root).await, entries(&mapped.root).await);
    for (position, is_changed) in [true, true, true, false, true].into_iter().enumerate() {
        let expected = if is_changed { mapped.replaced[&old[position].0.digest] } else { old[position].0.digest };
        assert_eq!(new[position].0.digest, expected, "{position}");
        assert_eq!(new[position].0.platform, old[position].0.platform);
    }
    let check = |attestation: &(Descriptor, Document), image: &(Descriptor, Document)| {
        let named = attestation.0.annotations.get("vnd.docker.reference.digest").unwrap();
        assert_eq!(named, image.0.digest.to_string());
        let subject = attestation.1.subject().unwrap();
        assert_eq!((subject.digest, subject.size), (image.0.digest, image.0.size));
    };
    check(&new[4], &new[0]);
    let inner = Root::at(mapped.root.source().clone(), new[2].0.clone()).await.unwrap();
    let inner = entries(&inner).await;
    assert_eq!(inner[0].0.digest, new[0].0.digest);
    check(&inner[2], &inner[1]);
    let there = copied(mapped.root.clone()).await;
    assert_eq!(
        there.document(mapped.root.descriptor()).await.unwrap().bytes(),
        mapped.root.document().unwrap().bytes()
    );
}

#[tokio::test]
async fn map_changes_the_selected_platforms() {
    let root = nested().await;
    let append = async |image: Image| image.edit().append_layer(layer(5)).finish().await;
    let selection = Selection::of(["linux/s390x".parse().unwrap()]);
    let mapped = map_images(&root, &selection, append).await.unwrap();
    let (old, new) = (entries(&root).await, entries(&mapped.root).await);
    let changed: Vec<_> = (0..5).filter(|at| old[*at].0.digest != new[*at].0.digest).collect();
    assert_eq!((mapped.images, changed), (1, vec![2]), "only the inner index");
    copied(mapped.root).await;
    let missing = Selection::of(["linux/s390x".parse().unwrap(), "linux/mips".parse().unwrap()]);
    assert!(matches!(map_images(&root, &missing, append).await, Err(Error::NoPlatform { .. })));
    let same = map_images(&root, &Selection::all(), async |image| Ok(image)).await.unwrap();
    assert_eq!((same.root.digest(), same.replaced.len()), (root.digest(), 0));
}

#[tokio::test]
async fn entries_have_the_platform_of_a_changed_config() {
    let root = nested().await;
    let change = async |image: Image| image.edit().config(|c| c.os_version("1.2").os_features(["f"])).finish().await;
    let mapped = map_images(&root, &Selection::of(["linux/arm64".parse().unwrap()]), change).await.unwrap();
    let new = entries(&mapped.root).await;
    let found = new[1].0.platform.clone().unwrap();
    // The config states no variant, so the one of the entry stays.
    assert_eq!((found.to_string().as_str(), &found.os_features[..]), ("linux(1.2)/arm64/v8", &["f".to_owned()][..]));
    assert_eq!(new[0].0.platform.as_ref().unwrap().to_string(), "linux/amd64");
    let arch = async |image: Image| image.edit().config(|c| c.architecture("riscv64")).finish().await;
    let mapped = map_images(&root, &Selection::of(["linux/arm64".parse().unwrap()]), arch).await.unwrap();
    assert_eq!(entries(&mapped.root).await[1].0.platform.as_ref().unwrap().to_string(), "linux/riscv64");
}

/// Counts the requests for blobs that it does not have.
#[derive(Debug)]
struct Strict(Memory, Arc<AtomicUsize>);

impl std::fmt::Display for Strict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait::async_trait]
impl Source for Strict {
    async fn resolve(&self, name: &ocikit_image::Name) -> ocikit_image::Result<Descriptor> {
        self.0.resolve(name).await
    }

    async fn open_unverified(
        &self,
        descriptor: &Descriptor,
        range: ocikit_image::ByteRange,
    ) -> ocikit_image::Result<ocikit_image::Body> {
        let opened = self.0.open_unverified(descriptor, range).await;
        self.1.fetch_add(usize::from(opened.is_err()), Ordering::Relaxed);
        opened
    }

    async fn has(&self, descriptor: &Descriptor) -> ocikit_image::Result<bool> {
        self.0.has(descriptor).await
    }

    async fn referrers(&self, subject: &Digest) -> ocikit_image::Result<Vec<Descriptor>> {
        self.0.referrers(subject).await
    }
}

#[tokio::test]
async fn no_place_is_asked_for_a_blob_of_another() {
    let misses = Arc::new(AtomicUsize::new(0));
    let memory = Memory::new();
    let platforms = ["amd64", "arm64", "s390x"].map(|architecture| Platform::new("linux", architecture));
    let images: Vec<_> =
        (1..).zip(&platforms).map(|(seed, platform)| testing::image(&memory, seed, platform, &[10])).collect();
    let root = testing::index(&memory, &images);
    let root = Root::at(Arc::new(Strict(memory, misses.clone())), root).await.unwrap();
    let append = async |image: Image| {
        let new = layer(image.descriptor().size + u64::from(image.digest().to_string().as_bytes()[10]));
        let bytes = new.layer().open().await?.bytes().await?;
        let other = Memory::new();
        other.insert(bytes);
        let source = Arc::new(Strict(other, misses.clone()));
        let new = NewLayer::new(Layer::at(source, new.descriptor().clone()), new.diff_id());
        image.edit().append_layer(new).finish().await
    };
    let mapped = map_images(&root, &Selection::all(), append).await.unwrap();
    copied(mapped.root).await;
    assert_eq!(misses.load(Ordering::Relaxed), 0);
}

proptest! {
    #[test]
    fn unknown_fields_survive_at_every_level(key in "[a-z]{1,9}", number in 0_u32..1000, label in ".*") {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let memory = Arc::new(Memory::new());
            let unknown = format!("\"x-{key}\":{number}.50");
            let config = format!(
                r#"{{"os":"linux","architecture":"amd64",{unknown},"config":{{{unknown}}},"rootfs":{{"type":"layers","diff_ids":[],{unknown}}}}}"#
            );
            memory.insert(config.clone());
            let size = config.len();
            let digest = Digest::sha256_of(config.as_bytes());
            let manifest = format!(
                r#"{{"schemaVersion":2,{unknown},"mediaType":"{}","config":{{"mediaType":"{}",{unknown},"digest":"{digest}","size":{size}}},"layers":[]}}"#,
                MediaType::OCI_MANIFEST,
                MediaType::OCI_CONFIG
            );
            memory.insert(manifest.clone());
            let (digest, size) = (Digest::sha256_of(manifest.as_bytes()), manifest.len());
            let index = format!(
                r#"{{"schemaVersion":2,"mediaType":"{}",{unknown},"manifests":[{{"mediaType":"{}","digest":"{digest}","size":{size},{unknown},"platform":{{"os":"linux",{unknown},"architecture":"amd64"}}}}]}}"#,
                MediaType::OCI_INDEX,
                MediaType::OCI_MANIFEST
            );
            memory.insert(index.clone());
            let root = Root::at(memory, Descriptor::of(MediaType::OCI_INDEX, index.as_bytes())).await.unwrap();
            let label = label.as_str();
            let change = |image: Image| async move {
                image.edit().annotate("a", label).config(|c| c.label("a", label).variant("v1").user("u")).finish().await
            };
            let mapped = map_images(&root, &Selection::all(), change).await.unwrap();
            let count = |text: &str| text.matches(&unknown).count();
            let document = mapped.root.document().unwrap();
            assert_eq!(count(std::str::from_utf8(document.bytes()).unwrap()), 3);
            let Root::Index(new) = &mapped.root else { panic!("it is an index") };
            let Root::Image(image) = new.open(&new.manifests()[0]).await.unwrap() else { panic!("it is an image") };
            assert_eq!(count(image.manifest().text()), 2);
            assert_eq!(count(image.config().await.unwrap().text()), 3);
            let undo = |image: Image| async move {
                use ocikit_spec::ConfigField::{User, Variant};
                let mut edit = image.edit();
                edit.remove_annotation("a").config(|c| c.remove_label("a").remove(Variant).remove(User));
                edit.finish().await
            };
            let back = map_images(&mapped.root, &Selection::all(), undo).await.unwrap();
            assert_eq!(back.root.digest(), root.digest());
        });
    }
}
