use clap::Args;
use serde_json::json;

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

impl Version {
    #[allow(clippy::unused_self, reason = "all commands have the same interface")]
    pub(crate) fn run(&self, context: &Context) -> Result {
        let target = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
        let version = env!("CARGO_PKG_VERSION");
        let result = json!({ "name": "ocikit", "version": version, "target": target });
        context.output.result(&result, || format!("ocikit {version} ({target})"))
    }
}
