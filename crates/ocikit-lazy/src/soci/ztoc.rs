//! The flatbuffer with the files and checkpoints of a layer. The order of its parts is that of the reference, so that the
//! bytes are the same.

use std::io::{self, Read};

use bytes::Bytes;
use flatbuffers::{FlatBufferBuilder, TableFinishedWIPOffset, WIPOffset};
use ocikit_archive::layer::{Budget, RawKind, RawReader};
use ocikit_archive::padding;
use ocikit_spec::{Algorithm, Digest, Hasher};

use crate::counted::Counted;
use crate::error::Stopped;
use crate::reason::Reason;
use crate::soci::checkpoints::{Indexer, Spans};
use crate::soci::format::BUILD_TOOL_NAME;
use crate::soci::listed::{File, Files};

/// The version of the format.
const VERSION: &str = "0.9";

/// The maximum number of bytes of checkpoints and names together: the flatbuffer is held in memory, and its offsets have
/// 31 bits.
const MAX_ZTOC_BYTES: usize = 1 << 30;

/// The size of two zero blocks, the end of a tar, in bytes.
const END_BYTES: u64 = 1024;

/// The compression of the layer. The numbers are those of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LayerCompression {
    Gzip = 1,
    Uncompressed = 2,
}

/// Returns the ztoc of the compressed bytes of a layer, which are read to their end.
pub(crate) fn build(
    layer: impl Read,
    compression: LayerCompression,
    size: u64,
    span_size: u64,
    budget: &Budget,
) -> Result<Bytes, Stopped> {
    let (files, end, spans) = match compression {
        LayerCompression::Gzip => {
            let mut indexer = Indexer::new(layer, span_size);
            let (files, end) = files(Counted::new(&mut indexer, budget), budget)?;
            (files, end, indexer.finish())
        }
        LayerCompression::Uncompressed => {
            let mut plain = PlainSpans::new(layer, span_size);
            let (files, end) = files(Counted::new(&mut plain, budget), budget)?;
            (files, end, plain.finish())
        }
    };
    let bytes = spans.checkpoints.len().saturating_add(files.table_bytes());
    if bytes > MAX_ZTOC_BYTES {
        return Err(Reason::TableSize { bytes: bytes as u64 }.into());
    }
    Ok(flatbuffer(files, spans, (compression, size, end)))
}

/// Reads the entries of a tar, and the position of its end.
fn files(tar: impl Read, budget: &Budget) -> Result<(Files, u64), Stopped> {
    let mut reader = RawReader::within(budget, tar);
    let (mut files, mut between, mut position, mut gap) = (Files::default(), Vec::new(), 0, 0);
    while let Some(entry) = reader.next_entry(&mut between)? {
        match entry.kind {
            RawKind::Sparse => return Err(Reason::Sparse { path: entry.path }.into()),
            RawKind::Other(entry_type) => return Err(Reason::UnknownType { path: entry.path, entry_type }.into()),
            RawKind::Regular
            | RawKind::HardLink
            | RawKind::Symlink
            | RawKind::CharacterDevice
            | RawKind::BlockDevice
            | RawKind::Directory
            | RawKind::Fifo => {}
        }
        position = entry.data.offset + entry.data.size;
        gap = padding(entry.data.size);
        io::copy(&mut reader, &mut io::sink()).map_err(|error| Stopped::Reading(error.into()))?;
        files.push(&File::of(&entry));
        between.clear();
    }
    let end = (between.len() as u64).min(gap + END_BYTES);
    Ok((files, position + end))
}

/// Returns the offset of a field in the table of offsets, by its number.
const fn slot(number: u16) -> u16 {
    4 + 2 * number
}

type Table = WIPOffset<TableFinishedWIPOffset>;

