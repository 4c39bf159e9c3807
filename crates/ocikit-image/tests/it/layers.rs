//! Changes to the layers of images: recompress, flatten, normalize, convert, append.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says where it fails by panicking")]

use std::io::{Read, empty};
use std::num::NonZeroUsize;
use std::sync::Arc;

use ocikit_image::files::{Entry, FileKind, FileTree, Kind, Metadata, Owner, Path, Time, Whiteout, Writer};
use ocikit_image::testing::{self, Compression, Tar};
use ocikit_image::{
    ConvertOptions, CopyOptions, DiffId, Dropped, EncoderOptions, Error, FlattenOptions, Format, Image, LayerOptions,
    Memory, Need, NewLayer, NormalizeOptions, RecompressOptions, Root, Selection, Sink, UnsupportedParts,
    append_layers, convert, copy, flatten, normalize, recompress,
};
use ocikit_spec::{Descriptor, Digest, MediaType, Platform};
use proptest::collection::vec;
use proptest::prelude::*;

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// Names that collide often: of files, directories and links.
fn paths() -> impl Strategy<Value = Path> {
    vec(prop_oneof![Just("a"), Just("b"), Just("c")], 1..4).prop_map(|parts| Path::confined(parts.join("/").as_bytes()))
}

fn entries() -> impl Strategy<Value = (Entry, Vec<u8>)> {
    let kinds = prop_oneof![
        4 => (0_u64..40).prop_map(|size| Kind::File(FileKind::Regular { size })),
        3 => Just(Kind::File(FileKind::Directory)),
        1 => paths().prop_map(|path| Kind::File(FileKind::Symlink { target: path.as_bytes().into() })),
        1 => paths().prop_map(|target| Kind::HardLink { target }),
        1 => Just(Kind::File(FileKind::Fifo)),
        1 => paths().prop_map(|path| Kind::Whiteout(Whiteout::Path(path))),
        1 => paths().prop_map(|path| Kind::Whiteout(Whiteout::Contents(path))),
    ];
    (paths(), kinds, 0_u32..0o1000, 0_i64..2000, any::<u8>()).prop_map(|(path, kind, mode, seconds, byte)| {
        let metadata = Metadata {
            mode,
            uid: u64::from(byte),
            modified: Time { seconds, nanoseconds: u32::from(byte) },
            xattrs: [("user.byte".into(), [byte][..].into())].into(),
            ..Metadata::default()
        };
        let bytes = match kind {
            Kind::File(FileKind::Regular { size }) => vec![byte; usize::try_from(size).unwrap()],
            _ => Vec::new(),
        };
        match kind {
            Kind::Whiteout(whiteout) => (Entry::whiteout(whiteout).unwrap(), bytes),
            kind => (Entry { path, kind, metadata }, bytes),
        }
    })
}

fn layers() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let layer = vec(entries(), 0..10).prop_map(|entries| {
        let mut layer = Writer::new(&Compression::None.into(), Vec::new()).unwrap();
        for (entry, bytes) in &entries {
            layer.append(entry, &bytes[..]).unwrap();
        }
        layer.finish().unwrap().0
    });
    vec(layer, 1..5)
}

async fn root(memory: &Arc<Memory>, descriptor: Descriptor) -> Root {
    Root::at(memory.clone(), descriptor).await.unwrap()
}

fn single(root: &Root) -> Image {
    let Root::Image(image) = root else { panic!("{root:?} is not an image") };
    image.clone()
}

async fn of_tars(tars: &[Vec<u8>]) -> Root {
    let memory = Arc::new(Memory::new());
    let descriptor = testing::image_of(&memory, &Platform::new("linux", "amd64"), Compression::Gzip, tars);
    root(&memory, descriptor).await
}

/// What a container sees of a file.
type Seen = (String, FileKind, Metadata, Vec<u8>, Option<usize>);

/// Returns the files that a container sees, with their contents, and the first of the names of each.
async fn seen(image: &Image) -> Result<Vec<Seen>, Error> {
    let files: FileTree = image.files().await?;
    let mut shown = Vec::new();
    for (path, located) in files.iter() {
        let bytes = match located.file.kind {
            FileKind::Regular { .. } => {
                let shared = testing::Shared::default();
                image.read_file(path.as_bytes(), shared.clone()).await?;
                shared.0.lock().unwrap().clone()
            }
            _ => Vec::new(),
        };
        let first = match located.file.is_directory() {
            true => None,
            false => files.iter().position(|(_, other)| Arc::ptr_eq(&other.file, &located.file)),
        };
        shown.push((path.to_string(), located.file.kind.clone(), located.file.metadata.clone(), bytes, first));
    }
    Ok(shown)
}

