//! Archives by somebody who means harm, or by a program that has lost its mind.

mod image;
mod tar;

use ocikit_archive::Compression;
use ocikit_spec::{Descriptor, Digest, Index, MediaType, Platform};
use serde_json::json;

use image::{LAYOUT, Parts, compressed, compressed_zeros, manifest};
use tar::{Raw, RawTar, binary, octal};

/// One of them.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Its name; a small one lies in `testdata/hostile/` as this and `.tar`.
    pub name: &'static str,
    /// What is the matter with it.
    pub says: &'static str,
    /// What `inspect`, `copy` and `validate` end with.
    pub codes: [i32; 3],
    /// Whether it is too large to be kept, and is made when it is needed.
    pub large: bool,
    make: fn() -> Vec<u8>,
}

impl Case {
    /// The archive, always the same.
    pub fn bytes(&self) -> Vec<u8> {
        (self.make)()
    }
}

/// What is said about them in their folder.
pub fn readme() -> String {
    let mut text = README.to_owned();
    for Case { name, says, codes: [inspect, copy, validate], large, .. } in CASES {
        let kept = if *large { "made by the test" } else { "kept" };
        text += &format!("| `{name}` | {says} | {inspect} | {copy} | {validate} | {kept} |\n");
    }
    text
}

const README: &str = "# Hostile archives

By somebody who means harm, or by a program that has lost its mind. `tests/it/hostile.rs` runs the program over each of them
and looks at the exit code, at what was written where, and at the memory that it took: 100 MiB at most, 200 MiB where layers
fill the budget for trees of files. None is told to a terminal as it is, and none leaves half a result.

They are made by `tests/src/hostile/`, as is this page; large ones are made when they are needed:

```sh
cargo run -p ocikit-tests --bin ocikit-hostile testdata/hostile
OCIKIT_HOSTILE_COSTS=1 cargo test --release -p ocikit-tests --test it hostile -- --nocapture   # what each takes
```

The numbers are exit codes: 0 done, 1 refused, 2 several images and no choice, 3 broken or missing, 5 not what it claims to be.

| archive | what is the matter with it | `inspect` | `copy` | `validate` | file |
|---|---|---|---|---|---|
";

