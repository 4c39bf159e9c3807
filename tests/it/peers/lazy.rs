//! Lazily pulled layers, read by the programs that they are for. The expected files are always those of the source tar.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ocikit_archive::layer::{Budget, RawEntry, RawKind, RawReader};
use ocikit_archive::{Compression, Decoder};
use ocikit_image::testing::{Tar, hard_layer};
use ocikit_spec::Digest;
use ocikit_tests::{Bench, Peers, json, write_image};
use serde_json::Value;

use super::unpack::tree;
use crate::bench;

const ESTARGZ_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";

/// Writes a layout with the hard layer and a small one above it.
fn layout(bench: &Bench, compression: Compression) -> String {
    let upper = Tar::new()
        .modified(5)
        .directory("etc")
        .file("etc/motd", b"hello")
        .directory("bin")
        .file("bin/.wh.sh", b"")
        .finish();
    write_image(&bench.path("layout"), compression, &[hard_layer(), upper]);
    format!("oci:{}:1", bench.path("layout").display())
}

/// Returns the layers of an image in a layout: descriptor and file.
pub(super) fn layers(bench: &Bench, layout: &str) -> Vec<(Value, PathBuf)> {
    let manifest = json(&bench.ok(&["manifest", "get", layout]));
    let directory = layout.strip_prefix("oci:").unwrap().rsplit_once(':').unwrap().0.to_owned();
    let file = |layer: &Value| {
        let digest: Digest = layer["digest"].as_str().unwrap().parse().unwrap();
        Path::new(&directory).join(digest.blob_path())
    };
    manifest["layers"].as_array().unwrap().iter().map(|layer| (layer.clone(), file(layer))).collect()
}

fn kind(entry: &RawEntry) -> &'static str {
    match entry.kind {
        RawKind::Regular => "reg",
        RawKind::HardLink => "hardlink",
        RawKind::Symlink => "symlink",
        RawKind::CharacterDevice => "char",
        RawKind::BlockDevice => "block",
        RawKind::Directory => "dir",
        RawKind::Fifo => "fifo",
        RawKind::Sparse | RawKind::Other(_) => "other",
    }
}

