//! A blob of pieces that are compressed one by one, in parallel, so that each can be read without the others.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flate2::Crc;
use ocikit_archive::Ordered;
use ocikit_spec::Digest;

use crate::error::Stopped;
use crate::output::Output;

/// The size in bytes from which pieces are handed to a thread. Their bytes in the blob do not depend on it.
const BATCH_BYTES: usize = 256 << 10;

/// The maximum number of uncompressed bytes for each thread, and for what is read next, unless each layer has a single batch:
/// a large piece and what is around it.
const BYTES_PER_THREAD: usize = 5 << 20;

/// The maximum number of uncompressed bytes of all threads and layers.
const MAX_BYTES_IN_PROGRESS: usize = 20 << 20;

/// The size of a small buffer, in bytes.
const SMALL_BYTES: usize = 2 * BATCH_BYTES;

/// The size of a large buffer, in bytes: the largest piece of both formats, 4 MiB, and room for what is around it.
const LARGE_BYTES: usize = (4 << 20) + (768 << 10);

/// The room in a large buffer of compressed bytes, for those of another batch, in bytes.
const ROOM_BYTES: usize = 256 << 10;

/// The maximum number of large buffers that are kept for all layers.
const MAX_SPARE_LARGE: usize = 3;

/// The maximum number of batches in progress for each thread: one that is compressed, one that waits and one that was
/// compressed.
const BATCHES_PER_THREAD: usize = 3;

/// The start of a member without a name or a time, by an unknown operating system.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// The size of the checksum and the length at the end of a member.
const GZIP_TRAILER_BYTES: usize = 8;

/// How the pieces are compressed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Codec {
    /// Each piece is a member (RFC 1952).
    Gzip { level: u32 },
    /// Each piece is a frame (RFC 8878) with its size.
    Zstd { level: i32 },
}

/// The place of a piece in the blob.
pub(crate) struct Placed {
    pub(crate) offset: u64,
    pub(crate) end: u64,
    /// The digest of the hashed part; `None` if no part was to be hashed.
    pub(crate) digest: Option<Digest>,
}

/// The threads and the memory of all layers of a conversion: layers that are written in parallel need little more memory than
/// one.
#[derive(Debug, Clone)]
pub(crate) struct PieceBudget {
    threads: NonZeroUsize,
    in_use: Arc<Mutex<InUse>>,
}

#[derive(Debug, Default)]
struct InUse {
    /// The uncompressed bytes of batches in progress, and of large ones that are filled.
    bytes: usize,
    /// The number of batches in progress.
    batches: usize,
    /// Buffers for further batches, and for what they are compressed to.
    spare: Spare,
    spare_packed: Spare,
}

/// The part of a budget that one layer uses. It is given back when this is dropped.
struct Share {
    budget: PieceBudget,
    bytes: usize,
    batches: usize,
}

/// Compresses pieces and writes them in order.
pub(crate) struct Pieces {
    batches: Ordered<Batch, io::Result<Packed>>,
    /// The batch that is filled. Behind its pieces are bytes that are not part of one yet.
    batch: Batch,
    share: Share,
    /// The bytes of the batches in progress.
    sizes: VecDeque<usize>,
    output: Output,
    placed: VecDeque<Placed>,
}

/// Consecutive pieces.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// The end of each piece, and the length of its hashed part.
    pieces: Vec<(usize, usize)>,
    /// The number of bytes that count against the budget.
    reserved: usize,
    /// The buffer for the compressed pieces.
    packed: Vec<u8>,
}

struct Packed {
    /// The compressed pieces, and unused room.
    bytes: Vec<u8>,
    /// The end of each compressed piece, and the digest of its hashed part.
    pieces: Vec<(usize, Option<Digest>)>,
    /// The buffer of the batch, for another one.
    buffer: Vec<u8>,
}

impl Pieces {
    pub(crate) fn new(codec: Codec, budget: &PieceBudget, output: Output) -> Pieces {
        let new_worker = move || -> Box<dyn FnMut(Batch) -> io::Result<Packed> + Send> {
            let mut packer = None;
            Box::new(move |batch| {
                let packer = match &mut packer {
                    Some(packer) => packer,
                    None => packer.insert(Packer::new(codec)?),
                };
                batch.pack(packer)
            })
        };
        Pieces {
            batches: Ordered::new("pieces", budget.threads, new_worker),
            batch: Batch::default(),
            share: Share { budget: budget.clone(), bytes: 0, batches: 0 },
            sizes: VecDeque::new(),
            output,
            placed: VecDeque::new(),
        }
    }

