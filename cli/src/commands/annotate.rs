use clap::{Args, ValueEnum};
use ocikit::image::orphans;
use ocikit::layout::{DockerList, TarOptions};
use ocikit::{AnnotateOn, AnnotateOptions, Location, Platform, SessionOptions};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::key_value::key_value;

const EXAMPLES: &str = "\
Examples:
  ocikit annotate app.tar org.opencontainers.image.revision=6c22711
  ocikit annotate --on index ghcr.io/acme/app:1 team=web
  ocikit annotate --remove team --platform linux/amd64 oci:layout:1
  ocikit annotate -o annotated.tar app.tar team=web";

/// Change annotations of an image, for one platform or for all
///
/// Changes a local archive or layout in place in constant time, and moves a tag in a registry. Prints the new digest. Signatures and other referrers apply to the old digest; a warning says how many
/// there are.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Annotate {
    /// Image to annotate
    location: Location,
    /// Annotations to set; values are taken byte for byte
    #[arg(value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
    /// Remove this annotation; repeatable
    #[arg(long, value_name = "KEY")]
    remove: Vec<String>,
    /// Annotate these documents; default: manifests and their index
    #[arg(long, value_enum, value_name = "DOCUMENTS")]
    on: Option<On>,
    /// Annotate only the image for this platform; repeatable
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Vec<Platform>,
    /// Write the result to this location and leave the original unchanged
    #[arg(long, short, value_name = "LOCATION")]
    output: Option<Location>,
    /// Remove referrers that do not apply to the new digest
    #[arg(long, conflicts_with = "output")]
    drop_referrers: bool,
    /// Do not add the list of images that `docker load` needs
    #[arg(long)]
    no_docker: bool,
    /// Print the new digest without changing anything
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum On {
    Index,
    Manifests,
    Descriptors,
    All,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AnnotateOutput {
    location: String,
    before: ocikit::Digest,
    digest: ocikit::Digest,
    changed: bool,
    /// Signatures and other referrers that do not apply to the new digest.
    #[serde(skip_serializing_if = "is_zero")]
    orphaned_referrers: usize,
    /// The number of removed referrers.
    #[serde(skip_serializing_if = "is_zero")]
    dropped_referrers: usize,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl Annotate {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        if self.set.is_empty() && self.remove.is_empty() {
            return Err(Failure::usage("cannot annotate: give KEY=VALUE or --remove KEY"));
        }
        let location = context.expand(&self.location);
        let output = self.output.as_ref().map(|output| context.expand_output(output));
        let docker = if self.no_docker { DockerList::None } else { DockerList::default() };
        let archive = TarOptions { docker, ..TarOptions::default() };
        let options = SessionOptions { archive, ..SessionOptions::default() };
        let session = context.session_with(&[&location, output.as_ref().unwrap_or(&location)], options)?;
        let options = AnnotateOptions {
            set: self.set.clone(),
            remove: self.remove.clone(),
            on: match self.on {
                None => AnnotateOn::ManifestsAndIndex,
                Some(On::Index) => AnnotateOn::Index,
                Some(On::Manifests) => AnnotateOn::Manifests,
                Some(On::Descriptors) => AnnotateOn::Descriptors,
                Some(On::All) => AnnotateOn::All,
            },
            platforms: self.platform.clone(),
        };
        let (before, digest, orphans) = if self.dry_run || output.is_some() {
            let root = match output.is_some() && self.platform.is_empty() {
                true => {
                    let (root, present) = session.open_present(&location).await?;
                    crate::transfer::say_present(context, &location, present.as_ref());
                    root
                }
                false => session.open(&location).await?,
            };
            let after = ocikit::image::annotate(&root, &options).await?;
            if let Some(output) = output.as_ref().filter(|_| !self.dry_run) {
                crate::transfer::copy_out(&session, &after, &location, output).await?;
            }
            (root.digest(), after.digest(), orphans(&root, &after).await?)
        } else {
            let annotated = session.annotate(&location, &options).await?;
            (annotated.before, annotated.after.digest(), annotated.orphans)
        };
        let dropped = match self.drop_referrers && !self.dry_run {
            true => session.drop_referrers(&location, &orphans).await?,
            false => 0,
        };
        if orphans.len() > dropped {
            let what = "signatures or other referrers do not apply to the new digest";
            context.output.say(format!("warning: {} {what}", orphans.len() - dropped));
            if output.is_none() && !self.drop_referrers {
                context.output.say("hint: sign the new digest; add --drop-referrers to remove the old referrers");
            }
        }
        if output.as_ref().is_some_and(crate::file::writes_to_stdout) {
            return Ok(());
        }
        let changed = digest != before;
        let location = output.as_ref().unwrap_or(&location).to_string();
        let result = AnnotateOutput {
            location,
            before,
            digest,
            changed,
            orphaned_referrers: orphans.len(),
            dropped_referrers: dropped,
        };
        context.output.result(&result, || digest.to_string())
    }
}
