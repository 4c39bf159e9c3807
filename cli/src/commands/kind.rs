use clap::Args;
use ocikit::Location;
use serde_json::json;

use crate::context::Context;
use crate::failure::Result;

const EXAMPLES: &str = "\
Examples:
  ocikit kind app.tar
  ocikit kind ghcr.io/acme/app:1";

/// Print the kind of an image or artifact in one word
///
/// One of: image, index, artifact, attestation, cosign-signature, notation-signature, sigstore-bundle, helm-chart,
/// wasm, docker-image, docker-index, docker-schema1, unknown.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Kind {
    /// Image or artifact
    location: Location,
}

impl Kind {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        let root = context.session(&[&location])?.open(&location).await?;
        let kind = ocikit::ArtifactKind::of(&root).as_str();
        let result = json!({ "kind": kind, "digest": root.digest(), "mediaType": root.descriptor().media_type });
        context.output.result(&result, || kind.to_owned())
    }
}
