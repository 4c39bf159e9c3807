//! Progress of copies and builds: a bar on a terminal, a line every few seconds in a log, or events as JSON.

use std::collections::HashMap;
use std::fmt;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ocikit::{Digest, Event, Observer, Put};
use ocikit_build::Progress as BuildProgress;
use serde_json::json;

use crate::output;

/// The values of `--progress`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressFormat {
    /// A bar on a terminal, lines elsewhere
    #[default]
    Auto,
    /// A bar
    Tty,
    /// A line every few seconds
    Plain,
    /// One JSON object per event
    Json,
    /// Nothing
    None,
}

impl ProgressFormat {
    /// Resolves `auto` for the terminal and the other flags. With lines on standard error, such as those of `-v`, there is no
    /// bar, because both would overwrite each other.
    pub(crate) fn settled(self, quiet: bool, lines: bool) -> ProgressFormat {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        match self {
            ProgressFormat::Auto if quiet => ProgressFormat::None,
            ProgressFormat::Auto if std::io::stderr().is_terminal() && !dumb && !lines => ProgressFormat::Tty,
            ProgressFormat::Auto => ProgressFormat::Plain,
            form => form,
        }
    }

    /// Returns the observer that shows the progress of a copy.
    pub(crate) fn of_copy(self) -> Option<Arc<dyn Observer>> {
        match self {
            ProgressFormat::Tty => Some(Arc::new(Bar { bar: bar(), tally: ByteCounter::default() })),
            ProgressFormat::Plain | ProgressFormat::Auto => Some(Arc::new(Plain::new())),
            ProgressFormat::Json => Some(Arc::new(Json)),
            ProgressFormat::None => None,
        }
    }

    /// Returns the observer that shows the progress of a build.
    pub(crate) fn of_build(self) -> Option<Arc<dyn ocikit_build::Observer>> {
        match self {
            ProgressFormat::Json => Some(Arc::new(Json)),
            ProgressFormat::None => None,
            _ => Some(Arc::new(Steps)),
        }
    }
}

/// The interval between two lines of plain progress.
const LOG_INTERVAL: Duration = Duration::from_secs(3);

struct Bar {
    bar: ProgressBar,
    tally: ByteCounter,
}

/// Counts copied bytes. Bytes that are read again after an interruption count once.
#[derive(Debug, Default)]
struct ByteCounter(Mutex<HashMap<Digest, u64>>);

impl ByteCounter {
    /// Returns how many bytes of an event were not counted before.
    fn fresh(&self, event: &Event<'_>) -> u64 {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (blob, end) = match event {
            Event::Read { blob, offset, bytes } => (blob, offset + bytes),
            Event::Finished { blob, .. } | Event::Checked { blob } => (blob, blob.size),
            _ => return 0,
        };
        let high = seen.entry(blob.digest).or_default();
        let fresh = end.saturating_sub(*high);
        *high += fresh;
        fresh
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
    let template = "{bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left  {msg}";
    // The template is constant, so this does not fail; without a style the bar has the default look.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

impl fmt::Debug for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bar")
    }
}

impl Observer for Bar {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Planned { blobs, bytes } => {
                self.bar.set_length(bytes);
                self.bar.set_message(format!("{blobs} blobs"));
            }
            Event::Published { .. } | Event::Ended => self.bar.finish_and_clear(),
            Event::Decompressing { location } => self.bar.suspend(|| say_decompressing(location)),
            event => self.bar.inc(self.tally.fresh(&event)),
        }
    }
}

fn say_decompressing(location: &str) {
    output::print_lines(format!(
        "decompressing {location} to a temporary file: its compression allows no random access"
    ));
}

#[derive(Debug)]
struct Plain {
    tally: ByteCounter,
    moved: AtomicU64,
    state: Mutex<PlainState>,
}

#[derive(Debug)]
struct PlainState {
    blobs: usize,
    bytes: u64,
    finished: usize,
    printed: Instant,
}

