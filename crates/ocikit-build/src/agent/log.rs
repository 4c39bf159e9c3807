//! The log of a build: kept for every host that connects, without secrets.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ocikit::registry::Secret;
use tokio::sync::watch;

use super::limits::{LINES_PER_BATCH, MAX_LINE_BYTES, MAX_LOG_BYTES, MIN_REDACTED_BYTES};
use super::message::LogLine;
use crate::progress::{Observer, Progress};

/// A log that is written once and read by several connections, each at its own speed.
#[derive(Debug)]
pub(super) struct Log {
    state: Mutex<State>,
    /// The number of the next line.
    next: watch::Sender<u64>,
    /// Receives the same events, without secrets.
    observer: Option<Arc<dyn Observer>>,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Arc<LogLine>>,
    bytes: usize,
    next: u64,
    is_closed: bool,
    secrets: Vec<Secret>,
}

/// What takes the place of a secret.
const REDACTED: &str = "***";

impl Log {
    pub(super) fn new(observer: Option<Arc<dyn Observer>>) -> Log {
        Log { state: Mutex::default(), next: watch::Sender::new(0), observer }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces a secret in all lines from now on, and each of its lines.
    pub(super) fn hide(&self, secret: &str) {
        let is_long = |text: &&str| text.len() >= MIN_REDACTED_BYTES;
        let lines = secret.lines().map(str::trim).chain([secret]).filter(is_long).map(Secret::new);
        let mut state = self.state();
        state.secrets.extend(lines);
        // A secret may contain another.
        state.secrets.sort_by_key(|secret| std::cmp::Reverse(secret.reveal().len()));
    }

    /// Returns a text without the secrets.
    pub(super) fn redacted(&self, text: &str) -> String {
        let state = self.state();
        let mut text = text.to_owned();
        for secret in &state.secrets {
            if text.contains(secret.reveal()) {
                text = text.replace(secret.reveal(), REDACTED);
            }
        }
        text
    }

    /// Adds a line.
    pub(super) fn push(&self, step: Option<&str>, text: &str) {
        let (step, text) = (step.map(|step| self.redacted(step)), self.redacted(text));
        let mut state = self.state();
        if state.is_closed {
            return;
        }
        let line = LogLine { sequence: state.next, log: shortened(text), step: step.map(shortened) };
        state.next += 1;
        state.bytes += size(&line);
        state.lines.push_back(Arc::new(line));
        while state.bytes > MAX_LOG_BYTES
            && let Some(oldest) = state.lines.pop_front()
        {
            state.bytes -= size(&oldest);
        }
        self.next.send_replace(state.next);
    }

    /// Ends the log: what a thread still reads from BuildKit is not added.
    pub(super) fn close(&self) {
        self.state().is_closed = true;
    }

    /// Returns some lines from this number on, or from the oldest one that is kept. Nothing if there are none yet.
    pub(super) fn from(&self, number: u64) -> Vec<Arc<LogLine>> {
        let state = self.state();
        let oldest = state.next - state.lines.len() as u64;
        let skipped = usize::try_from(number.saturating_sub(oldest)).unwrap_or(usize::MAX);
        state.lines.iter().skip(skipped).take(LINES_PER_BATCH).cloned().collect()
    }

    /// Returns a receiver that learns of each new line.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.next.subscribe()
    }
}

fn size(line: &LogLine) -> usize {
    const OVERHEAD: usize = 64;
    line.log.len() + line.step.as_ref().map_or(0, String::len) + OVERHEAD
}

/// Leaves out the end of a long line.
fn shortened(mut text: String) -> String {
    if text.len() > MAX_LINE_BYTES {
        let end = (0..=MAX_LINE_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
        let rest = text.len() - end;
        text.truncate(end);
        text.push_str(&format!(" ({rest} more bytes)"));
    }
    text
}

impl Observer for Log {
    fn progress(&self, progress: &Progress) {
        match progress {
            Progress::Started { step } => self.push(Some(step), step),
            Progress::Completed { step, cached: true } => self.push(Some(step), "CACHED"),
            Progress::Completed { step, cached: false } => self.push(Some(step), "DONE"),
            Progress::Failed { step, error } => self.push(Some(step), &format!("ERROR: {error}")),
            Progress::Log { step, line } => self.push(Some(step), line),
            Progress::Warning { message } => self.push(None, &format!("warning: {message}")),
        }
        if let Some(observer) = &self.observer {
            let hide = |text: &String| self.redacted(text);
            observer.progress(&match progress {
                Progress::Started { step } => Progress::Started { step: hide(step) },
                Progress::Completed { step, cached } => Progress::Completed { step: hide(step), cached: *cached },
                Progress::Failed { step, error } => Progress::Failed { step: hide(step), error: hide(error) },
                Progress::Log { step, line } => Progress::Log { step: hide(step), line: hide(line) },
                Progress::Warning { message } => Progress::Warning { message: hide(message) },
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: &[Arc<LogLine>]) -> Vec<&str> {
        lines.iter().map(|line| line.log.as_str()).collect()
    }

    #[test]
    fn lines_are_numbered_and_kept() {
        let log = Log::new(None);
        for text in ["a", "b", "c"] {
            log.push(None, text);
        }
        assert_eq!(texts(&log.from(0)), ["a", "b", "c"]);
        assert_eq!(texts(&log.from(2)), ["c"]);
        assert!(log.from(3).is_empty() && log.from(u64::MAX).is_empty());
        log.close();
        log.push(None, "late");
        assert!(log.from(3).is_empty());
    }

    #[test]
    fn the_oldest_lines_are_dropped() {
        let log = Log::new(None);
        let long = "x".repeat(MAX_LINE_BYTES * 2);
        let count = (MAX_LOG_BYTES / MAX_LINE_BYTES + 10) as u64;
        for _ in 0..count {
            log.push(None, &long);
        }
        let kept = log.from(0);
        assert!(kept[0].sequence > 0 && kept[0].log.ends_with(" (16384 more bytes)"));
        assert_eq!(log.from(count - 1).len(), 1);
        assert!(log.state().bytes <= MAX_LOG_BYTES);
    }

    #[test]
    fn hyp_9_secrets_are_not_in_the_log() {
        let log = Log::new(None);
        log.hide("hunter2hunter2\nsecond line");
        log.hide("hunter2");
        log.hide("abc");
        log.progress(&Progress::Log {
            step: "RUN hunter2".to_owned(),
            line: "a hunter2hunter2 b hunter2 abc".to_owned(),
        });
        log.progress(&Progress::Failed { step: "x".to_owned(), error: "second line".to_owned() });
        let lines = log.from(0);
        assert_eq!(texts(&lines), ["a *** b *** abc", "ERROR: ***"]);
        assert_eq!(lines[0].step.as_deref(), Some("RUN ***"));
    }
}
