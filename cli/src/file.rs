//! Files that commands read and write themselves.

use std::io::{self, Read, Write};
use std::path::Path;

use crate::failure::{Failure, Result};

/// A file that becomes visible when all of it is written.
pub(crate) struct NewFile<'a> {
    file: tempfile::NamedTempFile,
    path: &'a Path,
}

impl<'a> NewFile<'a> {
    pub(crate) fn create(path: &'a Path) -> Result<NewFile<'a>> {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        builder.prefix(".ocikit-");
        // Nothing secret is written, so who may read it is for the umask to say.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(directory);
        let file = file.map_err(|error| Failure::io("write to", path.display(), &error))?;
        Ok(NewFile { file, path })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result {
        self.file.write_all(bytes).map_err(|error| Failure::io("write to", self.path.display(), &error))
    }

    pub(crate) fn finish(self) -> Result {
        let path = self.path;
        self.file.persist(path).map_err(|error| Failure::io("write to", path.display(), &error.error))?;
        Ok(())
    }
}

/// Writes a whole file.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result {
    let mut file = NewFile::create(path)?;
    file.write(bytes)?;
    file.finish()
}

/// Reads a whole file that is a document; `-` is standard input.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    read_at_most(path, ocikit::spec::MAX_DOCUMENT_SIZE)
}

/// Reads a whole file, unless it has more bytes than that; `-` is standard input.
pub(crate) fn read_at_most(path: &Path, most: u64) -> Result<Vec<u8>> {
    // One more, so that a longer one is seen to be longer.
    let taken = most + 1;
    let mut bytes = Vec::new();
    let read = match path == Path::new("-") {
        true => io::stdin().take(taken).read_to_end(&mut bytes),
        false => std::fs::File::open(path).and_then(|file| file.take(taken).read_to_end(&mut bytes)),
    };
    read.map_err(|error| Failure::io("read", path.display(), &error))?;
    match bytes.len() as u64 > most {
        true => Err(Failure::usage(format_args!("{} has more than {most} bytes, which is too long", path.display()))),
        false => Ok(bytes),
    }
}
