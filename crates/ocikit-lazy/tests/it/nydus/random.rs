//! Any layers give an image that EROFS and this crate read alike.

use ocikit_image::EncoderOptions;
use ocikit_image::files::{Entry, FileKind, Kind, Metadata, Path, Time, Whiteout, Writer};
use ocikit_image::testing::{Compression, random};
use ocikit_lazy::rafs::{ChunkSize, Compressor, Deduplicate, RafsVersion, to_nydus};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::convert::{assert_same, blobs_of, bootstrap_layer, expected, image_of, options, seen_by_us};
use super::devices::devices;

fn entries() -> impl Strategy<Value = Entry> {
    let part = prop_oneof!["[a-c]", "[!-.]x", "[a-z]{200,255}"];
    let path = vec(part, 1..4).prop_map(|parts| Path::confined(parts.join("/").as_bytes()));
    let kind = prop_oneof![
        4 => prop_oneof![0..9000_u64, 4090..4100_u64].prop_map(|size| FileKind::Regular { size }),
        3 => Just(FileKind::Directory),
        1 => "[a-z]{1,10}|(\\.\\./){1300,1360}x".prop_map(|target| FileKind::Symlink { target: target.into_bytes().into() }),
        1 => (0..0x1000_u32, 0..0x10_0000_u32).prop_map(|(major, minor)| FileKind::BlockDevice { major, minor }),
        1 => Just(FileKind::Fifo),
    ];
    let xattrs = btree_map("(user|trusted|security)\\.[a-z]{1,8}", vec(any::<u8>(), 0..900), 0..4);
    let metadata = (0..0o10000_u32, 0..u64::from(u32::MAX), any::<i32>(), 0..1_000_000_000_u32, xattrs);
    let hidden = path.clone().prop_map(|path| Entry::whiteout(Whiteout::Path(path)).unwrap());
    let opaque = path.clone().prop_map(|path| Entry::whiteout(Whiteout::Contents(path)).unwrap());
    let file = (path, kind, metadata).prop_map(|(path, kind, (mode, uid, seconds, nanoseconds, xattrs))| {
        let modified = Time { seconds: seconds.into(), nanoseconds };
        let xattrs = xattrs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let metadata = Metadata { mode, uid, gid: uid / 2, modified, xattrs, ..Metadata::default() };
        Entry { path, kind: Kind::File(kind), metadata }
    });
    prop_oneof![8 => file, 1 => hidden, 1 => opaque]
}

fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut layer = Writer::new(&EncoderOptions::from(Compression::None), Vec::new()).unwrap();
    for entry in entries {
        let size = if let Kind::File(FileKind::Regular { size }) = entry.kind { size } else { 0 };
        // Few different contents, so that chunks are shared.
        layer.append(entry, &random(size % 7, 9000)[..usize::try_from(size).unwrap()]).unwrap();
    }
    layer.finish().unwrap().0
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_image_is_read_back(layers in vec(vec(entries(), 0..40), 1..4), choice in 0..6_usize) {
        let tars: Vec<_> = layers.iter().map(|entries| tar(entries)).collect();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let mut options = options();
            options.compressor = [Compressor::None, Compressor::Lz4, Compressor::Zstd][choice % 3];
            options.deduplicate = [Deduplicate::Layer, Deduplicate::Image][choice % 2];
            options.chunk_size = ChunkSize::new(4096 << (choice % 2)).unwrap();
            let image = image_of(Compression::None, &tars).await;
            for version in [RafsVersion::V5, RafsVersion::V6] {
                options.version = version;
                let converted = to_nydus(&image, &options).await.unwrap().image;
                assert_same(&expected(&tars), &seen_by_us(&converted).await, "read back");
                if version == RafsVersion::V6 {
                    let bootstrap = bootstrap_layer(&converted).await.remove("image/image.boot").unwrap();
                    let devices = devices(&bootstrap, &blobs_of(&converted).await);
                    assert_same(&expected(&tars), &super::erofs::read(&bootstrap, &devices), "by erofs");
                }
            }
        });
    }
}
