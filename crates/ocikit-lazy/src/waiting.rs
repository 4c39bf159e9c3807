//! Entries of a layer whose chunks are still compressed.

use std::collections::VecDeque;

use ocikit_archive::layer::RawEntry;
use ocikit_spec::Digest;

use crate::pieces::Pieces;

/// A chunk of a file in the layer.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    /// The uncompressed size in bytes.
    pub(crate) size: u64,
    /// Whether it is listed as a run of zeros.
    pub(crate) is_hole: bool,
    /// The start of its piece in the layer.
    pub(crate) offset: u64,
    /// The end of its piece in the layer.
    pub(crate) end: u64,
    /// `None` until it was written.
    pub(crate) digest: Option<Digest>,
}

/// An entry with the chunks of its contents.
pub(crate) struct Listed {
    /// `None` for a file that the source does not have.
    pub(crate) entry: Option<RawEntry>,
    pub(crate) chunks: Vec<Chunk>,
    /// The digest of the whole contents; `None` if there are none.
    pub(crate) digest: Option<Digest>,
    /// The number of chunks that were written.
    placed: usize,
}

/// Entries in the order of the tar.
#[derive(Default)]
pub(crate) struct Waiting(VecDeque<Listed>);

impl Waiting {
    /// Adds an entry. The digest of the whole contents may be `None` if there is one chunk, whose digest it is.
    pub(crate) fn push(&mut self, entry: Option<RawEntry>, chunks: Vec<Chunk>, digest: Option<Digest>) {
        self.0.push_back(Listed { entry, chunks, digest, placed: 0 });
    }

    /// Returns the next entry if its chunks were written.
    pub(crate) fn next_listed(&mut self, pieces: &mut Pieces) -> Option<Listed> {
        let first = self.0.front_mut()?;
        while first.placed < first.chunks.len() {
            let place = std::iter::from_fn(|| pieces.next_placed()).find(|placed| placed.digest.is_some())?;
            let chunk = &mut first.chunks[first.placed];
            (chunk.offset, chunk.end, chunk.digest) = (place.offset, place.end, place.digest);
            first.placed += 1;
        }
        let mut listed = self.0.pop_front()?;
        if let ([chunk], None) = (&listed.chunks[..], listed.digest) {
            listed.digest = chunk.digest;
        }
        Some(listed)
    }
}
