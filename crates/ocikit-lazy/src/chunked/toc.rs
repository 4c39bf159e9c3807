//! The table of contents of zstd:chunked.

use std::collections::BTreeMap;
use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ocikit_archive::layer::RawEntry;
use ocikit_spec::Digest;
use serde::Serialize;

use crate::chunked::split::ChunkKind;
use crate::reason::type_name;

/// A chunk of a file in the layer.
pub(super) struct Chunk {
    pub(super) size: u64,
    pub(super) kind: ChunkKind,
    pub(super) offset: u64,
    pub(super) digest: Option<Digest>,
}

/// An entry, whose keys are in the order of the reference.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    link_name: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    mode: u64,
    #[serde(skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(skip_serializing_if = "is_zero")]
    uid: u64,
    #[serde(skip_serializing_if = "is_zero")]
    gid: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    modtime: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accesstime: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    changetime: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    dev_major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    dev_minor: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<&'a str, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(skip_serializing_if = "is_zero")]
    offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    end_offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    chunk_size: u64,
    #[serde(skip_serializing_if = "is_zero")]
    chunk_offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunk_digest: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunk_type: Option<&'static str>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Writes the table entry by entry.
pub(super) struct Toc<W> {
    writer: W,
    is_first: bool,
}

impl<W: Write> Toc<W> {
    pub(super) fn new(mut writer: W) -> io::Result<Toc<W>> {
        writer.write_all(br#"{"version":1,"entries":["#)?;
        Ok(Toc { writer, is_first: true })
    }

    /// Adds an entry with the chunks of its contents, which end at `end` in the layer. The digest is that of the whole
    /// contents.
    pub(super) fn add(
        &mut self,
        entry: &RawEntry,
        chunks: &[Chunk],
        digest: Option<Digest>,
        end: u64,
    ) -> io::Result<()> {
        let text = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
        let xattrs = entry.xattrs().into_iter().map(|(name, value)| (text(name), STANDARD.encode(value))).collect();
        let mut listed = Entry {
            kind: type_name(entry.kind),
            name: text(&entry.name),
            link_name: text(&entry.link),
            mode: entry.mode.into(),
            size: entry.size,
            uid: entry.uid,
            gid: entry.gid,
            modtime: Some(entry.modified.to_string()),
            accesstime: entry.accessed.map(|time| time.to_string()),
            changetime: entry.changed.map(|time| time.to_string()),
            dev_major: entry.major.into(),
            dev_minor: entry.minor.into(),
            xattrs,
            digest,
            offset: chunks.first().map_or(0, |chunk| chunk.offset),
            end_offset: end,
            ..Entry::default()
        };
        let mut chunk_offset = 0;
        for (position, chunk) in chunks.iter().enumerate() {
            if position > 0 {
                self.push(&listed)?;
                listed = Entry { kind: "chunk", name: text(&entry.name), offset: chunk.offset, ..Entry::default() };
            }
            if chunks.len() > 1 {
                listed.chunk_size = chunk.size;
                listed.chunk_offset = chunk_offset;
                listed.chunk_digest = chunk.digest;
                listed.chunk_type = (chunk.kind == ChunkKind::Zeros).then_some("zeros");
            }
            chunk_offset += chunk.size;
        }
        self.push(&listed)
    }

    fn push(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        if !std::mem::take(&mut self.is_first) {
            self.writer.write_all(b",")?;
        }
        Ok(serde_json::to_writer(&mut self.writer, entry)?)
    }

    /// Ends the table, which names the digest of the compressed tar-split.
    pub(super) fn finish(mut self, tar_split: &Digest) -> io::Result<W> {
        write!(self.writer, r#"],"tarSplitDigest":"{tar_split}"}}"#)?;
        Ok(self.writer)
    }
}
