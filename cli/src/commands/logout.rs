use clap::Args;
use ocikit::Registry;
use serde::Serialize;

use crate::context::Context;
use crate::failure::Result;
use crate::output::Lines;

/// Forget the credentials for a registry
#[derive(Debug, Args)]
pub(crate) struct Logout {
    /// The registry
    #[arg(value_parser = super::login::registry)]
    registry: Registry,
}

#[derive(Serialize)]
struct Facts {
    registry: String,
    removed: bool,
}

impl Logout {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let removed = context.docker_config(&self.registry).await?.logout(&self.registry).await?;
        let facts = Facts { registry: self.registry.to_string(), removed };
        context.output.say(match removed {
            true => format!("logged out of {}", facts.registry),
            false => format!("there were no credentials for {}", facts.registry),
        });
        if context.output.json { context.output.facts(&facts, Lines::default) } else { Ok(()) }
    }
}