/// All of them.
pub const CASES: &[Case] = &[
    small("name-leads-up", "entries `../../escaped` and `a/../../escaped` beside an image", [0, 0, 0], name_leads_up),
    small("name-absolute", "an entry `/tmp/ocikit-hostile` beside an image", [0, 0, 0], name_absolute),
    small("name-not-utf8", "names that are not UTF-8 or have a line break", [0, 0, 0], name_not_utf8),
    small("name-long", "a name of 64 KiB in an extended header", [3, 3, 3], name_long),
    small("link-to-etc", "the layer is a symbolic link to `/etc/passwd`", [0, 3, 5], link_to_etc),
    small("link-up", "`index.json` is a link to `../../../../etc/passwd`", [3, 3, 3], link_up),
    small("link-hard", "the layer is a hard link to `/etc/passwd`", [0, 3, 5], link_hard),
    small("link-circle", "`index.json` links to `a`, `a` to `b`, `b` to `a`", [3, 3, 3], link_circle),
    small("link-chain", "`index.json` is at the end of twenty links", [3, 3, 3], link_chain),
    small("link-blobs", "`blobs/sha256` is a symbolic link to `/etc`, with the blobs below it", [0, 0, 0], link_blobs),
    small("link-blobs-away", "`blobs` is a symbolic link to the directory with the blobs", [3, 3, 5], link_blobs_away),
    small("devices", "the layer is a device, the config a pipe", [3, 3, 5], devices),
    small("twice-index", "two `index.json`, of which the last counts", [0, 0, 0], twice_index),
    small("twice-blob", "a damaged layer that a right one replaces", [0, 0, 0], twice_blob),
    small("twice-blob-damaged", "a right layer that a damaged one replaces", [0, 5, 5], twice_blob_damaged),
    small("size-negative", "an entry with a size below zero", [3, 3, 3], size_negative),
    small("size-huge", "an entry of 2^62 bytes", [3, 3, 3], size_huge),
    small("size-octal-huge", "an entry of 8 GiB that is not there", [3, 3, 3], size_octal_huge),
    small("size-not-a-number", "letters where the size should be", [3, 3, 3], size_not_a_number),
    small("size-too-long", "an entry that says to be longer than it is", [3, 3, 3], size_too_long),
    small("size-too-short", "an entry that says to be shorter than it is", [3, 3, 3], size_too_short),
    small("size-twice", "an extended header that gives another size", [3, 3, 3], size_twice),
    small("extended-endless", "an extended header that claims 4 GiB", [3, 3, 3], extended_endless),
    small("extended-alone", "an extended header with nothing behind it", [3, 3, 3], extended_alone),
    small("extended-global", "a global header that renames every entry", [3, 3, 3], extended_global),
    small("sparse", "the layer is a sparse file of 1 TiB", [3, 3, 3], sparse),
    small("zero-block", "a single zero block between entries", [3, 3, 3], zero_block),
    small("empty", "nothing at all", [3, 3, 3], Vec::new),
    small("zeros", "an archive without entries", [3, 3, 3], || vec![0; 1024]),
    small("noise", "bytes that are no tar", [3, 3, 3], noise),
    small("descriptor-size-max", "a layer of 2^64 - 1 bytes, by its descriptor", [0, 5, 5], descriptor_size_max),
    small("descriptor-size-zero", "a layer of no bytes, by its descriptor", [0, 5, 5], descriptor_size_zero),
    small("descriptor-size-negative", "a layer of -1 bytes, by its descriptor", [3, 3, 5], descriptor_size_negative),
    small("descriptor-size-real", "a layer of 1e300 bytes, by its descriptor", [3, 3, 5], descriptor_size_real),
    small("digest-up", "a digest `sha256:../../../../etc/passwd`", [3, 3, 5], digest_up),
    small("digest-other", "a digest of an algorithm that nobody knows", [3, 3, 5], digest_other),
    small("json-deep", "20,000 brackets in the manifest", [0, 0, 0], json_deep),
    small("json-deep-known", "20,000 brackets where the layers should be", [3, 3, 5], json_deep_known),
    small("json-twice", "a manifest with two lists of layers", [3, 3, 5], json_twice),
    small("json-case", "a manifest with `layers` and `Layers`", [3, 3, 5], json_case),
    small(
        "json-fold",
        "an index whose entry has `digest` and `dige\\u017ft`, the same key for Go",
        [3, 3, 5],
        json_fold,
    ),
    small("json-both", "a document that is a manifest and an index", [3, 3, 5], json_both),
    small("json-not-utf8", "a manifest that is not UTF-8", [3, 3, 5], json_not_utf8),
    small("json-nul", "a manifest with a NUL behind it", [3, 3, 5], json_nul),
    small("json-half", "a manifest that ends in the middle", [3, 3, 5], json_half),
    small("index-not-utf8", "an `index.json` that is not UTF-8", [3, 3, 3], index_not_utf8),
    small("index-array", "an `index.json` that is a list", [3, 3, 3], index_array),
    small("index-escapes", "names with control characters and escapes for a terminal", [0, 0, 0], index_escapes),
    small(
        "text-deceptive",
        "line breaks, escapes, overrides and invisible characters in every text",
        [0, 0, 0],
        text_deceptive,
    ),
    small("platform-deceptive", "the same in the platform of an entry of an index", [0, 0, 5], platform_deceptive),
    small("diff-id-lies", "a config that names another layer than the manifest has", [0, 0, 5], diff_id_lies),
    small("diff-ids-shared", "two images with different layers and the same `diff_ids`", [0, 2, 5], diff_ids_shared),
    small("circle", "two indexes that list each other, which right digests cannot", [5, 5, 5], circle),
    small("fan", "indexes fifteen deep, each with the one below it forty times", [0, 0, 0], fan),
    small("config-diff-ids", "a config with more layers than the manifest", [0, 0, 5], config_diff_ids),
    small("config-deep", "20,000 brackets in the config", [3, 0, 5], config_deep),
    small("docker-up", "a docker archive whose layer is `../../../../etc/passwd`", [3, 3, 3], docker_up),
    small("docker-many", "a docker archive whose list names one image 1,000 times", [0, 0, 0], docker_many),
    small("docker-deep", "a docker archive with 20,000 brackets for a list", [3, 3, 3], docker_deep),
    small("zstd-window", "a zstd layer that wants a window of 2 GiB", [0, 0, 5], zstd_window),
    small("xz-dictionary", "an xz layer that wants a dictionary of 4 GiB", [0, 0, 5], xz_dictionary),
    small("docker-xz-dictionary", "a docker archive with such a layer", [3, 3, 3], docker_xz_dictionary),
    large("docker-tags", "a docker archive that gives an image 700,000 names", [3, 3, 3], docker_tags),
    large("gzip-bomb", "a gzip layer of 256 KiB that inflates to 256 MiB", [0, 0, 5], gzip_bomb),
    large("zstd-bomb", "a zstd layer of 8 KiB that inflates to 256 MiB", [0, 0, 5], zstd_bomb),
    large("layer-long-paths", "a layer of 40,000 entries with paths of 4 KB", [0, 0, 5], layer_long_paths),
    large(
        "layer-deep-paths",
        "a layer of 3,000 entries, each in directories of its own, 500 deep",
        [0, 0, 0],
        layer_deep_paths,
    ),
    large("layer-links", "a layer whose entries lead through forty links to deep directories", [0, 0, 0], layer_links),
    large("nested", "indexes a thousand deep", [0, 3, 5], nested),
    large("index-100k", "an `index.json` of 100,000 entries", [3, 3, 3], index_100k),
    large("index-100k-below", "an index of 100,000 entries", [1, 1, 5], index_100k_below),
    large("roots", "an `index.json` of 50,000 entries, all missing, just short of the limit", [2, 2, 5], roots),
    large("index-long", "an index of 25,000 entries, all missing, just short of the limit", [0, 3, 5], index_long),
    large("index-short-entries", "36,000 entries as short as they can be, in an index", [3, 3, 5], index_short_entries),
    large("manifest-layers", "a manifest with the same layer 24,000 times", [0, 0, 5], manifest_layers),
    large("manifest-100m", "a manifest of 100 MiB", [1, 1, 5], manifest_100m),
    large("manifest-4m", "a manifest of 4 MiB, of spaces", [0, 0, 0], manifest_4m),
    large("annotations", "a manifest with 260,000 annotations", [3, 3, 5], annotations),
    large("config-100m", "a config of 100 MiB", [1, 0, 5], config_100m),
    large("config-history", "a config with a million steps of history", [3, 0, 5], config_history),
    large("index-100m", "an `index.json` of 100 MiB", [3, 3, 3], index_100m),
    large("index-deep", "an `index.json` with 8,000,000 brackets", [0, 0, 0], index_deep),
    large("entries-100k", "an archive of 100,000 empty entries", [0, 0, 0], entries_100k),
];

