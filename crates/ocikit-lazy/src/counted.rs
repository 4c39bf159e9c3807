use std::io::{self, Read};

use ocikit_archive::layer::Budget;

/// A reader whose bytes count as decompressed ones against a budget.
pub(crate) struct Counted<'a, R> {
    pub(crate) reader: R,
    pub(crate) budget: &'a Budget,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.budget.inflated(read as u64)?;
        Ok(read)
    }
}
