//! Reads RAFS v6.

use std::collections::HashSet;

use ocikit_image::files::{FileKind, Kind, Metadata, Path, Time};

use crate::error::{Error, Result};
use crate::rafs::chunk::{BLOCK, Chunk, ChunkRef, Digester, Stored};
use crate::rafs::options::{ChunkSize, RafsVersion};
use crate::rafs::read::{
    Bytes, Collected, Fields, NydusBootstrap, check_chunk, check_id, child, invalid, kind, size_of_file,
};
use crate::rafs::table::{BlobInfo, Information, MAX_BLOBS, Settings, feature};
use crate::rafs::tree::{MAX_TARGET_BYTES, prefix};
use crate::rafs::v6::{
    BLOB_ENTRY_BYTES, CHUNK_ENTRY_BYTES, CHUNKS_AND_DEVICES, DEVICE_BYTES, DEVICE_OFFSET, EXTENDED_OFFSET, INDEXES,
    INODE_BYTES, RAFS_V6, SLOT_BYTES, SUPERBLOCK_OFFSET,
};

/// The size of the short form of an inode, which older tools write.
const COMPACT_BYTES: u64 = 32;

/// The features of blobs whose chunks cannot be read one by one.
const UNSUPPORTED: u32 = feature::ZRAN | feature::BATCH | feature::ENCRYPTED | feature::TARFS | feature::EXTERNAL;

/// The maximum number of bytes of directories, to which hostile ones could refer again and again.
const MAX_DIRECTORY_BYTES: u64 = 256 << 20;

/// A bootstrap that is read.
struct Reader<'a> {
    bytes: &'a Bytes<'a>,
    metadata: u64,
    build_time: Time,
    settings: Settings,
    blobs: Vec<BlobInfo>,
    chunks: Vec<Vec<Chunk>>,
    collected: Collected,
    directories: HashSet<u64>,
    directory_bytes: u64,
}

/// An inode.
struct Inode {
    /// Where its attributes start.
    end: u64,
    xattr_bytes: u64,
    layout: u16,
    mode: u32,
    size: u64,
    union: u32,
    metadata: Metadata,
    links: u32,
}

pub(super) fn read(bytes: &Bytes<'_>) -> Result<NydusBootstrap> {
    let superblock: Fields<128> = bytes.fields(SUPERBLOCK_OFFSET)?;
    if superblock.0[12] != 12 || superblock.u32(80) != CHUNKS_AND_DEVICES || superblock.u32(8) & RAFS_V6 == 0 {
        return Err(invalid("it is an EROFS image of another kind"));
    }
    if u64::from(superblock.u16(88)) * DEVICE_BYTES != DEVICE_OFFSET {
        return Err(invalid("its devices are not where they belong"));
    }
    let extended: Fields<256> = bytes.fields(EXTENDED_OFFSET)?;
    let settings = Settings::read(RafsVersion::V6, extended.u64(0), extended.u32(20))?;
    let mut collected = Collected::default();
    let blobs = blobs(bytes, extended.u64(8), extended.u32(16), superblock.u16(86))?;
    let chunks = chunks(bytes, &blobs, extended.u64(24), extended.u64(32), &mut collected)?;
    let build_time = Time { seconds: superblock.u64(24).cast_signed(), nanoseconds: superblock.u32(32) };
    let mut reader = Reader {
        bytes,
        metadata: u64::from(superblock.u32(40)) * BLOCK,
        build_time,
        settings,
        blobs,
        chunks,
        collected,
        directories: HashSet::new(),
        directory_bytes: 0,
    };
    reader.walk(u64::from(superblock.u16(14)))?;
    let Reader { collected, blobs, chunks, .. } = reader;
    Ok(collected.finish(settings, blobs, chunks))
}

