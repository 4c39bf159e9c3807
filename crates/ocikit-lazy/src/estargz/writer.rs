use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::path::Path;

use ocikit_archive::layer::{Budget, RawEntry, RawReader};
use ocikit_archive::{Compression, END, Encoder, EncoderOptions, Header, padding};
use ocikit_spec::{Algorithm, Digest, Hasher};

use crate::error::Stopped;
use crate::estargz::format::{
    LANDMARK, NO_PREFETCH_LANDMARK, TOC_DIGEST, TOC_NAME, UNCOMPRESSED_SIZE, footer, is_own_file,
};
use crate::estargz::toc::{CHUNK_BYTES, Chunk, Toc};
use crate::output::{Output, Stored};
use crate::pieces::{Codec, Pieces};
use crate::reason::{Paths, Reason};

/// The size from which headers and padding start a member, in bytes.
const MAX_BETWEEN_BYTES: usize = 1 << 20;

/// The maximum size of the table of contents in bytes, as readers accept it.
const MAX_TOC_BYTES: u64 = 512 << 20;

/// A layer that was written, with the annotations of its descriptor.
pub(crate) struct Written {
    pub(crate) stored: Stored,
    pub(crate) diff_id: Digest,
    pub(crate) annotations: Vec<(&'static str, String)>,
}

/// An entry whose chunks are not all written yet.
struct Waiting {
    /// `None` for the landmark.
    entry: Option<RawEntry>,
    chunks: Vec<Chunk>,
    placed: usize,
    digest: Option<Digest>,
}

/// Writes a tar as a layer. Entries that are part of the format are replaced.
pub(crate) fn write(
    tar: &mut impl Read,
    budget: &Budget,
    level: u32,
    threads: NonZeroUsize,
    directory: &Path,
) -> Result<Written, Stopped> {
    let output = Output::create(directory)?;
    let mut writer = Writer {
        pieces: Pieces::new(Codec::Gzip { level }, threads, output),
        toc: Toc::new(Output::create(directory)?)?,
        waiting: VecDeque::new(),
        member: Vec::new(),
        hashed: 0,
        tar: Hasher::new(Algorithm::Sha256),
        size: 0,
    };
    writer.landmark()?;
    let (mut reader, mut paths, mut between) = (RawReader::within(budget, tar), Paths::default(), Vec::new());
    // The end of the contents of the last entry in the source, and whether its contents were left out.
    let (mut position, mut is_left_out, mut missing_padding) = (0, false, 0);
    while let Some(entry) = reader.next_entry(&mut between)? {
        let gap = usize::try_from(entry.start - position).map_err(io::Error::other)?;
        if !is_left_out && between[..gap].iter().any(|byte| *byte != 0) {
            return Err(Reason::GlobalHeader.into());
        }
        writer.between(&vec![0; missing_padding])?;
        position = entry.data.offset;
        is_left_out = is_own_file(&entry.name);
        missing_padding = 0;
        if !is_left_out {
            paths.add(&entry)?;
            writer.between(&between[gap..])?;
            missing_padding = usize::try_from(padding(entry.data.size)).map_err(io::Error::other)?;
            position += entry.data.size;
            writer.entry(entry, &mut reader)?;
        }
        between.clear();
    }
    writer.between(&vec![0; missing_padding])?;
    writer.finish(level, threads)
}

struct Writer {
    pieces: Pieces,
    toc: Toc<Output>,
    waiting: VecDeque<Waiting>,
    /// The bytes of the member in progress, and the number of those at its start that are contents of a file.
    member: Vec<u8>,
    hashed: usize,
    /// The digest and size of the decompressed layer.
    tar: Hasher,
    size: u64,
}

impl Writer {
    fn landmark(&mut self) -> io::Result<()> {
        let size = LANDMARK.len();
        self.between(&Header::file(NO_PREFETCH_LANDMARK, size as u64).to_bytes())?;
        self.contents(&LANDMARK)?;
        let chunks = vec![Chunk { size: size as u64, offset: 0, digest: None }];
        self.waiting.push_back(Waiting { entry: None, chunks, placed: 0, digest: None });
        self.between(&vec![0; usize::try_from(padding(size as u64)).map_err(io::Error::other)?])
    }

