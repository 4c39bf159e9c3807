use clap::Args;
use ocikit::Digest;
use ocikit_build::{Builder, BuilderKind, Candidate};
use serde::Serialize;
use serde_json::json;

use crate::build::BuilderArguments;
use crate::context::Context;
use crate::failure::{Code, Failure, Result};
use crate::output::Lines;

const STATUS_EXAMPLES: &str = "\
Examples:
  ocikit buildkit status
  ocikit buildkit status --builder linux/amd64=tcp://a:1234 --json";

/// Show which BuildKit a build would use, and why not the others
///
/// Starts no daemon. Fails if no BuildKit can be used.
#[derive(Debug, Args)]
#[command(after_help = STATUS_EXAMPLES)]
pub(super) struct Status {
    #[command(flatten)]
    builder: BuilderArguments,
}

#[derive(Serialize)]
struct CandidateOutput {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// The digest of the image of an installation.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    /// Whether a build would use it.
    used: bool,
    /// Why it cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    /// How a daemon would be started.
    #[serde(skip)]
    mode: &'static str,
}

impl Status {
    pub(super) async fn run(&self, context: &Context) -> Result {
        let options = self.builder.options(&[], Vec::new())?;
        let candidates = Builder::candidates(&options).await;
        // Given addresses are all used, even if one cannot be reached; otherwise the first that can be used.
        let used: Vec<_> = match options.nodes.len() {
            0 => candidates.iter().position(|candidate| candidate.problem.is_none()).into_iter().collect(),
            given => (0..given).collect(),
        };
        let is_usable = !used.is_empty() && used.iter().all(|position| candidates[*position].problem.is_none());
        let builders = candidates.into_iter().enumerate();
        let mode = Builder::daemon_mode(&options.daemon);
        let builders = builders.map(|(position, found)| CandidateOutput::of(found, used.contains(&position), mode));
        let builders: Vec<_> = builders.collect();
        let lines = || builders.iter().map(CandidateOutput::line).collect::<Lines>();
        context.output.result(&json!({ "builders": builders }), lines)?;
        match is_usable {
            true => Ok(()),
            false if options.nodes.is_empty() => Err(Failure::new(Code::Missing, "no BuildKit can be used")
                .hint("run `ocikit buildkit install`, or set BUILDKIT_HOST to a running BuildKit")),
            false => Err(Failure::new(Code::Missing, "the BuildKit at the given address cannot be used")
                .hint("check --addr, --builder or BUILDKIT_HOST; without an address, one is started for the build")),
        }
    }
}

impl CandidateOutput {
    fn of(found: Candidate, used: bool, mode: &'static str) -> CandidateOutput {
        CandidateOutput {
            kind: found.kind.as_str(),
            address: found.address.map(|address| address.to_string()),
            digest: found.installation.map(|installation| installation.digest),
            version: found.version,
            used: used && found.problem.is_none(),
            problem: found.problem.map(|problem| problem.to_string()),
            mode,
        }
    }

    fn line(&self) -> String {
        let name = self.address.as_deref().unwrap_or(self.kind);
        let starts = [BuilderKind::Daemon, BuilderKind::Installed].iter().any(|kind| kind.as_str() == self.kind);
        let mode = if starts { format!(" ({})", self.mode) } else { String::new() };
        let version = self.version.as_deref().map(|version| format!(" {version}")).unwrap_or_default();
        let digest = self.digest.map(|digest| format!(" {digest}")).unwrap_or_default();
        let state = match (&self.problem, self.used) {
            (Some(problem), _) => format!("cannot be used: {problem}"),
            (None, true) => "used".to_owned(),
            (None, false) => "not needed".to_owned(),
        };
        format!("{name}{mode}{version}{digest}: {state}")
    }
}
