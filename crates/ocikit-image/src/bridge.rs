//! The bridge between async code and blocking work: reading files, hashing, decompressing.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::{StreamExt, stream};
use ocikit_archive::ReadAt;
use tokio::sync::mpsc;

use crate::body::Body;
use crate::error::{Error, Result};
use crate::source::ByteRange;

/// The size of the chunks that a [`Feed`] sends, in bytes: large enough that passing one between threads costs little
/// compared with hashing it, small enough to stay in the cache of a processor on the way from file to socket.
pub const CHUNK: usize = 256 << 10;

/// The number of chunks in the queue between the two sides.
const QUEUED_CHUNKS: usize = 2;

/// Runs blocking work on a thread of its own.
///
/// # Errors
///
/// Those of the work.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(failure) => match failure.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::failed("finish", "work", io::Error::other("the runtime is shutting down"))),
        },
    }
}

/// Returns a body whose bytes are produced by blocking work, which runs a few chunks ahead of the consumer.
///
/// When the body is dropped, the next [`Feed::send`] of the work returns false.
pub fn produce(length: u64, work: impl FnOnce(&mut Feed) -> Result<()> + Send + 'static) -> Body {
    let (mut feed, body) = channel(length, QUEUED_CHUNKS, &Buffers::default());
    tokio::task::spawn_blocking(move || {
        if let Err(error) = work(&mut feed) {
            // Sending fails only if the body was dropped.
            feed.fail(error);
        }
    });
    body
}

/// Returns a body of `length` bytes and its sender, for a thread that produces several bodies one after another from the
/// same buffers. `queued` is the number of chunks that the thread may be ahead of the consumer.
pub fn channel(length: u64, queued: usize, buffers: &Buffers) -> (Feed, Body) {
    let (sender, receiver) = mpsc::channel(queued);
    let chunks = stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
    (Feed { sender, buffers: buffers.clone() }, Body::new(length, chunks))
}

/// Returns a range of a blob of `size` bytes that starts at `start` in a file. Errors name `place`.
pub fn file_body(file: Arc<File>, start: u64, size: u64, range: ByteRange, place: &impl Display) -> Body {
    let (offset, length) = range.within(size);
    let place = place.to_string();
    produce(length, move |feed| {
        let failed = |error| Error::failed("read", &place, error);
        let (mut position, mut rest) = (start + offset, length);
        while rest > 0 {
            let wanted = feed.fill(|buffer| {
                let most = usize::try_from(rest).unwrap_or(usize::MAX).min(buffer.len());
                let read = read_some(&*file, &mut buffer[..most], position).map_err(failed)?;
                if read == 0 {
                    return Err(failed(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter")));
                }
                position += read as u64;
                rest -= read as u64;
                Ok(read)
            })?;
            if !wanted {
                break;
            }
        }
        Ok(())
    })
}

/// Reads some bytes at an offset; retries if interrupted.
///
/// # Errors
///
/// Those of the file.
pub fn read_some(file: &(impl ReadAt + ?Sized), buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// The side of a [`copy`] that failed.
#[derive(Debug)]
pub enum CopyFailed {
    /// The reader.
    Reading(io::Error),
    /// The function that gets the bytes.
    Writing(io::Error),
}

/// Passes the bytes of a reader to a function, up to the end of the reader.
///
/// # Errors
///
/// Those of the reader and of the function.
pub fn copy(mut reader: impl Read, mut write: impl FnMut(&[u8]) -> io::Result<()>) -> Result<(), CopyFailed> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => write(&buffer[..read]).map_err(CopyFailed::Writing)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(CopyFailed::Reading(error)),
        }
    }
}

/// Passes the chunks of a body to blocking work, on a thread of its own.
///
/// # Errors
///
/// Those of the body, which the work also receives, and those of the work.
pub async fn consume<T: Send + 'static>(
    mut body: Body,
    work: impl FnOnce(&mut Chunks) -> Result<T> + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = mpsc::channel(QUEUED_CHUNKS);
    let worker = blocking(move || work(&mut Chunks { receiver, ended: false }));
    let feed = async move {
        while let Some(chunk) = body.next().await {
            let failed = chunk.is_err();
            if sender.send(Some(chunk)).await.is_err() || failed {
                return;
            }
        }
        // Sending fails only if the work has returned.
        let _ = sender.send(None).await;
    };
    futures::future::join(worker, feed).await.0
}

/// The chunks of a body, in order. If the body is dropped before its end, the last item is an error, so that a part of
/// a body is never taken for the whole.
#[derive(Debug)]
pub struct Chunks {
    receiver: mpsc::Receiver<Option<Result<Bytes>>>,
    ended: bool,
}

impl Iterator for Chunks {
    type Item = Result<Bytes>;

    fn next(&mut self) -> Option<Result<Bytes>> {
        if self.ended {
            return None;
        }
        let message = self.receiver.blocking_recv();
        self.ended = !matches!(message, Some(Some(Ok(_))));
        match message {
            Some(chunk) => chunk,
            None => Some(Err(Error::failed("finish", "a transfer", io::ErrorKind::Interrupted.into()))),
        }
    }
}

/// The sender of the chunks of a body.
#[derive(Debug)]
pub struct Feed {
    sender: mpsc::Sender<Result<Bytes>>,
    buffers: Buffers,
}

