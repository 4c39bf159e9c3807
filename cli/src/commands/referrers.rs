use clap::Args;
use ocikit::{Descriptor, Location, MediaType, Platform, Root, SourceExt};
use serde::Serialize;

use crate::context::Context;
use crate::failure::Result;
use crate::output::{self, Lines};

/// List what is about an image: signatures, attestations, SBOMs and whatever else names it as its subject
///
/// Of an index those of the index itself; `tree` shows those of its entries as well.
#[derive(Debug, Args)]
pub(crate) struct Referrers {
    /// The image
    location: Location,
    /// Only those of this type
    #[arg(long, value_name = "TYPE")]
    artifact_type: Option<String>,
    /// What is about the image for this platform
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
}

#[derive(Serialize)]
struct Facts {
    subject: ocikit::Digest,
    referrers: Vec<Descriptor>,
}

impl Referrers {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        let source = context.session(&[&location])?.source(&location).await?;
        let mut subject = source.find(&location.name()).await?;
        if let Some(platform) = &self.platform {
            let root = super::inspect::for_platform(Root::at(source.clone(), subject).await?, platform).await?;
            subject = root.descriptor().clone();
        }
        let mut referrers = Vec::new();
        for found in source.referrers(&subject.digest).await? {
            referrers.push(with_its_type(found, &source).await?);
        }
        let wanted = self.artifact_type.clone().map(MediaType::new);
        referrers.retain(|found| wanted.is_none() || found.artifact_type == wanted);
        let facts = Facts { subject: subject.digest, referrers };
        context.output.facts(&facts, || {
            let line = |found: &Descriptor| {
                let kind = found.artifact_type.as_ref().unwrap_or(&found.media_type);
                format!("{} {kind} {}", found.digest, output::bytes(found.size))
            };
            facts.referrers.iter().map(line).collect::<Lines>()
        })
    }
}

/// Layouts list manifests without saying what kind of artifact they are; registries do.
async fn with_its_type(found: Descriptor, source: &std::sync::Arc<dyn ocikit::Source>) -> Result<Descriptor> {
    if found.artifact_type.is_some() {
        return Ok(found);
    }
    let root = Root::at(source.clone(), found.clone()).await?;
    let artifact_type = match root.document() {
        Some(ocikit::spec::Document::Manifest(manifest)) => {
            let stated = manifest.artifact_type().or(manifest.config().map(|config| &config.media_type));
            stated.cloned()
        }
        Some(ocikit::spec::Document::Index(index)) => index.artifact_type().cloned(),
        None => None,
    };
    Ok(Descriptor { artifact_type, ..found })
}
