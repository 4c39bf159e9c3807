use clap::Args;
use ocikit::registry::{Credential, Secret};
use ocikit::{Location, Name, Reference};

use crate::archive::ArchiveArguments;
use crate::context::Context;
use crate::failure::{Code, Failure, Result};
use crate::transfer::{Named, TransferArguments, copy_several, copy_to_all};

const EXAMPLES: &str = "\
Examples:
  ocikit copy alpine:3.22 oci:alpine:3.22
  ocikit copy app.tar ghcr.io/acme/app:1 ghcr.io/acme/app:latest
  ocikit copy --platform linux/amd64 alpine:3.22 alpine.tar
  ocikit copy --all-tags ghcr.io/acme/app registry.example.com/mirror/app";

/// Copy an image between registries, layouts and archives
///
/// Copies every platform and keeps every byte, so the digest does not change. Copies signatures, attestations and other
/// referrers too. Prints each target with its digest.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Copy {
    /// Image to copy
    source: Location,
    /// Where to copy the image; several targets are written in parallel
    #[arg(required = true)]
    target: Vec<Location>,
    /// Copy every tag of a repository, archive or layout
    #[arg(long, help_heading = "Copying")]
    all_tags: bool,
    /// Use these credentials for the registry of the source
    #[arg(long, value_name = "USER:PASSWORD", help_heading = "Registry")]
    src_creds: Option<Secret>,
    /// Use these credentials for the registries of the targets
    #[arg(long, value_name = "USER:PASSWORD", help_heading = "Registry")]
    dest_creds: Option<Secret>,
    #[command(flatten)]
    transfer: TransferArguments,
    #[command(flatten)]
    archive: ArchiveArguments,
}

/// Parses USER:PASSWORD. The error does not repeat the text, which is a secret.
fn pair(text: &Secret) -> Result<Credential> {
    let wrong = || {
        Failure::usage("cannot read the credentials: they are not of the form USER:PASSWORD")
            .hint("give `--src-creds USER:PASSWORD` or `--dest-creds USER:PASSWORD`")
    };
    let (username, password) = text.reveal().split_once(':').ok_or_else(wrong)?;
    Ok(Credential::password(username, password))
}

impl Copy {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let source = context.expand_input(&self.source);
        let targets: Vec<_> = self.target.iter().map(|target| context.expand_output(target)).collect();
        let locations: Vec<_> = [&source].into_iter().chain(&targets).collect();
        let mut credentials = Vec::new();
        if let Some(given) = &self.src_creds {
            credentials.push((&source, pair(given)?));
        }
        if let Some(given) = &self.dest_creds {
            let credential = pair(given)?;
            credentials.extend(targets.iter().map(|target| (target, credential.clone())));
        }
        let session = context.session_as(
            &locations,
            &credentials,
            "--src-creds or --dest-creds",
            self.transfer.options(self.archive.options()),
        )?;
        if !self.all_tags {
            return copy_to_all(context, &session, &source, &targets, &self.transfer).await;
        }
        let [target] = &targets[..] else {
            return Err(Failure::usage("--all-tags copies to one place").hint("run the command once for each target"));
        };
        let images: Vec<_> = match source.reference() {
            Some(source) => {
                let repository = source.repository();
                let tags = session.client().repository(repository.clone())?.tags().await?;
                tags.into_iter().map(|tag| Named::of_reference(&Reference::tagged(repository.clone(), tag))).collect()
            }
            None => {
                if !matches!(source.name(), Name::Only) {
                    return Err(Failure::usage(format_args!("cannot copy all tags of {source}: it names one image"))
                        .hint("leave out the tag or digest, or leave out `--all-tags`"));
                }
                let names = session.names(&source).await?;
                if names.is_empty() {
                    let message = format!("cannot copy all tags of {source}: it has none");
                    return Err(Failure::new(Code::Missing, message).hint("leave out `--all-tags`"));
                }
                names.iter().map(|name| Named::listed(&source, name)).collect()
            }
        };
        copy_several(context, &session, images, target, &self.transfer).await
    }
}
