//! Images with hostile layers: paths that fill the memory, compression bombs, and wrong diff IDs.

use ocikit_archive::Compression;
use ocikit_spec::{Digest, MediaType};

use super::image::{Parts, compressed, compressed_zeros};
use super::tar::{Raw, RawTar};

/// Returns an image whose config has the diff ID of the layer of [`Parts::image`], and whose layer is different.
pub(super) fn diff_id_lies() -> Vec<u8> {
    let honest = Digest::sha256_of(&RawTar::default().file("etc/motd", b"hello\n").end());
    let mut parts = Parts::new();
    let (layer, _) = parts.gzip(&RawTar::default().file("etc/motd", b"owned\n").end());
    parts.finish(vec![(layer, honest)]);
    parts.tar()
}

/// Returns an image with one layer with these entries.
fn with_entries(add: impl FnOnce(&mut RawTar)) -> Vec<u8> {
    let (mut parts, mut tar) = (Parts::new(), RawTar::default());
    add(&mut tar);
    let layer = parts.gzip(&tar.end());
    parts.finish(vec![layer]);
    parts.tar()
}

/// Each entry takes about 4.4 KB in a file tree, so the tree exceeds its memory limit. The layer has less than 1 MB.
pub(super) fn layer_long_paths() -> Vec<u8> {
    let directory = "d/".repeat(2000);
    with_entries(|tar| {
        for number in 0..40_000 {
            tar.extended(b'x', &[("path", &format!("{directory}{number:05}"))]);
            tar.file("short", b"");
        }
    })
}

pub(super) fn layer_deep_paths() -> Vec<u8> {
    let directory = "d/".repeat(500);
    with_entries(|tar| {
        for number in 0..3_000 {
            tar.extended(b'x', &[("path", &format!("{number:04}/{directory}f"))]);
            tar.file("short", b"");
        }
    })
}

pub(super) fn layer_links() -> Vec<u8> {
    let directory = "d/".repeat(900);
    with_entries(|tar| {
        for number in 0..30 {
            let target = format!("{directory}{}", number + 1);
            tar.extended(b'x', &[("path", &format!("{directory}{number}")), ("linkpath", &format!("/{target}"))]);
            tar.entry(Raw::link("short", b'2', "x"), b"");
        }
        for number in 0..20_000 {
            tar.extended(b'x', &[("path", &format!("{directory}0/{}/f", number % 2))]);
            tar.file("short", b"");
        }
    })
}

pub(super) fn diff_ids_shared() -> Vec<u8> {
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

/// Returns an image with this layer.
fn with_zeros(media_type: MediaType, bytes: Vec<u8>, diff_id: Digest) -> Vec<u8> {
    let mut parts = Parts::new();
    let layer = parts.put(media_type, bytes);
    parts.finish(vec![(layer, diff_id)]);
    parts.tar()
}

const BOMB: u64 = 256 << 20;

pub(super) fn gzip_bomb() -> Vec<u8> {
    let bytes = compressed_zeros(Compression::Gzip, BOMB);
    with_zeros(MediaType::OCI_LAYER_GZIP, bytes, Digest::sha256_of(b"whatever"))
}

pub(super) fn zstd_bomb() -> Vec<u8> {
    let bytes = compressed_zeros(Compression::Zstd, BOMB);
    with_zeros(MediaType::OCI_LAYER_ZSTD, bytes, Digest::sha256_of(b"whatever"))
}

pub(super) fn zstd_window() -> Vec<u8> {
    let mut bytes = compressed(Compression::Zstd, &[7; 1000]);
    // Clears the single-segment flag, so that the byte after the frame header descriptor is the window: 2^31 bytes.
    bytes[4] = 0;
    bytes[5] = 21 << 3;
    with_zeros(MediaType::OCI_LAYER_ZSTD, bytes, Digest::sha256_of(&[7; 1000]))
}

/// A tar of 10 KiB compressed by liblzma, with the dictionary size in the block header set to the maximum.
#[rustfmt::skip]
pub(super) const XZ_DICTIONARY: [u8; 144] = [
    0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x01, 0x69, 0x22, 0xde, 0x36, 0x02, 0x00, 0x21, 0x01, 0x28, 0x00, 0x00, 0x00,
    0xe6, 0xa0, 0x11, 0xb3, 0xe0, 0x27, 0xff, 0x00, 0x54, 0x5d, 0x00, 0x30, 0x80, 0x33, 0x50, 0x18, 0x68, 0x89, 0x82, 0xed,
    0xa7, 0x80, 0x69, 0xfa, 0xda, 0x6d, 0xf2, 0xb6, 0xa6, 0xdf, 0x1c, 0x9e, 0xfd, 0x21, 0xca, 0x25, 0x8e, 0x1a, 0xde, 0xa0,
    0x37, 0x76, 0x0a, 0x20, 0x92, 0x81, 0x73, 0xd3, 0x66, 0xf0, 0x61, 0xa4, 0x74, 0xdf, 0x02, 0xd4, 0x59, 0x4b, 0xad, 0xc3,
    0x5d, 0xa0, 0x87, 0xfc, 0xff, 0x7b, 0xd3, 0x94, 0x6f, 0xc0, 0x98, 0xf4, 0x9d, 0x9e, 0x23, 0x63, 0x81, 0xe7, 0x01, 0x79,
    0xfa, 0xbc, 0xab, 0xc6, 0x26, 0x00, 0xeb, 0x3f, 0xd6, 0x55, 0x9c, 0xca, 0x1f, 0x08, 0x00, 0x00, 0x06, 0xf6, 0xdf, 0x56,
    0x00, 0x01, 0x6c, 0x80, 0x50, 0x00, 0x00, 0x00, 0xcc, 0xa4, 0x88, 0xc6, 0x3e, 0x30, 0x0d, 0x8b, 0x02, 0x00, 0x00, 0x00,
    0x00, 0x01, 0x59, 0x5a,
];

pub(super) fn xz_dictionary() -> Vec<u8> {
    let media_type = MediaType::new("application/vnd.oci.image.layer.v1.tar+xz");
    with_zeros(media_type, XZ_DICTIONARY.to_vec(), Digest::sha256_of(&[7; 1000]))
}
