//! `Memory` passes the conformance suite, and copies and edits work with it as source and target.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says where it fails by panicking")]

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use ocikit_image::testing::{self, Place, conformance};
use ocikit_image::{
    AnnotateOn, AnnotateOptions, ArtifactKind, CopyOptions, Error, Event, Memory, Naming, Observer, Put, Referrers,
    Result, Root, Sink, Source, SourceExt, annotate, copy, copy_all, plan,
};
use ocikit_spec::{Descriptor, Document, MediaType, Platform};

struct InMemory(Arc<Memory>);

#[async_trait]
impl Place for InMemory {
    async fn sink(&self) -> Arc<dyn Sink> {
        self.0.clone()
    }

    async fn source(&self) -> Result<Arc<dyn Source>> {
        Ok(self.0.clone())
    }
}

#[tokio::test]
async fn memory_conforms() {
    conformance(async || InMemory(Arc::default())).await;
}

/// Returns an index of two images and an attestation of the first, as BuildKit writes it.
async fn attested() -> Root {
    let memory = Arc::new(Memory::new());
    let one = testing::image(&memory, 1, &Platform::new("linux", "amd64"), &[10, 20]);
    let two = testing::image(&memory, 2, &"linux/arm64/v8".parse().unwrap(), &[20]);
    let unknown = Platform::new("unknown", "unknown");
    let mut about = testing::image(&memory, 3, &unknown, &[30]);
    about.annotations.insert("vnd.docker.reference.type", "attestation-manifest");
    about.annotations.insert("vnd.docker.reference.digest", one.digest.to_string());
    let index = testing::index(&memory, &[one, two, about]);
    Root::at(memory, index).await.unwrap()
}

fn options(on: AnnotateOn, platforms: &[&str]) -> AnnotateOptions {
    AnnotateOptions::default()
        .set(vec![("k".to_owned(), "v".to_owned())])
        .on(on)
        .platforms(platforms.iter().map(|platform| platform.parse().unwrap()).collect())
}

/// Returns whether the index, each of its entries, and each manifest have the annotation.
async fn annotated(root: &Root) -> (bool, Vec<bool>, Vec<bool>) {
    let Root::Index(index) = root else { panic!("an index stays an index") };
    let mut entries = Vec::new();
    let mut manifests = Vec::new();
    for entry in index.manifests() {
        entries.push(entry.annotations.get("k").is_some());
        manifests.push(index.open(entry).await.unwrap().annotations().get("k").is_some());
    }
    (root.annotations().get("k").is_some(), entries, manifests)
}

#[tokio::test]
async fn annotates_the_selected_documents() {
    let root = attested().await;
    let none = vec![false; 3];
    let images = vec![true, true, false];
    for (on, platforms, expected) in [
        (AnnotateOn::ManifestsAndIndex, &[][..], (true, none.clone(), images.clone())),
        (AnnotateOn::Manifests, &[], (false, none.clone(), images.clone())),
        (AnnotateOn::Index, &[], (true, none.clone(), none.clone())),
        (AnnotateOn::Descriptors, &[], (false, images.clone(), none.clone())),
        (AnnotateOn::All, &[], (true, images.clone(), images.clone())),
        (AnnotateOn::ManifestsAndIndex, &["linux/arm64"], (true, none.clone(), vec![false, true, false])),
        (AnnotateOn::Descriptors, &["linux/amd64"], (false, vec![true, false, false], none.clone())),
    ] {
        let new = annotate(&root, &options(on, platforms)).await.unwrap();
        assert_eq!(annotated(&new).await, expected, "{on:?} {platforms:?}");
        assert_ne!(new.digest(), root.digest());
    }
    assert_eq!(annotated(&root).await, (false, none.clone(), none));
    let unknown = annotate(&root, &options(AnnotateOn::All, &["linux/s390x"])).await;
    assert_eq!(
        unknown.unwrap_err().to_string(),
        "memory has no image for linux/s390x, only for linux/amd64, linux/arm64/v8"
    );
}

