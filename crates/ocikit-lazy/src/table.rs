//! Reading tables of contents of eStargz and zstd:chunked.

use std::collections::BTreeMap;
use std::io::Read;

use ocikit_archive::{Compression, Decoder};
use ocikit_spec::Digest;
use serde::Deserialize;
use serde::de::{SeqAccess, Visitor};

use crate::error::{Error, Result};
use crate::{chunked, estargz};

/// The maximum size of a table of contents in bytes, compressed and uncompressed. That of containers/storage.
pub const MAX_TABLE_BYTES: u64 = 150 << 20;

/// The maximum number of entries and chunks of a table of contents, which take about 400 bytes each.
pub const MAX_TABLE_ENTRIES: usize = 1 << 20;

/// The position of a part of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Position {
    /// The offset of its first byte in the blob.
    pub offset: u64,
    /// Its length in the blob, in bytes.
    pub length: u64,
    /// Its decompressed length in bytes; `None` if the format does not tell it.
    pub uncompressed: Option<u64>,
}

/// A table of contents.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Table {
    /// The version of the format: 1.
    pub version: u64,
    /// The entries in the order of the tar. Further chunks of a file follow it.
    #[serde(default, deserialize_with = "or_none")]
    pub entries: Vec<TableEntry>,
    /// The digest of the compressed tar-split of zstd:chunked.
    #[serde(default, rename = "tarSplitDigest")]
    pub tar_split_digest: Option<Digest>,
}

/// An entry of a table of contents. A key that is missing has its default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct TableEntry {
    /// The name as in the tar.
    pub name: String,
    /// The type: `reg`, `dir`, `symlink`, `hardlink`, `char`, `block`, `fifo` or `chunk`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The size of a file in bytes.
    #[serde(default)]
    pub size: u64,
    /// The modification time by RFC 3339; empty for 1970.
    #[serde(default)]
    pub modtime: String,
    /// The target of a link.
    #[serde(default)]
    pub link_name: String,
    /// The permissions.
    #[serde(default)]
    pub mode: u64,
    /// The user ID of the owner.
    #[serde(default)]
    pub uid: u64,
    /// The group ID.
    #[serde(default)]
    pub gid: u64,
    /// The major number of a device.
    #[serde(default)]
    pub dev_major: u64,
    /// The minor number of a device.
    #[serde(default)]
    pub dev_minor: u64,
    /// The extended attributes, in base64.
    #[serde(default)]
    pub xattrs: BTreeMap<String, String>,
    /// The digest of the contents; empty if there are none.
    #[serde(default)]
    pub digest: String,
    /// The offset in the blob of the first chunk, or of this one.
    #[serde(default)]
    pub offset: u64,
    /// The offset in the blob of the end of the contents. zstd:chunked only.
    #[serde(default)]
    pub end_offset: u64,
    /// The offset of the chunk in its decompressed member, in which other chunks can be before it. eStargz only.
    #[serde(default)]
    pub inner_offset: u64,
    /// The offset of the chunk in the file.
    #[serde(default)]
    pub chunk_offset: u64,
    /// The size of the chunk; 0 if it reaches to the end of the file.
    #[serde(default)]
    pub chunk_size: u64,
    /// The digest of the chunk; empty if it is the whole file.
    #[serde(default)]
    pub chunk_digest: String,
    /// `zeros` for a run of zeros. zstd:chunked only.
    #[serde(default)]
    pub chunk_type: String,
}

impl TableEntry {
    /// Returns the digest of the chunk.
    pub(crate) fn own_digest(&self) -> &String {
        if self.chunk_digest.is_empty() { &self.digest } else { &self.chunk_digest }
    }
}