fn blobs(bytes: &Bytes<'_>, offset: u64, size: u32, devices: u16) -> Result<Vec<BlobInfo>> {
    let count = u64::from(size) / BLOB_ENTRY_BYTES;
    if u64::from(size) % BLOB_ENTRY_BYTES != 0 || count > MAX_BLOBS as u64 || count != u64::from(devices) {
        return Err(invalid("its table of blobs has an impossible size"));
    }
    (0..count)
        .map(|number| {
            let entry: Fields<{ BLOB_ENTRY_BYTES as usize }> =
                bytes.fields(offset.saturating_add(number * BLOB_ENTRY_BYTES))?;
            let unknown = || invalid(format_args!("blob {number} has an unknown compression or digest algorithm"));
            let info = BlobInfo {
                id: entry.array(0),
                chunk_size: ChunkSize::new(entry.u32(68)).ok_or_else(|| invalid("a chunk size is not possible"))?,
                chunk_count: entry.u32(72),
                stored: Stored::of_code(entry.u32(76)).ok_or_else(unknown)?,
                digester: Digester::of_code(entry.u32(80)).ok_or_else(unknown)?,
                features: entry.u32(84),
                size: entry.u64(88),
                uncompressed_size: entry.u64(96),
                information: Information {
                    stored: Stored::of_code(entry.u32(108)).ok_or_else(unknown)?,
                    offset: entry.u64(112),
                    size: entry.u64(120),
                    real_size: entry.u64(128),
                },
            };
            check_id(&info.id)?;
            Ok(info)
        })
        .collect()
}

fn chunks(
    bytes: &Bytes<'_>,
    blobs: &[BlobInfo],
    offset: u64,
    size: u64,
    collected: &mut Collected,
) -> Result<Vec<Vec<Chunk>>> {
    bytes.check(if size == 0 { 0 } else { offset }, size)?;
    let count = usize::try_from(size / CHUNK_ENTRY_BYTES).unwrap_or(usize::MAX);
    collected.count_chunks(count)?;
    let mut chunks = vec![Vec::new(); blobs.len()];
    for number in 0..count as u64 {
        let record: Fields<{ CHUNK_ENTRY_BYTES as usize }> = bytes.fields(offset + number * CHUNK_ENTRY_BYTES)?;
        let (blob, chunk) = record.chunk();
        let position = usize::try_from(blob).unwrap_or(usize::MAX);
        let (Some(info), Some(list)) = (blobs.get(position), chunks.get_mut(position)) else {
            return Err(invalid("a chunk is in a blob that is missing in the table"));
        };
        check_chunk(&chunk, info)?;
        list.push(chunk);
    }
    for list in &mut chunks {
        list.sort_unstable_by_key(|chunk| chunk.index);
        if list.windows(2).any(|pair| pair[0].index == pair[1].index) {
            return Err(invalid("a blob has two chunks with one number"));
        }
    }
    Ok(chunks)
}