#[tokio::test]
async fn attestation_manifests_follow_their_subject() {
    let root = attested().await;
    let new = annotate(&root, &options(AnnotateOn::Manifests, &[])).await.unwrap();
    let (Root::Index(old), Root::Index(new)) = (&root, &new) else { panic!("an index stays an index") };
    let entry = &new.manifests()[2];
    assert_eq!(entry.digest, old.manifests()[2].digest, "the attestation manifest does not change");
    assert_eq!(entry.annotations.get("vnd.docker.reference.digest"), Some(&*new.manifests()[0].digest.to_string()));
}

#[tokio::test]
async fn removing_an_annotation_restores_the_digest() {
    let root = attested().await;
    let new = annotate(&root, &options(AnnotateOn::All, &[])).await.unwrap();
    let remove = vec!["k".to_owned()];
    let back = AnnotateOptions::default().remove(remove).on(AnnotateOn::All);
    assert_eq!(annotate(&new, &back).await.unwrap().digest(), root.digest());
    assert_eq!(annotate(&root, &back).await.unwrap().digest(), root.digest());
}

#[tokio::test]
async fn image_without_index_cannot_be_annotated_on_the_index() {
    let memory = Arc::new(Memory::new());
    let image = testing::image(&memory, 1, &Platform::new("linux", "amd64"), &[10]);
    let root = Root::at(memory, image).await.unwrap();
    for on in [AnnotateOn::Index, AnnotateOn::Descriptors] {
        assert!(matches!(annotate(&root, &options(on, &[])).await, Err(Error::Unsupported { .. })));
    }
    assert!(annotate(&root, &options(AnnotateOn::All, &["linux/amd64"])).await.is_ok());
    assert!(annotate(&root, &options(AnnotateOn::All, &["linux/arm64"])).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn edited_root_is_copied_completely() {
    let new = annotate(&attested().await, &options(AnnotateOn::All, &[])).await.unwrap();
    let more = options(AnnotateOn::All, &[]).set(vec![("l".into(), "w".into())]);
    let new = annotate(&new, &more).await.unwrap();
    let there: Arc<dyn Sink> = Arc::new(Memory::new());
    let copied = copy(&new, &there, &CopyOptions::default()).await.unwrap();
    assert_eq!(copied.root.digest, new.digest());
    for (blob, _) in copied.blobs {
        there.read(&blob).await.unwrap();
    }
}

#[derive(Debug, Default)]
struct Log(Mutex<Vec<String>>);

impl Observer for Log {
    fn event(&self, event: Event<'_>) {
        let line = match event {
            Event::Planned { blobs, bytes } => format!("planned {blobs} {bytes}"),
            Event::Started { blob } => format!("started {}", blob.size),
            Event::Read { blob, offset, bytes } => format!("read {} {offset} {bytes}", blob.size),
            Event::Finished { blob, put } => format!("finished {} {put:?}", blob.size),
            Event::Published { tag, .. } => format!("published {tag:?}"),
            _ => return,
        };
        self.0.lock().unwrap().push(line);
    }
}

#[tokio::test]
async fn children_are_copied_before_parents_and_tags() {
    let memory = Arc::new(Memory::new());
    let image = testing::image(&memory, 1, &Platform::new("linux", "amd64"), &[10, 10_000]);
    let config = 2; // position among what is planned: the config is named first
    let root = Root::at(memory.clone(), image.clone()).await.unwrap();
    let there: Arc<dyn Sink> = Arc::new(Memory::new());
    let log = Arc::new(Log::default());
    let names = vec![Naming::of_tag("v1".parse().unwrap())];
    let options = CopyOptions::default().jobs(1).names(names).observer(Some(log.clone()));
    let copied = copy(&root, &there, &options).await.unwrap();
    assert_eq!(copied.blobs.len(), config + 2);
    assert_eq!(copied.count(Put::Copied).0, 4);
    let lines = log.0.lock().unwrap().clone();
    assert!(lines[0].starts_with("planned 4 "), "{lines:?}");
    assert_eq!(lines.iter().filter(|line| line.starts_with("read")).count(), 4, "{lines:?}");
    assert_eq!(lines[lines.len() - 2], format!("finished {} Copied", image.size));
    assert!(lines[lines.len() - 1].starts_with("published Some"), "{lines:?}");
}

#[tokio::test]
async fn rejects_indexes_nested_too_deep() {
    let memory = Arc::new(Memory::new());
    let mut entry = testing::image(&memory, 1, &Platform::new("linux", "amd64"), &[10]);
    for _ in 0..20 {
        entry = testing::index(&memory, &[entry]);
    }
    let root = Root::at(memory, entry).await.unwrap();
    let there: Arc<dyn Sink> = Arc::new(Memory::new());
    assert!(matches!(copy(&root, &there, &CopyOptions::default()).await, Err(Error::Broken { .. })));
    assert!(matches!(annotate(&root, &options(AnnotateOn::All, &[])).await, Err(Error::Broken { .. })));
}

/// vmware-tanzu/carvel-imgpkg#8, moby/moby#34216.
#[tokio::test]
async fn imgpkg_8_moby_34216_foreign_layers_stay_only_where_they_can_be_fetched_elsewhere() {
    for name in [
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
    ] {
        for (urls, foreign_layers, copied) in
            [(&[][..], false, 3), (&["https://example.com/layer"], false, 2), (&["https://example.com/layer"], true, 3)]
        {
            let memory = Arc::new(Memory::new());
            let config = Descriptor::of(MediaType::OCI_CONFIG, b"{}");
            memory.insert(&b"{}"[..]);
            memory.insert(&b"layer"[..]);
            let mut layer = Descriptor::of(name.into(), b"layer");
            layer.urls = urls.iter().map(|url| (*url).to_owned()).collect();
            let (config, layer) = (serde_json::to_string(&config).unwrap(), serde_json::to_string(&layer).unwrap());
            let manifest = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]}}"#);
            memory.insert(manifest.clone());
            let root = Root::at(memory, Descriptor::of(MediaType::OCI_MANIFEST, manifest.as_bytes())).await.unwrap();
            let there: Arc<dyn Sink> = Arc::new(Memory::new());
            let options = CopyOptions::default().foreign_layers(foreign_layers);
            assert_eq!(copy(&root, &there, &options).await.unwrap().blobs.len(), copied, "{name} {urls:?}");
        }
    }
}

