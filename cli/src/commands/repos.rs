use clap::Args;
use ocikit::registry::ListOptions;
use ocikit::{Registry, Repository};
use serde_json::json;

use crate::context::Context;
use crate::failure::{Code, Failure, Result};
use crate::output::Lines;
use crate::remote;

const EXAMPLES: &str = "\
Examples:
  ocikit repos localhost:5000
  ocikit repos --full --limit 100 registry.example.com";

/// List the repositories of a registry
///
/// Lists all repositories unless `--limit` is given. Many public registries do not offer this list.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Repos {
    /// Registry to list
    #[arg(value_parser = remote::registry)]
    registry: Registry,
    /// List at most this many repositories
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// List only the repositories that follow this one in the registry's list
    #[arg(long, value_name = "REPOSITORY")]
    after: Option<String>,
    /// Print names with the registry, as other commands accept them
    #[arg(long)]
    full: bool,
}

impl Repos {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let client = context.client_of([&self.registry])?;
        let options = ListOptions::default().limit(self.limit.map(|limit| limit as usize)).after(self.after.clone());
        let listed = client.catalog_part(&self.registry, &options).await;
        let listed = listed.map_err(|error| match Failure::from(error) {
            // The response does not show whether the registry has no catalog or hides it from this user.
            Failure { code: Code::Other | Code::Missing, message, .. } => {
                Failure::new(Code::Other, message).hint("many registries do not list their repositories")
            }
            failure => failure,
        })?;
        let shown = |repository: &Repository| match self.full {
            true => repository.to_string(),
            false => repository.path().to_owned(),
        };
        let repositories: Vec<_> = listed.iter().map(shown).collect();
        let result = json!({ "registry": self.registry.to_string(), "repositories": repositories });
        context.output.result(&result, || repositories.iter().collect::<Lines>())
    }
}
