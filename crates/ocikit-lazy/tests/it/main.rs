//! Conversions of whole images in memory.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test says where it fails by panicking")]

mod hostile;
mod nydus;

use std::io::Read;
use std::num::NonZeroUsize;
use std::sync::Arc;

use ocikit_archive::Decoder;
use ocikit_archive::layer::{Budget, RawKind, RawReader};
use ocikit_image::testing::{Compression, Tar, hard_layer, image_of, random};
use ocikit_image::{Image, Layer, Memory, Root, SourceExt};
use ocikit_lazy::rafs::{NydusOptions, RafsVersion};
use ocikit_lazy::{
    Converted, EstargzOptions, Format, LazyOptions, PlainOptions, Reason, SociOptions, SociVersion, Warning,
    ZstdChunkedOptions, check_layer, convert, soci,
};
use ocikit_spec::{Descriptor, Digest, MediaType};

async fn root_of(compression: Compression, tars: &[Vec<u8>]) -> Root {
    let memory = Arc::new(Memory::new());
    let descriptor = image_of(&memory, &"linux/amd64".parse().unwrap(), compression, tars);
    Root::at(memory, descriptor).await.unwrap()
}

fn options(threads: usize) -> LazyOptions {
    let mut options = LazyOptions::default();
    options.threads = NonZeroUsize::new(threads);
    options.directory = Some(std::env::temp_dir());
    options
}

async fn converted(root: &Root, format: &Format) -> Converted {
    convert(root, format, &options(2)).await.unwrap()
}

fn image(root: &Root) -> &Image {
    let Root::Image(image) = root else { panic!("not an image: {root:?}") };
    image
}

async fn bytes(layer: &Layer) -> Vec<u8> {
    layer.source().open(layer.descriptor()).await.unwrap().bytes().await.unwrap().to_vec()
}

async fn tar(layer: &Layer) -> Vec<u8> {
    let mut tar = Vec::new();
    Decoder::new(&bytes(layer).await[..]).unwrap().read_to_end(&mut tar).unwrap();
    tar
}

/// Returns name, type and contents of the entries of a tar.
fn entries(tar: &[u8]) -> Vec<(String, RawKind, u64, Digest)> {
    let mut reader = RawReader::within(&Budget::new(), tar);
    let mut found = Vec::new();
    while let Some(entry) = reader.next_entry(&mut Vec::new()).unwrap() {
        let mut contents = Vec::new();
        reader.read_to_end(&mut contents).unwrap();
        let name = String::from_utf8_lossy(&entry.name).into_owned();
        found.push((name, entry.kind, entry.size, Digest::sha256_of(&contents)));
    }
    found
}

fn formats() -> [Format; 2] {
    [Format::ZstdChunked(ZstdChunkedOptions::default()), Format::Estargz(EstargzOptions::default())]
}

