//! Images whose tables of contents, ztocs and bootstraps lie.

use ocikit_archive::Compression;
use ocikit_spec::{Descriptor, Digest, MediaType};
use serde_json::{Value, json};

use super::image::{Parts, compressed, manifest};
use super::tar::RawTar;

/// Returns an image with an eStargz layer whose table of contents is the result of a function, given the offset and the
/// digest of its only file.
fn estargz(table: impl FnOnce(u64, &Digest) -> String) -> Vec<u8> {
    let contents = b"hello\n";
    let tar = RawTar::default().file("etc/motd", contents).end();
    // The contents are in the second block, and the end is left to the member of the table.
    let mut blob = compressed(Compression::Gzip, &tar[..512]);
    let offset = blob.len() as u64;
    blob.extend(compressed(Compression::Gzip, &tar[512..1024]));
    let json = table(offset, &Digest::sha256_of(contents));
    let end = RawTar::default().file("stargz.index.json", json.as_bytes()).end();
    let position = blob.len();
    blob.extend(compressed(Compression::Gzip, &end));
    blob.extend_from_slice(&[0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 26, 0, b'S', b'G', 22, 0]);
    blob.extend_from_slice(format!("{position:016x}STARGZ").as_bytes());
    blob.extend_from_slice(&[1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut parts = Parts::new();
    let diff_id = Digest::sha256_of(&[&tar[..1024], &end[..]].concat());
    let mut layer = parts.put(MediaType::OCI_LAYER_GZIP, blob);
    let digest = Digest::sha256_of(json.as_bytes()).to_string();
    layer.annotations.insert("containerd.io/snapshot/stargz/toc.digest", digest);
    parts.finish(vec![(layer, diff_id)]);
    parts.tar()
}

fn table(entries: &[Value]) -> String {
    json!({"version": 1, "entries": entries}).to_string()
}

fn file(name: &str, size: u64, offset: u64, digest: &str) -> Value {
    json!({"name": name, "type": "reg", "size": size, "mode": 420, "offset": offset, "digest": digest, "chunkDigest": digest})
}

pub(super) fn estargz_other_digest() -> Vec<u8> {
    estargz(|offset, _| table(&[file("etc/motd", 6, offset, &Digest::sha256_of(b"other\n").to_string())]))
}

pub(super) fn estargz_far_offset() -> Vec<u8> {
    estargz(|_, digest| table(&[file("etc/motd", 6, u64::MAX, &digest.to_string())]))
}

pub(super) fn estargz_huge_file() -> Vec<u8> {
    estargz(|offset, digest| table(&[file("etc/motd", 1 << 62, offset, &digest.to_string())]))
}

pub(super) fn estargz_huge_chunks() -> Vec<u8> {
    estargz(|offset, digest| {
        let chunk = |at: u64| {
            let digest = digest.to_string();
            json!({"name": "etc/motd", "type": if at == 0 { "reg" } else { "chunk" }, "size": u64::MAX, "mode": 420,
                "offset": offset, "chunkOffset": at << 62, "chunkSize": 1_u64 << 62, "chunkDigest": digest})
        };
        table(&(0..6).map(chunk).collect::<Vec<_>>())
    })
}

pub(super) fn estargz_inner_offset() -> Vec<u8> {
    estargz(|offset, digest| {
        let mut entry = file("etc/motd", 6, offset, &digest.to_string());
        entry["innerOffset"] = json!(u64::MAX - 2);
        table(&[entry])
    })
}

pub(super) fn estargz_names() -> Vec<u8> {
    estargz(|offset, digest| {
        let digest = digest.to_string();
        let link = |name: &str, target: &str| json!({"name": name, "type": "symlink", "linkName": target});
        table(&[
            link("etc", "../../../../etc"),
            file("etc/motd", 6, offset, &digest),
            file("../../../tmp/ocikit-hostile", 6, offset, &digest),
            file("/tmp/ocikit-hostile", 6, offset, &digest),
            file("\u{1b}[31mred\n", 6, offset, &digest),
            json!({"name": "a", "type": "hardlink", "linkName": "b"}),
            json!({"name": "b", "type": "hardlink", "linkName": "a"}),
        ])
    })
}

pub(super) fn estargz_unknown() -> Vec<u8> {
    estargz(|_, _| table(&[json!({"name": "etc/motd", "type": "door"}), json!({"name": ".wh.", "type": "reg"})]))
}

pub(super) fn estargz_deep() -> Vec<u8> {
    estargz(|_, _| format!(r#"{{"version":1,"entries":{}{}}}"#, "[".repeat(20_000), "]".repeat(20_000)))
}

pub(super) fn chunked_positions() -> Vec<u8> {
    let mut parts = Parts::new();
    let tar = RawTar::default().file("etc/motd", b"hello\n").end();
    let mut layer = parts.put(MediaType::OCI_LAYER_ZSTD, compressed(Compression::Zstd, &tar));
    for (key, value) in [
        ("manifest-checksum", Digest::sha256_of(b"").to_string()),
        ("manifest-position", format!("{}:{}:{}:1", u64::MAX, u64::MAX, u64::MAX)),
        ("tarsplit-position", "0:149000000000:1".to_owned()),
    ] {
        layer.annotations.insert(format!("io.github.containers.zstd-chunked.{key}"), value);
    }
    parts.finish(vec![(layer, Digest::sha256_of(&tar))]);
    parts.tar()
}

/// Returns an image with a SOCI index and this ztoc.
fn soci(ztoc: &[u8]) -> Vec<u8> {
    let mut parts = Parts::new();
    let tar = RawTar::default().file("etc/motd", b"hello\n").end();
    let (layer, diff_id) = parts.gzip(&tar);
    let mut ztoc = parts.put(MediaType::OCTET_STREAM, ztoc);
    ztoc.annotations.insert("com.amazon.soci.image-layer-digest", layer.digest.to_string());
    let config = parts.put(MediaType::new("application/vnd.amazon.soci.index.v2+json"), *b"{}");
    let index = parts.put(MediaType::OCI_MANIFEST, manifest(&config, &[ztoc]).to_string());
    let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]}});
    let config = parts.put(MediaType::OCI_CONFIG, config.to_string());
    let mut image = manifest(&config, &[layer]);
    image["annotations"] = json!({"com.amazon.soci.index-digest": index.digest});
    let image = parts.put(MediaType::OCI_MANIFEST, image.to_string());
    let list = json!({"schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": [image, index]});
    let root = parts.put(MediaType::OCI_INDEX, list.to_string());
    parts.roots.push(root);
    parts.tar()
}

