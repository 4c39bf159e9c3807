use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// A progress event of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// A step started.
    Started {
        /// The name of the step: `[2/3] RUN make`.
        step: String,
    },
    /// A step ended.
    Completed {
        /// The name of the step.
        step: String,
        /// Whether its result was in the cache.
        cached: bool,
    },
    /// A step failed.
    Failed {
        /// The name of the step.
        step: String,
        /// The error message of BuildKit.
        error: String,
    },
    /// A step printed a line.
    Log {
        /// The name of the step.
        step: String,
        /// The line, without its end.
        line: String,
    },
    /// A warning of BuildKit or of the linter for Dockerfiles.
    Warning {
        /// The warning.
        message: String,
    },
}

/// Receives progress events, on the thread that reads BuildKit's output.
pub trait Observer: std::fmt::Debug + Send + Sync + 'static {
    /// Handles an event.
    fn progress(&self, progress: &Progress);
}

/// Converts lines of `buildctl --progress=rawjson` to events; any other line is kept as a message.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    steps: HashMap<String, Step>,
    /// The first step that failed.
    failed: Option<String>,
    /// The last line that was not JSON: `error: …` if the build failed.
    message: Option<String>,
}

#[derive(Debug, Default)]
struct Step {
    name: String,
    /// The time of its last start, as BuildKit wrote it.
    started: Option<String>,
    /// Whether its end was reported, and if so whether it was cached: BuildKit looks a step up in its cache several
    /// times and reports each.
    ended: Option<bool>,
    /// Output that is not a complete line yet.
    partial: String,
    /// The last complete lines.
    log: Vec<String>,
}

const MOST_LOG_LINES: usize = 20;

/// The maximum size of a line in bytes. A longer one, such as a progress bar without line ends, becomes several.
const MAX_PARTIAL_BYTES: usize = 64 << 10;

impl Step {
    /// Notes a line of output and returns its event.
    fn line(&mut self, line: &str) -> Progress {
        let line = line.trim_end_matches('\r').to_owned();
        if self.log.len() == MOST_LOG_LINES {
            self.log.remove(0);
        }
        self.log.push(line.clone());
        Progress::Log { step: self.name.clone(), line }
    }
}

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    vertexes: Option<Vec<Vertex>>,
    #[serde(default)]
    logs: Option<Vec<Log>>,
    #[serde(default)]
    warnings: Option<Vec<Warning>>,
}

#[derive(Deserialize)]
struct Vertex {
    digest: String,
    #[serde(default)]
    name: String,
    started: Option<String>,
    completed: Option<String>,
    #[serde(default)]
    cached: bool,
    #[serde(default)]
    error: String,
}

#[derive(Deserialize)]
struct Log {
    vertex: String,
    #[serde(default)]
    data: String,
}

#[derive(Deserialize)]
struct Warning {
    #[serde(default)]
    short: String,
}

impl Reader {
    /// Returns the events of a line.
    pub(crate) fn read(&mut self, line: &str) -> Vec<Progress> {
        let Ok(parsed) = serde_json::from_str::<Line>(line) else {
            if !line.trim().is_empty() && !is_log(line) {
                self.message = Some(line.trim().to_owned());
            }
            return Vec::new();
        };
        let mut told = Vec::new();
        for vertex in parsed.vertexes.unwrap_or_default() {
            self.vertex(vertex, &mut told);
        }
        for log in parsed.logs.unwrap_or_default() {
            self.log(&log, &mut told);
        }
        for warning in parsed.warnings.unwrap_or_default() {
            told.push(Progress::Warning { message: decoded(&warning.short) });
        }
        told
    }

    fn vertex(&mut self, vertex: Vertex, told: &mut Vec<Progress>) {
        let step = self.steps.entry(vertex.digest.clone()).or_default();
        step.name.clone_from(&vertex.name);
        if step.started.is_none() && vertex.started.is_some() {
            step.started = vertex.started;
            told.push(Progress::Started { step: vertex.name.clone() });
        }
        if vertex.completed.is_some() && step.ended != Some(vertex.cached) {
            step.ended = Some(vertex.cached);
            // The last line may have no end.
            let rest = std::mem::take(&mut step.partial);
            told.extend((!rest.is_empty()).then(|| step.line(&rest)));
            if vertex.error.is_empty() {
                told.push(Progress::Completed { step: vertex.name, cached: vertex.cached });
            } else {
                self.failed.get_or_insert(vertex.digest);
                told.push(Progress::Failed { step: vertex.name, error: vertex.error });
            }
        }
    }

