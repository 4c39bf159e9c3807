//! Threads that create files while the layer is read.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use ocikit_spec::Digest;

use crate::error::{Error, Result};
use crate::layer::{FileKind, Metadata, Path};
use crate::unpack::node::{Content, Settings};

/// The maximum number of files in the queue. Each may hold an open directory.
const MAX_QUEUED: usize = 256;

/// The maximum number of bytes of contents in the queue.
const MAX_QUEUED_BYTES: usize = 16 << 20;

/// A file to create.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) directory: Arc<OwnedFd>,
    pub(super) path: Path,
    pub(super) kind: FileKind,
    pub(super) metadata: Metadata,
    pub(super) content: Content,
    /// The layer and the number of the entry, for the digest.
    pub(super) from: (usize, u64),
}

/// What the threads have done.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) digests: HashMap<(usize, u64), Digest>,
    pub(super) skipped_xattrs: u64,
    pub(super) bytes: u64,
}

/// The threads. They end when this is dropped.
#[derive(Debug)]
pub(super) struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    settings: Settings,
    state: Mutex<QueueState>,
    /// A job was added, or the queue was closed.
    added: Condvar,
    /// A job was taken or finished.
    progress: Condvar,
}

#[derive(Debug, Default)]
struct QueueState {
    jobs: VecDeque<Job>,
    bytes: usize,
    running: usize,
    closed: bool,
    failure: Option<Error>,
    tally: Tally,
}

impl Job {
    fn bytes(&self) -> usize {
        match &self.content {
            Content::Whole(bytes) => bytes.len(),
            Content::Parts(_) => 0,
        }
    }
}

impl Shared {
    /// A thread that panicked has left the state as it was.
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Workers {
    pub(super) fn start(settings: Settings, threads: usize) -> Workers {
        let shared =
            Arc::new(Shared { settings, state: Mutex::default(), added: Condvar::new(), progress: Condvar::new() });
        let threads = (0..threads.max(1)).map(|_| {
            let shared = shared.clone();
            std::thread::spawn(move || run(&shared))
        });
        Workers { threads: threads.collect(), shared }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// Adds a job; waits while the queue is full.
    pub(super) fn add(&self, job: Job) -> Result<()> {
        let mut state = self.shared.lock();
        while state.failure.is_none()
            && !state.jobs.is_empty()
            && (state.jobs.len() >= MAX_QUEUED || state.bytes + job.bytes() > MAX_QUEUED_BYTES)
        {
            state = self.shared.progress.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(failure) = state.failure.take() {
            return Err(failure);
        }
        state.bytes += job.bytes();
        state.jobs.push_back(job);
        drop(state);
        self.shared.added.notify_one();
        Ok(())
    }

    /// Waits until all jobs are finished.
    pub(super) fn settle(&self) -> Result<()> {
        let mut state = self.shared.lock();
        while state.running > 0 || !state.jobs.is_empty() {
            state = self.shared.progress.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.failure.take().map_or(Ok(()), Err)
    }

    /// Ends the threads and returns what they did.
    pub(super) fn finish(mut self) -> Result<Tally> {
        self.settle()?;
        self.end();
        Ok(std::mem::take(&mut self.shared.lock().tally))
    }

    fn end(&mut self) {
        {
            let mut state = self.shared.lock();
            state.closed = true;
            state.jobs.clear();
        }
        self.shared.added.notify_all();
        for thread in self.threads.drain(..) {
            // A panic was already reported by the thread.
            let _ = thread.join();
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.end();
    }
}

fn run(shared: &Shared) {
    let mut state = shared.lock();
    loop {
        let Some(job) = state.jobs.pop_front() else {
            if state.closed {
                return;
            }
            state = shared.added.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        let bytes = job.bytes();
        state.running += 1;
        // After a failure the rest is not created any more.
        let skip = state.failure.is_some();
        drop(state);
        let from = job.from;
        let created = (!skip).then(|| {
            let Job { directory, path, kind, metadata, content, .. } = job;
            shared.settings.create(&directory, &path, &kind, &metadata, content)
        });
        state = shared.lock();
        state.running -= 1;
        state.bytes -= bytes;
        match created {
            Some(Ok(created)) => {
                state.tally.skipped_xattrs += created.skipped_xattrs;
                state.tally.bytes += created.bytes;
                if let Some(digest) = created.digest {
                    state.tally.digests.insert(from, digest);
                }
            }
            Some(Err(error)) => drop(state.failure.get_or_insert(error)),
            None => {}
        }
        shared.progress.notify_all();
    }
}
