//! Progress of copies and builds: a bar on a terminal, a line every few seconds in a log, or events as JSON.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
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

    /// Returns the observer that shows how many bytes of layers and files a change has read.
    pub(crate) fn of_change(self) -> Option<Arc<ReadCounter>> {
        let show = match self {
            ProgressFormat::Tty => Show::Spinner(styled(bar(), "{spinner} {msg}  {bytes}  {bytes_per_sec}")),
            ProgressFormat::Plain | ProgressFormat::Auto => Show::Lines,
            ProgressFormat::Json => Show::Json,
            ProgressFormat::None => return None,
        };
        Some(Arc::new(ReadCounter {
            show,
            tally: ByteCounter::default(),
            state: Mutex::new(ReadState { bytes: 0, printed: Instant::now(), ended: false }),
        }))
    }

    /// Returns the observer that shows the progress of a build.
    pub(crate) fn of_build(self) -> Option<Arc<dyn ocikit_build::Observer>> {
        match self {
            ProgressFormat::Json => Some(Arc::new(Json)),
            ProgressFormat::None => None,
            // Without a terminal, nothing of a tree would be shown.
            ProgressFormat::Tty if std::io::stderr().is_terminal() => Some(Arc::new(StepTree::default())),
            ProgressFormat::Tty | ProgressFormat::Auto | ProgressFormat::Plain => Some(Arc::new(Steps)),
        }
    }
}

/// The interval at which the times of running steps change.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// The interval between two lines of plain progress.
const LOG_INTERVAL: Duration = Duration::from_secs(3);

#[derive(Debug)]
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
    styled(bar, "{bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left  {msg}")
}

/// Returns a bar with a template; with the default look if the template has a mistake.
pub(crate) fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
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

/// Shows how much a change has read: the total is not known, because some layers are kept.
#[derive(Debug)]
pub(crate) struct ReadCounter {
    show: Show,
    tally: ByteCounter,
    state: Mutex<ReadState>,
}

#[derive(Debug)]
struct ReadState {
    bytes: u64,
    /// When a line was printed.
    printed: Instant,
    /// Whether the change is made. Layers that are kept are read later, when they are stored.
    ended: bool,
}

#[derive(Debug)]
enum Show {
    Spinner(ProgressBar),
    Lines,
    Json,
}

impl ReadCounter {
    /// Adds bytes of files that are compressed.
    pub(crate) fn add(&self, bytes: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.ended {
            return;
        }
        state.bytes += bytes;
        if let Show::Spinner(bar) = &self.show {
            bar.set_message("writing layers");
            bar.set_position(state.bytes);
        } else if state.printed.elapsed() >= LOG_INTERVAL {
            state.printed = Instant::now();
            match self.show {
                Show::Json => output::print_json(&json!({"event": "writing-layers", "bytes": state.bytes})),
                _ => output::print_lines(format!("writing layers: {} read", output::bytes(state.bytes))),
            }
        }
    }

    /// Ends the display; what follows, such as an upload, has its own.
    pub(crate) fn end(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        if let Show::Spinner(bar) = &self.show {
            bar.finish_and_clear();
        }
    }
}

impl Observer for ReadCounter {
    fn event(&self, event: Event<'_>) {
        if let Event::Read { blob, .. } = event
            && blob.media_type.is_layer()
        {
            self.add(self.tally.fresh(&event));
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
    state: Mutex<PlainState>,
}

#[derive(Debug)]
struct PlainState {
    blobs: usize,
    bytes: u64,
    moved: u64,
    /// Each blob once, also if it is stored at several targets.
    finished: HashSet<Digest>,
    printed: Instant,
}

impl Plain {
    fn new() -> Plain {
        let state = PlainState { blobs: 0, bytes: 0, moved: 0, finished: HashSet::new(), printed: Instant::now() };
        Plain { tally: ByteCounter::default(), state: Mutex::new(state) }
    }
}

impl Observer for Plain {
    fn event(&self, event: Event<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Planned { blobs, bytes } => (state.blobs, state.bytes) = (blobs, bytes),
            Event::Read { .. } | Event::Finished { .. } | Event::Checked { .. } => {
                state.moved += self.tally.fresh(&event);
                if let Event::Finished { blob, .. } | Event::Checked { blob } = &event {
                    state.finished.insert(blob.digest);
                }
                if state.printed.elapsed() >= LOG_INTERVAL {
                    state.printed = Instant::now();
                    let (moved, total) = (output::bytes(state.moved), output::bytes(state.bytes));
                    let (finished, blobs) = (state.finished.len(), state.blobs);
                    output::print_lines(format!("{moved} of {total}, {finished} of {blobs} blobs"));
                }
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

/// Shows the running steps of a build, each with its time and its last line of output, below the finished steps. The output
/// of a step that fails remains.
#[derive(Debug, Default)]
struct StepTree {
    bars: MultiProgress,
    running: Mutex<HashMap<String, RunningStep>>,
}

#[derive(Debug)]
struct RunningStep {
    bar: ProgressBar,
    /// The last line of output, below the step.
    last_line: Option<ProgressBar>,
    /// The last lines of output.
    log: VecDeque<String>,
}

/// The number of lines of output that remain of a step that fails.
const MAX_FAILED_LINES: usize = 20;

impl StepTree {
    fn line(&self, text: &str) {
        // Printing fails only if the terminal is gone.
        let _ = self.bars.println(output::line(text));
    }

    /// Removes a step from the running ones and returns its time and the end of its output.
    fn end(&self, step: &str) -> Option<(Duration, VecDeque<String>)> {
        let ended = self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(step)?;
        if let Some(line) = &ended.last_line {
            line.finish_and_clear();
        }
        let time = ended.bar.elapsed();
        ended.bar.finish_and_clear();
        Some((time, ended.log))
    }
}

impl ocikit_build::Observer for StepTree {
    fn progress(&self, progress: &BuildProgress) {
        match progress {
            BuildProgress::Started { step } => {
                let bar = self.bars.add(styled(ProgressBar::new_spinner(), "{spinner} {wide_msg} {elapsed}"));
                bar.enable_steady_tick(TICK);
                bar.set_message(output::line(step).into_owned());
                let started = RunningStep { bar, last_line: None, log: VecDeque::new() };
                let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(before) = running.insert(step.clone(), started) {
                    before.bar.finish_and_clear();
                }
            }
            BuildProgress::Log { step, line } => {
                let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(RunningStep { bar, last_line, log }) = running.get_mut(step) else { return };
                let below = last_line.get_or_insert_with(|| {
                    let below = styled(ProgressBar::new_spinner(), "  | {wide_msg}");
                    self.bars.insert_after(bar, below)
                });
                below.set_message(output::line(line).into_owned());
                log.push_back(line.clone());
                if log.len() > MAX_FAILED_LINES {
                    log.pop_front();
                }
            }
            BuildProgress::Completed { step, cached } => {
                if let Some((time, _)) = self.end(step) {
                    match cached {
                        true => self.line(&format!("CACHED {step}")),
                        false => self.line(&format!("DONE {step} {:.1}s", time.as_secs_f64())),
                    }
                }
            }
            BuildProgress::Failed { step, error } => {
                let log = self.end(step).map(|(_, log)| log).unwrap_or_default();
                self.line(&format!("ERROR {step}: {error}"));
                log.iter().for_each(|line| self.line(&format!("  | {line}")));
            }
            BuildProgress::Warning { message } => self.line(&format!("WARNING {message}")),
            _ => {}
        }
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
