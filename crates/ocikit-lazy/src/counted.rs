use std::io::{self, Read};

use ocikit_archive::layer::Budget;

/// A reader whose bytes count as decompressed ones against a budget.
pub(crate) struct Counted<'a, R> {
    reader: R,
    budget: &'a Budget,
    /// The number of bytes so far.
    pub(crate) size: u64,
}

impl<R> Counted<'_, R> {
    pub(crate) fn new(reader: R, budget: &Budget) -> Counted<'_, R> {
        Counted { reader, budget, size: 0 }
    }
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.budget.inflated(read as u64)?;
        self.size += read as u64;
        Ok(read)
    }
}
