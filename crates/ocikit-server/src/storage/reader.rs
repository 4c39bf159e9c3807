use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};

/// Number of bytes that are read from a file at once: large enough that switching threads costs little in comparison.
const READ_CHUNK_BYTES: u64 = 512 << 10;

/// The bytes of a blob. They stay readable after the blob is deleted.
#[derive(Debug, Clone)]
pub(crate) enum Reader {
    Memory(Arc<[Bytes]>),
    File(Arc<File>),
}

impl Reader {
    /// Returns a range of the bytes as a stream. No thread waits for a slow client.
    pub(crate) fn stream(&self, range: Range<u64>) -> BoxStream<'static, io::Result<Bytes>> {
        match self {
            Reader::Memory(segments) => stream::iter(cut(segments, range)).map(Ok).boxed(),
            Reader::File(file) => {
                let file = file.clone();
                let chunks = range.clone().step_by(READ_CHUNK_BYTES as usize);
                let read = move |start: u64| {
                    let file = file.clone();
                    let length = READ_CHUNK_BYTES.min(range.end - start);
                    super::blocking::blocking(move || read(&file, start, length))
                };
                // The next chunk is read while the current one is sent.
                stream::iter(chunks).map(read).buffered(2).boxed()
            }
        }
    }
}

fn read(file: &File, start: u64, length: u64) -> io::Result<Bytes> {
    let mut buffer = vec![0; length as usize];
    let mut filled = 0;
    while filled < buffer.len() {
        match read_at(file, &mut buffer[filled..], start + filled as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(buffer.into())
}

#[cfg(unix)]
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, offset)
}

/// Returns the parts of the segments within the range.
fn cut(segments: &[Bytes], range: Range<u64>) -> Vec<Bytes> {
    let mut start = 0;
    let mut parts = Vec::new();
    for segment in segments {
        let end = start + segment.len() as u64;
        let (from, to) = (range.start.max(start), range.end.min(end));
        if from < to {
            parts.push(segment.slice((from - start) as usize..(to - start) as usize));
        }
        start = end;
    }
    parts
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use futures::TryStreamExt;

    use super::*;

    async fn collect(reader: &Reader, range: Range<u64>) -> Vec<u8> {
        let chunks: Vec<Bytes> = reader.stream(range).try_collect().await.unwrap();
        chunks.concat()
    }

    #[tokio::test]
    async fn any_range_is_read_from_memory_and_from_a_file() {
        let content: Vec<u8> = (0..3 * READ_CHUNK_BYTES + 7).map(|at| (at % 251) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        let segments: Vec<_> = content.chunks(300_000).map(Bytes::copy_from_slice).collect();
        for reader in [Reader::Memory(segments.into()), Reader::File(Arc::new(file))] {
            for range in [
                0..0,
                0..1,
                5..READ_CHUNK_BYTES,
                READ_CHUNK_BYTES..READ_CHUNK_BYTES + 1,
                0..content.len() as u64,
                299_999..300_001,
            ] {
                let expected = &content[range.start as usize..range.end as usize];
                assert!(collect(&reader, range.clone()).await == expected, "{range:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_file_that_is_too_short_is_an_error() {
        let reader = Reader::File(Arc::new(tempfile::tempfile().unwrap()));
        let result: Result<Vec<Bytes>, _> = reader.stream(0..1).try_collect().await;
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
