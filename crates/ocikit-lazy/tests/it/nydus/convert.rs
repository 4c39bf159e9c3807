//! Conversions of images in memory, read back by EROFS and by this crate.

use std::collections::BTreeMap;
use std::io::Read;
use std::num::NonZeroUsize;
use std::sync::Arc;

use ocikit_image::files::{FileKind, Kind, Path, Reader};
use ocikit_image::testing::{self, Compression};
use ocikit_image::{Image, Layer, LayerOptions, Memory, Root};
use ocikit_lazy::rafs::{
    ChunkSize, Compressor, Deduplicate, Dictionary, NydusBootstrap, NydusOptions, NydusReader, RafsVersion, from_nydus,
    is_nydus, to_nydus,
};
use ocikit_spec::Digest;

use super::devices::{blob_ids, devices};
use super::hard::{self, Files, differences};

/// Returns an image with these tars as layers.
pub(super) async fn image_of(compression: Compression, tars: &[Vec<u8>]) -> Image {
    let memory = Arc::new(Memory::new());
    let descriptor = testing::image_of(&memory, &"linux/amd64".parse().unwrap(), compression, tars);
    match Root::at(memory, descriptor).await.unwrap() {
        Root::Image(image) => image,
        other => panic!("{other:?}"),
    }
}

/// Options that leave no files behind.
pub(super) fn options() -> NydusOptions {
    let mut options = NydusOptions::default();
    options.directory = Some(std::env::temp_dir());
    options
}

pub(super) async fn bytes_of(layer: &Layer) -> Vec<u8> {
    layer.open().await.unwrap().bytes().await.unwrap().to_vec()
}

/// Returns the files of the bootstrap layer.
pub(super) async fn bootstrap_layer(image: &Image) -> BTreeMap<String, Vec<u8>> {
    let last = image.layers().last().unwrap();
    let read = |tar: &mut ocikit_image::LayerTar<'_>| {
        let mut files = BTreeMap::new();
        let mut reader = Reader::new(tar);
        while let Some(entry) = reader.next_entry()? {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes)?;
            if !matches!(entry.kind, Kind::File(FileKind::Directory)) {
                assert_eq!(entry.metadata.mode, 0o444);
                files.insert(entry.path.to_string(), bytes);
            }
        }
        Ok(files)
    };
    last.decode(ocikit_image::DiffId::Skip, read).await.unwrap().0
}

pub(super) async fn blobs_of(image: &Image) -> BTreeMap<String, Vec<u8>> {
    let mut blobs = BTreeMap::new();
    let layers: Vec<_> = image.layers().collect();
    for layer in &layers[..layers.len() - 1] {
        blobs.insert(layer.digest().hex(), bytes_of(layer).await);
    }
    blobs
}

/// Returns what the source has, as a Nydus image can show it.
pub(super) fn expected(tars: &[Vec<u8>]) -> Files {
    let mut files = hard::source(tars);
    files.values_mut().for_each(|seen| drop(seen.xattrs.remove(hard::LOST_XATTR)));
    files
}

/// Reads all files of a converted image with this crate.
pub(super) async fn seen_by_us(image: &Image) -> Files {
    let plain = from_nydus(image, &LayerOptions::from(Compression::None)).await.unwrap();
    let layer = plain.layers().next().unwrap();
    hard::source(&[bytes_of(&layer).await])
}

