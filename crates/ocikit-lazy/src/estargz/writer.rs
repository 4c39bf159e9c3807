use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::path::Path;

use ocikit_archive::layer::{Budget, RawEntry};
use ocikit_archive::{Compression, END, Encoder, EncoderOptions, Header, padding};
use ocikit_spec::{Algorithm, Hasher, MediaType};

use crate::error::Stopped;
use crate::estargz::format::{
    LANDMARK, NO_PREFETCH_LANDMARK, PREFETCH_LANDMARK, TOC_DIGEST, TOC_NAME, UNCOMPRESSED_SIZE, footer, is_own_file,
};
use crate::estargz::toc::{CHUNK_BYTES, Toc};
use crate::hashing::Hashing;
use crate::output::{Output, Written};
use crate::pieces::{Codec, PieceBudget, Pieces};
use crate::reason::{Paths, Reason};
use crate::source::Source;
use crate::waiting::{Chunk, Waiting};

/// The size from which headers and padding start a member, in bytes.
const MAX_BETWEEN_BYTES: usize = 1 << 20;

/// The maximum size of the table of contents in bytes, as readers accept it.
const MAX_TOC_BYTES: u64 = 512 << 20;

/// Writes a tar as a layer. A tar with a file of its own at the path of one that the format has is refused; the landmark of a
/// tar in the order of what is fetched first is not such a file.
pub(crate) fn write(
    tar: &mut impl Read,
    budget: &Budget,
    level: u32,
    pieces: &PieceBudget,
    directory: &Path,
    has_landmark: bool,
) -> Result<Written, Stopped> {
    let mut writer = Writer {
        pieces: Pieces::new(Codec::Gzip { level }, pieces, Output::create(directory)?),
        toc: Toc::new(Output::create(directory)?)?,
        waiting: Waiting::default(),
        hashed: 0,
        tar: Hashing::new(io::sink()),
    };
    if !has_landmark {
        writer.between(&Header::file(NO_PREFETCH_LANDMARK, LANDMARK.len() as u64).to_bytes())?;
        writer.file(None, LANDMARK.len() as u64, &mut &LANDMARK[..])?;
    }
    let mut source = Source::new(tar, budget, Paths::default());
    while let Some(entry) = source.next_entry()? {
        let path = entry.path.as_bytes();
        if is_own_file(path) && !(has_landmark && path == PREFETCH_LANDMARK.as_bytes()) {
            return Err(Reason::OwnFile { path: entry.path }.into());
        }
        writer.between(source.headers())?;
        let size = entry.data.size;
        writer.file(Some(entry), size, source.contents())?;
    }
    writer.finish(level, pieces.threads())
}

struct Writer {
    pieces: Pieces,
    toc: Toc<Output>,
    waiting: Waiting,
    /// The number of bytes at the start of the member in progress that are contents of a file.
    hashed: usize,
    /// The digest and size of the decompressed layer.
    tar: Hashing<io::Sink>,
}

impl Writer {
    /// Adds bytes that are not contents.
    fn between(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.pieces.append(bytes);
        match self.pieces.rest().len() > self.hashed + MAX_BETWEEN_BYTES {
            true => self.end_member(),
            false => Ok(()),
        }
    }

    fn end_member(&mut self) -> io::Result<()> {
        let member = self.pieces.rest();
        if member.is_empty() {
            return Ok(());
        }
        self.tar.pass(member);
        self.pieces.end_piece(member.len(), std::mem::take(&mut self.hashed))
    }

    /// Writes the contents of a file and their padding. The headers were written.
    fn file(&mut self, entry: Option<RawEntry>, size: u64, reader: &mut impl Read) -> Result<(), Stopped> {
        let mut chunks = Vec::new();
        // One chunk has the digest of the file, which is computed with its compression.
        let mut hasher = (size == 0 || size > CHUNK_BYTES as u64).then(|| Hasher::new(Algorithm::Sha256));
        let mut left = size;
        while left > 0 {
            self.end_member()?;
            let chunk = left.min(CHUNK_BYTES as u64);
            let length = usize::try_from(chunk).map_err(io::Error::other)?;
            self.hashed = self.pieces.fill(&mut *reader, length)?;
            if self.hashed != length {
                return Err(Stopped::Reading(io::Error::from(io::ErrorKind::UnexpectedEof).into()));
            }
            if let Some(hasher) = &mut hasher {
                hasher.update(self.pieces.rest());
            }
            chunks.push(Chunk { size: chunk, ..Chunk::default() });
            left -= chunk;
        }
        let padded = usize::try_from(padding(size)).map_err(io::Error::other)?;
        self.between(&END[..padded])?;
        self.waiting.push(entry, chunks, hasher.map(Hasher::finish));
        Ok(self.list()?)
    }

    /// Lists the entries whose chunks were written.
    fn list(&mut self) -> io::Result<()> {
        while let Some(listed) = self.waiting.next_listed(&mut self.pieces) {
            self.toc.add(&listed)?;
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
        // Its bytes count as those of the decompressed layer.
        let mut member = self.tar.with(Encoder::with(&options, output)?);
        let padded = usize::try_from(padding(toc.size)).map_err(io::Error::other)?;
        let header = Header { mode: 0, ..Header::file(TOC_NAME, toc.size) };
        member.write_all(&header.to_bytes())?;
        toc.copy_to(&mut member)?;
        member.write_all(&vec![0; padded])?;
        member.write_all(&END)?;
        let (encoder, diff_id, size) = member.into_parts();
        output = encoder.finish()?;
        output.write_all(&footer(offset))?;
        let annotations = vec![(TOC_DIGEST, toc_digest), (UNCOMPRESSED_SIZE, size.to_string())];
        let (stored, media_type) = (output.finish()?, MediaType::OCI_LAYER_GZIP);
        Ok(Written { stored, media_type, annotations, diff_id: Some(diff_id) })
    }
}