/// Returns a line for each path of a tar, as `estargz-verify` shows it. A hard link is a further path of its target.
fn listed(tar: &[u8]) -> BTreeMap<String, String> {
    let mut reader = RawReader::within(&Budget::new(), tar);
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    while let Some(entry) = reader.next_entry(&mut Vec::new()).unwrap() {
        let mut contents = Vec::new();
        reader.read_to_end(&mut contents).unwrap();
        let path = entry.path.to_string();
        if entry.kind == RawKind::HardLink {
            let target = ocikit_archive::layer::Path::confined(&entry.link).to_string();
            let same = found[&target].clone();
            found.insert(path, same);
            continue;
        }
        let modified = entry.modified.seconds + i64::from(entry.modified.nanoseconds >= 500_000_000);
        let sum = if entry.kind == RawKind::Regular { Digest::sha256_of(&contents).hex() } else { String::new() };
        let xattrs: BTreeMap<_, _> =
            entry.xattrs().into_iter().map(|(key, value)| (text(key), value.to_vec())).collect();
        let size = if entry.kind == RawKind::Regular { entry.size } else { 0 };
        let line = format!(
            "{} {:o} {}:{} {size} {} {modified} {}:{} {xattrs:?} {sum}",
            kind(&entry),
            entry.mode,
            entry.uid,
            entry.gid,
            text(&entry.link),
            entry.major,
            entry.minor,
        );
        found.insert(path, line);
    }
    found
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Returns what `estargz-verify` found, without the directories that no entry describes and the landmark.
fn verified(output: &str, expected: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let line = |found: Value| {
        let number = |key: &str| found[key].as_i64().unwrap();
        let word = |key: &str| found[key].as_str().unwrap().to_owned();
        let xattrs: BTreeMap<String, Vec<u8>> = match found["xattrs"].as_object() {
            Some(object) => object.iter().map(|(key, value)| (key.clone(), base64(value.as_str().unwrap()))).collect(),
            None => BTreeMap::new(),
        };
        let line = format!(
            "{} {:o} {}:{} {} {} {} {}:{} {xattrs:?} {}",
            word("type"),
            number("mode"),
            number("uid"),
            number("gid"),
            number("size"),
            word("link"),
            number("mtime"),
            number("major"),
            number("minor"),
            word("sha256")
        );
        (word("path"), line)
    };
    let found = output.lines().map(|found| line(json(found)));
    let is_implied = |path: &str| !expected.contains_key(path);
    found.filter(|(path, line)| !(is_implied(path) && line.starts_with("dir "))).collect()
}

fn base64(text: &str) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

#[test]
fn estargz_layers_are_verified_by_the_library_of_the_snapshotter() {
    let Some(peers) = Peers::find(&["estargz-verify"]) else { return };
    let bench = bench();
    for compression in [Compression::Gzip, Compression::Zstd] {
        let from = layout(&bench, compression);
        let to = format!("oci:{}:1", bench.path(&format!("estargz-{compression:?}")).display());
        bench.ok(&["convert", "--to", "estargz", &from, "-o", &to]);
        for ((_, source), (layer, blob)) in layers(&bench, &from).iter().zip(layers(&bench, &to)) {
            let mut tar = Vec::new();
            Decoder::new(&fs::read(source).unwrap()[..]).unwrap().read_to_end(&mut tar).unwrap();
            let digest = layer["annotations"][ESTARGZ_DIGEST].as_str().unwrap();
            let output = peers.ok(&format!("estargz-verify {} {digest}", blob.display()));
            let expected = listed(&tar);
            let mut found = verified(&output, &expected);
            assert!(found.remove(".no.prefetch.landmark").is_some());
            assert_eq!(found, expected);
        }
    }
}

#[test]
fn a_damaged_estargz_layer_is_found_by_the_library_of_the_snapshotter() {
    let Some(peers) = Peers::find(&["estargz-verify"]) else { return };
    let bench = bench();
    let from = layout(&bench, Compression::Gzip);
    let to = format!("oci:{}:1", bench.path("estargz").display());
    bench.ok(&["convert", "--to", "estargz", &from, "-o", &to]);
    let (layer, blob) = layers(&bench, &to).remove(0);
    let digest = layer["annotations"][ESTARGZ_DIGEST].as_str().unwrap();
    let mut bytes = fs::read(&blob).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    bench.write("damaged", bytes);
    assert_ne!(peers.run(&format!("estargz-verify {} {digest}", bench.path("damaged").display())).code, 0);
}

#[test]
fn estargz_layers_have_the_files_to_fetch_first_before_the_landmark() {
    let Some(peers) = Peers::find(&["estargz-verify"]) else { return };
    let bench = bench();
    let lower = Tar::new().directory("a").file("a/1", &[1; 700]).directory("b").file("b/2", b"22").link("b/3", "a/1");
    let tar = lower.file("c", b"3").finish();
    write_image(&bench.path("app"), Compression::Gzip, &[tar.clone(), Tar::new().file("d", b"4").finish()]);
    bench.write("list", "/b/3\n\n/gone\n");
    let line = ["convert", "--to", "estargz", "--prefetch-file", "list", "oci:app:1", "-o", "oci:lazy:1"];
    bench.ok(&line);
    let directory = format!("oci:{}:1", bench.path("lazy").display());
    let made = layers(&bench, &directory);
    let digest = made[0].0["annotations"][ESTARGZ_DIGEST].as_str().unwrap();
    let output = peers.ok(&format!("estargz-verify {} {digest}", made[0].1.display()));
    let expected = listed(&tar);
    let mut found = verified(&output, &expected);
    assert!(found.remove(".prefetch.landmark").is_some(), "{output}");
    assert_eq!(found, expected);
    let names = |blob: &Path| {
        let mut bytes = Vec::new();
        Decoder::new(&fs::read(blob).unwrap()[..]).unwrap().read_to_end(&mut bytes).unwrap();
        let mut reader = RawReader::within(&Budget::new(), &bytes[..]);
        let mut names = Vec::new();
        while let Some(entry) = reader.next_entry(&mut Vec::new()).unwrap() {
            names.push(text(&entry.name).trim_end_matches('/').to_owned());
        }
        names
    };
    let first = ["a", "a/1", "b", "b/3", ".prefetch.landmark", "b/2", "c", "stargz.index.json"];
    assert_eq!(names(&made[0].1), first);
    assert_eq!(names(&made[1].1), [".no.prefetch.landmark", "d", "stargz.index.json"]);
    assert_eq!(bench.ok(&["convert", "--to", "estargz", "oci:lazy:1"]), bench.ok(&["digest", "oci:lazy:1"]));
    bench.ok(&["validate", "oci:lazy:1"]);
}

/// The manifests of the SOCI indexes in the image index of a layout, in order.
fn soci_indexes(directory: &Path) -> Vec<Value> {
    let read = |digest: &str| json(&fs::read_to_string(blob_of(directory, digest)).unwrap());
    let layout = json(&fs::read_to_string(directory.join("index.json")).unwrap());
    let root = read(layout["manifests"][0]["digest"].as_str().unwrap());
    let entries = root["manifests"].as_array().unwrap();
    let soci = entries.iter().filter(|entry| entry["artifactType"] == "application/vnd.amazon.soci.index.v2+json");
    soci.map(|entry| read(entry["digest"].as_str().unwrap())).collect()
}

fn blob_of(directory: &Path, digest: &str) -> PathBuf {
    directory.join(digest.parse::<Digest>().unwrap().blob_path())
}

#[test]
fn ztocs_of_gzip_layers_are_those_of_the_reference() {
    compare_with_soci(Compression::Gzip);
}

#[test]
fn ztocs_of_uncompressed_layers_are_those_of_the_reference() {
    compare_with_soci(Compression::None);
}

#[test]
fn soci_indexes_list_what_is_fetched_first_as_the_reference_does() {
    let Some(peers) = Peers::find(&["soci"]) else { return };
    let bench = bench();
    let noise = |seed| ocikit_image::testing::random(seed, 13 << 20);
    let lower = Tar::new().file("noise", &noise(1)).directory("d").file("d/x", b"x").file("both", b"lower").finish();
    let upper = Tar::new().file("both", b"upper").file("large", &noise(2)).file("last", b"last").finish();
    write_image(&bench.path("source"), Compression::Gzip, &[lower, upper]);
    let [from, to] = ["source", "theirs"].map(|name| bench.path(name).display().to_string());
    let wanted = "--prefetch-file /d/x --prefetch-file both --prefetch-file last --prefetch-file gone";
    peers.ok(&format!("soci convert --standalone --platform linux/amd64 --format oci-dir {wanted} {from} {to}"));
    let paths = ["--prefetch", "/d/x", "--prefetch", "both", "--prefetch", "last", "--prefetch", "gone"];
    let line = ["convert", "--to", "soci", "oci:source:1", "-o", "oci:ours:1"];
    bench.ok(&[&line[..], &paths].concat());
    let [theirs, ours] = ["theirs", "ours"].map(|name| soci_indexes(&bench.path(name)));
    assert_eq!(ours, theirs);
    assert_eq!(ours[0]["layers"].as_array().unwrap().len(), 4, "{ours:?}");
    // A directory means the files below it.
    bench.ok(&["convert", "--to", "soci", "--prefetch", "/d", "oci:source:1", "-o", "oci:below:1"]);
    let below = soci_indexes(&bench.path("below"));
    assert_eq!(below[0]["layers"].as_array().unwrap().len(), 3, "{below:?}");
    bench.ok(&["validate", "oci:below:1"]);
}

fn compare_with_soci(compression: Compression) {
    let Some(peers) = Peers::find(&["soci"]) else { return };
    let bench = bench();
    // The reference leaves out layers below 10 MiB.
    let noise = ocikit_image::testing::random(9, 14 << 20);
    let text: Vec<u8> =
        (0_u64..900_000).flat_map(|number| format!("{} line\n", number * number % 977).into_bytes()).collect();
    let large = Tar::new().modified(7).file("noise", &noise).directory("d").file("d/text", &text).finish();
    write_image(&bench.path("source"), compression, &[large, hard_layer()]);
    let [from, to] = ["source", "theirs"].map(|name| bench.path(name).display().to_string());
    peers.ok(&format!("soci convert --standalone --platform linux/amd64 --format oci-dir {from} {to}"));
    bench.ok(&["convert", "--to", "soci", &format!("oci:{from}:1"), "-o", "oci:ours:1"]);
    let [theirs, ours] = ["theirs", "ours"].map(|name| soci_indexes(&bench.path(name)));
    assert_eq!(ours.len(), 1);
    assert_eq!(ours, theirs);
    assert_eq!(ours[0]["layers"].as_array().unwrap().len(), 2);
    bench.ok(&["validate", "oci:theirs"]);
    assert_eq!(bench.ok(&["cat", "oci:theirs", "/d/text"]).len(), text.len() - 1);
}

/// Returns a tree without the times of directories and symlinks: directories without an entry have the time of unpacking, and
/// containers/storage gives it to symlinks.
fn without_some_times(tree: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let cut = |(name, line): (String, String)| {
        let mode: u64 = line[1..].split(',').next().unwrap().parse().unwrap();
        let (seen, rest) = line.split_once(']').unwrap();
        let content = rest.trim_start().split_once(' ').map_or("", |(_, content)| content);
        let line = match mode & 0o170_000 {
            0o040_000 => seen.to_owned(),
            0o120_000 => format!("{seen} {content}"),
            _ => line.clone(),
        };
        (name, line)
    };
    tree.into_iter().map(cut).collect()
}

#[test]
fn zstd_chunked_layers_are_pulled_in_parts_by_containers_storage() {
    let Some(peers) = Peers::find(&["storage-pull"]) else { return };
    let bench = bench();
    let registry = ocikit_tests::Registry::start();
    let from = layout(&bench, Compression::Gzip);
    if fs::metadata(bench.path("layout")).unwrap().uid() != 0 {
        eprintln!("skipped: containers/storage needs root");
        return;
    }
    let to = format!("{}/app:1", registry.name());
    bench.ok(&["convert", "--to", "zstd-chunked", &from, "-o", &to]);
    let store = bench.path("store");
    let output = peers.ok(&format!("storage-pull {to} {}", store.display()));
    let pulled: Vec<Value> = output.lines().map(json).collect();
    assert_eq!(pulled.len(), 2, "{output}");
    // Without a digest the layer was pulled as a whole: it is a fallback.
    assert!(pulled.iter().all(|layer| !layer["tocDigest"].as_str().unwrap().is_empty()), "{output}");
    let lower = pulled.iter().find(|layer| layer["parent"] == "").unwrap();
    let mut found = without_some_times(tree(Path::new(lower["path"].as_str().unwrap())));
    let plain = bench.path("plain");
    fs::create_dir(&plain).unwrap();
    let tar = bench.path("layer.tar");
    fs::write(&tar, hard_layer()).unwrap();
    // The reader leaves out devices and pipes, and shows whiteouts in the form of overlay.
    let left_out = ["null", "disk", "fifo", "bin/.wh.gone", "var/.wh..wh..opq"];
    let excluded: String = left_out.iter().map(|name| format!("--exclude={name} ")).collect();
    peers.ok(&format!("tar -C {} --numeric-owner --same-owner {excluded} -xpf {}", plain.display(), tar.display()));
    let mut expected = without_some_times(tree(&plain));
    for left_out in ["bin/gone", ""] {
        found.remove(left_out);
        expected.remove(left_out);
    }
    assert_eq!(found, expected);
}

#[test]
fn ordinary_programs_read_lazy_images() {
    let Some(peers) = Peers::find(&["umoci", "skopeo"]) else { return };
    let bench = bench();
    let from = layout(&bench, Compression::Gzip);
    peers.ok(&format!("umoci unpack --image {} {}", &from[4..], bench.path("plain").display()));
    let expected = without_some_times(tree(&bench.path("plain").join("rootfs")));
    for format in ["estargz", "zstd-chunked"] {
        let to = format!("oci:{}:1", bench.path(format).display());
        bench.ok(&["convert", "--to", format, &from, "-o", &to]);
        let unpacked = bench.path(&format!("unpacked-{format}"));
        peers.ok(&format!("umoci unpack --image {} {}", &to[4..], unpacked.display()));
        let mut found = without_some_times(tree(&unpacked.join("rootfs")));
        if format == "estargz" {
            for own in ["stargz.index.json", ".no.prefetch.landmark"] {
                assert!(found.remove(own).is_some(), "{own}");
            }
        }
        assert_eq!(found, expected, "{format}");
        peers.ok(&format!("skopeo copy {to} oci-archive:{}", bench.path(&format!("{format}.tar")).display()));
    }
}

/// Writes a layout with an image of layers, which are media types, bytes and annotations. Returns its location.
pub(super) fn layout_of(directory: &Path, layers: &[(&str, Vec<u8>, Value)]) -> String {
    fs::create_dir_all(directory.join("blobs/sha256")).unwrap();
    let put = |media_type: &str, bytes: &[u8]| {
        let digest = Digest::sha256_of(bytes);
        fs::write(directory.join(digest.blob_path()), bytes).unwrap();
        serde_json::json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    };
    let diff_id = |(media_type, bytes, _): &(&str, Vec<u8>, Value)| {
        let mut tar = Vec::new();
        match media_type.contains("nydus.blob") {
            true => tar.clone_from(bytes),
            false => drop(Decoder::new(&bytes[..]).unwrap().read_to_end(&mut tar).unwrap()),
        }
        Digest::sha256_of(&tar)
    };
    let diff_ids: Vec<_> = layers.iter().map(diff_id).collect();
    let rootfs = serde_json::json!({"type": "layers", "diff_ids": diff_ids});
    let config =
        serde_json::json!({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}).to_string();
    let config = put("application/vnd.oci.image.config.v1+json", config.as_bytes());
    let layers: Vec<_> = layers
        .iter()
        .map(|(media_type, bytes, annotations)| {
            let mut layer = put(media_type, bytes);
            layer["annotations"] = annotations.clone();
            layer
        })
        .collect();
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers})
        .to_string();
    let mut entry = put(media_type, manifest.as_bytes());
    entry["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": "1"});
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [entry]}).to_string();
    fs::write(directory.join("index.json"), index).unwrap();
    fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    format!("oci:{}:1", directory.display())
}