const fn small(name: &'static str, says: &'static str, codes: [i32; 3], make: fn() -> Vec<u8>) -> Case {
    Case { name, says, codes, large: false, make }
}

const fn large(name: &'static str, says: &'static str, codes: [i32; 3], make: fn() -> Vec<u8>) -> Case {
    Case { large: true, ..small(name, says, codes, make) }
}

/// An archive whose every header and every block is there once: what the others are variations of.
pub fn whole_archive() -> Vec<u8> {
    Parts::image().tar()
}

/// The image, with something in front of it.
fn beside(add: impl FnOnce(&mut RawTar)) -> Vec<u8> {
    let mut tar = RawTar::default();
    add(&mut tar);
    [tar.open(), Parts::image().tar()].concat()
}

fn name_leads_up() -> Vec<u8> {
    beside(|tar| {
        tar.file("../../escaped", b"x").file("a/../../escaped", b"x").file("blobs/../../escaped", b"x");
    })
}

fn name_absolute() -> Vec<u8> {
    beside(|tar| _ = tar.file("/tmp/ocikit-hostile", b"x"))
}

fn name_not_utf8() -> Vec<u8> {
    beside(|tar| {
        tar.entry(Raw { name: b"\xff\xfe", ..Raw::file("") }, b"x");
        tar.file("line\nbreak", b"x").file("\x1b[31mred", b"x");
    })
}

fn extended(tar: &mut RawTar, kind: u8, records: &[(&str, &str)]) {
    let mut text = String::new();
    for (key, value) in records {
        let rest = format!(" {key}={value}\n");
        let digits = |length: usize| (rest.len() + length.to_string().len()).to_string().len() + rest.len();
        let length = digits(rest.len() + digits(rest.len()).to_string().len());
        text += &format!("{length}{rest}");
    }
    tar.entry(Raw { kind, ..Raw::file("PaxHeaders/x") }, text.as_bytes());
}

fn name_long() -> Vec<u8> {
    beside(|tar| {
        extended(tar, b'x', &[("path", &"d/".repeat(32 << 10))]);
        tar.file("short", b"x");
    })
}

/// The image with its layer replaced by an entry without bytes.
fn with_layer(kind: u8, link: &str) -> Vec<u8> {
    let mut parts = Parts::image();
    let (layer, _) = parts.blobs.remove(0);
    let mut tar = parts.entries();
    tar.entry(Raw::link(&layer.digest.blob_path(), kind, link), b"");
    tar.end()
}

fn link_to_etc() -> Vec<u8> {
    with_layer(b'2', "/etc/passwd")
}

fn link_hard() -> Vec<u8> {
    with_layer(b'1', "/etc/passwd")
}

fn link_up() -> Vec<u8> {
    let mut tar = Parts::image().blob_entries();
    tar.entry(Raw::link("index.json", b'2', "../../../../etc/passwd"), b"").file("oci-layout", LAYOUT);
    tar.end()
}

fn link_circle() -> Vec<u8> {
    let mut tar = Parts::image().blob_entries();
    for (name, link) in [("index.json", "a"), ("a", "b"), ("b", "a")] {
        tar.entry(Raw::link(name, b'2', link), b"");
    }
    tar.file("oci-layout", LAYOUT).end()
}

fn link_chain() -> Vec<u8> {
    let parts = Parts::image();
    let mut tar = parts.blob_entries();
    tar.entry(Raw::link("index.json", b'2', "0"), b"");
    for number in 0..20 {
        tar.entry(Raw::link(&number.to_string(), b'2', &(number + 1).to_string()), b"");
    }
    tar.file("20", Index::of(&parts.roots).bytes()).file("oci-layout", LAYOUT).end()
}

fn link_blobs() -> Vec<u8> {
    let parts = Parts::image();
    let mut tar = RawTar::default();
    tar.entry(Raw::link("blobs/sha256", b'2', "/etc"), b"");
    for (blob, bytes) in &parts.blobs {
        tar.file(&blob.digest.blob_path(), bytes);
    }
    tar.file("index.json", Index::of(&parts.roots).bytes()).file("oci-layout", LAYOUT).end()
}

