//! Writes RAFS v6: an EROFS image whose files are on additional devices, which are the blobs.

use std::io::{self, Write};

use ocikit_image::files::FileKind;

use crate::rafs::bytes::{Positioned, Record, small, word};
use crate::rafs::chunk::BLOCK;
use crate::rafs::table::{BlobInfo, Contents, TooLarge, flag};
use crate::rafs::tree::{Inode, Name, device, mode, xattrs};

pub(super) const SUPERBLOCK_OFFSET: u64 = 1024;
pub(super) const EXTENDED_OFFSET: u64 = 1152;
pub(super) const DEVICE_OFFSET: u64 = 1408;
pub(super) const DEVICE_BYTES: u64 = 128;
pub(super) const BLOB_ENTRY_BYTES: u64 = 256;
pub(super) const CHUNK_ENTRY_BYTES: u64 = 80;
pub(super) const INODE_BYTES: u64 = 64;
/// Inodes are at multiples of this, which are their numbers.
pub(super) const SLOT_BYTES: u64 = 32;
pub(super) const MAGIC: u32 = 0xe0f5_e1e2;
/// The optional feature by which Nydus recognizes its version 6.
pub(super) const RAFS_V6: u32 = 0x4000_0000;
/// Files of chunks, and a table of devices.
pub(super) const CHUNKS_AND_DEVICES: u32 = 0xc;
/// Files have chunk addresses of 8 bytes.
pub(super) const INDEXES: u32 = 0x20;
/// The start of a device in the flat address space is a multiple of 512 KiB, in blocks.
const DEVICE_ALIGNMENT: u64 = 128;
const XATTR_HEADER_BYTES: u64 = 12;

/// How the data of an inode follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// In blocks of its own.
    Plain,
    /// The full blocks at another place, the rest behind the inode.
    Inline,
    /// Addresses of chunks behind the inode.
    Chunks,
}

/// Where everything is in a bootstrap.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    contents: &'a Contents<'a>,
    blob_table: u64,
    prefetch_table: u64,
    /// The start of the addresses of inodes.
    metadata: u64,
    /// The address of each inode.
    inodes: Vec<u32>,
    /// The blocks of directories and symlinks.
    blocks: u64,
    chunk_table: u64,
    /// The size of the bootstrap in bytes.
    pub(super) size: u64,
}