#[tokio::test]
async fn kinds_are_detected() {
    let root = attested().await;
    assert_eq!(ArtifactKind::of(&root), ArtifactKind::Index);
    let Root::Index(index) = &root else { panic!("an index") };
    assert_eq!(ArtifactKind::of(&index.open(&index.manifests()[0]).await.unwrap()), ArtifactKind::Image);
    assert_eq!(ArtifactKind::of(&index.open(&index.manifests()[2]).await.unwrap()), ArtifactKind::Attestation);
    let memory = Arc::new(Memory::new());
    for (artifact_type, kind) in [
        ("application/vnd.example", ArtifactKind::Artifact),
        ("application/vnd.cncf.notary.signature", ArtifactKind::NotationSignature),
        ("application/vnd.dev.sigstore.bundle.v0.3+json", ArtifactKind::SigstoreBundle),
        ("application/vnd.cncf.helm.config.v1+json", ArtifactKind::HelmChart),
        ("application/vnd.wasm.config.v0+json", ArtifactKind::Wasm),
    ] {
        let about = testing::referrer(&memory, root.descriptor(), artifact_type);
        let root = Root::at(memory.clone(), about).await.unwrap();
        assert_eq!(ArtifactKind::of(&root), kind);
        assert!(matches!(root.document(), Some(Document::Manifest(_))));
    }
    let schema1 = Descriptor::of(MediaType::DOCKER_SCHEMA1_SIGNED, b"{}");
    assert_eq!(ArtifactKind::of(&Root::at(memory.clone(), schema1).await.unwrap()), ArtifactKind::DockerSchema1);
    let blob = Descriptor::of(MediaType::OCTET_STREAM, b"{}");
    assert_eq!(ArtifactKind::of(&Root::at(memory, blob).await.unwrap()), ArtifactKind::Unknown);
}

