//! The chunks of the files of a layer, on their way to a blob.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::sync::Arc;

use ocikit_archive::Ordered;

use crate::rafs::chunk::{BLOCK, Chunk, ChunkRef, Digester, MAX_BLOB_BYTES, MAX_CHUNKS, MAX_UNCOMPRESSED_BYTES};
use crate::rafs::options::{ChunkSize, Compressor, RafsVersion};
use crate::rafs::table::{BlobInfo, Candidate};

/// The maximum memory of uncompressed chunks that are in progress in a layer, in bytes; at least one chunk is. Their
/// compressed forms take at most as much again.
const MAX_CHUNK_BYTES_IN_PROGRESS: u64 = 12 << 20;

/// The number of chunks in progress for each thread: one that is compressed and one that waits.
const CHUNKS_PER_THREAD: usize = 2;

/// The maximum number of threads that compress a layer: memory grows with it.
const MAX_THREADS: NonZeroUsize = NonZeroUsize::new(8).unwrap();

/// The level of zstd, which is that of `nydus-image`.
const ZSTD_LEVEL: i32 = 3;

/// How chunks are made and stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunking {
    pub(super) version: RafsVersion,
    pub(super) compressor: Compressor,
    pub(super) digester: Digester,
    pub(super) chunk_size: ChunkSize,
    pub(super) threads: Option<NonZeroUsize>,
}

/// Chunks by their digests.
#[derive(Debug, Clone, Default)]
pub(super) struct KnownChunks {
    /// The first bytes of the digest are enough to find a chunk; all of them are compared with that of the chunk. Of two
    /// different chunks with the same first bytes, only the first is found.
    by_digest: HashMap<u64, ChunkRef>,
}

impl KnownChunks {
    /// Adds a chunk, unless one with its digest is there.
    pub(super) fn add(&mut self, chunk: &Chunk, at: ChunkRef) {
        self.by_digest.entry(key(&chunk.digest)).or_insert(at);
    }

    fn get(&self, digest: &[u8; 32]) -> Option<ChunkRef> {
        self.by_digest.get(&key(digest)).copied()
    }
}

fn key(digest: &[u8; 32]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *digest;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// A blob and its chunks.
#[derive(Debug)]
pub(super) struct BlobData {
    pub(super) info: BlobInfo,
    pub(super) chunks: Vec<Chunk>,
}

/// The blobs of a conversion, of which a layer may use the chunks that it has too.
#[derive(Debug, Clone, Default)]
pub(super) struct OtherBlobs {
    known: KnownChunks,
    /// The blobs by their positions in the conversion.
    blobs: Vec<Option<Arc<BlobData>>>,
}

impl OtherBlobs {
    /// Adds a blob whose chunks may be used.
    pub(super) fn add(&mut self, position: u16, blob: Arc<BlobData>) {
        for (chunk, found) in (0_u32..).zip(&blob.chunks) {
            self.known.add(found, ChunkRef { blob: position, chunk });
        }
        let position = usize::from(position);
        if self.blobs.len() <= position {
            self.blobs.resize(position + 1, None);
        }
        self.blobs[position] = Some(blob);
    }

    /// Returns the blobs as candidates for the table of a bootstrap, and room for so many.
    pub(super) fn candidates(&self, count: usize) -> Vec<Option<Candidate<'_>>> {
        let known = self.blobs.iter().map(|blob| {
            let blob = blob.as_ref()?;
            Some(Candidate { info: blob.info.clone(), chunks: &blob.chunks })
        });
        let mut candidates: Vec<_> = known.collect();
        candidates.resize(count.max(candidates.len()), None);
        candidates
    }

    fn get(&self, digest: &[u8; 32], size: u32) -> Option<ChunkRef> {
        let at = self.known.get(digest)?;
        let blob = self.blobs.get(usize::from(at.blob))?.as_ref()?;
        let chunk = blob.chunks.get(at.chunk as usize)?;
        (chunk.digest == *digest && chunk.size == size).then_some(at)
    }
}

/// The chunks of each file of a layer, by the number of its entry.
#[derive(Debug, Default)]
pub(super) struct FileChunks {
    /// Each file with chunks, with the position of its first one.
    files: Vec<(u64, usize)>,
    chunks: Vec<ChunkRef>,
}

impl FileChunks {
    /// Returns the chunks of a file, which are none for an empty one.
    pub(super) fn of(&self, entry: u64) -> &[ChunkRef] {
        let Ok(found) = self.files.binary_search_by_key(&entry, |(entry, _)| *entry) else { return &[] };
        let end = self.files.get(found + 1).map_or(self.chunks.len(), |(_, start)| *start);
        self.chunks.get(self.files[found].1..end).unwrap_or_default()
    }
}

