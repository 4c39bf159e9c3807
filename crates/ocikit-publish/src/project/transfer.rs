//! Copies the images of a project between registries and layouts.

use std::path::PathBuf;
use std::sync::Arc;

use futures::{FutureExt, StreamExt};
use ocikit::layout::{Dir, Siblings};
use ocikit::{Digest, Error, Location, Name, Naming, Put, Session, Sink, Tag};

use super::layouts::{existing_names, forget_other_names};
use super::model::{Project, ProjectImage};
use super::plan::{reference, tag_of};
use super::version::Version;
use crate::publish::existing;
use crate::tags::{Line, Release};

/// A place with all images of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImagePlace {
    /// A registry with an optional path: `ghcr.io/acme`.
    Registry(String),
    /// A directory with a layout for each image.
    Layouts(PathBuf),
}

impl ImagePlace {
    /// Returns the location of an image with the version of the project.
    ///
    /// # Errors
    ///
    /// [`ocikit::spec::Error`] if registry and name are no repository.
    pub fn location(&self, image: &ProjectImage) -> Result<Location, ocikit::spec::Error> {
        match self {
            ImagePlace::Registry(registry) => {
                Ok(Location::registry(reference(registry, &image.name, &image.version.value)?))
            }
            ImagePlace::Layouts(directory) => {
                let tag: Tag = image.version.value.parse()?;
                Ok(Location::layout(directory.join(&image.name)).with_name(Name::Tag(tag)))
            }
        }
    }
}

/// What happened to an image.
#[derive(Debug)]
#[non_exhaustive]
pub enum TransferOutcome {
    /// It was copied.
    Copied {
        /// The digest, which is the same on both sides.
        digest: Digest,
        /// The numbers of the blobs and documents that were transferred, mounted and present.
        blobs: (usize, usize, usize),
        /// The tags that point to it.
        tags: Vec<String>,
    },
    /// The target has it.
    Present {
        /// The digest.
        digest: Digest,
    },
    /// The source does not have it.
    Missing,
    /// It could not be copied.
    Failed(Error),
}

/// Copies all images of a project with all platforms, several at a time, under their versions and `latest`. `latest` is not
/// moved back. Returns the outcomes in the order of the project.
///
/// Layers that the images share are transferred once: a session mounts what it has uploaded, and layouts link the blobs of
/// each other.
pub async fn transfer(
    session: &Session,
    project: &Project,
    from: &ImagePlace,
    to: &ImagePlace,
    concurrency: usize,
) -> Vec<TransferOutcome> {
    let siblings = match to {
        ImagePlace::Layouts(directory) => Siblings::scan(directory).await.unwrap_or_default(),
        ImagePlace::Registry(_) => Siblings::default(),
    };
    let siblings = Arc::new(siblings);
    let copy = |image| {
        let copied = one(session, image, from, to, &siblings);
        copied.map(|copied| copied.unwrap_or_else(TransferOutcome::Failed)).boxed()
    };
    let copies: Vec<_> = project.images().iter().map(copy).collect();
    futures::stream::iter(copies).buffered(concurrency.max(1)).collect().await
}

async fn one(
    session: &Session,
    image: &ProjectImage,
    from: &ImagePlace,
    to: &ImagePlace,
    siblings: &Arc<Siblings>,
) -> Result<TransferOutcome, Error> {
    let location = |place: &ImagePlace| {
        let wrong = |error: ocikit::spec::Error| Error::not_found(error.to_string(), &image.name);
        place.location(image).map_err(wrong)
    };
    let (source, target) = (location(from)?, location(to)?);
    let root = match session.open(&source).await {
        Err(error) if error.is_not_found() => return Ok(TransferOutcome::Missing),
        // A layout that was never written.
        Err(_) if source.path().is_some_and(|path| !path.exists()) => return Ok(TransferOutcome::Missing),
        root => root?,
    };
    let sink: Arc<dyn Sink> = match &target {
        Location::Layout { path, .. } if session.options().shared_blobs.is_none() => {
            Arc::new(Dir::create(path).await?.linking(siblings.clone()))
        }
        _ => session.sink(&target).await?,
    };
    let mut names = Vec::new();
    let wanted = [Some(image.version.value.clone()), latest(session, image, &target).await?];
    for tag in wanted.into_iter().flatten().filter_map(|tag| tag.parse::<Tag>().ok()) {
        let there = if target.path().is_some_and(|path| !path.join("index.json").exists()) {
            None
        } else {
            match sink.tagged(&tag).await {
                // The image replaces all that have its tag.
                Err(Error::Ambiguous { .. }) => None,
                found => found?,
            }
        };
        if there.is_none_or(|there| there.digest != root.digest()) {
            names.push(Naming::of_tag(tag));
        }
    }
    let digest = root.digest();
    if names.is_empty() {
        return Ok(TransferOutcome::Present { digest });
    }
    let tags = names.iter().filter_map(|name| name.tag.as_ref()).map(Tag::to_string).collect();
    if let Location::Layout { path, .. } = &target {
        forget_other_names(path, &existing_names(session, path).await?, &names).await?;
    }
    let copied = session.copy_to(&root, &sink, names).await?;
    let count = |put: Put| copied.blobs.iter().filter(|(_, found)| *found == put).count();
    Ok(TransferOutcome::Copied { digest, blobs: (count(Put::Copied), count(Put::Mounted), count(Put::Present)), tags })
}

/// Returns `latest` if the version is a release and the target has no newer one.
async fn latest(session: &Session, image: &ProjectImage, target: &Location) -> Result<Option<String>, Error> {
    let (Some(_), Some(release)) = (Version::parse(&image.version.value), Release::of_tag(&image.version.value)) else {
        return Ok(None);
    };
    let names = match target {
        Location::Registry(reference) => {
            existing(session, reference.repository()).await?.iter().map(Tag::to_string).collect()
        }
        Location::Layout { path, .. } => existing_names(session, path).await?,
        Location::Archive { .. } | Location::DockerArchive { .. } | Location::Path { .. } | Location::Stdio => {
            Vec::new()
        }
    };
    let is_newer =
        |name: &String| Release::of_tag(tag_of(name)).is_some_and(|other| Line::All.has(other) && other > release);
    Ok((!names.iter().any(is_newer)).then(|| "latest".to_owned()))
}