    fn log(&mut self, log: &Log, told: &mut Vec<Progress>) {
        let Some(step) = self.steps.get_mut(&log.vertex) else { return };
        step.partial.push_str(&decoded(&log.data));
        while let Some((line, rest)) = step.partial.split_once('\n') {
            let (line, rest) = (line.to_owned(), rest.to_owned());
            step.partial = rest;
            told.push(step.line(&line));
        }
        if step.partial.len() > MAX_PARTIAL_BYTES {
            let line = std::mem::take(&mut step.partial);
            told.push(step.line(&line));
        }
    }

    /// Returns the error message of `buildctl`, if it printed one, and the last lines of the failed step.
    pub(crate) fn failure(&self) -> (Option<String>, String) {
        let message = self.message.as_deref().map(|text| text.strip_prefix("error: ").unwrap_or(text).to_owned());
        let step = self.failed.as_ref().and_then(|digest| self.steps.get(digest));
        (message, step.map(|step| step.log.join("\n")).unwrap_or_default())
    }
}

/// Returns whether a line is one of the log of `buildctl`, which is not about the outcome.
fn is_log(line: &str) -> bool {
    line.starts_with("time=") && ["level=debug", "level=info", "level=warning"].iter().any(|level| line.contains(level))
}

fn decoded(base64: &str) -> String {
    let bytes = STANDARD.decode(base64).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_lines_become_progress_events() {
        let mut reader = Reader::default();
        let data = STANDARD.encode("one\r\ntw");
        let more = STANDARD.encode("o\n");
        let short = STANDARD.encode("careful");
        let mut told = Vec::new();
        for line in [
            r#"{"vertexes":[{"digest":"sha256:a","name":"RUN x"}]}"#,
            r#"{"vertexes":[{"digest":"sha256:a","name":"RUN x","started":"t"}]}"#,
            r#"{"vertexes":[{"digest":"sha256:a","name":"RUN x","started":"t"}]}"#,
            &format!(r#"{{"logs":[{{"vertex":"sha256:a","stream":1,"data":"{data}","timestamp":"t"}}]}}"#),
            "time=\"x\" level=warning msg=junk",
            &format!(r#"{{"logs":[{{"vertex":"sha256:a","data":"{more}"}}],"warnings":[{{"short":"{short}"}}]}}"#),
            r#"{"vertexes":[{"digest":"sha256:b","name":"COPY","started":"t","completed":"t","cached":true}],"statuses":null}"#,
            r#"{"vertexes":[{"digest":"sha256:a","name":"RUN x","started":"t","completed":"t","error":"exit code: 7"}]}"#,
            "error: failed to solve: exit code: 7",
            "time=\"x\" level=warning msg=\"failed check for fsverity support\"",
            "",
        ] {
            told.extend(reader.read(line));
        }
        let step = || "RUN x".to_owned();
        assert_eq!(
            told,
            [
                Progress::Started { step: step() },
                Progress::Log { step: step(), line: "one".to_owned() },
                Progress::Log { step: step(), line: "two".to_owned() },
                Progress::Warning { message: "careful".to_owned() },
                Progress::Started { step: "COPY".to_owned() },
                Progress::Completed { step: "COPY".to_owned(), cached: true },
                Progress::Failed { step: step(), error: "exit code: 7".to_owned() },
            ]
        );
        assert_eq!(reader.failure(), (Some("failed to solve: exit code: 7".to_owned()), "one\ntwo".to_owned()));
    }

    #[test]
    fn output_without_line_ends_is_not_lost_and_not_collected() {
        let mut reader = Reader::default();
        reader.read(r#"{"vertexes":[{"digest":"sha256:a","name":"RUN x","started":"t"}]}"#);
        let data = STANDARD.encode("x".repeat(MAX_PARTIAL_BYTES / 2 + 1));
        let line = format!(r#"{{"logs":[{{"vertex":"sha256:a","data":"{data}"}}]}}"#);
        assert!(reader.read(&line).is_empty());
        assert_eq!(reader.read(&line).len(), 1);
        assert!(
            reader
                .read(&format!(r#"{{"logs":[{{"vertex":"sha256:a","data":"{}"}}]}}"#, STANDARD.encode("end")))
                .is_empty()
        );
        let told = reader.read(r#"{"vertexes":[{"digest":"sha256:a","name":"RUN x","started":"t","completed":"t"}]}"#);
        assert!(
            matches!(&told[..], [Progress::Log { line, .. }, Progress::Completed { .. }] if line == "end"),
            "{told:?}"
        );
    }
}
