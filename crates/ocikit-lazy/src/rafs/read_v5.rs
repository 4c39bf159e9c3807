//! Reads RAFS v5.

use std::collections::HashMap;

use ocikit_image::files::{FileKind, Kind, Metadata, Path, Time};

use crate::error::Result;
use crate::rafs::chunk::{Chunk, ChunkRef};
use crate::rafs::options::RafsVersion;
use crate::rafs::read::{
    Bytes, Collected, Fields, NydusBootstrap, check_chunk, check_id, child, invalid, kind, size_of_file,
};
use crate::rafs::table::{BlobInfo, Information, MAX_BLOBS, Settings};
use crate::rafs::tree::{MAX_NAME_BYTES, MAX_TARGET_BYTES};
use crate::rafs::v5::{
    ALIGNMENT, EXTENDED_BLOB_BYTES, HAS_XATTRS, INODE_BYTES, IS_HARD_LINK, SUPERBLOCK_BYTES, VERSION,
};

/// The size of the record of a chunk in bytes.
const CHUNK_BYTES: u64 = 80;

/// The maximum size of the extended attributes of a file in bytes.
const MAX_XATTR_BYTES: u64 = 256 << 10;

/// The maximum size of the table of blobs in bytes.
const MAX_BLOB_TABLE_BYTES: u32 = (MAX_BLOBS as u32) * 80;

/// A bootstrap that is read.
struct Reader<'a> {
    bytes: &'a Bytes<'a>,
    inode_table: u64,
    inodes: u32,
    settings: Settings,
    blobs: Vec<BlobInfo>,
    chunks: Vec<Vec<Chunk>>,
    /// The positions of chunks by blob and number.
    known: HashMap<(u16, u32), u32>,
    collected: Collected,
    /// The last name in each directory on the way to the current file, the root first.
    last_names: Vec<Vec<u8>>,
    /// Whether each inode was read.
    seen: Vec<bool>,
}

/// An inode with its name.
struct Inode {
    number: u64,
    is_hard_link: bool,
    name: Vec<u8>,
    kind: FileKind,
    metadata: Metadata,
    /// The first of the children of a directory.
    first: u32,
    /// The number of children or chunks.
    count: u32,
    chunks: u64,
}

pub(super) fn read(bytes: &Bytes<'_>) -> Result<NydusBootstrap> {
    let superblock: Fields<80> = bytes.fields(0)?;
    if superblock.u32(4) != VERSION || u64::from(superblock.u32(8)) != SUPERBLOCK_BYTES {
        return Err(invalid("it has an unknown version"));
    }
    let settings = Settings::read(RafsVersion::V5, superblock.u64(16), superblock.u32(12))?;
    let (inode_table, inodes) = (superblock.u64(32), superblock.u32(56));
    bytes.check(inode_table, u64::from(inodes) * 4)?;
    let collected = Collected::default();
    // Each is a file.
    collected.check_more(size_of_file(b"").saturating_mul(inodes.into()))?;
    let blobs = blobs(bytes, &superblock, settings)?;
    let mut reader = Reader {
        bytes,
        inode_table,
        inodes,
        settings,
        chunks: vec![Vec::new(); blobs.len()],
        blobs,
        known: HashMap::new(),
        collected,
        last_names: Vec::new(),
        seen: vec![false; usize::try_from(inodes).unwrap_or_default()],
    };
    reader.walk()?;
    let Reader { collected, blobs, chunks, .. } = reader;
    Ok(collected.finish(settings, blobs, chunks))
}

