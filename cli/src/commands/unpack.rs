use std::io::ErrorKind;
use std::path::PathBuf;

use clap::Args;
use ocikit::image::unpack::{IdRange, Owners, UnpackOptions, Unpacked};
use ocikit::{Error, Location, Platform};
use ocikit_lazy::FileAccess;
use serde_json::json;

use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::inside;

const EXAMPLES: &str = "\
Examples:
  ocikit unpack alpine:3.22 rootfs
  ocikit unpack --platform linux/arm64 app.tar rootfs
  ocikit unpack --rootless --bundle oci:layout:1 bundle
  ocikit unpack --uid-map 0:100000:65536 --gid-map 0:100000:65536 app.tar rootfs";

/// Unpack the file system of an image to a directory
///
/// Writes the files that a container would see, or a bundle for a runtime such as runc with `--bundle`. The directory appears when
/// it is complete. Nothing is written outside of it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Unpack {
    /// Image to unpack
    location: Location,
    /// Directory to create; it must not exist, or be empty
    directory: PathBuf,
    /// Create a runtime bundle with `config.json` and `rootfs`
    #[arg(long)]
    bundle: bool,
    /// Unpack the image for this platform; default: that of this machine
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    #[command(flatten)]
    owners: OwnerArguments,
    /// Store blocks of zeros as holes
    #[arg(long)]
    sparse: bool,
}

/// Arguments that map the owners of files.
#[derive(Debug, Args)]
pub(crate) struct OwnerArguments {
    /// Map user IDs of the image to IDs of this machine; repeatable
    #[arg(long, value_name = "CONTAINER:HOST[:SIZE]", conflicts_with = "rootless")]
    uid_map: Vec<IdRange>,
    /// Map group IDs of the image to IDs of this machine; repeatable
    #[arg(long, value_name = "CONTAINER:HOST[:SIZE]", conflicts_with = "rootless")]
    gid_map: Vec<IdRange>,
    /// Record owners in an extended attribute instead of setting them
    #[arg(long)]
    rootless: bool,
}

impl OwnerArguments {
    pub(crate) fn owners(&self) -> Owners {
        match (self.rootless, self.uid_map.is_empty() && self.gid_map.is_empty()) {
            (true, _) => Owners::Rootless,
            (false, true) => Owners::Keep,
            (false, false) => Owners::mapped(self.uid_map.clone(), self.gid_map.clone()),
        }
    }
}

impl Unpack {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        let image = inside::files_at(context, &location, self.platform.as_ref(), FileAccess::Contents).await?;
        let options = UnpackOptions::default().owners(self.owners.owners()).holes(self.sparse);
        let unpacked = match self.bundle {
            true => image.unpack_bundle(&self.directory, &options).await,
            false => image.unpack(&self.directory, &options).await,
        };
        let unpacked: Unpacked = unpacked.map_err(|error| self.explain(error))?;
        let path = self.directory.display().to_string();
        let mut result = json!({
            "location": location.to_string(),
            "digest": image.digest(),
            "path": path,
            "files": unpacked.names,
            "bytes": unpacked.bytes,
        });
        if unpacked.skipped_xattrs > 0 {
            result["skippedXattrs"] = json!(unpacked.skipped_xattrs);
            let what = "extended attributes are not supported by the file system, or need the privileges of root";
            context.output.say(format!("warning: {} {what}", unpacked.skipped_xattrs));
        }
        context.output.result(&result, || path)
    }

    fn explain(&self, error: Error) -> Failure {
        let denied = matches!(&error, Error::Failed { source, .. } if source.kind() == ErrorKind::PermissionDenied);
        let exists = matches!(error, Error::Exists { .. });
        let failure = Failure::from(error);
        match (denied && !self.owners.rootless, exists) {
            (true, _) => failure.hint("add `--rootless` to unpack without the privileges of root"),
            (_, true) => failure.hint("choose a directory that does not exist, or is empty"),
            (false, false) => failure,
        }
    }
}
