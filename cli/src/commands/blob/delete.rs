use clap::Args;
use ocikit::Location;
use serde_json::json;

use super::digest::digest_of;
use crate::context::Context;
use crate::failure::Result;
use crate::remote;

const DELETE_EXAMPLES: &str = "\
Examples:
  ocikit blob delete ghcr.io/acme/app@sha256:ef8b48ccc49e0036161617d8b451b4052403a759a518b624c351db6ac79a8452
  ocikit blob delete --dry-run ghcr.io/acme/app@sha256:ef8b48ccc49e0036161617d8b451b4052403a759a518b624c351db6ac79a8452";

/// Delete a blob from a repository, whether or not a manifest lists it
///
/// An image whose blob is deleted cannot be pulled any more. In a layout, `ocikit gc` removes the blobs that no image needs.
#[derive(Debug, Args)]
#[command(after_help = DELETE_EXAMPLES)]
pub(super) struct Delete {
    /// Blob to delete: REPOSITORY@DIGEST
    location: Location,
    /// Check that the blob exists without deleting it
    #[arg(long)]
    dry_run: bool,
}

impl Delete {
    pub(super) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        let digest = digest_of(&location, "delete a blob of")?;
        let (repository, _) = remote::open(context, &location)?;
        match self.dry_run {
            true => drop(context.session(&[&location])?.find_blob(&location, &digest).await?),
            false => repository.delete_blob(&digest).await?,
        }
        let result = json!({ "location": remote::place(&location), "digest": digest, "dryRun": self.dry_run });
        context.output.result(&result, || digest.to_string())
    }
}