#[tokio::test]
async fn several_roots_share_blobs() {
    let here = Arc::new(Memory::new());
    let elsewhere = Arc::new(Memory::new());
    let platform = Platform::new("linux", "amd64");
    let one = testing::image(&here, 1, &platform, &[10, 20]);
    let two = testing::image(&elsewhere, 1, &platform, &[10, 20, 30]);
    let one = Root::at(here, one).await.unwrap();
    let two = Root::at(elsewhere, two).await.unwrap();
    let there: Arc<dyn Sink> = Arc::new(Memory::new());
    let named = |tag: &str| vec![Naming::of_tag(tag.parse().unwrap())];
    let roots = [(one.clone(), named("one")), (two.clone(), named("two"))];
    let copied = copy_all(&roots, &there, &CopyOptions::default()).await.unwrap();
    assert_eq!(copied[0].blobs.len(), 4);
    assert_eq!(copied[1].blobs.len(), 3, "layer, config and manifest that the first image lacks");
    for (tag, root) in [("one", &one), ("two", &two)] {
        let found = there.resolve(&ocikit_image::Name::Tag(tag.parse().unwrap())).await.unwrap();
        assert_eq!(found.digest, root.digest());
    }
}

#[tokio::test]
async fn referrers_of_referrers_are_copied() {
    let here = Arc::new(Memory::new());
    let one = testing::image(&here, 1, &Platform::new("linux", "amd64"), &[10]);
    let two = testing::image(&here, 2, &Platform::new("linux", "arm64"), &[10]);
    let index = testing::index(&here, &[one.clone(), two]);
    let sbom = testing::referrer(&here, &one, "application/vnd.sbom");
    let signature = testing::referrer(&here, &sbom, "application/vnd.signature");
    let of_index = testing::referrer(&here, &index, "application/vnd.signature");
    let root = Root::at(here, index.clone()).await.unwrap();
    let types = |types: &[&str]| Referrers::OfTypes(types.iter().map(|name| MediaType::from(*name)).collect());
    for (referrers, expected) in [
        (Referrers::None, vec![]),
        (Referrers::All, vec![&of_index, &sbom, &signature]),
        (types(&["application/vnd.signature"]), vec![&of_index]),
        (types(&["application/vnd.sbom", "application/vnd.signature"]), vec![&of_index, &sbom, &signature]),
    ] {
        let there: Arc<dyn Sink> = Arc::new(Memory::new());
        let options = CopyOptions::default().referrers(referrers);
        let planned = plan(&root, &there, &options).await.unwrap();
        let copied = copy(&root, &there, &options).await.unwrap();
        let digests = |found: &[Descriptor]| found.iter().map(|found| found.digest).collect::<Vec<_>>();
        assert_eq!(digests(&copied.referrers), expected.iter().map(|found| found.digest).collect::<Vec<_>>());
        assert_eq!(digests(&planned.referrers), digests(&copied.referrers));
        assert!(planned.blobs.iter().all(|(_, present)| !present));
        let blobs = |blobs: Vec<Descriptor>| digests(&blobs);
        assert_eq!(
            blobs(planned.blobs.into_iter().map(|(blob, _)| blob).collect()),
            blobs(copied.blobs.into_iter().map(|(blob, _)| blob).collect())
        );
        for found in expected {
            assert!(there.has(found).await.unwrap());
        }
        assert_eq!(there.referrers(&one.digest).await.unwrap().len(), usize::from(there.has(&sbom).await.unwrap()));
    }
}

