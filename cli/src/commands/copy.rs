use clap::Args;
use ocikit::{Location, Reference};

use crate::archive::Archive;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::transfer::{Transfer, copy_several, copy_to_all};

/// Copy an image from one place to others
///
/// Every platform is copied and every byte kept, so the digest stays the same; signatures, attestations and other referrers go
/// along. Prints each target with its digest.
#[derive(Debug, Args)]
pub(crate) struct Copy {
    /// Where it is
    source: Location,
    /// Where to copy it to
    #[arg(required = true)]
    target: Vec<Location>,
    /// Copy every tag of the source's repository
    #[arg(long, help_heading = "Copying")]
    all_tags: bool,
    #[command(flatten)]
    transfer: Transfer,
    #[command(flatten)]
    archive: Archive,
}

impl Copy {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let source = context.expand_input(&self.source);
        let targets: Vec<_> = self.target.iter().map(|target| context.expand_output(target)).collect();
        let locations: Vec<_> = [&source].into_iter().chain(&targets).collect();
        let session = context.session_with(&locations, self.transfer.options(self.archive.options()))?;
        if !self.all_tags {
            return copy_to_all(context, &session, &source, &targets, &self.transfer).await;
        }
        let (Location::Registry(source), [target]) = (&source, &targets[..]) else {
            return Err(Failure::usage("--all-tags copies one repository of a registry to one place"));
        };
        let repository = source.repository();
        let tags = session.client().repository(repository.clone())?.tags().await?;
        let references: Vec<_> = tags.into_iter().map(|tag| Reference::tagged(repository.clone(), tag)).collect();
        copy_several(context, &session, &references, target, &self.transfer).await
    }
}
