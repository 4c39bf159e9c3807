//! Reads ahead in a thread, so that decompression runs in parallel with parsing and writing.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::Scope;

/// The size of a chunk in bytes.
const CHUNK_BYTES: usize = 256 << 10;

/// The number of chunks in the queue.
const QUEUED_CHUNKS: usize = 4;

/// A reader whose bytes another thread reads ahead.
pub(super) struct Ahead {
    chunks: Receiver<io::Result<Chunk>>,
    free: Sender<Vec<u8>>,
    chunk: Chunk,
    position: usize,
}

#[derive(Default)]
struct Chunk {
    buffer: Vec<u8>,
    length: usize,
}

impl Ahead {
    /// Starts the thread, which ends when the input ends or the reader is dropped.
    pub(super) fn of<'scope, R: Read + Send>(scope: &'scope Scope<'scope, '_>, input: &'scope mut R) -> Ahead {
        let (sender, chunks) = sync_channel(QUEUED_CHUNKS);
        let (free, buffers) = channel();
        scope.spawn(move || fill(input, &sender, &buffers));
        Ahead { chunks, free, chunk: Chunk::default(), position: 0 }
    }
}

fn fill(input: &mut impl Read, sender: &SyncSender<io::Result<Chunk>>, buffers: &Receiver<Vec<u8>>) {
    loop {
        let mut buffer = buffers.try_recv().unwrap_or_default();
        buffer.resize(CHUNK_BYTES, 0);
        let mut length = 0;
        while length < buffer.len() {
            match input.read(&mut buffer[length..]) {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // What was read before the failure is still passed on. Sending fails only if the reader was dropped.
                    let _ = sender.send(Ok(Chunk { buffer, length }));
                    let _ = sender.send(Err(error));
                    return;
                }
            }
        }
        let ended = length < buffer.len();
        if sender.send(Ok(Chunk { buffer, length })).is_err() || ended {
            return;
        }
    }
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.position == self.chunk.length {
            // The channel is closed after the last chunk.
            let Ok(chunk) = self.chunks.recv() else { return Ok(0) };
            let used = std::mem::replace(&mut self.chunk, chunk?);
            self.position = 0;
            let _ = self.free.send(used.buffer);
        }
        let length = (self.chunk.length - self.position).min(buffer.len());
        buffer[..length].copy_from_slice(&self.chunk.buffer[self.position..][..length]);
        self.position += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Failing(usize);

    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(1).ok_or_else(|| io::Error::other("broken"))?;
            let length = buffer.len().min(1000);
            buffer[..length].fill(7);
            Ok(length)
        }
    }

    #[test]
    fn passes_on_bytes_and_failures() {
        let bytes: Vec<u8> = (0..3 * CHUNK_BYTES + 5).map(|at| (at % 251) as u8).collect();
        let mut input = &bytes[..];
        std::thread::scope(|scope| {
            let mut found = Vec::new();
            Ahead::of(scope, &mut input).read_to_end(&mut found).unwrap();
            assert_eq!(found, bytes);
        });
        let mut input = Failing(3);
        std::thread::scope(|scope| {
            let mut found = Vec::new();
            let error = Ahead::of(scope, &mut input).read_to_end(&mut found).unwrap_err();
            assert_eq!((error.to_string(), found.len()), ("broken".to_owned(), 3000));
        });
        let mut input = Failing(1_000_000);
        std::thread::scope(|scope| drop(Ahead::of(scope, &mut input)));
    }
}
