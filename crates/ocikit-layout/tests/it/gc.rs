//! Garbage collection: what is removed, and what is kept.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says where it fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ocikit_image::{
    AnnotateOptions, CopyOptions, Error, Fault, Memory, Name, Naming, Root, Scope, Sink, ValidateOptions, annotate,
    copy, testing, validate,
};
use ocikit_layout::{Dir, GcOptions, Scratch, TarEdit, TarOptions, TarWriter, gc, open, open_all};
use ocikit_spec::{Descriptor, Digest, Index, MediaType, Platform};

fn testdata(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(name)
}

fn options() -> GcOptions {
    GcOptions::at(SystemTime::now())
}

async fn problems(path: &Path) -> Vec<String> {
    let (source, inventory) = open_all(path, &Scratch::default()).await.unwrap();
    let report = validate(&source, &Scope::Everything(inventory), &ValidateOptions::default()).await.unwrap();
    // The layers are random bytes.
    let problems = report.problems.iter().filter(|problem| !matches!(problem.fault, Fault::InvalidLayer { .. }));
    problems.map(ToString::to_string).collect()
}

fn named(tag: &str) -> CopyOptions {
    let naming = Naming::of_tag(tag.parse().unwrap());
    CopyOptions::default().names(vec![naming])
}

async fn image(seed: u64) -> Root {
    let memory = Arc::new(Memory::new());
    let image = testing::image(&memory, seed, &Platform::new("linux", "amd64"), &[3000, 1]);
    Root::at(memory, image).await.unwrap()
}

/// Creates a layout whose tag `1` was moved to another image, and an archive whose image was annotated three times.
async fn with_garbage(directory: &Path) -> [PathBuf; 2] {
    let (dir, tar) = (directory.join("layout"), directory.join("a.tar"));
    let sink: Arc<dyn Sink> = Arc::new(Dir::create(&dir).await.unwrap());
    copy(&image(1).await, &sink, &named("1")).await.unwrap();
    copy(&image(10).await, &sink, &named("1")).await.unwrap();
    copy(&image(20).await, &sink, &named("2")).await.unwrap();
    let sink: Arc<dyn Sink> = Arc::new(TarWriter::create(&tar, TarOptions::default()).await.unwrap());
    copy(&image(10).await, &sink, &named("1")).await.unwrap();
    for value in ["one", "two", "three"] {
        let sink: Arc<dyn Sink> = Arc::new(TarEdit::open(&tar).await.unwrap());
        let root = Root::open(sink.clone(), &Name::Only).await.unwrap();
        let set = vec![("k".to_owned(), value.to_owned())];
        let after = annotate(&root, &AnnotateOptions::default().set(set)).await.unwrap();
        let naming = Naming::default().replaces(Some(root.digest()));
        copy(&after, &sink, &CopyOptions::default().names(vec![naming])).await.unwrap();
    }
    [dir, tar]
}

#[tokio::test]
async fn unreferenced_blobs_are_removed() {
    let directory = tempfile::tempdir().unwrap();
    for path in with_garbage(directory.path()).await {
        let size = |path: &Path| match path.is_dir() {
            true => fs::read_dir(path.join("blobs/sha256")).unwrap().count() as u64,
            false => fs::metadata(path).unwrap().len(),
        };
        let before = size(&path);
        let roots = open_all(&path, &Scratch::default()).await.unwrap().1.roots;
        assert!(!problems(&path).await.is_empty());
        let dry = gc(&path, &options().dry_run(true)).await.unwrap();
        assert_eq!(size(&path), before);
        let collected = gc(&path, &options()).await.unwrap();
        assert_eq!((&dry.removed, dry.freed), (&collected.removed, collected.freed));
        assert!(collected.freed > 0 && size(&path) < before);
        if !path.is_dir() {
            assert_eq!(size(&path), before - collected.freed);
        }
        assert_eq!(problems(&path).await, [""; 0]);
        assert_eq!(open_all(&path, &Scratch::default()).await.unwrap().1.roots.text(), roots.text());
        let again = gc(&path, &options()).await.unwrap();
        assert_eq!((again.removed.len(), again.kept), (0, collected.kept));
    }
}

