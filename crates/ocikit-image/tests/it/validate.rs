//! Problems that validation finds, one at a time.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says where it fails by panicking")]

use std::collections::HashMap;
use std::fmt;
use std::io::Write;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use ocikit_archive::{Compression, Encoder};
use ocikit_image::testing;
use ocikit_image::{
    Body, ByteRange, Error, Event, Inventory, Memory, Name, Observer, Report, Result, Scope, Severity, Source,
    ValidateDepth, ValidateOptions, validate,
};
use ocikit_spec::{Descriptor, Digest, Index, MediaType, Platform};
use serde_json::{Value, json};

/// Memory in which some blobs are missing or have wrong bytes.
#[derive(Debug, Default)]
struct FaultyMemory {
    memory: Memory,
    replaced: Mutex<HashMap<Digest, Option<Bytes>>>,
}

impl fmt::Display for FaultyMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("here")
    }
}

#[async_trait]
impl Source for FaultyMemory {
    async fn resolve(&self, name: &Name) -> Result<Descriptor> {
        self.memory.resolve(name).await
    }

    async fn open_unverified(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        let lie = self.replaced.lock().unwrap().get(&descriptor.digest).cloned();
        match lie {
            Some(Some(bytes)) => Ok(bytes.into()),
            Some(None) => Err(Error::not_found(descriptor.digest, self)),
            None => self.memory.open_unverified(descriptor, range).await,
        }
    }

    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        self.memory.has(descriptor).await
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.memory.referrers(subject).await
    }
}

/// Creates images and replaces parts of them.
struct ImageBuilder {
    place: Arc<FaultyMemory>,
}

impl ImageBuilder {
    fn new() -> ImageBuilder {
        ImageBuilder { place: Arc::default() }
    }

    fn put(&self, media_type: MediaType, bytes: impl Into<Bytes>) -> Descriptor {
        let bytes = bytes.into();
        let descriptor = Descriptor::of(media_type, &bytes);
        self.place.memory.insert(bytes);
        descriptor
    }

    fn replace_blob(&self, digest: Digest, bytes: Option<&'static [u8]>) {
        self.place.replaced.lock().unwrap().insert(digest, bytes.map(Bytes::from_static));
    }

    /// Creates a gzip layer, a zstd layer, and the matching config.
    fn parts(&self) -> (Vec<Descriptor>, Value) {
        let layer = |compression, media_type, content: &[u8]| {
            let mut encoder = Encoder::new(compression, Vec::new()).unwrap();
            encoder.write_all(content).unwrap();
            self.put(media_type, encoder.finish().unwrap())
        };
        let tar = |seed, length| testing::Tar::new().file("file", &testing::random(seed, length)).finish();
        let contents = [tar(1, 300_000), tar(2, 5000)];
        let layers = vec![
            layer(Compression::Gzip, MediaType::OCI_LAYER_GZIP, &contents[0]),
            layer(Compression::Zstd, MediaType::OCI_LAYER_ZSTD, &contents[1]),
        ];
        let diff_ids = contents.map(|content| Digest::sha256_of(&content).to_string());
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": [{"created_by": "one"}, {"empty_layer": true}, {"created_by": "two"}],
        });
        (layers, config)
    }

    fn manifest(&self, layers: &[Descriptor], config: &Value) -> Descriptor {
        let config = self.put(MediaType::OCI_CONFIG, config.to_string());
        self.document(&json!({
            "schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "config": config, "layers": layers,
        }))
    }

    fn document(&self, document: &Value) -> Descriptor {
        let media_type = document["mediaType"].as_str().unwrap();
        self.put(MediaType::new(media_type), document.to_string())
    }

    async fn image(&self, change: impl FnOnce(&mut Vec<Descriptor>, &mut Value)) -> Vec<String> {
        let (mut layers, mut config) = self.parts();
        change(&mut layers, &mut config);
        let manifest = self.manifest(&layers, &config);
        self.problems(&Scope::Root(Box::new(manifest))).await
    }

    async fn problems(&self, scope: &Scope) -> Vec<String> {
        summary(&self.report(scope, ValidateOptions::default()).await)
    }

    async fn report(&self, scope: &Scope, options: ValidateOptions) -> Report {
        let source: Arc<dyn Source> = self.place.clone();
        let report = validate(&source, scope, &options).await.unwrap();
        let errors = report.problems.iter().filter(|problem| problem.severity() == Severity::Error).count();
        assert_eq!(report.errors, errors);
        report
    }
}

