use clap::Args;
use serde::Serialize;

use crate::context::Context;
use crate::failure::Result;

/// Print the version
#[derive(Debug, Args)]
pub(crate) struct Version {}

#[derive(Serialize)]
struct Facts {
    name: &'static str,
    version: &'static str,
    target: String,
}

impl Version {
    #[allow(clippy::unused_self, reason = "commands are all run alike")]
    pub(crate) fn run(&self, context: &Context) -> Result {
        let target = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
        let facts = Facts { name: "ocikit", version: env!("CARGO_PKG_VERSION"), target };
        context.output.facts(&facts, || format!("ocikit {} ({})", facts.version, facts.target))
    }
}
