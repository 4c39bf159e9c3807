//! Files in layers and images.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says where it fails by panicking")]

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use ocikit_archive::Compression;
use ocikit_archive::layer::{Kind, Path};
use ocikit_image::testing::{self, Shared, Tar};
use ocikit_image::{Body, ByteRange, DiffId, Error, Image, Memory, Mismatch, Name, Result, Root, Source};
use ocikit_spec::{Descriptor, Digest, MediaType};

/// Memory that records which blobs are opened, and damages one of them.
#[derive(Debug, Default)]
struct RecordingMemory {
    memory: Memory,
    opened: Mutex<Vec<Digest>>,
    damaged: Mutex<Option<Digest>>,
}

impl std::fmt::Display for RecordingMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("here")
    }
}

#[async_trait]
impl Source for RecordingMemory {
    async fn resolve(&self, name: &Name) -> Result<Descriptor> {
        self.memory.resolve(name).await
    }

    async fn open_unverified(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        self.opened.lock().unwrap().push(descriptor.digest);
        let body = self.memory.open_unverified(descriptor, range).await?;
        if *self.damaged.lock().unwrap() != Some(descriptor.digest) {
            return Ok(body);
        }
        let mut bytes = body.bytes().await?.to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        Ok(bytes::Bytes::from(bytes).into())
    }

    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        self.memory.has(descriptor).await
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.memory.referrers(subject).await
    }
}

async fn image(compression: Compression, layers: &[Vec<u8>]) -> (Arc<RecordingMemory>, Image) {
    let place = Arc::new(RecordingMemory::default());
    let descriptor = testing::image_of(&place.memory, &"linux/amd64".parse().unwrap(), compression, layers);
    let Root::Image(image) = Root::at(place.clone(), descriptor).await.unwrap() else { panic!("an image") };
    place.opened.lock().unwrap().clear();
    (place, image)
}

fn three_layers() -> Vec<Vec<u8>> {
    vec![
        Tar::new()
            .directory("etc")
            .file("etc/passwd", b"root")
            .file("etc/motd", b"old")
            .file("big", &[7; 6 << 20])
            .finish(),
        Tar::new().symlink("conf", "/etc").file("etc/.wh.motd", b"").file("etc/hosts", b"localhost").finish(),
        Tar::new()
            .link("etc/names", "etc/passwd")
            .symlink("loop", "loop")
            .file("top", b"first")
            .file("top", b"last")
            .finish(),
    ]
}

async fn cat(image: &Image, path: &str) -> Result<Vec<u8>> {
    let shared = Shared::default();
    image.read_file(path.as_bytes(), shared.clone()).await?;
    let bytes = shared.0.lock().unwrap().clone();
    Ok(bytes)
}

#[tokio::test]
async fn layer_returns_its_entries_and_diff_id() {
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let layers = three_layers();
        let (_, image) = image(compression, &layers).await;
        for (layer, tar) in image.layers().zip(&layers) {
            let (found, diff_id) = layer.decode(DiffId::Compute, |tar| Ok(tar.compression())).await.unwrap();
            assert_eq!((found, diff_id), (compression, Some(Digest::sha256_of(tar))));
            assert_eq!(layer.decode(DiffId::Skip, |_| Ok(())).await.unwrap().1, None);
        }
        let entries = image.layers().nth(1).unwrap().entries().await.unwrap();
        let names: Vec<_> = entries.iter().map(|entry| entry.path.to_string()).collect();
        assert_eq!(names, ["conf", "etc/.wh.motd", "etc/hosts"]);
        assert!(matches!(entries[1].kind, Kind::Whiteout(_)));
    }
}

#[tokio::test]
async fn layers_are_applied_in_order() {
    let (_, image) = image(Compression::Gzip, &three_layers()).await;
    let files = image.files().await.unwrap();
    let names: Vec<_> = files.iter().map(|(path, located)| format!("{path}:{}", located.layer)).collect();
    assert_eq!(
        names,
        [":0", "big:0", "conf:1", "etc:0", "etc/hosts:1", "etc/names:0", "etc/passwd:0", "loop:2", "top:2"]
    );
    assert!(files.get(&Path::confined(b"etc/motd")).is_none());
}

