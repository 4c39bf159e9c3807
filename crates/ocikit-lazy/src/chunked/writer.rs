use std::io::{self, Read, Write};
use std::path::Path;

use ocikit_archive::layer::{Budget, RawEntry};
use ocikit_spec::{Algorithm, Hasher, MediaType};

use crate::chunked::crc64::Crc64;
use crate::chunked::format::{
    FOOTER_BYTES, MAGIC, MANIFEST_CHECKSUM, MANIFEST_POSITION, SKIPPABLE_MAGIC, TAR_SPLIT_POSITION,
};
use crate::chunked::split::{ChunkKind, Splitter};
use crate::chunked::tar_split::TarSplit;
use crate::chunked::toc::Toc;
use crate::error::Stopped;
use crate::output::{Output, Stored, Written};
use crate::pieces::{Codec, PieceBudget, Pieces};
use crate::reason::{Paths, Reason};
use crate::source::Source;
use crate::waiting::{Chunk, Waiting};

/// The size from which headers and padding become a frame, in bytes.
const MAX_BETWEEN_BYTES: usize = 1 << 20;

/// The number of bytes of contents that are read at once.
const READ_BYTES: usize = 64 << 10;

/// The maximum size of table and tar-split that readers accept, compressed and uncompressed.
const MAX_TABLE_BYTES: u64 = 150 << 20;

/// Compressed lines that are counted before compression.
struct Table {
    encoder: zstd::Encoder<'static, Output>,
    size: u64,
}

/// Writes a tar as a layer.
pub(crate) fn write(
    tar: &mut impl Read,
    budget: &Budget,
    level: i32,
    pieces: &PieceBudget,
    directory: &Path,
) -> Result<Written, Stopped> {
    let mut writer = Writer {
        pieces: Pieces::new(Codec::Zstd { level }, pieces, Output::create(directory)?),
        toc: Toc::new(Table::create(directory, level)?)?,
        tar_split: TarSplit::new(Table::create(directory, level)?),
        splitter: Splitter::default(),
        waiting: Waiting::default(),
    };
    let mut source = Source::new(tar, budget, Paths::with_parents());
    while let Some(entry) = source.next_entry()? {
        writer.between(source.between())?;
        writer.entry(entry, source.contents())?;
    }
    writer.between(source.between())?;
    writer.finish()
}

struct Writer {
    pieces: Pieces,
    toc: Toc<Table>,
    tar_split: TarSplit<Table>,
    splitter: Splitter,
    waiting: Waiting,
}

impl Writer {
    /// Adds bytes that are not contents.
    fn between(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.tar_split.segment(bytes)?;
        self.pieces.append(bytes);
        match self.pieces.rest().len() > MAX_BETWEEN_BYTES {
            true => self.end_between(),
            false => Ok(()),
        }
    }

    fn end_between(&mut self) -> io::Result<()> {
        match self.pieces.rest().len() {
            0 => Ok(()),
            length => self.pieces.end_piece(length, 0),
        }
    }

    /// Writes the contents of an entry, whose headers were written.
    fn entry(&mut self, entry: RawEntry, reader: &mut impl Read) -> Result<(), Stopped> {
        let mut chunks: Vec<Chunk> = Vec::new();
        let mut crc = Crc64::new();
        let mut digest = None;
        if entry.data.size > 0 {
            self.end_between()?;
            // One chunk has the digest of the file, which is computed with its compression.
            let mut hasher = Hasher::new(Algorithm::Sha256);
            let mut is_hashed = false;
            self.splitter.reset();
            loop {
                let read = self.pieces.fill(&mut *reader, READ_BYTES)?;
                let is_end = read < READ_BYTES;
                let rest = self.pieces.rest();
                let bytes = &rest[rest.len() - read..];
                crc.update(bytes);
                let mut ends = Vec::new();
                let mut cut = |size, kind| ends.push((size, kind));
                self.splitter.feed(bytes, &mut cut);
                if is_end {
                    self.splitter.finish(&mut cut);
                }
                // The first bytes are hashed when it is known that there is a second chunk.
                if is_hashed {
                    hasher.update(bytes);
                } else if chunks.len() + ends.len() > usize::from(is_end) {
                    hasher.update(rest);
                    is_hashed = true;
                }
                for (size, kind) in ends {
                    self.pieces.end_piece(size, size)?;
                    let is_hole = kind == ChunkKind::Zeros;
                    chunks.push(Chunk { size: size as u64, is_hole, ..Chunk::default() });
                }
                if is_end {
                    break;
                }
            }
            digest = is_hashed.then(|| hasher.finish());
        }
        self.tar_split.entry(&entry.name, entry.data.size, crc)?;
        self.waiting.push(Some(entry), chunks, digest);
        Ok(self.list()?)
    }

    /// Lists the entries whose chunks were written.
    fn list(&mut self) -> io::Result<()> {
        while let Some(listed) = self.waiting.next_listed(&mut self.pieces) {
            self.toc.add(&listed)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Written, Stopped> {
        self.end_between()?;
        self.pieces.complete()?;
        self.list()?;
        let (tar_split, tar_split_bytes) = self.tar_split.into_inner().finish()?;
        let (toc, toc_bytes) = self.toc.finish(&tar_split.digest)?.finish()?;
        let largest = [tar_split.size, tar_split_bytes, toc.size, toc_bytes].into_iter().max().unwrap_or_default();
        if largest > MAX_TABLE_BYTES {
            return Err(Reason::TableSize { bytes: largest }.into());
        }
        let mut output = self.pieces.into_output();
        let checksum = toc.digest.to_string();
        let (toc_place, tar_split_place) = (toc.size, tar_split.size);
        let toc_offset = frame(&mut output, toc)?;
        let tar_split_offset = frame(&mut output, tar_split)?;
        let numbers = [toc_offset, toc_place, toc_bytes, 1, tar_split_offset, tar_split_place, tar_split_bytes];
        output.write_all(&SKIPPABLE_MAGIC)?;
        output.write_all(&(FOOTER_BYTES as u32).to_le_bytes())?;
        for number in numbers {
            output.write_all(&number.to_le_bytes())?;
        }
        output.write_all(&MAGIC)?;
        let annotations = vec![
            (MANIFEST_CHECKSUM, checksum),
            (MANIFEST_POSITION, format!("{toc_offset}:{toc_place}:{toc_bytes}:1")),
            (TAR_SPLIT_POSITION, format!("{tar_split_offset}:{tar_split_place}:{tar_split_bytes}")),
        ];
        Ok(Written { stored: output.finish()?, media_type: MediaType::OCI_LAYER_ZSTD, annotations, diff_id: None })
    }
}

/// Writes a frame that readers skip, and returns the offset of its contents.
fn frame(output: &mut Output, contents: Stored) -> io::Result<u64> {
    let size = u32::try_from(contents.size).map_err(io::Error::other)?;
    output.write_all(&SKIPPABLE_MAGIC)?;
    output.write_all(&size.to_le_bytes())?;
    let offset = output.position();
    contents.copy_to(output)?;
    Ok(offset)
}

impl Table {
    fn create(directory: &Path, level: i32) -> io::Result<Table> {
        Ok(Table { encoder: zstd::Encoder::new(Output::create(directory)?, level)?, size: 0 })
    }

    /// Returns the compressed bytes, and the number of uncompressed ones.
    fn finish(self) -> io::Result<(Stored, u64)> {
        Ok((self.encoder.finish()?.finish()?, self.size))
    }
}

impl Write for Table {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.encoder.write(bytes)?;
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
