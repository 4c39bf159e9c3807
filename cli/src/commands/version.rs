use clap::Args;
use serde::Serialize;

use crate::context::Context;
use crate::failure::Result;

const EXAMPLES: &str = "\
Examples:
  ocikit version
  ocikit version --json";

/// Print the version
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Version {}

#[derive(Serialize)]
struct VersionOutput {
    name: &'static str,
    version: &'static str,
    target: String,
}

impl Version {
    #[allow(clippy::unused_self, reason = "all commands have the same interface")]
    pub(crate) fn run(&self, context: &Context) -> Result {
        let target = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
        let result = VersionOutput { name: "ocikit", version: env!("CARGO_PKG_VERSION"), target };
        context.output.result(&result, || format!("ocikit {} ({})", result.version, result.target))
    }
}
