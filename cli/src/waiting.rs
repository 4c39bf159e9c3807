//! Waits for input that may never come.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of threads that wait for a pipe, a device or standard input, and have nothing to undo.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Marks a wait for input that may never come. While it exists, an interruption ends the program at once: the thread cannot be
/// told to stop.
#[derive(Debug)]
pub(crate) struct Waiting(());

impl Waiting {
    pub(crate) fn new() -> Waiting {
        WAITING.fetch_add(1, Ordering::SeqCst);
        Waiting(())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Returns whether a thread waits.
pub(crate) fn is_waiting() -> bool {
    WAITING.load(Ordering::SeqCst) > 0
}
