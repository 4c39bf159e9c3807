use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::staged::Staged;

/// A file that a user named for output.
///
/// A regular file appears under its name when it is complete, and replaces what has it in one step; a symlink is followed
/// and stays. What is there and is no regular file is written to and never replaced: a device, a pipe, a socket, an open
/// file of this process as `/dev/fd/3` (docker/cli#1514).
pub struct OutputFile(Form);

enum Form {
    Staged(Staged),
    Direct(Box<dyn Write + Send>),
}

impl OutputFile {
    /// Begins to write. Opening a pipe waits for its reader.
    ///
    /// # Errors
    ///
    /// Those of the file system; of the kind [`IsADirectory`](io::ErrorKind::IsADirectory) for a directory.
    pub fn create(path: &Path) -> io::Result<OutputFile> {
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            // What another process put there is not to be overwritten from its beginning.
            Ok(found) if found.is_file() && is_open_file(path) => {
                Ok(OutputFile(Form::Direct(Box::new(File::options().append(true).open(path)?))))
            }
            Ok(found) if !found.is_file() => Ok(OutputFile(Form::Direct(direct(path, &found)?))),
            _ => Ok(OutputFile(Form::Staged(Staged::create(path)?))),
        }
    }

    /// Whether what is at a path is written to as it comes, since it is there already and no regular file.
    pub fn is_stream(path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|found| !found.is_dir() && (!found.is_file() || is_open_file(path)))
    }

    /// The file in the making; `None` for what is written as it comes.
    pub(crate) fn into_staged(self) -> Result<Staged, Box<dyn Write + Send>> {
        match self.0 {
            Form::Staged(staged) => Ok(staged),
            Form::Direct(writer) => Err(writer),
        }
    }

    /// Makes a regular file visible.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn commit(self) -> io::Result<()> {
        match self.0 {
            Form::Staged(staged) => staged.commit(),
            Form::Direct(mut writer) => writer.flush(),
        }
    }
}

/// Whether a path is the name of a file that this process has open.
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
            Form::Staged(staged) => staged.write(bytes),
            Form::Direct(writer) => writer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Form::Staged(staged) => staged.flush(),
            Form::Direct(writer) => writer.flush(),
        }
    }
}

impl fmt::Debug for OutputFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Staged(staged) => f.debug_tuple("OutputFile").field(staged).finish(),
            Form::Direct(_) => f.write_str("OutputFile"),
        }
    }
}