fn link_blobs_away() -> Vec<u8> {
    let parts = Parts::image();
    let mut tar = RawTar::default();
    tar.entry(Raw::link("blobs", b'2', "../elsewhere"), b"");
    for (blob, bytes) in &parts.blobs {
        tar.file(&blob.digest.blob_path().replace("blobs/", "elsewhere/"), bytes);
    }
    tar.file("index.json", Index::of(&parts.roots).bytes()).file("oci-layout", LAYOUT).end()
}

fn devices() -> Vec<u8> {
    let mut parts = Parts::image();
    let removed: Vec<_> = parts.blobs.drain(..2).collect();
    let mut tar = parts.entries();
    for ((blob, _), kind) in removed.iter().zip([b'3', b'6']) {
        tar.entry(Raw { kind, ..Raw::file(&blob.digest.blob_path()) }, b"");
    }
    tar.end()
}

fn twice_index() -> Vec<u8> {
    let gone = Descriptor::of(MediaType::OCI_MANIFEST, b"gone");
    beside(|tar| _ = tar.file("index.json", Index::of(&[gone]).bytes()))
}

fn twice_blob() -> Vec<u8> {
    let layer = Parts::image().layer().digest.blob_path();
    beside(|tar| _ = tar.file(&layer, b"damaged"))
}

fn twice_blob_damaged() -> Vec<u8> {
    let parts = Parts::image();
    let mut tar = parts.entries();
    let (layer, bytes) = &parts.blobs[0];
    let mut bytes = bytes.clone();
    bytes[20] ^= 1;
    tar.file(&layer.digest.blob_path(), &bytes).end()
}

fn with_size(size: [u8; 12]) -> Vec<u8> {
    beside(|tar| _ = tar.entry(Raw { size: Some(size), ..Raw::file("liar") }, b"x"))
}

fn size_negative() -> Vec<u8> {
    with_size(binary(-1))
}

fn size_huge() -> Vec<u8> {
    with_size(binary(1 << 62))
}

fn size_octal_huge() -> Vec<u8> {
    with_size(octal((1 << 33) - 1))
}

fn size_not_a_number() -> Vec<u8> {
    with_size(*b"quitealittle")
}

fn size_too_long() -> Vec<u8> {
    with_size(octal(700))
}

fn size_too_short() -> Vec<u8> {
    let content = [b'x'; 2000];
    beside(|tar| _ = tar.entry(Raw { size: Some(octal(100)), ..Raw::file("liar") }, &content))
}

fn size_twice() -> Vec<u8> {
    beside(|tar| {
        extended(tar, b'x', &[("size", "100000")]);
        tar.file("liar", b"x");
    })
}

fn extended_endless() -> Vec<u8> {
    beside(|tar| tar.header(Raw { kind: b'x', size: Some(octal(4 << 30)), ..Raw::file("PaxHeaders/x") }, 0))
}

fn extended_alone() -> Vec<u8> {
    let mut tar = Parts::image().entries();
    extended(&mut tar, b'x', &[("path", "gone")]);
    tar.end()
}

fn extended_global() -> Vec<u8> {
    beside(|tar| extended(tar, b'g', &[("path", "index.json")]))
}

fn sparse() -> Vec<u8> {
    let mut parts = Parts::image();
    let (layer, bytes) = parts.blobs.remove(0);
    let mut tar = parts.entries();
    tar.entry(Raw { kind: b'S', ..Raw::file(&layer.digest.blob_path()) }, &bytes).end()
}

fn zero_block() -> Vec<u8> {
    beside(|tar| {
        tar.file("first", b"x").bytes(&[0; 512]);
    })
}

