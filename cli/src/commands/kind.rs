use clap::Args;
use ocikit::Location;
use serde::Serialize;

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

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KindOutput {
    kind: &'static str,
    digest: ocikit::Digest,
    media_type: ocikit::MediaType,
}

impl Kind {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        let root = context.session(&[&location])?.open(&location).await?;
        let kind = ocikit::ArtifactKind::of(&root).as_str();
        let result = KindOutput { kind, digest: root.digest(), media_type: root.descriptor().media_type.clone() };
        context.output.result(&result, || kind.to_owned())
    }
}