/// Splits files into chunks, and writes those that are new, compressed.
pub(super) struct Data<W> {
    writer: W,
    chunking: Chunking,
    /// The position of the blob in the list of blobs of the conversion.
    blob: u16,
    workers: Ordered<Job, io::Result<Job>>,
    most_pending: usize,
    chunks: Vec<Chunk>,
    /// The number of chunks that were written, which are the first ones.
    written: usize,
    known: KnownChunks,
    others: Arc<OtherBlobs>,
    files: FileChunks,
    spare: Vec<Job>,
    offset: u64,
    uncompressed_offset: u64,
}

/// A chunk that is compressed.
#[derive(Debug, Default)]
struct Job {
    bytes: Vec<u8>,
    /// The compressed form; empty if it is not smaller.
    compressed: Vec<u8>,
}

/// What was written, and the writer.
pub(super) struct Finished<W> {
    pub(super) writer: W,
    pub(super) chunks: Vec<Chunk>,
    pub(super) files: FileChunks,
    /// The number of bytes that were written.
    pub(super) size: u64,
    /// The end of the last uncompressed chunk.
    pub(super) uncompressed_size: u64,
}

/// The failure of a file: that of its reader, or that of storing it.
#[derive(Debug)]
pub(super) enum Failure {
    Read(io::Error),
    Store(io::Error),
}

impl<W: Write> Data<W> {
    pub(super) fn new(writer: W, chunking: Chunking, blob: u16, others: Arc<OtherBlobs>) -> Data<W> {
        let threads = chunking.threads.or_else(|| std::thread::available_parallelism().ok());
        let threads = threads.unwrap_or(NonZeroUsize::MIN).min(MAX_THREADS);
        let by_memory = MAX_CHUNK_BYTES_IN_PROGRESS / u64::from(chunking.chunk_size.bytes());
        let most_pending =
            (threads.get() * CHUNKS_PER_THREAD).min(usize::try_from(by_memory).unwrap_or(usize::MAX)).max(1);
        Data {
            writer,
            chunking,
            blob,
            workers: Ordered::new("nydus", threads, move || Box::new(compressing(chunking.compressor))),
            most_pending,
            chunks: Vec::new(),
            written: 0,
            known: KnownChunks::default(),
            others,
            files: FileChunks::default(),
            spare: Vec::new(),
            offset: 0,
            uncompressed_offset: 0,
        }
    }

    /// Adds the contents of the file of an entry. Entries are added in their order.
    pub(super) fn add(&mut self, entry: u64, size: u64, reader: &mut impl Read) -> Result<(), Failure> {
        if size == 0 {
            return Ok(());
        }
        self.files.files.push((entry, self.files.chunks.len()));
        let mut rest = size;
        while rest > 0 {
            let length = rest.min(u64::from(self.chunking.chunk_size.bytes()));
            let mut job = self.spare.pop().unwrap_or_default();
            job.bytes.resize(usize::try_from(length).unwrap_or_default(), 0);
            reader.read_exact(&mut job.bytes).map_err(Failure::Read)?;
            rest -= length;
            self.chunk(job).map_err(Failure::Store)?;
        }
        Ok(())
    }

    fn chunk(&mut self, job: Job) -> io::Result<()> {
        let digest = self.chunking.digester.digest(&job.bytes);
        let size = u32::try_from(job.bytes.len()).map_err(io::Error::other)?;
        if let Some(found) = self.find(&digest, size) {
            self.files.chunks.push(found);
            self.spare.push(job);
            return Ok(());
        }
        let number = self.chunks.len();
        let index = u32::try_from(number).map_err(io::Error::other)?;
        let advance = match self.chunking.version {
            RafsVersion::V5 => u64::from(size),
            RafsVersion::V6 => u64::from(size).next_multiple_of(BLOCK),
        };
        if number == MAX_CHUNKS || self.uncompressed_offset + advance > MAX_UNCOMPRESSED_BYTES {
            let what = "the layer has too many chunks for a Nydus blob; use a larger chunk size";
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        }
        let chunk = Chunk {
            digest,
            offset: 0,
            uncompressed_offset: self.uncompressed_offset,
            stored: 0,
            size,
            index,
            is_compressed: false,
        };
        self.uncompressed_offset += advance;
        let at = ChunkRef { blob: self.blob, chunk: index };
        self.known.add(&chunk, at);
        self.chunks.push(chunk);
        self.files.chunks.push(at);
        if self.chunking.compressor == Compressor::None {
            return self.write(job);
        }
        while self.workers.pending() >= self.most_pending {
            self.write_next()?;
        }
        self.workers.submit(job)
    }

    fn find(&self, digest: &[u8; 32], size: u32) -> Option<ChunkRef> {
        let own = self.known.get(digest).filter(|at| {
            let chunk = self.chunks.get(at.chunk as usize);
            chunk.is_some_and(|chunk| chunk.digest == *digest && chunk.size == size)
        });
        own.or_else(|| self.others.get(digest, size))
    }

