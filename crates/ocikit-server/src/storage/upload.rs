//! Uploads under way.
//!
//! An upload outlives the requests that carry it, and so their connections: the bytes that came are kept. Requests for
//! one upload come one after the other; a later one ends the one before it, whose connection is broken more often than
//! not, and then goes on where that one really stopped.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::sync::{OwnedMutexGuard, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::draft::Draft;
use crate::chunk::{Progress, advance};
use crate::name::RepositoryName;
use crate::random;

/// How many bytes are collected before they are hashed and written on another thread, while the next ones come.
const BATCH: usize = 1 << 20;

/// How long to wait for more before the bytes that came are written, so that uploads that stall hold no memory.
const STALL: Duration = Duration::from_secs(1);

/// The uploads under way, by the name that the server gave them.
#[derive(Debug, Default)]
pub(crate) struct Uploads(Mutex<HashMap<String, Arc<Upload>>>);

impl Uploads {
    /// Begins an upload, unless so many are under way.
    pub(crate) fn begin(
        &self,
        name: RepositoryName,
        draft: Draft,
        now: SystemTime,
        max_uploads: usize,
    ) -> io::Result<Option<Arc<Upload>>> {
        let upload = Arc::new(Upload {
            id: random::uuid()?,
            name,
            pen: Arc::new(tokio::sync::Mutex::new(Pen { draft: Some(draft), progress: Progress::default() })),
            turns: watch::Sender::new(()),
            touched: Mutex::new(now),
            secret: OnceLock::new(),
        });
        let mut uploads = self.lock();
        if uploads.len() >= max_uploads {
            return Ok(None);
        }
        uploads.insert(upload.id.clone(), upload.clone());
        Ok(Some(upload))
    }

    /// The upload of that name to that repository.
    pub(crate) fn find(&self, name: &RepositoryName, id: &str) -> Option<Arc<Upload>> {
        self.lock().get(id).filter(|upload| upload.name == *name).cloned()
    }

    /// Forgets an upload and what came of it, and says whether it was there.
    pub(crate) fn forget(&self, id: &str) -> bool {
        let forgotten = self.lock().remove(id);
        if let Some(upload) = &forgotten {
            upload.turns.send_replace(());
        }
        forgotten.is_some()
    }

    /// Forgets the uploads that nobody went on with for this long.
    pub(crate) fn forget_idle(&self, idle: Duration, now: SystemTime) {
        let is_idle = |upload: &Arc<Upload>| {
            let touched = *upload.touched.lock().unwrap_or_else(PoisonError::into_inner);
            now.duration_since(touched).is_ok_and(|since| since >= idle) && upload.pen.try_lock().is_ok()
        };
        self.lock().retain(|_, upload| !is_idle(upload));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Upload>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An upload under way.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) id: String,
    pub(crate) name: RepositoryName,
    pen: Arc<tokio::sync::Mutex<Pen>>,
    /// Tells whoever has the pen that somebody else wants it.
    turns: watch::Sender<()>,
    touched: Mutex<SystemTime>,
    /// What every further URL has to carry, if the first one did.
    pub(crate) secret: OnceLock<String>,
}

/// Only who has it writes.
#[derive(Debug)]
struct Pen {
    /// `None` once the upload is finished, or something failed that cannot be made good.
    draft: Option<Draft>,
    progress: Progress,
}

impl Upload {
    /// Waits for a turn, which ends that of whoever has it.
    pub(crate) async fn turn(self: &Arc<Self>, now: SystemTime) -> Option<Turn> {
        let over = {
            // In one step, so that of two who come at the same time one ends the other.
            let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
            *touched = now;
            self.turns.send_replace(());
            self.turns.subscribe()
        };
        let pen = self.pen.clone().lock_owned().await;
        pen.draft.is_some().then_some(Turn { pen, over })
    }
}

/// The time in which one request alone goes on with an upload.
#[derive(Debug)]
pub(crate) struct Turn {
    pen: OwnedMutexGuard<Pen>,
    over: watch::Receiver<()>,
}

/// What came of the bytes of a request.
#[derive(Debug)]
pub(crate) struct Received {
    /// How many were kept.
    pub(crate) bytes: u64,
    /// Why there are no more.
    pub(crate) stopped: Stopped,
}

