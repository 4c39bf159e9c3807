//! Differences between generated images.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says where it fails by panicking")]

use std::sync::{Arc, Mutex};

use ocikit::image::testing::{self, Compression, Tar};
use ocikit::image::{Body, ByteRange, Memory};
use ocikit::{Change, Class, Descriptor, Diff, Digest, Name, Result, Root, Source, diff};

fn platform() -> ocikit::Platform {
    "linux/amd64".parse().unwrap()
}

async fn image(memory: &Arc<Memory>, compression: Compression, layers: &[Vec<u8>]) -> Root {
    let descriptor = testing::image_of(memory, &platform(), compression, layers);
    Root::at(memory.clone(), descriptor).await.unwrap()
}

/// Returns class, change, area, position and aspect of each difference.
fn shown(found: &Diff) -> Vec<String> {
    let word = |value: serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let show = |difference: &ocikit::Difference| {
        let value = serde_json::to_value(difference).unwrap();
        let words = ["class", "change", "entry", "area", "at", "what"].map(|key| word(value[key].clone()));
        words.iter().filter(|word| !word.is_empty()).cloned().collect::<Vec<_>>().join(" ")
    };
    found.differences.iter().map(show).collect()
}

async fn compare(left: &[Vec<u8>], right: &[Vec<u8>]) -> Vec<String> {
    let memory = Arc::new(Memory::new());
    let (left, right) = (image(&memory, Compression::Gzip, left).await, image(&memory, Compression::Gzip, right).await);
    shown(&diff(&left, &right).await.unwrap())
}

fn base() -> Tar {
    Tar::new().directory("etc").file("etc/motd", b"hello")
}

#[tokio::test]
async fn all_kinds_of_file_differences_are_found() {
    let left = Tar::new()
        .file("content", b"a")
        .file("mode", b"")
        .file("time", b"")
        .symlink("link", "a")
        .file("kind", b"")
        .directory("gone")
        .file("gone/file", b"");
    let right = Tar::new()
        .file("content", b"b")
        .symlink("link", "b")
        .directory("kind")
        .file("new", b"")
        .modified(7)
        .file("time", b"")
        .modified(0)
        .mode(0o600)
        .file("mode", b"");
    assert_eq!(
        compare(&[left.finish()], &[right.finish()]).await,
        [
            "semantic changed layer 0 content",
            "semantic changed file /content content",
            "semantic removed file /gone",
            "semantic removed file /gone/file",
            "semantic changed file /kind type",
            "semantic changed file /link content",
            "semantic changed file /mode mode",
            "semantic added file /new",
            "time changed file /time modified",
        ]
    );
}

#[tokio::test]
async fn differences_hidden_from_containers_are_not_semantic() {
    let layers = [base().finish(), Tar::new().file("etc/hosts", b"x").finish()];
    // The same files in one layer, in another order, and with a file that a whiteout removes.
    let flat = base().file("etc/hosts", b"x").finish();
    assert_eq!(
        compare(&layers, std::slice::from_ref(&flat)).await,
        ["encoding removed layer 0", "encoding removed layer 1", "encoding added layer 0"]
    );
    let turned = Tar::new().file("etc/hosts", b"x").directory("etc").file("etc/motd", b"hello").finish();
    assert_eq!(compare(&[flat], &[turned]).await, ["encoding changed layer 0 content"]);
    let hidden = Tar::new().file("etc/hosts", b"x").file("etc/.wh.none", b"").finish();
    assert_eq!(compare(&layers, &[layers[0].clone(), hidden]).await, ["encoding changed layer 1 content"]);
}

#[tokio::test]
async fn different_times_are_of_class_time() {
    let later = Tar::new().modified(9).directory("etc").file("etc/motd", b"hello").finish();
    let found = compare(&[base().finish()], &[later]).await;
    assert_eq!(
        found,
        ["time changed layer 0 content", "time changed file /etc modified", "time changed file /etc/motd modified"]
    );
}

#[tokio::test]
async fn different_compression_is_of_class_encoding() {
    let memory = Arc::new(Memory::new());
    let layers = [base().finish()];
    let (gzip, zstd) =
        (image(&memory, Compression::Gzip, &layers).await, image(&memory, Compression::Zstd, &layers).await);
    let found = diff(&gzip, &zstd).await.unwrap();
    assert_eq!(
        shown(&found),
        ["encoding changed descriptor layers.0.mediaType", "encoding changed layer 0 compression"]
    );
    assert!(!found.is_semantic());
    assert!(diff(&gzip, &gzip).await.unwrap().differences.is_empty());
}

