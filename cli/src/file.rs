//! Files that commands read and write without the library.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use ocikit::Location;
use ocikit::layout::OutputFile;

use crate::failure::{Failure, Result};
use crate::waiting::Waiting;

/// The time limit for reading a pipe, socket or device to its end.
const PIPE_TIMEOUT: Duration = Duration::from_secs(60);

/// Returns whether a path is standard input: `-`, or `/dev/stdin` or a synonym.
pub(crate) fn is_stdin(path: &Path) -> bool {
    ["-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"].iter().any(|name| path == Path::new(name))
}

/// Returns whether a path is standard output: `-`, or `/dev/stdout` or a synonym.
pub(crate) fn is_stdout(path: &Path) -> bool {
    ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"].iter().any(|name| path == Path::new(name))
}

/// Returns whether a location writes to standard output, under whichever prefix. A file may have the name `-`: only the location `-`
/// is standard output.
pub(crate) fn writes_to_stdout(location: &Location) -> bool {
    *location == Location::Stdio || location.path().is_some_and(|path| path != Path::new("-") && is_stdout(path))
}

/// A file that appears under its name when it is complete. A device, a pipe or standard output is written to directly.
pub(crate) struct NewFile<'a> {
    destination: Destination,
    path: &'a Path,
}

enum Destination {
    Stdout(io::Stdout),
    File(OutputFile),
}

impl<'a> NewFile<'a> {
    pub(crate) fn create(path: &'a Path) -> Result<NewFile<'a>> {
        if is_stdout(path) {
            return Ok(NewFile { destination: Destination::Stdout(io::stdout()), path });
        }
        let file = OutputFile::create(path).map_err(|error| Failure::io("write to", path.display(), &error))?;
        Ok(NewFile { destination: Destination::File(file), path })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result {
        let written = match &mut self.destination {
            Destination::Stdout(stdout) => {
                let _waiting = Waiting::new();
                ignore_closed_pipe(stdout.write_all(bytes))
            }
            Destination::File(file) => file.write_all(bytes),
        };
        written.map_err(|error| Failure::io("write to", self.path.display(), &error))
    }

    pub(crate) fn finish(self) -> Result {
        let finished = match self.destination {
            Destination::Stdout(mut stdout) => ignore_closed_pipe(stdout.flush()),
            Destination::File(file) => file.commit(),
        };
        finished.map_err(|error| Failure::io("write to", self.path.display(), &error))
    }
}

/// Ignores a closed pipe: a reader such as `head` has read all it needs.
fn ignore_closed_pipe(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Writes a whole file.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result {
    let mut file = NewFile::create(path)?;
    file.write(bytes)?;
    file.finish()
}

/// Checks that a file can be written, without changing it: a command that cannot be undone checks its reports first.
pub(crate) fn check_writable(path: &Path) -> Result {
    // Opening a pipe would wait for its reader, and closing it would end the reader.
    match is_stdout(path) || OutputFile::is_stream(path) {
        true => Ok(()),
        false => NewFile::create(path).map(drop),
    }
}

/// Appends to a file, which is created if it does not exist.
pub(crate) fn append(path: &Path, bytes: &[u8]) -> Result {
    let opened = OpenOptions::new().append(true).create(true).open(path);
    let written = opened.and_then(|mut file| file.write_all(bytes));
    written.map_err(|error| Failure::io("write to", path.display(), &error))
}

/// Checks that a file can be appended to, as [`check_writable`] does.
pub(crate) fn check_appendable(path: &Path) -> Result {
    if is_stdout(path) || OutputFile::is_stream(path) {
        return Ok(());
    }
    match OpenOptions::new().append(true).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => check_writable(path),
        Err(error) => Err(Failure::io("write to", path.display(), &error)),
    }
}

/// Reads a file that the environment of a CI job names, for a library that explains the error itself. What is longer than the
/// library allows is refused there; nothing longer than 16 MiB is read.
pub(crate) fn read_named(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    const MAX_NAMED_BYTES: u64 = 16 << 20;
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_NAMED_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a file of at most [`ocikit::spec::MAX_DOCUMENT_BYTES`] bytes; `-` is standard input.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    read_at_most(path, ocikit::spec::MAX_DOCUMENT_BYTES)
}

/// Reads a text file, as [`read`] does.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read(path)?)
        .map_err(|_| Failure::usage(format_args!("cannot read {}: it is not UTF-8", path.display())))
}

/// Reads a file of at most `limit` bytes; `-` is standard input. A pipe, such as `<(command)`, is read like a file, within
/// [`PIPE_TIMEOUT`].
pub(crate) fn read_at_most(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    read_into(path, limit, &mut bytes)?;
    Ok(bytes)
}

/// Reads a file of at most `limit` bytes into a buffer of the caller, which needs capacity for one byte more than the limit.
pub(crate) fn read_into(path: &Path, limit: u64, bytes: &mut Vec<u8>) -> Result {
    let failed = |error: io::Error| Failure::io("read", path.display(), &error);
    // One byte more than the limit shows that the file is too long.
    let taken = limit.saturating_add(1);
    if path == Path::new("-") {
        let _waiting = Waiting::new();
        io::stdin().take(taken).read_to_end(bytes).map_err(failed)?;
    } else if std::fs::metadata(path).map_err(failed)?.is_file() {
        File::open(path).and_then(|file| file.take(taken).read_to_end(bytes)).map_err(failed)?;
    } else {
        read_pipe(path, taken, bytes)?;
    }
    match bytes.len() as u64 > limit {
        true => Err(Failure::usage(format_args!("cannot read {}: it has more than {limit} bytes", path.display()))),
        false => Ok(()),
    }
}

/// Reads a pipe, socket or device in a thread of its own. Opening and reading a pipe without a writer blocks forever, so this
/// thread waits for at most [`PIPE_TIMEOUT`].
fn read_pipe(path: &Path, taken: u64, bytes: &mut Vec<u8>) -> Result {
    let (sender, receiver) = mpsc::sync_channel(1);
    let opened = path.to_owned();
    // The thread is not joined: if it is blocked, it ends with the process.
    std::thread::spawn(move || {
        let mut found = zeroize::Zeroizing::new(Vec::new());
        let read = File::open(opened).and_then(|file| file.take(taken).read_to_end(&mut found));
        // Sending fails only after the timeout, when the result is no longer needed.
        let _ = sender.send(read.map(|_| found));
    });
    let _waiting = Waiting::new();
    let read = receiver.recv_timeout(PIPE_TIMEOUT).unwrap_or_else(|_| {
        let problem = format!("the pipe or device did not end within {} seconds", PIPE_TIMEOUT.as_secs());
        Err(io::Error::new(io::ErrorKind::TimedOut, problem))
    });
    bytes.extend_from_slice(&read.map_err(|error| Failure::io("read", path.display(), &error))?);
    Ok(())
}