pub(super) fn soci_noise() -> Vec<u8> {
    soci(&ocikit_image::testing::random(7, 5000))
}

pub(super) fn soci_circle() -> Vec<u8> {
    soci(&[4, 0, 0, 0, 0, 0, 0, 0, 4, 0, 4, 0])
}

/// Returns an image with a Nydus blob and this bootstrap.
fn nydus(bootstrap: &[u8]) -> Vec<u8> {
    let mut parts = Parts::new();
    let blob = parts.put(MediaType::NYDUS_BLOB, *b"blob");
    let tar = RawTar::default().file("image/image.boot", bootstrap).end();
    let (mut layer, diff_id) = parts.gzip(&tar);
    layer.annotations.insert("containerd.io/snapshot/nydus-bootstrap", "true");
    let digest = blob.digest;
    parts.finish(vec![(blob, digest), (layer, diff_id)]);
    parts.tar()
}

pub(super) fn nydus_noise() -> Vec<u8> {
    nydus(&ocikit_image::testing::random(8, 20_000))
}

/// A RAFS v6 superblock whose tables are at the end of all numbers.
pub(super) fn nydus_superblock() -> Vec<u8> {
    let mut bootstrap = vec![0xff; 16 << 10];
    bootstrap[1024..1028].copy_from_slice(&[0xe2, 0xe1, 0xf5, 0xe0]);
    bootstrap[1036] = 12;
    nydus(&bootstrap)
}

pub(super) fn nydus_without_bootstrap() -> Vec<u8> {
    let mut parts = Parts::new();
    let blob: Descriptor = parts.put(MediaType::NYDUS_BLOB, *b"blob");
    let digest = blob.digest;
    parts.finish(vec![(blob, digest)]);
    parts.tar()
}
