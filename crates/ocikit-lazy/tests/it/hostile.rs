//! Hostile tables of contents, footers and ztocs: each number and text is replaced by values that are likely to be handled
//! wrongly. They are refused or compared with the tar; nothing panics, and positions stay inside the layer.

use std::io::Write;
use std::sync::Arc;

use ocikit_archive::Encoder;
use ocikit_archive::layer::Budget;
use ocikit_image::testing::{Compression, Tar, random};
use ocikit_image::{Image, Layer, Memory, Root};
use ocikit_lazy::{FileAccess, Format, Position, SociOptions, Table, check_layer, chunked, estargz, soci, with_files};
use ocikit_spec::{Annotations, Descriptor, Digest, MediaType};
use serde_json::{Value, json};

use super::{bytes, converted, formats, root_of};

/// Keys whose values are not compared with the tar.
const UNCHECKED: [&str; 4] = ["userName", "groupName", "accesstime", "changetime"];

/// A small layer with a file of several chunks and an entry of each kind.
fn small() -> Vec<u8> {
    let tar = Tar::new()
        .modified(1_700_000_000)
        .directory("d")
        .file("d/large", &random(1, 300_000))
        .file("d/small", b"small")
        .link("link", "d/small")
        .symlink("symlink", "d")
        .device(b'3', "null", 1, 3)
        .records(&[("SCHILY.xattr.user.a", b"one")])
        .file("attributes", b"a");
    tar.finish()
}

/// A layer of the format: its bytes up to the table of contents, and the table.
struct Parts {
    before: Vec<u8>,
    table: Value,
    /// The tar-split of zstd:chunked, compressed, and its size.
    split: (Vec<u8>, u64),
}

fn part(bytes: &[u8], at: &Position) -> Vec<u8> {
    bytes[usize::try_from(at.offset).unwrap()..][..usize::try_from(at.length).unwrap()].to_vec()
}

fn inflated(compression: Compression, stored: &[u8]) -> Vec<u8> {
    let mut inflated = Vec::new();
    std::io::Read::read_to_end(&mut ocikit_archive::Decoder::with(compression, stored).unwrap(), &mut inflated)
        .unwrap();
    inflated
}

async fn estargz_parts() -> Parts {
    let root = root_of(Compression::Gzip, &[small()]).await;
    let done = converted(&root, &formats()[1]).await;
    let blob = bytes(&done.mapped.root.layers().next().unwrap()).await;
    let at = Position::of_estargz(&blob[blob.len() - 51..], blob.len() as u64).unwrap();
    let tar = inflated(Compression::Gzip, &part(&blob, &at));
    let size = usize::from_str_radix(std::str::from_utf8(&tar[124..135]).unwrap(), 8).unwrap();
    let table = serde_json::from_slice(&tar[512..512 + size]).unwrap();
    let before = blob[..usize::try_from(at.offset).unwrap()].to_vec();
    Parts { before, table, split: (Vec::new(), 0) }
}

async fn chunked_parts() -> Parts {
    let root = root_of(Compression::Gzip, &[small()]).await;
    let done = converted(&root, &formats()[0]).await;
    let blob = bytes(&done.mapped.root.layers().next().unwrap()).await;
    let (at, split) = Position::of_zstd_chunked_footer(&blob[blob.len() - 64..], blob.len() as u64).unwrap();
    let table = serde_json::from_slice(&inflated(Compression::Zstd, &part(&blob, &at))).unwrap();
    let before = blob[..usize::try_from(at.offset).unwrap() - 8].to_vec();
    Parts { before, table, split: (part(&blob, &split), split.uncompressed.unwrap()) }
}

