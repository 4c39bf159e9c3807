use std::path::PathBuf;

use clap::Args;
use ocikit::files::Time;
use ocikit::image::{Mapped, Selection, UnpackedDirectory, map_images};
use ocikit::layout::Compression;
use ocikit::spec::History;
use ocikit::{Error, Image, Location, Platform, Root};

use crate::change::ChangeArguments;
use crate::commands::unpack::OwnerArguments;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::inside;
use crate::keys::now;

const EXAMPLES: &str = "\
Examples:
  ocikit repack bundle oci:layout:1
  ocikit repack bundle oci:layout:1 -o oci:layout:2
  ocikit repack rootfs app.tar -o ghcr.io/acme/app:2";

/// Add a layer with the changes of an unpacked image
///
/// Compares a bundle of `ocikit unpack --bundle`, or a directory of `ocikit unpack`, with the image that it was unpacked from. The
/// changes become one layer with an entry in the history. Without changes, the image stays the same.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Repack {
    /// Bundle or directory with the changed files
    directory: PathBuf,
    /// Image that it was unpacked from
    location: Location,
    /// Platform of the image that a directory was unpacked from
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    #[command(flatten)]
    owners: OwnerArguments,
    /// Comment for the entry in the history
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    /// Make the bundle one of the new image, for the next repack
    #[arg(long, conflicts_with = "dry_run")]
    refresh_bundle: bool,
    #[command(flatten)]
    change: ChangeArguments,
}

impl Repack {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let created = Time { seconds: now(context.epoch)?.as_second(), nanoseconds: 0 }.to_string();
        let history = History {
            created: Some(created),
            created_by: Some("ocikit repack".to_owned()),
            comment: self.comment.clone(),
            ..History::default()
        };
        let bundle = match UnpackedDirectory::open_bundle(&self.directory).await {
            Ok(bundle) => Some(bundle),
            Err(error @ Error::NotFound { .. })
                if self.directory.join("rootfs").is_dir() && self.directory.join("config.json").is_file() =>
            {
                let hint = "repack its root file system with the path of `rootfs`";
                return Err(Failure::from(error).hint(hint));
            }
            Err(Error::NotFound { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let base = bundle.as_ref().map(|bundle| bundle.descriptor().digest);
        if self.refresh_bundle && base.is_none() {
            return Err(Failure::usage(format_args!("cannot refresh {}: it is no bundle", self.directory.display()))
                .hint("unpack with `ocikit unpack --bundle` to get one"));
        }
        let change = self.change.prepare(context, &self.location, &[])?;
        let changed = change.make(false, async |root| self.repack(root, bundle, history).await).await?;
        if let Some(new) = base.filter(|_| self.refresh_bundle).and_then(|base| changed.replaced.get(&base)) {
            let image = changed.after.manifest(new).await?;
            UnpackedDirectory::refresh_bundle(&self.directory, image.descriptor()).await?;
        }
        change.report(&changed).await
    }

    async fn repack(&self, root: Root, bundle: Option<UnpackedDirectory>, history: History) -> ocikit::Result<Mapped> {
        let directory = match bundle {
            Some(bundle) => bundle,
            None => {
                let image = inside::image_of(root.clone(), self.platform.as_ref()).await?;
                UnpackedDirectory::of_image(&self.directory, &image, self.owners.owners()).await?
            }
        };
        let base = directory.descriptor().clone();
        let layer = directory.changes(Compression::Gzip).await?.map(|(layer, _)| layer.with_history(history));
        let append = async |image: Image| match &layer {
            Some(layer) if image.digest() == base.digest => image.edit().append_layer(layer.clone()).finish().await,
            _ => Ok(image),
        };
        let is_there = match &root {
            Root::Image(image) => image.digest() == base.digest,
            Root::Index(index) => index.manifests().iter().any(|entry| entry.digest == base.digest),
            Root::Other(_) => false,
        };
        if !is_there {
            return Err(Error::not_found(format!("image {}, which was unpacked", base.digest), root.source()));
        }
        map_images(&root, &Selection::all(), append).await
    }
}
