//! Jobs that run in parallel and whose results are taken in order.

use std::collections::VecDeque;
use std::io;
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};

/// Runs jobs on threads and returns their results in the order of the jobs. Each thread has its own worker, with the
/// state that it reuses from job to job.
///
/// Threads start with the jobs, so that little work needs few of them, and end when this is dropped. With one thread, jobs
/// run where they are submitted.
///
/// ```
/// use std::num::NonZeroUsize;
/// use ocikit_archive::Ordered;
///
/// let threads = NonZeroUsize::new(3).unwrap();
/// let mut squares = Ordered::new("square", threads, || Box::new(|number: u64| number * number));
/// for number in 0..10 {
///     squares.submit(number)?;
/// }
/// let mut sum = 0;
/// while let Some(square) = squares.take() {
///     sum += square?;
/// }
/// assert_eq!(sum, 285);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Ordered<J, T> {
    name: &'static str,
    threads: NonZeroUsize,
    started: usize,
    new_worker: Arc<dyn Fn() -> Worker<J, T> + Send + Sync>,
    /// The worker of jobs that run without a thread.
    here: Option<Worker<J, T>>,
    jobs: Option<Jobs<J, T>>,
    pending: VecDeque<Pending<T>>,
}

/// A worker, which makes a result of a job.
type Worker<J, T> = Box<dyn FnMut(J) -> T + Send>;

/// Both ends of the queue.
type Jobs<J, T> = (Sender<Submitted<J, T>>, Queue<J, T>);

/// The jobs that wait for a thread.
type Queue<J, T> = Arc<Mutex<Receiver<Submitted<J, T>>>>;

type Submitted<J, T> = (J, SyncSender<T>);

enum Pending<T> {
    Done(T),
    Running(Receiver<T>),
}

impl<J: Send + 'static, T: Send + 'static> Ordered<J, T> {
    /// Creates a set of threads that are named `name`. The function is called in each of them.
    pub fn new(
        name: &'static str,
        threads: NonZeroUsize,
        new_worker: impl Fn() -> Box<dyn FnMut(J) -> T + Send> + Send + Sync + 'static,
    ) -> Ordered<J, T> {
        let new_worker = Arc::new(new_worker);
        Ordered { name, threads, started: 0, new_worker, here: None, jobs: None, pending: VecDeque::new() }
    }

    /// Returns the maximum number of threads.
    pub fn threads(&self) -> usize {
        self.threads.get()
    }

    /// Returns whether a thread was started.
    pub fn has_started(&self) -> bool {
        self.started > 0
    }

    /// Returns the number of jobs whose results were not taken.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Starts a job.
    ///
    /// # Errors
    ///
    /// Those of starting a thread.
    pub fn submit(&mut self, job: J) -> io::Result<()> {
        if self.threads.get() == 1 {
            self.run(job);
            return Ok(());
        }
        let (jobs, queue) = self.jobs.get_or_insert_with(|| {
            let (jobs, queue) = channel();
            (jobs, Arc::new(Mutex::new(queue)))
        });
        if self.started < self.threads.get() {
            let (queue, new_worker) = (queue.clone(), self.new_worker.clone());
            let work = move || work(&queue, &mut *new_worker());
            std::thread::Builder::new().name(self.name.to_owned()).spawn(work)?;
            self.started += 1;
        }
        let (result, receiver) = sync_channel(1);
        jobs.send((job, result)).map_err(|_| ended_early())?;
        self.pending.push_back(Pending::Running(receiver));
        Ok(())
    }

    /// Runs a job on this thread.
    pub fn run(&mut self, job: J) {
        let worker = self.here.get_or_insert_with(|| (self.new_worker)());
        self.pending.push_back(Pending::Done(worker(job)));
    }

    /// Waits for the result of the oldest job and returns it; `None` if there is no job.
    ///
    /// # Errors
    ///
    /// If the thread of the job panicked.
    pub fn take(&mut self) -> Option<io::Result<T>> {
        Some(match self.pending.pop_front()? {
            Pending::Done(result) => Ok(result),
            Pending::Running(result) => result.recv().map_err(|_| ended_early()),
        })
    }
}

impl<J, T> std::fmt::Debug for Ordered<J, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ordered").field("name", &self.name).field("threads", &self.threads).finish_non_exhaustive()
    }
}

fn ended_early() -> io::Error {
    io::Error::other("a thread that compresses ended early")
}

fn work<J, T>(queue: &Mutex<Receiver<Submitted<J, T>>>, worker: &mut dyn FnMut(J) -> T) {
    loop {
        let Ok(job) = queue.lock().map(|queue| queue.recv()) else { return };
        let Ok((job, result)) = job else { return };
        // Sending fails if the owner was dropped, and then the queue ends.
        let _ = result.send(worker(job));
    }
}
