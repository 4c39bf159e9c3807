use clap::Args;
use ocikit::Location;
use serde_json::json;

use super::digest::digest_of;
use crate::context::Context;
use crate::failure::Result;
use crate::remote;

const HEAD_EXAMPLES: &str = "\
Examples:
  ocikit blob head ghcr.io/acme/app@sha256:ef8b48ccc49e0036161617d8b451b4052403a759a518b624c351db6ac79a8452
  ocikit blob head --json app.tar@sha256:ef8b48ccc49e0036161617d8b451b4052403a759a518b624c351db6ac79a8452";

/// Print the digest and the size of a blob without reading it
#[derive(Debug, Args)]
#[command(after_help = HEAD_EXAMPLES)]
pub(super) struct Head {
    /// Blob to query: REPOSITORY@DIGEST, or an archive or layout with @DIGEST
    location: Location,
}

impl Head {
    pub(super) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        let digest = digest_of(&location, "query a blob of")?;
        let size = context.session(&[&location])?.find_blob(&location, &digest).await?.size;
        let result = json!({ "location": remote::place(&location), "digest": digest, "size": size });
        context.output.result(&result, || format!("{digest} {size}"))
    }
}