impl Reader<'_> {
    fn walk(&mut self, root: u64) -> Result<()> {
        let mut next = vec![(root, Path::root())];
        while let Some((address, path)) = next.pop() {
            self.collected.arrived(&path);
            let inode = self.inode(address)?;
            if !self.file(address, &path, &inode)? {
                continue;
            }
            if !self.directories.insert(address) {
                return Err(invalid(format_args!("directory `{path}` has two names")));
            }
            let start = next.len();
            for (name, address) in self.names(&inode)? {
                let path = child(&path, &name)?;
                self.collected.announce(&path)?;
                next.push((address, path));
            }
            // The last one is read next.
            next[start..].reverse();
        }
        Ok(())
    }

    /// Adds a file, and returns whether it is a directory.
    fn file(&mut self, address: u64, path: &Path, inode: &Inode) -> Result<bool> {
        let is_symlink = inode.mode & 0o170_000 == 0o120_000;
        let target = match is_symlink {
            true if inode.size > MAX_TARGET_BYTES as u64 => return Err(invalid("the target of a symlink is too long")),
            true => self.data(inode, 0, inode.size)?,
            false => Vec::new(),
        };
        let kind = kind(inode.mode, inode.size, &target, inode.union)?;
        if path.is_root() && kind != FileKind::Directory {
            return Err(invalid("its root is not a directory"));
        }
        let is_directory = kind == FileKind::Directory;
        let is_file = matches!(kind, FileKind::Regular { .. });
        if !is_directory
            && inode.links > 1
            && let Some(target) = self.collected.first_name(address, path)
        {
            self.collected.add(path.clone(), Kind::HardLink { target }, Metadata::default())?;
            return Ok(false);
        }
        self.collected.add(path.clone(), Kind::File(kind), inode.metadata.clone())?;
        if is_file {
            self.file_chunks(path, inode)?;
        }
        Ok(is_directory)
    }

    fn inode(&self, address: u64) -> Result<Inode> {
        let at = address.checked_mul(SLOT_BYTES).and_then(|offset| offset.checked_add(self.metadata));
        let at = at.ok_or_else(|| invalid("the address of an inode is too large"))?;
        let short: Fields<{ COMPACT_BYTES as usize }> = self.bytes.fields(at)?;
        let format = short.u16(0);
        let is_long = format & 1 != 0;
        let layout = format >> 1 & 7;
        if format >> 4 != 0 || !matches!(layout, 0 | 2 | 4) {
            return Err(invalid("an inode has an unknown layout"));
        }
        let xattr_bytes = match short.u16(2) {
            0 => 0,
            count => 12 + (u64::from(count) - 1) * 4,
        };
        let mode = u32::from(short.u16(4));
        let mut metadata = Metadata { mode: mode & 0o7777, ..Metadata::default() };
        let (size, links, end);
        if is_long {
            let long: Fields<{ INODE_BYTES as usize }> = self.bytes.fields(at)?;
            size = long.u64(8);
            (metadata.uid, metadata.gid) = (u64::from(long.u32(24)), u64::from(long.u32(28)));
            metadata.modified = Time { seconds: long.u64(32).cast_signed(), nanoseconds: long.u32(40) };
            links = long.u32(44);
            end = at + INODE_BYTES;
        } else {
            size = u64::from(short.u32(8));
            (metadata.uid, metadata.gid) = (u64::from(short.u16(24)), u64::from(short.u16(26)));
            metadata.modified = self.build_time;
            links = u32::from(short.u16(6));
            end = at + COMPACT_BYTES;
        }
        if metadata.modified.nanoseconds >= 1_000_000_000 {
            return Err(invalid("a time has too many nanoseconds"));
        }
        self.xattrs(end, xattr_bytes, &mut metadata)?;
        Ok(Inode { end, xattr_bytes, layout, mode, size, union: short.u32(16), metadata, links })
    }

    fn xattrs(&self, at: u64, length: u64, metadata: &mut Metadata) -> Result<()> {
        if length == 0 {
            return Ok(());
        }
        // At most 256 KiB, because the number of words has 16 bits.
        let bytes = self.bytes.vec(at, usize::try_from(length).unwrap_or(usize::MAX))?;
        if bytes[4] != 0 {
            return Err(invalid("shared extended attributes are not supported"));
        }
        let mut rest = &bytes[12..];
        while let [name_length, number, low, high, after @ ..] = rest {
            let name_length = usize::from(*name_length);
            let value_length = usize::from(u16::from_le_bytes([*low, *high]));
            if name_length == 0 && *number == 0 && value_length == 0 {
                break;
            }
            let whole = name_length + value_length;
            let entry = after.get(..whole).ok_or_else(|| invalid("an extended attribute is cut off"))?;
            let (name, value) = entry.split_at(name_length);
            let prefix = prefix(*number).ok_or_else(|| invalid("an extended attribute has an unknown prefix"))?;
            let name = format!("{prefix}{}", String::from_utf8_lossy(name));
            metadata.xattrs.insert(name.into(), value.into());
            rest = rest.get((4 + whole).next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(())
    }

    /// Returns a part of the contents of a directory or symlink.
    fn data(&self, inode: &Inode, offset: u64, length: u64) -> Result<Vec<u8>> {
        let full = inode.size / BLOCK * BLOCK;
        let at = match inode.layout {
            2 if offset >= full => inode.end.saturating_add(inode.xattr_bytes + (offset - full)),
            0 | 2 => (u64::from(inode.union) * BLOCK).saturating_add(offset),
            _ => return Err(invalid("a directory or symlink consists of chunks")),
        };
        self.bytes.vec(at, usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// Returns the names in a directory with the addresses of their inodes.
    fn names(&mut self, inode: &Inode) -> Result<Vec<(Vec<u8>, u64)>> {
        self.directory_bytes = self.directory_bytes.saturating_add(inode.size);
        if self.directory_bytes > MAX_DIRECTORY_BYTES {
            return Err(invalid("its directories are too large"));
        }
        let mut names = Vec::new();
        let (mut offset, mut memory) = (0, 0);
        while offset < inode.size {
            let length = BLOCK.min(inode.size - offset);
            let block = self.data(inode, offset, length)?;
            let before = names.len();
            block_names(&block, &mut names)?;
            memory += names[before..].iter().map(|(name, _)| size_of_file(name)).sum::<u64>();
            self.collected.check_more(memory)?;
            offset += length;
        }
        let wrong_order = names.windows(2).any(|pair| pair[0].0 >= pair[1].0);
        match wrong_order {
            true => Err(invalid("the names in a directory are not in order")),
            false => Ok(names),
        }
    }

    fn file_chunks(&mut self, path: &Path, inode: &Inode) -> Result<()> {
        if inode.size == 0 {
            return Ok(());
        }
        if inode.layout != 4 || inode.union & INDEXES == 0 {
            return Err(invalid(format_args!("`{path}` does not consist of chunks of blobs")));
        }
        let chunk_size = u64::from(self.settings.chunk_size.bytes());
        let count = inode.size.div_ceil(chunk_size);
        let at = inode.end.saturating_add(inode.xattr_bytes).next_multiple_of(8);
        self.bytes.check(at, count.saturating_mul(8))?;
        self.collected.expect(count)?;
        for number in 0..count {
            let address: Fields<8> = self.bytes.fields(at + number * 8)?;
            let device = address.u16(2);
            let index = u32::from(address.u16(0)) | u32::from(device >> 8) << 16;
            let blob = (device & 0xff).checked_sub(1);
            let length = chunk_size.min(inode.size - number * chunk_size);
            let found = blob.and_then(|blob| {
                let chunks = self.chunks.get(usize::from(blob))?;
                let chunk = chunks.binary_search_by_key(&index, |chunk| chunk.index).ok()?;
                Some((ChunkRef { blob, chunk: u32::try_from(chunk).ok()? }, &chunks[chunk]))
            });
            let Some((found, chunk)) = found else {
                return Err(invalid(format_args!("a chunk of `{path}` is missing in the table of chunks")));
            };
            if u64::from(chunk.size) != length || chunk.uncompressed_offset / BLOCK != u64::from(address.u32(4)) {
                return Err(invalid(format_args!("a chunk of `{path}` is not the one in the table of chunks")));
            }
            if self.blobs[usize::from(found.blob)].features & UNSUPPORTED != 0 {
                return Err(invalid(format_args!("`{path}` is in a blob of a kind that is not supported")));
            }
            self.collected.add_chunk(found);
        }
        Ok(())
    }
}

/// Adds the names in a block of a directory.
fn block_names(block: &[u8], names: &mut Vec<(Vec<u8>, u64)>) -> Result<()> {
    const ENTRY_BYTES: usize = 12;
    let damaged = || invalid("a block of a directory is damaged");
    let entry = |number: usize| {
        let bytes = block.get(number * ENTRY_BYTES..(number + 1) * ENTRY_BYTES).ok_or_else(damaged)?;
        let mut fields = [0; ENTRY_BYTES];
        fields.copy_from_slice(bytes);
        Ok::<_, Error>(Fields(fields))
    };
    let first = usize::from(entry(0)?.u16(8));
    let count = first / ENTRY_BYTES;
    if count == 0 || first % ENTRY_BYTES != 0 || first >= block.len() {
        return Err(damaged());
    }
    for number in 0..count {
        let fields = entry(number)?;
        let start = usize::from(fields.u16(8));
        let end = if number + 1 < count { usize::from(entry(number + 1)?.u16(8)) } else { block.len() };
        if start < first || start >= end {
            return Err(damaged());
        }
        let name = block.get(start..end).ok_or_else(damaged)?;
        // The last one may end at a zero byte.
        let name = match number + 1 == count {
            true => name.split(|byte| *byte == 0).next().unwrap_or_default(),
            false => name,
        };
        if !matches!(name, b"." | b"..") {
            names.push((name.to_vec(), fields.u64(0)));
        }
    }
    Ok(())
}