/// Returns the tar of the only layer of an image.
fn only_tar(bench: &Bench, image: &str) -> Vec<u8> {
    let [(_, layer)] = &layers(bench, image)[..] else { panic!("one layer") };
    let mut tar = Vec::new();
    Decoder::new(&fs::read(layer).unwrap()[..]).unwrap().read_to_end(&mut tar).unwrap();
    tar
}

/// An image of another program is valid, already in its format, and has the files of the source.
fn check_foreign(bench: &Bench, image: &str, format: &str, source: &[u8]) {
    bench.ok(&["validate", image]);
    let [again, plain] =
        ["again", "plain"].map(|name| format!("oci:{}:1", bench.path(&format!("{name}-{format}")).display()));
    bench.ok(&["convert", "--to", format, image, "-o", &again]);
    assert_eq!(bench.ok(&["digest", &again]), bench.ok(&["digest", image]), "{format}");
    bench.ok(&["convert", "--to", "plain", image, "-o", &plain]);
    let mut found = listed(&only_tar(bench, &plain));
    for own in ["stargz.index.json", ".no.prefetch.landmark"] {
        found.remove(own);
    }
    assert_eq!(found, listed(source), "{format}");
    assert_eq!(bench.ok(&["cat", image, "/deep/er/file"]), "x");
}

