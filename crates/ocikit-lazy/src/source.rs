//! The tar of a layer that is written in another format.

use std::io::{self, Read};

use ocikit_archive::layer::{Budget, RawEntry, RawReader};

use crate::error::Stopped;
use crate::reason::{Paths, Reason};

/// Reads entries and contents, and keeps the bytes between them.
pub(crate) struct Source<R> {
    reader: RawReader<R>,
    /// The rules for a format with a table of contents.
    paths: Paths,
    /// The bytes from the end of the last contents to the start of the next ones.
    between: Vec<u8>,
    /// The number of those that are before the headers.
    gap: usize,
    /// The end of the last contents in the tar.
    position: u64,
}

impl<R: Read> Source<R> {
    pub(crate) fn new(tar: R, budget: &Budget, paths: Paths) -> Source<R> {
        Source { reader: RawReader::within(budget, tar), paths, between: Vec::new(), gap: 0, position: 0 }
    }

    /// Returns the next entry; `None` at the end. The contents of the last one must have been read.
    pub(crate) fn next_entry(&mut self) -> Result<Option<RawEntry>, Stopped> {
        self.between.clear();
        let Some(entry) = self.reader.next_entry(&mut self.between)? else { return Ok(None) };
        self.gap = usize::try_from(entry.start - self.position).map_err(io::Error::other)?;
        if self.between[..self.gap].iter().any(|byte| *byte != 0) {
            return Err(Reason::GlobalHeader.into());
        }
        self.paths.add(&entry)?;
        self.position = entry.data.offset + entry.data.size;
        Ok(Some(entry))
    }

    /// Returns the padding of the last contents and the headers of the entry; at the end, the rest of the tar.
    pub(crate) fn between(&self) -> &[u8] {
        &self.between
    }

    /// Returns the headers of the entry.
    pub(crate) fn headers(&self) -> &[u8] {
        &self.between[self.gap..]
    }

    /// Returns the reader of the contents of the entry.
    pub(crate) fn contents(&mut self) -> &mut impl Read {
        &mut self.reader
    }
}
