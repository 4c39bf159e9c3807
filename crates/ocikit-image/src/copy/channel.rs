use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream;
use ocikit_spec::{Descriptor, Digest, Hasher, Repository};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::pace::Pace;
use crate::body::Body;
use crate::error::{Error, Mismatch, Result};
use crate::source::{ByteRange, Name, Source};

/// The number of bytes of a blob that are kept for slower lanes. Chunks are kept whole.
const WINDOW_BYTES: u64 = 1 << 20;

/// A blob that is read once for several lanes, at the speed of the slowest.
#[derive(Debug)]
pub(super) struct Channel {
    blob: Descriptor,
    pace: Arc<Pace>,
    state: Mutex<ChannelState>,
    changed: Notify,
}

#[derive(Debug)]
struct ChannelState {
    lanes: Vec<LaneState>,
    /// Chunks, each with the hash state of all bytes before it.
    window: VecDeque<(Bytes, Hashed)>,
    /// The offset of the first chunk, and the end of the last.
    base: u64,
    head: u64,
    /// The hash state of all bytes that were read.
    hashed: Hashed,
    begun: bool,
    end: Option<Result<(), Arc<Error>>>,
}

#[derive(Clone)]
struct Hashed(Box<Hasher>);

impl Hashed {
    fn nothing(blob: &Descriptor) -> Hashed {
        Hashed(Box::new(Hasher::new(blob.digest.algorithm())))
    }
}

impl fmt::Debug for Hashed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hashed")
    }
}

/// The state of a lane.
#[derive(Debug, Clone)]
enum LaneState {
    /// It takes the byte at this offset next.
    At(u64),
    /// It reads by itself: from this offset, if it was detached in the middle.
    Alone(Option<(u64, Hashed)>),
}

/// What a lane receives.
enum NextChunk {
    Chunk(Bytes),
    End,
    /// The lane was detached and continues by itself, with the hash state of all bytes before this offset.
    Alone(u64, Hashed),
}

impl ChannelState {
    /// Detaches the lanes that have exceeded their delay, and drops the chunks that all others have taken.
    fn settle(&mut self, pace: &Pace) {
        for lane in 0..self.lanes.len() {
            if let LaneState::At(position) = self.lanes[lane]
                && pace.has_left(lane)
            {
                self.lanes[lane] = LaneState::Alone(Some(self.before(position)));
            }
        }
        let positions = self.lanes.iter().filter_map(|place| match place {
            LaneState::At(position) => Some(*position),
            LaneState::Alone(_) => None,
        });
        let slowest = positions.min().unwrap_or(self.head);
        while let Some((chunk, _)) = self.window.front() {
            let end = self.base + chunk.len() as u64;
            if end > slowest {
                break;
            }
            self.base = end;
            self.window.pop_front();
        }
    }

    /// Returns the start of the chunk with this offset, and the hash state of the bytes before it.
    fn before(&self, position: u64) -> (u64, Hashed) {
        let mut begin = self.base;
        for (chunk, hashed) in &self.window {
            let end = begin + chunk.len() as u64;
            if position < end {
                return (begin, hashed.clone());
            }
            begin = end;
        }
        (self.head, self.hashed.clone())
    }

    fn chunk_at(&self, position: u64) -> Option<Bytes> {
        let mut begin = self.base;
        for (chunk, _) in &self.window {
            let end = begin + chunk.len() as u64;
            if (begin..end).contains(&position) {
                return Some(chunk.slice((position - begin) as usize..));
            }
            begin = end;
        }
        None
    }

    /// Returns the lanes that block the next chunk, if another lane waits for it.
    fn slow(&self) -> Vec<usize> {
        let at = |wanted: u64| move |place: &LaneState| matches!(place, LaneState::At(position) if *position == wanted);
        if !self.lanes.iter().any(at(self.head)) {
            return Vec::new();
        }
        let first = self.window.front().map_or(self.head, |(chunk, _)| self.base + chunk.len() as u64);
        let behind = |place: &LaneState| matches!(place, LaneState::At(position) if *position < first);
        self.lanes.iter().enumerate().filter(|(_, place)| behind(place)).map(|(lane, _)| lane).collect()
    }

    fn is_deserted(&self) -> bool {
        self.lanes.iter().all(|place| matches!(place, LaneState::Alone(_)))
    }
}

