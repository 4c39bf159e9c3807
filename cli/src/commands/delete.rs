use clap::Args;
use futures::{StreamExt, TryStreamExt, stream};
use ocikit::image::Mismatch;
use ocikit::registry::RemoteRepository;
use ocikit::{Error, Location, Name, SourceExt, Tag};
use serde::Serialize;

use super::remote;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::output::Lines;
use crate::quote::quoted;

/// Remove a tag from a registry, or a manifest with every tag that leads to it
///
/// From an archive or a layout an image is taken off the list, and its blobs stay.
///
/// REPOSITORY:TAG removes the tag and leaves the image. REPOSITORY@DIGEST, or --digest, removes the image, and with it every
/// tag that leads to it: --dry-run says which. REPOSITORY:TAG@DIGEST removes the tag if it still leads there.
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// The tag, or the manifest by its digest
    location: remote::Named,
    /// Remove the manifest that the tag leads to, and every tag that leads to it
    #[arg(long)]
    digest: bool,
    /// Where the registry removes no tags: give the tag to a manifest that nobody else has, and remove that
    #[arg(long, conflicts_with = "digest")]
    replace: bool,
    /// Only print what would be removed
    #[arg(long)]
    dry_run: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Facts {
    repository: String,
    digest: ocikit::Digest,
    /// Whether the manifest goes; otherwise it is left.
    manifest: bool,
    /// The tags that go, as far as that was found out.
    tags: Vec<String>,
    dry_run: bool,
}

/// How many tags are asked at the same time where they lead to.
const AT_ONCE: usize = 8;

impl Delete {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let named = self.location.required()?;
        if !matches!(named, Location::Registry(_)) {
            return self.run_locally(context, named).await;
        }
        let (repository, reference) = remote::open(context, named)?;
        let name = match reference.tag() {
            Some(tag) => Name::Tag(tag.clone()),
            None => named.name(),
        };
        let found = repository.head(&name).await?.ok_or_else(|| Error::not_found(&name, &repository))?;
        if let Some(wanted) = reference.digest().filter(|wanted| **wanted != found.digest) {
            return Err(Error::mismatch(wanted, named, Mismatch::Digest(found.digest)).into());
        }
        let tag = reference.tag().filter(|_| !self.digest);
        let mut facts = Facts {
            repository: repository.to_string(),
            digest: found.digest,
            manifest: tag.is_none(),
            tags: tag.into_iter().chain(reference.tag().filter(|_| self.digest)).map(Tag::to_string).collect(),
            dry_run: self.dry_run,
        };
        match tag {
            _ if self.dry_run && tag.is_some() => {}
            None if self.dry_run => facts.tags = leading_to(&repository, &found.digest).await?,
            None => repository.delete_manifest(&found.digest).await.map_err(nothing_is_removed)?,
            Some(tag) if self.replace => {
                repository.delete_tag_by_replacing(tag).await.map_err(nothing_is_removed)?;
            }
            Some(tag) => repository.delete_tag(tag).await.map_err(|error| no_tags(error, named))?,
        }
        context.output.facts(&facts, || facts.words())
    }

    /// Takes an image off the list of an archive or a layout.
    async fn run_locally(&self, context: &Context, location: &Location) -> Result {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Facts {
            place: String,
            digests: Vec<ocikit::Digest>,
            dry_run: bool,
        }
        let location = context.expand(location);
        let session = context.session(&[&location])?;
        let removed = match self.dry_run {
            true => vec![session.source(&location).await?.find(&location.name()).await?],
            false => session.remove(&location).await?,
        };
        let digests = removed.iter().map(|removed| removed.digest).collect();
        let facts = Facts { place: remote::place(&location), digests, dry_run: self.dry_run };
        context.output.facts(&facts, || {
            let lines = facts.digests.iter().map(|digest| format!("{}@{digest}", facts.place));
            lines.collect::<Lines>()
        })
    }
}

impl Facts {
    fn words(&self) -> Lines {
        let manifest = self.manifest.then(|| format!("{}@{}", self.repository, self.digest));
        let tags = self.tags.iter().map(|tag| format!("{}:{tag}", self.repository));
        manifest.into_iter().chain(tags).collect::<Lines>()
    }
}

/// The tags that lead to a manifest.
async fn leading_to(repository: &RemoteRepository, digest: &ocikit::Digest) -> Result<Vec<String>> {
    let tags = match repository.tags().await {
        Err(error) if error.is_not_found() => Vec::new(),
        tags => tags?,
    };
    let asked = tags.into_iter().map(|tag| async move {
        let found = repository.head(&Name::Tag(tag.clone())).await?;
        Ok::<_, Error>(found.filter(|found| found.digest == *digest).map(|_| tag.to_string()))
    });
    let found: Vec<_> = stream::iter(asked).buffered(AT_ONCE).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

/// The registry refused to remove a tag, and would remove a manifest, which is something else.
fn no_tags(error: Error, location: &Location) -> Failure {
    match error {
        Error::Refused { .. } => Failure::from(error).hint(format_args!(
            "a registry that removes manifests only takes `ocikit delete --replace {0}` for the tag alone, or \
             `ocikit delete --digest {0}` for the image with all its tags",
            quoted(&location.to_string())
        )),
        error => error.into(),
    }
}

fn nothing_is_removed(error: Error) -> Failure {
    match error {
        Error::Refused { .. } => Failure::from(error).hint("allow deletion in the configuration of the registry"),
        error => error.into(),
    }
}