impl<'a> Plan<'a> {
    /// Decides where everything is.
    pub(super) fn of(contents: &'a Contents<'a>) -> Result<Plan<'a>, TooLarge> {
        let blobs = contents.table.blobs.len() as u64;
        let blob_table = (DEVICE_OFFSET + blobs * DEVICE_BYTES).next_multiple_of(BLOCK);
        let prefetch_table = blob_table + blobs * BLOB_ENTRY_BYTES;
        let metadata = match blobs {
            0 => 0,
            _ => (prefetch_table + contents.prefetch.len() as u64 * 4).next_multiple_of(BLOCK),
        };
        // The first block has no inode, because the address of the root must not be 0.
        let mut at = metadata + BLOCK;
        let mut inodes = Vec::with_capacity(contents.names.inodes.len());
        let mut own_blocks = 0;
        for inode in &contents.names.inodes {
            let extent = Extent::of(inode, contents);
            at = extent.place(at);
            inodes.push(u32::try_from((at - metadata) / SLOT_BYTES).map_err(|_| TooLarge::V6)?);
            at += extent.size();
            own_blocks += extent.blocks();
        }
        let blocks = at.next_multiple_of(BLOCK);
        let chunk_table = blocks + own_blocks * BLOCK;
        let size = (chunk_table + contents.table.chunk_count() * CHUNK_ENTRY_BYTES).next_multiple_of(BLOCK);
        // Addresses of blocks have 32 bits.
        let devices = contents.table.blobs.iter().map(|blob| device_blocks(&blob.info));
        let all: u64 = devices.map(|blocks| blocks.next_multiple_of(DEVICE_ALIGNMENT)).sum();
        match u32::try_from(size / BLOCK + DEVICE_ALIGNMENT + all) {
            Ok(_) => Ok(Plan { contents, blob_table, prefetch_table, metadata, inodes, blocks, chunk_table, size }),
            Err(_) => Err(TooLarge::V6),
        }
    }

    /// Writes the bootstrap.
    pub(super) fn write(&self, writer: impl Write) -> io::Result<()> {
        let mut out = Positioned::new(writer);
        out.zeros_to(SUPERBLOCK_OFFSET)?;
        out.put(&self.superblock())?;
        out.put(&self.extended())?;
        self.devices(&mut out)?;
        if !self.contents.table.blobs.is_empty() {
            out.zeros_to(self.blob_table)?;
            for (index, blob) in (0_u32..).zip(&self.contents.table.blobs) {
                out.put(&blob_entry(index, &blob.info))?;
            }
            for name in &self.contents.prefetch {
                out.put(&self.address(&self.contents.names.names[*name]).to_le_bytes())?;
            }
        }
        self.write_inodes(&mut out)?;
        out.zeros_to(self.blocks)?;
        self.write_blocks(&mut out)?;
        out.zeros_to(self.chunk_table)?;
        for record in self.contents.table.records() {
            out.put(&record)?;
        }
        out.zeros_to(self.size)
    }

    /// Returns the address of the inode of a name.
    fn address(&self, name: &Name<'_>) -> u32 {
        self.inodes[name.inode]
    }

    fn superblock(&self) -> [u8; 128] {
        const OLD_NUMBER: u64 = 4096;
        let table = self.contents.table;
        let devices: u64 = table.blobs.iter().map(|blob| device_blocks(&blob.info)).sum();
        // Nydus counts the blocks of the devices. Readers of EROFS take it for those of the bootstrap, in which they read
        // directories and symlinks. Without devices, Nydus accepts 0 and the number that its old versions wrote.
        let has_blocks = self.chunk_table > self.blocks;
        let blocks = match (table.blobs.is_empty(), has_blocks) {
            (false, _) => devices.max(self.size / BLOCK),
            (true, true) => OLD_NUMBER,
            (true, false) => 0,
        };
        Record::<128>::new()
            .u32(0, MAGIC)
            .u32(8, RAFS_V6)
            .u8(12, 12)
            .u16(14, small(u64::from(self.inodes[0])))
            .u64(16, self.contents.names.names.len() as u64)
            .u32(36, word(blocks))
            .u32(40, word(self.metadata / BLOCK))
            .u32(80, CHUNKS_AND_DEVICES)
            .u16(86, small(table.blobs.len() as u64))
            .u16(88, small(DEVICE_OFFSET / DEVICE_BYTES))
            .done()
    }

    fn extended(&self) -> [u8; 256] {
        let Contents { table, settings, prefetch, .. } = self.contents;
        let blobs = table.blobs.len() as u64;
        let chunks = table.chunk_count() * CHUNK_ENTRY_BYTES;
        let prefetch_bytes = if blobs == 0 { 0 } else { prefetch.len() as u64 * 4 };
        Record::<256>::new()
            .u64(0, self.contents.flags() | flag::NOT_ENCRYPTED)
            .u64(8, self.blob_table)
            .u32(16, word(blobs * BLOB_ENTRY_BYTES))
            .u32(20, settings.chunk_size.bytes())
            .u64(24, if chunks == 0 { 0 } else { self.chunk_table })
            .u64(32, chunks)
            .u64(40, if prefetch_bytes == 0 { 0 } else { self.prefetch_table })
            .u32(48, word(prefetch_bytes))
            .done()
    }

    fn devices(&self, out: &mut Positioned<impl Write>) -> io::Result<()> {
        let mut start = (self.size / BLOCK).next_multiple_of(DEVICE_ALIGNMENT);
        for blob in &self.contents.table.blobs {
            let blocks = device_blocks(&blob.info);
            let slot = Record::<128>::new().bytes(0, &blob.info.id).u32(64, word(blocks)).u32(68, word(start));
            out.put(&slot.done())?;
            start = (start + blocks).next_multiple_of(DEVICE_ALIGNMENT);
        }
        Ok(())
    }

    fn write_inodes(&self, out: &mut Positioned<impl Write>) -> io::Result<()> {
        let names = self.contents.names;
        let mut block = self.blocks / BLOCK;
        for (number, inode) in names.inodes.iter().enumerate() {
            let extent = Extent::of(inode, self.contents);
            out.zeros_to(self.metadata + u64::from(self.inodes[number]) * SLOT_BYTES)?;
            out.put(&self.inode(number, inode, &extent, block))?;
            block += extent.blocks();
            write_xattrs(inode, extent.xattr_bytes, out)?;
            match (&inode.file.kind, extent.layout) {
                (FileKind::Regular { .. }, _) => {
                    out.align(8)?;
                    for at in inode.chunks {
                        let found = self.contents.table.chunk(*at);
                        let (slot, chunk) = found.ok_or_else(|| io::Error::other("a chunk has no blob"))?;
                        let device = u32::from(slot) + 1;
                        let address = Record::<8>::new()
                            .u16(0, small(u64::from(chunk.index & 0xffff)))
                            .u16(2, small(u64::from(device | (chunk.index >> 16) << 8)))
                            .u32(4, word(chunk.uncompressed_offset / BLOCK));
                        out.put(&address.done())?;
                    }
                }
                (FileKind::Symlink { target }, Layout::Inline) => out.put(target)?,
                (FileKind::Directory, Layout::Inline) => {
                    let entries = self.entries(inode);
                    let last = extent.data / BLOCK;
                    if let Some(entries) = directory_blocks(&entries).nth(usize::try_from(last).unwrap_or(usize::MAX)) {
                        write_entries(entries, out)?;
                    }
                }
                (
                    FileKind::Symlink { .. }
                    | FileKind::Directory
                    | FileKind::CharacterDevice { .. }
                    | FileKind::BlockDevice { .. }
                    | FileKind::Fifo,
                    _,
                ) => {}
            }
        }
        Ok(())
    }

    /// Writes the blocks of directories and symlinks that are not behind their inodes.
    fn write_blocks(&self, out: &mut Positioned<impl Write>) -> io::Result<()> {
        for inode in &self.contents.names.inodes {
            let extent = Extent::of(inode, self.contents);
            let blocks = extent.blocks();
            match &inode.file.kind {
                FileKind::Directory if blocks > 0 => {
                    let entries = self.entries(inode);
                    for entries in directory_blocks(&entries).take(usize::try_from(blocks).unwrap_or(usize::MAX)) {
                        write_entries(entries, out)?;
                        out.align(BLOCK)?;
                    }
                }
                FileKind::Symlink { target } if blocks > 0 => {
                    out.put(target)?;
                    out.align(BLOCK)?;
                }
                FileKind::Directory
                | FileKind::Symlink { .. }
                | FileKind::Regular { .. }
                | FileKind::CharacterDevice { .. }
                | FileKind::BlockDevice { .. }
                | FileKind::Fifo => {}
            }
        }
        Ok(())
    }

    fn inode(&self, number: usize, inode: &Inode<'_>, extent: &Extent, block: u64) -> [u8; INODE_BYTES as usize] {
        let metadata = &inode.file.metadata;
        let layout = match extent.layout {
            Layout::Plain => 0,
            Layout::Inline => 2,
            Layout::Chunks => 4,
        };
        let union = match extent.layout {
            Layout::Chunks => (self.contents.settings.chunk_size.bytes().ilog2() - BLOCK.ilog2()) | INDEXES,
            Layout::Plain | Layout::Inline => device(inode.file).unwrap_or_else(|| word(block)),
        };
        let union = if matches!(inode.file.kind, FileKind::Fifo) { 0 } else { union };
        let xattr_count = match extent.xattr_bytes {
            0 => 0,
            bytes => 1 + (bytes - XATTR_HEADER_BYTES) / 4,
        };
        Record::<{ INODE_BYTES as usize }>::new()
            .u16(0, 1 | layout << 1)
            .u16(2, small(xattr_count))
            .u16(4, small(u64::from(mode(inode.file))))
            .u64(8, extent.data)
            .u32(16, union)
            .u32(20, word(number as u64 + 1))
            .u32(24, word(metadata.uid))
            .u32(28, word(metadata.gid))
            .u64(32, metadata.modified.seconds.cast_unsigned())
            .u32(40, metadata.modified.nanoseconds)
            .u32(44, inode.links)
            .done()
    }

    /// Returns the entries of a directory, sorted.
    fn entries(&self, inode: &Inode<'a>) -> Vec<Entry<'a>> {
        let names = self.contents.names;
        let own = &names.names[inode.name];
        let entry = |name: &'a [u8], of: &Name<'a>| Entry {
            name,
            address: self.address(of),
            kind: kind(&names.inode(of).file.kind),
        };
        let mut entries: Vec<_> =
            names.names[own.children.clone()].iter().map(|child| entry(child.name, child)).collect();
        entries.push(entry(b".", own));
        entries.push(entry(b"..", &names.names[own.parent]));
        entries.sort_unstable_by_key(|entry| entry.name);
        entries
    }
}