impl Channel {
    pub(super) fn new(blob: &Descriptor, lanes: usize, pace: &Arc<Pace>) -> Arc<Channel> {
        let hashed = Hashed::nothing(blob);
        let state = ChannelState {
            lanes: vec![LaneState::At(0); lanes],
            window: VecDeque::new(),
            base: 0,
            head: 0,
            hashed,
            begun: false,
            end: None,
        };
        let (blob, pace) = (blob.clone(), pace.clone());
        Arc::new(Channel { blob, pace, state: Mutex::new(state), changed: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, ChannelState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Detaches a lane that has the blob or does not need it any more.
    pub(super) fn leave(&self, lane: usize) {
        self.lock().lanes[lane] = LaneState::Alone(None);
        self.changed.notify_waiters();
    }

    /// Attaches a lane at an offset, if the window still has it; that byte is then the next that it receives. The first
    /// lane starts the reader, unless it is the only one left and can read by itself.
    fn join(&self, lane: usize, offset: u64, can_leave: bool) -> Joined {
        let mut state = self.lock();
        state.settle(&self.pace);
        let here = matches!(state.lanes[lane], LaneState::At(_)) && (state.base..=state.head).contains(&offset);
        if !here {
            state.lanes[lane] = LaneState::Alone(None);
            self.changed.notify_waiters();
            return Joined::No;
        }
        let others = state.lanes.iter().filter(|place| matches!(place, LaneState::At(_))).count() - 1;
        if can_leave && !state.begun && others == 0 {
            state.lanes[lane] = LaneState::Alone(None);
            return Joined::No;
        }
        state.lanes[lane] = LaneState::At(offset);
        self.changed.notify_waiters();
        if std::mem::replace(&mut state.begun, true) { Joined::Yes } else { Joined::First }
    }

    /// Waits for the first lane and reads the blob to its end, or until no lane is attached.
    pub(super) async fn fill(&self, from: &dyn Source) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.lock().begun {
                break;
            }
            changed.await;
        }
        // Sets the outcome even if the task panics or is aborted, so that no lane waits forever.
        let ending = EndGuard(self);
        let outcome = self.read(from).await;
        self.lock().end = Some(outcome.map_err(Arc::new));
        drop(ending);
    }

    async fn read(&self, from: &dyn Source) -> Result<()> {
        let (size, digest) = (self.blob.size, &self.blob.digest);
        let wrong = |mismatch| Err(Error::mismatch(digest, from, mismatch));
        let mut body = from.open_unverified(&self.blob, ByteRange::ALL).await?;
        if body.length() != size {
            return wrong(Mismatch::Size { expected: size, actual: body.length() });
        }
        let mut hashed = self.lock().hashed.clone();
        let mut position = 0;
        while position < size {
            let Some(chunk) = body.next_chunk().await? else {
                return wrong(Mismatch::Size { expected: size, actual: position });
            };
            let before = hashed.clone();
            hashed.0.update(&chunk);
            position += chunk.len() as u64;
            // The last chunk is passed on only after size and digest were checked.
            if position >= size {
                if let Some(more) = body.next_chunk().await? {
                    position += more.len() as u64;
                }
                if position > size {
                    return wrong(Mismatch::Size { expected: size, actual: position });
                }
                check(&hashed, digest).or_else(wrong)?;
            }
            if !self.make_room().await {
                return Ok(());
            }
            let mut state = self.lock();
            state.head += chunk.len() as u64;
            state.window.push_back((chunk, before));
            state.hashed = hashed.clone();
            drop(state);
            self.changed.notify_waiters();
        }
        if size == 0 { check(&hashed, digest).or_else(wrong) } else { Ok(()) }
    }

    /// Waits until there is room for a chunk. Returns false if no lane is attached.
    async fn make_room(&self) -> bool {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let slow = {
                let mut state = self.lock();
                state.settle(&self.pace);
                if state.is_deserted() {
                    return false;
                }
                if state.head - state.base < WINDOW_BYTES {
                    return true;
                }
                state.slow()
            };
            self.pace.wait(changed, &slow).await;
        }
    }

    async fn next(&self, lane: usize, position: u64) -> Result<NextChunk> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            {
                let mut state = self.lock();
                state.settle(&self.pace);
                if let LaneState::Alone(at) = &state.lanes[lane] {
                    let (at, hashed) = at.clone().unwrap_or_else(|| (0, Hashed::nothing(&self.blob)));
                    return Ok(NextChunk::Alone(at, hashed));
                }
                if let Some(chunk) = state.chunk_at(position) {
                    state.lanes[lane] = LaneState::At(position + chunk.len() as u64);
                    state.settle(&self.pace);
                    drop(state);
                    self.changed.notify_waiters();
                    return Ok(NextChunk::Chunk(chunk));
                }
                match &state.end {
                    Some(Ok(())) => return Ok(NextChunk::End),
                    Some(Err(error)) => return Err(Error::again(error)),
                    None => {}
                }
            }
            changed.await;
        }
    }
}

fn check(hashed: &Hashed, digest: &Digest) -> Result<(), Mismatch> {
    let actual = Hasher::clone(&hashed.0).finish();
    if actual == *digest { Ok(()) } else { Err(Mismatch::Digest(actual)) }
}

enum Joined {
    First,
    Yes,
    No,
}

/// Sets the outcome of the reader when it is dropped.
struct EndGuard<'a>(&'a Channel);

impl Drop for EndGuard<'_> {
    fn drop(&mut self) {
        let stopped = || Arc::new(Error::broken(self.0.blob.digest, "it was not read to its end"));
        self.0.lock().end.get_or_insert_with(|| Err(stopped()));
        self.0.changed.notify_waiters();
    }
}

