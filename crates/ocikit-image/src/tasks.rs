//! One driver for concurrent tasks: copies and validation run theirs with it.

use tokio::task::JoinSet;

use crate::error::Error;

/// The reason why a task did not run to its end: the runtime is shutting down.
#[derive(Debug)]
pub(crate) struct RuntimeStopped;

impl From<RuntimeStopped> for Error {
    fn from(_: RuntimeStopped) -> Error {
        Error::failed("finish", "work", std::io::Error::other("the runtime is shutting down"))
    }
}

/// Tasks that do not depend on each other. Dropping the value aborts those that run.
#[derive(Debug)]
pub(crate) struct Tasks<T, E>(JoinSet<Result<Finished<T>, E>>);

#[derive(Debug)]
struct Finished<T> {
    position: usize,
    is_small: bool,
    value: T,
}

impl<T: Send + 'static, E: From<RuntimeStopped> + Send + 'static> Tasks<T, E> {
    pub(crate) fn new() -> Tasks<T, E> {
        Tasks(JoinSet::new())
    }

    /// Runs a task for each item, started in the order of the items: up to `jobs` at the same time, and up to
    /// `jobs - 1` more beside them if these are small. Returns the values in the order of the items.
    ///
    /// # Errors
    ///
    /// The first error of a task. No further task is started then; [`Tasks::stop`] ends the others.
    pub(crate) async fn run<I, F: Future<Output = Result<T, E>> + Send + 'static>(
        &mut self,
        items: impl IntoIterator<Item = I>,
        jobs: usize,
        is_small: impl Fn(&I) -> bool,
        mut task: impl FnMut(I) -> F,
    ) -> Result<Vec<T>, E> {
        let jobs = jobs.max(1);
        let mut waiting = items.into_iter().enumerate().peekable();
        let mut values = Vec::new();
        let mut large = 0;
        loop {
            while let Some((_, next)) = waiting.peek()
                && self.0.len() < jobs.saturating_mul(2) - 1
                && (large < jobs || is_small(next))
                && let Some((position, item)) = waiting.next()
            {
                let is_small = is_small(&item);
                large += usize::from(!is_small);
                values.push(None);
                let task = task(item);
                self.0.spawn(async move { task.await.map(|value| Finished { position, is_small, value }) });
            }
            match self.0.join_next().await {
                Some(Ok(finished)) => {
                    let Finished { position, is_small, value } = finished?;
                    large -= usize::from(!is_small);
                    values[position] = Some(value);
                }
                Some(Err(failure)) => match failure.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => return Err(RuntimeStopped.into()),
                },
                None => return Ok(values.into_iter().flatten().collect()),
            }
        }
    }

    /// Aborts the tasks that still run and waits until they have released their resources.
    pub(crate) async fn stop(&mut self) {
        self.0.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// The number of tasks that run, and the highest number so far.
    #[derive(Debug, Default)]
    struct Load(AtomicUsize, AtomicUsize);

    struct Running(Arc<Load>);

    impl Running {
        fn of(load: &Arc<Load>) -> Running {
            let now = load.0.fetch_add(1, Ordering::Relaxed) + 1;
            load.1.fetch_max(now, Ordering::Relaxed);
            Running(load.clone())
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            self.0.0.fetch_sub(1, Ordering::Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn small_tasks_run_beside_large_ones_and_results_keep_the_order() {
        for (items, jobs, most) in [(vec![9; 20], 4, 4), (vec![1; 20], 4, 7), ([vec![9; 4], vec![1; 9]].concat(), 4, 7)]
        {
            let load = Arc::new(Load::default());
            let mut tasks = Tasks::<_, Error>::new();
            let values = tasks
                .run(
                    items.iter().copied().enumerate(),
                    jobs,
                    |(_, size)| *size < 5,
                    |(position, size)| {
                        let load = load.clone();
                        async move {
                            let _running = Running::of(&load);
                            tokio::time::sleep(std::time::Duration::from_secs(20 - position as u64 % 7)).await;
                            Ok((position, size))
                        }
                    },
                )
                .await
                .unwrap();
            assert_eq!(values, items.into_iter().enumerate().collect::<Vec<_>>());
            assert_eq!(load.1.load(Ordering::Relaxed), most);
        }
    }

    #[tokio::test]
    async fn first_error_ends_the_run_and_stop_releases_what_the_others_hold() {
        let load = Arc::new(Load::default());
        let mut tasks = Tasks::<(), Error>::new();
        let outcome = tasks.run(
            0..100,
            3,
            |_| false,
            |position| {
                let load = load.clone();
                async move {
                    let _running = Running::of(&load);
                    match position {
                        5 => Err(Error::not_found("item 5", "the list")),
                        0..5 => Ok(()),
                        _ => std::future::pending().await,
                    }
                }
            },
        );
        assert!(outcome.await.unwrap_err().is_not_found());
        tasks.stop().await;
        assert_eq!(load.0.load(Ordering::Relaxed), 0);
    }
}