fn blobs(bytes: &Bytes<'_>, superblock: &Fields<80>, settings: Settings) -> Result<Vec<BlobInfo>> {
    let (offset, size) = (superblock.u64(48), superblock.u32(64));
    let (extended, count) = (superblock.u64(72), superblock.u32(68));
    if size > MAX_BLOB_TABLE_BYTES {
        return Err(invalid("its table of blobs is too large"));
    }
    let table = bytes.vec(offset, usize::try_from(size).unwrap_or_default())?;
    let mut rest = &table[..];
    let mut blobs = Vec::new();
    while let Some((entry, after)) = rest.split_at_checked(8 + 64) {
        let mut id = [0; 64];
        id.copy_from_slice(&entry[8..]);
        check_id(&id)?;
        let number = blobs.len() as u64;
        let mut info = BlobInfo {
            id,
            chunk_count: 0,
            chunk_size: settings.chunk_size,
            stored: settings.stored,
            digester: settings.digester,
            features: 0,
            size: 0,
            uncompressed_size: 0,
            information: Information::NONE,
        };
        if number < u64::from(count) {
            let entry: Fields<{ EXTENDED_BLOB_BYTES as usize }> =
                bytes.fields(extended.saturating_add(number * EXTENDED_BLOB_BYTES))?;
            (info.chunk_count, info.features) = (entry.u32(0), entry.u32(4));
            (info.uncompressed_size, info.size) = (entry.u64(8), entry.u64(16));
        }
        blobs.push(info);
        // A zero byte is between two blobs.
        rest = after.get(1..).unwrap_or_default();
    }
    Ok(blobs)
}