impl Plain {
    fn new() -> Plain {
        let state = PlainState { blobs: 0, bytes: 0, finished: 0, printed: Instant::now() };
        Plain { tally: ByteCounter::default(), moved: AtomicU64::new(0), state: Mutex::new(state) }
    }

    fn maybe_say(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.printed.elapsed() < LOG_INTERVAL {
            return;
        }
        state.printed = Instant::now();
        let (moved, total) = (output::bytes(self.moved.load(Ordering::Relaxed)), output::bytes(state.bytes));
        output::print_lines(format!("{moved} of {total}, {} of {} blobs", state.finished, state.blobs));
    }
}

impl Observer for Plain {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Planned { blobs, bytes } => {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                (state.blobs, state.bytes) = (blobs, bytes);
            }
            Event::Read { .. } | Event::Finished { .. } | Event::Checked { .. } => {
                self.moved.fetch_add(self.tally.fresh(&event), Ordering::Relaxed);
                let finished = usize::from(!matches!(event, Event::Read { .. }));
                self.state.lock().unwrap_or_else(PoisonError::into_inner).finished += finished;
                self.maybe_say();
            }
            Event::Decompressing { location } => say_decompressing(location),
            _ => {}
        }
    }
}

#[derive(Debug)]
struct Json;

impl Observer for Json {
    fn event(&self, event: Event<'_>) {
        let line = match event {
            Event::Planned { blobs, bytes } => json!({"event": "planned", "blobs": blobs, "bytes": bytes}),
            Event::Started { blob } => json!({"event": "started", "digest": blob.digest, "size": blob.size}),
            Event::Read { blob, offset, bytes } => {
                json!({"event": "read", "digest": blob.digest, "offset": offset, "bytes": bytes})
            }
            Event::Finished { blob, put } => json!({"event": "finished", "digest": blob.digest, "put": put_word(put)}),
            Event::Checked { blob } => json!({"event": "checked", "digest": blob.digest}),
            Event::Published { root, tag } => {
                json!({"event": "published", "digest": root.digest, "tag": tag.map(ToString::to_string)})
            }
            Event::Decompressing { location } => json!({"event": "decompressing", "location": location}),
            _ => return,
        };
        output::print_json(&line);
    }
}

/// Returns the word for the result of storing a blob in JSON events.
pub(crate) fn put_word(put: Put) -> &'static str {
    match put {
        Put::Present => "present",
        Put::Mounted => "mounted",
        Put::Copied => "sent",
    }
}

/// Shows the steps of a build line by line, like the plain progress of BuildKit.
#[derive(Debug)]
struct Steps;

impl ocikit_build::Observer for Steps {
    fn progress(&self, progress: &BuildProgress) {
        match progress {
            BuildProgress::Completed { step, cached: true } => output::print_lines(format!("CACHED {step}")),
            BuildProgress::Completed { step, .. } => output::print_lines(format!("DONE {step}")),
            BuildProgress::Failed { step, error } => output::print_lines(format!("ERROR {step}: {error}")),
            BuildProgress::Log { line, .. } => output::print_lines(format!("  | {line}")),
            BuildProgress::Warning { message } => output::print_lines(format!("WARNING {message}")),
            _ => {}
        }
    }
}

impl ocikit_build::Observer for Json {
    fn progress(&self, progress: &BuildProgress) {
        let line = match progress {
            BuildProgress::Started { step } => json!({"event": "step-started", "step": step}),
            BuildProgress::Completed { step, cached } => json!({"event": "step-done", "step": step, "cached": cached}),
            BuildProgress::Failed { step, error } => json!({"event": "step-failed", "step": step, "error": error}),
            BuildProgress::Log { step, line } => json!({"event": "step-log", "step": step, "line": line}),
            BuildProgress::Warning { message } => json!({"event": "warning", "message": message}),
            _ => return,
        };
        output::print_json(&line);
    }
}
