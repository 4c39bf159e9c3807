//! The places of a gzip stream from which it can be decompressed.

use std::io::{self, Read};

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY};
use miniz_oxide::inflate::core::{BlockBoundaryState, DecompressorOxide, decompress};
use ocikit_spec::{Algorithm, Digest, Hasher};

use crate::soci::parse::ZtocCheckpoint;

/// The part of the output that deflate may refer to, in bytes.
const WINDOW_BYTES: usize = 32 << 10;

/// The size of the output buffer in bytes, a power of two.
const OUTPUT_BYTES: usize = 256 << 10;

/// The size of the input buffer in bytes.
const INPUT_BYTES: usize = 128 << 10;

/// The size of the length of a member, with its checksum, in bytes.
const TRAILER_BYTES: u8 = 8;

/// The flags in the header of a member. RFC 1952, section 2.3.1.
const HAS_HEADER_CHECKSUM: u8 = 2;
const HAS_EXTRA: u8 = 4;
const HAS_NAME: u8 = 8;
const HAS_COMMENT: u8 = 16;

/// The checkpoints of a layer, and the digests of the spans between them.
pub(super) struct Spans {
    /// As a ztoc stores them.
    pub(super) checkpoints: Vec<u8>,
    pub(super) digests: Vec<Digest>,
}

/// Decompresses gzip and records checkpoints.
pub(crate) struct Indexer<R> {
    reader: R,
    input: Box<[u8]>,
    /// The unread part of the input.
    at: usize,
    filled: usize,
    /// The last byte of input that was consumed.
    last_byte: u8,
    inflater: Box<DecompressorOxide>,
    is_inside: bool,
    /// The last bytes of the output, as a ring. Its next byte is at `head`.
    output: Box<[u8]>,
    head: usize,
    /// The bytes before `head` that were not read yet.
    ready: usize,
    compressed: u64,
    uncompressed: u64,
    span_size: u64,
    /// The position of the last checkpoint in the output.
    last: u64,
    checkpoints: Vec<u8>,
    count: u32,
    digests: Vec<Digest>,
    hasher: Option<Hasher>,
}

impl<R: Read> Indexer<R> {
    pub(crate) fn new(reader: R, span_size: u64) -> Indexer<R> {
        // Their number, which is known at the end, and the size of the spans.
        let checkpoints = [&0_u32.to_le_bytes()[..], &span_size.to_le_bytes()].concat();
        Indexer {
            reader,
            input: vec![0; INPUT_BYTES].into_boxed_slice(),
            at: 0,
            filled: 0,
            last_byte: 0,
            inflater: Box::default(),
            is_inside: false,
            output: vec![0; OUTPUT_BYTES].into_boxed_slice(),
            head: 0,
            ready: 0,
            compressed: 0,
            uncompressed: 0,
            span_size,
            last: 0,
            checkpoints,
            count: 0,
            digests: Vec::new(),
            hasher: None,
        }
    }

    /// Continues at a checkpoint. The reader starts with the byte that has the last bits of the block before it, if there are
    /// any. `None` if the checkpoint is not a possible one.
    pub(crate) fn resume(reader: R, checkpoint: &ZtocCheckpoint, window: &[u8]) -> io::Result<Option<Indexer<R>>> {
        if checkpoint.bits > 7 || window.len() != WINDOW_BYTES {
            return Ok(None);
        }
        let mut indexer = Indexer::new(reader, u64::MAX);
        indexer.output[OUTPUT_BYTES - WINDOW_BYTES..].copy_from_slice(window);
        indexer.compressed = checkpoint.compressed - u64::from(checkpoint.bits > 0).min(checkpoint.compressed);
        indexer.uncompressed = checkpoint.uncompressed;
        indexer.last = checkpoint.uncompressed;
        let bits = if checkpoint.bits > 0 { indexer.byte()? >> (8 - checkpoint.bits) } else { 0 };
        let state = BlockBoundaryState {
            num_bits: checkpoint.bits,
            bit_buf: bits,
            z_header0: 0,
            z_header1: 0,
            check_adler32: 1,
        };
        *indexer.inflater = DecompressorOxide::from_block_boundary_state(&state);
        indexer.is_inside = true;
        Ok(Some(indexer))
    }

    /// Returns the checkpoints when the stream was read to its end.
    pub(super) fn finish(mut self) -> Spans {
        if let Some(hasher) = self.hasher.take() {
            self.digests.push(hasher.finish());
        }
        self.checkpoints[..4].copy_from_slice(&self.count.to_le_bytes());
        Spans { checkpoints: self.checkpoints, digests: self.digests }
    }