#[tokio::test]
async fn file_is_read_without_lower_layers() {
    let (place, image) = image(Compression::Zstd, &three_layers()).await;
    let layers: Vec<_> = image.layers().map(|layer| layer.descriptor().digest).collect();
    for (path, bytes, read) in [
        ("/top", &b"last"[..], &[2][..]),
        ("etc/hosts", b"localhost", &[2, 1]),
        // The link is in the same layer as its target, so the layer is read twice.
        ("conf/hosts", b"localhost", &[2, 1, 1]),
        ("conf/../conf/passwd", b"root", &[2, 1, 0]),
        ("etc/names", b"root", &[2, 1, 0, 0]),
        // The file is too large to be kept in memory during the lookup.
        ("big", &[7; 6 << 20], &[2, 1, 0, 0]),
    ] {
        assert_eq!(cat(&image, path).await.unwrap(), bytes, "{path}");
        let opened: Vec<_> = std::mem::take(&mut *place.opened.lock().unwrap());
        assert_eq!(opened, read.iter().map(|layer| layers[*layer]).collect::<Vec<_>>(), "{path}");
    }
    for path in ["etc/motd", "none", "top/x", "loop", "etc/none/x"] {
        assert!(cat(&image, path).await.unwrap_err().is_not_found(), "{path}");
    }
    for path in ["etc", "/", "conf"] {
        assert!(matches!(cat(&image, path).await.unwrap_err(), Error::Unsupported { .. }), "{path}");
    }
    let layer = image.layers().next().unwrap();
    let shared = Shared::default();
    layer.read_file(b"etc/motd", shared.clone()).await.unwrap();
    assert_eq!(*shared.0.lock().unwrap(), b"old");
}

#[tokio::test]
async fn damaged_layer_is_reported_as_a_mismatch() {
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let (place, image) = image(compression, &three_layers()).await;
        let layer = image.layers().next().unwrap();
        *place.damaged.lock().unwrap() = Some(layer.descriptor().digest);
        for error in [
            layer.tree().await.unwrap_err(),
            layer.decode(DiffId::Skip, |_| Ok(())).await.unwrap_err(),
            image.files().await.unwrap_err(),
            cat(&image, "big").await.unwrap_err(),
        ] {
            let Error::Mismatch { mismatch, .. } = error else { panic!("{compression:?}: {error:?}") };
            assert!(matches!(*mismatch, Mismatch::Digest(_)));
        }
    }
}

#[tokio::test]
async fn rejects_layers_of_other_types() {
    let place = Arc::new(Memory::new());
    let platform = "linux/amd64".parse().unwrap();
    // Random bytes with the right digest.
    let random = testing::image(&place, 1, &platform, &[5000]);
    let Root::Image(image) = Root::at(place.clone(), random).await.unwrap() else { panic!("an image") };
    assert!(matches!(image.files().await.unwrap_err(), Error::Broken { .. }));

    let artifact = testing::image(&place, 2, &platform, &[10]);
    let manifest = String::from_utf8(
        place.open_unverified(&artifact, ByteRange::ALL).await.unwrap().bytes().await.unwrap().to_vec(),
    );
    let manifest = manifest.unwrap().replace(MediaType::OCI_LAYER.as_str(), "application/vnd.in-toto+json");
    place.insert(manifest.clone());
    let descriptor = Descriptor::of(MediaType::OCI_MANIFEST, manifest.as_bytes());
    let Root::Image(image) = Root::at(place, descriptor).await.unwrap() else { panic!("an image") };
    assert!(matches!(image.files().await.unwrap_err(), Error::Unsupported { .. }));
}

#[tokio::test]
async fn failed_writer_is_reported() {
    #[derive(Debug)]
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (_, image) = image(Compression::Gzip, &three_layers()).await;
    for path in ["top", "big"] {
        let error = image.read_file(path.as_bytes(), Full).await.unwrap_err();
        assert!(
            matches!(&error, Error::Failed { source, .. } if source.kind() == io::ErrorKind::StorageFull),
            "{error:?}"
        );
    }
}
