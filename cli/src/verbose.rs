//! What `-v` shows: each request to a registry, in a line.

use std::time::Duration;

use ocikit::Registry;
use ocikit::registry::{RequestEvent, RequestObserver, RequestOutcome};
use serde_json::{Value, json};

use crate::output::{self, Output};
use crate::progress::Form;

/// Shows requests, where that is wanted, in the form in which progress is shown, and warns about credentials.
#[derive(Debug)]
pub(crate) struct Requests {
    pub(crate) form: Form,
    pub(crate) output: Output,
    /// Whether requests are shown.
    pub(crate) requests: bool,
}

impl RequestObserver for Requests {
    fn request(&self, event: RequestEvent<'_>) {
        if !self.requests {
            return;
        }
        match self.form {
            Form::Json => output::note_json(&as_json(&event)),
            _ => output::note(as_words(&event)),
        }
    }

    fn credential_failed(&self, registry: &Registry, problem: &str) {
        let warning = format!("warning: cannot read credentials for {registry}, trying without: {problem}");
        self.output.say(warning);
    }
}

fn as_words(event: &RequestEvent<'_>) -> String {
    let RequestEvent { method, url, outcome, .. } = event;
    match outcome {
        RequestOutcome::Answered { status, time } => format!("{method} {url}: {status} in {} ms", time.as_millis()),
        RequestOutcome::Failed { problem, time } => format!("{method} {url}: {problem} after {} ms", time.as_millis()),
        RequestOutcome::Retried { pause, failures } => {
            format!("{method} {url}: failed {failures} times, again in {} ms", pause.as_millis())
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