/// Returns whether a layer has an entry for a file. A directory without one exists only while there is something below it.
fn is_described(seen: &&Seen) -> bool {
    seen.1 != FileKind::Directory || seen.2.xattrs.contains_key("user.byte")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_flat_image_has_the_files_of_the_layers(tars in layers()) {
        run(async {
            let before = of_tars(&tars).await;
            // Hard links to missing files are rejected on reading.
            let Ok(expected) = seen(&single(&before)).await else { return };
            let after = single(&flatten(&before, &FlattenOptions::default()).await.unwrap().root);
            let found = seen(&after).await.unwrap();
            let names = |all: &[Seen]| {
                let kept = all.iter().filter(is_described);
                kept.map(|(path, kind, metadata, bytes, first)| {
                    let first = first.map(|at| all[at].0.clone());
                    (path.clone(), kind.clone(), metadata.clone(), bytes.clone(), first)
                }).collect::<Vec<_>>()
            };
            assert_eq!(names(&found), names(&expected));
            assert_eq!(after.layers().count(), 1);
            let again = flatten(&Root::Image(after.clone()), &FlattenOptions::default()).await.unwrap();
            assert_eq!(again.root.digest(), after.digest(), "a flat image stays as it is");
        });
    }

    #[test]
    fn normalized_layers_have_the_same_files(tars in layers()) {
        run(async {
            let before = of_tars(&tars).await;
            let Ok(expected) = seen(&single(&before)).await else { return };
            let mut options = NormalizeOptions::default();
            options.epoch = Some(Time { seconds: 1000, nanoseconds: 0 });
            let after = match normalize(&before, &options).await {
                Ok(mapped) => mapped.root,
                // No order of the entries keeps the meaning of such a layer.
                Err(error) if format!("{error:?}").contains("of which it hides files") => return,
                Err(error) => panic!("{error}"),
            };
            let found = seen(&single(&after)).await.unwrap();
            let with_times = |all: &[Seen]| {
                let kept = all.iter().filter(is_described);
                kept.map(|seen| {
                    let mut seen = seen.clone();
                    seen.2.modified = seen.2.modified.min(Time { seconds: 1000, nanoseconds: 0 });
                    // The position of the first name, which counts all files.
                    let first = seen.4.map(|at| all[at].0.clone());
                    (seen.0, seen.1, seen.2, seen.3, first)
                }).collect::<Vec<_>>()
            };
            assert_eq!(with_times(&found), with_times(&expected));
            let again = normalize(&after, &options).await.unwrap();
            assert_eq!(again.root.digest(), after.digest());
        });
    }

    #[test]
    fn recompressed_layers_keep_their_diff_ids(tars in layers(), threads in 1_usize..5, level in 1_u32..9) {
        run(async {
            let before = of_tars(&tars).await;
            let expected = single(&before).config().await.unwrap();
            for compression in [Compression::Zstd, Compression::None, Compression::Gzip] {
                let with = |threads| {
                    let mut encoder = EncoderOptions::from(compression);
                    encoder.threads = NonZeroUsize::new(threads);
                    encoder.level = (compression != Compression::None).then_some(level);
                    let mut options = RecompressOptions::default();
                    options.layer = LayerOptions::from(encoder);
                    options
                };
                let after = recompress(&before, &with(threads)).await.unwrap().root;
                let one = recompress(&before, &with(1)).await.unwrap().root;
                assert_eq!(after.digest(), one.digest(), "the number of threads does not matter");
                let image = single(&after);
                assert_eq!(image.config().await.unwrap().bytes(), expected.bytes());
                for (layer, tar) in image.layers().zip(&tars) {
                    assert_eq!(layer.compression().await.unwrap(), compression);
                    let read = |tar: &mut ocikit_image::LayerTar<'_>| {
                        let mut bytes = Vec::new();
                        tar.read_to_end(&mut bytes)?;
                        Ok(bytes)
                    };
                    assert!(layer.decode(DiffId::Skip, read).await.unwrap().0 == *tar);
                }
            }
        });
    }
}

fn tar(name: &str) -> Vec<u8> {
    Tar::new().directory("etc").file(&format!("etc/{name}"), name.as_bytes()).finish()
}