fn noise() -> Vec<u8> {
    (0..4096_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// The image with a manifest whose text was changed, and the right digest for that.
fn with_manifest(change: impl FnOnce(String) -> Vec<u8>) -> Vec<u8> {
    let mut parts = Parts::image();
    let (_, old) = parts.blobs.pop().expect("a manifest");
    let text = change(String::from_utf8(old).expect("JSON"));
    parts.roots = vec![parts.put(MediaType::OCI_MANIFEST, text)];
    parts.tar()
}

fn with_layer_size(size: &str) -> Vec<u8> {
    let real = format!("\"size\":{}", Parts::image().layer().size);
    with_manifest(|text| text.replace(&real, &format!("\"size\":{size}")).into_bytes())
}

fn descriptor_size_max() -> Vec<u8> {
    with_layer_size("18446744073709551615")
}

fn descriptor_size_zero() -> Vec<u8> {
    with_layer_size("0")
}

fn descriptor_size_negative() -> Vec<u8> {
    with_layer_size("-1")
}

fn descriptor_size_real() -> Vec<u8> {
    with_layer_size("1e300")
}

fn with_layer_digest(digest: &str) -> Vec<u8> {
    let real = Parts::image().layer().digest.to_string();
    with_manifest(|text| text.replace(&real, digest).into_bytes())
}

fn digest_up() -> Vec<u8> {
    with_layer_digest("sha256:../../../../etc/passwd")
}

fn digest_other() -> Vec<u8> {
    with_layer_digest("md5:d41d8cd98f00b204e9800998ecf8427e")
}

fn deep(depth: usize) -> String {
    "[".repeat(depth) + &"]".repeat(depth)
}

fn json_deep() -> Vec<u8> {
    with_manifest(|text| format!("{},\"x\":{}}}", &text[..text.len() - 1], deep(20_000)).into_bytes())
}

fn json_deep_known() -> Vec<u8> {
    with_manifest(|text| {
        let (before, _) = text.split_once("\"layers\":").expect("layers");
        format!("{before}\"layers\":{}}}", deep(20_000)).into_bytes()
    })
}

fn json_twice() -> Vec<u8> {
    with_manifest(|text| format!("{},\"layers\":[]}}", &text[..text.len() - 1]).into_bytes())
}

fn json_case() -> Vec<u8> {
    with_manifest(|text| format!("{},\"Layers\":[]}}", &text[..text.len() - 1]).into_bytes())
}

fn json_fold() -> Vec<u8> {
    let mut parts = Parts::image();
    let mut entry = json!(parts.roots.remove(0));
    entry["dige\u{17f}t"] = json!(parts.layer().digest);
    let index = json!({"schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": [entry]});
    let root = parts.put(MediaType::OCI_INDEX, index.to_string());
    parts.roots.push(root);
    parts.tar()
}

fn json_both() -> Vec<u8> {
    with_manifest(|text| format!("{},\"manifests\":[]}}", &text[..text.len() - 1]).into_bytes())
}

fn json_not_utf8() -> Vec<u8> {
    with_manifest(|text| [&text.as_bytes()[..text.len() - 1], b",\"x\":\"\xff\"}"].concat())
}

fn json_nul() -> Vec<u8> {
    with_manifest(|text| [text.as_bytes(), b"\0"].concat())
}

fn json_half() -> Vec<u8> {
    with_manifest(|text| text.as_bytes()[..text.len() / 2].to_vec())
}

fn index_not_utf8() -> Vec<u8> {
    Parts::image().entries_with(b"{\"schemaVersion\":2,\"manifests\":[],\"x\":\"\xff\"}").end()
}

fn index_array() -> Vec<u8> {
    Parts::image().entries_with(b"[]").end()
}

fn index_escapes() -> Vec<u8> {
    let mut parts = Parts::image();
    parts.roots[0].annotations.insert("org.opencontainers.image.ref.name", "\u{1b}]0;owned\u{7}\u{1b}[2J\r\n\0");
    parts.roots[0].annotations.insert("\u{202e}gpj", "\u{1b}[31m");
    parts.tar()
}

/// Whatever ends a line, moves the cursor, turns text around or cannot be seen.
pub const DECEPTIVE: &str =
    "x\nFORGED: line\r\u{1b}[2J\t\u{7f}\u{85}\u{9b}31m\u{202e}\u{2066}\u{200b}\u{200f}\u{61c}\u{feff}\u{2028}\u{2029}";

/// An image in which every text is deceptive that can be.
fn deceptive_image() -> Parts {
    let mut parts = Parts::new();
    let mut tar = RawTar::default();
    extended(&mut tar, b'x', &[("path", &format!("etc/{DECEPTIVE}")), ("uname", DECEPTIVE)]);
    tar.file("short", b"hello\n");
    extended(&mut tar, b'x', &[("path", "etc/link"), ("linkpath", DECEPTIVE)]);
    tar.entry(Raw::link("short", b'2', "x"), b"");
    let (mut layer, diff_id) = parts.gzip(&tar.end());
    layer.annotations.insert(DECEPTIVE, DECEPTIVE);
    let config = json!({
        "architecture": "amd64", "os": "linux", "created": DECEPTIVE, "author": DECEPTIVE,
        "config": {
            "Env": [DECEPTIVE], "Cmd": [DECEPTIVE], "Entrypoint": [DECEPTIVE], "User": DECEPTIVE, "WorkingDir": DECEPTIVE,
            "Labels": {DECEPTIVE: DECEPTIVE}, "Volumes": {DECEPTIVE: {}}, "ExposedPorts": {DECEPTIVE: {}},
        },
        "history": [{"created_by": DECEPTIVE, "comment": DECEPTIVE}],
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    });
    let config = parts.put(MediaType::OCI_CONFIG, config.to_string());
    let mut manifest = manifest(&config, std::slice::from_ref(&layer));
    manifest["annotations"] = json!({DECEPTIVE: DECEPTIVE, "in-toto.io/predicate-type": DECEPTIVE});
    let root = parts.put(MediaType::OCI_MANIFEST, manifest.to_string());
    parts.roots.push(root);
    parts
}

fn text_deceptive() -> Vec<u8> {
    let mut parts = deceptive_image();
    parts.roots[0].annotations.insert("org.opencontainers.image.ref.name", DECEPTIVE);
    parts.roots[0].annotations.insert(DECEPTIVE, DECEPTIVE);
    parts.tar()
}

fn platform_deceptive() -> Vec<u8> {
    let mut parts = deceptive_image();
    let text = |part: &str| format!("{part}{DECEPTIVE}");
    let platform = Platform {
        variant: Some(text("v")),
        os_version: Some(text("1")),
        ..Platform::new(text("linux"), text("amd64"))
    };
    let mut entry = parts.roots.remove(0);
    entry.platform = Some(platform);
    entry.annotations.insert(DECEPTIVE, DECEPTIVE);
    let mut index: serde_json::Value = serde_json::from_slice(Index::of(&[entry]).bytes()).expect("an index");
    index["annotations"] = json!({DECEPTIVE: DECEPTIVE});
    parts.roots = vec![parts.put(MediaType::OCI_INDEX, index.to_string())];
    parts.tar()
}

/// The image, with a config that claims the layer of [`Parts::image`] and a layer that is another.
fn diff_id_lies() -> Vec<u8> {
    let honest = Digest::sha256_of(&RawTar::default().file("etc/motd", b"hello\n").end());
    let mut parts = Parts::new();
    let (layer, _) = parts.gzip(&RawTar::default().file("etc/motd", b"owned\n").end());
    parts.finish(vec![(layer, honest)]);
    parts.tar()
}

/// An image whose only layer has these entries.
fn with_entries(add: impl FnOnce(&mut RawTar)) -> Vec<u8> {
    let (mut parts, mut tar) = (Parts::new(), RawTar::default());
    add(&mut tar);
    let layer = parts.gzip(&tar.end());
    parts.finish(vec![layer]);
    parts.tar()
}

/// About 4.4 KB for each entry in a tree: more than may be held, in a layer of less than 1 MB.
fn layer_long_paths() -> Vec<u8> {
    let directory = "d/".repeat(2000);
    with_entries(|tar| {
        for number in 0..40_000 {
            extended(tar, b'x', &[("path", &format!("{directory}{number:05}"))]);
            tar.file("short", b"");
        }
    })
}

fn layer_deep_paths() -> Vec<u8> {
    let directory = "d/".repeat(500);
    with_entries(|tar| {
        for number in 0..3_000 {
            extended(tar, b'x', &[("path", &format!("{number:04}/{directory}f"))]);
            tar.file("short", b"");
        }
    })
}

fn layer_links() -> Vec<u8> {
    let directory = "d/".repeat(900);
    with_entries(|tar| {
        for number in 0..30 {
            let target = format!("{directory}{}", number + 1);
            extended(tar, b'x', &[("path", &format!("{directory}{number}")), ("linkpath", &format!("/{target}"))]);
            tar.entry(Raw::link("short", b'2', "x"), b"");
        }
        for number in 0..20_000 {
            extended(tar, b'x', &[("path", &format!("{directory}0/{}/f", number % 2))]);
            tar.file("short", b"");
        }
    })
}

fn circle() -> Vec<u8> {
    let mut parts = Parts::new();
    let [one, other] = [b"one", b"two"].map(|text| Descriptor::of(MediaType::OCI_INDEX, text));
    let [mut lists_other, mut lists_one] =
        [Index::of(std::slice::from_ref(&other)), Index::of(std::slice::from_ref(&one))];
    // Sizes that are right, so that nothing but the digest is wrong.
    for _ in 0..2 {
        let sized = |descriptor: &Descriptor, index: &Index| Descriptor {
            size: index.bytes().len() as u64,
            ..descriptor.clone()
        };
        let [new_other, new_one] = [Index::of(&[sized(&other, &lists_one)]), Index::of(&[sized(&one, &lists_other)])];
        [lists_other, lists_one] = [new_other, new_one];
    }
    let one = Descriptor { size: lists_other.bytes().len() as u64, ..one };
    let other = Descriptor { size: lists_one.bytes().len() as u64, ..other };
    parts.blobs.push((one.clone(), lists_other.bytes().to_vec()));
    parts.blobs.push((other, lists_one.bytes().to_vec()));
    parts.roots = vec![one];
    parts.tar()
}

fn nested_in(parts: &mut Parts, depth: usize, times: usize) {
    let mut root = parts.roots[0].clone();
    for _ in 0..depth {
        let index = Index::of(&vec![root; times]);
        root = parts.put(MediaType::OCI_INDEX, index.bytes().to_vec());
    }
    parts.roots = vec![root];
}

fn fan() -> Vec<u8> {
    let mut parts = Parts::image();
    nested_in(&mut parts, 15, 40);
    parts.tar()
}

fn nested() -> Vec<u8> {
    let mut parts = Parts::image();
    nested_in(&mut parts, 1000, 1);
    parts.tar()
}

fn with_config(config: &str) -> Vec<u8> {
    let mut parts = Parts::image();
    parts.blobs.truncate(1);
    let config = parts.put(MediaType::OCI_CONFIG, config);
    let manifest = manifest(&config, std::slice::from_ref(&parts.blobs[0].0));
    parts.roots = vec![parts.put(MediaType::OCI_MANIFEST, manifest.to_string())];
    parts.tar()
}

fn config_of_image(more: &str) -> String {
    let text = String::from_utf8(Parts::image().blobs.swap_remove(1).1).expect("JSON");
    format!("{}{more}}}", &text[..text.len() - 1])
}

fn diff_ids_shared() -> Vec<u8> {
    let mut parts = Parts::new();
    let mut roots = Vec::new();
    for (tag, text) in [("1", "one"), ("2", "two")] {
        let layer = RawTar::default().file("etc/motd", text.as_bytes()).end();
        let (layer, _) = parts.gzip(&layer);
        let mut root = parts.finish(vec![(layer, Digest::sha256_of(b"any"))]);
        root.annotations.insert("org.opencontainers.image.ref.name", tag);
        roots.push(root);
    }
    parts.roots = roots;
    parts.tar()
}

fn config_diff_ids() -> Vec<u8> {
    let digest = Digest::sha256_of(b"").to_string();
    let rootfs = json!({"type": "layers", "diff_ids": vec![digest; 100]});
    with_config(&json!({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).to_string())
}

fn config_deep() -> Vec<u8> {
    with_config(&config_of_image(&format!(",\"x\":{}", deep(20_000))))
}

fn config_100m() -> Vec<u8> {
    with_config(&config_of_image(&" ".repeat(100 << 20)))
}

fn config_history() -> Vec<u8> {
    let steps = "{},".repeat(1_000_000);
    with_config(&config_of_image(&format!(",\"history\":[{steps}{{}}]")))
}

fn docker(list: &str) -> Vec<u8> {
    let config = config_of_image("");
    let mut tar = RawTar::default();
    tar.file("config.json", config.as_bytes());
    tar.file("layer.tar", &RawTar::default().file("etc/motd", b"hello\n").end());
    tar.file("manifest.json", list.as_bytes()).end()
}

fn docker_up() -> Vec<u8> {
    docker(r#"[{"Config":"config.json","RepoTags":["a:1"],"Layers":["../../../../etc/passwd"]}]"#)
}

fn docker_many() -> Vec<u8> {
    let item = r#"{"Config":"config.json","RepoTags":["a:1"],"Layers":["layer.tar"]}"#;
    docker(&format!("[{}]", vec![item; 1000].join(",")))
}

fn docker_tags() -> Vec<u8> {
    let tags: Vec<_> = (0..700_000).map(|number| format!("\"a:{number:x}\"")).collect();
    docker(&format!(r#"[{{"Config":"config.json","RepoTags":[{}],"Layers":["layer.tar"]}}]"#, tags.join(",")))
}

fn docker_deep() -> Vec<u8> {
    docker(&deep(20_000))
}

/// The image with this for a layer, which is a lot of zeros.
fn with_zeros(media_type: MediaType, bytes: Vec<u8>, diff_id: Digest) -> Vec<u8> {
    let mut parts = Parts::new();
    let layer = parts.put(media_type, bytes);
    parts.finish(vec![(layer, diff_id)]);
    parts.tar()
}

const BOMB: u64 = 256 << 20;

fn gzip_bomb() -> Vec<u8> {
    let bytes = compressed_zeros(Compression::Gzip, BOMB);
    with_zeros(MediaType::OCI_LAYER_GZIP, bytes, Digest::sha256_of(b"whatever"))
}

fn zstd_bomb() -> Vec<u8> {
    let bytes = compressed_zeros(Compression::Zstd, BOMB);
    with_zeros(MediaType::OCI_LAYER_ZSTD, bytes, Digest::sha256_of(b"whatever"))
}

fn zstd_window() -> Vec<u8> {
    let mut bytes = compressed(Compression::Zstd, &[7; 1000]);
    // Not a single segment, so that the byte behind the descriptor is the window: 2^31 bytes.
    bytes[4] = 0;
    bytes[5] = 21 << 3;
    with_zeros(MediaType::OCI_LAYER_ZSTD, bytes, Digest::sha256_of(&[7; 1000]))
}

/// A tar of 10 KiB, by liblzma, with the size of the dictionary in its block header set to the largest there is.
#[rustfmt::skip]
const XZ_DICTIONARY: [u8; 144] = [
    0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x01, 0x69, 0x22, 0xde, 0x36, 0x02, 0x00, 0x21, 0x01, 0x28, 0x00, 0x00, 0x00,
    0xe6, 0xa0, 0x11, 0xb3, 0xe0, 0x27, 0xff, 0x00, 0x54, 0x5d, 0x00, 0x30, 0x80, 0x33, 0x50, 0x18, 0x68, 0x89, 0x82, 0xed,
    0xa7, 0x80, 0x69, 0xfa, 0xda, 0x6d, 0xf2, 0xb6, 0xa6, 0xdf, 0x1c, 0x9e, 0xfd, 0x21, 0xca, 0x25, 0x8e, 0x1a, 0xde, 0xa0,
    0x37, 0x76, 0x0a, 0x20, 0x92, 0x81, 0x73, 0xd3, 0x66, 0xf0, 0x61, 0xa4, 0x74, 0xdf, 0x02, 0xd4, 0x59, 0x4b, 0xad, 0xc3,
    0x5d, 0xa0, 0x87, 0xfc, 0xff, 0x7b, 0xd3, 0x94, 0x6f, 0xc0, 0x98, 0xf4, 0x9d, 0x9e, 0x23, 0x63, 0x81, 0xe7, 0x01, 0x79,
    0xfa, 0xbc, 0xab, 0xc6, 0x26, 0x00, 0xeb, 0x3f, 0xd6, 0x55, 0x9c, 0xca, 0x1f, 0x08, 0x00, 0x00, 0x06, 0xf6, 0xdf, 0x56,
    0x00, 0x01, 0x6c, 0x80, 0x50, 0x00, 0x00, 0x00, 0xcc, 0xa4, 0x88, 0xc6, 0x3e, 0x30, 0x0d, 0x8b, 0x02, 0x00, 0x00, 0x00,
    0x00, 0x01, 0x59, 0x5a,
];

fn xz_dictionary() -> Vec<u8> {
    let media_type = MediaType::new("application/vnd.oci.image.layer.v1.tar+xz");
    with_zeros(media_type, XZ_DICTIONARY.to_vec(), Digest::sha256_of(&[7; 1000]))
}

fn docker_xz_dictionary() -> Vec<u8> {
    let diff_id = Digest::sha256_of(b"");
    let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]}});
    let list = json!([{"Config": "config.json", "RepoTags": ["a:1"], "Layers": ["layer.tar"]}]);
    let mut tar = RawTar::default();
    tar.file("config.json", config.to_string().as_bytes()).file("layer.tar", &XZ_DICTIONARY);
    tar.file("manifest.json", list.to_string().as_bytes()).end()
}

fn missing(number: u32) -> Descriptor {
    Descriptor::of(MediaType::OCI_MANIFEST, &number.to_le_bytes())
}

fn index_100k() -> Vec<u8> {
    let entries: Vec<_> = (0..100_000).map(missing).collect();
    RawTar::default().file("index.json", Index::of(&entries).bytes()).file("oci-layout", LAYOUT).end()
}

fn index_100k_below() -> Vec<u8> {
    let entries: Vec<_> = (0..100_000).map(missing).collect();
    let mut parts = Parts::new();
    parts.roots = vec![parts.put(MediaType::OCI_INDEX, Index::of(&entries).bytes().to_vec())];
    parts.tar()
}

fn roots() -> Vec<u8> {
    let entries: Vec<_> = (0..50_000).map(missing).collect();
    RawTar::default().file("index.json", Index::of(&entries).bytes()).file("oci-layout", LAYOUT).end()
}

fn index_long() -> Vec<u8> {
    let entries: Vec<_> = (0..25_000).map(missing).collect();
    let mut parts = Parts::new();
    parts.roots = vec![parts.put(MediaType::OCI_INDEX, Index::of(&entries).bytes().to_vec())];
    parts.tar()
}

fn index_short_entries() -> Vec<u8> {
    let entry = |number| format!(r#"{{"mediaType":"a","digest":"{}","size":0}}"#, missing(number).digest);
    let entries: Vec<_> = (0..36_000).map(entry).collect();
    let mut parts = Parts::new();
    let text = format!("{{\"schemaVersion\":2,\"manifests\":[{}]}}", entries.join(","));
    parts.roots = vec![parts.put(MediaType::OCI_INDEX, text)];
    parts.tar()
}

fn manifest_layers() -> Vec<u8> {
    let mut parts = Parts::image();
    parts.blobs.pop();
    let manifest = manifest(&parts.blobs[1].0, &vec![parts.blobs[0].0.clone(); 24_000]);
    parts.roots = vec![parts.put(MediaType::OCI_MANIFEST, manifest.to_string())];
    parts.tar()
}

fn manifest_100m() -> Vec<u8> {
    with_manifest(|text| (text + &" ".repeat(100 << 20)).into_bytes())
}

fn manifest_4m() -> Vec<u8> {
    with_manifest(|text| {
        let length = text.len();
        (text + &" ".repeat((4 << 20) - length)).into_bytes()
    })
}

fn annotations() -> Vec<u8> {
    with_manifest(|text| {
        let annotations: Vec<_> = (0..260_000).map(|number| format!("\"{number:x}\":\"value\"")).collect();
        format!("{},\"annotations\":{{{}}}}}", &text[..text.len() - 1], annotations.join(",")).into_bytes()
    })
}

fn index_100m() -> Vec<u8> {
    Parts::image().entries_with(&[b' '; 100 << 20]).end()
}

fn index_deep() -> Vec<u8> {
    let parts = Parts::image();
    let index = Index::of(&parts.roots);
    let text = index.text();
    parts.entries_with(format!("{},\"x\":{}}}", &text[..text.len() - 1], deep(4_000_000)).as_bytes()).end()
}

fn entries_100k() -> Vec<u8> {
    beside(|tar| {
        for number in 0..100_000 {
            tar.file(&format!("{number}"), b"");
        }
    })
}
