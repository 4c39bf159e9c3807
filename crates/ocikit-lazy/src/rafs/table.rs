//! The blobs of a bootstrap.

use std::collections::HashMap;

use crate::rafs::chunk::{Chunk, ChunkRef, Digester, Stored};
use crate::rafs::options::{ChunkSize, RafsVersion};
use crate::rafs::tree::Names;

/// The features of a blob, as bits.
pub(super) mod feature {
    /// Uncompressed chunks start at multiples of 4 KiB.
    pub(in crate::rafs) const ALIGNED: u32 = 0x1;
    /// The bootstrap is in the blob.
    pub(in crate::rafs) const INLINED_BOOTSTRAP: u32 = 0x2;
    /// Chunk information of version 2.
    pub(in crate::rafs) const INFORMATION_V2: u32 = 0x4;
    /// The chunks are ranges of a gzip stream.
    pub(in crate::rafs) const ZRAN: u32 = 0x8;
    /// The digests of the chunks are in the blob.
    pub(in crate::rafs) const CHUNK_DIGESTS: u32 = 0x20;
    /// The blob is a plain tar.
    pub(in crate::rafs) const TARFS: u32 = 0x40;
    /// Several chunks are compressed together.
    pub(in crate::rafs) const BATCH: u32 = 0x80;
    /// Chunks are encrypted.
    pub(in crate::rafs) const ENCRYPTED: u32 = 0x100;
    /// The data is elsewhere.
    pub(in crate::rafs) const EXTERNAL: u32 = 0x800;
    /// A tar header follows the data.
    pub(in crate::rafs) const TAR_HEADER: u32 = 0x1000_0000;
    /// The blob has a table of contents.
    pub(in crate::rafs) const CONTENTS: u32 = 0x2000_0000;
    /// The blob is written as by version 2.2 or later.
    pub(in crate::rafs) const SINCE_2_2: u32 = 0x4000_0000;
}

/// The bits of the superblock that do not depend on compression and digests.
pub(super) mod flag {
    /// The owners of files are those in the inodes.
    pub(in crate::rafs) const OWNERS: u64 = 0x10;
    /// Some inode has extended attributes.
    pub(in crate::rafs) const XATTRS: u64 = 0x20;
    /// Every blob has the digests of its chunks.
    pub(in crate::rafs) const CHUNK_DIGESTS: u64 = 0x100;
    /// Chunks are not encrypted.
    pub(in crate::rafs) const NOT_ENCRYPTED: u64 = 0x0100_0000;
}

/// The maximum number of blobs of a bootstrap.
pub(super) const MAX_BLOBS: usize = 254;

/// The identifier of the blob that a bootstrap is in, whose digest is not known yet.
pub(super) const OWN_ID: [u8; 64] = [b'x'; 64];

/// A blob, as bootstraps describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BlobInfo {
    /// The digest in hexadecimal digits, or [`OWN_ID`].
    pub(super) id: [u8; 64],
    pub(super) chunk_count: u32,
    pub(super) chunk_size: ChunkSize,
    pub(super) stored: Stored,
    pub(super) digester: Digester,
    pub(super) features: u32,
    /// The end of what is before the bootstrap in the blob.
    pub(super) size: u64,
    pub(super) uncompressed_size: u64,
    pub(super) information: Information,
}

/// The array of chunk information in a blob. RAFS v5 has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Information {
    pub(super) stored: Stored,
    pub(super) offset: u64,
    pub(super) size: u64,
    pub(super) real_size: u64,
}

impl Information {
    pub(super) const NONE: Information = Information { stored: Stored::None, offset: 0, size: 0, real_size: 0 };
}

/// Returns the identifier of a blob with this digest.
pub(super) fn id_of(digest: &ocikit_spec::Digest) -> [u8; 64] {
    let mut id = OWN_ID;
    let hex = digest.hex();
    let length = hex.len().min(id.len());
    id[..length].copy_from_slice(&hex.as_bytes()[..length]);
    id
}

/// A blob that files may use.
#[derive(Debug, Clone)]
pub(super) struct Candidate<'a> {
    pub(super) info: BlobInfo,
    pub(super) chunks: &'a [Chunk],
}

/// The blobs that files use, in the order of their first use, and the chunks that they use.
#[derive(Debug)]
pub(super) struct Table<'a> {
    pub(super) blobs: Vec<Candidate<'a>>,
    /// The position in the table of each blob of the conversion.
    slots: Vec<Option<u16>>,
    /// For each chunk of each blob the number of chunks before it in the first file that has it.
    uses: Vec<Vec<u32>>,
}

/// The mark of a chunk that no file has.
const UNUSED: u32 = u32::MAX;

