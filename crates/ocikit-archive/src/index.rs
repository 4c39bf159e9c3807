use std::collections::HashMap;
use std::io;
use std::ops::Range;

use crate::entry::{Entry, Kind, Span};
use crate::error::{Error, Result};
use crate::header::BLOCK;
use crate::read_at::ReadAt;
use crate::scan::{self, Window};

/// The entries of a tar and their positions, read in one pass over its headers, for random access to their contents.
///
/// Rules for input that tools read differently:
///
/// * A later entry replaces an earlier one with the same name, as it does on extraction.
/// * Hard and symbolic links are followed to another entry of the archive, through at most eight steps, and never
///   outside.
/// * Names that lead out of the archive, sparse files, devices and pipes are listed but never found.
/// * An entry that is longer than the archive makes the whole archive [truncated](Error::Truncated).
/// * Zero blocks end the archive; what follows them is not part of it.
/// * A single zero block, and a global header that renames entries, are [invalid](Error::Invalid), because readers
///   disagree about them.
#[derive(Debug, Clone)]
pub struct TarIndex {
    entries: Vec<Entry>,
    names: HashMap<String, usize>,
    end: End,
}

/// The position of the end of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct End {
    /// The start of the zeros, after the last entry.
    pub start: u64,
    /// The end of the zeros: at least two blocks later, unless the writer omitted them.
    pub zeros: u64,
    /// The length of the file.
    pub file: u64,
}

impl TarIndex {
    /// Reads the headers of an archive.
    ///
    /// # Errors
    ///
    /// [`Error::Truncated`] and [`Error::Invalid`] by the rules above, [`Error::Io`] if reading fails.
    pub fn read(archive: &(impl ReadAt + ?Sized)) -> Result<TarIndex> {
        let length = archive.length()?;
        let mut window = Random::new(archive, length);
        let mut entries = Vec::new();
        let mut names = HashMap::new();
        while let Some(entry) =
            scan::next(&mut window).map_err(|error| error.behind(entries.last().map(scan::shown).as_deref()))?
        {
            let end = entry.data.offset + entry.data.size;
            if end > length {
                let (what, offset) = (scan::shown(&entry), entry.start);
                return Err(Error::Truncated { what, offset, missing: end - length });
            }
            window.jump(entry.end());
            if let Some(name) = &entry.name {
                names.insert(name.clone(), entries.len());
            }
            entries.push(entry);
        }
        let start = window.position.min(length);
        let zeros = window.zeros()?;
        Ok(TarIndex { entries, names, end: End { start, zeros, file: length } })
    }

    /// Returns the position of the contents of a file, by its plain name. Links are followed.
    pub fn file(&self, name: &str) -> Option<Span> {
        const MOST_LINKS: usize = 8;
        let mut name = name;
        for _ in 0..=MOST_LINKS {
            let entry = self.entry(name)?;
            match &entry.kind {
                Kind::File => return Some(entry.data),
                Kind::Link(Some(target)) => name = target,
                _ => return None,
            }
        }
        None
    }

    /// Returns the last entry with this plain name.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.get(*self.names.get(name)?)
    }

    /// Returns all entries in order, including replaced ones.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Returns whether an entry is the last one with its name.
    pub fn counts(&self, position: usize) -> bool {
        let name = self.entries.get(position).and_then(|entry| entry.name.as_ref());
        name.is_some_and(|name| self.names.get(name) == Some(&position))
    }

    /// Returns the position of the end.
    pub fn end(&self) -> End {
        self.end
    }
}

/// Reads headers with at most one system call each, fewer if entries are small.
struct Random<'a, A: ?Sized> {
    archive: &'a A,
    buffer: Vec<u8>,
    /// The range of the buffer with the bytes from `position` on.
    filled: Range<usize>,
    position: u64,
    length: u64,
    /// The number of bytes to read at once.
    ahead: usize,
}

/// The number of bytes to read between large entries: a header, and the extended header that may precede it.
const MIN_READ_BYTES: usize = 1 << 10;

/// The number of bytes to read between small entries, so that many headers are read at once.
const MAX_READ_BYTES: usize = 32 << 10;

impl<'a, A: ReadAt + ?Sized> Random<'a, A> {
    fn new(archive: &'a A, length: u64) -> Random<'a, A> {
        Random { archive, buffer: vec![0; MAX_READ_BYTES], filled: 0..0, position: 0, length, ahead: MIN_READ_BYTES }
    }

    fn jump(&mut self, offset: u64) {
        let distance = offset - self.position;
        self.ahead = if distance < MAX_READ_BYTES as u64 / 8 { MAX_READ_BYTES } else { MIN_READ_BYTES };
        self.pass(usize::try_from(distance).unwrap_or(usize::MAX).min(self.filled.len()));
        self.position = offset;
    }

    fn fill(&mut self, length: usize) -> io::Result<()> {
        if self.filled.len() < length {
            self.buffer.copy_within(self.filled.clone(), 0);
            self.filled = 0..self.filled.len();
            self.buffer.resize(self.buffer.len().max(length), 0);
        }
        while self.filled.len() < length {
            let (offset, most) =
                (self.position + self.filled.end as u64, length.max(self.ahead).min(self.buffer.len()));
            match self.archive.read_at(&mut self.buffer[self.filled.end..most], offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) => break,
                read => self.filled.end += read?,
            }
        }
        Ok(())
    }

    /// Returns the end of the zeros that start at the current position.
    fn zeros(&mut self) -> Result<u64> {
        loop {
            let block = self.peek(BLOCK as usize)?;
            if block.is_empty() || block.iter().any(|byte| *byte != 0) {
                return Ok(self.position.min(self.length));
            }
            let length = block.len().min(BLOCK as usize);
            self.pass(length);
        }
    }
}

impl<A: ReadAt + ?Sized> Window for Random<'_, A> {
    fn peek(&mut self, length: usize) -> Result<&[u8]> {
        self.fill(length)?;
        let bytes = &self.buffer[self.filled.clone()];
        Ok(&bytes[..bytes.len().min(length)])
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn pass(&mut self, length: usize) {
        self.filled.start += length;
        self.position += length as u64;
    }
}

#[cfg(test)]
mod tests;