/// Returns an index of two images that share their lowest layer.
async fn two_platforms() -> Root {
    let memory = Arc::new(Memory::new());
    let image = |architecture: &str| {
        let tars = [tar("shared"), tar(architecture)];
        testing::image_of(&memory, &Platform::new("linux", architecture), Compression::Gzip, &tars)
    };
    let manifests = [image("amd64"), image("arm64")];
    root(&memory, testing::index(&memory, &manifests)).await
}

async fn images(root: &Root) -> Vec<Image> {
    let Root::Index(index) = root else { panic!("{root:?} is not an index") };
    let mut images = Vec::new();
    for entry in index.manifests() {
        images.push(single(&index.open(entry).await.unwrap()));
    }
    images
}

/// Copies a root to an empty place, which reads and checks every part of it.
async fn copied(root: &Root) {
    let there: Arc<dyn Sink> = Arc::new(Memory::new());
    assert_eq!(copy(root, &there, &CopyOptions::default()).await.unwrap().root.digest, root.digest());
}

#[tokio::test]
async fn all_platforms_or_the_chosen_ones_are_changed() {
    let before = two_platforms().await;
    let mut options = RecompressOptions::default();
    options.layer = Compression::Zstd.into();
    let all = images(&recompress(&before, &options).await.unwrap().root).await;
    let zstd = |image: &Image| image.layers().all(|layer| layer.descriptor().media_type == MediaType::OCI_LAYER_ZSTD);
    assert!(all.iter().all(zstd));
    let lowest: Vec<_> = all.iter().map(|image| image.layers().next().unwrap().digest()).collect();
    assert_eq!(lowest[0], lowest[1], "the shared layer is still shared");
    options.selection = Selection::of([Platform::new("linux", "arm64")]);
    let mapped = recompress(&before, &options).await.unwrap();
    let some = images(&mapped.root).await;
    assert_eq!((zstd(&some[0]), zstd(&some[1])), (false, true));
    copied(&mapped.root).await;
}

#[tokio::test]
async fn a_layer_with_the_compression_is_kept() {
    let before = two_platforms().await;
    let mut options = RecompressOptions::default();
    options.layer = Compression::Gzip.into();
    assert_eq!(recompress(&before, &options).await.unwrap().root.digest(), before.digest());
    options.layer.encoder.level = Some(9);
    copied(&recompress(&before, &options).await.unwrap().root).await;
}

#[tokio::test]
async fn a_layer_that_is_not_the_one_of_the_config_is_an_error() {
    let memory = Arc::new(Memory::new());
    let descriptor = testing::image_of(&memory, &Platform::new("linux", "amd64"), Compression::None, &[tar("a")]);
    let image = single(&root(&memory, descriptor).await);
    let config = String::from_utf8(image.config().await.unwrap().bytes().to_vec()).unwrap();
    let other = config.replace(&Digest::sha256_of(&tar("a")).to_string(), &Digest::sha256_of(b"").to_string());
    let old = image.manifest().config().unwrap().digest.to_string();
    let text = String::from_utf8(image.manifest().bytes().to_vec()).unwrap();
    let manifest = text.replace(&old, &memory.insert(other).to_string());
    memory.insert(manifest.clone());
    let broken = root(&memory, Descriptor::of(MediaType::OCI_MANIFEST, manifest.as_bytes())).await;
    let mut options = RecompressOptions::default();
    options.layer = Compression::Gzip.into();
    let error = recompress(&broken, &options).await.unwrap_err();
    assert!(matches!(error, Error::Mismatch { .. }), "{error}");
}

#[tokio::test]
async fn conversions_keep_configs_and_layers() {
    let before = two_platforms().await;
    let to = |format| {
        let mut options = ConvertOptions::default();
        options.to = format;
        options
    };
    let docker = convert(&before, &to(Format::Docker)).await.unwrap();
    assert_eq!(docker.dropped, []);
    assert_eq!(docker.mapped.root.descriptor().media_type, MediaType::DOCKER_MANIFEST_LIST);
    for image in images(&docker.mapped.root).await {
        assert_eq!(image.manifest().media_type(), MediaType::DOCKER_MANIFEST);
        assert_eq!(image.manifest().config().unwrap().media_type, MediaType::DOCKER_CONFIG);
        assert!(image.layers().all(|layer| layer.descriptor().media_type == MediaType::DOCKER_LAYER_GZIP));
    }
    copied(&docker.mapped.root).await;
    let back = convert(&docker.mapped.root, &to(Format::Oci)).await.unwrap();
    let parts = |images: Vec<Image>| {
        let blobs = images.into_iter().flat_map(|image| image.manifest().document_children());
        blobs.collect::<Vec<_>>()
    };
    assert_eq!(parts(images(&back.mapped.root).await), parts(images(&before).await));
    assert_eq!(convert(&before, &to(Format::Oci)).await.unwrap().mapped.root.digest(), before.digest());
}