#[test]
fn layers_of_the_estargz_library_are_read() {
    let Some(peers) = Peers::find(&["estargz-build", "estargz-verify"]) else { return };
    let bench = bench();
    let (source, blob) = (bench.path("tar"), bench.path("blob"));
    fs::write(&source, hard_layer()).unwrap();
    peers.ok(&format!("estargz-build {} {} 6", source.display(), blob.display()));
    let bytes = fs::read(&blob).unwrap();
    let footer = &bytes[bytes.len() - 51..];
    let at = ocikit_lazy::Position::of_estargz(footer, bytes.len() as u64).unwrap();
    let table = &bytes[at.offset as usize..][..at.length as usize];
    let (_, digest) = ocikit_lazy::Table::of_estargz(table).unwrap();
    peers.ok(&format!("estargz-verify {} {digest}", blob.display()));
    let annotations = serde_json::json!({ESTARGZ_DIGEST: digest});
    let layer = ("application/vnd.oci.image.layer.v1.tar+gzip", bytes, annotations);
    let image = layout_of(&bench.path("theirs"), &[layer]);
    check_foreign(&bench, &image, "estargz", &hard_layer());
}

#[test]
fn layers_of_containers_storage_are_read() {
    let Some(peers) = Peers::find(&["chunked-build"]) else { return };
    let bench = bench();
    let (source, blob) = (bench.path("tar"), bench.path("blob"));
    fs::write(&source, hard_layer()).unwrap();
    peers.ok(&format!("chunked-build {} {} 3", source.display(), blob.display()));
    let bytes = fs::read(&blob).unwrap();
    let footer = &bytes[bytes.len() - 64..];
    let (table, split) = ocikit_lazy::Position::of_zstd_chunked_footer(footer, bytes.len() as u64).unwrap();
    let numbers = |at: &ocikit_lazy::Position| format!("{}:{}:{}", at.offset, at.length, at.uncompressed.unwrap());
    let checksum = Digest::sha256_of(&bytes[table.offset as usize..][..table.length as usize]);
    let annotations = serde_json::json!({
        ocikit_lazy::chunked::MANIFEST_CHECKSUM: checksum,
        ocikit_lazy::chunked::MANIFEST_POSITION: format!("{}:1", numbers(&table)),
        ocikit_lazy::chunked::TAR_SPLIT_POSITION: numbers(&split),
    });
    let layer = ("application/vnd.oci.image.layer.v1.tar+zstd", bytes, annotations);
    let image = layout_of(&bench.path("theirs"), &[layer]);
    check_foreign(&bench, &image, "zstd-chunked", &hard_layer());
    assert_eq!(only_tar(&bench, &format!("oci:{}:1", bench.path("plain-zstd-chunked").display())), hard_layer());
}

