use std::io::{self, Read};

use crate::error::Result;
use crate::layer::budget::Budget;
use crate::layer::entry::Entry;
use crate::layer::record::{Record, record};
use crate::layer::sparse::Sparse;
use crate::scan::Numbers;
use crate::stream::TarStream;

/// Reads the entries of a layer in order, and the contents of a file after its entry.
///
/// The input is an uncompressed tar; use a [`Decoder`](crate::Decoder) for a compressed layer.
#[derive(Debug)]
pub struct Reader<R> {
    tar: TarStream<R>,
    sparse: Option<Sparse>,
    budget: Budget,
    start: u64,
}

impl<R: Read> Reader<R> {
    /// Creates a reader with a new budget.
    pub fn new(tar: R) -> Reader<R> {
        Reader::within(&Budget::new(), tar)
    }

    /// Creates a reader within the budget of an operation. The bytes of the tar are counted by the decompression, not
    /// here.
    pub fn within(budget: &Budget, tar: R) -> Reader<R> {
        Reader { tar: TarStream::new(tar), sparse: None, budget: budget.clone(), start: 0 }
    }

    /// Returns the budget that entries count against.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Returns the offset in the tar of the last entry with its headers, at which another reader can start.
    pub fn entry_start(&self) -> u64 {
        self.start
    }

    /// Returns the next entry and skips the rest of the last one; `None` at the end.
    ///
    /// # Errors
    ///
    /// [`Error::Truncated`](crate::Error::Truncated) and [`Error::Invalid`](crate::Error::Invalid) for an invalid tar,
    /// an entry that is not allowed in a layer, or an unsupported sparse file. [`Error::Limit`](crate::Error::Limit)
    /// after too many entries. [`Error::Io`](crate::Error::Io) if reading fails.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        loop {
            let Some((position, Record { entry, sparse })) = self.tar.next_with(Numbers::Left, record)? else {
                return Ok(None);
            };
            self.budget.entry()?;
            self.sparse = sparse;
            self.start = position.start;
            if entry.is_some() {
                return Ok(entry);
            }
        }
    }

    /// Returns whether the last entry is a sparse file.
    pub(crate) fn is_sparse(&self) -> bool {
        self.sparse.is_some()
    }

    /// Passes over a hole of a sparse file at the current position and returns its length; 0 if there is none. It does not
    /// count against the budget.
    pub(crate) fn pass_hole(&mut self) -> u64 {
        self.sparse.as_mut().map_or(0, Sparse::pass_hole)
    }
}

/// Reads the contents of the last entry; empty unless it is a file.
impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut stored = Stored(&mut self.tar);
        match &mut self.sparse {
            Some(sparse) => {
                // Holes count against the budget, because reading them takes time.
                let read = sparse.read(&mut stored, buffer)?;
                self.budget.inflated(read as u64)?;
                Ok(read)
            }
            None => stored.read(buffer),
        }
    }
}

struct Stored<'a, R>(&'a mut TarStream<R>);

impl<R: Read> Read for Stored<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(self.0.read(buffer)?)
    }
}
