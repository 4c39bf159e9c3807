//! Writing the tables of contents of eStargz and zstd:chunked: JSON with one object for each entry, and for each further
//! chunk of a file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ocikit_archive::layer::RawEntry;
use ocikit_spec::Digest;
use serde::Serialize;

use crate::reason::type_name;
use crate::waiting::Chunk;

/// The union of the fields of both formats, in the order of containers/storage. The readers of eStargz take any order.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry<'a> {
    #[serde(rename = "type")]
    pub(crate) kind: &'a str,
    pub(crate) name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) link_name: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) mode: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) size: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) uid: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) gid: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user_name: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) group_name: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) modtime: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) accesstime: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) changetime: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) dev_major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) dev_minor: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) xattrs: BTreeMap<&'a str, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<Digest>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) end_offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) chunk_size: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) chunk_offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) chunk_digest: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) chunk_type: Option<&'static str>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl<'a> Entry<'a> {
    /// Returns the fields that mean the same in both formats.
    pub(crate) fn of(entry: &'a RawEntry) -> Entry<'a> {
        let xattrs = entry.xattrs().into_iter().map(|(name, value)| (text(name), STANDARD.encode(value))).collect();
        Entry {
            kind: type_name(entry.kind),
            name: text(&entry.name),
            link_name: text(&entry.link),
            uid: entry.uid,
            gid: entry.gid,
            dev_major: entry.major.into(),
            dev_minor: entry.minor.into(),
            xattrs,
            ..Entry::default()
        }
    }
}

/// Returns bytes of an entry that [`Paths::add`](crate::reason::Paths::add) has found to be UTF-8.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// A table that is written entry by entry.
pub(crate) struct TocWriter<W> {
    writer: W,
    is_first: bool,
}

impl<W: Write> TocWriter<W> {
    pub(crate) fn new(mut writer: W) -> io::Result<TocWriter<W>> {
        writer.write_all(br#"{"version":1,"entries":["#)?;
        Ok(TocWriter { writer, is_first: true })
    }

    /// Adds an entry with its chunks, whose fields the function sets.
    pub(crate) fn add<'a>(
        &mut self,
        mut entry: Entry<'a>,
        chunks: &[Chunk],
        set: impl Fn(&mut Entry<'a>, &Chunk),
    ) -> io::Result<()> {
        let (name, mut position) = (entry.name, 0);
        for (number, chunk) in chunks.iter().enumerate() {
            if number > 0 {
                self.push(&entry)?;
                entry = Entry { kind: "chunk", name, ..Entry::default() };
            }
            (entry.offset, entry.chunk_offset) = (chunk.offset, position);
            set(&mut entry, chunk);
            position += chunk.size;
        }
        self.push(&entry)
    }

    fn push(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        if !std::mem::take(&mut self.is_first) {
            self.writer.write_all(b",")?;
        }
        Ok(serde_json::to_writer(&mut self.writer, entry)?)
    }

    /// Ends the table with the digest of the tar-split, if the format has one.
    pub(crate) fn finish(mut self, tar_split: Option<&Digest>) -> io::Result<W> {
        match tar_split {
            Some(digest) => write!(self.writer, r#"],"tarSplitDigest":"{digest}"}}"#)?,
            None => self.writer.write_all(b"]}")?,
        }
        Ok(self.writer)
    }
}