/// The size of what belongs to an inode.
#[derive(Debug, Clone, Copy)]
struct Extent {
    layout: Layout,
    /// The size of the extended attributes with their header.
    xattr_bytes: u64,
    /// The size of the file, symlink or directory in bytes.
    data: u64,
    /// The number of chunks.
    chunks: u64,
}

impl Extent {
    fn of(inode: &Inode<'_>, contents: &Contents<'_>) -> Extent {
        let xattrs: u64 = xattrs(&inode.file.metadata)
            .map(|xattr| (4 + xattr.rest.len() as u64 + xattr.value.len() as u64).next_multiple_of(4))
            .sum();
        let xattr_bytes = if xattrs == 0 { 0 } else { xattrs + XATTR_HEADER_BYTES };
        let inline = |data: u64| {
            let tail = data % BLOCK;
            let fits = tail != 0 && INODE_BYTES + xattr_bytes + tail <= BLOCK;
            Extent { layout: if fits { Layout::Inline } else { Layout::Plain }, xattr_bytes, data, chunks: 0 }
        };
        match &inode.file.kind {
            FileKind::Regular { size } => {
                Extent { layout: Layout::Chunks, xattr_bytes, data: *size, chunks: inode.chunks.len() as u64 }
            }
            FileKind::Directory => inline(directory_size(inode, contents)),
            FileKind::Symlink { target } => inline(target.len() as u64),
            FileKind::CharacterDevice { .. } | FileKind::BlockDevice { .. } | FileKind::Fifo => {
                Extent { layout: Layout::Plain, xattr_bytes, data: 0, chunks: 0 }
            }
        }
    }

