use std::io::{self, Read};

use crate::error::Result;
use crate::layer::budget::Budget;
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
    budget: Budget,
}

impl<R: Read> Reader<R> {
    /// Starts reading, with a budget of its own.
    pub fn new(tar: R) -> Reader<R> {
        Reader::within(&Budget::new(), tar)
    }

    /// Starts reading within the budget of an operation. Bytes of the tar count where they are inflated, not here.
    pub fn within(budget: &Budget, tar: R) -> Reader<R> {
        Reader { tar: TarStream::new(tar), sparse: None, budget: budget.clone() }
    }

    /// The budget that entries count against.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The next entry, what was not read of the last one skipped; `None` at the end.
    ///
    /// # Errors
    ///
    /// [`Error::Truncated`](crate::Error::Truncated) and [`Error::Invalid`](crate::Error::Invalid) for what is no tar, has no place in a layer, or is a sparse file that
    /// cannot be read as it was meant. [`Error::Limit`](crate::Error::Limit) after too many entries. [`Error::Io`](crate::Error::Io) where reading fails.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        loop {
            let Some((_, Record { entry, sparse })) = self.tar.next_with(Numbers::Left, record)? else {
                return Ok(None);
            };
            self.budget.entry()?;
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
            Some(sparse) => {
                // Holes take time although no bytes are stored for them.
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