fn compressed(compression: Compression, bytes: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new(compression, Vec::new()).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

impl Parts {
    /// Returns a layer with another table of contents, and the annotations for it.
    fn estargz(&self, table: &str) -> Layer {
        let mut blob = self.before.clone();
        blob.extend(compressed(Compression::Gzip, &Tar::new().file("stargz.index.json", table.as_bytes()).finish()));
        let mut footer = vec![0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 26, 0, b'S', b'G', 22, 0];
        footer.extend(format!("{:016x}STARGZ", self.before.len()).into_bytes());
        footer.extend([1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
        blob.extend(footer);
        layer(blob, &[(estargz::TOC_DIGEST, Digest::sha256_of(table.as_bytes()).to_string())])
    }

    fn chunked(&self, table: &str) -> Layer {
        let mut blob = self.before.clone();
        let mut numbers = Vec::new();
        let stored = compressed(Compression::Zstd, table.as_bytes());
        for (part, size) in [(&stored, table.len() as u64), (&self.split.0, self.split.1)] {
            blob.extend([0x50, 0x2a, 0x4d, 0x18]);
            blob.extend(u32::try_from(part.len()).unwrap().to_le_bytes());
            numbers.push([blob.len() as u64, part.len() as u64, size]);
            blob.extend(part);
        }
        blob.extend([0x50, 0x2a, 0x4d, 0x18, 64, 0, 0, 0]);
        for number in [&numbers[0][..], &[1], &numbers[1]].concat() {
            blob.extend(number.to_le_bytes());
        }
        blob.extend(b"GNUlInUx");
        let position = |[offset, length, size]: [u64; 3]| format!("{offset}:{length}:{size}");
        let annotations = [
            (chunked::MANIFEST_CHECKSUM, Digest::sha256_of(&stored).to_string()),
            (chunked::MANIFEST_POSITION, format!("{}:1", position(numbers[0]))),
            (chunked::TAR_SPLIT_POSITION, position(numbers[1])),
        ];
        layer(blob, &annotations)
    }
}

fn layer(blob: Vec<u8>, annotations: &[(&str, String)]) -> Layer {
    let mut descriptor = Descriptor::of(MediaType::OCI_LAYER_GZIP, &blob);
    descriptor.annotations = Annotations::default();
    for (key, value) in annotations {
        descriptor.annotations.insert(*key, value.clone());
    }
    Layer::at(Arc::new(Memory::new().with_bytes(blob)), descriptor)
}

/// Returns the paths of all values in a document.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => object.iter().for_each(|(key, value)| pointers(value, &format!("{at}/{key}"), found)),
        Value::Array(array) => {
            array.iter().enumerate().for_each(|(number, value)| pointers(value, &format!("{at}/{number}"), found));
        }
        _ => {}
    }
    found.push(at.to_owned());
}

/// Returns values that are likely to be handled wrongly.
fn values(old: &Value) -> Vec<Value> {
    let mut values =
        vec![json!(null), json!(0), json!(u64::MAX), json!(i64::MAX), json!(i64::MIN), json!(-1), json!(1e300)];
    values.extend([
        json!(""),
        json!("../../x"),
        json!("/etc/passwd"),
        json!("chunk"),
        json!("a\u{0}b"),
        json!([]),
        json!({}),
    ]);
    match old {
        Value::Number(number) => {
            let number = number.as_u64().unwrap_or_default();
            values.extend([
                json!(number.wrapping_add(1)),
                json!(number.wrapping_sub(1)),
                json!(number / 2),
                json!(number * 2),
            ]);
        }
        Value::String(text) => {
            values.extend([json!(format!("{text}/")), json!(text.to_uppercase()), json!("x".repeat(100_000))]);
        }
        Value::Array(array) => {
            let mut twice = array.clone();
            twice.extend(array.iter().cloned());
            values.extend([json!(twice), json!(array.iter().rev().collect::<Vec<_>>())]);
        }
        _ => {}
    }
    values
}

#[tokio::test(flavor = "multi_thread")]
async fn every_value_of_a_table_of_contents_may_be_wrong() {
    type Build = fn(&Parts, &str) -> Layer;
    for (parts, build) in
        [(estargz_parts().await, Parts::estargz as Build), (chunked_parts().await, Parts::chunked as Build)]
    {
        let problems = async |table: &Value| {
            let layer = build(&parts, &table.to_string());
            check_layer(&layer, &Budget::new(), &std::env::temp_dir()).await.unwrap()
        };
        assert_eq!(problems(&parts.table).await, [], "the layer is put together as before");
        let mut found = Vec::new();
        pointers(&parts.table, "", &mut found);
        assert!(found.len() > 40, "{found:?}");
        // Checking a layer inflates its contents, so that some values are tried at each place only.
        let mut next = 0;
        for pointer in &found {
            let old = parts.table.pointer(pointer).unwrap();
            let values = values(old);
            for _ in 0..4 {
                next += 1;
                let mut table = parts.table.clone();
                let value = &values[next * 5 % values.len()];
                *table.pointer_mut(pointer).unwrap() = value.clone();
                let same = value == old || UNCHECKED.iter().any(|key| pointer.ends_with(key));
                // Numbers that are missing are 0, and texts are empty.
                let is_default = [json!(0), json!(""), json!(null), json!({})].contains(value);
                let is_found = !problems(&table).await.is_empty();
                assert!(is_found || same || is_default, "{pointer}: {value} instead of {old}");
            }
        }
    }
}

/// Returns an image with this layer only.
async fn image_with(layer: &Layer, compression: Compression) -> Image {
    let blob = bytes(layer).await;
    let tar = inflated(compression, &blob);
    let config = json!({"architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [Digest::sha256_of(&tar)]}})
    .to_string();
    let manifest = json!({"schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "layers": [layer.descriptor()],
        "config": Descriptor::of(MediaType::OCI_CONFIG, config.as_bytes())})
    .to_string();
    let descriptor = Descriptor::of(MediaType::OCI_MANIFEST, manifest.as_bytes());
    let memory = Memory::new().with_bytes(blob).with_bytes(config).with_bytes(manifest);
    match Root::at(Arc::new(memory), descriptor).await.unwrap() {
        Root::Image(image) => image,
        other => panic!("not an image: {other:?}"),
    }
}

/// In no tar of a layer is a hard link before its target, so such a table is not used.
#[tokio::test(flavor = "multi_thread")]
async fn tables_in_another_order_are_not_used() {
    let (estargz, chunked) = (estargz_parts().await, chunked_parts().await);
    for (parts, is_estargz) in [(&estargz, true), (&chunked, false)] {
        let build = |table: &Value| match is_estargz {
            true => parts.estargz(&table.to_string()),
            false => parts.chunked(&table.to_string()),
        };
        let compression = if is_estargz { Compression::Gzip } else { Compression::Zstd };
        let mut table = parts.table.clone();
        let entries = table["entries"].as_array_mut().unwrap();
        let link = entries.iter().position(|entry| entry["type"] == "hardlink").unwrap();
        let moved = entries.remove(link);
        entries.insert(0, moved);
        let mut listed = Vec::new();
        for table in [&parts.table, &table] {
            let image = image_with(&build(table), compression).await;
            let image = with_files(image, FileAccess::Tables, &std::env::temp_dir()).await.unwrap();
            let files = image.files().await.unwrap();
            listed.push(files.iter().map(|(path, _)| path.to_string()).collect::<Vec<_>>());
            for path in ["link", "d/small"] {
                image.read_file(path.as_bytes(), Vec::new()).await.unwrap();
            }
        }
        assert_eq!(listed[0], listed[1]);
        assert!(listed[0].contains(&"link".to_owned()), "{listed:?}");
    }
}

/// The end of the contents of a file in the blob is that of its last frame.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_ends_of_files_are_found() {
    let parts = chunked_parts().await;
    let entries = parts.table["entries"].as_array().unwrap();
    let ends: Vec<_> = (0..entries.len()).filter(|at| entries[*at].get("endOffset").is_some()).collect();
    assert_eq!(ends.len(), 3, "each file with contents has one");
    let next = |end: u64| entries.iter().filter_map(|entry| entry["endOffset"].as_u64()).find(|other| *other > end);
    for at in ends {
        let (name, end) = (entries[at]["name"].as_str().unwrap(), entries[at]["endOffset"].as_u64().unwrap());
        for wrong in [0, 1, end - 1, end + 1, next(end).unwrap_or(parts.before.len() as u64), u64::MAX] {
            let mut table = parts.table.clone();
            table["entries"][at]["endOffset"] = wrong.into();
            let layer = parts.chunked(&table.to_string());
            let problems = check_layer(&layer, &Budget::new(), &std::env::temp_dir()).await.unwrap();
            let problems: Vec<_> = problems.iter().map(|found| (found.entry.as_str(), found.what.as_str())).collect();
            assert_eq!(problems, [(name, "ends at another offset than the table of contents has")], "{wrong}");
        }
    }
}

#[test]
fn every_number_of_a_footer_may_be_wrong() {
    let size = 100_000_u64;
    let mut estargz = vec![0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 26, 0, b'S', b'G', 22, 0];
    estargz.extend(b"0000000000001000STARGZ");
    estargz.extend([1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
    let is_inside = |at: &Position| at.offset.checked_add(at.length).is_some_and(|end| end <= size);
    assert!(is_inside(&Position::of_estargz(&estargz, size).unwrap()));
    for at in 0..estargz.len() {
        for value in 0..=255 {
            let mut footer = estargz.clone();
            footer[at] = value;
            if let Ok(position) = Position::of_estargz(&footer, size) {
                assert!(is_inside(&position), "{at} {value}");
            }
        }
    }
    let valid = [1000, 200, 1000, 1, 1300, 100, 1000, u64::from_le_bytes(*b"GNUlInUx")];
    let footer = |numbers: &[u64]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>();
    assert!(Position::of_zstd_chunked_footer(&footer(&valid), size).is_ok());
    let values = [0, 1, size - 1, size, size + 1, u64::MAX, 1 << 63, u64::MAX - 1000, 150 << 20, (150 << 20) + 1];
    for (one, other) in (0..8).flat_map(|one| (0..8).map(move |other| (one, other))) {
        for (first, second) in values.iter().flat_map(|first| values.iter().map(move |second| (*first, *second))) {
            let mut numbers = valid;
            (numbers[one], numbers[other]) = (first, second);
            if let Ok((table, split)) = Position::of_zstd_chunked_footer(&footer(&numbers), size) {
                assert!(is_inside(&table) && is_inside(&split), "{numbers:?}");
            }
            let text = format!("{}:{}:{}:{}", numbers[0], numbers[1], numbers[2], numbers[3]);
            assert!(
                Position::of_zstd_chunked(&text, size).is_err()
                    || is_inside(&Position::of_zstd_chunked(&text, size).unwrap())
            );
        }
    }
    for text in
        ["", ":::", "1:2", "1:2:3:4:5", "-1:1:1:1", "1:1:1:2", "99999999999999999999:1:1:1", " 1:1:1:1", "0x1:1:1:1"]
    {
        assert!(Position::of_zstd_chunked(text, size).is_err(), "{text:?}");
    }
}

/// Tables that become very large, or that are cut off.
#[test]
fn tables_are_limited() {
    let zeros = compressed(Compression::Zstd, &vec![b' '; 1 << 20]);
    let position = |uncompressed: u64| {
        Position::of_zstd_chunked(&format!("8:{}:{uncompressed}:1", zeros.len()), zeros.len() as u64 + 100).unwrap()
    };
    for uncompressed in [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1] {
        assert!(Table::of_zstd_chunked(&zeros, &position(uncompressed)).is_err());
    }
    let entries = format!(
        r#"{{"version":1,"entries":[{}{{"name":"a","type":"reg"}}]}}"#,
        r#"{"name":"a","type":"reg"},"#.repeat(10_000)
    );
    assert_eq!(Table::parse(entries.as_bytes()).unwrap().entries.len(), 10_001);
    for length in (0..entries.len()).step_by(997) {
        assert!(Table::parse(&entries.as_bytes()[..length]).is_err());
    }
    assert!(Table::parse("[".repeat(1_000_000).as_bytes()).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_number_of_a_ztoc_may_be_wrong() {
    let mut options = SociOptions::default();
    (options.min_layer_size, options.span_size) = (0, 1 << 22);
    let root = root_of(Compression::Gzip, &[small()]).await;
    let done = converted(&root, &Format::Soci(options)).await;
    let Root::Index(index) = &done.mapped.root else { panic!("not an index") };
    let listed = index.open(&index.manifests()[1]).await.unwrap();
    let good = bytes(&listed.layers().next().unwrap()).await;
    let parsed = soci::Ztoc::parse(&good).unwrap();
    assert_eq!(parsed.files.len(), 7);
    // The windows of the checkpoints are no structure.
    let structure = |at: &usize| *at < 2000 || good.len() - at < 4000;
    let length = good.len() as u64;
    let (mut refused, mut tried) = (0, 0);
    for at in (0..good.len()).filter(structure) {
        for width in [1, 2, 4].into_iter().filter(|width| at + width <= good.len()) {
            let old = good[at..at + width].iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
            let own = at as u64;
            for value in
                [0, u64::MAX, 1 << (width * 8 - 1), old.wrapping_add(1), old.wrapping_sub(1), own, length, length - own]
            {
                let mut changed = good.clone();
                changed[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
                tried += 1;
                match soci::Ztoc::parse(&changed) {
                    Ok(ztoc) => {
                        let texts: usize = ztoc.files.iter().map(|file| file.name.len() + file.link.len() + 1).sum();
                        assert!(texts + ztoc.checkpoints.len() <= 2 * changed.len(), "{at} {width} {value}");
                    }
                    Err(_) => refused += 1,
                }
            }
        }
    }
    assert!(refused > tried / 20, "{refused} of {tried}");
}
