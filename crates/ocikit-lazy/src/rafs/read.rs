//! Reads bootstraps of all versions. Nothing in them is trusted: every offset is checked, and memory is bounded.

use std::collections::HashMap;

use ocikit_archive::ReadAt;
use ocikit_image::files::{Entry, FileKind, Kind, MAX_TREE_BYTES, Metadata, Path};

use crate::error::{Error, Result};
use crate::rafs::chunk::{Chunk, ChunkRef, Digester, Stored};
use crate::rafs::options::{ChunkSize, RafsVersion};
use crate::rafs::table::{BlobInfo, Settings};
use crate::rafs::tree::{MAX_NAME_BYTES, decode_device};

/// The maximum number of chunks of all blobs that a bootstrap lists; each takes 64 bytes.
const MAX_CHUNKS: usize = 1 << 20;

/// The maximum number of chunks of all files; each takes 8 bytes.
const MAX_FILE_CHUNKS: usize = 8 << 20;

/// The memory of a file in addition to its path and other variable data, in bytes.
const FILE_BYTES: u64 = 300;

/// The maximum length of a path in bytes, as in Linux.
const MAX_PATH_BYTES: usize = 4096;

/// What a message calls the file.
const PART: &str = "Nydus bootstrap";

/// The metadata of a Nydus image: its files, and the chunks of blobs with their contents.
///
/// ```
/// use ocikit_lazy::rafs::NydusBootstrap;
///
/// let error = NydusBootstrap::read(&vec![0_u8; 8192]).unwrap_err();
/// assert_eq!(error.to_string(), "the Nydus bootstrap is invalid: it is neither RAFS 5 nor RAFS 6");
/// ```
#[derive(Debug)]
pub struct NydusBootstrap {
    pub(super) settings: Settings,
    pub(super) blobs: Vec<BlobInfo>,
    /// The chunks of each blob that are known, sorted by their numbers.
    pub(super) chunks: Vec<Vec<Chunk>>,
    entries: Vec<Entry>,
    /// For each entry the position of its first chunk.
    starts: Vec<usize>,
    file_chunks: Vec<ChunkRef>,
}

impl NydusBootstrap {
    /// Returns the version of RAFS.
    pub fn version(&self) -> RafsVersion {
        self.settings.version
    }

    /// Returns the maximum size of a chunk.
    pub fn chunk_size(&self) -> ChunkSize {
        self.settings.chunk_size
    }

    /// Returns the blobs by their digests in hexadecimal digits, in the order of the table.
    pub fn blob_ids(&self) -> impl Iterator<Item = String> + '_ {
        self.blobs.iter().map(|blob| String::from_utf8_lossy(&blob.id).into_owned())
    }

    /// Returns the number of chunks that files have, each counted once.
    pub fn chunk_count(&self) -> usize {
        self.chunks.iter().map(Vec::len).sum()
    }

    /// Returns the files as the entries of a layer: directories come before their contents, and all names of a file but
    /// the first are hard links to that.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Returns the chunks of an entry.
    pub(super) fn chunks_of(&self, entry: usize) -> &[ChunkRef] {
        let start = self.starts.get(entry).copied().unwrap_or_default();
        let end = self.starts.get(entry + 1).copied().unwrap_or(self.file_chunks.len());
        self.file_chunks.get(start..end).unwrap_or_default()
    }

    /// Returns a chunk of a file.
    pub(super) fn chunk(&self, at: ChunkRef) -> Option<&Chunk> {
        self.chunks.get(usize::from(at.blob))?.get(at.chunk as usize)
    }
}

/// Returns the error for a damaged bootstrap.
pub(super) fn invalid(problem: impl ToString) -> Error {
    Error::invalid(PART, problem)
}

/// The bytes of a bootstrap.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'a> {
    bytes: &'a dyn ReadAt,
    length: u64,
}