/// Returns kind and position of each problem.
fn summary(report: &Report) -> Vec<String> {
    report.problems.iter().map(|problem| format!("{} at {}", problem.fault.as_str(), problem.place)).collect()
}

const NONE: [&str; 0] = [];

#[tokio::test]
async fn valid_image_has_no_problems() {
    assert_eq!(ImageBuilder::new().image(|_, _| {}).await, NONE);
}

#[tokio::test]
async fn every_inconsistency_of_an_image_is_found() {
    let builder = ImageBuilder::new();
    let zero = Digest::sha256_of(b"");
    assert_eq!(
        builder.image(|_, config| config["rootfs"]["diff_ids"][1] = json!(zero)).await,
        ["diff-id at manifest > layers[1]"]
    );
    assert_eq!(
        builder.image(|_, config| config["rootfs"]["diff_ids"] = json!([zero])).await,
        ["layer-count at manifest"],
        "with a wrong number of diff IDs, they are not compared"
    );
    assert_eq!(builder.image(|_, config| config["history"] = json!([{}])).await, ["history-count at manifest"]);
    assert_eq!(builder.image(|_, config| config["rootfs"] = json!(7)).await, ["invalid-document at manifest > config"]);
    assert_eq!(builder.image(|layers, _| layers[0].size += 1).await, ["size at manifest > layers[0]"]);
    assert_eq!(
        builder.image(|layers, _| layers[0].media_type = MediaType::OCI_LAYER_ZSTD).await,
        ["compression at manifest > layers[0]"]
    );
    assert_eq!(
        builder.image(|layers, _| layers[1].media_type = MediaType::DOCKER_LAYER_GZIP).await,
        ["media-type at manifest > layers[1]", "compression at manifest > layers[1]"]
    );
}

#[tokio::test]
async fn missing_and_damaged_blobs_are_distinguished() {
    let builder = ImageBuilder::new();
    let (layers, config) = builder.parts();
    let manifest = builder.manifest(&layers, &config);
    let config = Digest::sha256_of(config.to_string().as_bytes());
    builder.replace_blob(layers[0].digest, None);
    builder.replace_blob(config, None);
    let root = Scope::Root(Box::new(manifest.clone()));
    assert_eq!(builder.problems(&root).await, ["missing at manifest > config", "missing at manifest > layers[0]"]);
    let other = testing::random(9, layers[1].size as usize).leak();
    builder.replace_blob(layers[1].digest, Some(other));
    builder.replace_blob(layers[0].digest, Some(b"short"));
    assert_eq!(
        builder.problems(&root).await,
        ["missing at manifest > config", "size at manifest > layers[0]", "digest at manifest > layers[1]"]
    );
    let other = testing::random(9, manifest.size as usize).leak();
    builder.replace_blob(manifest.digest, Some(other));
    assert_eq!(
        builder.problems(&root).await,
        ["digest at manifest"],
        "the children of a damaged manifest are not checked"
    );
}

#[tokio::test]
async fn undecodable_layer_is_reported() {
    let builder = ImageBuilder::new();
    let (layers, config) = builder.parts();
    let complete = builder.place.open_unverified(&layers[0], ByteRange::ALL).await.unwrap().bytes().await.unwrap();
    let cut = builder.put(MediaType::OCI_LAYER_GZIP, complete.slice(..complete.len() / 2));
    let manifest = builder.manifest(&[cut, layers[1].clone()], &config);
    assert_eq!(
        builder.problems(&Scope::Root(Box::new(manifest.clone()))).await,
        ["undecodable at manifest > layers[0]"]
    );
    let fast = ValidateOptions::default().depth(ValidateDepth::Digests);
    assert_eq!(summary(&builder.report(&Scope::Root(Box::new(manifest)), fast).await), NONE);
}

