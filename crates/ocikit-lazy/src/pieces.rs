//! A blob of pieces that are compressed one by one, in parallel, so that each can be read without the others.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::num::NonZeroUsize;

use flate2::{Compress, Crc, FlushCompress, Status};
use ocikit_archive::Ordered;
use ocikit_spec::Digest;

use crate::output::Output;

/// The size in bytes from which pieces are handed to a thread. Their bytes in the blob do not depend on it.
const BATCH_BYTES: usize = 512 << 10;

/// The maximum number of uncompressed bytes in progress, unless a single batch has more.
const MAX_BYTES_IN_PROGRESS: usize = 12 << 20;

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

/// Compresses pieces and writes them in order.
pub(crate) struct Pieces {
    batches: Ordered<Batch, io::Result<Packed>>,
    batch: Batch,
    /// The uncompressed sizes of the batches in progress.
    sizes: VecDeque<usize>,
    in_progress: usize,
    spare: Vec<Vec<u8>>,
    output: Output,
    placed: VecDeque<Placed>,
}

/// Consecutive pieces.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// The end of each piece, and the length of its hashed part.
    pieces: Vec<(usize, usize)>,
}

struct Packed {
    bytes: Vec<u8>,
    /// The end of each compressed piece, and the digest of its hashed part.
    pieces: Vec<(usize, Option<Digest>)>,
    /// The buffer of the batch, for another one.
    buffer: Vec<u8>,
}

impl Pieces {
    pub(crate) fn new(codec: Codec, threads: NonZeroUsize, output: Output) -> Pieces {
        let new_worker = move || -> Box<dyn FnMut(Batch) -> io::Result<Packed> + Send> {
            match codec {
                Codec::Gzip { level } => Box::new(move |batch| batch.pack(|piece, packed| gzip(piece, level, packed))),
                Codec::Zstd { level } => {
                    let mut compressor = None;
                    Box::new(move |batch| batch.pack(|piece, packed| zstd(piece, level, &mut compressor, packed)))
                }
            }
        };
        Pieces {
            batches: Ordered::new("pieces", threads, new_worker),
            batch: Batch::default(),
            sizes: VecDeque::new(),
            in_progress: 0,
            spare: Vec::new(),
            output,
            placed: VecDeque::new(),
        }
    }

    /// Adds a piece, of whose first bytes the digest is computed.
    pub(crate) fn push(&mut self, piece: &[u8], hashed: usize) -> io::Result<()> {
        self.batch.bytes.extend_from_slice(piece);
        self.batch.pieces.push((self.batch.bytes.len(), hashed));
        match self.batch.bytes.len() >= BATCH_BYTES {
            true => self.submit(),
            false => Ok(()),
        }
    }

    /// Returns the next piece that was written, in the order of the pieces.
    pub(crate) fn next_placed(&mut self) -> Option<Placed> {
        self.placed.pop_front()
    }

    /// Writes all pieces.
    pub(crate) fn complete(&mut self) -> io::Result<()> {
        self.submit()?;
        while self.write_one()? {}
        Ok(())
    }

    /// Returns the blob, to which more can be written.
    pub(crate) fn into_output(self) -> Output {
        self.output
    }

    fn submit(&mut self) -> io::Result<()> {
        let next = Batch { bytes: self.spare.pop().unwrap_or_default(), pieces: Vec::new() };
        let batch = std::mem::replace(&mut self.batch, next);
        let size = batch.bytes.len();
        while !self.sizes.is_empty() && self.in_progress + size > MAX_BYTES_IN_PROGRESS {
            self.write_one()?;
        }
        self.sizes.push_back(size);
        self.in_progress += size;
        self.batches.submit(batch)?;
        if self.batches.threads() == 1 {
            self.write_one()?;
        }
        Ok(())
    }

    fn write_one(&mut self) -> io::Result<bool> {
        let Some(packed) = self.batches.take() else { return Ok(false) };
        let Packed { bytes, pieces, mut buffer } = packed??;
        self.in_progress -= self.sizes.pop_front().unwrap_or_default();
        let start = self.output.position();
        self.output.write_all(&bytes)?;
        let mut offset = start;
        for (end, digest) in pieces {
            let end = start + end as u64;
            self.placed.push_back(Placed { offset, end, digest });
            offset = end;
        }
        buffer.clear();
        self.spare.push(buffer);
        Ok(true)
    }
}

impl Batch {
    fn pack(self, mut compress: impl FnMut(&[u8], &mut Vec<u8>) -> io::Result<()>) -> io::Result<Packed> {
        let mut bytes = Vec::with_capacity(self.bytes.len() / 2 + 1024);
        let mut pieces = Vec::with_capacity(self.pieces.len());
        let mut start = 0;
        for (end, hashed) in self.pieces {
            let piece = &self.bytes[start..end];
            let digest = (hashed > 0).then(|| Digest::sha256_of(&piece[..hashed]));
            compress(piece, &mut bytes)?;
            pieces.push((bytes.len(), digest));
            start = end;
        }
        Ok(Packed { bytes, pieces, buffer: self.bytes })
    }
}

fn zstd(
    piece: &[u8],
    level: i32,
    compressor: &mut Option<zstd::bulk::Compressor<'static>>,
    packed: &mut Vec<u8>,
) -> io::Result<()> {
    let compressor = match compressor {
        Some(compressor) => compressor,
        None => compressor.insert(zstd::bulk::Compressor::new(level)?),
    };
    let start = packed.len();
    packed.resize(start + zstd::zstd_safe::compress_bound(piece.len()), 0);
    let length = compressor.compress_to_buffer(piece, &mut packed[start..])?;
    packed.truncate(start + length);
    Ok(())
}

fn gzip(piece: &[u8], level: u32, packed: &mut Vec<u8>) -> io::Result<()> {
    // A new state for each member: one of zlib-rs 0.6 that was reset may give other bytes than a new one.
    let mut compress = Compress::new(flate2::Compression::new(level), false);
    packed.extend_from_slice(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
    packed.reserve(piece.len() / 2 + 64);
    loop {
        let taken = usize::try_from(compress.total_in()).map_err(io::Error::other)?;
        let status = compress.compress_vec(&piece[taken..], packed, FlushCompress::Finish).map_err(io::Error::other)?;
        if status == Status::StreamEnd {
            break;
        }
        packed.reserve(piece.len() / 4 + 64);
    }
    let mut crc = Crc::new();
    crc.update(piece);
    packed.extend_from_slice(&crc.sum().to_le_bytes());
    packed.extend_from_slice(&crc.amount().to_le_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use ocikit_archive::Decoder;

    use super::*;

    type Place = (u64, u64, Option<Digest>);

    /// Returns the blob of some pieces and their places.
    fn blob(codec: Codec, threads: usize, pieces: &[Vec<u8>]) -> (Vec<u8>, Vec<Place>) {
        let output = Output::create(&std::env::temp_dir()).unwrap();
        let mut packing = Pieces::new(codec, NonZeroUsize::new(threads).unwrap(), output);
        let mut placed = Vec::new();
        for piece in pieces {
            packing.push(piece, piece.len() / 2).unwrap();
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
            .map(|number| (0..number * number * 3).map(|at| ((at * number) >> 5) as u8).collect())
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