    /// Returns the number of bytes from the start of the inode.
    fn size(&self) -> u64 {
        let head = INODE_BYTES + self.xattr_bytes;
        match self.layout {
            Layout::Plain => head,
            Layout::Inline => head + self.data % BLOCK,
            Layout::Chunks if self.chunks == 0 => head,
            Layout::Chunks => head.next_multiple_of(8) + self.chunks * 8,
        }
    }

    /// Returns the number of blocks at another place.
    fn blocks(&self) -> u64 {
        match self.layout {
            Layout::Plain => self.data.div_ceil(BLOCK),
            Layout::Inline => self.data / BLOCK,
            Layout::Chunks => 0,
        }
    }

    /// Returns where the inode starts, at this position or after it. The inode itself, and an inode with the data behind
    /// it, are in one block.
    fn place(&self, at: u64) -> u64 {
        let at = at.next_multiple_of(SLOT_BYTES);
        let whole = if self.layout == Layout::Inline { self.size() } else { INODE_BYTES };
        if at % BLOCK + whole > BLOCK { at.next_multiple_of(BLOCK) } else { at }
    }
}

/// An entry of a directory.
#[derive(Debug, Clone, Copy)]
struct Entry<'a> {
    name: &'a [u8],
    address: u32,
    kind: u8,
}

