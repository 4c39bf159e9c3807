use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use ocikit_spec::{Descriptor, Digest, Hasher, Repository};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::pace::Pace;
use crate::body::Body;
use crate::error::{Error, Mismatch, Result};
use crate::source::{ByteRange, Name, Source};

/// How many bytes of a blob are kept for those who are behind, in whole chunks.
const WINDOW: u64 = 1 << 20;

/// A blob on its way to several lanes. It is read once, as fast as the slowest of them takes it.
#[derive(Debug)]
pub(super) struct Channel {
    blob: Descriptor,
    pace: Arc<Pace>,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    lanes: Vec<Place>,
    /// Chunks, each with the hash of all that comes before it.
    window: VecDeque<(Bytes, Hashed)>,
    /// Where the first of them begins, and the last ends.
    base: u64,
    head: u64,
    /// The hash of all that was read.
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

/// Where a lane is.
#[derive(Debug, Clone)]
enum Place {
    /// It will take the byte at this offset next.
    At(u64),
    /// It reads for itself: from here, if it was put out in the middle.
    Alone(Option<(u64, Hashed)>),
}

/// What a lane gets.
enum Next {
    Chunk(Bytes),
    End,
    /// Nothing any more: it goes on by itself, with the hash of all before an offset.
    Alone(u64, Hashed),
}

impl State {
    /// Puts out the lanes that nobody waits for any more, and lets go what all have taken.
    fn settle(&mut self, pace: &Pace) {
        for lane in 0..self.lanes.len() {
            if let Place::At(position) = self.lanes[lane]
                && pace.has_left(lane)
            {
                self.lanes[lane] = Place::Alone(Some(self.before(position)));
            }
        }
        let positions = self.lanes.iter().filter_map(|place| match place {
            Place::At(position) => Some(*position),
            Place::Alone(_) => None,
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

    /// The beginning of the chunk that holds this byte, and the hash of what is before.
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

    /// The lanes for which the next chunk has no room, while others wait for it.
    fn slow(&self) -> Vec<usize> {
        let at = |wanted: u64| move |place: &Place| matches!(place, Place::At(position) if *position == wanted);
        if !self.lanes.iter().any(at(self.head)) {
            return Vec::new();
        }
        let first = self.window.front().map_or(self.head, |(chunk, _)| self.base + chunk.len() as u64);
        let behind = |place: &Place| matches!(place, Place::At(position) if *position < first);
        self.lanes.iter().enumerate().filter(|(_, place)| behind(place)).map(|(lane, _)| lane).collect()
    }

    fn is_deserted(&self) -> bool {
        self.lanes.iter().all(|place| matches!(place, Place::Alone(_)))
    }
}

impl Channel {
    pub(super) fn new(blob: &Descriptor, lanes: usize, pace: &Arc<Pace>) -> Arc<Channel> {
        let hashed = Hashed::nothing(blob);
        let state = State {
            lanes: vec![Place::At(0); lanes],
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

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lane has the blob, or will not have it.
    pub(super) fn leave(&self, lane: usize) {
        self.lock().lanes[lane] = Place::Alone(None);
        self.changed.notify_waiters();
    }

    /// Whether a lane can read this part here; then it is the next that it gets. The first who asks begins the reading,
    /// unless nobody else will want the blob and the lane can read it by itself.
    fn join(&self, lane: usize, offset: u64, can_leave: bool) -> Joined {
        let mut state = self.lock();
        state.settle(&self.pace);
        let here = matches!(state.lanes[lane], Place::At(_)) && (state.base..=state.head).contains(&offset);
        if !here {
            state.lanes[lane] = Place::Alone(None);
            self.changed.notify_waiters();
            return Joined::No;
        }
        let others = state.lanes.iter().filter(|place| matches!(place, Place::At(_))).count() - 1;
        if can_leave && !state.begun && others == 0 {
            state.lanes[lane] = Place::Alone(None);
            return Joined::No;
        }
        state.lanes[lane] = Place::At(offset);
        self.changed.notify_waiters();
        if std::mem::replace(&mut state.begun, true) { Joined::Yes } else { Joined::First }
    }

    /// Reads the blob to its end, once somebody wants it, and as long as anybody does.
    pub(super) async fn fill(&self, from: &dyn Source) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.lock().begun {
                break;
            }
            changed.await;
        }
        // Nobody waits for ever for what will not come, whatever happens here.
        let ending = Ending(self);
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
            let Some(chunk) = next_full(&mut body).await? else {
                return wrong(Mismatch::Size { expected: size, actual: position });
            };
            let before = hashed.clone();
            hashed.0.update(&chunk);
            position += chunk.len() as u64;
            // The last chunk is held back until everything is right.
            if position >= size {
                if let Some(more) = next_full(&mut body).await? {
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

    /// Waits until a chunk may be added; `false` if nobody wants it.
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
                if state.head - state.base < WINDOW {
                    return true;
                }
                state.slow()
            };
            self.pace.wait(changed, &slow).await;
        }
    }

    async fn next(&self, lane: usize, position: u64) -> Result<Next> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            {
                let mut state = self.lock();
                state.settle(&self.pace);
                if let Place::Alone(at) = &state.lanes[lane] {
                    let (at, hashed) = at.clone().unwrap_or_else(|| (0, Hashed::nothing(&self.blob)));
                    return Ok(Next::Alone(at, hashed));
                }
                if let Some(chunk) = state.chunk_at(position) {
                    state.lanes[lane] = Place::At(position + chunk.len() as u64);
                    state.settle(&self.pace);
                    drop(state);
                    self.changed.notify_waiters();
                    return Ok(Next::Chunk(chunk));
                }
                match &state.end {
                    Some(Ok(())) => return Ok(Next::End),
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

async fn next_full(body: &mut Body) -> Result<Option<Bytes>> {
    while let Some(chunk) = body.next().await.transpose()? {
        if !chunk.is_empty() {
            return Ok(Some(chunk));
        }
    }
    Ok(None)
}

enum Joined {
    First,
    Yes,
    No,
}

/// The end of the reading, which everybody has to hear of.
struct Ending<'a>(&'a Channel);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let stopped = || Arc::new(Error::broken(self.0.blob.digest, "it was not read to its end"));
        self.0.lock().end.get_or_insert_with(|| Err(stopped()));
        self.0.changed.notify_waiters();
    }
}

/// What one lane reads a blob from: together with the others where it can, and otherwise by itself.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) channel: Arc<Channel>,
    pub(super) lane: usize,
    /// What it is read from by itself, and what everything else is asked of.
    pub(super) source: Arc<dyn Source>,
    /// Who reads for all, once somebody asks. `None` where somebody does already.
    pub(super) filling: Option<Arc<Filling>>,
}

/// The task that reads a blob for all; it ends when nobody can want the blob any more.
#[derive(Debug, Default)]
pub(super) struct Filling(Mutex<Option<AbortHandle>>);

impl Filling {
    fn begin(&self, channel: &Arc<Channel>, source: &Arc<dyn Source>) {
        let (channel, source) = (channel.clone(), source.clone());
        let task = tokio::spawn(async move { channel.fill(&*source).await });
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.abort_handle());
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        if let Some(task) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.source, f)
    }
}

/// How far a lane has read.
enum Reading {
    Together(Arc<Channel>, Arc<dyn Source>, u64),
    Alone(Body),
}

#[async_trait]
impl Source for Shared {
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
        match (self.channel.join(self.lane, offset, self.filling.is_some()), &self.filling) {
            (Joined::No, _) => return self.source.open_unverified(descriptor, range).await,
            (Joined::First, Some(filling)) => filling.begin(&self.channel, &self.source),
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
        // Of a part nobody knows whether all before it was seen.
        Ok(if length == blob.size { body.known_to_be(&blob.digest) } else { body })
    }

    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        self.source.has(descriptor).await
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.source.referrers(subject).await
    }

