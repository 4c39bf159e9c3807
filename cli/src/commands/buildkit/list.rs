use clap::Args;
use ocikit::Digest;
use ocikit_build::Installation;
use serde::Serialize;
use serde_json::json;

use super::installed::installed;
use crate::context::Context;
use crate::failure::Result;
use crate::output::Lines;

const LIST_EXAMPLES: &str = "\
Examples:
  ocikit buildkit list
  ocikit buildkit list --json";

/// List installed BuildKits; the first one is used
#[derive(Debug, Args)]
#[command(after_help = LIST_EXAMPLES)]
pub(super) struct List {}

#[derive(Serialize)]
pub(super) struct InstallationOutput {
    digest: Digest,
    version: String,
    platform: String,
    location: String,
    path: String,
    /// Why it cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

impl List {
    pub(super) fn run(&self, context: &Context) -> Result {
        let installations: Vec<_> = installed()?.list()?.into_iter().map(InstallationOutput::of).collect();
        let lines = || installations.iter().map(InstallationOutput::line).collect::<Lines>();
        context.output.result(&json!({ "installations": installations }), lines)
    }
}

impl InstallationOutput {
    pub(super) fn of(found: Installation) -> InstallationOutput {
        InstallationOutput {
            digest: found.digest,
            version: found.version,
            platform: found.source.platform.to_string(),
            location: found.source.location,
            path: found.programs.display().to_string(),
            problem: found.problem,
        }
    }

    fn line(&self) -> String {
        let InstallationOutput { digest, version, platform, location, problem, .. } = self;
        let problem = problem.as_ref().map(|problem| format!(" (cannot be used: {problem})")).unwrap_or_default();
        format!("{digest} {version} {platform} {location}{problem}")
    }
}
