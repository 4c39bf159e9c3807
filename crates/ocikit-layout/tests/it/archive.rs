//! Properties of archives beyond the conformance suite: reproducible bytes, pipes, edits in place, no leftovers.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says where it fails by panicking")]

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ocikit_archive::{END, Header, TarIndex};
use ocikit_image::testing::Shared;
use ocikit_image::{
    AnnotateOn, AnnotateOptions, CopyOptions, Error, Memory, Name, Naming, Put, Root, Sink, Source, SourceExt,
    annotate, copy, testing,
};
use ocikit_layout::{Dir, DockerList, Pipe, Scratch, Tar, TarEdit, TarOptions, TarWriter};
use ocikit_spec::{Digest, Platform};
use tempfile::TempDir;

async fn open(path: impl Into<PathBuf>) -> Result<Arc<dyn Source>, Error> {
    ocikit_layout::open(path, &Scratch::default()).await
}

/// Creates an index of two images whose layers are larger than the channels between threads.
async fn root() -> Root {
    let memory = Arc::new(Memory::new());
    let one = testing::image(&memory, 1, &Platform::new("linux", "amd64"), &[3_000_000, 10, 0]);
    let two = testing::image(&memory, 2, &Platform::new("linux", "arm64"), &[10, 2_000_000]);
    let index = testing::index(&memory, &[one, two]);
    Root::at(memory, index).await.unwrap()
}

fn named(tag: &str, jobs: usize) -> CopyOptions {
    let names = vec![Naming::of_tag(tag.parse().unwrap())];
    CopyOptions::default().jobs(jobs).names(names)
}

async fn write(path: &Path, options: TarOptions, jobs: usize) -> Vec<u8> {
    let sink: Arc<dyn Sink> = Arc::new(TarWriter::create(path, options).await.unwrap());
    copy(&root().await, &sink, &named("v1", jobs)).await.unwrap();
    fs::read(path).unwrap()
}

fn names(directory: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(directory.path()).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_images_give_the_same_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.tar");
    let expected = write(&path, TarOptions::default(), 1).await;
    for jobs in [2, 8] {
        assert!(write(&path, TarOptions::default(), jobs).await == expected, "{jobs} jobs");
        let stream = Shared::default();
        let sink: Arc<dyn Sink> = Arc::new(TarWriter::stream("-", stream.clone(), TarOptions::default()));
        copy(&root().await, &sink, &named("v1", jobs)).await.unwrap();
        assert!(*stream.0.lock().unwrap() == expected, "a stream, {jobs} jobs");
    }
    let index = TarIndex::read(&expected).unwrap();
    let names: Vec<_> = index.entries().iter().map(|entry| entry.name.clone().unwrap()).collect();
    assert_eq!(names[..2], ["blobs", "blobs/sha256"]);
    assert_eq!(names[names.len() - 3..], ["index.json", "manifest.json", "oci-layout"]);
    assert_eq!(write(&path, TarOptions::default().modified(7), 4).await.len(), expected.len());
}

#[tokio::test]
async fn manifest_json_lists_the_image_of_the_selected_platform() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.tar");
    let options = TarOptions::default().docker(DockerList::For(Platform::new("linux", "arm64")));
    let bytes = write(&path, options, 4).await;
    let span = TarIndex::read(&bytes).unwrap().file("manifest.json").unwrap();
    let text = std::str::from_utf8(&bytes[span.offset as usize..][..span.size as usize]).unwrap();
    let tar = Arc::new(Tar::open(&path).await.unwrap());
    let Root::Index(index) = Root::open(tar, &Name::Only).await.unwrap() else { panic!("an index") };
    let image = index.image_for(&Platform::new("linux", "arm64")).await.unwrap();
    let path = |digest: &Digest| format!("\"{}\"", digest.blob_path());
    let layers: Vec<_> = image.layers().map(|layer| path(&layer.descriptor().digest)).collect();
    let config = path(&image.manifest().config().unwrap().digest);
    assert_eq!(text, format!(r#"[{{"Config":{config},"RepoTags":null,"Layers":[{}]}}]"#, layers.join(",")));
}

#[tokio::test]
async fn manifest_json_lists_only_loadable_images() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.tar");
    for (docker, has_list) in [
        (DockerList::None, false),
        (DockerList::IfLoadable(Platform::new("linux", "s390x")), false),
        (DockerList::IfLoadable(Platform::new("linux", "arm64")), true),
        (DockerList::For(Platform::new("linux", "s390x")), true),
    ] {
        let bytes = write(&path, TarOptions::default().docker(docker.clone()), 4).await;
        let index = TarIndex::read(&bytes).unwrap();
        assert_eq!(index.file("manifest.json").is_some(), has_list, "{docker:?}");
    }
}