const ENTRY_BYTES: usize = 12;

/// Divides sorted entries into those of each block.
fn directory_blocks<'a, 'b>(entries: &'b [Entry<'a>]) -> impl Iterator<Item = &'b [Entry<'a>]> {
    let mut rest = entries;
    std::iter::from_fn(move || {
        let mut used = 0;
        let count = rest.iter().take_while(|entry| {
            used += ENTRY_BYTES + entry.name.len();
            used as u64 <= BLOCK
        });
        let (block, after) = rest.split_at(count.count());
        rest = after;
        (!block.is_empty()).then_some(block)
    })
}

/// Returns the size of a directory, without making its entries.
fn directory_size(inode: &Inode<'_>, contents: &Contents<'_>) -> u64 {
    let names = &contents.names.names;
    let children = &names[names[inode.name].children.clone()];
    // The two entries of every directory are sorted among the others.
    let before = |name: &[u8]| children.partition_point(|child| child.name < name);
    let (one, two) = (before(b"."), before(b".."));
    let lengths = children[..one].iter().map(|child| child.name.len()).chain([1]);
    let lengths = lengths.chain(children[one..two].iter().map(|child| child.name.len())).chain([2]);
    let lengths = lengths.chain(children[two..].iter().map(|child| child.name.len()));
    let (mut full, mut used) = (0, 0);
    for length in lengths {
        let entry = (ENTRY_BYTES + length) as u64;
        if used + entry > BLOCK {
            full += 1;
            used = 0;
        }
        used += entry;
    }
    full * BLOCK + used
}

fn write_entries(entries: &[Entry<'_>], out: &mut Positioned<impl Write>) -> io::Result<()> {
    let mut name_offset = entries.len() * ENTRY_BYTES;
    for entry in entries {
        let record = Record::<ENTRY_BYTES>::new().u64(0, u64::from(entry.address)).u8(10, entry.kind);
        out.put(&record.u16(8, small(name_offset as u64)).done())?;
        name_offset += entry.name.len();
    }
    entries.iter().try_for_each(|entry| out.put(entry.name))
}

/// Returns the type in an entry of a directory.
fn kind(kind: &FileKind) -> u8 {
    match kind {
        FileKind::Regular { .. } => 1,
        FileKind::Directory => 2,
        FileKind::CharacterDevice { .. } => 3,
        FileKind::BlockDevice { .. } => 4,
        FileKind::Fifo => 5,
        FileKind::Symlink { .. } => 7,
    }
}

fn write_xattrs(inode: &Inode<'_>, bytes: u64, out: &mut Positioned<impl Write>) -> io::Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    out.put(&[0; XATTR_HEADER_BYTES as usize])?;
    for xattr in xattrs(&inode.file.metadata) {
        let length = u8::try_from(xattr.rest.len()).map_err(io::Error::other)?;
        let value = u16::try_from(xattr.value.len()).map_err(io::Error::other)?;
        out.put(&Record::<4>::new().u8(0, length).u8(1, xattr.prefix).u16(2, value).done())?;
        out.put(xattr.rest.as_bytes())?;
        out.put(xattr.value)?;
        out.align(4)?;
    }
    Ok(())
}

/// Returns the size of a blob as a device, in blocks.
pub(super) fn device_blocks(info: &BlobInfo) -> u64 {
    info.uncompressed_size.div_ceil(BLOCK)
}

fn blob_entry(index: u32, info: &BlobInfo) -> [u8; BLOB_ENTRY_BYTES as usize] {
    Record::<{ BLOB_ENTRY_BYTES as usize }>::new()
        .bytes(0, &info.id)
        .u32(64, index)
        .u32(68, info.chunk_size.bytes())
        .u32(72, info.chunk_count)
        .u32(76, info.stored as u32)
        .u32(80, info.digester as u32)
        .u32(84, info.features)
        .u64(88, info.size)
        .u64(96, info.uncompressed_size)
        .u32(108, info.information.stored as u32)
        .u64(112, info.information.offset)
        .u64(120, info.information.size)
        .u64(128, info.information.real_size)
        .done()
}
