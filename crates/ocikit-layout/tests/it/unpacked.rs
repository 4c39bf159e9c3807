//! Archives that cannot be read in place: compressed ones, and docker archives from a pipe.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says where it fails by panicking")]

use std::fs::{self, File};
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ocikit_archive::{Decoder, Encoder};
use ocikit_image::{CopyOptions, Error, Event, Memory, Name, Naming, Observer, Root, Sink, copy, testing};
use ocikit_layout::{Compression, Scratch, TarEdit, TarOptions, TarWriter, open_archive, receive};
use ocikit_spec::{Digest, Platform};

const COMPRESSIONS: [Compression; 3] = [Compression::None, Compression::Gzip, Compression::Zstd];

#[derive(Debug, Default)]
struct DecompressedArchives(Mutex<Vec<String>>);

impl Observer for DecompressedArchives {
    fn event(&self, event: Event<'_>) {
        if let Event::Decompressing { location } = event {
            self.0.lock().unwrap().push(location.to_owned());
        }
    }
}

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(name)
}

/// Creates a scratch directory that shows whether files are left in it.
fn scratch(directory: &Path) -> (Scratch, Arc<DecompressedArchives>) {
    let unpacked = Arc::new(DecompressedArchives::default());
    (Scratch::default().directory(Some(directory.to_owned())).observer(Some(unpacked.clone())), unpacked)
}

fn compressed(compression: Compression, bytes: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new(compression, Vec::new()).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().next().is_none()
}

#[tokio::test]
async fn compressed_archives_are_decompressed_for_reading() {
    let (directory, temporary) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for name in ["buildkit-multi/image.tar", "docker-archive/moby-tags.tar"] {
        let name = testdata(name);
        let plain = fs::read(&name).unwrap();
        let expected = open_archive(&name, &Scratch::default()).await.unwrap();
        let expected = expected.resolve(&Name::Only).await.unwrap();
        for compression in COMPRESSIONS {
            let path = directory.path().join("image.tar");
            fs::write(&path, compressed(compression, &plain)).unwrap();
            let (scratch, unpacked) = scratch(temporary.path());
            let source = open_archive(&path, &scratch).await.unwrap();
            assert_eq!(source.resolve(&Name::Only).await.unwrap(), expected, "{compression:?}");
            assert_eq!(unpacked.0.lock().unwrap().len(), usize::from(compression != Compression::None));
            let root = Root::open(source, &Name::Only).await.unwrap();
            let there: Arc<dyn Sink> = Arc::new(Memory::new());
            copy(&root, &there, &CopyOptions::default()).await.unwrap();
            assert!(is_empty(temporary.path()));
        }
    }
}

#[tokio::test]
async fn every_archive_can_be_read_from_a_pipe() {
    let temporary = tempfile::tempdir().unwrap();
    for (name, waits) in [
        ("buildkit-multi/image.tar", false),
        ("docker-archive/moby-tags.tar", false),
        ("docker-archive/podman.tar", true),
    ] {
        let plain = fs::read(testdata(name)).unwrap();
        let expected = open_archive(testdata(name), &Scratch::default()).await.unwrap();
        let expected = expected.resolve(&Name::Only).await.unwrap();
        for compression in COMPRESSIONS {
            let (scratch, unpacked) = scratch(temporary.path());
            let there: Arc<dyn Sink> = Arc::new(Memory::new());
            let source =
                receive("-", Cursor::new(compressed(compression, &plain)), &there, &scratch).await.unwrap().source;
            assert_eq!(!unpacked.0.lock().unwrap().is_empty(), waits, "{name} {compression:?}");
            let root = Root::open(source, &Name::Only).await.unwrap();
            assert_eq!(*root.descriptor(), expected, "{name} {compression:?}");
            copy(&root, &there, &CopyOptions::default()).await.unwrap();
            assert!(is_empty(temporary.path()));
        }
    }
}