#[tokio::test]
async fn pipe_is_streamed_to_the_sink() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.tar");
    let bytes = write(&path, TarOptions::default(), 4).await;
    let digest = Tar::open(&path).await.unwrap().resolve(&Name::Only).await.unwrap().digest;

    let memory: Arc<dyn Sink> = Arc::new(Memory::new());
    let pipe = Pipe::drain("-", io::Cursor::new(bytes.clone()), &memory).await.unwrap();
    let root = Root::open(Arc::new(pipe), &Name::Only).await.unwrap();
    assert_eq!(root.digest(), digest);
    let copied = copy(&root, &memory, &named("v1", 4)).await.unwrap();
    let large = copied.blobs.iter().find(|(blob, _)| blob.size == 3_000_000).unwrap();
    assert_eq!(large.1, Put::Present, "the blob was uploaded before the pipe ended");
    for (blob, _) in &copied.blobs {
        memory.read(blob).await.unwrap();
    }

    // From a pipe to an archive, with an edit: the result has no unreferenced blobs.
    let path = directory.path().join("b.tar");
    let sink: Arc<dyn Sink> = Arc::new(TarWriter::create(&path, TarOptions::default()).await.unwrap());
    let pipe = Pipe::drain("-", io::Cursor::new(bytes), &sink).await.unwrap();
    let root = Root::open(Arc::new(pipe), &Name::Only).await.unwrap();
    let annotated = annotate(&root, &annotation("v")).await.unwrap();
    let copied = copy(&annotated, &sink, &named("v1", 4)).await.unwrap();
    let tar = Tar::open(&path).await.unwrap();
    assert_eq!(tar.resolve(&Name::Only).await.unwrap().digest, annotated.digest());
    let blobs = TarIndex::read(&fs::File::open(&path).unwrap()).unwrap();
    let blobs =
        blobs.entries().iter().filter(|entry| entry.data.size > 0 || entry.name.as_ref().unwrap().len() > 60).count();
    // The three list files.
    assert_eq!(blobs, copied.blobs.len() + 3);
}

#[tokio::test]
async fn truncated_pipe_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.tar");
    let bytes = write(&path, TarOptions::default(), 4).await;
    let drain = async |bytes: Vec<u8>| {
        let memory: Arc<dyn Sink> = Arc::new(Memory::new());
        Pipe::drain("-", io::Cursor::new(bytes), &memory).await.map(drop)
    };
    for cut in [0, 100, 512, 1024, 2000, 1_000_000, bytes.len() - 3000] {
        let error = drain(bytes[..cut].to_vec()).await.unwrap_err();
        assert!(matches!(error, Error::Broken { .. }), "{cut}: {error:?}");
    }
    let mut damaged = bytes.clone();
    let layer = TarIndex::read(&bytes).unwrap();
    let layer = layer.entries().iter().find(|entry| entry.data.size == 3_000_000).unwrap().data;
    damaged[layer.offset as usize + 1_000_000] ^= 1;
    assert!(matches!(drain(damaged).await.unwrap_err(), Error::Mismatch { .. }));
    let document = TarIndex::read(&bytes).unwrap();
    let document = document
        .entries()
        .iter()
        .rfind(|entry| entry.name.as_ref().unwrap().starts_with("blobs/sha256/"))
        .unwrap()
        .data;
    let mut damaged = bytes;
    damaged[document.offset as usize + 10] ^= 1;
    assert!(matches!(drain(damaged).await.unwrap_err(), Error::Mismatch { .. }));
    assert!(matches!(drain(b"not a tar".repeat(1000)).await.unwrap_err(), Error::Broken { .. }));
}

