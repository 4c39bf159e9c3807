use clap::Args;
use ocikit::registry::CredentialScope;
use serde_json::json;

use crate::context::Context;
use crate::failure::Result;
use crate::output::Lines;

const EXAMPLES: &str = "\
Examples:
  ocikit logout ghcr.io
  ocikit logout --authfile auth.json registry.example.com";

/// Remove the stored credentials for a registry
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Logout {
    /// Registry, or repository or namespace in it, to log out of
    #[arg(value_name = "REGISTRY")]
    scope: CredentialScope,
}

impl Logout {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let removed = context.docker_config(&self.scope).await?.logout(&self.scope).await?;
        let registry = self.scope.to_string();
        context.output.say(match removed {
            true => format!("logged out of {registry}"),
            false => format!("no stored credentials for {registry}"),
        });
        context.output.result(&json!({ "registry": registry, "removed": removed }), Lines::default)
    }
}
