use std::fs::File;
use std::io;

/// Bytes that several readers can read at any offset in parallel.
pub trait ReadAt: Send + Sync {
    /// Reads some bytes at this offset; none at or beyond the end.
    ///
    /// # Errors
    ///
    /// Those of the operating system.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Returns the length in bytes.
    ///
    /// # Errors
    ///
    /// Those of the operating system.
    fn length(&self) -> io::Result<u64>;
}

impl ReadAt for File {
    #[cfg(unix)]
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buffer, offset)
    }

    #[cfg(windows)]
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_read(self, buffer, offset)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

impl ReadAt for [u8] {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

macro_rules! as_slice {
    ($($type:ty),*) => {
        $(impl ReadAt for $type {
            fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
                self[..].read_at(buffer, offset)
            }

            fn length(&self) -> io::Result<u64> {
                self[..].length()
            }
        })*
    };
}

as_slice!(Vec<u8>, bytes::Bytes);
