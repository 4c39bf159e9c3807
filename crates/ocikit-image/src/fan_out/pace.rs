use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

/// How far the lanes are, and for how long each has kept the others waiting.
#[derive(Debug)]
pub(super) struct Pace {
    lanes: Mutex<Vec<Progress>>,
    changed: Notify,
    /// `None` where nobody can read by itself, so that all go as fast as the slowest.
    patience: Option<Duration>,
    /// How many blobs a lane may be ahead of another.
    lead: usize,
}

#[derive(Debug, Default, Clone)]
struct Progress {
    finished: usize,
    held: Duration,
    /// Until when waiting was counted: many may wait at the same time.
    counted: Option<Instant>,
    /// Whether it is waited for no longer.
    left: bool,
}

impl Pace {
    pub(super) fn new(lanes: usize, patience: Option<Duration>, lead: usize) -> Pace {
        Pace { lanes: Mutex::new(vec![Progress::default(); lanes]), changed: Notify::new(), patience, lead }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Progress>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a lane may begin with this blob of the plan.
    pub(super) async fn turn(&self, lane: usize, blob: usize) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let behind: Vec<_> = {
                let lanes = self.lock();
                let others = lanes.iter().enumerate().filter(|(other, _)| *other != lane);
                let behind = |progress: &Progress| !progress.left && progress.finished.saturating_add(self.lead) < blob;
                others.filter(|(_, progress)| behind(progress)).map(|(other, _)| other).collect()
            };
            if behind.is_empty() || self.has_left(lane) {
                return;
            }
            self.wait(changed, &behind).await;
        }
    }

    /// Waits for a change, on the account of these lanes.
    pub(super) async fn wait(&self, changed: std::pin::Pin<&mut Notified<'_>>, slow: &[usize]) {
        let Some(patience) = self.patience.filter(|_| !slow.is_empty()) else { return changed.await };
        let held = |lanes: &[Progress]| slow.iter().map(|lane| lanes[*lane].held).max().unwrap_or_default();
        let (begun, held) = (Instant::now(), held(&self.lock()));
        // Whoever comes too late is found out below.
        let _ = tokio::time::timeout(patience.saturating_sub(held), changed).await;
        let now = Instant::now();
        for lane in slow {
            let progress = &mut self.lock()[*lane];
            let since = progress.counted.map_or(begun, |counted| counted.max(begun));
            progress.held += now.saturating_duration_since(since);
            progress.counted = Some(now);
            progress.left |= progress.held >= patience;
        }
        self.changed.notify_waiters();
    }

    pub(super) fn has_left(&self, lane: usize) -> bool {
        self.lock()[lane].left
    }

    /// A lane is done with a blob.
    pub(super) fn finished(&self, lane: usize) {
        self.lock()[lane].finished += 1;
        self.changed.notify_waiters();
    }

    /// A lane is done with everything, or will never be.
    pub(super) fn over(&self, lane: usize) {
        self.lock()[lane].left = true;
        self.changed.notify_waiters();
    }
}