#[tokio::test]
async fn entries_of_layers_are_read() {
    let builder = ImageBuilder::new();
    let valid = testing::Tar::new().file("etc/motd", b"hello").finish();
    let mut damaged = valid.clone();
    damaged[3] ^= 1;
    let whiteout = testing::Tar::new().file(".wh...", b"").finish();
    for (tar, expected) in [
        (valid.clone(), &[][..]),
        (damaged, &["invalid-layer at manifest > layers[0]"]),
        (valid[..514].to_vec(), &["invalid-layer at manifest > layers[0]"]),
        (whiteout, &["invalid-layer at manifest > layers[0]"]),
        (testing::random(1, 2000), &["invalid-layer at manifest > layers[0]"]),
    ] {
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let image = testing::image_of(
                &builder.place.memory,
                &Platform::new("linux", "amd64"),
                compression,
                std::slice::from_ref(&tar),
            );
            assert_eq!(builder.problems(&Scope::Root(Box::new(image))).await, expected, "{compression:?}");
        }
    }
    // oras labels any file as an uncompressed layer; it is in no config.
    let file = builder.put(MediaType::OCI_LAYER, "no tar");
    let artifact = builder.document(&json!({
        "schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "artifactType": "application/vnd.x",
        "config": builder.put(MediaType::OCI_EMPTY, "{}"), "layers": [file],
    }));
    assert_eq!(builder.problems(&Scope::Root(Box::new(artifact))).await, NONE);
}

#[tokio::test]
async fn decompression_stops_at_the_limit() {
    let builder = ImageBuilder::new();
    let (layers, config) = builder.parts();
    let manifest = builder.manifest(&layers, &config);
    let options = ValidateOptions::default().max_uncompressed_bytes(Some(200_000));
    assert_eq!(
        summary(&builder.report(&Scope::Root(Box::new(manifest)), options).await),
        ["too-large-uncompressed at manifest > layers[0]"]
    );
}

#[tokio::test]
async fn claims_of_index_entries_are_checked() {
    let builder = ImageBuilder::new();
    let (layers, config) = builder.parts();
    let mut image = builder.manifest(&layers, &config);
    image.platform = Some(Platform::new("linux", "arm64"));
    let mut attestation = builder.document(&json!({
        "schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "artifactType": "application/vnd.x",
        "config": builder.put(MediaType::OCI_EMPTY, "{}"), "layers": [],
    }));
    attestation.annotations.insert("vnd.docker.reference.type", "attestation-manifest");
    attestation.annotations.insert("vnd.docker.reference.digest", Digest::sha256_of(b"unknown").to_string());
    let gone = Descriptor::of(MediaType::OCI_MANIFEST, b"gone");
    let mut wrong = image.clone();
    wrong.media_type = MediaType::OCI_INDEX;
    let index = testing::index(&builder.place.memory, &[image, attestation, gone, wrong, layers[0].clone()]);
    assert_eq!(
        builder.problems(&Scope::Root(Box::new(index))).await,
        [
            "attestation at index > manifests[1]",
            "media-type at index > manifests[4]",
            "missing at index > manifests[2]",
            "media-type at index > manifests[3]",
            "platform at index > manifests[0]",
            "platform at index > manifests[3]",
        ]
    );
}

#[tokio::test]
async fn referrers_are_checked_and_their_subject_may_be_missing() {
    let builder = ImageBuilder::new();
    let (layers, config) = builder.parts();
    let manifest = builder.manifest(&layers, &config);
    let referrer = testing::referrer(&builder.place.memory, &manifest, "application/vnd.x");
    builder.replace_blob(referrer.digest, Some(testing::random(1, referrer.size as usize).leak()));
    assert_eq!(builder.problems(&Scope::Root(Box::new(manifest))).await, ["digest at manifest > referrers[0]"]);
    let gone = Descriptor::of(MediaType::OCI_MANIFEST, b"gone");
    let about_nothing = testing::referrer(&builder.place.memory, &gone, "application/vnd.x");
    let report = builder.report(&Scope::Root(Box::new(about_nothing)), ValidateOptions::default()).await;
    assert_eq!(summary(&report), ["subject at manifest"]);
    assert!(report.is_valid());
}