    fn write_next(&mut self) -> io::Result<()> {
        match self.workers.take() {
            Some(done) => self.write(done??),
            None => Ok(()),
        }
    }

    /// Writes the next chunk.
    fn write(&mut self, mut job: Job) -> io::Result<()> {
        let chunk = self.chunks.get_mut(self.written).ok_or_else(|| io::Error::other("a chunk is missing"))?;
        chunk.is_compressed = !job.compressed.is_empty();
        let stored = if chunk.is_compressed { &job.compressed } else { &job.bytes };
        chunk.offset = self.offset;
        chunk.stored = u32::try_from(stored.len()).map_err(io::Error::other)?;
        self.offset += stored.len() as u64;
        if self.offset > MAX_BLOB_BYTES {
            let what = "the layer is too large for a Nydus blob";
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        }
        self.writer.write_all(stored)?;
        self.written += 1;
        job.compressed.clear();
        self.spare.push(job);
        Ok(())
    }

    /// Writes the rest.
    pub(super) fn finish(mut self) -> io::Result<Finished<W>> {
        while self.workers.pending() > 0 {
            self.write_next()?;
        }
        Ok(Finished {
            writer: self.writer,
            chunks: self.chunks,
            files: self.files,
            size: self.offset,
            uncompressed_size: self.uncompressed_offset,
        })
    }
}

/// Returns the work of a thread, which keeps the state of the compressor.
fn compressing(compressor: Compressor) -> impl FnMut(Job) -> io::Result<Job> {
    let mut zstd = match compressor {
        Compressor::Zstd => Some(zstd::bulk::Compressor::new(ZSTD_LEVEL)),
        Compressor::None | Compressor::Lz4 => None,
    };
    move |mut job| {
        // A compressed chunk is only used if it is smaller.
        let most = job.bytes.len().saturating_sub(1);
        let bound = match compressor {
            Compressor::None => 0,
            Compressor::Lz4 => lz4_flex::block::get_maximum_output_size(job.bytes.len()),
            Compressor::Zstd => zstd::zstd_safe::compress_bound(job.bytes.len()),
        };
        job.compressed.resize(bound, 0);
        let length = match (compressor, &mut zstd) {
            (Compressor::Zstd, Some(Ok(zstd))) => zstd.compress_to_buffer(&job.bytes, &mut job.compressed[..])?,
            (Compressor::Zstd, _) => return Err(io::Error::other("zstd cannot be started")),
            (Compressor::Lz4, _) => {
                lz4_flex::block::compress_into(&job.bytes, &mut job.compressed).map_err(io::Error::other)?
            }
            (Compressor::None, _) => 0,
        };
        job.compressed.truncate(if length > most { 0 } else { length });
        Ok(job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunking(compressor: Compressor, threads: usize) -> Chunking {
        Chunking {
            version: RafsVersion::V6,
            compressor,
            digester: Digester::Blake3,
            chunk_size: ChunkSize::new(4096).unwrap(),
            threads: NonZeroUsize::new(threads),
        }
    }

    fn write(files: &[Vec<u8>], chunking: Chunking) -> Finished<Vec<u8>> {
        let mut data = Data::new(Vec::new(), chunking, 0, Arc::default());
        for (entry, file) in files.iter().enumerate() {
            data.add(entry as u64, file.len() as u64, &mut &file[..]).unwrap();
        }
        data.finish().unwrap()
    }

    #[test]
    fn equal_chunks_are_stored_once_and_threads_do_not_matter() {
        let random = ocikit_image::testing::random(1, 5000);
        let files = [vec![7; 9000], Vec::new(), random.clone(), vec![7; 4096], random];
        for compressor in [Compressor::None, Compressor::Lz4, Compressor::Zstd] {
            let one = write(&files, chunking(compressor, 1));
            let more = write(&files, chunking(compressor, 3));
            assert_eq!((&one.writer, &one.chunks), (&more.writer, &more.chunks));
            // 4096 and 808 bytes of 7, and 4096 and 904 random bytes.
            assert_eq!(one.chunks.len(), 4, "{compressor}");
            let of = |entry| one.files.of(entry).iter().map(|at| at.chunk).collect::<Vec<_>>();
            assert_eq!([of(0), of(1), of(2), of(3), of(4)], [vec![0, 0, 1], vec![], vec![2, 3], vec![0], vec![2, 3]]);
            assert!(one.chunks[2..].iter().all(|chunk| !chunk.is_compressed), "random bytes do not shrink");
            assert_eq!(one.chunks[0].is_compressed, compressor != Compressor::None);
            assert_eq!(one.size, one.writer.len() as u64);
            assert_eq!(one.uncompressed_size, 4 * BLOCK);
        }
    }
}
