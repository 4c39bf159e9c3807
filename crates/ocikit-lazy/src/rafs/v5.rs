//! Writes RAFS v5: tables and inode records of Nydus's own format.

use std::io::{self, Write};

use ocikit_image::files::FileKind;

use crate::rafs::bytes::{Positioned, Record, small, word};
use crate::rafs::chunk::BLOCK;
use crate::rafs::table::{Contents, TooLarge};
use crate::rafs::tree::{Inode, Name, device, mode, xattrs};

pub(super) const MAGIC: u32 = 0x5241_4653;
pub(super) const VERSION: u32 = 0x500;
pub(super) const SUPERBLOCK_BYTES: u64 = 8192;
pub(super) const INODE_BYTES: u64 = 128;
pub(super) const EXTENDED_BLOB_BYTES: u64 = 64;
/// Records and tables are at multiples of this.
pub(super) const ALIGNMENT: u64 = 8;
pub(super) const IS_SYMLINK: u64 = 1;
pub(super) const IS_HARD_LINK: u64 = 2;
pub(super) const HAS_XATTRS: u64 = 4;
/// The device number of what is no device.
const NO_DEVICE: u32 = u32::MAX;

/// Where everything is in a bootstrap.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    contents: &'a Contents<'a>,
    prefetch_table: u64,
    blob_table: u64,
    extended_table: u64,
    /// The names in the order of their records, depth first.
    order: Vec<usize>,
    /// The position of the record of each name, divided by [`ALIGNMENT`].
    records: Vec<u32>,
    digests: Vec<[u8; 32]>,
    /// The size of the bootstrap in bytes.
    pub(super) size: u64,
}