impl Reader<'_> {
    fn walk(&mut self) -> Result<()> {
        let mut next = vec![(1, Path::root(), 0)];
        while let Some((index, directory, depth)) = next.pop() {
            let position = usize::try_from(index).unwrap_or(usize::MAX).wrapping_sub(1);
            match self.seen.get_mut(position) {
                Some(seen) if !*seen => *seen = true,
                Some(_) => return Err(invalid("an inode is in two directories")),
                None => return Err(invalid("an inode is missing")),
            }
            let inode = self.inode(index)?;
            let path = match index {
                1 => Path::root(),
                _ => {
                    self.check_order(depth - 1, &inode.name)?;
                    child(&directory, &inode.name)?
                }
            };
            if index == 1 && inode.kind != FileKind::Directory {
                return Err(invalid("its root is not a directory"));
            }
            let is_directory = inode.kind == FileKind::Directory;
            let first_name = match inode.is_hard_link && !is_directory {
                true => self.collected.first_name(inode.number, &path),
                false => None,
            };
            if let Some(target) = first_name {
                self.collected.add(path, Kind::HardLink { target }, Metadata::default())?;
                continue;
            }
            let is_file = matches!(inode.kind, FileKind::Regular { .. });
            self.collected.add(path.clone(), Kind::File(inode.kind.clone()), inode.metadata.clone())?;
            if is_file {
                self.file_chunks(&path, &inode)?;
            }
            if is_directory && inode.count > 0 {
                let end = u64::from(inode.first) + u64::from(inode.count);
                if inode.first <= 1 || end > u64::from(self.inodes) + 1 {
                    return Err(invalid(format_args!("directory `{path}` has inodes that are missing")));
                }
                let pending = next.len().saturating_add(usize::try_from(inode.count).unwrap_or(usize::MAX));
                // They share the path of the directory.
                self.collected.check_more(size_of_file(b"").saturating_mul(pending as u64))?;
                let children = inode.first..inode.first + inode.count;
                next.extend(children.rev().map(|index| (index, path.clone(), depth + 1)));
            }
        }
        Ok(())
    }

    /// Checks that the names in a directory are in order, so that each is there once. Files are read depth first.
    fn check_order(&mut self, depth: usize, name: &[u8]) -> Result<()> {
        self.last_names.truncate(depth + 1);
        if self.last_names.len() > depth && self.last_names.pop().is_some_and(|last| *last >= *name) {
            return Err(invalid("the names in a directory are not in order"));
        }
        self.last_names.push(name.to_vec());
        Ok(())
    }

    fn inode(&self, index: u32) -> Result<Inode> {
        let entry: Fields<4> = self.bytes.fields(self.inode_table + (u64::from(index) - 1) * 4)?;
        let at = u64::from(entry.u32(0)) * ALIGNMENT;
        let record: Fields<{ INODE_BYTES as usize }> = self.bytes.fields(at)?;
        let (name_bytes, target_bytes) = (usize::from(record.u16(100)), usize::from(record.u16(102)));
        if name_bytes > MAX_NAME_BYTES || target_bytes > MAX_TARGET_BYTES {
            return Err(invalid("a name is too long"));
        }
        let flags = record.u64(80);
        let mut offset = at + INODE_BYTES;
        let name = self.bytes.vec(offset, name_bytes)?;
        offset += (name_bytes as u64).next_multiple_of(ALIGNMENT);
        let target = self.bytes.vec(offset, target_bytes)?;
        offset += (target_bytes as u64).next_multiple_of(ALIGNMENT);
        let mode = record.u32(60);
        let mut metadata = Metadata {
            mode: mode & 0o7777,
            uid: u64::from(record.u32(48)),
            gid: u64::from(record.u32(52)),
            modified: Time { seconds: record.u64(112).cast_signed(), nanoseconds: record.u32(108) },
            ..Metadata::default()
        };
        if metadata.modified.nanoseconds >= 1_000_000_000 {
            return Err(invalid("a time has too many nanoseconds"));
        }
        if flags & HAS_XATTRS != 0 {
            offset = self.xattrs(offset, &mut metadata)?;
        }
        Ok(Inode {
            number: record.u64(40),
            // nydus-image does not set the flag in merged bootstraps.
            is_hard_link: flags & IS_HARD_LINK != 0 || record.u32(88) > 1,
            name,
            kind: kind(mode, record.u64(64), &target, record.u32(104))?,
            metadata,
            first: record.u32(92),
            count: record.u32(96),
            chunks: offset,
        })
    }

    /// Reads extended attributes, and returns the offset behind them.
    fn xattrs(&self, at: u64, metadata: &mut Metadata) -> Result<u64> {
        let size = self.bytes.fields::<8>(at)?.u64(0);
        if size > MAX_XATTR_BYTES {
            return Err(invalid("a file has too many extended attributes"));
        }
        let bytes = self.bytes.vec(at + 8, usize::try_from(size).unwrap_or_default())?;
        let damaged = || invalid("an extended attribute is damaged");
        let mut rest = &bytes[..];
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
            let (pair, after) = after.split_at_checked(length).ok_or_else(damaged)?;
            let zero = pair.iter().position(|byte| *byte == 0).ok_or_else(damaged)?;
            let name = String::from_utf8_lossy(&pair[..zero]);
            metadata.xattrs.insert(name.into(), pair[zero + 1..].into());
            rest = after;
        }
        Ok(at + 8 + size.next_multiple_of(ALIGNMENT))
    }

    fn file_chunks(&mut self, path: &Path, inode: &Inode) -> Result<()> {
        let FileKind::Regular { size } = inode.kind else { return Ok(()) };
        let chunk_size = u64::from(self.settings.chunk_size.bytes());
        let count = size.div_ceil(chunk_size);
        if count != u64::from(inode.count) {
            return Err(invalid(format_args!("`{path}` has chunks for another size")));
        }
        self.bytes.check(inode.chunks, count.saturating_mul(CHUNK_BYTES))?;
        self.collected.expect(count)?;
        for number in 0..count {
            let record: Fields<{ CHUNK_BYTES as usize }> = self.bytes.fields(inode.chunks + number * CHUNK_BYTES)?;
            let (blob, chunk) = record.chunk();
            let blob = u16::try_from(blob).unwrap_or(u16::MAX);
            let Some(info) = self.blobs.get(usize::from(blob)) else {
                return Err(invalid(format_args!("a chunk of `{path}` is in a blob that is missing in the table")));
            };
            check_chunk(&chunk, info)?;
            if u64::from(chunk.size) != chunk_size.min(size - number * chunk_size) {
                return Err(invalid(format_args!("a chunk of `{path}` has another size")));
            }
            let list = &mut self.chunks[usize::from(blob)];
            let position = match self.known.get(&(blob, chunk.index)) {
                Some(position) if list[*position as usize] == chunk => *position,
                Some(_) => return Err(invalid("a blob has two chunks with one number")),
                None => {
                    self.collected.count_chunks(1)?;
                    let position = u32::try_from(list.len()).unwrap_or(u32::MAX);
                    self.known.insert((blob, chunk.index), position);
                    list.push(chunk);
                    position
                }
            };
            self.collected.add_chunk(ChunkRef { blob, chunk: position });
        }
        Ok(())
    }
}