    fn repository(&self, descriptor: &Descriptor) -> Option<&Repository> {
        self.source.repository(descriptor)
    }
}

/// The next chunk, of this many bytes at most.
async fn read(reading: Reading, lane: usize, left: u64) -> Result<Option<(Bytes, Reading)>> {
    let (chunk, reading) = match reading {
        // Where all were taken the end is waited for nevertheless: an empty blob may be none.
        Reading::Together(_, _, position) if left == 0 && position > 0 => return Ok(None),
        Reading::Alone(_) if left == 0 => return Ok(None),
        Reading::Alone(mut body) => match next_full(&mut body).await? {
            None => return Ok(None),
            Some(chunk) => (chunk, Reading::Alone(body)),
        },
        Reading::Together(channel, source, position) => match channel.next(lane, position).await? {
            Next::End => return Ok(None),
            Next::Chunk(mut chunk) => {
                let whole = chunk.len() as u64;
                chunk.truncate(left.min(whole) as usize);
                if (chunk.len() as u64) < whole {
                    // What was not asked for is still to be had.
                    channel.join(lane, position + chunk.len() as u64, false);
                }
                let after = position + chunk.len() as u64;
                (chunk, Reading::Together(channel, source, after))
            }
            Next::Alone(at, hashed) => {
                let rest = source.open_unverified(&channel.blob, ByteRange::from(at)).await?;
                let mut body = rest.verified_after(&channel.blob, &*source, *hashed.0, at);
                let mut skipped = at;
                let chunk = loop {
                    let Some(chunk) = next_full(&mut body).await? else { return Ok(None) };
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