#[tokio::test]
async fn archive_can_be_edited_after_gc() {
    let directory = tempfile::tempdir().unwrap();
    let [_, tar] = with_garbage(directory.path()).await;
    gc(&tar, &options()).await.unwrap();
    let sink: Arc<dyn Sink> = Arc::new(TarEdit::open(&tar).await.unwrap());
    copy(&image(30).await, &sink, &named("3")).await.unwrap();
    drop(sink);
    assert_eq!(problems(&tar).await, [""; 0]);
}

/// The fixtures of other programs have no unreferenced manifests.
#[tokio::test]
async fn listed_images_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    for name in [
        "archive-nested/image.tar",
        "archive-oras/image.tar",
        "buildkit-attested/multi.tar",
        "buildkit-docker/image.tar",
        "docker-archive/moby-two.tar",
        "docker-archive/moby-containerd.tar",
        "layout-buildkit-cache/layout",
        "layout-oras-referrers/layout",
        "layout-regctl/layout",
        "layout-sha512/layout",
        "layout-umoci/layout",
    ] {
        let path = directory.path().join(name.replace('/', "-"));
        copy_tree(&testdata(name), &path);
        let roots = open_all(&path, &Scratch::default()).await.unwrap().1.roots;
        // The archive of containerd lists platforms that it does not hold.
        gc(&path, &options().sparse(name.ends_with("moby-containerd.tar"))).await.unwrap();
        assert_eq!(problems(&path).await.iter().filter(|text| text.contains("missing")).count(), 0, "{name}");
        let source = open(&path, &Scratch::default()).await.unwrap();
        let old = open(testdata(name), &Scratch::default()).await.unwrap();
        for root in roots.manifests() {
            let subjects = [&source, &old].map(|place| place.referrers(&root.digest));
            let [new, old] = futures::future::join_all(subjects).await.try_into().unwrap();
            assert_eq!(new.unwrap(), old.unwrap(), "{name}");
        }
    }
}

fn copy_tree(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let name = entry.unwrap().file_name();
            copy_tree(&from.join(&name), &to.join(&name));
        }
    } else {
        fs::copy(from, to).unwrap();
    }
}

#[tokio::test]
async fn nothing_is_removed_if_a_document_is_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let [dir, _] = with_garbage(directory.path()).await;
    let root = open(&dir, &Scratch::default()).await.unwrap().resolve(&Name::Tag("1".parse().unwrap())).await.unwrap();
    let path = dir.join(root.digest.blob_path());
    let mut bytes = fs::read(&path).unwrap();
    bytes[10] ^= 1;
    fs::write(&path, bytes).unwrap();
    let before = fs::read_dir(dir.join("blobs/sha256")).unwrap().count();
    assert!(matches!(gc(&dir, &options()).await, Err(Error::Mismatch { .. })));
    assert_eq!(fs::read_dir(dir.join("blobs/sha256")).unwrap().count(), before);
}

#[tokio::test]
async fn layout_with_a_writer_is_not_changed() {
    let directory = tempfile::tempdir().unwrap();
    let [dir, _] = with_garbage(directory.path()).await;
    let (writer, memory) = (Dir::open(&dir).await.unwrap(), Memory::new());
    let blob = Descriptor::of(MediaType::OCTET_STREAM, b"new");
    memory.insert(&b"new"[..]);
    writer.put(&blob, &memory).await.unwrap();
    assert!(matches!(gc(&dir, &options()).await, Err(Error::Unsupported { .. })));
    drop(writer);
    assert!(gc(&dir, &options()).await.unwrap().removed.iter().any(|gone| gone.digest == Some(blob.digest)));
}