#[tokio::test]
async fn failing_sink_stops_reading_the_pipe() {
    struct Endless {
        _alive: Arc<()>,
    }
    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            buffer.fill(7);
            Ok(buffer.len())
        }
    }
    let alive = Arc::new(());
    let blob = Header::file(&Digest::sha256_of(b"x").blob_path(), 1 << 40).to_bytes();
    let reader = io::Cursor::new(blob).chain(Endless { _alive: alive.clone() });
    let full: Arc<dyn Sink> = Arc::new(TarWriter::stream("-", Full, TarOptions::default()));
    let error = Pipe::drain("-", reader, &full).await.unwrap_err();
    assert!(error.to_string().contains("write to"), "{error}");
    while Arc::strong_count(&alive) > 1 {
        tokio::task::yield_now().await;
    }
}

/// A disk that is full after the first bytes.
struct Full;

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > 4096 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn annotation(value: &str) -> AnnotateOptions {
    AnnotateOptions::default().set(vec![("k".to_owned(), value.to_owned())]).on(AnnotateOn::All)
}

async fn annotate_in_place(path: &Path, value: &str) -> Digest {
    let sink = TarEdit::open(path).await.unwrap();
    let source = Arc::new(Tar::open(path).await.unwrap());
    let root = Root::open(source, &Name::Only).await.unwrap();
    let annotated = annotate(&root, &annotation(value)).await.unwrap();
    let names = vec![Naming::default().replaces(Some(root.digest()))];
    let sink: Arc<dyn Sink> = Arc::new(sink);
    copy(&annotated, &sink, &CopyOptions::default().names(names)).await.unwrap();
    annotated.digest()
}

#[tokio::test]
async fn archive_is_annotated_in_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.tar");
    let before = write(&path, TarOptions::default(), 4).await;
    let layer = |bytes: &[u8]| {
        let index = TarIndex::read(bytes).unwrap();
        index.entries().iter().filter(|entry| entry.data.size >= 2_000_000).map(|entry| entry.data).collect::<Vec<_>>()
    };
    let mut lengths = Vec::new();
    for number in 0..30 {
        let digest = annotate_in_place(&path, &format!("value {number}")).await;
        let tar = Tar::open(&path).await.unwrap();
        let resolved = tar.resolve(&Name::Tag("v1".parse().unwrap())).await.unwrap();
        assert_eq!(resolved.digest, digest);
        assert_eq!(tar.roots().manifests().len(), 1);
        lengths.push(fs::metadata(&path).unwrap().len());
    }
    let after = fs::read(&path).unwrap();
    assert_eq!(layer(&before), layer(&after), "no layer was moved");
    assert!(lengths[29] <= lengths[4], "{lengths:?}");
    let same = annotate_in_place(&path, "value 29").await;
    assert_eq!(after, fs::read(&path).unwrap(), "an edit without a change writes nothing");
    // The inverse edit restores the original digest.
    let root = Root::open(open(&path).await.unwrap(), &Name::Digest(same)).await.unwrap();
    let back = AnnotateOptions::default().remove(vec!["k".to_owned()]).on(AnnotateOn::All);
    let back = annotate(&root, &back).await.unwrap();
    assert_eq!(back.digest(), self::root().await.digest());
    assert_eq!(names(&directory), ["a.tar"]);
}

#[tokio::test]
async fn an_archive_without_an_end_is_copied() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.tar");
    let bytes = write(&path, TarOptions::default(), 4).await;
    for missing in [END.len(), 512] {
        fs::write(&path, &bytes[..bytes.len() - missing]).unwrap();
        let digest = annotate_in_place(&path, "v").await;
        assert_eq!(Tar::open(&path).await.unwrap().resolve(&Name::Only).await.unwrap().digest, digest);
        assert_eq!(names(&directory), ["a.tar"]);
    }
}