/// Reads a list that Go writes as `null` if it is empty. An entry takes more memory than its text, so that the memory is
/// limited, not only the size of the text.
fn or_none<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Vec<TableEntry>, D::Error> {
    struct Entries;
    impl<'de> Visitor<'de> for Entries {
        type Value = Vec<TableEntry>;

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("a list of entries")
        }

        fn visit_unit<E>(self) -> std::result::Result<Vec<TableEntry>, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Vec<TableEntry>, A::Error> {
            let mut entries = Vec::new();
            while let Some(entry) = list.next_element()? {
                if entries.len() == MAX_TABLE_ENTRIES {
                    return Err(serde::de::Error::custom(format_args!("more than {MAX_TABLE_ENTRIES} entries")));
                }
                entries.push(entry);
            }
            Ok(entries)
        }
    }
    deserializer.deserialize_any(Entries)
}

impl Table {
    /// Parses the JSON.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if it is not a table of version 1, [`Error::TooLarge`] above [`MAX_TABLE_BYTES`].
    pub fn parse(json: &[u8]) -> Result<Table> {
        check_size(json.len() as u64)?;
        let table: Table = serde_json::from_slice(json).map_err(|error| Error::invalid(PART, error))?;
        match table.version {
            1 => Ok(table),
            other => Err(Error::invalid(PART, format_args!("version {other} is unknown"))),
        }
    }

    /// Reads the part of an eStargz layer from the table of contents to the footer: a member with a tar of one file.
    /// Returns the table and the digest of its JSON.
    ///
    /// # Errors
    ///
    /// As [`Table::parse`]; [`Error::Io`] if it cannot be decompressed.
    pub fn of_estargz(bytes: &[u8]) -> Result<(Table, Digest)> {
        check_size(bytes.len() as u64)?;
        let tar = decoded(bytes, Compression::Gzip)?;
        let mut stream = ocikit_archive::TarStream::new(tar.take(MAX_TABLE_BYTES));
        let entry = stream.next_entry()?.ok_or_else(|| Error::invalid(PART, "it has no file"))?;
        if entry.name.as_deref() != Some(estargz::TOC_NAME) {
            return Err(Error::invalid(PART, format_args!("its file is not `{}`", estargz::TOC_NAME)));
        }
        check_size(entry.data.size)?;
        let mut json = Vec::new();
        let mut buffer = [0; 16 << 10];
        loop {
            match stream.read(&mut buffer)? {
                0 => break,
                read => json.extend_from_slice(&buffer[..read]),
            }
        }
        Ok((Table::parse(&json)?, Digest::sha256_of(&json)))
    }

    /// Reads the compressed table of contents of a zstd:chunked layer.
    ///
    /// # Errors
    ///
    /// As [`Table::parse`]; [`Error::Invalid`] if its size is not that of the position.
    pub fn of_zstd_chunked(bytes: &[u8], position: &Position) -> Result<Table> {
        let json = inflated(bytes, position)?;
        Table::parse(&json)
    }

    /// Returns the entries of each file: the first one, and those of its further chunks.
    pub(crate) fn files(&self) -> impl Iterator<Item = &[TableEntry]> {
        self.entries.chunk_by(|_, next| next.kind == "chunk")
    }
}

const PART: &str = "table of contents";

/// Checks that a table of contents is not too large to be read.
pub(crate) fn check_size(size: u64) -> Result<()> {
    match size <= MAX_TABLE_BYTES {
        true => Ok(()),
        false => Err(Error::TooLarge { part: PART, size, limit: MAX_TABLE_BYTES }),
    }
}

fn decoded(bytes: &[u8], compression: Compression) -> Result<Decoder<&[u8]>> {
    let decoder = Decoder::new(bytes)?;
    match decoder.compression() == compression {
        true => Ok(decoder),
        false => Err(Error::invalid(PART, "its compression is another one")),
    }
}

