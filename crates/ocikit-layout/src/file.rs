use std::fmt;
use std::fs::File;
use std::io;

use bytes::Bytes;
use ocikit_archive::{ReadAt, Span};
use ocikit_image::bridge::read_some;
use ocikit_image::{Error, Result};
use ocikit_spec::{Algorithm, Descriptor, Digest, Hasher, MAX_DOCUMENT_BYTES};

/// Returns a function that makes the error of an operation on a place.
pub(crate) fn failure_of(
    place: &dyn fmt::Display,
    operation: &'static str,
) -> impl Fn(io::Error) -> Error + Send + use<> {
    let place = place.to_string();
    move |error| Error::failed(operation, &place, error)
}

/// Writes the contents of an entry of a tar, and then the header before them, without which readers do not see it.
pub(crate) fn write_entry(
    file: &File,
    start: u64,
    header: &[u8],
    chunks: impl Iterator<Item = Result<Bytes>>,
    failed: impl Fn(io::Error) -> Error,
) -> Result<()> {
    let mut offset = start + header.len() as u64;
    for chunk in chunks {
        let chunk = chunk?;
        write_at(file, &chunk, offset).map_err(&failed)?;
        offset += chunk.len() as u64;
    }
    write_at(file, header, start).map_err(failed)
}

/// Reads all bytes of a range, whose size was checked before.
pub(crate) fn read_small(file: &(impl ReadAt + ?Sized), offset: u64, size: u64) -> io::Result<Bytes> {
    let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
    match read_at_most(file, &mut bytes, Span { offset, size })? == bytes.len() {
        true => Ok(bytes.into()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Fills a buffer from the start of a range, up to the end of either.
pub(crate) fn read_at_most(file: &(impl ReadAt + ?Sized), buffer: &mut [u8], span: Span) -> io::Result<usize> {
    let most = usize::try_from(span.size).unwrap_or(usize::MAX).min(buffer.len());
    let mut filled = 0;
    while filled < most {
        match read_some(file, &mut buffer[filled..most], span.offset + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// Computes the digest of a range of a file.
pub(crate) fn hash(file: &(impl ReadAt + ?Sized), span: Span, algorithm: Algorithm) -> io::Result<Digest> {
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; usize::try_from(span.size).unwrap_or(usize::MAX).min(1 << 20)];
    let mut rest = span;
    while rest.size > 0 {
        let read = read_at_most(file, &mut buffer, rest)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hasher.update(&buffer[..read]);
        rest = Span { offset: rest.offset + read as u64, size: rest.size - read as u64 };
    }
    Ok(hasher.finish())
}

/// Whether layers that exist with the right size count as present, or are read to be sure. Everything else is small, and
/// always read: a damaged manifest would make the whole image useless.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Presence {
    /// The size of a layer is enough.
    #[default]
    BySize,
    /// Every blob is hashed; a damaged one is written again.
    ByDigest,
}

impl Presence {
    /// Returns whether a range holds a blob.
    pub(crate) fn is_at(self, file: &(impl ReadAt + ?Sized), span: Span, blob: &Descriptor) -> io::Result<bool> {
        if span.size != blob.size {
            return Ok(false);
        }
        let is_small = !blob.media_type.is_layer() && blob.size <= MAX_DOCUMENT_BYTES;
        let is_read = is_small || self == Presence::ByDigest;
        Ok(!is_read || hash(file, span, blob.digest.algorithm())? == blob.digest)
    }
}

/// A reader of a range of a file.
pub(crate) struct Part<'a, A: ?Sized> {
    file: &'a A,
    rest: Span,
}

impl<'a, A: ReadAt + ?Sized> Part<'a, A> {
    pub(crate) fn new(file: &'a A, span: Span) -> Part<'a, A> {
        Part { file, rest: span }
    }
}

impl<A: ReadAt + ?Sized> io::Read for Part<'_, A> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = usize::try_from(self.rest.size).unwrap_or(usize::MAX).min(buffer.len());
        let read = read_some(self.file, &mut buffer[..length], self.rest.offset)?;
        self.rest = Span { offset: self.rest.offset + read as u64, size: self.rest.size - read as u64 };
        Ok(read)
    }
}

/// Writes bytes at an offset, independent of the position of the file.
pub(crate) fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::write_all_at(file, bytes, offset);
    #[cfg(windows)]
    {
        let (mut bytes, mut offset) = (bytes, offset);
        while !bytes.is_empty() {
            let written = std::os::windows::fs::FileExt::seek_write(file, bytes, offset)?;
            bytes = &bytes[written..];
            offset += written as u64;
        }
        Ok(())
    }
}
