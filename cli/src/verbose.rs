//! The output of `-v`: one line for each request to a registry.

use std::time::Duration;

use ocikit::Registry;
use ocikit::registry::{RequestEvent, RequestObserver, RequestOutcome};
use serde_json::{Value, json};

use crate::output::{self, Output};
use crate::progress::ProgressFormat;

/// Prints requests in the format of progress, if requested, and warnings about credentials.
#[derive(Debug)]
pub(crate) struct RequestLog {
    pub(crate) form: ProgressFormat,
    pub(crate) output: Output,
    /// Whether to print requests.
    pub(crate) requests: bool,
}

impl RequestObserver for RequestLog {
    fn request(&self, event: RequestEvent<'_>) {
        if !self.requests {
            return;
        }
        match self.form {
            ProgressFormat::Json => output::print_json(&as_json(&event)),
            _ => output::print_lines(as_words(&event)),
        }
    }

    fn credential_failed(&self, registry: &Registry, problem: &str) {
        let warning =
            format!("warning: cannot read credentials for {registry}: {problem}; continuing without credentials");
        self.output.say(warning);
    }
}

fn as_words(event: &RequestEvent<'_>) -> String {
    let RequestEvent { method, url, outcome, .. } = event;
    match outcome {
        RequestOutcome::Answered { status, time } => format!("{method} {url}: {status} in {} ms", time.as_millis()),
        RequestOutcome::Failed { problem, time } => format!("{method} {url}: {problem} after {} ms", time.as_millis()),
        RequestOutcome::Retried { pause, failures } => {
            format!("{method} {url}: failed {failures} times, retrying in {} ms", pause.as_millis())
        }
        _ => format!("{method} {url}"),
    }
}

fn as_json(event: &RequestEvent<'_>) -> Value {
    let RequestEvent { method, url, outcome, .. } = event;
    let milliseconds = |time: &Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let mut line = json!({"event": "request", "method": method, "url": url});
    match outcome {
        RequestOutcome::Answered { status, time } => {
            line["status"] = json!(status);
            line["milliseconds"] = json!(milliseconds(time));
        }
        RequestOutcome::Failed { problem, time } => {
            line["problem"] = json!(problem);
            line["milliseconds"] = json!(milliseconds(time));
        }
        RequestOutcome::Retried { pause, failures } => {
            line["failures"] = json!(failures);
            line["againInMilliseconds"] = json!(milliseconds(pause));
        }
        _ => {}
    }
    line
}
