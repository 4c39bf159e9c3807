use std::sync::Arc;

use clap::Args;
use ocikit::image::Memory;
use ocikit::{Location, MediaType, Source};
use serde_json::json;

use super::files::FileArguments;
use crate::archive::ArchiveArguments;
use crate::context::Context;
use crate::failure::Result;
use crate::output::without_nulls;
use crate::remote;

const EXAMPLES: &str = "\
Examples:
  ocikit artifact push ghcr.io/acme/policy:1 policy.rego --artifact-type application/vnd.acme.policy
  ocikit artifact push ghcr.io/acme/docs:1 site index.html:text/html
  ocikit artifact push ghcr.io/acme/chart:1 chart.tgz:application/vnd.cncf.helm.chart.content.v1.tar+gzip --config Chart.json:application/vnd.cncf.helm.config.v1+json
  ocikit artifact push artifact.tar report.json -a org.opencontainers.image.revision=6c22711";

/// Push files and directories as an artifact
///
/// The same files give the same digest: modification times and owners in directories are left out, and
/// `org.opencontainers.image.created` is set only from SOURCE_DATE_EPOCH or with `--annotation`. Prints the location with the
/// digest.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Push {
    /// Where to store the artifact
    location: Location,
    #[command(flatten)]
    files: FileArguments,
    /// Print the digest without storing anything
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    archive: ArchiveArguments,
}

impl Push {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let location = context.expand_output(&self.location);
        let source: Arc<dyn Source> = Arc::new(Memory::new());
        let root = self.files.artifact(context).await?.finish(&source)?;
        if !self.dry_run {
            let session = context.session_with(&[&location], self.archive.options())?;
            crate::transfer::copy_out(&session, &root, &location, &location).await?;
        }
        if crate::file::writes_to_stdout(&location) {
            return Ok(());
        }
        let descriptor = root.descriptor();
        let result = without_nulls(json!({
            "location": location.to_string(),
            "digest": descriptor.digest,
            "mediaType": descriptor.media_type,
            "artifactType": artifact_type(&root),
            "size": descriptor.size,
            "dryRun": self.dry_run,
        }));
        context.output.result(&result, || format!("{}@{}", remote::place(&location), descriptor.digest))
    }
}

/// Returns the artifact type of a manifest, or the media type of its config.
pub(super) fn artifact_type(root: &ocikit::Root) -> Option<MediaType> {
    match root {
        ocikit::Root::Other(artifact) => artifact.manifest()?.artifact_type().cloned(),
        ocikit::Root::Image(_) | ocikit::Root::Index(_) => None,
    }
}