/// Decompresses a part of a zstd:chunked layer.
fn inflated(bytes: &[u8], position: &Position) -> Result<Vec<u8>> {
    check_size(bytes.len() as u64)?;
    let size = position.uncompressed.unwrap_or(MAX_TABLE_BYTES);
    check_size(size)?;
    let mut inflated = Vec::new();
    // The memory follows the bytes that exist, not the size in the annotation.
    decoded(bytes, Compression::Zstd)?.take(size + 1).read_to_end(&mut inflated)?;
    match position.uncompressed.is_none_or(|size| size == inflated.len() as u64) {
        true => Ok(inflated),
        false => Err(Error::invalid(PART, format_args!("it does not have {size} bytes"))),
    }
}

impl Position {
    /// Reads the footer of an eStargz layer of this size: its last 51 bytes. Returns the position of the table of contents.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if it is not a footer, or points out of the layer.
    pub fn of_estargz(footer: &[u8], size: u64) -> Result<Position> {
        let invalid = |problem: &str| Error::invalid("footer", problem);
        let wanted = estargz::footer(0);
        let is_footer =
            footer.len() == wanted.len() && footer[..16] == wanted[..16] && footer[32..38] == wanted[32..38];
        let digits = footer.get(16..32).filter(|_| is_footer).ok_or_else(|| invalid("it is not that of eStargz"))?;
        let text = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let offset = text.and_then(|text| u64::from_str_radix(text, 16).ok());
        let offset = offset.ok_or_else(|| invalid("its offset is not a number"))?;
        let end = size.saturating_sub(footer.len() as u64);
        match end.checked_sub(offset) {
            Some(length) if length > 0 => Ok(Position { offset, length, uncompressed: None }),
            _ => Err(invalid("its offset is out of the layer")),
        }
    }

    /// Parses an annotation of a zstd:chunked layer of this size: `OFFSET:COMPRESSED:UNCOMPRESSED`, and `:1` for the table
    /// of contents.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if it is not a position in the layer.
    pub fn of_zstd_chunked(annotation: &str, size: u64) -> Result<Position> {
        let invalid =
            || Error::invalid("annotation", format_args!("`{}` is not a position", annotation.escape_debug()));
        let numbers: Vec<u64> = annotation
            .splitn(5, ':')
            .map(|number| number.parse().ok().filter(|_| number.bytes().all(|byte| byte.is_ascii_digit())))
            .collect::<Option<_>>()
            .ok_or_else(invalid)?;
        match numbers[..] {
            [offset, length, uncompressed] | [offset, length, uncompressed, 1] => {
                Position { offset, length, uncompressed: Some(uncompressed) }.within(size).ok_or_else(invalid)
            }
            _ => Err(invalid()),
        }
    }

    /// Reads the footer of a zstd:chunked layer of this size: its last 64 bytes. Returns the positions of the table of
    /// contents and of the tar-split. Readers trust annotations only, because a footer is not signed.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if it is not a footer, or points out of the layer.
    pub fn of_zstd_chunked_footer(footer: &[u8], size: u64) -> Result<(Position, Position)> {
        let invalid = |problem: &str| Error::invalid("footer", problem);
        let (numbers, rest) = footer.as_chunks::<8>();
        let [toc @ .., magic] = numbers else { return Err(invalid("it is too short")) };
        if footer.len() != chunked::FOOTER_BYTES || !rest.is_empty() || *magic != chunked::MAGIC {
            return Err(invalid("it is not that of zstd:chunked"));
        }
        let numbers: Vec<u64> = toc.iter().map(|number| u64::from_le_bytes(*number)).collect();
        let position = |at: usize| {
            let [offset, length, uncompressed] = numbers[at..at + 3] else { return None };
            Position { offset, length, uncompressed: Some(uncompressed) }.within(size)
        };
        match (position(0), position(4)) {
            (Some(toc), Some(tar_split)) => Ok((toc, tar_split)),
            _ => Err(invalid("its offsets are out of the layer")),
        }
    }

    /// Returns the position if it lies in a blob of this size.
    fn within(self, size: u64) -> Option<Position> {
        let end = self.offset.checked_add(self.length)?;
        (end <= size && self.length > 0).then_some(self)
    }
}
