use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

/// The position of each lane in the plan, and the total time for which it has delayed the others.
#[derive(Debug)]
pub(super) struct Pace {
    lanes: Mutex<Vec<LaneProgress>>,
    changed: Notify,
    /// The maximum delay; `None` if no lane can read by itself, so that all follow the slowest.
    max_delay: Option<Duration>,
    /// The maximum number of blobs between two lanes.
    lead: usize,
}

#[derive(Debug, Default, Clone)]
struct LaneProgress {
    started: usize,
    finished: usize,
    held: Duration,
    /// The end of the time that was counted, because several lanes may wait at the same time.
    counted: Option<Instant>,
    /// Whether the others no longer wait for this lane.
    left: bool,
}

impl Pace {
    pub(super) fn new(lanes: usize, max_delay: Option<Duration>, lead: usize) -> Pace {
        Pace { lanes: Mutex::new(vec![LaneProgress::default(); lanes]), changed: Notify::new(), max_delay, lead }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<LaneProgress>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the position of the next blob of a lane.
    pub(super) fn start(&self, lane: usize) -> usize {
        let progress = &mut self.lock()[lane];
        progress.started += 1;
        progress.started - 1
    }

    /// Waits until a lane may start the blob at this position.
    pub(super) async fn turn(&self, lane: usize, blob: usize) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let behind: Vec<_> = {
                let lanes = self.lock();
                let others = lanes.iter().enumerate().filter(|(other, _)| *other != lane);
                let behind =
                    |progress: &LaneProgress| !progress.left && progress.finished.saturating_add(self.lead) < blob;
                others.filter(|(_, progress)| behind(progress)).map(|(other, _)| other).collect()
            };
            if behind.is_empty() || self.has_left(lane) {
                return;
            }
            self.wait(changed, &behind).await;
        }
    }

    /// Waits for a change and adds the time to the delay of these lanes.
    pub(super) async fn wait(&self, changed: std::pin::Pin<&mut Notified<'_>>, slow: &[usize]) {
        let Some(max_delay) = self.max_delay.filter(|_| !slow.is_empty()) else { return changed.await };
        let held = |lanes: &[LaneProgress]| slow.iter().map(|lane| lanes[*lane].held).max().unwrap_or_default();
        let (begun, held) = (Instant::now(), held(&self.lock()));
        // A timeout is detected below, by the total delay.
        let _ = tokio::time::timeout(max_delay.saturating_sub(held), changed).await;
        let now = Instant::now();
        for lane in slow {
            let progress = &mut self.lock()[*lane];
            let since = progress.counted.map_or(begun, |counted| counted.max(begun));
            progress.held += now.saturating_duration_since(since);
            progress.counted = Some(now);
            progress.left |= progress.held >= max_delay;
        }
        self.changed.notify_waiters();
    }

    pub(super) fn has_left(&self, lane: usize) -> bool {
        self.lock()[lane].left
    }

    /// Records that a lane has finished a blob.
    pub(super) fn finished(&self, lane: usize) {
        self.lock()[lane].finished += 1;
        self.changed.notify_waiters();
    }

    /// Records that a lane has finished or failed.
    pub(super) fn over(&self, lane: usize) {
        self.lock()[lane].left = true;
        self.changed.notify_waiters();
    }
}