#[track_caller]
pub(super) fn assert_same(expected: &Files, found: &Files, what: &str) {
    let differences = differences(expected, found);
    assert!(differences.is_empty(), "{what}: {} of {} files\n{}", found.len(), expected.len(), differences.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn fp_4_the_tree_of_a_converted_image_is_that_of_its_source() {
    let tars = hard::layers();
    let expected = expected(&tars);
    let image = image_of(Compression::Gzip, &tars).await;
    let cases = [
        (RafsVersion::V6, Compressor::Zstd, Deduplicate::Layer, 1 << 20),
        (RafsVersion::V6, Compressor::Lz4, Deduplicate::Image, 1 << 16),
        (RafsVersion::V6, Compressor::None, Deduplicate::Layer, 16 << 20),
        (RafsVersion::V6, Compressor::Zstd, Deduplicate::Image, 4096),
        (RafsVersion::V5, Compressor::Zstd, Deduplicate::Layer, 1 << 20),
        (RafsVersion::V5, Compressor::Lz4, Deduplicate::Image, 1 << 18),
    ];
    for (version, compressor, deduplicate, chunk_size) in cases {
        let what = format!("{version} {compressor} {deduplicate:?} {chunk_size}");
        let mut options = options();
        (options.version, options.compressor, options.deduplicate) = (version, compressor, deduplicate);
        options.chunk_size = ChunkSize::new(chunk_size).unwrap();
        let converted = to_nydus(&image, &options).await.unwrap();
        let lost: Vec<_> = converted.lost_xattrs.iter().map(|lost| (lost.path.to_string(), &*lost.name)).collect();
        assert_eq!(lost, [("xattr/several".to_owned(), hard::LOST_XATTR)]);
        if version == RafsVersion::V6 {
            let bootstrap = bootstrap_layer(&converted.image).await.remove("image/image.boot").unwrap();
            let devices = devices(&bootstrap, &blobs_of(&converted.image).await);
            assert_same(&expected, &super::erofs::read(&bootstrap, &devices), &format!("{what} by erofs"));
        }
        assert_same(&expected, &seen_by_us(&converted.image).await, &what);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fp_5_the_same_image_gives_the_same_bytes() {
    let tars = hard::layers();
    let mut digests = Vec::new();
    for (compression, threads) in [
        (Compression::Gzip, Some(1)),
        (Compression::Gzip, Some(2)),
        (Compression::Gzip, None),
        (Compression::Gzip, Some(7)),
    ] {
        let image = image_of(compression, &tars).await;
        for deduplicate in [Deduplicate::Layer, Deduplicate::Image] {
            let mut options = options();
            (options.threads, options.deduplicate) = (threads.and_then(NonZeroUsize::new), deduplicate);
            digests.push((deduplicate, to_nydus(&image, &options).await.unwrap().image.digest()));
        }
    }
    digests.sort_by_key(|(deduplicate, digest)| (*deduplicate == Deduplicate::Image, digest.to_string()));
    digests.dedup();
    assert_eq!(digests.len(), 2, "one for each way to deduplicate: {digests:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fp_3_the_manifest_has_blobs_and_one_bootstrap() {
    let image = image_of(Compression::Gzip, &hard::layers()).await;
    for version in [RafsVersion::V5, RafsVersion::V6] {
        let mut options = options();
        options.version = version;
        let converted = to_nydus(&image, &options).await.unwrap().image;
        assert!(is_nydus(converted.manifest()));
        let layers = converted.manifest().layers();
        let (bootstrap, blobs) = layers.split_last().unwrap();
        for blob in blobs {
            assert_eq!(blob.media_type.as_str(), "application/vnd.oci.image.layer.nydus.blob.v1");
            assert_eq!(blob.annotations.get("containerd.io/snapshot/nydus-blob"), Some("true"));
        }
        assert_eq!(bootstrap.media_type.as_str(), "application/vnd.oci.image.layer.v1.tar+gzip");
        let annotation = |key: &str| bootstrap.annotations.get(key).map(str::to_owned);
        assert_eq!(annotation("containerd.io/snapshot/nydus-bootstrap").as_deref(), Some("true"));
        assert_eq!(annotation("containerd.io/snapshot/nydus-fs-version").as_deref(), Some(version.as_str()));
        let ids: Vec<_> = blobs.iter().map(|blob| format!("\"{}\"", blob.digest.hex())).collect();
        let ids = format!("[{}]", ids.join(","));
        assert_eq!(annotation("containerd.io/snapshot/nydus-blob-ids"), Some(ids));
        // The uncompressed form of a blob is the blob.
        let config = converted.config().await.unwrap();
        let diff_ids = &config.rootfs().diff_ids;
        assert_eq!(diff_ids.len(), layers.len());
        assert!(diff_ids.iter().zip(blobs).all(|(diff_id, blob)| *diff_id == blob.digest));
        let last = converted.layers().last().unwrap();
        let (_, diff_id) = last.decode(ocikit_image::DiffId::Compute, |_| Ok(())).await.unwrap();
        assert_eq!(diff_id.as_ref(), diff_ids.last());
        assert_eq!(config.platform(), image.config().await.unwrap().platform());

        let files = bootstrap_layer(&converted).await;
        let bootstrap = NydusBootstrap::read(&files["image/image.boot"]).unwrap();
        assert_eq!(bootstrap.version(), version);
        assert_eq!(bootstrap.blob_ids().collect::<Vec<_>>(), blobs.iter().map(|b| b.digest.hex()).collect::<Vec<_>>());
        let meta = blobs.iter().map(|blob| format!("image/{}.blob.meta", blob.digest.hex()));
        let meta = meta.filter(|name| files.contains_key(name)).count();
        assert_eq!(meta, if version == RafsVersion::V6 { blobs.len() } else { 0 });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fp_6_layers_without_contents_have_no_blob_in_the_manifest() {
    let tars = hard::layers();
    let image = image_of(Compression::Gzip, &tars).await;
    let converted = to_nydus(&image, &options()).await.unwrap().image;
    assert_eq!(converted.manifest().layers().len(), 3, "two blobs and the bootstrap");
    // Only layers without contents.
    let tars = [tars[2].clone()];
    for version in [RafsVersion::V5, RafsVersion::V6] {
        let mut options = options();
        options.version = version;
        let image = image_of(Compression::None, &tars).await;
        let converted = to_nydus(&image, &options).await.unwrap().image;
        assert_eq!(converted.manifest().layers().len(), 1);
        assert_same(&expected(&tars), &seen_by_us(&converted).await, "metadata only");
        if version == RafsVersion::V6 {
            let bootstrap = bootstrap_layer(&converted).await.remove("image/image.boot").unwrap();
            assert_same(&expected(&tars), &super::erofs::read(&bootstrap, &[]), "metadata only, by erofs");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fp_9_a_converted_image_is_not_converted_again() {
    let image = image_of(Compression::Zstd, &hard::layers()).await;
    let once = to_nydus(&image, &options()).await.unwrap().image;
    let twice = to_nydus(&once, &options()).await.unwrap().image;
    assert_eq!(once.digest(), twice.digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn fp_15_version_and_compression_are_those_of_the_options() {
    let image = image_of(Compression::Gzip, &hard::layers()).await;
    for version in [RafsVersion::V5, RafsVersion::V6] {
        for (compressor, flag) in [(Compressor::None, 1), (Compressor::Lz4, 2), (Compressor::Zstd, 0x80)] {
            let mut options = options();
            (options.version, options.compressor) = (version, compressor);
            let converted = to_nydus(&image, &options).await.unwrap().image;
            let annotations = &converted.manifest().layers().last().unwrap().annotations;
            assert_eq!(annotations.get("containerd.io/snapshot/nydus-fs-version"), Some(version.as_str()));
            let bootstrap = bootstrap_layer(&converted).await.remove("image/image.boot").unwrap();
            let flags = match version {
                RafsVersion::V5 => bootstrap[16],
                RafsVersion::V6 => bootstrap[1152],
            };
            assert_eq!(flags & 0xc3, flag, "{version} {compressor}");
        }
    }
    assert_eq!((RafsVersion::default(), Compressor::default()), (RafsVersion::V6, Compressor::Zstd));
}

#[tokio::test(flavor = "multi_thread")]
async fn single_files_are_read_through_their_chunks() {
    let image = image_of(Compression::Gzip, &hard::layers()).await;
    let converted = to_nydus(&image, &options()).await.unwrap().image;
    let reader = NydusReader::open(&converted, std::env::temp_dir()).await.unwrap();
    for (path, contents) in
        [("link/passwd", b"root:x:0:0::/root:/bin/sh\n".to_vec()), ("sizes/again", testing::random(77, 5_200_000))]
    {
        let mut bytes = Vec::new();
        reader.read_file(&Path::confined(path.as_bytes()), &mut bytes).await.unwrap();
        assert!(bytes == contents, "{path}");
    }
    for missing in ["no", "etc", "lib"] {
        let error = reader.read_file(&Path::confined(missing.as_bytes()), &mut Vec::new()).await.unwrap_err();
        assert!(error.is_not_found(), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_of_a_dictionary_are_not_stored_again() {
    let tars = hard::layers();
    let image = image_of(Compression::Gzip, &tars[..1]).await;
    let base = to_nydus(&image, &options()).await.unwrap().image;
    let dictionary = Dictionary::open(&base, std::env::temp_dir()).await.unwrap();
    let other = [tars[0].clone(), tars[1].clone()];
    let image = image_of(Compression::Gzip, &other).await;
    let mut options = options();
    options.dictionary = Some(dictionary);
    let converted = to_nydus(&image, &options).await.unwrap().image;
    let blobs: Vec<_> = converted.manifest().layers().iter().map(|layer| layer.digest).collect();
    let of_base: Vec<Digest> = base.manifest().layers()[..1].iter().map(|layer| layer.digest).collect();
    assert!(blobs[..blobs.len() - 1].ends_with(&of_base), "the blob of the dictionary is a layer: {blobs:?}");
    assert_eq!(blobs.len(), 3, "what is new, the dictionary and the bootstrap");
    let bootstrap = bootstrap_layer(&converted).await.remove("image/image.boot").unwrap();
    let found = super::erofs::read(&bootstrap, &devices(&bootstrap, &blobs_of(&converted).await));
    assert_same(&expected(&other), &found, "with a dictionary");
    options.chunk_size = ChunkSize::new(4096).unwrap();
    let error = to_nydus(&image, &options).await.unwrap_err();
    assert!(error.to_string().contains("the chunk size of the chunk dictionary is 1048576, not 4096"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_may_list_a_layer_twice() {
    let tars = hard::layers();
    let twice = [tars[0].clone(), tars[1].clone(), tars[0].clone()];
    let image = image_of(Compression::Gzip, &twice).await;
    let converted = to_nydus(&image, &options()).await.unwrap().image;
    let bootstrap = bootstrap_layer(&converted).await.remove("image/image.boot").unwrap();
    let ids = blob_ids(&bootstrap);
    assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), ids.len());
    let found = super::erofs::read(&bootstrap, &devices(&bootstrap, &blobs_of(&converted).await));
    assert_same(&expected(&twice), &found, "a layer twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_has_its_own_bootstrap() {
    let tars = hard::layers();
    let image = image_of(Compression::Gzip, &tars).await;
    let converted = to_nydus(&image, &options()).await.unwrap().image;
    let upper = bytes_of(&converted.layers().nth(1).unwrap()).await;
    let bootstrap = section(&upper, "image.boot");
    let found = NydusBootstrap::read(&bootstrap).unwrap();
    let names: Vec<_> = found.entries().iter().map(|entry| entry.path.as_bytes().to_vec()).collect();
    for name in [&b".wh.gone"[..], b"linked/.wh.two", b"opaque/.wh..wh..opq", b"opaque/new", b"kept/upper"] {
        assert!(names.iter().any(|found| found == name), "{}", String::from_utf8_lossy(name));
    }
    assert_eq!(found.blob_ids().collect::<Vec<_>>(), ["x".repeat(64)]);
}

/// Returns a section of a blob by its table of contents.
fn section(blob: &[u8], name: &str) -> Vec<u8> {
    let header = &blob[blob.len() - 512..];
    assert!(header.starts_with(b"rafs.blob.toc\0"));
    let size = usize::from_str_radix(std::str::from_utf8(&header[124..135]).unwrap(), 8).unwrap();
    let contents = &blob[blob.len() - 512 - size..][..size];
    let number = |entry: &[u8], at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().unwrap()) as usize;
    let entry = contents.chunks(128).find(|entry| entry[8..24].starts_with(name.as_bytes())).unwrap();
    let stored = &blob[number(entry, 56)..][..number(entry, 64)];
    let bytes = if entry[0] == 2 { zstd::decode_all(stored).unwrap() } else { stored.to_vec() };
    assert_eq!(bytes.len(), number(entry, 72));
    assert_eq!(Digest::sha256_of(&bytes).as_bytes(), &entry[24..56], "{name}");
    bytes
}
