use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::staged::{Staged, followed};

/// An output file.
///
/// A regular file gets its name when it is complete and replaces an existing one atomically; a symlink is followed and
/// kept. An existing file that is not regular is written to and never replaced: a device, a pipe, a socket, an open
/// file of this process such as `/dev/fd/3` (docker/cli#1514).
pub struct OutputFile(Output);

enum Output {
    Staged(Staged),
    Direct(Box<dyn Write + Send>),
}

impl OutputFile {
    /// Starts to write. Opening a pipe waits for its reader.
    ///
    /// # Errors
    ///
    /// Those of the file system; of the kind [`IsADirectory`](io::ErrorKind::IsADirectory) for a directory.
    pub fn create(path: &Path) -> io::Result<OutputFile> {
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            // The file may be in use by another process, so it is not overwritten from its start.
            Ok(found) if found.is_file() && is_open_file(path) => {
                Ok(OutputFile::direct(Box::new(File::options().append(true).open(path)?)))
            }
            Ok(found) if !found.is_file() => Ok(OutputFile::direct(direct(path, &found)?)),
            _ => Ok(OutputFile(Output::Staged(Staged::create(path)?))),
        }
    }

    /// Returns whether an existing path is written to directly because it is not a regular file.
    pub fn is_stream(path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|found| !found.is_dir() && (!found.is_file() || is_open_file(path)))
    }

    /// Returns the path that a new file gets: symlinks are followed, whether their target exists or not.
    ///
    /// # Errors
    ///
    /// Too many levels of symlinks.
    pub fn followed(path: &Path) -> io::Result<PathBuf> {
        followed(path)
    }

    /// Returns the output that is this writer.
    pub(crate) fn direct(writer: Box<dyn Write + Send>) -> OutputFile {
        OutputFile(Output::Direct(writer))
    }

    /// Returns the temporary file if it is wanted; this file if it is not, or the output is written directly.
    pub(crate) fn into_staged_if(self, is_wanted: bool) -> Result<Staged, OutputFile> {
        match self.0 {
            Output::Staged(staged) if is_wanted => Ok(staged),
            output => Err(OutputFile(output)),
        }
    }

    /// Gives a regular file its name.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn commit(self) -> io::Result<()> {
        match self.0 {
            Output::Staged(staged) => staged.commit(),
            Output::Direct(mut writer) => writer.flush(),
        }
    }
}

/// Returns whether a path is the name of an open file of this process.
fn is_open_file(path: &Path) -> bool {
    ["/dev/stdout", "/dev/stderr"].iter().any(|name| path == Path::new(name))
        || path.starts_with("/dev/fd")
        || path.starts_with("/proc/self/fd")
}

#[cfg(unix)]
fn direct(path: &Path, found: &fs::Metadata) -> io::Result<Box<dyn Write + Send>> {
    use std::os::unix::fs::FileTypeExt;
    match found.file_type().is_socket() {
        true => Ok(Box::new(std::os::unix::net::UnixStream::connect(path)?)),
        false => Ok(Box::new(File::options().write(true).open(path)?)),
    }
}

#[cfg(not(unix))]
fn direct(path: &Path, _: &fs::Metadata) -> io::Result<Box<dyn Write + Send>> {
    Ok(Box::new(File::options().write(true).open(path)?))
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Output::Staged(staged) => staged.write(bytes),
            Output::Direct(writer) => writer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Output::Staged(staged) => staged.flush(),
            Output::Direct(writer) => writer.flush(),
        }
    }
}

impl fmt::Debug for OutputFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Output::Staged(staged) => f.debug_tuple("OutputFile").field(staged).finish(),
            Output::Direct(_) => f.write_str("OutputFile"),
        }
    }
}
