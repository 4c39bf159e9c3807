//! Archives with hostile entries: their names, links, sizes and extended headers.

use ocikit_spec::{Descriptor, Index, MediaType};

use super::image::{LAYOUT, Parts};
use super::tar::{Raw, RawTar, binary, octal};

/// Returns the valid archive with additional entries at its start.
fn beside(add: impl FnOnce(&mut RawTar)) -> Vec<u8> {
    let mut tar = RawTar::default();
    add(&mut tar);
    [tar.open(), Parts::image().tar()].concat()
}

pub(super) fn name_leads_up() -> Vec<u8> {
    beside(|tar| {
        tar.file("../../escaped", b"x").file("a/../../escaped", b"x").file("blobs/../../escaped", b"x");
    })
}

pub(super) fn name_absolute() -> Vec<u8> {
    beside(|tar| _ = tar.file("/tmp/ocikit-hostile", b"x"))
}

pub(super) fn name_not_utf8() -> Vec<u8> {
    beside(|tar| {
        tar.entry(Raw { name: b"\xff\xfe", ..Raw::file("") }, b"x");
        tar.file("line\nbreak", b"x").file("\x1b[31mred", b"x");
    })
}

pub(super) fn name_long() -> Vec<u8> {
    beside(|tar| {
        tar.extended(b'x', &[("path", &"d/".repeat(32 << 10))]);
        tar.file("short", b"x");
    })
}

/// Returns the image with its layer replaced by a link or special file.
fn with_layer(kind: u8, link: &str) -> Vec<u8> {
    let mut parts = Parts::image();
    let (layer, _) = parts.blobs.remove(0);
    let mut tar = parts.entries();
    tar.entry(Raw::link(&layer.digest.blob_path(), kind, link), b"");
    tar.end()
}

pub(super) fn link_to_etc() -> Vec<u8> {
    with_layer(b'2', "/etc/passwd")
}

/// Returns the image with more entries at its end.
fn before(add: impl FnOnce(&mut RawTar)) -> Vec<u8> {
    let mut tar = Parts::image().entries();
    add(&mut tar);
    tar.end()
}

const NO_IMAGES: &[u8] = br#"{"schemaVersion":2,"manifests":[]}"#;

pub(super) fn link_index() -> Vec<u8> {
    before(|tar| _ = tar.entry(Raw::link("d", b'2', "."), b"").file("d/index.json", NO_IMAGES))
}

pub(super) fn name_index_up() -> Vec<u8> {
    before(|tar| _ = tar.file("x/../index.json", NO_IMAGES))
}

pub(super) fn name_index_absolute() -> Vec<u8> {
    before(|tar| _ = tar.file("/index.json", NO_IMAGES))
}

pub(super) fn name_index_here() -> Vec<u8> {
    before(|tar| _ = tar.file("./index.json", NO_IMAGES))
}

pub(super) fn name_manifest_up() -> Vec<u8> {
    before(|tar| _ = tar.file("x/../manifest.json", b"[]"))
}

pub(super) fn link_hard() -> Vec<u8> {
    with_layer(b'1', "/etc/passwd")
}

pub(super) fn link_up() -> Vec<u8> {
    let mut tar = Parts::image().blob_entries();
    tar.entry(Raw::link("index.json", b'2', "../../../../etc/passwd"), b"").file("oci-layout", LAYOUT);
    tar.end()
}

pub(super) fn link_circle() -> Vec<u8> {
    let mut tar = Parts::image().blob_entries();
    for (name, link) in [("index.json", "a"), ("a", "b"), ("b", "a")] {
        tar.entry(Raw::link(name, b'2', link), b"");
    }
    tar.file("oci-layout", LAYOUT).end()
}

pub(super) fn link_chain() -> Vec<u8> {
    let parts = Parts::image();
    let mut tar = parts.blob_entries();
    tar.entry(Raw::link("index.json", b'2', "0"), b"");
    for number in 0..20 {
        tar.entry(Raw::link(&number.to_string(), b'2', &(number + 1).to_string()), b"");
    }
    tar.file("20", Index::of(&parts.roots).bytes()).file("oci-layout", LAYOUT).end()
}