impl<'a> Plan<'a> {
    /// Decides where everything is.
    pub(super) fn of(contents: &'a Contents<'a>) -> Result<Plan<'a>, TooLarge> {
        let names = &contents.names.names;
        let blobs = contents.table.blobs.len() as u64;
        let prefetch_table = (SUPERBLOCK_BYTES + names.len() as u64 * 4).next_multiple_of(ALIGNMENT);
        let blob_table = (prefetch_table + contents.prefetch.len() as u64 * 4).next_multiple_of(ALIGNMENT);
        let extended_table = (blob_table + blob_table_bytes(blobs)).next_multiple_of(ALIGNMENT);
        let mut at = extended_table + blobs * EXTENDED_BLOB_BYTES;
        let order = depth_first(names);
        let mut records = vec![0; names.len()];
        for name in &order {
            records[*name] = u32::try_from(at / ALIGNMENT).map_err(|_| TooLarge::V5)?;
            at += record_bytes(&names[*name], contents.names.inode(&names[*name]));
        }
        let digests = digests(contents);
        Ok(Plan { contents, prefetch_table, blob_table, extended_table, order, records, digests, size: at })
    }

    /// Writes the bootstrap.
    pub(super) fn write(&self, writer: impl Write) -> io::Result<()> {
        let mut out = Positioned::new(writer);
        out.put(&self.superblock())?;
        for record in &self.records {
            out.put(&record.to_le_bytes())?;
        }
        out.zeros_to(self.prefetch_table)?;
        for name in &self.contents.prefetch {
            out.put(&index(*name).to_le_bytes())?;
        }
        out.zeros_to(self.blob_table)?;
        for (at, blob) in self.contents.table.blobs.iter().enumerate() {
            if at > 0 {
                out.put(&[0])?;
            }
            // The range that is read ahead is empty.
            out.put(&[0; 8])?;
            out.put(&blob.info.id)?;
        }
        out.zeros_to(self.extended_table)?;
        for blob in &self.contents.table.blobs {
            let entry = Record::<{ EXTENDED_BLOB_BYTES as usize }>::new()
                .u32(0, blob.info.chunk_count)
                .u32(4, blob.info.features)
                .u64(8, blob.info.uncompressed_size)
                .u64(16, blob.info.size);
            out.put(&entry.done())?;
        }
        for name in &self.order {
            out.zeros_to(u64::from(self.records[*name]) * ALIGNMENT)?;
            self.record(*name, &mut out)?;
        }
        out.zeros_to(self.size)
    }

    fn superblock(&self) -> [u8; SUPERBLOCK_BYTES as usize] {
        let Contents { names, table, settings, prefetch, .. } = self.contents;
        let blobs = table.blobs.len() as u64;
        Record::<{ SUPERBLOCK_BYTES as usize }>::new()
            .u32(0, MAGIC)
            .u32(4, VERSION)
            .u32(8, word(SUPERBLOCK_BYTES))
            .u32(12, settings.chunk_size.bytes())
            .u64(16, self.contents.flags())
            .u64(24, names.inodes.len() as u64)
            .u64(32, SUPERBLOCK_BYTES)
            .u64(40, self.prefetch_table)
            .u64(48, self.blob_table)
            .u32(56, word(names.names.len() as u64))
            .u32(60, word(prefetch.len() as u64))
            .u32(64, word(blob_table_bytes(blobs)))
            .u32(68, word(blobs))
            .u64(72, self.extended_table)
            .done()
    }

    fn record(&self, position: usize, out: &mut Positioned<impl Write>) -> io::Result<()> {
        let names = self.contents.names;
        let name = &names.names[position];
        let inode = names.inode(name);
        let metadata = &inode.file.metadata;
        let target: &[u8] = if let FileKind::Symlink { target } = &inode.file.kind { target } else { b"" };
        let xattrs = xattr_bytes(inode);
        let size = size_of(name, inode, &names.names);
        let is_link = !inode.file.is_directory() && inode.links > 1;
        let flags = [(!target.is_empty(), IS_SYMLINK), (is_link, IS_HARD_LINK), (xattrs > 0, HAS_XATTRS)];
        let flags = flags.iter().filter(|(set, _)| *set).map(|(_, flag)| flag).sum();
        let (first, count) = match inode.file.is_directory() {
            true if name.children.is_empty() => (0, 0),
            true => (index(name.children.start), name.children.len()),
            false => (0, inode.chunks.len()),
        };
        let text = text(position, name);
        // All names of a file have the number of the first one. For readers only regular files have hard links, and the number of
        // any other file is larger than that of its directory: all names have the number of the last one.
        let number = |position: usize| {
            let inode = &names.inodes[names.names[position].inode];
            let is_regular = matches!(inode.file.kind, FileKind::Regular { .. });
            u64::from(index(if is_regular { inode.name } else { inode.last_name }))
        };
        let parent = if position == 0 { 0 } else { number(name.parent) };
        let record = Record::<{ INODE_BYTES as usize }>::new()
            .bytes(0, &self.digests[position])
            .u64(32, parent)
            .u64(40, number(position))
            .u32(48, word(metadata.uid))
            .u32(52, word(metadata.gid))
            .u32(60, mode(inode.file))
            .u64(64, size)
            .u64(72, (size + xattrs.next_multiple_of(ALIGNMENT)).div_ceil(512))
            .u64(80, flags)
            .u32(88, inode.links)
            .u32(92, first)
            .u32(96, word(count as u64))
            .u16(100, small(text.len() as u64))
            .u16(102, small(target.len() as u64))
            .u32(104, device(inode.file).unwrap_or(NO_DEVICE))
            .u32(108, metadata.modified.nanoseconds)
            .u64(112, metadata.modified.seconds.cast_unsigned());
        out.put(&record.done())?;
        out.put(text)?;
        out.align(ALIGNMENT)?;
        out.put(target)?;
        out.align(ALIGNMENT)?;
        if xattrs > 0 {
            out.put(&xattrs.to_le_bytes())?;
            for xattr in self::xattrs(metadata) {
                let length = word((xattr.name.len() + 1 + xattr.value.len()) as u64);
                out.put(&length.to_le_bytes())?;
                out.put(xattr.name.as_bytes())?;
                out.put(&[0])?;
                out.put(xattr.value)?;
            }
            out.align(ALIGNMENT)?;
        }
        for (at, chunk) in (0_u64..).zip(inode.chunks) {
            let found = self.contents.table.chunk(*chunk);
            let (slot, chunk) = found.ok_or_else(|| io::Error::other("a chunk has no blob"))?;
            out.put(&chunk.record(slot, at * u64::from(self.contents.settings.chunk_size.bytes())))?;
        }
        Ok(())
    }
}