    /// Adds bytes that are not contents.
    fn between(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.member.extend_from_slice(bytes);
        match self.member.len() > self.hashed + MAX_BETWEEN_BYTES {
            true => self.end_member(),
            false => Ok(()),
        }
    }

    /// Starts a member with a chunk of contents.
    fn contents(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.end_member()?;
        self.member.extend_from_slice(chunk);
        self.hashed = chunk.len();
        Ok(())
    }

    fn end_member(&mut self) -> io::Result<()> {
        if self.member.is_empty() {
            return Ok(());
        }
        self.tar.update(&self.member);
        self.size += self.member.len() as u64;
        self.pieces.push(&self.member, self.hashed)?;
        self.member.clear();
        self.hashed = 0;
        Ok(())
    }

    /// Writes the contents of an entry, whose headers were written.
    fn entry(&mut self, entry: RawEntry, reader: &mut impl Read) -> Result<(), Stopped> {
        let mut chunks = Vec::new();
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut rest = entry.data.size;
        while rest > 0 {
            let size = rest.min(CHUNK_BYTES as u64);
            self.end_member()?;
            // The memory follows the bytes that exist, not the size in the header.
            let read = reader.by_ref().take(size).read_to_end(&mut self.member);
            let read = read.map_err(|error| Stopped::Reading(error.into()))?;
            if read as u64 != size {
                return Err(Stopped::Reading(io::Error::from(io::ErrorKind::UnexpectedEof).into()));
            }
            self.hashed = read;
            hasher.update(&self.member);
            chunks.push(Chunk { size, offset: 0, digest: None });
            rest -= size;
        }
        self.waiting.push_back(Waiting { entry: Some(entry), chunks, placed: 0, digest: Some(hasher.finish()) });
        Ok(self.list()?)
    }

    /// Lists the entries whose chunks were written.
    fn list(&mut self) -> io::Result<()> {
        let mut placed = || std::iter::from_fn(|| self.pieces.next_placed()).find(|placed| placed.digest.is_some());
        while let Some(first) = self.waiting.front_mut() {
            while first.placed < first.chunks.len() {
                let Some(place) = placed() else { return Ok(()) };
                let chunk = &mut first.chunks[first.placed];
                (chunk.offset, chunk.digest) = (place.offset, place.digest);
                first.placed += 1;
            }
            let Some(Waiting { entry, chunks, digest, .. }) = self.waiting.pop_front() else { return Ok(()) };
            match (&entry, &chunks[..]) {
                (Some(entry), _) => self.toc.add(entry, &chunks, digest)?,
                (None, [chunk, ..]) => self.toc.add_landmark(NO_PREFETCH_LANDMARK, chunk)?,
                (None, []) => {}
            }
        }
        Ok(())
    }

    fn finish(mut self, level: u32, threads: NonZeroUsize) -> Result<Written, Stopped> {
        self.end_member()?;
        self.pieces.complete()?;
        self.list()?;
        let toc = self.toc.finish()?.finish()?;
        if toc.size > MAX_TOC_BYTES {
            return Err(Reason::TableSize { bytes: toc.size }.into());
        }
        let toc_digest = toc.digest.to_string();
        let mut output = self.pieces.into_output();
        let offset = output.position();
        let mut options = EncoderOptions::from(Compression::Gzip);
        (options.level, options.threads) = (Some(level), Some(threads));
        let mut member = Hashed { encoder: Encoder::with(&options, output)?, tar: self.tar, size: self.size };
        let padded = usize::try_from(padding(toc.size)).map_err(io::Error::other)?;
        let header = Header { mode: 0, ..Header::file(TOC_NAME, toc.size) };
        member.write_all(&header.to_bytes())?;
        toc.copy_to(&mut member)?;
        member.write_all(&vec![0; padded])?;
        member.write_all(&END)?;
        let Hashed { encoder, tar, size } = member;
        output = encoder.finish()?;
        output.write_all(&footer(offset))?;
        let annotations = vec![(TOC_DIGEST, toc_digest), (UNCOMPRESSED_SIZE, size.to_string())];
        Ok(Written { stored: output.finish()?, diff_id: tar.finish(), annotations })
    }
}

/// The last member, whose bytes count as those of the decompressed layer.
struct Hashed {
    encoder: Encoder<Output>,
    tar: Hasher,
    size: u64,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.encoder.write(bytes)?;
        self.tar.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.encoder.flush()
    }
}