pub(super) fn link_blobs() -> Vec<u8> {
    let parts = Parts::image();
    let mut tar = RawTar::default();
    tar.entry(Raw::link("blobs/sha256", b'2', "/etc"), b"");
    for (blob, bytes) in &parts.blobs {
        tar.file(&blob.digest.blob_path(), bytes);
    }
    tar.file("index.json", Index::of(&parts.roots).bytes()).file("oci-layout", LAYOUT).end()
}

pub(super) fn link_blobs_away() -> Vec<u8> {
    let parts = Parts::image();
    let mut tar = RawTar::default();
    tar.entry(Raw::link("blobs", b'2', "../elsewhere"), b"");
    for (blob, bytes) in &parts.blobs {
        tar.file(&blob.digest.blob_path().replace("blobs/", "elsewhere/"), bytes);
    }
    tar.file("index.json", Index::of(&parts.roots).bytes()).file("oci-layout", LAYOUT).end()
}

pub(super) fn devices() -> Vec<u8> {
    let mut parts = Parts::image();
    let removed: Vec<_> = parts.blobs.drain(..2).collect();
    let mut tar = parts.entries();
    for ((blob, _), kind) in removed.iter().zip([b'3', b'6']) {
        tar.entry(Raw { kind, ..Raw::file(&blob.digest.blob_path()) }, b"");
    }
    tar.end()
}

pub(super) fn twice_index() -> Vec<u8> {
    let gone = Descriptor::of(MediaType::OCI_MANIFEST, b"gone");
    beside(|tar| _ = tar.file("index.json", Index::of(&[gone]).bytes()))
}

pub(super) fn twice_blob() -> Vec<u8> {
    let layer = Parts::image().layer().digest.blob_path();
    beside(|tar| _ = tar.file(&layer, b"damaged"))
}

pub(super) fn twice_blob_damaged() -> Vec<u8> {
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

pub(super) fn size_negative() -> Vec<u8> {
    with_size(binary(-1))
}

pub(super) fn size_huge() -> Vec<u8> {
    with_size(binary(1 << 62))
}

pub(super) fn size_octal_huge() -> Vec<u8> {
    with_size(octal((1 << 33) - 1))
}

pub(super) fn size_not_a_number() -> Vec<u8> {
    with_size(*b"quitealittle")
}

pub(super) fn size_too_long() -> Vec<u8> {
    with_size(octal(700))
}

pub(super) fn size_too_short() -> Vec<u8> {
    let content = [b'x'; 2000];
    beside(|tar| _ = tar.entry(Raw { size: Some(octal(100)), ..Raw::file("liar") }, &content))
}

pub(super) fn size_twice() -> Vec<u8> {
    beside(|tar| {
        tar.extended(b'x', &[("size", "100000")]);
        tar.file("liar", b"x");
    })
}

pub(super) fn extended_endless() -> Vec<u8> {
    beside(|tar| tar.header(Raw { kind: b'x', size: Some(octal(4 << 30)), ..Raw::file("PaxHeaders/x") }, 0))
}

pub(super) fn extended_alone() -> Vec<u8> {
    let mut tar = Parts::image().entries();
    tar.extended(b'x', &[("path", "gone")]);
    tar.end()
}

pub(super) fn extended_global() -> Vec<u8> {
    beside(|tar| _ = tar.extended(b'g', &[("path", "index.json")]))
}

pub(super) fn sparse() -> Vec<u8> {
    let mut parts = Parts::image();
    let (layer, bytes) = parts.blobs.remove(0);
    let mut tar = parts.entries();
    tar.entry(Raw { kind: b'S', ..Raw::file(&layer.digest.blob_path()) }, &bytes).end()
}

pub(super) fn zero_block() -> Vec<u8> {
    beside(|tar| {
        tar.file("first", b"x").bytes(&[0; 512]);
    })
}

pub(super) fn noise() -> Vec<u8> {
    (0..4096_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

pub(super) fn entries_100k() -> Vec<u8> {
    beside(|tar| {
        for number in 0..100_000 {
            tar.file(&format!("{number}"), b"");
        }
    })
}