impl Feed {
    /// Calls `fill` with a buffer of [`CHUNK`] bytes and sends the number of bytes that it returns. Returns false if
    /// the body was dropped.
    ///
    /// # Errors
    ///
    /// Those of the function.
    pub fn fill(&mut self, fill: impl FnOnce(&mut [u8]) -> Result<usize>) -> Result<bool> {
        let chunk = self.buffers.fill(fill)?;
        Ok(self.send(chunk))
    }

    /// Sends a chunk. Returns false if the body was dropped.
    pub fn send(&mut self, chunk: Bytes) -> bool {
        self.sender.blocking_send(Ok(chunk)).is_ok()
    }

    /// Ends the body with an error. Returns false if the body was dropped.
    pub fn fail(&mut self, error: Error) -> bool {
        self.sender.blocking_send(Err(error)).is_ok()
    }
}

/// A pool of buffers of [`CHUNK`] bytes, which return when the chunk that uses one is dropped, so that a blob of any size
/// needs only a few.
#[derive(Debug, Clone, Default)]
pub struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    /// Calls `fill` with a buffer and returns the number of bytes at its beginning that the function returns.
    ///
    /// # Errors
    ///
    /// Those of the function.
    pub fn fill<E>(&self, fill: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<Bytes, E> {
        let mut chunk = self.take();
        chunk.length = fill(&mut chunk.buffer)?;
        Ok(Bytes::from_owner(chunk))
    }

    fn take(&self) -> Chunk {
        let free = self.0.lock().ok().and_then(|mut free| free.pop());
        Chunk { buffer: free.unwrap_or_else(|| vec![0; CHUNK]), length: 0, buffers: self.clone() }
    }
}

struct Chunk {
    buffer: Vec<u8>,
    length: usize,
    buffers: Buffers,
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if let Ok(mut free) = self.buffers.0.lock() {
            free.push(std::mem::take(&mut self.buffer));
        }
    }
}

impl Chunks {
    /// Passes a reader of the chunks to work, then reads the body to its end.
    ///
    /// # Errors
    ///
    /// That of a chunk: damaged bytes are the likely cause of what the work returns then.
    pub fn with_reader<T>(&mut self, work: impl FnOnce(ChunkReader<'_>) -> T) -> Result<T> {
        let mut failed = None;
        let outcome = work(ChunkReader { chunks: self, chunk: Bytes::new(), failed: &mut failed });
        match failed {
            Some(error) => Err(error),
            None => self.try_for_each(|chunk| chunk.map(drop)).map(|()| outcome),
        }
    }
}

/// A reader of chunks. The error of a chunk is stored, because the IO error of a reader cannot carry it.
#[derive(Debug)]
pub struct ChunkReader<'a> {
    chunks: &'a mut Chunks,
    chunk: Bytes,
    failed: &'a mut Option<Error>,
}

impl Read for ChunkReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.chunks.next() {
                None => return Ok(0),
                Some(Ok(chunk)) => self.chunk = chunk,
                Some(Err(error)) => {
                    let text = error.to_string();
                    *self.failed = Some(error);
                    return Err(io::Error::other(text));
                }
            }
        }
        let length = self.chunk.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.chunk.split_to(length));
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    #[tokio::test]
    async fn bodies_of_any_length_need_few_buffers() {
        let (told, buffers) = std::sync::mpsc::channel();
        let mut body = produce(0, move |feed| {
            for _ in 0..100 {
                assert!(feed.fill(|buffer| Ok(buffer.len()))?);
            }
            told.send(feed.buffers.clone()).unwrap();
            Ok(())
        });
        let mut length = 0;
        while let Some(chunk) = body.next().await {
            length += chunk.unwrap().len();
        }
        assert_eq!(length, 100 * CHUNK);
        assert!(buffers.recv().unwrap().0.lock().unwrap().len() <= QUEUED_CHUNKS + 2);
    }

    #[tokio::test]
    async fn work_ends_when_the_body_is_dropped() {
        let (told, ended) = std::sync::mpsc::channel();
        let mut body = produce(0, move |feed| {
            while feed.fill(|_| Ok(1))? {}
            told.send(()).unwrap();
            Ok(())
        });
        assert!(body.next().await.is_some());
        drop(body);
        tokio::task::spawn_blocking(move || ended.recv().unwrap()).await.unwrap();
    }

    #[tokio::test]
    async fn incomplete_body_is_an_error() {
        let count = |chunks: &mut Chunks| chunks.try_fold(0, |sum, chunk| Ok(sum + chunk?.len()));
        let body = Body::new(6, stream::iter([Ok(Bytes::from_static(b"abc")), Ok(Bytes::from_static(b"def"))]));
        assert_eq!(consume(body, count).await.unwrap(), 6);
        let body = Body::new(6, stream::iter([Ok(Bytes::from_static(b"abc")), Err(Error::not_found("x", "here"))]));
        assert!(consume(body, count).await.unwrap_err().is_not_found());

        let (told, outcome) = std::sync::mpsc::channel();
        let endless = Body::new(6, stream::pending());
        let dropped = consume(endless, move |chunks| {
            told.send(chunks.next().is_some_and(|chunk| chunk.is_err())).unwrap();
            Ok(())
        });
        assert!(futures::poll!(Box::pin(dropped)).is_pending());
        assert!(tokio::task::spawn_blocking(move || outcome.recv().unwrap()).await.unwrap());
    }

    #[tokio::test]
    async fn errors_cross_the_bridge() {
        let mut body = produce(1, |_| Err(Error::not_found("x", "here")));
        assert!(body.next().await.unwrap().unwrap_err().is_not_found());
        assert!(blocking(|| Err::<(), _>(Error::not_found("x", "here"))).await.is_err());
    }
}