#[tokio::test]
async fn indexes_are_compared_by_platform() {
    let memory = Arc::new(Memory::new());
    let of = |platform: &str, text: &[u8]| {
        testing::image_of(&memory, &platform.parse().unwrap(), Compression::None, &[base().file("x", text).finish()])
    };
    let (amd, arm, other_arm) = (of("linux/amd64", b"1"), of("linux/arm64", b"1"), of("linux/arm64/v8", b"2"));
    let risc = of("linux/riscv64", b"1");
    let index =
        async |entries: &[Descriptor]| Root::at(memory.clone(), testing::index(&memory, entries)).await.unwrap();
    let left = index(&[amd.clone(), arm]).await;
    let right = index(&[other_arm, amd.clone(), risc]).await;
    let found = diff(&left, &right).await.unwrap();
    assert_eq!(
        shown(&found),
        [
            "order changed index manifests",
            "semantic changed linux/arm64 layer 0 content",
            "semantic changed linux/arm64 file /x content",
            "semantic added index linux/riscv64",
        ]
    );
    let back = diff(&right, &left).await.unwrap();
    assert_eq!(back.count(Class::Semantic), found.count(Class::Semantic));
    assert!(back.differences.iter().any(|difference| difference.change == Change::Removed));

    // An image, and an index of nothing else.
    let image = Root::at(memory.clone(), amd.clone()).await.unwrap();
    let wrapped = index(&[amd]).await;
    for (one, other) in [(&image, &wrapped), (&wrapped, &image)] {
        assert_eq!(shown(&diff(one, other).await.unwrap()), ["encoding changed index kind"]);
    }
    assert_eq!(shown(&diff(&image, &left).await.unwrap()), ["semantic changed index kind"]);
}

#[tokio::test]
async fn differences_of_annotations_and_artifacts_are_found() {
    let memory = Arc::new(Memory::new());
    let subject = testing::image_of(&memory, &platform(), Compression::None, &[base().finish()]);
    let one = testing::referrer(&memory, &subject, "application/x.one");
    let other = testing::referrer(&memory, &subject, "application/x.other");
    let open = async |descriptor| Root::at(memory.clone(), descriptor).await.unwrap();
    let found = diff(&open(one.clone()).await, &open(other).await).await.unwrap();
    assert_eq!(shown(&found), ["semantic changed manifest artifactType"]);
    let found = diff(&open(one).await, &open(subject.clone()).await).await.unwrap();
    assert!(found.is_semantic());

    let set = vec![("org.opencontainers.image.created".to_owned(), "now".to_owned()), ("k".to_owned(), "v".to_owned())];
    let root = open(subject).await;
    let options = ocikit::AnnotateOptions::default().set(set);
    let annotated = ocikit::image::annotate(&root, &options).await.unwrap();
    let found = diff(&root, &annotated).await.unwrap();
    assert_eq!(
        shown(&found),
        ["time added manifest annotations.org.opencontainers.image.created", "semantic added manifest annotations.k"]
    );
}

/// Memory that records which blobs are opened.
#[derive(Debug, Default)]
struct RecordingMemory(Memory, Mutex<Vec<Digest>>);

impl std::fmt::Display for RecordingMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("here")
    }
}

#[async_trait::async_trait]
impl Source for RecordingMemory {
    async fn resolve(&self, name: &Name) -> Result<Descriptor> {
        self.0.resolve(name).await
    }

    async fn open_unverified(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        self.1.lock().unwrap().push(descriptor.digest);
        self.0.open_unverified(descriptor, range).await
    }

    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        self.0.has(descriptor).await
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.0.referrers(subject).await
    }
}

#[tokio::test]
async fn equal_contents_are_read_at_most_once() {
    let place = Arc::new(RecordingMemory::default());
    let open = async |compression, layers: &[Vec<u8>]| {
        let descriptor = testing::image_of(&place.0, &platform(), compression, layers);
        Root::at(place.clone(), descriptor).await.unwrap()
    };
    let shared = [base().finish(), Tar::new().file("a", b"a").finish()];
    let top = |text: &[u8]| Tar::new().file("b", text).finish();
    let gzip = open(Compression::Gzip, &shared).await;
    let zstd = open(Compression::Zstd, &shared).await;
    let one = open(Compression::Gzip, &[&shared[..], &[top(b"1")]].concat()).await;
    let other = open(Compression::Gzip, &[&shared[..], &[top(b"2")]].concat()).await;
    // The number of configs and layers that are read.
    for (left, right, configs, layers) in
        [(&gzip, &gzip, 0, 0), (&gzip, &zstd, 1, 4), (&one, &other, 2, 4), (&gzip, &one, 2, 3), (&zstd, &one, 2, 5)]
    {
        place.1.lock().unwrap().clear();
        diff(left, right).await.unwrap();
        assert_eq!(place.1.lock().unwrap().len(), configs + layers);
    }
}
