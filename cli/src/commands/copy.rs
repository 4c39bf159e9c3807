use clap::Args;
use ocikit::registry::{Credential, Secret};
use ocikit::{Location, Name, Reference};

use crate::archive::Archive;
use crate::context::Context;
use crate::failure::{Code, Failure, Result};
use crate::transfer::{Named, Transfer, copy_several, copy_to_all};

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
    /// Copy every tag of the source: a repository, archive or layout
    #[arg(long, help_heading = "Copying")]
    all_tags: bool,
    /// Log in to the source's registry with these credentials
    #[arg(long, value_name = "USER:PASSWORD", help_heading = "Registry")]
    src_creds: Option<Secret>,
    /// Log in to the target's registry with these credentials
    #[arg(long, value_name = "USER:PASSWORD", help_heading = "Registry")]
    dest_creds: Option<Secret>,
    #[command(flatten)]
    transfer: Transfer,
    #[command(flatten)]
    archive: Archive,
}

/// A user and a password. What is wrong with them is said without quoting them.
fn pair(text: &Secret) -> Result<Credential> {
    let wrong = || Failure::usage("credentials are not a user and a password").hint("give `USER:PASSWORD`");
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
        let session = context.session_as(&locations, &credentials, self.transfer.options(self.archive.options()))?;
        if !self.all_tags {
            return copy_to_all(context, &session, &source, &targets, &self.transfer).await;
        }
        let [target] = &targets[..] else {
            return Err(Failure::usage("--all-tags copies to one place").hint("run the command once for each target"));
        };
        let images: Vec<_> = if let Location::Registry(source) = &source {
            let repository = source.repository();
            let tags = session.client().repository(repository.clone())?.tags().await?;
            tags.into_iter().map(|tag| Named::of_reference(&Reference::tagged(repository.clone(), tag))).collect()
        } else {
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
        };
        copy_several(context, &session, images, target, &self.transfer).await
    }
}
