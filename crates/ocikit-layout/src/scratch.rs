use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ocikit_archive::Decoder;
use ocikit_image::{Error, Event, Observer, Result};

/// The place of temporary files for archives that cannot be read in place: compressed ones, and docker archives from a
/// pipe.
///
/// Such a file has no name and is removed when its reader is dropped.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Scratch {
    /// The directory; if `None`, the one of the archive, or the current one for a pipe.
    pub directory: Option<PathBuf>,
    /// Receives an event for each file, because it takes time and disk space.
    pub observer: Option<Arc<dyn Observer>>,
}

ocikit_spec::setters! {
    Scratch {
        directory: Option<PathBuf>,
        observer: Option<Arc<dyn Observer>>,
    }
}

/// The size in bytes that any archive may decompress to.
const MIN_UNPACKED_LIMIT_BYTES: u64 = 256 << 20;

/// The maximum compression ratio beyond that. Images are far below, compressed zeros reach about a thousand.
const MAX_COMPRESSION_RATIO: u64 = 50;

impl Scratch {
    /// Decompresses an archive to a file. `read` returns the number of compressed bytes read so far.
    pub(crate) fn unpack<R: Read>(
        &self,
        name: &str,
        near: &Path,
        decoder: &mut Decoder<R>,
        read: &dyn Fn() -> u64,
    ) -> Result<File> {
        if let Some(observer) = &self.observer {
            observer.event(Event::Decompressing { location: name });
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
                Err(error) => return Err(Error::broken(name, format!("it cannot be decompressed: {error}"))),
            };
            file.write_all(&buffer[..length]).map_err(failed)?;
            written += length as u64;
            if written > MIN_UNPACKED_LIMIT_BYTES && written / MAX_COMPRESSION_RATIO > read() {
                let what = format!(
                    "it decompresses to more than {MAX_COMPRESSION_RATIO} times its size; decompress it first if that is intended"
                );
                return Err(Error::broken(name, what));
            }
        }
        file.rewind().map_err(failed)?;
        Ok(file)
    }
}
