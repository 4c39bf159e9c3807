//! Temporary files that are hashed while they are written.

use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::path::Path;

use ocikit_spec::{Digest, MediaType};

use crate::hashing::Hashing;

/// The size of the buffer before the file, in bytes.
const BUFFER_BYTES: usize = 256 << 10;

/// A temporary file without a name, with the digest and the number of the bytes that were written.
pub(crate) type Output = Hashing<BufWriter<File>>;

/// A file that is complete.
pub(crate) struct Stored {
    pub(crate) file: File,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// A layer that was written.
pub(crate) struct Written {
    pub(crate) stored: Stored,
    pub(crate) media_type: MediaType,
    /// The annotations of its descriptor.
    pub(crate) annotations: Vec<(&'static str, String)>,
    /// The digest of its tar; `None` if it is that of the source.
    pub(crate) diff_id: Option<Digest>,
}

impl Output {
    pub(crate) fn create(directory: &Path) -> io::Result<Output> {
        let file = tempfile::tempfile_in(directory)?;
        Ok(Hashing::new(BufWriter::with_capacity(BUFFER_BYTES, file)))
    }

    pub(crate) fn finish(self) -> io::Result<Stored> {
        let (file, digest, size) = self.into_parts();
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(Stored { file, digest, size })
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