#[test]
fn images_of_soci_are_read() {
    let Some(peers) = Peers::find(&["soci"]) else { return };
    let bench = bench();
    let large =
        Tar::new().file("noise", &ocikit_image::testing::random(9, 14 << 20)).file("etc/passwd", b"root").finish();
    write_image(&bench.path("source"), Compression::Gzip, std::slice::from_ref(&large));
    let [from, to] = ["source", "theirs"].map(|name| bench.path(name).display().to_string());
    peers.ok(&format!("soci convert --standalone --platform linux/amd64 --format oci-dir {from} {to}"));
    let entries = json(&bench.read("theirs/index.json"));
    let image = format!("oci:{to}@{}", entries["manifests"][0]["digest"].as_str().unwrap());
    bench.ok(&["validate", &image]);
    bench.ok(&["convert", "--to", "soci", &image, "-o", "oci:again:1"]);
    assert_eq!(bench.ok(&["digest", "oci:again:1"]), bench.ok(&["digest", &image]));
    bench.ok(&["convert", "--to", "plain", &image, "-o", "oci:plain:1"]);
    assert_eq!(bench.ok(&["cat", "oci:plain:1", "/etc/passwd"]), "root");
    assert!(!bench.ok(&["manifest", "get", "oci:plain:1"]).contains("soci"));
}

#[test]
fn crane_validates_estargz_images() {
    let Some(peers) = Peers::find(&["crane"]) else { return };
    let bench = bench();
    let registry = ocikit_tests::Registry::start();
    let to = format!("{}/app:1", registry.name());
    bench.ok(&["convert", "--to", "estargz", &layout(&bench, Compression::Gzip), "-o", &to]);
    peers.ok(&format!("crane validate --insecure --remote {to}"));
}