#[tokio::test]
async fn compressed_archives_are_reproducible() {
    let directory = tempfile::tempdir().unwrap();
    let memory = Arc::new(Memory::new());
    let image = testing::image(&memory, 1, &Platform::new("linux", "amd64"), &[3_000_000, 10, 0]);
    let root = Root::at(memory, image).await.unwrap();
    let mut plain = Vec::new();
    for compression in COMPRESSIONS {
        let mut before = None;
        for jobs in [1, 8] {
            let path = directory.path().join("image.tar");
            let options = TarOptions::default().compression(compression);
            let sink: Arc<dyn Sink> = Arc::new(TarWriter::create(&path, options).await.unwrap());
            let names = vec![Naming::of_tag("v1".parse().unwrap())];
            copy(&root, &sink, &CopyOptions::default().jobs(jobs).names(names)).await.unwrap();
            let bytes = fs::read(&path).unwrap();
            assert_eq!(Compression::detect(&bytes), compression);
            assert!(before.replace(bytes.clone()).is_none_or(|before| before == bytes), "{compression:?}");
            let mut found = Vec::new();
            std::io::Read::read_to_end(&mut Decoder::new(&bytes[..]).unwrap(), &mut found).unwrap();
            if plain.is_empty() {
                plain.clone_from(&found);
            }
            assert!(found == plain, "{compression:?}");
        }
    }
}

#[tokio::test]
async fn unfinished_archive_is_not_created() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image.tar.zst");
    let options = TarOptions::default().compression(Compression::Zstd);
    drop(TarWriter::create(&path, options).await.unwrap());
    assert!(is_empty(directory.path()));
}

#[tokio::test]
async fn rejects_files_that_are_no_archive() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image.tar.gz");
    let plain = fs::read(testdata("buildkit-single/image.tar")).unwrap();
    let whole = compressed(Compression::Gzip, &plain);
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let error = open_archive(&path, &Scratch::default()).await.unwrap_err();
    assert!(matches!(error, Error::Broken { .. }), "{error}");

    // A compression ratio that no image has.
    let mut encoder = Encoder::new(Compression::Zstd, File::create(&path).unwrap()).unwrap();
    for _ in 0..300 {
        encoder.write_all(&[0; 1 << 20]).unwrap();
    }
    encoder.finish().unwrap();
    let error = open_archive(&path, &Scratch::default()).await.unwrap_err();
    assert!(matches!(&error, Error::Broken { source, .. } if source.to_string().contains("50 times")), "{error}");

    fs::write(&path, &whole).unwrap();
    let error = TarEdit::open(&path).await.unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

/// The archives of Bazel's rules_oci: blobs of a layout, one of them under a file name, and no layout.
#[tokio::test]
async fn docker_archives_with_blob_names_of_a_layout() {
    let layer = testing::Tar::new().file("etc/motd", b"hello").finish();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        Digest::sha256_of(&layer)
    );
    let config_name = Digest::sha256_of(config.as_bytes()).blob_path();
    for (ending, in_front) in [(".tar", true), (".tar", false), ("", false)] {
        let layer_name = format!("{}{ending}", Digest::sha256_of(&layer).blob_path());
        let list = format!(r#"[{{"Config":"{config_name}","RepoTags":["acme/app:1"],"Layers":["{layer_name}"]}}]"#);
        let mut blobs = vec![(layer_name.as_str(), &layer[..]), (&config_name, config.as_bytes())];
        if !in_front {
            blobs.reverse();
        }
        let mut tar = blobs.into_iter().fold(testing::Tar::new(), |tar, (name, bytes)| tar.file(name, bytes));
        tar = tar.file("manifest.json", list.as_bytes());
        let to: Arc<dyn Sink> = Arc::new(Memory::new());
        let received = receive("-", Cursor::new(tar.finish()), &to, &Scratch::default()).await;
        if in_front {
            let root = Root::open(received.unwrap().source, &Name::Tag("1".parse().unwrap())).await.unwrap();
            assert!(matches!(root, Root::Image(_)));
        } else {
            // It started like an OCI archive, so it was not stored.
            let error = received.unwrap_err();
            assert!(matches!(&error, Error::Unsupported { what, .. } if what.contains("into a file")), "{error:?}");
        }
    }
}
