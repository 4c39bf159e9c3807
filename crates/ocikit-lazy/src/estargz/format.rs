//! The names and numbers of the format.

/// The annotation with the digest of the table of contents.
pub const TOC_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";

/// The annotation with the size of the decompressed layer in bytes.
pub const UNCOMPRESSED_SIZE: &str = "io.containers.estargz.uncompressed-size";

/// The file with the table of contents.
pub(crate) const TOC_NAME: &str = "stargz.index.json";

/// The file after those that a snapshotter is to fetch first.
pub(crate) const PREFETCH_LANDMARK: &str = ".prefetch.landmark";

/// The file that says that there is nothing to fetch first.
pub(crate) const NO_PREFETCH_LANDMARK: &str = ".no.prefetch.landmark";

/// The content of a landmark.
pub(crate) const LANDMARK: [u8; 1] = [0x0f];

/// The size of the footer in bytes.
pub(crate) const FOOTER_BYTES: usize = 51;

/// Returns the footer for a table of contents whose member starts at an offset: an empty gzip member with an extra field.
pub(crate) fn footer(offset: u64) -> Vec<u8> {
    let mut footer = vec![0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff];
    // The extra field, with one subfield of 22 bytes.
    footer.extend_from_slice(&[26, 0, b'S', b'G', 22, 0]);
    footer.extend_from_slice(format!("{offset:016x}STARGZ").as_bytes());
    // An empty stored block, then checksum and size.
    footer.extend_from_slice(&[1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
    footer
}

/// Returns whether a name is that of a file that only this format has.
pub(crate) fn is_own_file(name: &[u8]) -> bool {
    let names = [TOC_NAME, PREFETCH_LANDMARK, NO_PREFETCH_LANDMARK];
    let plain = name.strip_prefix(b"./").unwrap_or(name);
    names.iter().any(|own| own.as_bytes() == plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_footer_has_a_fixed_size() {
        let footer = footer(0x1234);
        assert_eq!(footer.len(), FOOTER_BYTES);
        assert_eq!(&footer[16..38], b"0000000000001234STARGZ");
    }
}