#[tokio::test]
async fn only_old_temporary_files_are_removed() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path().join("layout");
    let sink: Arc<dyn Sink> = Arc::new(Dir::create(&dir).await.unwrap());
    copy(&image(1).await, &sink, &named("1")).await.unwrap();
    drop(sink);
    for name in [".ocikit-1", "blobs/sha256/.ocikit-2", "blobs/sha256/stray", "mine"] {
        fs::write(dir.join(name), b"x").unwrap();
    }
    let names = async |now: SystemTime| -> Vec<_> {
        let options = GcOptions::at(now).dry_run(true);
        gc(&dir, &options).await.unwrap().removed.into_iter().map(|removed| removed.name).collect()
    };
    let now = SystemTime::now();
    assert_eq!(names(now).await, [""; 0]);
    let later = now + Duration::from_secs(7200);
    assert_eq!(names(later).await, [".ocikit-1", "blobs/sha256/.ocikit-2"]);
}

#[tokio::test]
async fn problems_of_the_layout_itself_are_reported() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path().join("layout");
    fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    fs::write(dir.join("index.json"), Index::of(&[]).bytes()).unwrap();
    fs::write(dir.join("blobs/sha256/name"), b"x").unwrap();
    fs::write(dir.join(Digest::sha256_of(b"x").blob_path()), b"x").unwrap();
    for (marker, wrong) in [
        (r#"{"imageLayoutVersion":"1.0.0"}"#, false),
        (r#"{"imageLayoutVersion":"2.0.0"}"#, true),
        (r#"{"imageLayoutVersion":"#, true),
        ("", true),
    ] {
        fs::write(dir.join("oci-layout"), marker).unwrap();
        let found = problems(&dir).await;
        assert_eq!(found.iter().any(|text| text.starts_with("oci-layout: ")), wrong, "{found:?}");
        assert!(found.iter().any(|text| text.starts_with("blobs/sha256/name: ")), "{found:?}");
        assert!(found.iter().any(|text| text.contains("it is unreferenced")), "{found:?}");
    }
}

/// `cosign save` lists the image but not its referrers. Referrers of referrers are kept too.
#[tokio::test]
async fn unlisted_referrers_are_kept_with_their_subjects() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path().join("layout");
    let sink: Arc<dyn Sink> = Arc::new(Dir::create(&dir).await.unwrap());
    copy(&image(1).await, &sink, &named("1")).await.unwrap();
    drop(sink);
    let put = |bytes: &[u8]| {
        let digest = Digest::sha256_of(bytes);
        fs::write(dir.join(digest.blob_path()), bytes).unwrap();
        digest
    };
    let referrer = |subject: &Digest, layer: &Digest| {
        let part = |digest: &Digest, kind: &str| format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":2}}"#);
        let (config, layer) = (part(layer, "application/vnd.oci.empty.v1+json"), part(layer, "text/plain"));
        let subject = part(subject, MediaType::OCI_MANIFEST.as_str());
        put(format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}],"subject":{subject}}}"#).as_bytes())
    };
    let root = open(&dir, &Scratch::default()).await.unwrap().resolve(&Name::Only).await.unwrap();
    let signature = referrer(&root.digest, &put(b"s1"));
    let timestamp = referrer(&signature, &put(b"s2"));
    let [other, other_layer] = [Digest::sha256_of(b"gone"), put(b"s3")];
    let orphan = referrer(&other, &other_layer);
    let place = open(&dir, &Scratch::default()).await.unwrap();
    for (subject, about) in [(root.digest, signature), (signature, timestamp), (other, orphan)] {
        let found = place.referrers(&subject).await.unwrap();
        assert_eq!(found.iter().map(|found| found.digest).collect::<Vec<_>>(), [about]);
    }
    let mut removed: Vec<_> = gc(&dir, &options()).await.unwrap().removed.iter().map(|gone| gone.digest).collect();
    let mut expected = [Some(orphan), Some(other_layer)];
    removed.sort();
    expected.sort();
    assert_eq!(removed, expected);
    assert_eq!(problems(&dir).await.iter().filter(|text| text.contains("it is unreferenced")).count(), 0);
}
