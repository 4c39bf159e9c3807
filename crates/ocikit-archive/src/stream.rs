use std::io::{self, Read};

use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::scan::{self, Found, Numbers, Window};

/// The maximum length of what follows the end of an archive, in bytes. Writers fill the last block of a tape, which has at most a
/// few MiB; a device such as /dev/zero never ends.
const MAX_TRAILING_BYTES: u64 = 64 << 20;

/// A tar that is read sequentially, for example from a pipe.
///
/// The rules of [`TarIndex`](crate::TarIndex) apply as far as possible: later entries that replace this one, and the
/// targets of links, are left to the caller.
#[derive(Debug)]
pub struct TarStream<R> {
    window: Sequential<R>,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    entry: Entry,
    /// The number of unread bytes of the entry.
    rest: u64,
    /// The number of padding zeros after them.
    padding: u64,
}

impl<R: Read> TarStream<R> {
    /// Starts reading.
    pub fn new(reader: R) -> TarStream<R> {
        TarStream { window: Sequential { reader, buffer: Vec::new(), position: 0 }, current: None }
    }

    /// Returns the next entry and skips the rest of the last one; `None` at the end. Zeros after the end are read too,
    /// so that the writer of a pipe does not fail.
    ///
    /// # Errors
    ///
    /// [`Error::Truncated`] and [`Error::Invalid`] as for an index, [`Error::Io`] if reading fails.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        Ok(self.next_with(Numbers::Strict, |_| Ok(()))?.map(|(entry, ())| entry))
    }

    /// Returns the reader below, and the number of header bytes that were read from it and not consumed yet.
    pub(crate) fn reader_mut(&mut self) -> (&mut R, usize) {
        (&mut self.window.reader, self.window.buffer.len())
    }

    /// Returns the next entry, with the result of a function for its header.
    pub(crate) fn next_with<T>(
        &mut self,
        numbers: Numbers,
        convert: impl Fn(&Found<'_>) -> Result<T>,
    ) -> Result<Option<(Entry, T)>> {
        let mut before = self.current.take();
        if let Some(current) = &mut before {
            let skipped = self.window.skip(current.rest + current.padding)?;
            // Missing padding at the very end is accepted.
            if skipped < current.rest {
                current.rest -= skipped;
                return Err(current.truncated());
            }
        }
        let before = || before.as_ref().map(|current| scan::shown(&current.entry));
        let next = scan::next_with(&mut self.window, numbers, convert);
        let Some((entry, converted)) = next.map_err(|error| error.behind(before().as_deref()))? else {
            if self.window.skip(MAX_TRAILING_BYTES + 1)? > MAX_TRAILING_BYTES {
                let problem = format!("more than {MAX_TRAILING_BYTES} bytes follow its end");
                return Err(scan::invalid(self.window.position(), problem).behind(before().as_deref()));
            }
            return Ok(None);
        };
        let (rest, padding) = (entry.data.size, crate::padding(entry.data.size));
        self.current = Some(Current { entry: entry.clone(), rest, padding });
        Ok(Some((entry, converted)))
    }

    /// Reads bytes of the current entry; 0 at its end.
    ///
    /// # Errors
    ///
    /// [`Error::Truncated`] if the archive ends first, [`Error::Io`] if reading fails.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let Some(current) = &mut self.current else { return Ok(0) };
        let most = usize::try_from(current.rest).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let read = self.window.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(current.truncated());
        }
        current.rest -= read as u64;
        Ok(read)
    }
}

impl Current {
    fn truncated(&self) -> Error {
        let (what, offset) = (scan::shown(&self.entry), self.entry.start);
        Error::Truncated { what, offset, missing: self.rest }
    }
}

#[derive(Debug)]
struct Sequential<R> {
    reader: R,
    /// Header bytes that were shown and not consumed yet.
    buffer: Vec<u8>,
    position: u64,
}

impl<R: Read> Sequential<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = if self.buffer.is_empty() {
            read_some(&mut self.reader, buffer)?
        } else {
            let length = self.buffer.len().min(buffer.len());
            buffer[..length].copy_from_slice(&self.buffer[..length]);
            self.buffer.drain(..length);
            length
        };
        self.position += read as u64;
        Ok(read)
    }

    /// Skips up to this many bytes, fewer at the end of the stream.
    fn skip(&mut self, length: u64) -> io::Result<u64> {
        let mut scratch = [0; 16 << 10];
        let mut skipped = 0;
        while skipped < length {
            let most = usize::try_from(length - skipped).unwrap_or(usize::MAX).min(scratch.len());
            match self.read(&mut scratch[..most])? {
                0 => break,
                read => skipped += read as u64,
            }
        }
        Ok(skipped)
    }
}

impl<R: Read> Window for Sequential<R> {
    fn peek(&mut self, length: usize) -> Result<&[u8]> {
        while self.buffer.len() < length {
            let filled = self.buffer.len();
            self.buffer.resize(length, 0);
            let read = read_some(&mut self.reader, &mut self.buffer[filled..]);
            self.buffer.truncate(filled + *read.as_ref().unwrap_or(&0));
            if read? == 0 {
                break;
            }
        }
        Ok(&self.buffer)
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn pass(&mut self, length: usize) {
        self.buffer.drain(..length);
        self.position += length as u64;
    }
}

fn read_some(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}
