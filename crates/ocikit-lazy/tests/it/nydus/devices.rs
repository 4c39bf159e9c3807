//! Reads the tables of a RAFS v6 bootstrap without the code under test, and makes the devices that EROFS readers want.

use std::collections::BTreeMap;

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

fn u64_at(bytes: &[u8], at: usize) -> usize {
    usize::try_from(u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())).unwrap()
}

/// Returns the identifiers of the blobs, in the order of the devices.
pub(super) fn blob_ids(bootstrap: &[u8]) -> Vec<String> {
    let devices = usize::from(u16::from_le_bytes([bootstrap[1024 + 86], bootstrap[1024 + 87]]));
    let id = |number: usize| String::from_utf8(bootstrap[1408 + number * 128..][..64].to_vec()).unwrap();
    (0..devices).map(id).collect()
}

/// Returns the uncompressed chunks of each blob, at the offsets that the bootstrap states.
pub(super) fn devices(bootstrap: &[u8], blobs: &BTreeMap<String, Vec<u8>>) -> Vec<Vec<u8>> {
    let ids = blob_ids(bootstrap);
    let mut devices: Vec<Vec<u8>> =
        (0..ids.len()).map(|number| vec![0; u32_at(bootstrap, 1408 + number * 128 + 64) * 4096]).collect();
    let table = u64_at(bootstrap, 1152 + 8);
    let (start, size) = (u64_at(bootstrap, 1152 + 24), u64_at(bootstrap, 1152 + 32));
    for record in bootstrap[start..start + size].chunks(80) {
        let blob = u32_at(record, 32);
        let stored = &blobs[&ids[blob]][u64_at(record, 48)..][..u32_at(record, 40)];
        let length = u32_at(record, 44);
        let bytes = match (record[36] & 1, u32_at(bootstrap, table + blob * 256 + 76)) {
            (0, _) | (_, 0) => stored.to_vec(),
            (_, 1) => lz4_flex::block::decompress(stored, length).unwrap(),
            (_, 3) => zstd::bulk::decompress(stored, length).unwrap(),
            (_, other) => panic!("compression {other}"),
        };
        assert_eq!(bytes.len(), length);
        assert_eq!(blake3::hash(&bytes).as_bytes(), &record[..32], "the digest of a chunk");
        devices[blob][u64_at(record, 56)..][..length].copy_from_slice(&bytes);
    }
    devices
}
