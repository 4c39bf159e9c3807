//! Images with hostile documents: indexes, manifests and configs.

use ocikit_spec::{Descriptor, Digest, Index, MediaType, Platform};
use serde_json::json;

use super::image::{LAYOUT, Parts, manifest};
use super::tar::{Raw, RawTar};

/// Returns the image with a changed manifest. Its digest matches the changed text.
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

pub(super) fn descriptor_size_max() -> Vec<u8> {
    with_layer_size("18446744073709551615")
}

pub(super) fn descriptor_size_zero() -> Vec<u8> {
    with_layer_size("0")
}

pub(super) fn descriptor_size_negative() -> Vec<u8> {
    with_layer_size("-1")
}

pub(super) fn descriptor_size_real() -> Vec<u8> {
    with_layer_size("1e300")
}

fn with_layer_digest(digest: &str) -> Vec<u8> {
    let real = Parts::image().layer().digest.to_string();
    with_manifest(|text| text.replace(&real, digest).into_bytes())
}

pub(super) fn digest_up() -> Vec<u8> {
    with_layer_digest("sha256:../../../../etc/passwd")
}

pub(super) fn digest_other() -> Vec<u8> {
    with_layer_digest("md5:d41d8cd98f00b204e9800998ecf8427e")
}

pub(super) fn deep(depth: usize) -> String {
    "[".repeat(depth) + &"]".repeat(depth)
}

pub(super) fn json_deep() -> Vec<u8> {
    with_manifest(|text| format!("{},\"x\":{}}}", &text[..text.len() - 1], deep(20_000)).into_bytes())
}

pub(super) fn json_deep_known() -> Vec<u8> {
    with_manifest(|text| {
        let (before, _) = text.split_once("\"layers\":").expect("layers");
        format!("{before}\"layers\":{}}}", deep(20_000)).into_bytes()
    })
}

pub(super) fn json_twice() -> Vec<u8> {
    with_manifest(|text| format!("{},\"layers\":[]}}", &text[..text.len() - 1]).into_bytes())
}

pub(super) fn json_case() -> Vec<u8> {
    with_manifest(|text| format!("{},\"Layers\":[]}}", &text[..text.len() - 1]).into_bytes())
}

pub(super) fn json_fold() -> Vec<u8> {
    let mut parts = Parts::image();
    let mut entry = json!(parts.roots.remove(0));
    entry["dige\u{17f}t"] = json!(parts.layer().digest);
    let index = json!({"schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": [entry]});
    let root = parts.put(MediaType::OCI_INDEX, index.to_string());
    parts.roots.push(root);
    parts.tar()
}

pub(super) fn json_both() -> Vec<u8> {
    with_manifest(|text| format!("{},\"manifests\":[]}}", &text[..text.len() - 1]).into_bytes())
}

pub(super) fn json_not_utf8() -> Vec<u8> {
    with_manifest(|text| [&text.as_bytes()[..text.len() - 1], b",\"x\":\"\xff\"}"].concat())
}

pub(super) fn json_nul() -> Vec<u8> {
    with_manifest(|text| [text.as_bytes(), b"\0"].concat())
}

pub(super) fn json_half() -> Vec<u8> {
    with_manifest(|text| text.as_bytes()[..text.len() / 2].to_vec())
}

pub(super) fn index_not_utf8() -> Vec<u8> {
    Parts::image().entries_with(b"{\"schemaVersion\":2,\"manifests\":[],\"x\":\"\xff\"}").end()
}

pub(super) fn index_array() -> Vec<u8> {
    Parts::image().entries_with(b"[]").end()
}

pub(super) fn index_escapes() -> Vec<u8> {
    let mut parts = Parts::image();
    parts.roots[0].annotations.insert("org.opencontainers.image.ref.name", "\u{1b}]0;owned\u{7}\u{1b}[2J\r\n\0");
    parts.roots[0].annotations.insert("\u{202e}gpj", "\u{1b}[31m");
    parts.tar()
}

/// Characters that end a line, move the cursor, change the direction of text, or are invisible.
pub const DECEPTIVE: &str =
    "x\nFORGED: line\r\u{1b}[2J\t\u{7f}\u{85}\u{9b}31m\u{202e}\u{2066}\u{200b}\u{200f}\u{61c}\u{feff}\u{2028}\u{2029}";