/// The files do not fit into a bootstrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum TooLarge {
    #[error("the files are in more than {MAX_BLOBS} blobs, the maximum of Nydus; merge layers first")]
    Blobs,
    #[error("the files do not fit into a Nydus bootstrap of version 5")]
    V5,
    #[error("the files do not fit into a Nydus bootstrap")]
    V6,
}

impl<'a> Table<'a> {
    /// Numbers the blobs that the files use. A candidate is missing if no file can use it.
    pub(super) fn of(names: &Names<'_>, candidates: &[Option<Candidate<'a>>]) -> Result<Table<'a>, TooLarge> {
        let mut table = Table { blobs: Vec::new(), slots: vec![None; candidates.len()], uses: Vec::new() };
        let mut by_id: HashMap<[u8; 64], u16> = HashMap::new();
        for inode in &names.inodes {
            for (at, chunk) in (0_u32..).zip(inode.chunks) {
                let blob = usize::from(chunk.blob);
                let Some(Some(candidate)) = candidates.get(blob) else { continue };
                let slot = match table.slots[blob] {
                    Some(slot) => slot,
                    None => {
                        // Two equal layers have the same blob.
                        let slot = *by_id.entry(candidate.info.id).or_insert_with(|| {
                            table.blobs.push(candidate.clone());
                            table.uses.push(vec![UNUSED; candidate.chunks.len()]);
                            u16::try_from(table.blobs.len() - 1).unwrap_or(u16::MAX)
                        });
                        if usize::from(slot) >= MAX_BLOBS {
                            return Err(TooLarge::Blobs);
                        }
                        table.slots[blob] = Some(slot);
                        slot
                    }
                };
                if let Some(first) = table.uses[usize::from(slot)].get_mut(chunk.chunk as usize) {
                    *first = at.min(*first);
                }
            }
        }
        Ok(table)
    }

    /// Returns the chunk, with the position of its blob in the table.
    pub(super) fn chunk(&self, at: ChunkRef) -> Option<(u16, &'a Chunk)> {
        let slot = (*self.slots.get(usize::from(at.blob))?)?;
        let chunk = self.blobs.get(usize::from(slot))?.chunks.get(at.chunk as usize)?;
        Some((slot, chunk))
    }

    /// Returns whether files use a blob of the conversion.
    pub(super) fn uses(&self, blob: usize) -> bool {
        self.slots.get(blob).is_some_and(Option::is_some)
    }

    /// Returns the records of all chunks that files use, each once, sorted by their digests and blobs.
    pub(super) fn records(&self) -> impl Iterator<Item = [u8; 80]> + '_ {
        let mut used = Vec::new();
        for (slot, uses) in (0_u16..).zip(&self.uses) {
            used.extend((0_u32..).zip(uses).filter(|(_, first)| **first != UNUSED).map(|(chunk, _)| (slot, chunk)));
        }
        let chunk = |(slot, chunk): (u16, u32)| &self.blobs[usize::from(slot)].chunks[chunk as usize];
        used.sort_unstable_by_key(|at| (chunk(*at).digest, at.0));
        used.into_iter().map(move |(slot, number)| {
            let blob = &self.blobs[usize::from(slot)];
            let before = self.uses[usize::from(slot)][number as usize];
            let file_offset = u64::from(before) * u64::from(blob.info.chunk_size.bytes());
            blob.chunks[number as usize].record(slot, file_offset)
        })
    }

    /// Returns the number of chunks that files use.
    pub(super) fn chunk_count(&self) -> u64 {
        self.uses.iter().flatten().filter(|first| **first != UNUSED).count() as u64
    }
}

/// What applies to all files of a bootstrap.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) version: RafsVersion,
    pub(super) stored: Stored,
    pub(super) digester: Digester,
    pub(super) chunk_size: ChunkSize,
}

/// What a bootstrap is made of.
#[derive(Debug)]
pub(super) struct Contents<'a> {
    pub(super) names: &'a Names<'a>,
    pub(super) table: &'a Table<'a>,
    pub(super) settings: Settings,
    /// The positions of the names that are read ahead.
    pub(super) prefetch: Vec<usize>,
}

impl Contents<'_> {
    /// Returns the flags of the superblock, without those of one version.
    pub(super) fn flags(&self) -> u64 {
        let blobs = &self.table.blobs;
        let digests = !blobs.is_empty() && blobs.iter().all(|blob| blob.info.features & feature::CHUNK_DIGESTS != 0);
        let xattrs = if self.names.have_xattrs() { flag::XATTRS } else { 0 };
        let digests = if digests { flag::CHUNK_DIGESTS } else { 0 };
        self.settings.stored.flag() | self.settings.digester.flag() | flag::OWNERS | xattrs | digests
    }
}
