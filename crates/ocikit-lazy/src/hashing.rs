use std::io::{self, Read};

use ocikit_spec::{Algorithm, Digest, Hasher};

/// A reader that computes the digest of what it reads.
pub(crate) struct Hashing<R> {
    reader: R,
    hasher: Hasher,
}

impl<R: Read> Hashing<R> {
    pub(crate) fn new(reader: R) -> Hashing<R> {
        Hashing { reader, hasher: Hasher::new(Algorithm::Sha256) }
    }

    /// Returns the digest of everything that was read.
    pub(crate) fn finish(self) -> Digest {
        self.hasher.finish()
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}