/// Returns the size of the table of blobs: the range that is read ahead, the identifier, and a zero byte between them.
fn blob_table_bytes(blobs: u64) -> u64 {
    (blobs * (8 + 64 + 1)).saturating_sub(1).next_multiple_of(ALIGNMENT)
}

/// Returns the number by which tables refer to a name.
fn index(position: usize) -> u32 {
    word(position as u64 + 1)
}

/// Returns the positions of all names, each directory before its contents.
fn depth_first(names: &[Name<'_>]) -> Vec<usize> {
    let mut order = Vec::with_capacity(names.len());
    let mut next = vec![0];
    while let Some(at) = next.pop() {
        order.push(at);
        next.extend(names[at].children.clone().rev());
    }
    order
}

fn text<'a>(position: usize, name: &Name<'a>) -> &'a [u8] {
    if position == 0 { b"/" } else { name.name }
}

/// Returns the size of the extended attributes without padding; 0 if there are none.
fn xattr_bytes(inode: &Inode<'_>) -> u64 {
    xattrs(&inode.file.metadata).map(|xattr| (4 + xattr.name.len() + 1 + xattr.value.len()) as u64).sum()
}

fn record_bytes(name: &Name<'_>, inode: &Inode<'_>) -> u64 {
    let padded = |bytes: u64| bytes.next_multiple_of(ALIGNMENT);
    let target = if let FileKind::Symlink { target } = &inode.file.kind { target.len() as u64 } else { 0 };
    let xattrs = match xattr_bytes(inode) {
        0 => 0,
        bytes => 8 + padded(bytes),
    };
    // The name of the root is `/`.
    let text = (name.name.len() as u64).max(1);
    INODE_BYTES + padded(text) + padded(target) + xattrs + inode.chunks.len() as u64 * 80
}

fn size_of(name: &Name<'_>, inode: &Inode<'_>, names: &[Name<'_>]) -> u64 {
    match &inode.file.kind {
        FileKind::Regular { size } => *size,
        FileKind::Symlink { target } => target.len() as u64,
        FileKind::Directory => {
            let entries: u64 = names[name.children.clone()].iter().map(|child| child.name.len() as u64 + 8).sum();
            entries.next_multiple_of(BLOCK).max(BLOCK)
        }
        FileKind::CharacterDevice { .. } | FileKind::BlockDevice { .. } | FileKind::Fifo => 0,
    }
}

/// Returns the digest of each name: that of the digests of chunks, of the target, or of the digests of the children.
fn digests(contents: &Contents<'_>) -> Vec<[u8; 32]> {
    let names = contents.names;
    let digester = contents.settings.digester;
    let mut digests = vec![[0; 32]; names.names.len()];
    let mut bytes = Vec::new();
    // Children come after their directory.
    for at in (0..names.names.len()).rev() {
        let name = &names.names[at];
        let inode = names.inode(name);
        bytes.clear();
        match &inode.file.kind {
            FileKind::Regular { .. } => {
                let chunks = inode.chunks.iter().filter_map(|chunk| contents.table.chunk(*chunk));
                chunks.for_each(|(_, chunk)| bytes.extend_from_slice(&chunk.digest));
            }
            FileKind::Symlink { target } => bytes.extend_from_slice(target),
            FileKind::Directory => {
                digests[name.children.clone()].iter().for_each(|digest| bytes.extend_from_slice(digest));
            }
            FileKind::CharacterDevice { .. } | FileKind::BlockDevice { .. } | FileKind::Fifo => {}
        }
        digests[at] = digester.digest(&bytes);
    }
    digests
}
