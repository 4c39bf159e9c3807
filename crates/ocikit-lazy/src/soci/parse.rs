use ocikit_archive::layer::PaxRecord;
use ocikit_spec::Digest;

use crate::error::{Error, Result};
use crate::soci::flat::{Flat, Table};

/// The maximum size of a ztoc in bytes.
pub const MAX_ZTOC_BYTES: u64 = 256 << 20;

/// The size of a checkpoint in bytes: two offsets, the bits, and the window of 32 KiB.
const CHECKPOINT_BYTES: usize = 17 + (32 << 10);

/// The size of what precedes the checkpoints: their number and their distance.
const CHECKPOINTS_HEADER_BYTES: usize = 12;

/// A ztoc.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ztoc {
    /// The version of the format.
    pub version: String,
    /// The program that wrote it.
    pub build_tool: String,
    /// The size of the layer in bytes.
    pub compressed: u64,
    /// The size of the tar in bytes, up to its two zero blocks.
    pub uncompressed: u64,
    /// The entries of the tar.
    pub files: Vec<ZtocFile>,
    /// The digests of the spans between the checkpoints.
    pub span_digests: Vec<Digest>,
    /// The distance of checkpoints in uncompressed bytes.
    pub span_size: u64,
    /// The checkpoints; empty for an uncompressed layer.
    pub checkpoints: Vec<ZtocCheckpoint>,
    /// The checkpoints as they are stored, with the output before each.
    windows: Vec<u8>,
}

/// An entry of a tar in a ztoc.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ZtocFile {
    /// The name as in the tar.
    pub name: Box<[u8]>,
    /// The type, such as `reg`.
    pub kind: String,
    /// The offset of the contents in the tar.
    pub offset: u64,
    /// The size in bytes.
    pub size: u64,
    /// The target of a link.
    pub link: Box<[u8]>,
    /// The mode.
    pub mode: u64,
    /// The user ID of the owner.
    pub uid: u32,
    /// The group ID.
    pub gid: u32,
    /// The modification time by RFC 3339.
    pub modified: String,
    /// The major number of a device.
    pub major: u64,
    /// The minor number of a device.
    pub minor: u64,
    /// The records of the extended header.
    pub records: Vec<PaxRecord>,
}

/// A place from which a gzip-compressed layer can be decompressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ZtocCheckpoint {
    /// The offset in the layer.
    pub compressed: u64,
    /// The offset in the tar.
    pub uncompressed: u64,
    /// The number of bits of the byte before the offset that belong to what follows.
    pub bits: u8,
}

impl Ztoc {
    /// Parses a ztoc. The work is bounded by its size.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if it is not a ztoc, [`Error::TooLarge`] above [`MAX_ZTOC_BYTES`].
    pub fn parse(bytes: &[u8]) -> Result<Ztoc> {
        let size = bytes.len() as u64;
        if size > MAX_ZTOC_BYTES {
            return Err(Error::TooLarge { part: "ztoc", size, limit: MAX_ZTOC_BYTES });
        }
        let mut flat = Flat::new(bytes);
        let root = flat.root()?;
        let missing = || Error::invalid("ztoc", "a part is missing");
        let toc = flat.child(root, 4)?.ok_or_else(missing)?;
        let info = flat.child(root, 5)?.ok_or_else(missing)?;
        let files = flat.vector(toc, 0)?;
        let files = files.into_iter().map(|position| file(&mut flat, position)).collect::<Result<_>>()?;
        let digests = flat.vector(info, 2)?.into_iter().map(|position| {
            let text = String::from_utf8_lossy(flat.bytes_at(position)?);
            text.parse().map_err(|_| Error::invalid("ztoc", "the digest of a span is not a digest"))
        });
        let span_digests = digests.collect::<Result<_>>()?;
        let stored = flat.bytes(info, 3)?;
        let (span_size, checkpoints, windows) = match flat.u8(info, 0, 1)? {
            1 => {
                let (span_size, checkpoints) = checkpoints(stored)?;
                (span_size, checkpoints, stored[CHECKPOINTS_HEADER_BYTES..].to_vec())
            }
            2 => (plain_span_size(stored)?, Vec::new(), Vec::new()),
            other => return Err(Error::invalid("ztoc", format_args!("compression {other} is unknown"))),
        };
        Ok(Ztoc {
            version: text(flat.bytes(root, 0)?),
            build_tool: text(flat.bytes(root, 1)?),
            compressed: unsigned(flat.i64(root, 2)?)?,
            uncompressed: unsigned(flat.i64(root, 3)?)?,
            files,
            span_digests,
            span_size,
            checkpoints,
            windows,
        })
    }

    /// Returns whether its checkpoints have the same output before them as those of another one.
    pub(crate) fn has_windows_of(&self, other: &Ztoc) -> bool {
        self.windows == other.windows
    }

    /// Returns the 32 KiB of output before a checkpoint; `None` if there is no such checkpoint.
    pub(crate) fn window(&self, checkpoint: usize) -> Option<&[u8]> {
        let start = checkpoint.checked_mul(CHECKPOINT_BYTES)?;
        self.windows.get(start..start.checked_add(CHECKPOINT_BYTES)?)?.get(17..)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn unsigned(number: i64) -> Result<u64> {
    u64::try_from(number).map_err(|_| Error::invalid("ztoc", "a size or offset is negative"))
}

fn file(flat: &mut Flat<'_>, position: usize) -> Result<ZtocFile> {
    let table: Table = flat.table(position)?;
    let records = flat.vector(table, 13)?;
    let record = |position| {
        let record = flat.table(position)?;
        Ok((flat.bytes(record, 0)?.into(), flat.bytes(record, 1)?.into()))
    };
    let records = records.into_iter().map(record).collect::<Result<_>>()?;
    Ok(ZtocFile {
        name: flat.bytes(table, 0)?.into(),
        kind: text(flat.bytes(table, 1)?),
        offset: unsigned(flat.i64(table, 2)?)?,
        size: unsigned(flat.i64(table, 3)?)?,
        link: flat.bytes(table, 4)?.into(),
        mode: unsigned(flat.i64(table, 5)?)?,
        uid: flat.u32(table, 6)?,
        gid: flat.u32(table, 7)?,
        modified: text(flat.bytes(table, 10)?),
        major: unsigned(flat.i64(table, 11)?)?,
        minor: unsigned(flat.i64(table, 12)?)?,
        records,
    })
}

fn checkpoints(stored: &[u8]) -> Result<(u64, Vec<ZtocCheckpoint>)> {
    let invalid = || Error::invalid("ztoc", "its checkpoints are truncated");
    let (count, rest) = stored.split_first_chunk::<4>().ok_or_else(invalid)?;
    let (span_size, rest) = rest.split_first_chunk::<8>().ok_or_else(invalid)?;
    let (parts, left) = rest.as_chunks::<CHECKPOINT_BYTES>();
    if !left.is_empty() || parts.len() as u64 != u64::from(u32::from_le_bytes(*count)) {
        return Err(invalid());
    }
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
    let part = |part: &[u8; CHECKPOINT_BYTES]| ZtocCheckpoint {
        compressed: number(&part[..8]),
        uncompressed: number(&part[8..16]),
        bits: part[16],
    };
    Ok((u64::from_le_bytes(*span_size), parts.iter().map(part).collect()))
}

fn plain_span_size(stored: &[u8]) -> Result<u64> {
    let mut flat = Flat::new(stored);
    let root = flat.root()?;
    unsigned(flat.i64(root, 1)?)
}