#[tokio::test]
async fn extreme_sizes_and_jobs_are_handled() {
    let descriptor = Descriptor { size: u64::MAX, ..Descriptor::of(MediaType::OCI_LAYER, b"x") };
    let blobs = vec![(descriptor.clone(), Put::Present), (descriptor.clone(), Put::Present)];
    let mut copied = ocikit_image::Copied::nothing(descriptor);
    copied.blobs = blobs;
    assert_eq!(copied.count(Put::Present), (2, u64::MAX));

    let memory = Arc::new(Memory::new());
    let image = testing::image(&memory, 1, &Platform::new("linux", "amd64"), &[10, 20]);
    let root = Root::at(memory, image).await.unwrap();
    let options = CopyOptions::default().jobs(usize::MAX);
    copy(&root, &(Arc::new(Memory::new()) as Arc<dyn Sink>), &options).await.unwrap();
    let sinks = (0..2).map(|_| Arc::new(Memory::new()) as Arc<dyn Sink>);
    let targets: Vec<_> = sinks.map(|sink| ocikit_image::Target { sink, names: Vec::new() }).collect();
    for outcome in ocikit_image::copy_to_each(&root, &targets, &options).await {
        outcome.unwrap();
    }
}

/// Returns copies of a document, padded with spaces to different lengths just below the limit of 4 MiB.
async fn padded(memory: &Memory, document: &Descriptor, count: usize) -> Vec<Descriptor> {
    let bytes = memory.read(document).await.unwrap();
    let one = |padding: usize| {
        let mut text = bytes.to_vec();
        text.resize((4 << 20) - padding, b' ');
        let descriptor = Descriptor::of(document.media_type.clone(), &text);
        memory.insert(text);
        descriptor
    };
    (0..count).map(one).collect()
}

#[tokio::test]
async fn documents_of_an_index_are_bounded_in_memory() {
    let memory = Arc::new(Memory::new());
    let image = testing::image(&memory, 1, &Platform::new("linux", "amd64"), &[10]);
    let entries = padded(&memory, &image, 9).await;
    let open = |count: usize| {
        let index = testing::index(&memory, &entries[..count]);
        Root::at(memory.clone(), index)
    };
    let to = || Arc::new(Memory::new()) as Arc<dyn Sink>;
    copy(&open(7).await.unwrap(), &to(), &CopyOptions::default()).await.unwrap();
    let refused = copy(&open(9).await.unwrap(), &to(), &CopyOptions::default()).await;
    assert!(matches!(&refused, Err(Error::Unsupported { what, .. }) if what.contains("documents")), "{refused:?}");
}

#[tokio::test]
async fn referrers_of_an_image_are_bounded_in_memory() {
    let memory = Arc::new(Memory::new());
    let image = testing::image(&memory, 1, &Platform::new("linux", "amd64"), &[10]);
    let referrer = testing::referrer(&memory, &image, "application/vnd.x");
    padded(&memory, &referrer, 9).await;
    let root = Root::at(memory.clone(), image).await.unwrap();
    let options = CopyOptions::default().referrers(Referrers::All);
    let refused = copy(&root, &(Arc::new(Memory::new()) as Arc<dyn Sink>), &options).await;
    assert!(matches!(&refused, Err(Error::Unsupported { what, .. }) if what.contains("documents")), "{refused:?}");
    // Nested indexes, which are searched for subjects of referrers, share the limit.
    let indexes = padded(&memory, &testing::index(&memory, &[]), 9).await;
    let root = Root::at(memory.clone(), testing::index(&memory, &indexes)).await.unwrap();
    let targets = [0, 1].map(|_| ocikit_image::Target { sink: Arc::new(Memory::new()), names: Vec::new() });
    for refused in ocikit_image::copy_to_each(&root, &targets, &options).await {
        assert!(matches!(&refused, Err(Error::Unsupported { what, .. }) if what.contains("documents")), "{refused:?}");
    }
}