    /// Returns the bytes that are not part of a piece yet.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.batch.bytes[self.batch.end()..]
    }

    /// Adds bytes to the rest.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.batch.bytes.extend_from_slice(bytes);
    }

    /// Adds the next bytes of a reader to the rest, and returns how many; fewer than the limit only at the end.
    ///
    /// # Errors
    ///
    /// Those of the reader and of writing earlier pieces.
    pub(crate) fn fill(&mut self, reader: impl Read, limit: usize) -> Result<usize, Stopped> {
        self.make_room(limit)?;
        let read = reader.take(limit as u64).read_to_end(&mut self.batch.bytes);
        read.map_err(|error| Stopped::Reading(error.into()))
    }

    /// Takes another buffer if the one of the batch has no room for so many bytes. Large pieces get a batch of their own.
    fn make_room(&mut self, more: usize) -> io::Result<()> {
        if more > BATCH_BYTES && !self.batch.pieces.is_empty() {
            self.submit()?;
        }
        let needed = self.batch.bytes.len() + more;
        if needed <= self.batch.bytes.capacity() {
            return Ok(());
        }
        let is_large = needed > SMALL_BYTES;
        if is_large && self.batch.reserved == 0 {
            self.reserve(LARGE_BYTES, 0)?;
            self.batch.reserved = LARGE_BYTES;
        }
        let mut buffer = self.share.budget.in_use().spare.take(is_large);
        buffer.clear();
        buffer.reserve_exact(if is_large { needed.max(LARGE_BYTES) } else { SMALL_BYTES });
        buffer.extend_from_slice(&self.batch.bytes);
        let before = std::mem::replace(&mut self.batch.bytes, buffer);
        self.share.budget.in_use().spare.put(before);
        Ok(())
    }

    /// Waits until the budget has so many bytes and batches.
    fn reserve(&mut self, bytes: usize, batches: usize) -> io::Result<()> {
        while !self.share.take(bytes, batches) {
            self.write_one()?;
        }
        Ok(())
    }

    /// Makes a piece of the first bytes of the rest, of whose first bytes the digest is computed.
    pub(crate) fn end_piece(&mut self, length: usize, hashed: usize) -> io::Result<()> {
        let end = self.batch.end() + length;
        self.batch.pieces.push((end, hashed));
        match end >= BATCH_BYTES {
            true => self.submit(),
            false => Ok(()),
        }
    }

    /// Returns the next piece that was written, in the order of the pieces.
    pub(crate) fn next_placed(&mut self) -> Option<Placed> {
        self.placed.pop_front()
    }

    /// Writes all pieces. The rest is the last one.
    pub(crate) fn complete(&mut self) -> io::Result<()> {
        match self.rest().len() {
            0 => {}
            length => self.end_piece(length, 0)?,
        }
        self.submit()?;
        while self.write_one()? {}
        Ok(())
    }

    /// Returns the blob, to which more can be written.
    pub(crate) fn into_output(self) -> Output {
        self.output
    }

    fn submit(&mut self) -> io::Result<()> {
        let size = self.batch.end();
        self.reserve(size.saturating_sub(self.batch.reserved), 1)?;
        self.sizes.push_back(size.max(self.batch.reserved));
        let mut in_use = self.share.budget.in_use();
        let (mut bytes, packed) = (in_use.spare.take(false), in_use.spare_packed.take(size > SMALL_BYTES));
        drop(in_use);
        bytes.clear();
        bytes.extend_from_slice(self.rest());
        self.batch.bytes.truncate(size);
        let batch = std::mem::replace(&mut self.batch, Batch { bytes, ..Batch::default() });
        self.batches.submit(Batch { packed, ..batch })?;
        if self.batches.threads() == 1 {
            self.write_one()?;
        }
        Ok(())
    }

    fn write_one(&mut self) -> io::Result<bool> {
        let Some(packed) = self.batches.take() else { return Ok(false) };
        let Packed { bytes, pieces, buffer } = packed??;
        self.share.give_back(self.sizes.pop_front().unwrap_or_default(), 1);
        let start = self.output.position();
        self.output.write_all(&bytes[..pieces.last().map_or(0, |(end, _)| *end)])?;
        let mut offset = start;
        for (end, digest) in pieces {
            let end = start + end as u64;
            self.placed.push_back(Placed { offset, end, digest });
            offset = end;
        }
        let mut in_use = self.share.budget.in_use();
        in_use.spare.put(buffer);
        in_use.spare_packed.put(bytes);
        Ok(true)
    }
}

