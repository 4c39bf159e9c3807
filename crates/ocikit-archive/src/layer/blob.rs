use std::io::{self, Write};

use ocikit_spec::{Algorithm, Digest, Hasher};

use crate::compression::Compression;
use crate::encoder::{Encoder, EncoderOptions};

/// The digests of a layer that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Written {
    /// The compression of the blob.
    pub compression: Compression,
    /// The SHA-256 digest of the compressed bytes, by which the manifest refers to the blob.
    pub digest: Digest,
    /// The number of compressed bytes.
    pub size: u64,
    /// The SHA-256 digest of the uncompressed tar, which the config lists. Image specification, "Layer DiffID".
    pub diff_id: Digest,
    /// The number of uncompressed bytes.
    pub tar_size: u64,
}

/// Compresses the bytes of a layer and computes all digests in the same pass.
///
/// The bytes are those of a tar; [`Writer`](super::Writer) writes one from entries.
///
/// ```
/// use std::io::Write;
/// use ocikit_archive::{Compression, layer::BlobWriter};
///
/// let mut blob = BlobWriter::new(&Compression::Gzip.into(), Vec::new())?;
/// blob.write_all(&[0; 1024])?;
/// let (bytes, written) = blob.finish()?;
/// assert_eq!(written.size, bytes.len() as u64);
/// assert_eq!(written.tar_size, 1024);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct BlobWriter<W: Write> {
    compression: Compression,
    tar: Hashed<Encoder<Hashed<W>>>,
}

impl<W: Write> BlobWriter<W> {
    /// Starts a blob.
    ///
    /// # Errors
    ///
    /// As [`Encoder::with`].
    pub fn new(options: &EncoderOptions, writer: W) -> io::Result<BlobWriter<W>> {
        let tar = Hashed::new(Encoder::with(options, Hashed::new(writer))?);
        Ok(BlobWriter { compression: options.compression, tar })
    }

    /// Writes the rest, and returns the underlying writer and the digests.
    ///
    /// # Errors
    ///
    /// Those of writing.
    pub fn finish(self) -> io::Result<(W, Written)> {
        let (encoder, diff_id, tar_size) = self.tar.finish();
        let (writer, digest, size) = encoder.finish()?.finish();
        Ok((writer, Written { compression: self.compression, digest, size, diff_id, tar_size }))
    }
}

impl<W: Write> Write for BlobWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tar.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tar.flush()
    }
}

/// A writer that computes the digest of its bytes.
#[derive(Debug)]
struct Hashed<W> {
    writer: W,
    hasher: Hasher,
    size: u64,
}

impl<W> Hashed<W> {
    fn new(writer: W) -> Hashed<W> {
        Hashed { writer, hasher: Hasher::new(Algorithm::Sha256), size: 0 }
    }

    fn finish(self) -> (W, Digest, u64) {
        (self.writer, self.hasher.finish(), self.size)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.writer.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}
