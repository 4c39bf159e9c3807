use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use ocikit_spec::{Algorithm, Digest, Hasher};
use tempfile::NamedTempFile;

use crate::limits::Share;

/// How much is read at once where bytes have to be hashed again.
const CHUNK: usize = 256 << 10;

/// Bytes on their way in: hashed as they come, visible nowhere, gone when dropped.
#[derive(Debug)]
pub(crate) struct Draft {
    length: u64,
    /// `None` once it no longer agrees with the bytes.
    hasher: Option<(Algorithm, Hasher)>,
    target: Target,
}

#[derive(Debug)]
enum Target {
    Memory {
        segments: Vec<Bytes>,
        share: Option<Share>,
    },
    /// The file is made when the first byte comes, so that an upload that never begins costs nothing.
    File {
        directory: PathBuf,
        file: Option<NamedTempFile>,
    },
}

/// A draft that will not change any more.
#[derive(Debug)]
pub(crate) enum Sealed {
    Memory(Vec<Bytes>),
    File(NamedTempFile),
}

impl Draft {
    /// A draft in memory, whose bytes count for a share if there is one.
    pub(crate) fn in_memory(share: Option<Share>) -> Draft {
        Draft::new(Target::Memory { segments: Vec::new(), share })
    }

    pub(crate) fn in_directory(directory: PathBuf) -> Draft {
        Draft::new(Target::File { directory, file: None })
    }

    fn new(target: Target) -> Draft {
        Draft { length: 0, hasher: Some((Algorithm::Sha256, Hasher::new(Algorithm::Sha256))), target }
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Says which digest will be asked for; without it, or too late, it is computed from the start at the end.
    pub(crate) fn expect(&mut self, algorithm: Algorithm) {
        if self.length == 0 {
            self.hasher = Some((algorithm, Hasher::new(algorithm)));
        }
    }

    /// Takes the next bytes. After an error the draft is of no use any more.
    pub(crate) fn append(&mut self, batch: &[Bytes]) -> io::Result<()> {
        match &mut self.target {
            Target::Memory { segments, share } => {
                let length = batch.iter().map(Bytes::len).sum();
                if let Some(share) = share {
                    share.grow(length)?;
                }
                // Copied, because what comes from a socket is a slice of a buffer that is larger.
                let mut segment = BytesMut::with_capacity(length);
                batch.iter().for_each(|bytes| segment.extend_from_slice(bytes));
                segments.push(segment.freeze());
            }
            Target::File { directory, file } => {
                let file = match file {
                    Some(file) => file,
                    None => file.insert(new_file(directory)?),
                };
                for bytes in batch {
                    file.write_all(bytes)?;
                }
            }
        }
        for bytes in batch {
            if let Some((_, hasher)) = &mut self.hasher {
                hasher.update(bytes);
            }
            self.length += bytes.len() as u64;
        }
        Ok(())
    }

    /// Forgets what is behind this length.
    pub(crate) fn truncate(&mut self, length: u64) -> io::Result<()> {
        if length >= self.length {
            return Ok(());
        }
        match &mut self.target {
            Target::Memory { segments, share } => {
                if let Some(share) = share {
                    share.shrink((self.length - length) as usize);
                }
                let mut rest = length as usize;
                for segment in segments {
                    segment.truncate(rest);
                    rest -= segment.len();
                }
            }
            Target::File { file: None, .. } => {}
            Target::File { file: Some(file), .. } => {
                file.as_file_mut().set_len(length)?;
                file.seek(SeekFrom::Start(length))?;
            }
        }
        self.length = length;
        self.hasher = None;
        Ok(())
    }

    /// The digest of all bytes.
    pub(crate) fn digest(&mut self, algorithm: Algorithm) -> io::Result<Digest> {
        match &self.hasher {
            Some((computed, hasher)) if *computed == algorithm => Ok(hasher.clone().finish()),
            _ => self.hash_again(algorithm),
        }
    }

    fn hash_again(&mut self, algorithm: Algorithm) -> io::Result<Digest> {
        let mut hasher = Hasher::new(algorithm);
        match &mut self.target {
            Target::Memory { segments, .. } => segments.iter().for_each(|segment| hasher.update(segment)),
            Target::File { file: None, .. } => {}
            Target::File { file: Some(file), .. } => {
                let mut buffer = vec![0; CHUNK];
                file.seek(SeekFrom::Start(0))?;
                loop {
                    match file.read(&mut buffer)? {
                        0 => break,
                        length => hasher.update(&buffer[..length]),
                    }
                }
            }
        }
        Ok(hasher.finish())
    }

    pub(crate) fn seal(self) -> io::Result<Sealed> {
        Ok(match self.target {
            Target::Memory { segments, .. } => Sealed::Memory(segments),
            Target::File { file: Some(file), .. } => Sealed::File(file),
            Target::File { directory, file: None } => Sealed::File(new_file(&directory)?),
        })
    }
}

fn new_file(directory: &PathBuf) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix("upload-").tempfile_in(directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Memory;

    fn drafts() -> [(Draft, Option<tempfile::TempDir>); 2] {
        let directory = tempfile::tempdir().unwrap();
        [
            (Draft::in_memory(Some(Memory::new(100).share())), None),
            (Draft::in_directory(directory.path().to_owned()), Some(directory)),
        ]
    }

    fn bytes(text: &'static str) -> Vec<Bytes> {
        vec![Bytes::from_static(text.as_bytes())]
    }

    #[test]
    fn bytes_are_hashed_as_they_come() {
        for (mut draft, _directory) in drafts() {
            assert_eq!(draft.digest(Algorithm::Sha256).unwrap(), Digest::sha256_of(b""));
            draft.append(&bytes("ab")).unwrap();
            draft.append(&[bytes("c"), bytes("d")].concat()).unwrap();
            assert_eq!(draft.length(), 4);
            for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
                assert_eq!(draft.digest(algorithm).unwrap(), Digest::of(algorithm, b"abcd"));
            }
            draft.append(&bytes("e")).unwrap();
            assert_eq!(draft.digest(Algorithm::Sha512).unwrap(), Digest::of(Algorithm::Sha512, b"abcde"));
        }
    }

    #[test]
    fn what_was_cut_off_is_hashed_no_more() {
        for (mut draft, _directory) in drafts() {
            draft.append(&bytes("abc")).unwrap();
            draft.append(&bytes("def")).unwrap();
            draft.truncate(9).unwrap();
            draft.truncate(2).unwrap();
            draft.append(&bytes("xyz")).unwrap();
            assert_eq!(draft.length(), 5);
            assert_eq!(draft.digest(Algorithm::Sha256).unwrap(), Digest::sha256_of(b"abxyz"));
        }
    }

    #[test]
    fn a_dropped_draft_leaves_nothing() {
        let [_, (mut draft, directory)] = drafts();
        let directory = directory.unwrap();
        let files = || std::fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(files(), 0);
        draft.append(&bytes("abc")).unwrap();
        assert_eq!(files(), 1);
        drop(draft);
        assert_eq!(files(), 0);
    }
}
