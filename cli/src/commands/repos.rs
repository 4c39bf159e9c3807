use clap::Args;
use ocikit::registry::ListOptions;
use ocikit::{Registry, Repository};
use serde::Serialize;

use super::remote;
use crate::context::Context;
use crate::failure::{Code, Failure, Result};
use crate::output::Lines;

/// List the repositories of a registry, all of them unless --limit says how many
///
/// Many public registries tell nobody.
#[derive(Debug, Args)]
pub(crate) struct Repos {
    /// The registry
    #[arg(value_parser = remote::registry)]
    registry: Registry,
    /// List no more than this many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// List only what the registry lists after this one
    #[arg(long, value_name = "REPOSITORY")]
    after: Option<String>,
    /// Print them with the name of the registry, as other commands take them
    #[arg(long)]
    full: bool,
}

#[derive(Serialize)]
struct Facts {
    registry: String,
    repositories: Vec<String>,
}

impl Repos {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let client = context.client_of([&self.registry])?;
        let options = ListOptions { limit: self.limit.map(|limit| limit as usize), after: self.after.clone() };
        let listed = client.catalog_part(&self.registry, &options).await;
        let listed = listed.map_err(|error| match Failure::from(error) {
            // Whether it would tell somebody else nobody can see from its answer.
            Failure { code: Code::Other | Code::Missing, message, .. } => {
                Failure::new(Code::Other, message).hint("many registries do not list their repositories")
            }
            failure => failure,
        })?;
        let shown = |repository: &Repository| match self.full {
            true => repository.to_string(),
            false => repository.path().to_owned(),
        };
        let facts = Facts { registry: self.registry.to_string(), repositories: listed.iter().map(shown).collect() };
        context.output.facts(&facts, || facts.repositories.iter().collect::<Lines>())
    }
}