impl PieceBudget {
    pub(crate) fn new(threads: NonZeroUsize) -> PieceBudget {
        PieceBudget { threads, in_use: Arc::default() }
    }

    /// Returns the maximum number of threads that compress a layer.
    pub(crate) fn threads(&self) -> NonZeroUsize {
        self.threads
    }

    fn in_use(&self) -> MutexGuard<'_, InUse> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Takes bytes and batches. A layer without a batch in progress always gets them, so that no layer waits for another one.
    /// Returns false if the layer has to finish one of its batches first.
    fn take(&mut self, bytes: usize, batches: usize) -> bool {
        let mut in_use = self.budget.in_use();
        let threads = self.budget.threads.get();
        let max_bytes = ((threads + 1) * BYTES_PER_THREAD).min(MAX_BYTES_IN_PROGRESS);
        let fits = in_use.bytes + bytes <= max_bytes && in_use.batches + batches <= threads * BATCHES_PER_THREAD;
        if self.batches > 0 && !fits {
            return false;
        }
        in_use.bytes += bytes;
        in_use.batches += batches;
        drop(in_use);
        self.bytes += bytes;
        self.batches += batches;
        true
    }

    fn give_back(&mut self, bytes: usize, batches: usize) {
        self.bytes -= bytes;
        self.batches -= batches;
        let mut in_use = self.budget.in_use();
        in_use.bytes -= bytes;
        in_use.batches -= batches;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back(self.bytes, self.batches);
    }
}

/// Buffers of two sizes. If all were alike, all would reach the size of the largest piece sooner or later.
#[derive(Debug, Default)]
struct Spare {
    small: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
}

impl Spare {
    /// Returns a buffer with what it had; without capacity if there is no spare one.
    fn take(&mut self, is_large: bool) -> Vec<u8> {
        let buffers = if is_large { &mut self.large } else { &mut self.small };
        buffers.pop().unwrap_or_default()
    }

    fn put(&mut self, buffer: Vec<u8>) {
        match buffer.capacity() {
            0 => {}
            1..=SMALL_BYTES => self.small.push(buffer),
            _ if self.large.len() < MAX_SPARE_LARGE => self.large.push(buffer),
            _ => {}
        }
    }
}

impl Batch {
    /// Returns the end of the last piece.
    fn end(&self) -> usize {
        self.pieces.last().map_or(0, |(end, _)| *end)
    }

    fn pack(self, packer: &mut Packer) -> io::Result<Packed> {
        let Batch { bytes: buffer, pieces, packed: mut bytes, .. } = self;
        let (mut start, mut bound) = (0, 0);
        for (end, _) in &pieces {
            bound += packer.bound(end - start);
            start = *end;
        }
        if bytes.len() < bound {
            // Buffers of few sizes are used again more often. Memory that is not needed is not touched.
            bytes = vec![0; if bound <= SMALL_BYTES { SMALL_BYTES } else { bound + ROOM_BYTES }];
        }
        let (mut start, mut length) = (0, 0);
        let mut compressed = Vec::with_capacity(pieces.len());
        for (end, hashed) in pieces {
            let piece = &buffer[start..end];
            let digest = (hashed > 0).then(|| Digest::sha256_of(&piece[..hashed]));
            length += packer.pack(piece, &mut bytes[length..])?;
            compressed.push((length, digest));
            start = end;
        }
        Ok(Packed { bytes, pieces: compressed, buffer })
    }
}

