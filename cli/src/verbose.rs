//! What `-v` shows: each request to a registry, in a line.

#![allow(clippy::print_stderr, reason = "it is talk")]

use std::time::Duration;

use ocikit::registry::{RequestEvent, RequestObserver, RequestOutcome};
use serde_json::json;

use crate::output;
use crate::progress::Form;

/// Shows requests in the form in which progress is shown.
#[derive(Debug)]
pub(crate) struct Requests(pub(crate) Form);

impl RequestObserver for Requests {
    fn request(&self, event: RequestEvent<'_>) {
        let line = match self.0 {
            Form::Json => as_json(&event),
            _ => as_words(&event),
        };
        eprintln!("{}", output::line(&line));
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

fn as_json(event: &RequestEvent<'_>) -> String {
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
    line.to_string()
}