/// Returns the flatbuffer. Files and checkpoints are freed as soon as they are in it.
fn flatbuffer(mut files: Files, spans: Spans, (compression, size, end): (LayerCompression, u64, u64)) -> Bytes {
    // A builder that grows doubles its memory, and holds both halves meanwhile.
    let capacity = files.table_bytes() + spans.checkpoints.len() + spans.digests.len() * 96;
    let mut builder = FlatBufferBuilder::with_capacity(capacity);
    let version = builder.create_string(VERSION);
    let tool = builder.create_string(BUILD_TOOL_NAME);

    let mut tables: Vec<Table> = std::iter::from_fn(|| files.pop(|file| table(&mut builder, file))).collect();
    tables.reverse();
    let tables = builder.create_vector(&tables);
    let start = builder.start_table();
    builder.push_slot_always(slot(0), tables);
    let toc = builder.end_table(start);

    let Spans { checkpoints, digests: span_digests } = spans;
    let checkpoints = {
        let bytes = checkpoints;
        builder.create_vector(&bytes)
    };
    let digests: Vec<_> = span_digests.iter().map(|digest| builder.create_string(&digest.to_string())).collect();
    let digests = builder.create_vector(&digests);
    let start = builder.start_table();
    builder.push_slot(slot(1), i32::try_from(span_digests.len()).unwrap_or(i32::MAX) - 1, 0);
    builder.push_slot_always(slot(2), digests);
    builder.push_slot_always(slot(3), checkpoints);
    builder.push_slot(slot(0), compression as i8, LayerCompression::Gzip as i8);
    let info = builder.end_table(start);

    let start = builder.start_table();
    builder.push_slot_always(slot(0), version);
    builder.push_slot_always(slot(1), tool);
    builder.push_slot_always(slot(4), toc);
    builder.push_slot(slot(2), size.cast_signed(), 0);
    builder.push_slot(slot(3), end.cast_signed(), 0);
    builder.push_slot_always(slot(5), info);
    let root = builder.end_table(start);
    builder.finish_minimal(root);
    let (bytes, start) = builder.collapse();
    // The memory before the start was never touched. Moving the bytes there would.
    Bytes::from(bytes).slice(start..)
}

fn table(builder: &mut FlatBufferBuilder<'_>, file: &File<'_>) -> Table {
    let name = builder.create_byte_string(file.name);
    let kind = builder.create_string(file.kind);
    let link = builder.create_byte_string(file.link);
    let user = builder.create_byte_string(file.user);
    let group = builder.create_byte_string(file.group);
    let modified = builder.create_string(&file.modified.to_string());
    let record = |(key, value): (&[u8], &[u8])| {
        let key = builder.create_byte_string(key);
        let value = builder.create_byte_string(value);
        let start = builder.start_table();
        builder.push_slot_always(slot(0), key);
        builder.push_slot_always(slot(1), value);
        builder.end_table(start)
    };
    let records: Vec<Table> = file.records.iter().copied().map(record).collect();
    let records = builder.create_vector(&records);
    let start = builder.start_table();
    builder.push_slot_always(slot(0), name);
    builder.push_slot_always(slot(1), kind);
    builder.push_slot(slot(2), file.offset.cast_signed(), 0);
    builder.push_slot(slot(3), file.size.cast_signed(), 0);
    builder.push_slot_always(slot(4), link);
    builder.push_slot(slot(5), i64::from(file.mode), 0);
    // The format has 32 bits, to which the reference cuts the numbers.
    builder.push_slot(slot(6), file.uid as u32, 0);
    builder.push_slot(slot(7), file.gid as u32, 0);
    builder.push_slot_always(slot(8), user);
    builder.push_slot_always(slot(9), group);
    builder.push_slot_always(slot(10), modified);
    builder.push_slot(slot(11), i64::from(file.major), 0);
    builder.push_slot(slot(12), i64::from(file.minor), 0);
    builder.push_slot_always(slot(13), records);
    builder.end_table(start)
}

/// The spans of an uncompressed layer: ranges of equal size.
struct PlainSpans<R> {
    reader: R,
    span_size: u64,
    /// The number of bytes that are missing in the span in progress.
    rest: u64,
    hasher: Hasher,
    digests: Vec<Digest>,
    size: u64,
}

impl<R: Read> PlainSpans<R> {
    fn new(reader: R, span_size: u64) -> PlainSpans<R> {
        let hasher = Hasher::new(Algorithm::Sha256);
        PlainSpans { reader, span_size, rest: span_size, hasher, digests: Vec::new(), size: 0 }
    }

    fn finish(mut self) -> Spans {
        if self.rest < self.span_size {
            self.digests.push(self.hasher.finish());
        }
        let mut builder = FlatBufferBuilder::new();
        let start = builder.start_table();
        builder.push_slot(slot(0), 2_i32, 0);
        builder.push_slot(slot(1), self.span_size.cast_signed(), 0);
        builder.push_slot(slot(2), self.size.cast_signed(), 0);
        let root = builder.end_table(start);
        builder.finish_minimal(root);
        Spans { checkpoints: builder.finished_data().to_vec(), digests: self.digests }
    }
}

impl<R: Read> Read for PlainSpans<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.size += read as u64;
        let mut bytes = &buffer[..read];
        while !bytes.is_empty() {
            let taken = usize::try_from(self.rest).unwrap_or(usize::MAX).min(bytes.len());
            self.hasher.update(&bytes[..taken]);
            self.rest -= taken as u64;
            bytes = &bytes[taken..];
            if self.rest == 0 {
                let done = std::mem::replace(&mut self.hasher, Hasher::new(Algorithm::Sha256));
                self.digests.push(done.finish());
                self.rest = self.span_size;
            }
        }
        Ok(read)
    }
}