#[tokio::test]
async fn unreferenced_blobs_are_reported_if_all_documents_are_known() {
    let builder = ImageBuilder::new();
    let (layers, config) = builder.parts();
    let manifest = builder.manifest(&layers, &config);
    let about = testing::referrer(&builder.place.memory, &manifest, "application/vnd.x");
    let (config, lost) = (Digest::sha256_of(config.to_string().as_bytes()), Digest::sha256_of(b"lost"));
    let empty = Digest::sha256_of(b"{}");
    let mut blobs: Vec<_> = [config, lost, manifest.digest, about.digest, empty].map(|digest| (digest, 1)).to_vec();
    blobs.extend(layers.iter().map(|layer| (layer.digest, 1)));
    // Only the artifact is listed, and its subject is the image.
    let inventory = Inventory { roots: Index::of(&[about]), referrers: Vec::new(), blobs, problems: Vec::new() };
    let everything = Scope::Everything(inventory);
    assert_eq!(builder.problems(&everything).await, [format!("unreferenced at {}", lost.blob_path())]);
    builder.replace_blob(manifest.digest, Some(testing::random(1, manifest.size as usize).leak()));
    assert_eq!(builder.problems(&everything).await, ["digest at index.json > manifests[0] > subject"]);
}

#[tokio::test]
async fn nesting_is_bounded() {
    let builder = ImageBuilder::new();
    let (layers, config) = builder.parts();
    let mut root = builder.manifest(&layers, &config);
    for _ in 0..40 {
        root = testing::index(&builder.place.memory, &[root]);
    }
    let problems = builder.problems(&Scope::Root(Box::new(root))).await;
    assert!(matches!(&problems[..], [one] if one.starts_with("too-deep at index > manifests[0] >")), "{problems:?}");
}

#[tokio::test]
async fn problems_beyond_the_limit_are_counted() {
    let builder = ImageBuilder::new();
    let gone: Vec<_> =
        (0..100_u32).map(|number| Descriptor::of(MediaType::OCI_MANIFEST, &number.to_le_bytes())).collect();
    let index = testing::index(&builder.place.memory, &gone);
    let options = ValidateOptions::default().max_problems(10);
    let report = builder.report_all(&Scope::Root(Box::new(index)), options).await;
    assert_eq!((report.problems.len(), report.omitted, report.errors), (10, 90, 100));
}

impl ImageBuilder {
    async fn report_all(&self, scope: &Scope, options: ValidateOptions) -> Report {
        let source: Arc<dyn Source> = self.place.clone();
        validate(&source, scope, &options).await.unwrap()
    }
}

#[tokio::test]
async fn progress_reports_every_byte_once() {
    #[derive(Debug, Default)]
    struct Watcher(Mutex<(u64, u64, usize, bool)>);
    impl Observer for Watcher {
        fn event(&self, event: Event<'_>) {
            let mut seen = self.0.lock().unwrap();
            match event {
                Event::Planned { bytes, .. } => seen.0 = bytes,
                Event::Read { bytes, .. } => seen.1 += bytes,
                Event::Checked { .. } => seen.2 += 1,
                Event::Ended => seen.3 = true,
                _ => {}
            }
        }
    }
    let builder = ImageBuilder::new();
    let (layers, config) = builder.parts();
    // Both entries have the same layers.
    let mut other = config.clone();
    other["os"] = json!("plan9");
    let manifests = [builder.manifest(&layers, &config), builder.manifest(&layers, &other)];
    let index = testing::index(&builder.place.memory, &manifests);
    let watcher = Arc::new(Watcher::default());
    let options = ValidateOptions::default().observer(Some(watcher.clone())).jobs(1);
    let report = builder.report(&Scope::Root(Box::new(index)), options).await;
    let bytes = layers.iter().map(|layer| layer.size).sum();
    assert_eq!(*watcher.0.lock().unwrap(), (bytes, bytes, 2, true));
    assert_eq!((report.documents, report.blobs), (5, 2));
}
