use clap::{Args, Subcommand};
use ocikit_build::{Builder, Candidate};
use serde::Serialize;

use crate::build::BuilderArguments;
use crate::context::Context;
use crate::failure::{Code, Failure, Result};
use crate::output::Lines;

const EXAMPLES: &str = "\
Examples:
  ocikit buildkit status
  ocikit buildkit status --addr docker-container://buildkitd";

/// Show which BuildKit a build uses
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Buildkit {
    #[command(subcommand)]
    command: BuildkitCommand,
}

#[derive(Debug, Subcommand)]
enum BuildkitCommand {
    Status(Status),
}

const STATUS_EXAMPLES: &str = "\
Examples:
  ocikit buildkit status
  ocikit buildkit status --builder linux/amd64=tcp://a:1234 --json";

/// Show which BuildKit a build would use, and why not the others
///
/// Starts no daemon. Fails if no BuildKit can be used.
#[derive(Debug, Args)]
#[command(after_help = STATUS_EXAMPLES)]
struct Status {
    #[command(flatten)]
    builder: BuilderArguments,
}

#[derive(Serialize)]
struct StatusOutput {
    builders: Vec<CandidateOutput>,
}

#[derive(Serialize)]
struct CandidateOutput {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    /// Whether a build would use it.
    used: bool,
    /// Why it cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

impl Buildkit {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let BuildkitCommand::Status(status) = &self.command;
        status.run(context).await
    }
}

impl Status {
    async fn run(&self, context: &Context) -> Result {
        let options = self.builder.options(&[], Vec::new())?;
        let candidates = Builder::candidates(&options).await;
        // Given addresses are all used, even if one cannot be reached; otherwise the first that can be used.
        let used: Vec<_> = match options.nodes.len() {
            0 => candidates.iter().position(|candidate| candidate.problem.is_none()).into_iter().collect(),
            given => (0..given).collect(),
        };
        let is_usable = !used.is_empty() && used.iter().all(|position| candidates[*position].problem.is_none());
        let builders = candidates.into_iter().enumerate();
        let builders = builders.map(|(position, found)| CandidateOutput::of(found, used.contains(&position)));
        let result = StatusOutput { builders: builders.collect() };
        context.output.result(&result, || result.builders.iter().map(CandidateOutput::line).collect::<Lines>())?;
        match is_usable {
            true => Ok(()),
            false => Err(Failure::new(Code::Missing, "no BuildKit can be used")
                .hint("install `buildctl`, `buildkitd` and `runc`, or set BUILDKIT_HOST to a running BuildKit")),
        }
    }
}

impl CandidateOutput {
    fn of(found: Candidate, used: bool) -> CandidateOutput {
        CandidateOutput {
            kind: found.kind.as_str(),
            address: found.address.map(|address| address.to_string()),
            version: found.version,
            used,
            problem: found.problem,
        }
    }

    fn line(&self) -> String {
        let name = self.address.as_deref().unwrap_or(self.kind);
        let mode = match self.kind {
            "buildkitd" => format!(" ({})", Builder::daemon_mode()),
            _ => String::new(),
        };
        let version = self.version.as_deref().map(|version| format!(" {version}")).unwrap_or_default();
        let state = match (&self.problem, self.used) {
            (Some(problem), _) => format!("cannot be used: {problem}"),
            (None, true) => "used".to_owned(),
            (None, false) => "not needed".to_owned(),
        };
        format!("{name}{mode}{version}: {state}")
    }
}