/// The blobs of a manifest, by media type and digest.
trait Children {
    fn document_children(&self) -> Vec<(MediaType, Digest)>;
}

impl Children for ocikit_spec::Manifest {
    fn document_children(&self) -> Vec<(MediaType, Digest)> {
        let blobs = self.config().into_iter().chain(self.layers());
        blobs.map(|blob| (blob.media_type.clone(), blob.digest)).collect()
    }
}

#[tokio::test]
async fn parts_that_docker_cannot_hold_are_refused_or_reported() {
    let before = two_platforms().await;
    let subject = before.descriptor().clone();
    let map = |image: Image| {
        let subject = subject.clone();
        async move { image.edit().annotate("team", "web").set_subject(&subject).finish().await }
    };
    let annotated = ocikit_image::map_images(&before, &Selection::all(), map).await.unwrap().root;
    let mut options = ConvertOptions::default();
    options.to = Format::Docker;
    let error = convert(&annotated, &options).await.unwrap_err();
    assert!(error.to_string().contains("a subject, which Docker's format cannot hold"), "{error}");
    options.unsupported = UnsupportedParts::Drop;
    let converted = convert(&annotated, &options).await.unwrap();
    let count = |is: fn(&Dropped) -> bool| converted.dropped.iter().filter(|part| is(part)).count();
    assert_eq!(count(|part| matches!(part, Dropped::Subject { .. })), 2);
    assert_eq!(count(|part| matches!(part, Dropped::Annotations { keys, .. } if keys == &["team"])), 2);
    assert!(images(&converted.mapped.root).await.iter().all(|image| image.manifest().annotations().is_empty()));

    let mut zstd = RecompressOptions::default();
    zstd.layer = Compression::Zstd.into();
    let error = recompress(&converted.mapped.root, &zstd).await.unwrap_err();
    assert!(matches!(error, Error::Unmet { need: Need::OciFormat, .. }), "{error}");
    let zstd = recompress(&before, &zstd).await.unwrap().root;
    assert!(matches!(convert(&zstd, &options).await, Err(Error::Unmet { need: Need::OtherCompression, .. })));
}

#[tokio::test]
async fn one_layer_is_appended_to_all_platforms() {
    let before = two_platforms().await;
    let layer = NewLayer::write(Compression::Gzip, |layer| {
        layer.hide(&Path::confined(b"etc/shared"))?;
        let kind = Kind::File(FileKind::Directory);
        layer.append(&Entry { path: Path::confined(b"new"), kind, metadata: Metadata::default() }, empty())
    });
    let layer = layer.await.unwrap();
    let after = append_layers(&before, &Selection::all(), &[layer]).await.unwrap().root;
    for image in images(&after).await {
        let files = image.files().await.unwrap();
        assert!(files.get(&Path::confined(b"etc/shared")).is_none());
        assert!(files.get(&Path::confined(b"new")).is_some());
    }
    copied(&after).await;
}

#[tokio::test]
async fn normalizing_sets_times_and_owners() {
    let memory = Arc::new(Memory::new());
    let tars = [Tar::new().modified(5000).file("new", b"x").modified(50).file("old", b"y").finish()];
    let descriptor = testing::image_of(&memory, &Platform::new("linux", "amd64"), Compression::Gzip, &tars);
    let before = root(&memory, descriptor).await;
    assert!(normalize(&before, &NormalizeOptions::default()).await.is_err(), "the image has no creation time");
    let dated = single(&before).edit().config(|config| config.created("2030-01-01T00:00:00Z")).finish().await.unwrap();
    let mut options = NormalizeOptions::default();
    options.epoch = Some(Time { seconds: 1000, nanoseconds: 0 });
    options.owner = Some(Owner::Fixed { uid: 7, gid: 8 });
    let after = single(&normalize(&Root::Image(dated), &options).await.unwrap().root);
    assert_eq!(after.config().await.unwrap().created(), Some("1970-01-01T00:16:40Z"));
    let times: Vec<_> = seen(&after).await.unwrap().into_iter().filter(|seen| seen.1 != FileKind::Directory).collect();
    assert_eq!(times.iter().map(|seen| seen.2.modified.seconds).collect::<Vec<_>>(), [1000, 50]);
    assert!(times.iter().all(|seen| (seen.2.uid, seen.2.gid) == (7, 8)));
}