/// The state that a thread keeps from piece to piece. The bytes of a piece do not depend on those before it.
enum Packer {
    Gzip(libdeflater::Compressor),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Packer {
    fn new(codec: Codec) -> io::Result<Packer> {
        Ok(match codec {
            Codec::Gzip { level } => Packer::Gzip(libdeflater::Compressor::new(deflate_level(level)?)),
            Codec::Zstd { level } => Packer::Zstd(zstd::bulk::Compressor::new(level)?),
        })
    }

    /// Returns the maximum size of a compressed piece in bytes.
    fn bound(&mut self, size: usize) -> usize {
        match self {
            Packer::Gzip(compressor) => {
                GZIP_HEADER.len() + compressor.deflate_compress_bound(size) + GZIP_TRAILER_BYTES
            }
            Packer::Zstd(_) => zstd::zstd_safe::compress_bound(size),
        }
    }

    /// Compresses a piece and returns its compressed size.
    fn pack(&mut self, piece: &[u8], packed: &mut [u8]) -> io::Result<usize> {
        match self {
            Packer::Gzip(compressor) => {
                let (header, rest) = packed.split_at_mut(GZIP_HEADER.len());
                header.copy_from_slice(&GZIP_HEADER);
                let length = compressor.deflate_compress(piece, rest).map_err(io::Error::other)?;
                let mut crc = Crc::new();
                crc.update(piece);
                let trailer = [crc.sum().to_le_bytes(), crc.amount().to_le_bytes()];
                rest[length..][..GZIP_TRAILER_BYTES].copy_from_slice(trailer.as_flattened());
                Ok(GZIP_HEADER.len() + length + GZIP_TRAILER_BYTES)
            }
            Packer::Zstd(compressor) => compressor.compress_to_buffer(piece, packed),
        }
    }
}

/// Returns the level of libdeflate that takes the place of a level of gzip: up to 7 the fastest one whose output is not
/// larger than that of zlib; 8 and 9 are smaller, in less time than zlib's. `docs/decisions/lazy-deflate.md` has the numbers.
fn deflate_level(gzip: u32) -> io::Result<libdeflater::CompressionLvl> {
    let level = match gzip {
        ..=2 => 1,
        3 => 2,
        4 => 3,
        5 | 6 => 4,
        7 => 5,
        8 => 7,
        9.. => 9,
    };
    libdeflater::CompressionLvl::new(level).map_err(|error| io::Error::other(format!("level {level}: {error:?}")))
}

#[cfg(test)]
mod tests {
    use ocikit_archive::Decoder;

    use super::*;

    type Place = (u64, u64, Option<Digest>);

    /// Returns the blob of some pieces and their places.
    fn blob(codec: Codec, threads: usize, pieces: &[Vec<u8>]) -> (Vec<u8>, Vec<Place>) {
        let output = Output::create(&std::env::temp_dir()).unwrap();
        let budget = PieceBudget::new(NonZeroUsize::new(threads).unwrap());
        let mut packing = Pieces::new(codec, &budget, output);
        let mut placed = Vec::new();
        for piece in pieces {
            let (start, rest) = piece.split_at(piece.len() / 3);
            packing.append(start);
            assert_eq!(packing.fill(rest, rest.len()).ok(), Some(rest.len()));
            packing.end_piece(piece.len(), piece.len() / 2).unwrap();
            placed.extend(std::iter::from_fn(|| packing.next_placed()));
        }
        packing.complete().unwrap();
        placed.extend(std::iter::from_fn(|| packing.next_placed()));
        let mut bytes = Vec::new();
        packing.into_output().finish().unwrap().copy_to(&mut bytes).unwrap();
        (bytes, placed.into_iter().map(|placed| (placed.offset, placed.end, placed.digest)).collect())
    }

    #[test]
    fn each_piece_is_read_alone_and_threads_do_not_change_the_bytes() {
        let pieces: Vec<Vec<u8>> = (0_usize..200)
            .map(|number| if number % 50 == 49 { 1_500 } else { number })
            .map(|number| (0..number * number * 3 / 2).map(|at| ((at * number) >> 5) as u8).collect())
            .collect();
        for codec in [Codec::Gzip { level: 6 }, Codec::Zstd { level: 3 }] {
            let (bytes, placed) = blob(codec, 1, &pieces);
            assert_eq!(placed.len(), pieces.len());
            for (piece, (start, end, digest)) in pieces.iter().zip(&placed) {
                let mut back = Vec::new();
                Decoder::new(&bytes[*start as usize..*end as usize]).unwrap().read_to_end(&mut back).unwrap();
                assert!(back == *piece);
                let half = &piece[..piece.len() / 2];
                assert_eq!(*digest, (!half.is_empty()).then(|| Digest::sha256_of(half)));
            }
            for threads in [2, 5] {
                assert!(blob(codec, threads, &pieces) == (bytes.clone(), placed.clone()));
            }
        }
    }
}
