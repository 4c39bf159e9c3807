use clap::Args;
use ocikit::Location;
use serde::Serialize;

use crate::context::Context;
use crate::failure::Result;

/// Print in one word what something is: image, index, artifact, attestation, …
///
/// One of: image, index, artifact, attestation, cosign-signature, notation-signature, sigstore-bundle, helm-chart, wasm,
/// docker-image, docker-index, docker-schema1, unknown.
#[derive(Debug, Args)]
pub(crate) struct Kind {
    /// What to look at
    location: Location,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Facts {
    kind: &'static str,
    digest: ocikit::Digest,
    media_type: ocikit::MediaType,
}

impl Kind {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        let root = context.session(&[&location])?.open(&location).await?;
        let kind = ocikit::Kind::of(&root).as_str();
        let facts = Facts { kind, digest: root.digest(), media_type: root.descriptor().media_type.clone() };
        context.output.facts(&facts, || kind.to_owned())
    }
}
