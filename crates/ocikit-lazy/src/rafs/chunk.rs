//! Chunks: the parts of files, and how a blob stores them.

use crate::rafs::bytes::Record;
use crate::rafs::options::Compressor;

/// The block size of the file system in bytes. Uncompressed chunks start at a multiple of it in RAFS v6.
pub(super) const BLOCK: u64 = 4096;

/// The maximum number of chunks in a blob: an index has 24 bits.
pub(super) const MAX_CHUNKS: usize = (1 << 24) - 1;

/// The maximum size of a blob in bytes: a chunk information has 40 bits for the offset.
pub(super) const MAX_BLOB_BYTES: u64 = 1 << 40;

/// The maximum uncompressed size of a blob in bytes.
pub(super) const MAX_UNCOMPRESSED_BYTES: u64 = 1 << 44;

/// A chunk in a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk {
    /// The digest of its uncompressed bytes.
    pub(super) digest: [u8; 32],
    /// Its position in the blob.
    pub(super) offset: u64,
    /// Its position in the concatenation of the uncompressed chunks.
    pub(super) uncompressed_offset: u64,
    /// The number of bytes in the blob.
    pub(super) stored: u32,
    /// The number of uncompressed bytes.
    pub(super) size: u32,
    /// Its number in the blob.
    pub(super) index: u32,
    /// Whether it is compressed.
    pub(super) is_compressed: bool,
}

/// A chunk of one of the blobs of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ChunkRef {
    /// The position of the blob in the list of blobs of the conversion.
    pub(super) blob: u16,
    /// The position of the chunk in the list of chunks of the blob.
    pub(super) chunk: u32,
}

/// The digest of chunks, with its number in the tables of blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Digester {
    Blake3 = 0,
    Sha256 = 1,
}

impl Digester {
    pub(super) fn digest(self, bytes: &[u8]) -> [u8; 32] {
        match self {
            Digester::Blake3 => *blake3::hash(bytes).as_bytes(),
            Digester::Sha256 => sha256(bytes),
        }
    }

    pub(super) fn of_code(code: u32) -> Option<Digester> {
        [Digester::Blake3, Digester::Sha256].into_iter().find(|digester| *digester as u32 == code)
    }

    /// Returns the flag in the superblock.
    pub(super) fn flag(self) -> u64 {
        match self {
            Digester::Blake3 => 0x4,
            Digester::Sha256 => 0x8,
        }
    }
}

/// Returns the SHA-256 digest as bytes.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    raw(ocikit_spec::Digest::sha256_of(bytes))
}

/// Returns the bytes of a SHA-256 digest.
pub(super) fn raw(digest: ocikit_spec::Digest) -> [u8; 32] {
    let mut bytes = [0; 32];
    let length = digest.as_bytes().len().min(bytes.len());
    bytes[..length].copy_from_slice(&digest.as_bytes()[..length]);
    bytes
}

/// The compression of stored bytes, as the tables of blobs number it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Stored {
    None = 0,
    Lz4 = 1,
    Gzip = 2,
    Zstd = 3,
}

impl Stored {
    const ALL: [Stored; 4] = [Stored::None, Stored::Lz4, Stored::Gzip, Stored::Zstd];

    pub(super) fn of_code(code: u32) -> Option<Stored> {
        Stored::ALL.into_iter().find(|stored| *stored as u32 == code)
    }

    /// Returns the flag in the superblock.
    pub(super) fn flag(self) -> u64 {
        match self {
            Stored::None => 0x1,
            Stored::Lz4 => 0x2,
            Stored::Gzip => 0x40,
            Stored::Zstd => 0x80,
        }
    }

    /// Returns the compression of which exactly one flag is set.
    pub(super) fn of_flags(flags: u64) -> Option<Stored> {
        let mut found = Stored::ALL.into_iter().filter(|stored| flags & stored.flag() != 0);
        let first = found.next()?;
        found.next().is_none().then_some(first)
    }
}

impl From<Compressor> for Stored {
    fn from(compressor: Compressor) -> Stored {
        match compressor {
            Compressor::None => Stored::None,
            Compressor::Lz4 => Stored::Lz4,
            Compressor::Zstd => Stored::Zstd,
        }
    }
}

/// The size of an entry of the array of chunk information in bytes.
pub(super) const INFORMATION_BYTES: u64 = 16;

impl Chunk {
    /// Returns the entry in the array of chunk information of the blob, version 1. A chunk whose sizes are equal counts
    /// as not compressed.
    pub(super) fn information(&self) -> [u8; INFORMATION_BYTES as usize] {
        let split = |size: u32, high: u32| {
            let less = u64::from(size.wrapping_sub(1));
            (less & 0xf_ffff) << 44 | (less >> 20 & 0xf) << high
        };
        let uncompressed = (self.uncompressed_offset & 0xfff_ffff_f000) | split(self.size, 8);
        let stored = (self.offset & 0xff_ffff_ffff) | split(self.stored, 40);
        Record::<16>::new().u64(0, uncompressed).u64(8, stored).done()
    }

    /// Returns the record of the chunk in a bootstrap, given the position of its blob in the table and its position in
    /// the file that has it.
    pub(super) fn record(&self, blob: u16, file_offset: u64) -> [u8; 80] {
        Record::<80>::new()
            .bytes(0, &self.digest)
            .u32(32, u32::from(blob))
            .u32(36, u32::from(self.is_compressed))
            .u32(40, self.stored)
            .u32(44, self.size)
            .u64(48, self.offset)
            .u64(56, self.uncompressed_offset)
            .u64(64, file_offset)
            .u32(72, self.index)
            .done()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_information_has_the_bytes_of_nydus() {
        let chunk = Chunk {
            digest: [0; 32],
            offset: 0,
            uncompressed_offset: 0,
            stored: 5000,
            size: 5000,
            index: 0,
            is_compressed: false,
        };
        assert_eq!(hex(&chunk.information()), "00000000007038010000000000703801");
        let chunk = Chunk { offset: 5000, uncompressed_offset: 0x2000, stored: 1 << 20, size: 1 << 20, ..chunk };
        assert_eq!(hex(&chunk.information()), "0020000000f0ffff8813000000f0ffff");
        let chunk = Chunk { stored: 16 << 20, size: 16 << 20, ..chunk };
        assert_eq!(hex(&chunk.information()), "002f000000f0ffff8813000000ffffff");
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
