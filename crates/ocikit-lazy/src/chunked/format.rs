//! The names and numbers of the format.

/// The annotation with the digest of the compressed table of contents.
pub const MANIFEST_CHECKSUM: &str = "io.github.containers.zstd-chunked.manifest-checksum";

/// The annotation with the place of the table of contents: `OFFSET:COMPRESSED:UNCOMPRESSED:1`.
pub const MANIFEST_POSITION: &str = "io.github.containers.zstd-chunked.manifest-position";

/// The annotation with the place of the tar-split: `OFFSET:COMPRESSED:UNCOMPRESSED`.
pub const TAR_SPLIT_POSITION: &str = "io.github.containers.zstd-chunked.tarsplit-position";

/// The end of the footer.
pub(crate) const MAGIC: [u8; 8] = *b"GNUlInUx";

/// The size of the footer in bytes, without the header of its frame.
pub(crate) const FOOTER_BYTES: usize = 64;

/// The start of a frame that readers skip. RFC 8878, section 3.1.2.
pub(crate) const SKIPPABLE_MAGIC: [u8; 4] = [0x50, 0x2a, 0x4d, 0x18];