#[derive(Debug)]
pub(crate) enum Stopped {
    /// That was all.
    End,
    /// There were more than there should have been.
    TooMany,
    /// The connection broke.
    Broken,
    /// Somebody else goes on.
    Over,
}

impl Turn {
    pub(crate) fn progress(&self) -> Progress {
        self.pen.progress
    }

    /// Says which digest will be asked for.
    pub(crate) fn expect(&mut self, algorithm: ocikit_spec::Algorithm) {
        if let Some(draft) = &mut self.pen.draft {
            draft.expect(algorithm);
        }
    }

    /// Takes bytes until they end, for whatever reason; those that came are kept. `most` is how many there should be.
    pub(crate) async fn receive<E>(
        &mut self,
        mut body: impl Stream<Item = Result<Bytes, E>> + Unpin,
        most: Option<u64>,
        least_chunk: Option<u64>,
    ) -> io::Result<Received> {
        let draft = self.pen.draft.take().ok_or_else(|| io::Error::other("the upload is over"))?;
        let before = draft.length();
        let mut writer = Writer::new(draft);
        let mut left = most.unwrap_or(u64::MAX);
        let stopped = loop {
            let next = tokio::select! {
                biased;
                _ = self.over.changed() => break Stopped::Over,
                next = body.next() => next,
                () = sleep(STALL), if writer.holds_bytes() => {
                    writer.write().await?;
                    continue;
                }
            };
            match next {
                None => break Stopped::End,
                Some(Err(_)) => break Stopped::Broken,
                Some(Ok(bytes)) if bytes.len() as u64 > left => {
                    writer.push(bytes.slice(..left as usize)).await?;
                    break Stopped::TooMany;
                }
                Some(Ok(bytes)) => {
                    left -= bytes.len() as u64;
                    writer.push(bytes).await?;
                }
            }
        };
        let draft = writer.finish().await?;
        let bytes = draft.length() - before;
        self.pen.progress = advance(self.pen.progress, bytes, least_chunk);
        self.pen.draft = Some(draft);
        Ok(Received { bytes, stopped })
    }

    /// Loses the last bytes that came.
    pub(crate) fn lose(&mut self, bytes: u64) -> io::Result<()> {
        if let Some(draft) = &mut self.pen.draft {
            let length = draft.length().saturating_sub(bytes);
            draft.truncate(length)?;
            self.pen.progress.received = length;
        }
        Ok(())
    }

    /// Everything that came; the upload is over.
    pub(crate) fn finish(mut self) -> Option<Draft> {
        self.pen.draft.take()
    }
}

/// Writes to a draft on another thread, while the next bytes are collected.
#[derive(Debug)]
pub(crate) struct Writer {
    draft: Option<Draft>,
    writing: Option<JoinHandle<io::Result<Draft>>>,
    batch: Vec<Bytes>,
    collected: usize,
}

impl Writer {
    pub(crate) fn new(draft: Draft) -> Writer {
        Writer { draft: Some(draft), writing: None, batch: Vec::new(), collected: 0 }
    }

    pub(crate) async fn push(&mut self, bytes: Bytes) -> io::Result<()> {
        self.collected += bytes.len();
        self.batch.push(bytes);
        if self.collected >= BATCH {
            self.write().await?;
        }
        Ok(())
    }

    fn holds_bytes(&self) -> bool {
        self.collected > 0
    }

    pub(crate) async fn finish(mut self) -> io::Result<Draft> {
        if self.holds_bytes() {
            self.write().await?;
        }
        self.written().await
    }

    async fn write(&mut self) -> io::Result<()> {
        let mut draft = self.written().await?;
        let batch = std::mem::take(&mut self.batch);
        self.collected = 0;
        self.writing = Some(tokio::task::spawn_blocking(move || {
            draft.append(&batch)?;
            Ok(draft)
        }));
        Ok(())
    }

    /// The draft, once what is being written is.
    async fn written(&mut self) -> io::Result<Draft> {
        match self.writing.take() {
            Some(writing) => writing.await.map_err(io::Error::other)?,
            None => self.draft.take().ok_or_else(|| io::Error::other("the draft is lost")),
        }
    }
}
