use clap::Args;
use futures::{StreamExt, TryStreamExt, stream};
use ocikit::registry::RemoteRepository;
use ocikit::{Error, Location, Name, SourceExt, Tag};
use serde_json::json;

use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::output::Lines;
use crate::quote::quoted;
use crate::remote;

const EXAMPLES: &str = "\
Examples:
  ocikit delete ghcr.io/acme/app:old
  ocikit delete --digest --dry-run ghcr.io/acme/app:old
  ocikit delete oci:layout:old";

/// Delete a tag or a manifest
///
/// REPOSITORY:TAG deletes the tag and keeps the image. REPOSITORY@DIGEST, or --digest, deletes the manifest and with it
/// every tag that points to it; --dry-run lists those tags. REPOSITORY:TAG@DIGEST deletes the tag only if it still
/// points to that digest.
///
/// In an archive or layout, deletes the entry in `index.json`. The blobs stay until `ocikit gc`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Delete {
    /// Tag, or manifest by its digest
    location: remote::NamedLocation,
    /// Delete the manifest that the tag points to, and all its tags
    #[arg(long)]
    digest: bool,
    /// Delete the tag by moving it to a temporary manifest
    ///
    /// For registries that delete manifests but not tags. Moves the tag to a new manifest without other tags, and deletes
    /// that manifest.
    #[arg(long, conflicts_with = "digest")]
    replace: bool,
    /// Print what would be deleted without deleting anything
    #[arg(long)]
    dry_run: bool,
}

/// The number of tags that are resolved concurrently.
const CONCURRENT_HEADS: usize = 8;

impl Delete {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let named = self.location.required()?;
        if named.reference().is_none() {
            return self.run_locally(context, named).await;
        }
        let (repository, reference) = remote::open(context, named)?;
        let name = match reference.tag() {
            Some(tag) => Name::Tag(tag.clone()),
            None => named.name(),
        };
        let found = repository.head(&name).await?.ok_or_else(|| Error::not_found(&name, &repository))?;
        if reference.digest().is_some_and(|wanted| *wanted != found.digest) {
            return Err(Error::other_digest(named, &name, found.digest).into());
        }
        let tag = reference.tag().filter(|_| !self.digest);
        // The deleted tags, as far as they are known.
        let mut tags: Vec<_> = reference.tag().map(Tag::to_string).into_iter().collect();
        match tag {
            _ if self.dry_run && tag.is_some() => {}
            None if self.dry_run => tags = tags_of(&repository, &found.digest).await?,
            None => repository.delete_manifest(&found.digest).await.map_err(manifest_failure)?,
            Some(tag) if self.replace => {
                repository.delete_tag_by_replacing(tag).await.map_err(manifest_failure)?;
            }
            Some(tag) => repository.delete_tag(tag).await.map_err(|error| tag_failure(error, named))?,
        }
        let result = json!({
            "repository": repository.to_string(),
            "digest": found.digest,
            // Whether the manifest is deleted, not only a tag.
            "manifest": tag.is_none(),
            "tags": tags,
            "dryRun": self.dry_run,
        });
        context.output.result(&result, || {
            let manifest = tag.is_none().then(|| format!("{repository}@{}", found.digest));
            manifest.into_iter().chain(tags.iter().map(|tag| format!("{repository}:{tag}"))).collect::<Lines>()
        })
    }

    /// Removes an image from the `index.json` of an archive or a layout.
    async fn run_locally(&self, context: &Context, location: &Location) -> Result {
        let location = context.expand(location);
        let session = context.session(&[&location])?;
        let removed = match self.dry_run {
            true => vec![session.source(&location).await?.find(&location.name()).await?],
            false => session.remove(&location).await?,
        };
        let digests: Vec<_> = removed.iter().map(|removed| removed.digest).collect();
        let place = remote::place(&location);
        let result = json!({ "location": place, "digests": digests, "dryRun": self.dry_run });
        context.output.result(&result, || digests.iter().map(|digest| format!("{place}@{digest}")).collect::<Lines>())
    }
}

/// Returns the tags that point to a manifest.
async fn tags_of(repository: &RemoteRepository, digest: &ocikit::Digest) -> Result<Vec<String>> {
    let tags = match repository.tags().await {
        Err(error) if error.is_not_found() => Vec::new(),
        tags => tags?,
    };
    let checks = tags.into_iter().map(|tag| async move {
        let found = repository.head(&Name::Tag(tag.clone())).await?;
        Ok::<_, Error>(found.filter(|found| found.digest == *digest).map(|_| tag.to_string()))
    });
    let found: Vec<_> = stream::iter(checks).buffered(CONCURRENT_HEADS).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

/// Adds the hint for a registry that refuses to delete a tag. Deleting the manifest instead would delete its other tags too.
fn tag_failure(error: Error, location: &Location) -> Failure {
    match error {
        Error::Refused { .. } => Failure::from(error).hint(format_args!(
            "if the registry deletes manifests only, use `ocikit delete --replace {0}` for the tag, or \
             `ocikit delete --digest {0}` for the manifest and all its tags",
            quoted(&location.to_string())
        )),
        error => error.into(),
    }
}

/// Adds the hint for a registry that refuses to delete a manifest.
fn manifest_failure(error: Error) -> Failure {
    match error {
        Error::Refused { .. } => Failure::from(error).hint("enable deletion in the configuration of the registry"),
        error => error.into(),
    }
}
