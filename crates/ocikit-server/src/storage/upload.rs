//! Uploads in progress.
//!
//! An upload survives the requests and connections that carry it: received bytes are kept. Requests for one upload run
//! one after the other. A later request ends the current one, whose connection is usually lost, and continues after the
//! bytes that were received.

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

/// Number of bytes that are collected before they are hashed and written on another thread, while the next ones arrive.
const WRITE_BATCH_BYTES: usize = 1 << 20;

/// How long to wait for more bytes before the collected ones are written, so that stalled uploads occupy no memory.
const STALLED_WRITE_DELAY: Duration = Duration::from_secs(1);

/// The uploads in progress, by their identifier.
#[derive(Debug, Default)]
pub(crate) struct Uploads(Mutex<HashMap<String, Arc<Upload>>>);

impl Uploads {
    /// Starts an upload; `None` if the maximum number is in progress.
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
            data: Arc::new(tokio::sync::Mutex::new(UploadData { draft: Some(draft), progress: Progress::default() })),
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

    /// Returns the upload with an identifier in a repository.
    pub(crate) fn find(&self, name: &RepositoryName, id: &str) -> Option<Arc<Upload>> {
        self.lock().get(id).filter(|upload| upload.name == *name).cloned()
    }

    /// Removes an upload and its bytes, and returns whether it existed.
    pub(crate) fn forget(&self, id: &str) -> bool {
        let forgotten = self.lock().remove(id);
        if let Some(upload) = &forgotten {
            upload.turns.send_replace(());
        }
        forgotten.is_some()
    }

    /// Removes the uploads that had no request for this long.
    pub(crate) fn forget_idle(&self, idle: Duration, now: SystemTime) {
        let is_idle = |upload: &Arc<Upload>| {
            let touched = *upload.touched.lock().unwrap_or_else(PoisonError::into_inner);
            now.duration_since(touched).is_ok_and(|since| since >= idle) && upload.data.try_lock().is_ok()
        };
        self.lock().retain(|_, upload| !is_idle(upload));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Upload>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An upload in progress.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) id: String,
    pub(crate) name: RepositoryName,
    data: Arc<tokio::sync::Mutex<UploadData>>,
    /// Notifies the current request that another one takes over.
    turns: watch::Sender<()>,
    touched: Mutex<SystemTime>,
    /// The query that every further URL must carry, if the first one did.
    pub(crate) secret: OnceLock<String>,
}

/// The writable part of an upload. Only one request at a time holds its lock.
#[derive(Debug)]
struct UploadData {
    /// `None` once the upload is complete, or after a write error.
    draft: Option<Draft>,
    progress: Progress,
}

impl Upload {
    /// Ends the current request and waits for the lock; `None` if the upload is over.
    pub(crate) async fn turn(self: &Arc<Self>, now: SystemTime) -> Option<Turn> {
        let taken_over = {
            // In one step, so that of two concurrent requests one ends the other.
            let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
            *touched = now;
            self.turns.send_replace(());
            self.turns.subscribe()
        };
        let data = self.data.clone().lock_owned().await;
        data.draft.is_some().then_some(Turn { data, taken_over })
    }
}

/// Exclusive access of one request to an upload.
#[derive(Debug)]
pub(crate) struct Turn {
    data: OwnedMutexGuard<UploadData>,
    taken_over: watch::Receiver<()>,
}

/// The outcome of receiving the bytes of a request.
#[derive(Debug)]
pub(crate) struct Received {
    /// Number of bytes that were kept.
    pub(crate) bytes: u64,
    /// Why there are no more.
    pub(crate) stopped: Stopped,
}

#[derive(Debug)]
pub(crate) enum Stopped {
    /// The body is complete.
    End,
    /// The body is longer than announced.
    TooMany,
    /// The connection was lost.
    Broken,
    /// Another request has taken over.
    TakenOver,
}

impl Turn {
    pub(crate) fn progress(&self) -> Progress {
        self.data.progress
    }

    /// Selects the digest algorithm.
    pub(crate) fn expect(&mut self, algorithm: ocikit_spec::Algorithm) {
        if let Some(draft) = &mut self.data.draft {
            draft.expect(algorithm);
        }
    }

    /// Receives bytes until the body ends, for whatever reason; received bytes are kept. `most` is their announced
    /// number.
    pub(crate) async fn receive<E>(
        &mut self,
        mut body: impl Stream<Item = Result<Bytes, E>> + Unpin,
        most: Option<u64>,
        least_chunk: Option<u64>,
    ) -> io::Result<Received> {
        let draft = self.data.draft.take().ok_or_else(|| io::Error::other("the upload is over"))?;
        let before = draft.length();
        let mut writer = Writer::new(draft);
        let mut left = most.unwrap_or(u64::MAX);
        let stopped = loop {
            let next = tokio::select! {
                biased;
                _ = self.taken_over.changed() => break Stopped::TakenOver,
                next = body.next() => next,
                () = sleep(STALLED_WRITE_DELAY), if writer.holds_bytes() => {
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
        self.data.progress = advance(self.data.progress, bytes, least_chunk);
        self.data.draft = Some(draft);
        Ok(Received { bytes, stopped })
    }

    /// Removes the last received bytes.
    pub(crate) fn lose(&mut self, bytes: u64) -> io::Result<()> {
        if let Some(draft) = &mut self.data.draft {
            let length = draft.length().saturating_sub(bytes);
            draft.truncate(length)?;
            self.data.progress.received = length;
        }
        Ok(())
    }

    /// Returns the received bytes and ends the upload.
    pub(crate) fn finish(mut self) -> Option<Draft> {
        self.data.draft.take()
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
        if self.collected >= WRITE_BATCH_BYTES {
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

    /// Waits for the current write and returns the draft.
    async fn written(&mut self) -> io::Result<Draft> {
        match self.writing.take() {
            Some(writing) => writing.await.map_err(io::Error::other)?,
            None => self.draft.take().ok_or_else(|| io::Error::other("the draft is lost")),
        }
    }
}
