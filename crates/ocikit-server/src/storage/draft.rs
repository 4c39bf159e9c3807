use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use ocikit_spec::{Algorithm, Digest, Hasher};
use tempfile::NamedTempFile;

use crate::limits::Share;

/// Number of bytes that are read at once when a draft is hashed again.
const READ_BUFFER_BYTES: usize = 256 << 10;

/// Bytes of an upload in progress: hashed as they arrive, not served, and deleted when dropped.
#[derive(Debug)]
pub(crate) struct Draft {
    length: u64,
    /// `None` once the draft was truncated.
    hasher: Option<(Algorithm, Hasher)>,
    target: DraftTarget,
}

#[derive(Debug)]
enum DraftTarget {
    Memory {
        segments: Vec<Bytes>,
        share: Option<Share>,
    },
    /// Created with the first byte, so that an upload without bytes costs nothing.
    File {
        directory: PathBuf,
        file: Option<NamedTempFile>,
    },
}

/// A complete draft.
#[derive(Debug)]
pub(crate) enum Sealed {
    Memory(Vec<Bytes>),
    File(NamedTempFile),
}

impl Draft {
    /// Returns a draft in memory, whose bytes count against the share if there is one.
    pub(crate) fn in_memory(share: Option<Share>) -> Draft {
        Draft::new(DraftTarget::Memory { segments: Vec::new(), share })
    }

    pub(crate) fn in_directory(directory: PathBuf) -> Draft {
        Draft::new(DraftTarget::File { directory, file: None })
    }

    fn new(target: DraftTarget) -> Draft {
        Draft { length: 0, hasher: Some((Algorithm::Sha256, Hasher::new(Algorithm::Sha256))), target }
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Selects the digest algorithm. If this is not called before the first byte, the digest is computed at the end.
    pub(crate) fn expect(&mut self, algorithm: Algorithm) {
        if self.length == 0 {
            self.hasher = Some((algorithm, Hasher::new(algorithm)));
        }
    }

    /// Appends bytes. After an error the draft is unusable.
    pub(crate) fn append(&mut self, batch: &[Bytes]) -> io::Result<()> {
        match &mut self.target {
            DraftTarget::Memory { segments, share } => {
                let length = batch.iter().map(Bytes::len).sum();
                if let Some(share) = share {
                    share.grow(length)?;
                }
                // Copied, because the bytes from a socket are a slice of a larger buffer.
                let mut segment = BytesMut::with_capacity(length);
                batch.iter().for_each(|bytes| segment.extend_from_slice(bytes));
                segments.push(segment.freeze());
            }
            DraftTarget::File { directory, file } => {
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

    /// Removes the bytes beyond this length.
    pub(crate) fn truncate(&mut self, length: u64) -> io::Result<()> {
        if length >= self.length {
            return Ok(());
        }
        match &mut self.target {
            DraftTarget::Memory { segments, share } => {
                if let Some(share) = share {
                    share.shrink((self.length - length) as usize);
                }
                let mut rest = length as usize;
                for segment in segments {
                    segment.truncate(rest);
                    rest -= segment.len();
                }
            }
            DraftTarget::File { file: None, .. } => {}
            DraftTarget::File { file: Some(file), .. } => {
                file.as_file_mut().set_len(length)?;
                file.seek(SeekFrom::Start(length))?;
            }
        }
        self.length = length;
        self.hasher = None;
        Ok(())
    }

    /// Returns the digest of all bytes.
    pub(crate) fn digest(&mut self, algorithm: Algorithm) -> io::Result<Digest> {
        match &self.hasher {
            Some((computed, hasher)) if *computed == algorithm => Ok(hasher.clone().finish()),
            _ => self.hash_again(algorithm),
        }
    }

    fn hash_again(&mut self, algorithm: Algorithm) -> io::Result<Digest> {
        let mut hasher = Hasher::new(algorithm);
        match &mut self.target {
            DraftTarget::Memory { segments, .. } => segments.iter().for_each(|segment| hasher.update(segment)),
            DraftTarget::File { file: None, .. } => {}
            DraftTarget::File { file: Some(file), .. } => {
                let mut buffer = vec![0; READ_BUFFER_BYTES];
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
            DraftTarget::Memory { segments, .. } => Sealed::Memory(segments),
            DraftTarget::File { file: Some(file), .. } => Sealed::File(file),
            DraftTarget::File { directory, file: None } => Sealed::File(new_file(&directory)?),
        })
    }
}

fn new_file(directory: &PathBuf) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix("upload-").tempfile_in(directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MemoryBudget;

    fn drafts() -> [(Draft, Option<tempfile::TempDir>); 2] {
        let directory = tempfile::tempdir().unwrap();
        [
            (Draft::in_memory(Some(MemoryBudget::new(100).share())), None),
            (Draft::in_directory(directory.path().to_owned()), Some(directory)),
        ]
    }

    fn bytes(text: &'static str) -> Vec<Bytes> {
        vec![Bytes::from_static(text.as_bytes())]
    }

    #[test]
    fn bytes_are_hashed_as_they_arrive() {
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
    fn truncated_bytes_are_not_hashed() {
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
    fn dropped_draft_leaves_no_file() {
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