#[tokio::test]
async fn layers_appended_by_another_program_stay() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.tar");
    write(&path, TarOptions::default(), 4).await;
    annotate_in_place(&path, "one").await;
    // A second image that was appended with `tar -r`: its layer and its index.json follow the documents that ocikit wrote.
    let memory = Arc::new(Memory::new());
    let added = testing::image(&memory, 9, &Platform::new("linux", "s390x"), &[50_000]);
    let Root::Image(image) = Root::at(memory.clone(), added.clone()).await.unwrap() else { panic!("an image") };
    let mut bytes = fs::read(&path).unwrap();
    let tar = Tar::open(&path).await.unwrap();
    let end = TarIndex::read(&bytes).unwrap().end().start as usize;
    bytes.truncate(end);
    let roots = tar.roots().edit().push(&added).finish().unwrap();
    let layer = &image.manifest().layers()[0];
    let config = image.manifest().config().unwrap();
    let mut append = |name: &str, content: &[u8]| {
        bytes.extend(Header::file(name, content.len() as u64).to_bytes());
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    };
    append(&layer.digest.blob_path(), &memory.read(layer).await.unwrap());
    append(&config.digest.blob_path(), &memory.read(config).await.unwrap());
    append(&added.digest.blob_path(), &memory.read(&added).await.unwrap());
    append("index.json", roots.bytes());
    bytes.extend(END);
    fs::write(&path, &bytes).unwrap();

    let sink: Arc<dyn Sink> = Arc::new(TarEdit::open(&path).await.unwrap());
    let naming = Naming::of_tag("second".parse().unwrap());
    sink.publish(&added, &naming).await.unwrap();
    sink.finish().await.unwrap();
    let tar = Tar::open(&path).await.unwrap();
    let root = Root::open(Arc::new(tar), &Name::Tag("second".parse().unwrap())).await.unwrap();
    let there: Arc<dyn Sink> = Arc::new(Memory::new());
    copy(&root, &there, &CopyOptions::default()).await.unwrap();
}

#[tokio::test]
async fn failed_write_leaves_no_files() {
    let directory = tempfile::tempdir().unwrap();
    let missing = Memory::new();
    let root = root().await;
    let blob = {
        let Root::Index(index) = &root else { panic!("an index") };
        let Root::Image(image) = index.open(&index.manifests()[0]).await.unwrap() else { panic!("an image") };
        image.manifest().layers()[0].clone()
    };
    let path = directory.path().join("new.tar");
    let writer = TarWriter::create(&path, TarOptions::default()).await.unwrap();
    assert!(writer.put(&blob, &missing).await.unwrap_err().is_not_found());
    drop(writer);
    let dir = Dir::create(directory.path().join("layout")).await.unwrap();
    assert!(dir.put(&blob, &missing).await.unwrap_err().is_not_found());
    drop(dir);
    assert_eq!(names(&directory), Vec::<String>::new());

    fs::write(directory.path().join("other"), b"x").unwrap();
    let other = Dir::create(directory.path()).await;
    assert!(matches!(other, Err(Error::Broken { .. })), "{other:?}");
    let onto = TarWriter::create(directory.path(), TarOptions::default()).await;
    assert!(matches!(onto, Err(Error::Failed { .. })), "{onto:?}");
    let nowhere = TarWriter::create(directory.path().join("no/such/a.tar"), TarOptions::default()).await;
    assert!(matches!(nowhere, Err(Error::Failed { .. })), "{nowhere:?}");
}

#[tokio::test]
async fn input_that_is_no_layout_is_identified() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let end = END;
    let docker = [&Header::file("manifest.json", 0).to_bytes()[..], &end].concat();
    let junk = [&Header::file("index.json", 3).to_bytes()[..], b"[1]", &[0; 509], &end].concat();
    fs::create_dir(path("empty")).unwrap();
    for (name, bytes, problem) in [
        ("empty", None, "oci-layout"),
        ("text", Some(&b"hello"[..]), "truncated"),
        ("nothing", Some(b""), "index.json"),
        ("zeros", Some(&end), "index.json"),
        ("docker", Some(&docker), "manifest.json"),
        ("junk", Some(&junk), "not a valid index"),
    ] {
        if let Some(bytes) = bytes {
            fs::write(path(name), bytes).unwrap();
        }
        match open(path(name)).await {
            Err(Error::Broken { source, .. }) => assert!(source.to_string().contains(problem), "{name}: {source}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    assert!(
        matches!(open(path("gone")).await, Err(Error::Failed { source, .. }) if source.kind() == io::ErrorKind::NotFound)
    );
}
