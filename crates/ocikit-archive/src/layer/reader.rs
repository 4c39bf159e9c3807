use std::io::{self, Read};

use crate::error::{Error, Result};
use crate::layer::entry::Entry;
use crate::layer::record::{Record, record};
use crate::layer::sparse::Sparse;
use crate::scan::Numbers;
use crate::stream::TarStream;

/// The entries of a layer, as they come; between two of them it reads the bytes of a file.
///
/// What it reads is the tar: whoever has a compressed layer puts a [`Decoder`](crate::Decoder) between.
#[derive(Debug)]
pub struct Reader<R> {
    tar: TarStream<R>,
    sparse: Option<Sparse>,
}

impl<R: Read> Reader<R> {
    /// Starts reading.
    pub fn new(tar: R) -> Reader<R> {
        Reader { tar: TarStream::new(tar), sparse: None }
    }

    /// The next entry, what was not read of the last one skipped; `None` at the end.
    ///
    /// # Errors
    ///
    /// [`Error::Truncated`] and [`Error::Invalid`] for what is no tar, has no place in a layer, or is a sparse file that
    /// cannot be read as it was meant. [`Error::Io`] where reading fails.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        loop {
            let Some((_, Record { entry, sparse })) = self.tar.next_with(Numbers::Left, record)? else {
                return Ok(None);
            };
            self.sparse = sparse;
            if entry.is_some() {
                return Ok(entry);
            }
        }
    }
}

/// Reads the bytes of the last entry; there are none unless it is a file.
impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut stored = Stored(&mut self.tar);
        match &mut self.sparse {
            Some(sparse) => sparse.read(&mut stored, buffer),
            None => stored.read(buffer),
        }
    }
}

struct Stored<'a, R>(&'a mut TarStream<R>);

impl<R: Read> Read for Stored<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error {
            Error::Io(error) => error,
            error @ Error::Truncated { .. } => io::Error::new(io::ErrorKind::UnexpectedEof, error),
            error => io::Error::new(io::ErrorKind::InvalidData, error),
        })
    }
}
