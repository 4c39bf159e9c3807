//! A tar without the files that only eStargz has.

use std::io::{self, Read};

use ocikit_archive::layer::{Budget, RawReader};
use ocikit_archive::{END, padding};

use crate::estargz::format::is_own_file;

/// A tar without its table of contents and landmarks; every other byte of an entry is passed on.
pub(crate) struct WithoutOwnFiles<R> {
    reader: RawReader<R>,
    /// Bytes that come next.
    pending: Vec<u8>,
    /// How many of them were read.
    taken: usize,
    /// Headers that the reader has passed.
    between: Vec<u8>,
    /// Whether contents are passed on.
    is_inside: bool,
    /// The position in the source after the last contents.
    position: u64,
    is_at_end: bool,
    /// The padding of the last contents, unless they were left out.
    missing_padding: u64,
}

impl<R: Read> WithoutOwnFiles<R> {
    pub(crate) fn within(budget: &Budget, tar: R) -> WithoutOwnFiles<R> {
        WithoutOwnFiles {
            reader: RawReader::within(budget, tar),
            pending: Vec::new(),
            taken: 0,
            between: Vec::new(),
            is_inside: false,
            position: 0,
            is_at_end: false,
            missing_padding: 0,
        }
    }

    /// Reads the headers of the next entry, or the end.
    fn advance(&mut self) -> ocikit_archive::Result<()> {
        self.pending.clear();
        self.taken = 0;
        let entry = self.reader.next_entry(&mut self.between)?;
        self.pending.resize(usize::try_from(self.missing_padding).map_err(io::Error::other)?, 0);
        self.missing_padding = 0;
        let Some(entry) = entry else {
            self.pending.extend_from_slice(&END);
            self.is_at_end = true;
            return Ok(());
        };
        let gap = usize::try_from(entry.start.saturating_sub(self.position)).map_err(io::Error::other)?;
        self.position = entry.data.offset + entry.data.size;
        if is_own_file(&entry.name) {
            // Contents that are not read would be recorded.
            io::copy(&mut self.reader, &mut io::sink())?;
        } else {
            self.pending.extend_from_slice(self.between.get(gap..).unwrap_or_default());
            self.missing_padding = padding(entry.data.size);
            self.is_inside = true;
        }
        self.between.clear();
        Ok(())
    }
}

impl<R: Read> Read for WithoutOwnFiles<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let rest = &self.pending[self.taken..];
            if !rest.is_empty() || buffer.is_empty() {
                let length = rest.len().min(buffer.len());
                buffer[..length].copy_from_slice(&rest[..length]);
                self.taken += length;
                return Ok(length);
            }
            if self.is_inside {
                match self.reader.read(buffer)? {
                    0 => self.is_inside = false,
                    read => return Ok(read),
                }
            }
            if self.is_at_end {
                return Ok(0);
            }
            self.advance()?;
        }
    }
}
