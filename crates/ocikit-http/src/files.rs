//! Small files that users write: configuration, credentials, certificates.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// Maximum size of such a file, in bytes.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Reads a whole file of at most 16 MiB. Pipes and sockets are refused, since opening one blocks until it has a writer;
/// the size limit also ends the reading of devices. `/dev/null` reads as an empty file.
///
/// # Errors
///
/// Those of the file system; `InvalidInput` for a pipe or socket, `FileTooLarge` for a larger file.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    if is_pipe(&fs::metadata(path)?) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a pipe or socket, not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > MAX_FILE_BYTES {
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {MAX_FILE_BYTES} bytes"))),
        false => Ok(bytes),
    }
}

/// Reads a whole file as UTF-8.
///
/// # Errors
///
/// As [`read`], and `InvalidData` if it is not UTF-8.
pub fn read_to_string(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(unix)]
fn is_pipe(found: &fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    found.file_type().is_fifo() || found.file_type().is_socket()
}

#[cfg(not(unix))]
fn is_pipe(_: &fs::Metadata) -> bool {
    false
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn pipes_and_sockets_are_refused_and_devices_limited() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let fifo = directory.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        assert_eq!(read(&fifo).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(read(Path::new("/dev/zero")).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(read(Path::new("/dev/null")).unwrap(), b"");
        assert_eq!(read(&directory.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
