use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::path::Path;

use ocikit_archive::layer::{Budget, RawEntry, RawReader};
use ocikit_spec::{Algorithm, Digest, Hasher};

use crate::chunked::crc64::Crc64;
use crate::chunked::format::{
    FOOTER_BYTES, MAGIC, MANIFEST_CHECKSUM, MANIFEST_POSITION, SKIPPABLE_MAGIC, TAR_SPLIT_POSITION,
};
use crate::chunked::split::Splitter;
use crate::chunked::tar_split::TarSplit;
use crate::chunked::toc::{Chunk, Toc};
use crate::error::Stopped;
use crate::output::{Output, Stored};
use crate::pieces::{Codec, Pieces};
use crate::reason::{Paths, Reason};

/// The size from which headers and padding become a frame, in bytes.
const MAX_BETWEEN_BYTES: usize = 1 << 20;

/// The size of the buffer for contents, in bytes.
const BUFFER_BYTES: usize = 64 << 10;

/// The maximum size of table and tar-split that readers accept, compressed and uncompressed.
const MAX_TABLE_BYTES: u64 = 150 << 20;

/// A layer that was written, with the annotations of its descriptor.
pub(crate) struct Written {
    pub(crate) stored: Stored,
    pub(crate) annotations: Vec<(&'static str, String)>,
}

/// An entry whose chunks are not all written yet.
struct Waiting {
    entry: RawEntry,
    chunks: Vec<Chunk>,
    /// The number of chunks whose place is known.
    placed: usize,
    /// The digest of the whole contents, if there are several chunks.
    digest: Option<Digest>,
    end: u64,
}

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
    threads: NonZeroUsize,
    directory: &Path,
) -> Result<Written, Stopped> {
    let mut writer = Writer {
        pieces: Pieces::new(Codec::Zstd { level }, threads, Output::create(directory)?),
        toc: Toc::new(Table::create(directory, level)?)?,
        tar_split: TarSplit::new(Table::create(directory, level)?),
        splitter: Splitter::new(),
        waiting: VecDeque::new(),
        buffer: vec![0; BUFFER_BYTES],
    };
    let (mut reader, mut paths) = (RawReader::within(budget, tar), Paths::with_parents());
    // The bytes since the last contents; those of the last entry start at `mark`, which is `position` in the tar.
    let (mut between, mut mark, mut position) = (Vec::new(), 0, 0);
    while let Some(entry) = reader.next_entry(&mut between)? {
        let headers = entry.start - position;
        let mut before = between[mark..].iter().take(usize::try_from(headers).unwrap_or(usize::MAX));
        if before.any(|byte| *byte != 0) {
            return Err(Reason::GlobalHeader.into());
        }
        paths.add(&entry)?;
        writer.tar_split.segment(&between[mark..])?;
        position = entry.data.offset;
        mark = between.len();
        if entry.data.size > 0 || between.len() > MAX_BETWEEN_BYTES {
            writer.pieces.push(&between, 0)?;
            between.clear();
            mark = 0;
        }
        position += entry.data.size;
        writer.entry(entry, &mut reader)?;
    }
    writer.tar_split.segment(&between[mark..])?;
    if !between.is_empty() {
        writer.pieces.push(&between, 0)?;
    }
    writer.finish()
}

struct Writer {
    pieces: Pieces,
    toc: Toc<Table>,
    tar_split: TarSplit<Table>,
    splitter: Splitter,
    waiting: VecDeque<Waiting>,
    buffer: Vec<u8>,
}

impl Writer {
    /// Writes the contents of an entry, whose headers were written.
    fn entry(&mut self, entry: RawEntry, reader: &mut impl Read) -> Result<(), Stopped> {
        let mut chunks: Vec<Chunk> = Vec::new();
        let mut crc = Crc64::new();
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let pieces = &mut self.pieces;
        let mut add = |bytes: &[u8], kind| -> io::Result<()> {
            pieces.push(bytes, bytes.len())?;
            chunks.push(Chunk { size: bytes.len() as u64, kind, offset: 0, digest: None });
            Ok(())
        };
        self.splitter.reset();
        if entry.data.size > 0 {
            loop {
                // What the reader says about the tar is not an error of the result.
                let read = reader.read(&mut self.buffer).map_err(|error| Stopped::Reading(error.into()))?;
                let bytes = &self.buffer[..read];
                if bytes.is_empty() {
                    break;
                }
                crc.update(bytes);
                hasher.update(bytes);
                self.splitter.feed(bytes, &mut add)?;
            }
            self.splitter.finish(&mut add)?;
        }
        self.tar_split.entry(&entry.name, entry.data.size, crc)?;
        let digest = (entry.data.size > 0).then(|| hasher.finish());
        self.waiting.push_back(Waiting { entry, chunks, placed: 0, digest, end: 0 });
        Ok(self.list()?)
    }

    /// Lists the entries whose chunks were written.
    fn list(&mut self) -> io::Result<()> {
        let mut placed = || std::iter::from_fn(|| self.pieces.next_placed()).find(|placed| placed.digest.is_some());
        while let Some(first) = self.waiting.front_mut() {
            while first.placed < first.chunks.len() {
                let Some(place) = placed() else { return Ok(()) };
                let chunk = &mut first.chunks[first.placed];
                (chunk.offset, chunk.digest, first.end) = (place.offset, place.digest, place.end);
                first.placed += 1;
            }
            if let Some(Waiting { entry, chunks, digest, end, .. }) = self.waiting.pop_front() {
                self.toc.add(&entry, &chunks, digest, end)?;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Written, Stopped> {
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
        Ok(Written { stored: output.finish()?, annotations })
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