impl<'a> Bytes<'a> {
    pub(super) fn of(bytes: &'a dyn ReadAt) -> Result<Bytes<'a>> {
        Ok(Bytes { bytes, length: bytes.length()? })
    }

    /// Reads a record.
    pub(super) fn fields<const SIZE: usize>(&self, offset: u64) -> Result<Fields<SIZE>> {
        let mut bytes = [0; SIZE];
        self.fill(&mut bytes, offset)?;
        Ok(Fields(bytes))
    }

    /// Reads some bytes; the length was checked to be small.
    pub(super) fn vec(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        self.check(offset, length as u64)?;
        let mut bytes = vec![0; length];
        self.fill(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// Checks that a range is in the file.
    pub(super) fn check(&self, offset: u64, length: u64) -> Result<()> {
        match offset.checked_add(length) {
            Some(end) if end <= self.length => Ok(()),
            _ => Err(invalid(format_args!("it refers to {length} bytes at offset {offset}, behind its end"))),
        }
    }

    fn fill(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.check(offset, buffer.len() as u64)?;
        let mut filled = 0;
        while filled < buffer.len() {
            match self.bytes.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => return Err(invalid("it became shorter while it was read")),
                Ok(read) => filled += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// A record that was read.
#[derive(Debug, Clone)]
pub(super) struct Fields<const SIZE: usize>(pub(super) [u8; SIZE]);

impl<const SIZE: usize> Fields<SIZE> {
    pub(super) fn array<const LENGTH: usize>(&self, at: usize) -> [u8; LENGTH] {
        let mut array = [0; LENGTH];
        array.copy_from_slice(&self.0[at..at + LENGTH]);
        array
    }

    pub(super) fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.array(at))
    }

    pub(super) fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    pub(super) fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }

    /// Reads the record of a chunk, and the position of its blob.
    pub(super) fn chunk(&self) -> (u32, Chunk) {
        let chunk = Chunk {
            digest: self.array(0),
            is_compressed: self.u32(36) & 1 != 0,
            stored: self.u32(40),
            size: self.u32(44),
            offset: self.u64(48),
            uncompressed_offset: self.u64(56),
            index: self.u32(72),
        };
        (self.u32(32), chunk)
    }
}

/// Checks the identifier of a blob, which becomes part of names.
pub(super) fn check_id(id: &[u8; 64]) -> Result<()> {
    let is_digest = id.iter().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte));
    match is_digest || *id == crate::rafs::table::OWN_ID {
        true => Ok(()),
        false => Err(invalid("the identifier of a blob is not a SHA-256 digest")),
    }
}

/// Checks a chunk against its blob, and adds it to the chunks.
pub(super) fn check_chunk(chunk: &Chunk, blob: &BlobInfo) -> Result<()> {
    let is_possible = chunk.size > 0
        && chunk.size <= blob.chunk_size.bytes()
        && chunk.stored > 0
        // Any compressor may make it a little larger.
        && chunk.stored <= blob.chunk_size.bytes().saturating_mul(2)
        && (chunk.is_compressed || chunk.stored == chunk.size);
    match is_possible {
        true => Ok(()),
        false => Err(invalid(format_args!("chunk {} has impossible sizes", chunk.index))),
    }
}

/// What is collected while the files are read.
#[derive(Debug, Default)]
pub(super) struct Collected {
    entries: Vec<Entry>,
    starts: Vec<usize>,
    file_chunks: Vec<ChunkRef>,
    chunk_count: usize,
    bytes: u64,
    /// The memory of files that were found in directories and are not added yet.
    pending: u64,
    /// The paths of files that may have several names, by their numbers.
    first_names: HashMap<u64, Path>,
}

impl Collected {
    /// Counts chunks of blobs.
    pub(super) fn count_chunks(&mut self, count: usize) -> Result<()> {
        self.chunk_count = self.chunk_count.saturating_add(count);
        limit("table of chunks", self.chunk_count, MAX_CHUNKS)
    }

    /// Returns the first name of a file, or remembers this one.
    pub(super) fn first_name(&mut self, number: u64, path: &Path) -> Option<Path> {
        match self.first_names.entry(number) {
            std::collections::hash_map::Entry::Occupied(known) => Some(known.get().clone()),
            std::collections::hash_map::Entry::Vacant(new) => {
                new.insert(path.clone());
                None
            }
        }
    }

    /// Adds a file; its chunks follow.
    pub(super) fn add(&mut self, path: Path, kind: Kind, metadata: Metadata) -> Result<()> {
        let extra = match &kind {
            Kind::File(FileKind::Symlink { target }) => target.len(),
            Kind::HardLink { target } => target.as_bytes().len(),
            Kind::File(_) | Kind::Whiteout(_) => 0,
        };
        let xattrs: usize = metadata.xattrs.iter().map(|(name, value)| 64 + name.len() + value.len()).sum();
        // A bootstrap always has a root. One without any metadata is that of layers that do not mention it.
        let is_invented = path.is_root()
            && kind == Kind::File(FileKind::Directory)
            && metadata == Metadata { mode: 0o755, ..Metadata::default() };
        if is_invented {
            return Ok(());
        }
        self.bytes += size_of_file(path.as_bytes()) + (extra + xattrs) as u64;
        self.check_more(0)?;
        self.starts.push(self.file_chunks.len());
        self.entries.push(Entry { path, kind, metadata });
        Ok(())
    }