    /// Reads more input if there is none; false at its end.
    fn fill(&mut self) -> io::Result<bool> {
        while self.at == self.filled {
            match self.reader.read(&mut self.input) {
                Ok(0) => return Ok(false),
                Ok(read) => (self.at, self.filled) = (0, read),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Consumes input, which belongs to the span in progress.
    fn consume(&mut self, length: usize) {
        let consumed = &self.input[self.at..self.at + length];
        if let Some(hasher) = &mut self.hasher {
            hasher.update(consumed);
        }
        self.last_byte = consumed.last().copied().unwrap_or(self.last_byte);
        self.at += length;
        self.compressed += length as u64;
    }

    fn byte(&mut self) -> io::Result<u8> {
        if !self.fill()? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let byte = self.input[self.at];
        self.consume(1);
        Ok(byte)
    }

    /// Reads the header of a member; false at the end of the stream.
    fn header(&mut self) -> io::Result<bool> {
        if !self.fill()? {
            return Ok(false);
        }
        let mut fixed = [0; 10];
        for byte in &mut fixed {
            *byte = self.byte()?;
        }
        let flags = fixed[3];
        if fixed[..3] != [0x1f, 0x8b, 8] {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the layer is not a gzip stream"));
        }
        if flags & HAS_EXTRA != 0 {
            let length = u16::from_le_bytes([self.byte()?, self.byte()?]);
            for _ in 0..length {
                self.byte()?;
            }
        }
        for flag in [HAS_NAME, HAS_COMMENT] {
            while flags & flag != 0 && self.byte()? != 0 {}
        }
        if flags & HAS_HEADER_CHECKSUM != 0 {
            let _ = (self.byte()?, self.byte()?);
        }
        self.inflater.init();
        self.is_inside = true;
        self.checkpoint(0);
        Ok(true)
    }

    /// Takes a checkpoint at this position if it is far enough from the last one. `bits` is the number of bits of the
    /// last byte of input that belong to what follows.
    fn checkpoint(&mut self, bits: u8) {
        if self.uncompressed > 0 && self.uncompressed - self.last <= self.span_size {
            return;
        }
        self.last = self.uncompressed;
        self.count = self.count.saturating_add(1);
        self.checkpoints.extend_from_slice(&self.compressed.to_le_bytes());
        self.checkpoints.extend_from_slice(&self.uncompressed.to_le_bytes());
        self.checkpoints.push(bits);
        let (later, earlier) = self.output.split_at(self.head);
        let here = later.len().min(WINDOW_BYTES);
        self.checkpoints.extend_from_slice(&earlier[earlier.len() - (WINDOW_BYTES - here)..]);
        self.checkpoints.extend_from_slice(&later[later.len() - here..]);
        let mut next = Hasher::new(Algorithm::Sha256);
        if bits > 0 {
            // The span starts with the byte of these bits, which was consumed.
            next.update(&[self.last_byte]);
        }
        if let Some(hasher) = self.hasher.replace(next) {
            self.digests.push(hasher.finish());
        }
    }

    /// Decompresses until there is output; false at the end of the stream.
    fn advance(&mut self) -> io::Result<bool> {
        while self.ready == 0 {
            if !self.is_inside {
                match self.header()? {
                    true => continue,
                    false => return Ok(false),
                }
            }
            if self.head == OUTPUT_BYTES {
                self.head = 0;
            }
            if !self.fill()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let input = &self.input[self.at..self.filled];
            let flags = TINFL_FLAG_HAS_MORE_INPUT | TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY;
            let (status, read, written) = decompress(&mut self.inflater, input, &mut self.output, self.head, flags);
            self.consume(read);
            self.head += written;
            self.ready = written;
            self.uncompressed += written as u64;
            match status {
                TINFLStatus::BlockBoundary => {
                    let bits = self.inflater.block_boundary_state().map_or(0, |state| state.num_bits);
                    self.checkpoint(bits);
                }
                TINFLStatus::Done => {
                    self.is_inside = false;
                    for _ in 0..TRAILER_BYTES {
                        self.byte()?;
                    }
                }
                TINFLStatus::NeedsMoreInput | TINFLStatus::HasMoreOutput => {}
                // The type is open; what is not known here is a failure.
                _ => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "corrupt deflate stream"));
                }
            }
        }
        Ok(true)
    }
}

impl<R: Read> Read for Indexer<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || !self.advance()? {
            return Ok(0);
        }
        let start = self.head - self.ready;
        let length = self.ready.min(buffer.len());
        buffer[..length].copy_from_slice(&self.output[start..start + length]);
        self.ready -= length;
        Ok(length)
    }
}
