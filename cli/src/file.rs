//! Files that commands read and write themselves.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use ocikit::Location;
use ocikit::layout::OutputFile;

use crate::failure::{Failure, Result};

/// How long a pipe, socket or device that stands for a file may take to give all its bytes.
const PIPE_TIMEOUT: Duration = Duration::from_secs(60);

/// Whether a path is standard input: `-`, or a name that the system has for it.
pub(crate) fn is_stdin(path: &Path) -> bool {
    ["-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"].iter().any(|name| path == Path::new(name))
}

/// Whether a path is standard output: `-`, or a name that the system has for it.
pub(crate) fn is_stdout(path: &Path) -> bool {
    ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"].iter().any(|name| path == Path::new(name))
}

/// Whether a location writes to standard output, under whichever prefix. A file may have the name `-`: only the location `-`
/// is standard output.
pub(crate) fn writes_to_stdout(location: &Location) -> bool {
    *location == Location::Stdio || location.path().is_some_and(|path| path != Path::new("-") && is_stdout(path))
}

/// A file that becomes visible when all of it is written; a device, a pipe or standard output is written to as it comes.
pub(crate) struct NewFile<'a> {
    form: Form,
    path: &'a Path,
}

enum Form {
    Stdout(io::Stdout),
    File(OutputFile),
}

impl<'a> NewFile<'a> {
    pub(crate) fn create(path: &'a Path) -> Result<NewFile<'a>> {
        if is_stdout(path) {
            return Ok(NewFile { form: Form::Stdout(io::stdout()), path });
        }
        let file = OutputFile::create(path).map_err(|error| Failure::io("write to", path.display(), &error))?;
        Ok(NewFile { form: Form::File(file), path })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result {
        let written = match &mut self.form {
            Form::Stdout(stdout) => read_enough(stdout.write_all(bytes)),
            Form::File(file) => file.write_all(bytes),
        };
        written.map_err(|error| Failure::io("write to", self.path.display(), &error))
    }

    pub(crate) fn finish(self) -> Result {
        let finished = match self.form {
            Form::Stdout(mut stdout) => read_enough(stdout.flush()),
            Form::File(file) => file.commit(),
        };
        finished.map_err(|error| Failure::io("write to", self.path.display(), &error))
    }
}

/// A reader of standard output that goes away has read enough.
fn read_enough(written: io::Result<()>) -> io::Result<()> {
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

/// Reads a whole file that is a document; `-` is standard input.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    read_at_most(path, ocikit::spec::MAX_DOCUMENT_SIZE)
}

/// Reads a whole file, unless it has more bytes than that; `-` is standard input. A pipe, as `<(command)` makes one, is read
/// like a file, for a minute at most.
pub(crate) fn read_at_most(path: &Path, most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    read_into(path, most, &mut bytes)?;
    Ok(bytes)
}

/// Reads a whole file into memory of the caller's, which has room for one byte more than may be read.
pub(crate) fn read_into(path: &Path, most: u64, bytes: &mut Vec<u8>) -> Result {
    let failed = |error: io::Error| Failure::io("read", path.display(), &error);
    // One more, so that a longer one is seen to be longer.
    let taken = most.saturating_add(1);
    if path == Path::new("-") {
        io::stdin().take(taken).read_to_end(bytes).map_err(failed)?;
    } else if std::fs::metadata(path).map_err(failed)?.is_file() {
        File::open(path).and_then(|file| file.take(taken).read_to_end(bytes)).map_err(failed)?;
    } else {
        read_pipe(path, taken, bytes)?;
    }
    match bytes.len() as u64 > most {
        true => Err(Failure::usage(format_args!("{} has more than {most} bytes, which is too long", path.display()))),
        false => Ok(()),
    }
}

/// Reads what is not a regular file. Opening a pipe that nobody writes to never ends, and neither may reading it, so that is
/// done beside this thread, which waits for so long and no longer.
fn read_pipe(path: &Path, taken: u64, bytes: &mut Vec<u8>) -> Result {
    let (sender, receiver) = mpsc::sync_channel(1);
    let opened = path.to_owned();
    // Not joined: where it waits for ever, it goes with the process.
    std::thread::spawn(move || {
        let mut found = zeroize::Zeroizing::new(Vec::new());
        let read = File::open(opened).and_then(|file| file.take(taken).read_to_end(&mut found));
        // Nobody is there to be told if this fails.
        let _ = sender.send(read.map(|_| found));
    });
    match receiver.recv_timeout(PIPE_TIMEOUT) {
        Ok(read) => {
            bytes.extend_from_slice(&read.map_err(|error| Failure::io("read", path.display(), &error))?);
            Ok(())
        }
        Err(_) => {
            let error = io::Error::new(
                io::ErrorKind::TimedOut,
                format!("it is a pipe or device, and did not end within {} seconds", PIPE_TIMEOUT.as_secs()),
            );
            Err(Failure::io("read", path.display(), &error))
        }
    }
}
