use clap::Args;
use ocikit::image::{RebaseConfig, RebaseOptions, base_of, rebase};
use ocikit::{Location, Reference};

use crate::base::{reference_of, without_digest};
use crate::change::{ChangeArguments, PlatformArguments};
use crate::context::Context;
use crate::failure::{Failure, Result};

const EXAMPLES: &str = "\
Examples:
  ocikit rebase ghcr.io/acme/app:1
  ocikit rebase --old-base alpine:3.21 --new-base alpine:3.22 ghcr.io/acme/app:1
  ocikit rebase --old-base old.tar --new-base new.tar --platform linux/arm64 -o app-rebased.tar app.tar";

/// Replace the base image of an image, for one platform or for all
///
/// The layers, the history and the settings of the old base are replaced by those of the new one. Without flags, the
/// annotations `org.opencontainers.image.base.name` and `.digest` name both. Layers of the new base are mounted where the
/// registry can; no layer is read. Fails if the lowest layers are not those of the old base.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Rebase {
    /// Image to rebase
    location: Location,
    /// Old base image; default: the one that the annotations name
    #[arg(long, value_name = "LOCATION")]
    old_base: Option<Location>,
    /// New base image; default: what the name of the old one leads to now
    #[arg(long, value_name = "LOCATION")]
    new_base: Option<Location>,
    /// Keep all settings, also those that come from the old base
    ///
    /// By default, variables, labels and other settings that are equal to those of the old base change to those of the new
    /// one.
    #[arg(long)]
    keep_config: bool,
    #[command(flatten)]
    platforms: PlatformArguments,
    #[command(flatten)]
    change: ChangeArguments,
}

impl Rebase {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let platforms = &self.platforms.platform;
        let given: Vec<_> = self.old_base.iter().chain(&self.new_base).map(|base| context.expand(base)).collect();
        let (old, new) = match (&self.old_base, &self.new_base) {
            (Some(old), Some(new)) => (context.expand(old), context.expand(new)),
            _ => self.annotated(context).await?,
        };
        let change =
            self.change.prepare(context, &self.location, &given.iter().chain([&old, &new]).collect::<Vec<_>>())?;
        let (old_root, new_root) = (change.session.open(&old).await?, change.session.open(&new).await?);
        let mut options = RebaseOptions::default();
        options.platforms.clone_from(platforms);
        options.config = if self.keep_config { RebaseConfig::Keep } else { RebaseConfig::Inherit };
        // A local file is no name that another machine knows.
        options.name = new.reference().map(|reference| without_digest(reference).to_string());
        let is_partial = !platforms.is_empty();
        change.run(is_partial, async |root| rebase(&root, &old_root, &new_root, &options).await).await
    }

    /// Returns both bases, of which at least one is that of the annotations.
    async fn annotated(&self, context: &Context) -> Result<(Location, Location)> {
        let location = context.expand(&self.location);
        let root = context.session(&[&location])?.open(&location).await?;
        let base = base_of(&root, &self.platforms.platform).await?;
        let name = reference_of(&base)?;
        let old = match (&self.old_base, base.digest) {
            (Some(old), _) => context.expand(old),
            (None, Some(digest)) => Location::Registry(Reference::digested(name.repository().clone(), digest)),
            (None, None) => {
                return Err(Failure::usage(
                    "cannot rebase: the annotations name no digest of the old base; add --old-base",
                ));
            }
        };
        let new = self.new_base.as_ref().map_or(Location::Registry(without_digest(&name)), |new| context.expand(new));
        Ok((old, new))
    }
}