/// Returns an image with [`DECEPTIVE`] in every text field.
fn deceptive_image() -> Parts {
    let mut parts = Parts::new();
    let mut tar = RawTar::default();
    tar.extended(b'x', &[("path", &format!("etc/{DECEPTIVE}")), ("uname", DECEPTIVE)]);
    tar.file("short", b"hello\n");
    tar.extended(b'x', &[("path", "etc/link"), ("linkpath", DECEPTIVE)]);
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

pub(super) fn text_deceptive() -> Vec<u8> {
    let mut parts = deceptive_image();
    parts.roots[0].annotations.insert("org.opencontainers.image.ref.name", DECEPTIVE);
    parts.roots[0].annotations.insert(DECEPTIVE, DECEPTIVE);
    parts.tar()
}

pub(super) fn platform_deceptive() -> Vec<u8> {
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

pub(super) fn circle() -> Vec<u8> {
    let mut parts = Parts::new();
    let [one, other] = [b"one", b"two"].map(|text| Descriptor::of(MediaType::OCI_INDEX, text));
    let [mut lists_other, mut lists_one] =
        [Index::of(std::slice::from_ref(&other)), Index::of(std::slice::from_ref(&one))];
    // The sizes are correct, so that only the digests are wrong.
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

pub(super) fn fan() -> Vec<u8> {
    let mut parts = Parts::image();
    nested_in(&mut parts, 15, 40);
    parts.tar()
}

pub(super) fn nested() -> Vec<u8> {
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

pub(super) fn config_of_image(more: &str) -> String {
    let text = String::from_utf8(Parts::image().blobs.swap_remove(1).1).expect("JSON");
    format!("{}{more}}}", &text[..text.len() - 1])
}

pub(super) fn config_diff_ids() -> Vec<u8> {
    let digest = Digest::sha256_of(b"").to_string();
    let rootfs = json!({"type": "layers", "diff_ids": vec![digest; 100]});
    with_config(&json!({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).to_string())
}

pub(super) fn config_deep() -> Vec<u8> {
    with_config(&config_of_image(&format!(",\"x\":{}", deep(20_000))))
}

pub(super) fn config_100m() -> Vec<u8> {
    with_config(&config_of_image(&" ".repeat(100 << 20)))
}

pub(super) fn config_history() -> Vec<u8> {
    let steps = "{},".repeat(1_000_000);
    with_config(&config_of_image(&format!(",\"history\":[{steps}{{}}]")))
}

fn missing(number: u32) -> Descriptor {
    Descriptor::of(MediaType::OCI_MANIFEST, &number.to_le_bytes())
}

pub(super) fn index_100k() -> Vec<u8> {
    let entries: Vec<_> = (0..100_000).map(missing).collect();
    RawTar::default().file("index.json", Index::of(&entries).bytes()).file("oci-layout", LAYOUT).end()
}

pub(super) fn index_100k_below() -> Vec<u8> {
    let entries: Vec<_> = (0..100_000).map(missing).collect();
    let mut parts = Parts::new();
    parts.roots = vec![parts.put(MediaType::OCI_INDEX, Index::of(&entries).bytes().to_vec())];
    parts.tar()
}

pub(super) fn roots() -> Vec<u8> {
    let entries: Vec<_> = (0..50_000).map(missing).collect();
    RawTar::default().file("index.json", Index::of(&entries).bytes()).file("oci-layout", LAYOUT).end()
}

pub(super) fn index_long() -> Vec<u8> {
    let entries: Vec<_> = (0..25_000).map(missing).collect();
    let mut parts = Parts::new();
    parts.roots = vec![parts.put(MediaType::OCI_INDEX, Index::of(&entries).bytes().to_vec())];
    parts.tar()
}

pub(super) fn index_short_entries() -> Vec<u8> {
    let entry = |number| format!(r#"{{"mediaType":"a","digest":"{}","size":0}}"#, missing(number).digest);
    let entries: Vec<_> = (0..36_000).map(entry).collect();
    let mut parts = Parts::new();
    let text = format!("{{\"schemaVersion\":2,\"manifests\":[{}]}}", entries.join(","));
    parts.roots = vec![parts.put(MediaType::OCI_INDEX, text)];
    parts.tar()
}

pub(super) fn manifest_layers() -> Vec<u8> {
    let mut parts = Parts::image();
    parts.blobs.pop();
    let manifest = manifest(&parts.blobs[1].0, &vec![parts.blobs[0].0.clone(); 24_000]);
    parts.roots = vec![parts.put(MediaType::OCI_MANIFEST, manifest.to_string())];
    parts.tar()
}

pub(super) fn manifest_100m() -> Vec<u8> {
    with_manifest(|text| (text + &" ".repeat(100 << 20)).into_bytes())
}

pub(super) fn manifest_4m() -> Vec<u8> {
    with_manifest(|text| {
        let length = text.len();
        (text + &" ".repeat((4 << 20) - length)).into_bytes()
    })
}

pub(super) fn annotations() -> Vec<u8> {
    with_manifest(|text| {
        let annotations: Vec<_> = (0..260_000).map(|number| format!("\"{number:x}\":\"value\"")).collect();
        format!("{},\"annotations\":{{{}}}}}", &text[..text.len() - 1], annotations.join(",")).into_bytes()
    })
}

pub(super) fn index_100m() -> Vec<u8> {
    Parts::image().entries_with(&[b' '; 100 << 20]).end()
}

pub(super) fn index_deep() -> Vec<u8> {
    let parts = Parts::image();
    let index = Index::of(&parts.roots);
    let text = index.text();
    parts.entries_with(format!("{},\"x\":{}}}", &text[..text.len() - 1], deep(4_000_000)).as_bytes()).end()
}
