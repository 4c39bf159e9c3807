use std::io::{self, Read, Write};

use ocikit_spec::{Algorithm, Digest, Hasher};

/// A reader or writer that computes the digest of the bytes that pass it.
pub(crate) struct Hashing<T> {
    inner: T,
    hasher: Hasher,
    size: u64,
}

impl<T> Hashing<T> {
    pub(crate) fn new(inner: T) -> Hashing<T> {
        Hashing { inner, hasher: Hasher::new(Algorithm::Sha256), size: 0 }
    }

    /// Continues with the bytes of another reader or writer.
    pub(crate) fn with<U>(self, inner: U) -> Hashing<U> {
        Hashing { inner, hasher: self.hasher, size: self.size }
    }

    /// Returns the number of bytes so far.
    pub(crate) fn position(&self) -> u64 {
        self.size
    }

    /// Returns the digest of the bytes so far.
    pub(crate) fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// Returns the reader or writer, and the digest and the number of all bytes.
    pub(crate) fn into_parts(self) -> (T, Digest, u64) {
        (self.inner, self.hasher.finish(), self.size)
    }

    /// Adds bytes that pass elsewhere.
    pub(crate) fn pass(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.pass(&buffer[..read]);
        Ok(read)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.pass(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
