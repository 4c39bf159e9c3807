use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ocikit_archive::Decoder;
use ocikit_image::{Error, Event, Observer, Result};

/// Where archives go that cannot be read where they lie: compressed ones, and docker archives that come through a pipe.
///
/// Such a file has no name, and goes with whoever reads it.
#[derive(Debug, Clone, Default)]
pub struct Scratch {
    /// The directory; the one that the archive is in if `None`, the current one for a pipe.
    pub directory: Option<PathBuf>,
    /// Told when it happens, since it takes time and room.
    pub observer: Option<Arc<dyn Observer>>,
}

/// Any archive may unpack to this many bytes.
const ALWAYS_ALLOWED: u64 = 256 << 20;

/// Beyond that it may unpack to this many times what it has. Images come nowhere near, compressed zeros come to a
/// thousand.
const LARGEST_RATIO: u64 = 50;

impl Scratch {
    /// The bytes of an archive without its compression, in a file. `read` is how many were read below so far.
    pub(crate) fn unpack<R: Read>(
        &self,
        name: &str,
        near: &Path,
        decoder: &mut Decoder<R>,
        read: &dyn Fn() -> u64,
    ) -> Result<File> {
        if let Some(observer) = &self.observer {
            observer.event(Event::Unpacking { place: name });
        }
        let near = near.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let directory = self.directory.as_deref().unwrap_or(near);
        let failed = |error| Error::failed("unpack to a temporary file in", directory.display(), error);
        let mut file = tempfile::tempfile_in(directory).map_err(failed)?;
        let mut buffer = vec![0; 256 << 10];
        let mut written = 0;
        loop {
            let length = match decoder.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::broken(name, format!("it cannot be unpacked: {error}"))),
            };
            file.write_all(&buffer[..length]).map_err(failed)?;
            written += length as u64;
            if written > ALWAYS_ALLOWED && written / LARGEST_RATIO > read() {
                let what = format!(
                    "it unpacks to more than {LARGEST_RATIO} times its size; if it is meant to, unpack it first"
                );
                return Err(Error::broken(name, what));
            }
        }
        file.rewind().map_err(failed)?;
        Ok(file)
    }
}