/// The source of a blob for one lane: the shared channel as far as possible, otherwise its own source.
#[derive(Debug)]
pub(super) struct LaneSource {
    pub(super) channel: Arc<Channel>,
    pub(super) lane: usize,
    /// The source for reads without the channel and for all other operations.
    pub(super) source: Arc<dyn Source>,
    /// Starts the shared reader on the first read. `None` if it already runs.
    pub(super) reader: Option<Arc<BlobReader>>,
}

/// The task that reads a blob for all lanes; it is aborted when the blob is no longer needed.
#[derive(Debug, Default)]
pub(super) struct BlobReader(Mutex<Option<AbortHandle>>);

impl BlobReader {
    fn begin(&self, channel: &Arc<Channel>, source: &Arc<dyn Source>) {
        let (channel, source) = (channel.clone(), source.clone());
        let task = tokio::spawn(async move { channel.fill(&*source).await });
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.abort_handle());
    }
}

impl Drop for BlobReader {
    fn drop(&mut self) {
        if let Some(task) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

impl fmt::Display for LaneSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.source, f)
    }
}

/// How a lane reads.
enum Reading {
    Together(Arc<Channel>, Arc<dyn Source>, u64),
    Alone(Body),
}

#[async_trait]
impl Source for LaneSource {
    async fn resolve(&self, name: &Name) -> Result<Descriptor> {
        self.source.resolve(name).await
    }

    async fn open_unverified(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        let blob = &self.channel.blob;
        if descriptor.digest != blob.digest || descriptor.size != blob.size {
            return self.source.open_unverified(descriptor, range).await;
        }
        let (offset, length) = range.within(blob.size);
        if length == 0 && blob.size > 0 {
            return self.source.open_unverified(descriptor, range).await;
        }
        match (self.channel.join(self.lane, offset, self.reader.is_some()), &self.reader) {
            (Joined::No, _) => return self.source.open_unverified(descriptor, range).await,
            (Joined::First, Some(reader)) => reader.begin(&self.channel, &self.source),
            (Joined::First, None) | (Joined::Yes, _) => {}
        }
        let reading = Reading::Together(self.channel.clone(), self.source.clone(), offset);
        let lane = self.lane;
        let chunks = stream::unfold(Some((reading, length)), move |state| async move {
            let (reading, left) = state?;
            match read(reading, lane, left).await {
                Ok(None) => None,
                Ok(Some((chunk, reading))) => {
                    let left = left - chunk.len() as u64;
                    Some((Ok(chunk), Some((reading, left))))
                }
                Err(error) => Some((Err(error), None)),
            }
        });
        let body = Body::new(length, chunks);
        // For a range, the channel cannot promise that the consumer has received all bytes before it.
        Ok(if length == blob.size { body.known_to_be(&blob.digest) } else { body })
    }

    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        self.source.has(descriptor).await
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.source.referrers(subject).await
    }

    fn held(&self, digest: &Digest) -> Option<Bytes> {
        self.source.held(digest)
    }

    fn is_new(&self, digest: &Digest) -> bool {
        self.source.is_new(digest)
    }

    fn repository(&self, descriptor: &Descriptor) -> Option<&Repository> {
        self.source.repository(descriptor)
    }
}

/// Returns the next chunk, of at most `left` bytes.
async fn read(reading: Reading, lane: usize, left: u64) -> Result<Option<(Bytes, Reading)>> {
    let (chunk, reading) = match reading {
        // After the last byte there is no need to wait for the outcome, except for an empty blob, whose digest may be
        // wrong.
        Reading::Together(_, _, position) if left == 0 && position > 0 => return Ok(None),
        Reading::Alone(_) if left == 0 => return Ok(None),
        Reading::Alone(mut body) => match body.next_chunk().await? {
            None => return Ok(None),
            Some(chunk) => (chunk, Reading::Alone(body)),
        },
        Reading::Together(channel, source, position) => match channel.next(lane, position).await? {
            NextChunk::End => return Ok(None),
            NextChunk::Chunk(mut chunk) => {
                let whole = chunk.len() as u64;
                chunk.truncate(left.min(whole) as usize);
                if (chunk.len() as u64) < whole {
                    // Returns the bytes beyond the range to the channel.
                    channel.join(lane, position + chunk.len() as u64, false);
                }
                let after = position + chunk.len() as u64;
                (chunk, Reading::Together(channel, source, after))
            }
            NextChunk::Alone(at, hashed) => {
                let rest = source.open_unverified(&channel.blob, ByteRange::from(at)).await?;
                let mut body = rest.verified_after(&channel.blob, &*source, *hashed.0, at);
                let mut skipped = at;
                let chunk = loop {
                    let Some(chunk) = body.next_chunk().await? else { return Ok(None) };
                    let end = skipped + chunk.len() as u64;
                    if end > position {
                        break chunk.slice((position - skipped) as usize..);
                    }
                    skipped = end;
                };
                (chunk, Reading::Alone(body))
            }
        },
    };
    let mut chunk = chunk;
    chunk.truncate(chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
    Ok(Some((chunk, reading)))
}
