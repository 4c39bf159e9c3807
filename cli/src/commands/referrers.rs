use clap::Args;
use ocikit::{Descriptor, Location, MediaType, Platform, Root};
use serde_json::json;

use crate::context::Context;
use crate::failure::Result;
use crate::inside;
use crate::output::{self, Lines};

const EXAMPLES: &str = "\
Examples:
  ocikit referrers ghcr.io/acme/app:1
  ocikit referrers --platform linux/amd64 app.tar
  ocikit referrers --artifact-type application/spdx+json ghcr.io/acme/app:1";

/// List the signatures, attestations and other referrers of an image
///
/// For an index, lists the referrers of the index itself. `ocikit tree` also shows the referrers of its manifests.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Referrers {
    /// Image, index or artifact
    location: Location,
    /// List only referrers with this artifact type
    #[arg(long, value_name = "TYPE")]
    artifact_type: Option<String>,
    /// List the referrers of the image for this platform
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
}

impl Referrers {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        let source = context.session(&[&location])?.source(&location).await?;
        let subject = inside::find(&source, &location, self.platform.as_ref()).await?;
        let mut referrers = Vec::new();
        for found in source.referrers(&subject.digest).await? {
            referrers.push(with_artifact_type(found, &source).await?);
        }
        let wanted = self.artifact_type.clone().map(MediaType::new);
        referrers.retain(|found| wanted.is_none() || found.artifact_type == wanted);
        context.output.result(&json!({ "subject": subject.digest, "referrers": referrers }), || {
            let line = |found: &Descriptor| {
                let kind = found.artifact_type.as_ref().unwrap_or(&found.media_type);
                format!("{} {kind} {}", found.digest, output::bytes(found.size))
            };
            referrers.iter().map(line).collect::<Lines>()
        })
    }
}

/// Adds the artifact type to a descriptor. Registries state it in the list of referrers; `index.json` of a layout does not.
async fn with_artifact_type(found: Descriptor, source: &std::sync::Arc<dyn ocikit::Source>) -> Result<Descriptor> {
    if found.artifact_type.is_some() {
        return Ok(found);
    }
    let root = Root::at(source.clone(), found.clone()).await?;
    let artifact_type = root.document().and_then(|document| document.listed_artifact_type().cloned());
    Ok(Descriptor { artifact_type, ..found })
}
