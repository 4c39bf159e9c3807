//! gzip in blocks that are compressed in parallel, as `pigz` does it.

use std::io::{self, Write};
use std::num::NonZeroUsize;

use flate2::{Compress, Crc, FlushCompress, Status};

use crate::ordered::Ordered;

/// The size of a block in bytes. The bytes of every layer depend on it. See `docs/decisions/layers.md`.
const BLOCK_BYTES: usize = 512 << 10;

/// The end of the previous block that each block may refer to: the window of deflate, in bytes.
const WINDOW_BYTES: usize = 32 << 10;

/// The number of blocks in progress for each thread: one that is compressed and one that waits.
const BLOCKS_PER_THREAD: usize = 2;

/// Writes one gzip member (RFC 1952) that consists of blocks of a fixed size. Each block ends at a byte boundary and
/// refers only to the window before it, so that blocks are compressed independently and joined.
pub(crate) struct BlockGzip<W> {
    writer: W,
    /// The block that is filled, after the window before it.
    block: Block,
    blocks: Ordered<Block, io::Result<Compressed>>,
    /// Buffers for further blocks.
    spare: Vec<Vec<u8>>,
    crc: Crc,
}

/// The bytes of a block, after the window of up to [`WINDOW_BYTES`] before it.
struct Block {
    bytes: Vec<u8>,
    window: usize,
    is_last: bool,
}

struct Compressed {
    bytes: Vec<u8>,
    crc: Crc,
    /// The buffer of the block, for the next one.
    buffer: Vec<u8>,
}

impl<W: Write> BlockGzip<W> {
    pub(crate) fn new(mut writer: W, level: u32, threads: NonZeroUsize) -> io::Result<BlockGzip<W>> {
        /// The extra flags that say whether the fastest or the best level was used.
        const FASTEST: u8 = 4;
        const BEST: u8 = 2;
        /// An unknown operating system, as Go writes it.
        const UNKNOWN_SYSTEM: u8 = 255;
        let extra = match level {
            1 => FASTEST,
            9 => BEST,
            _ => 0,
        };
        writer.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, extra, UNKNOWN_SYSTEM])?;
        Ok(BlockGzip {
            writer,
            block: Block { bytes: Vec::new(), window: 0, is_last: false },
            blocks: Ordered::new("gzip", threads, move || Box::new(move |block| compress(block, level))),
            spare: Vec::new(),
            crc: Crc::new(),
        })
    }

    pub(crate) fn get_ref(&self) -> &W {
        &self.writer
    }

    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.block.is_last = true;
        let block = std::mem::replace(&mut self.block, Block { bytes: Vec::new(), window: 0, is_last: true });
        self.submit(block)?;
        self.write_pending(0)?;
        self.writer.write_all(&self.crc.sum().to_le_bytes())?;
        // The length modulo 2^32, by RFC 1952.
        self.writer.write_all(&self.crc.amount().to_le_bytes())?;
        self.writer.flush()?;
        Ok(self.writer)
    }

    /// Starts to compress the full block, and the next block with its window.
    fn end_block(&mut self) -> io::Result<()> {
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(&self.block.bytes[self.block.bytes.len().saturating_sub(WINDOW_BYTES)..]);
        let next = Block { window: bytes.len(), bytes, is_last: false };
        let block = std::mem::replace(&mut self.block, next);
        self.submit(block)
    }

    fn submit(&mut self, block: Block) -> io::Result<()> {
        // A layer of one block needs no thread.
        if self.blocks.threads() == 1 || (block.is_last && !self.blocks.has_started()) {
            self.blocks.run(block);
            return self.write_pending(0);
        }
        self.write_pending((self.blocks.threads() * BLOCKS_PER_THREAD).saturating_sub(1))?;
        self.blocks.submit(block)
    }

    /// Writes compressed blocks in order until at most this many are in progress.
    fn write_pending(&mut self, most: usize) -> io::Result<()> {
        while self.blocks.pending() > most {
            let Some(next) = self.blocks.take() else { break };
            self.write_block(next??)?;
        }
        Ok(())
    }

    fn write_block(&mut self, compressed: Compressed) -> io::Result<()> {
        self.crc.combine(&compressed.crc);
        self.spare.push(compressed.buffer);
        self.writer.write_all(&compressed.bytes)
    }
}

impl<W: Write> Write for BlockGzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.block.bytes.len() - self.block.window == BLOCK_BYTES {
            // Only now it is known that the full block is not the last one.
            self.end_block()?;
        }
        let room = BLOCK_BYTES - (self.block.bytes.len() - self.block.window);
        let taken = room.min(bytes.len());
        self.block.bytes.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_pending(0)?;
        self.writer.flush()
    }
}

fn compress(block: Block, level: u32) -> io::Result<Compressed> {
    // A new state for each block: one of zlib-rs 0.6 that was reset may give other bytes than a new one.
    let mut compress = Compress::new(flate2::Compression::new(level), false);
    let (window, input) = block.bytes.split_at(block.window);
    if !window.is_empty() {
        compress.set_dictionary(window).map_err(io::Error::other)?;
    }
    let mut crc = Crc::new();
    crc.update(input);
    let flush = if block.is_last { FlushCompress::Finish } else { FlushCompress::Sync };
    let mut bytes = Vec::with_capacity(input.len() / 2 + 1024);
    loop {
        let taken = usize::try_from(compress.total_in()).map_err(io::Error::other)?;
        let status = compress.compress_vec(&input[taken..], &mut bytes, flush).map_err(io::Error::other)?;
        let is_done = match flush {
            FlushCompress::Finish => status == Status::StreamEnd,
            // Room in the output means that the flush is complete.
            _ => bytes.len() < bytes.capacity() && compress.total_in() == input.len() as u64,
        };
        if is_done {
            break;
        }
        bytes.reserve(input.len() / 4 + 1024);
    }
    Ok(Compressed { bytes, crc, buffer: block.bytes })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::bufread::GzDecoder;

    use super::*;

    fn encoded(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = BlockGzip::new(Vec::new(), 6, NonZeroUsize::new(2).unwrap()).unwrap();
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn the_output_is_a_single_member() {
        for length in [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES] {
            let bytes: Vec<u8> = (0..length).map(|at| ((at * at) >> 7) as u8).collect();
            let gzip = encoded(&bytes);
            let mut rest = &gzip[..];
            let mut back = Vec::new();
            // This decoder reads one member and leaves what follows.
            GzDecoder::new(&mut rest).read_to_end(&mut back).unwrap();
            assert!(back == bytes, "{length}");
            assert!(rest.is_empty(), "{length}: {} bytes follow", rest.len());
        }
    }

    #[test]
    fn incompressible_bytes_grow_little() {
        let mut state = 1_u64;
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(2 * BLOCK_BYTES + 77)
        .collect();
        let grown = encoded(&bytes).len() - bytes.len();
        assert!(grown < 1024, "{grown}");
    }
}
