//! Progress of a run: on a terminal a line for each image that is being built, elsewhere a line for each event.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar};
use ocikit::spec::with_causes;
use ocikit_build::{Observer, Progress};
use ocikit_publish::project::{BuildObserver, ImageOutcome};
use serde_json::json;

use crate::context::Context;
use crate::output;
use crate::progress::{ProgressFormat, TICK, styled};

/// Returns what follows a run of this number of images.
pub(super) fn observer(context: &Context, images: usize) -> Box<dyn BuildObserver + '_> {
    match context.progress {
        ProgressFormat::Tty if std::io::stderr().is_terminal() => Box::new(ImageTree::new(images)),
        ProgressFormat::Json => Box::new(Events),
        _ => Box::new(Announce { context, steps: context.progress.of_build() }),
    }
}

/// Returns what happened to an image, in words.
fn words(outcome: &ImageOutcome) -> String {
    match outcome {
        ImageOutcome::Built(done) => format!("built {}", done.digest),
        ImageOutcome::Present(done) => format!("exists {}", done.digest),
        ImageOutcome::Failed(error) => format!("failed: {}", with_causes(error)),
        _ => "skipped".to_owned(),
    }
}

/// Prints which images start and end, and their steps.
#[derive(Debug)]
struct Announce<'a> {
    context: &'a Context,
    steps: Option<Arc<dyn Observer>>,
}

impl BuildObserver for Announce<'_> {
    fn started(&self, image: &str, version: &str) -> Option<Arc<dyn Observer>> {
        self.context.output.say(format!("{image}:{version}: building"));
        let steps = self.steps.clone()?;
        Some(Arc::new(OfImage { image: image.to_owned(), steps }))
    }

    fn publishing(&self, image: &str, version: &str) {
        self.context.output.say(format!("{image}:{version}: publishing"));
    }

    fn ended(&self, image: &str, outcome: &ImageOutcome) {
        self.context.output.say(format!("{image}: {}", words(outcome)));
    }
}

/// Adds the name of an image to the names of its steps.
#[derive(Debug)]
struct OfImage {
    image: String,
    steps: Arc<dyn Observer>,
}

impl Observer for OfImage {
    fn progress(&self, progress: &Progress) {
        let name = |step: &String| format!("{}: {step}", self.image);
        self.steps.progress(&match progress {
            Progress::Started { step } => Progress::Started { step: name(step) },
            Progress::Completed { step, cached } => Progress::Completed { step: name(step), cached: *cached },
            Progress::Failed { step, error } => Progress::Failed { step: name(step), error: error.clone() },
            Progress::Log { step, line } => Progress::Log { step: name(step), line: line.clone() },
            Progress::Warning { message } => Progress::Warning { message: name(message) },
            other => other.clone(),
        });
    }
}

/// Prints events as JSON.
#[derive(Debug)]
struct Events;

impl BuildObserver for Events {
    fn started(&self, image: &str, version: &str) -> Option<Arc<dyn Observer>> {
        output::print_json(&json!({"event": "image-started", "image": image, "version": version}));
        let steps = ProgressFormat::Json.of_build()?;
        Some(Arc::new(OfImage { image: image.to_owned(), steps }))
    }

    fn publishing(&self, image: &str, version: &str) {
        output::print_json(&json!({"event": "image-publishing", "image": image, "version": version}));
    }

    fn ended(&self, image: &str, outcome: &ImageOutcome) {
        let status = match outcome {
            ImageOutcome::Built(_) => "built",
            ImageOutcome::Present(_) => "present",
            ImageOutcome::Failed(_) => "failed",
            _ => "skipped",
        };
        output::print_json(&json!({"event": "image-ended", "image": image, "status": status}));
    }
}

/// Shows a line for each running image with its present step and its time, and a line with the numbers below them. Finished
/// images scroll away above.
#[derive(Debug)]
struct ImageTree {
    bars: MultiProgress,
    total: ProgressBar,
    running: Mutex<BTreeMap<String, ProgressBar>>,
    failed: Mutex<usize>,
}

impl ImageTree {
    fn new(images: usize) -> ImageTree {
        let bars = MultiProgress::new();
        let template = "{bar:30} {pos} of {len} images  {elapsed}  {msg}";
        let total = bars.add(styled(ProgressBar::new(images as u64), template));
        total.enable_steady_tick(TICK);
        ImageTree { bars, total, running: Mutex::default(), failed: Mutex::default() }
    }

    /// Returns the line of an image, which is added if it has none.
    fn line_of(&self, image: &str, version: &str) -> ProgressBar {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            let bar = styled(ProgressBar::new_spinner(), "{spinner} {prefix} {elapsed}  {wide_msg}");
            let bar = self.bars.insert_before(&self.total, bar);
            bar.set_prefix(format!("{image}:{version}"));
            bar.enable_steady_tick(TICK);
            bar
        };
        running.entry(image.to_owned()).or_insert_with(new).clone()
    }
}

impl BuildObserver for ImageTree {
    fn started(&self, image: &str, version: &str) -> Option<Arc<dyn Observer>> {
        Some(Arc::new(ImageLine { bar: self.line_of(image, version), bars: self.bars.clone() }))
    }

    fn publishing(&self, image: &str, version: &str) {
        self.line_of(image, version).set_message("publishing");
    }

    fn ended(&self, image: &str, outcome: &ImageOutcome) {
        let bar = self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(image);
        let seconds = bar.map_or(0.0, |bar| {
            let seconds = bar.elapsed().as_secs_f64();
            bar.finish_and_clear();
            seconds
        });
        // Printing fails only if the terminal is gone.
        let _ = self.bars.println(output::line(&format!("{image}: {} {seconds:.1}s", words(outcome))));
        self.total.inc(1);
        if matches!(outcome, ImageOutcome::Failed(_)) {
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            *failed += 1;
            self.total.set_message(format!("{failed} failed"));
        }
    }
}

impl Drop for ImageTree {
    fn drop(&mut self) {
        self.total.finish_and_clear();
    }
}

/// Shows the step of an image in its line.
#[derive(Debug)]
struct ImageLine {
    bar: ProgressBar,
    bars: MultiProgress,
}

impl Observer for ImageLine {
    fn progress(&self, progress: &Progress) {
        match progress {
            Progress::Started { step } => self.bar.set_message(output::line(step).into_owned()),
            Progress::Log { line, .. } => self.bar.set_message(output::line(line).into_owned()),
            Progress::Failed { step, error } => {
                let _ = self.bars.println(output::line(&format!("{}: {step}: {error}", self.bar.prefix())));
            }
            Progress::Warning { message } => {
                let _ = self.bars.println(output::line(&format!("{}: WARNING {message}", self.bar.prefix())));
            }
            _ => {}
        }
    }
}
