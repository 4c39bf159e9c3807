//! The table of contents of zstd:chunked.

use std::io::{self, Write};

use ocikit_spec::Digest;

use crate::toc::{Entry, TocWriter};
use crate::waiting::{Chunk, Listed};

/// Writes the table entry by entry.
pub(super) struct Toc<W>(TocWriter<W>);

impl<W: Write> Toc<W> {
    pub(super) fn new(writer: W) -> io::Result<Toc<W>> {
        Ok(Toc(TocWriter::new(writer)?))
    }

    pub(super) fn add(&mut self, listed: &Listed) -> io::Result<()> {
        let Listed { entry: Some(entry), chunks, digest, .. } = listed else { return Ok(()) };
        let first = Entry {
            mode: entry.mode.into(),
            size: entry.size,
            modtime: Some(entry.modified.to_string()),
            accesstime: entry.accessed.map(|time| time.to_string()),
            changetime: entry.changed.map(|time| time.to_string()),
            digest: *digest,
            end_offset: chunks.last().map_or(0, |chunk| chunk.end),
            ..Entry::of(entry)
        };
        self.0.add(first, chunks, |listed, chunk: &Chunk| {
            // A chunk that is the whole file has the digest of the file.
            if chunks.len() > 1 {
                listed.chunk_size = chunk.size;
                listed.chunk_digest = chunk.digest;
                listed.chunk_type = chunk.is_hole.then_some("zeros");
            }
        })
    }

    /// Ends the table, which names the digest of the compressed tar-split.
    pub(super) fn finish(self, tar_split: &Digest) -> io::Result<W> {
        self.0.finish(Some(tar_split))
    }
}