    /// Counts a file that will be added later.
    pub(super) fn announce(&mut self, path: &Path) -> Result<()> {
        self.pending += size_of_file(path.as_bytes());
        self.check_more(0)
    }

    /// Takes back the announcement of a file.
    pub(super) fn arrived(&mut self, path: &Path) {
        self.pending = self.pending.saturating_sub(size_of_file(path.as_bytes()));
    }

    /// Checks that so much more memory for files fits the limit.
    pub(super) fn check_more(&self, more: u64) -> Result<()> {
        let size = self.bytes.saturating_add(self.pending).saturating_add(more);
        match size > MAX_TREE_BYTES {
            true => Err(Error::TooLarge { part: "list of files", size, limit: MAX_TREE_BYTES }),
            false => Ok(()),
        }
    }

    /// Announces the number of chunks of the last file.
    pub(super) fn expect(&mut self, chunks: u64) -> Result<()> {
        let all = usize::try_from(chunks).unwrap_or(usize::MAX).saturating_add(self.file_chunks.len());
        limit("list of chunks", all, MAX_FILE_CHUNKS)
    }

    /// Adds a chunk to the last file.
    pub(super) fn add_chunk(&mut self, chunk: ChunkRef) {
        self.file_chunks.push(chunk);
    }

    /// Returns the bootstrap with what was collected.
    pub(super) fn finish(self, settings: Settings, blobs: Vec<BlobInfo>, chunks: Vec<Vec<Chunk>>) -> NydusBootstrap {
        NydusBootstrap {
            settings,
            blobs,
            chunks,
            entries: self.entries,
            starts: self.starts,
            file_chunks: self.file_chunks,
        }
    }
}

/// Returns the memory of a file with this name or path, in bytes.
pub(super) fn size_of_file(path: &[u8]) -> u64 {
    FILE_BYTES + path.len() as u64
}

fn limit(part: &'static str, size: usize, limit: usize) -> Result<()> {
    match size <= limit {
        true => Ok(()),
        false => Err(Error::TooLarge { part, size: size as u64, limit: limit as u64 }),
    }
}

impl Settings {
    /// Returns what a superblock says about all files.
    pub(super) fn read(version: RafsVersion, flags: u64, chunk_size: u32) -> Result<Settings> {
        let chunk_size = ChunkSize::new(chunk_size).ok_or_else(|| invalid("its chunk size is not possible"))?;
        let stored = Stored::of_flags(flags).ok_or_else(|| invalid("it does not have one compression"))?;
        let digester = match (flags & Digester::Blake3.flag() != 0, flags & Digester::Sha256.flag() != 0) {
            (true, false) => Digester::Blake3,
            (false, true) => Digester::Sha256,
            (_, _) => return Err(invalid("it does not have one digest algorithm")),
        };
        Ok(Settings { version, chunk_size, stored, digester })
    }
}

/// Returns the path of a name in a directory.
pub(super) fn child(directory: &Path, name: &[u8]) -> Result<Path> {
    let is_name = !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && !matches!(name, b"." | b"..")
        && !name.iter().any(|byte| matches!(byte, b'/' | 0));
    let path = directory.child(name);
    match is_name && path.as_bytes().len() <= MAX_PATH_BYTES {
        true => Ok(path),
        false => Err(invalid(format_args!("`{path}` is not a possible path"))),
    }
}

/// Returns the type of a file by its mode, given its size, target and device number.
pub(super) fn kind(mode: u32, size: u64, target: &[u8], device: u32) -> Result<FileKind> {
    let (major, minor) = decode_device(device);
    match mode & 0o170_000 {
        0o010_000 => Ok(FileKind::Fifo),
        0o020_000 => Ok(FileKind::CharacterDevice { major, minor }),
        0o040_000 => Ok(FileKind::Directory),
        0o060_000 => Ok(FileKind::BlockDevice { major, minor }),
        0o100_000 => Ok(FileKind::Regular { size }),
        0o120_000 if target.is_empty() || target.contains(&0) => Err(invalid("a symlink has no valid target")),
        0o120_000 => Ok(FileKind::Symlink { target: target.into() }),
        _ => Err(invalid("a file has an unknown type")),
    }
}