fn small_soci() -> Format {
    let mut options = SociOptions::default();
    (options.min_layer_size, options.span_size) = (0, 1 << 20);
    Format::Soci(options)
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_contents_agree_with_the_tar() {
    for compression in [Compression::Gzip, Compression::Zstd, Compression::None] {
        let root =
            root_of(compression, &[hard_layer(), Tar::new().directory("etc").file("etc/motd", b"hello").finish()])
                .await;
        for format in formats() {
            let done = converted(&root, &format).await;
            assert_eq!(done.warnings, []);
            assert_eq!(done.mapped.replaced, [(root.digest(), done.mapped.root.digest())].into());
            for layer in done.mapped.root.layers() {
                let problems = check_layer(&layer, &Budget::new(), &std::env::temp_dir()).await.unwrap();
                assert_eq!(problems, [], "{format:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn zstd_chunked_keeps_tars_and_config() {
    let tars = [hard_layer(), Tar::new().directory("etc").file("etc/motd", b"hello").finish()];
    let root = root_of(Compression::Gzip, &tars).await;
    let done = converted(&root, &formats()[0]).await;
    for (layer, tar_before) in done.mapped.root.layers().zip(&tars) {
        assert!(tar(&layer).await == *tar_before);
        assert_eq!(layer.descriptor().media_type, MediaType::OCI_LAYER_ZSTD);
    }
    let config = |root: &Root| image(root).manifest().config().unwrap().digest;
    assert_eq!(config(&done.mapped.root), config(&root));
}

#[tokio::test(flavor = "multi_thread")]
async fn estargz_keeps_the_files_and_names_the_new_tars() {
    let root = root_of(Compression::Gzip, &[hard_layer()]).await;
    let done = converted(&root, &formats()[1]).await;
    let layer = done.mapped.root.layers().next().unwrap();
    let new = tar(&layer).await;
    let config = image(&done.mapped.root).config().await.unwrap();
    assert_eq!(config.rootfs().diff_ids, [Digest::sha256_of(&new)]);
    let mut found = entries(&new);
    assert_eq!(found.remove(0).0, ".no.prefetch.landmark");
    assert_eq!(found.pop().unwrap().0, "stargz.index.json");
    assert_eq!(found, entries(&hard_layer()));
}

/// Returns a layer with many small files, large ones, zeros and bytes that do not shrink: several batches of work.
fn mixed_layer(seed: u64) -> Vec<u8> {
    let noise = random(seed, 1 << 20);
    let mut tar = Tar::new().directory("d");
    for (number, part) in noise[..256].iter().enumerate() {
        let (start, length) = (number * usize::from(*part), usize::from(*part).pow(2) / 4);
        tar = tar.file(&format!("d/{number}"), &noise[start..start + length]);
    }
    let text: Vec<u8> = noise.iter().map(|byte| b"etaoin shrdlu\n\0\0"[usize::from(*byte & 15)]).collect();
    let holes = [&noise[..100_000], &[0; 5000], &text[..300_000], &[0; 1 << 20], b"end"].concat();
    tar.file("noise", &noise).file("text", &text).file("holes", &holes).file("zeros", &[0; 1 << 20]).finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_do_not_depend_on_threads() {
    let root = root_of(Compression::Gzip, &[hard_layer(), mixed_layer(1)]).await;
    let nydus = |version| {
        let mut options = NydusOptions::default();
        options.version = version;
        Format::Nydus(options)
    };
    let lazy = formats().into_iter().chain([small_soci(), nydus(RafsVersion::V5), nydus(RafsVersion::V6)]);
    for format in lazy {
        let mut digests = Vec::new();
        for threads in [1, 2, 7] {
            let done = convert(&root, &format, &options(threads)).await.unwrap();
            digests.push(done.mapped.root.digest());
        }
        assert!(digests.iter().all(|digest| *digest == digests[0]), "{format:?}");
        if let Format::ZstdChunked(_) | Format::Estargz(_) = format {
            for layer in converted(&root, &format).await.mapped.root.layers() {
                let problems = check_layer(&layer, &Budget::new(), &std::env::temp_dir()).await.unwrap();
                assert_eq!(problems, [], "{format:?}");
            }
        }
    }
}

/// FP-9: converting an image that has the format is a no-op.
#[tokio::test(flavor = "multi_thread")]
async fn fp_09_a_second_conversion_changes_nothing() {
    let root = root_of(Compression::Gzip, &[hard_layer()]).await;
    for format in formats().into_iter().chain([small_soci()]) {
        let once = converted(&root, &format).await.mapped.root;
        let twice = converted(&once, &format).await;
        assert_eq!(twice.mapped.root.digest(), once.digest(), "{format:?}");
        assert!(twice.mapped.replaced.is_empty());
    }
}

/// FP-12: the output really has the format.
#[tokio::test(flavor = "multi_thread")]
async fn fp_12_every_layer_has_a_table_of_contents() {
    let root = root_of(Compression::Gzip, &[hard_layer(), Tar::new().directory("only").finish()]).await;
    let keys = ["io.github.containers.zstd-chunked.manifest-checksum", "containerd.io/snapshot/stargz/toc.digest"];
    for (format, key) in formats().iter().zip(keys) {
        let done = converted(&root, format).await;
        assert!(done.mapped.root.layers().all(|layer| layer.descriptor().annotations.get(key).is_some()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_table_cannot_express_stays_plain() {
    let upper = Tar::new().link("copy", "lower/file").finish();
    let twice = Tar::new().file("a", b"1").file("./a", b"2").finish();
    let binary = Tar::new().records(&[("path", b"\xff\xfe")]).file("x", b"").finish();
    let contiguous = Tar::new().entry(b'7', "c", "", b"1").finish();
    let late = Tar::new().records(&[("mtime", b"253402300800")]).file("x", b"").finish();
    let mut global = Tar::new().entry(b'g', "pax_global_header", "", b"14 comment=ab\n").finish();
    global.truncate(1024);
    global.extend_from_slice(&Tar::new().file("a", b"1").finish());
    let good = Tar::new().file("good", b"1").finish();
    let tars = [upper, twice, binary, contiguous, late, global, good];
    let root = root_of(Compression::Gzip, &tars).await;
    for format in formats() {
        let done = converted(&root, &format).await;
        let (before, after): (Vec<_>, Vec<_>) = (root.layers().collect(), done.mapped.root.layers().collect());
        for (position, (before, after)) in before.iter().zip(&after).enumerate() {
            assert_eq!(before.digest() == after.digest(), position < 6, "{position}");
        }
        let reasons = before[..6].iter().map(|layer| {
            let found = done.warnings.iter().find(|warning| warning.digest() == layer.digest()).unwrap();
            let Warning::Layer { reason, .. } = found else { panic!("{found}") };
            reason.clone()
        });
        let reasons: Vec<_> = reasons.collect();
        assert!(matches!(&reasons[0], Reason::HardLink { target, .. } if target == "lower/file"), "{reasons:?}");
        assert!(matches!(&reasons[1], Reason::DuplicatePath { .. }), "{reasons:?}");
        assert!(matches!(&reasons[2], Reason::NotUtf8 { .. }), "{reasons:?}");
        assert!(matches!(&reasons[3], Reason::UnknownType { entry_type: b'7', .. }), "{reasons:?}");
        assert!(matches!(&reasons[4], Reason::Time { .. }), "{reasons:?}");
        assert_eq!(reasons[5], Reason::GlobalHeader);
    }
}

/// containers/storage gives a directory without an entry mode 0000, also if a lower layer has it.
#[tokio::test(flavor = "multi_thread")]
async fn zstd_chunked_needs_entries_of_directories() {
    let root = root_of(Compression::Gzip, &[Tar::new().file("etc/motd", b"hello").finish()]).await;
    let [chunked, estargz] = formats();
    let done = converted(&root, &chunked).await;
    assert_eq!(done.mapped.root.digest(), root.digest());
    assert!(
        matches!(&done.warnings[..], [Warning::Layer { reason: Reason::MissingParent { .. }, .. }]),
        "{:?}",
        done.warnings
    );
    let done = converted(&root, &estargz).await;
    assert_eq!(done.warnings, []);
    let layer = done.mapped.root.layers().next().unwrap();
    assert_eq!(check_layer(&layer, &Budget::new(), &std::env::temp_dir()).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_is_the_way_back() {
    let root = root_of(Compression::Gzip, &[hard_layer()]).await;
    let plain = Format::Plain(PlainOptions::default());
    for format in formats() {
        let lazy = converted(&root, &format).await.mapped.root;
        let back = converted(&lazy, &plain).await.mapped.root;
        let layer = back.layers().next().unwrap();
        assert!(tar(&layer).await == hard_layer(), "{format:?}");
        assert!(layer.descriptor().annotations.is_empty());
        let config = |root: &Root| image(root).manifest().config().unwrap().digest;
        assert_eq!(config(&back), config(&root));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn soci_indexes_stand_beside_the_image() {
    let big = Tar::new().file("big", &random(1, 3 << 20)).file("text", &b"abc ".repeat(1 << 20)).finish();
    for compression in [Compression::Gzip, Compression::None] {
        let root = root_of(compression, &[big.clone(), hard_layer()]).await;
        let done = converted(&root, &small_soci()).await;
        assert_eq!(done.warnings, []);
        let Root::Index(index) = &done.mapped.root else { panic!("not an index") };
        let [image, entry] = index.manifests() else { panic!("{:?}", index.manifests()) };
        assert_eq!(image.annotations.get(soci::INDEX_DIGEST), Some(entry.digest.to_string().as_str()));
        assert_eq!(entry.annotations.get(soci::IMAGE_MANIFEST_DIGEST), Some(image.digest.to_string().as_str()));
        let opened = index.open(image).await.unwrap();
        let before: Vec<_> = root.layers().map(|layer| layer.digest()).collect();
        assert_eq!(opened.layers().map(|layer| layer.digest()).collect::<Vec<_>>(), before);
        let listed = index.open(entry).await.unwrap();
        let ztocs: Vec<_> = listed.layers().collect();
        assert_eq!(ztocs.len(), 2);
        for (ztoc, layer) in ztocs.iter().zip(root.layers()) {
            let parsed = soci::Ztoc::parse(&bytes(ztoc).await).unwrap();
            assert_eq!(parsed.compressed, layer.descriptor().size);
            assert_eq!(parsed.span_size, 1 << 20);
            let tar = tar(&layer).await;
            assert_eq!(parsed.uncompressed, tar.len() as u64);
            let names: Vec<_> =
                parsed.files.iter().map(|file| String::from_utf8_lossy(&file.name).into_owned()).collect();
            assert_eq!(names, entries(&tar).into_iter().map(|(name, ..)| name).collect::<Vec<_>>());
            let blob = bytes(&layer).await;
            if compression == Compression::Gzip {
                assert_eq!(parsed.checkpoints.len(), parsed.span_digests.len());
                for (number, digest) in parsed.span_digests.iter().enumerate() {
                    let at = parsed.checkpoints[number];
                    let start = at.compressed - u64::from(at.bits > 0);
                    let end = parsed.checkpoints.get(number + 1).map_or(blob.len() as u64, |next| next.compressed);
                    assert_eq!(*digest, Digest::sha256_of(&blob[start as usize..end as usize]));
                }
            }
        }
        let back = converted(&done.mapped.root, &Format::Plain(PlainOptions::default())).await.mapped.root;
        // An index that is left with one image becomes that image.
        assert_eq!(back.digest(), root.digest());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn soci_version_1_is_a_referrer() {
    let root = root_of(Compression::Gzip, &[hard_layer()]).await;
    let mut options = SociOptions::default();
    (options.min_layer_size, options.version) = (0, SociVersion::V1);
    let done = converted(&root, &Format::Soci(options)).await;
    assert_eq!(done.mapped.root.digest(), root.digest());
    let [referrer] = &done.referrers[..] else { panic!("{:?}", done.referrers) };
    assert_eq!(referrer.document().unwrap().subject().unwrap().digest, root.digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn soci_needs_a_large_layer() {
    let root = root_of(Compression::Gzip, &[hard_layer(), Tar::new().file("a", b"1").finish()]).await;
    let mut soci = SociOptions::default();
    soci.min_layer_size = 1 << 30;
    let done = converted(&root, &Format::Soci(soci)).await;
    assert_eq!(done.mapped.root.digest(), root.digest());
    assert!(matches!(&done.warnings[..], [Warning::NoLayers { .. }]), "{:?}", done.warnings);
    let zstd = root_of(Compression::Zstd, &[hard_layer()]).await;
    let done = converted(&zstd, &small_soci()).await;
    assert!(
        matches!(
            &done.warnings[..],
            [Warning::Layer { reason: Reason::Compression, .. }, Warning::NoLayers { .. }]
                | [Warning::NoLayers { .. }, Warning::Layer { reason: Reason::Compression, .. }]
        ),
        "{:?}",
        done.warnings
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_chunk_is_found() {
    let root = root_of(Compression::Gzip, &[hard_layer()]).await;
    for format in formats() {
        let done = converted(&root, &format).await;
        let layer = done.mapped.root.layers().next().unwrap();
        let mut blob = bytes(&layer).await;
        let at = blob.len() / 2;
        blob[at] ^= 1;
        let mut descriptor = layer.descriptor().clone();
        descriptor.digest = Digest::sha256_of(&blob);
        let damaged = Layer::at(Arc::new(Memory::new().with_bytes(blob)), descriptor);
        let problems = check_layer(&damaged, &Budget::new(), &std::env::temp_dir()).await.unwrap();
        assert!(!problems.is_empty(), "{format:?}");
    }
}

/// The SOCI index that `soci convert --standalone --min-layer-size 0` of soci-snapshotter 0.16.1 wrote for this layer, which
/// Python's tarfile and gzip wrote. `tests/it/peers/lazy.rs` compares larger ones.
#[tokio::test(flavor = "multi_thread")]
async fn the_soci_index_is_that_of_the_reference() {
    const DIGEST: &str = "sha256:0abdf03221ee26d97b6031b8e9832f443638f390d2534e283b6e4dfcf4a341df";
    let config = br#"{"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ["sha256:04c32724b2e515616d5f21a4b189a12e69cc2272d3a550e925d3ee10f098fd9c"]}, "config": {}}"#;
    let layer = include_bytes!("soci-layer.tar.gz");
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MediaType::OCI_MANIFEST,
        "config": Descriptor::of(MediaType::OCI_CONFIG, config),
        "layers": [Descriptor::of(MediaType::OCI_LAYER_GZIP, layer)],
    });
    let manifest = manifest.to_string();
    let descriptor = Descriptor::of(MediaType::OCI_MANIFEST, manifest.as_bytes());
    let memory = Memory::new().with_bytes(&config[..]).with_bytes(&layer[..]).with_bytes(manifest);
    let root = Root::at(Arc::new(memory), descriptor).await.unwrap();
    let mut soci = SociOptions::default();
    soci.min_layer_size = 0;
    let done = converted(&root, &Format::Soci(soci)).await;
    let Root::Index(index) = &done.mapped.root else { panic!("not an index") };
    assert_eq!(index.manifests()[1].digest.to_string(), DIGEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_has_a_limit_of_entries() {
    let entries = vec![r#"{"name":"a","type":"reg"}"#; ocikit_lazy::MAX_TABLE_ENTRIES + 1].join(",");
    let error = ocikit_lazy::Table::parse(format!(r#"{{"version":1,"entries":[{entries}]}}"#).as_bytes()).unwrap_err();
    assert!(error.to_string().contains("more than 1048576 entries"), "{error}");
}
