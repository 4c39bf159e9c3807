//! Temporary files that are hashed while they are written.

use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::path::Path;

use ocikit_spec::{Algorithm, Digest, Hasher};

/// The size of the buffer before the file, in bytes.
const BUFFER_BYTES: usize = 256 << 10;

/// A temporary file without a name, with the digest and the number of the bytes that were written.
pub(crate) struct Output {
    file: BufWriter<File>,
    hasher: Hasher,
    position: u64,
}

/// A file that is complete.
pub(crate) struct Stored {
    pub(crate) file: File,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

impl Output {
    pub(crate) fn create(directory: &Path) -> io::Result<Output> {
        let file = tempfile::tempfile_in(directory)?;
        let hasher = Hasher::new(Algorithm::Sha256);
        Ok(Output { file: BufWriter::with_capacity(BUFFER_BYTES, file), hasher, position: 0 })
    }

    /// Returns the number of bytes that were written.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Returns the digest of the bytes that were written.
    pub(crate) fn digest_so_far(&self) -> Digest {
        self.hasher.clone().finish()
    }

    pub(crate) fn finish(self) -> io::Result<Stored> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(Stored { file, digest: self.hasher.finish(), size: self.position })
    }
}

impl Stored {
    /// Copies the file from its start.
    pub(crate) fn copy_to(mut self, writer: &mut impl Write) -> io::Result<()> {
        self.file.rewind()?;
        let copied = io::copy(&mut self.file, writer)?;
        match copied == self.size {
            true => Ok(()),
            false => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a temporary file became shorter")),
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.position += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
