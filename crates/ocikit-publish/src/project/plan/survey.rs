//! Asks the registry which images are published.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt};
use ocikit::{Digest, Error, Location, Reference, Repository, Root, Session, Tag};

use super::model::{INPUTS_ANNOTATION, Published};
use crate::project::model::Project;

/// How the registry is asked.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct SurveyOptions {
    /// The number of requests at the same time.
    pub concurrency: usize,
}

impl Default for SurveyOptions {
    fn default() -> SurveyOptions {
        SurveyOptions { concurrency: 32 }
    }
}

/// What is known of the images, and what could not be found out.
#[derive(Debug)]
#[non_exhaustive]
pub struct Survey {
    /// What the registry has of each image, in the order of the project.
    pub published: Vec<Published>,
}

/// A registry that gave no usable answer about an image. It is not known whether the image exists.
#[derive(Debug, thiserror::Error)]
#[error("cannot find out whether {reference} is published")]
#[non_exhaustive]
pub struct SurveyError {
    /// The image.
    pub reference: Box<Reference>,
    /// The reason.
    pub source: Error,
}

/// Returns the reference of an image of a project: its name below a registry and path, with its version.
///
/// # Errors
///
/// [`ocikit::spec::Error`] if registry and name are no repository.
pub fn reference(registry: &str, name: &str, version: &str) -> Result<Reference, ocikit::spec::Error> {
    let repository: Repository = format!("{registry}/{name}").parse()?;
    let tag: Tag = version.parse()?;
    Ok(Reference::tagged(repository, tag))
}

/// Returns the tag of a name in a layout, which is a tag or a full name.
pub(in crate::project) fn tag_of(name: &str) -> &str {
    let last = name.rsplit('/').next().unwrap_or(name);
    last.rsplit(':').next().unwrap_or(last)
}

/// Asks the registry about each image of a project: one request for an index, and one more for an image without one, whose
/// platform is in its config.
///
/// # Errors
///
/// [`SurveyError`] for the first image, in the order of the project, for which the registry gave no usable answer: it
/// cannot be reached, or refuses the credentials. That is not the answer that the image does not exist.
pub async fn survey(
    session: &Session,
    project: &Project,
    registry: &str,
    selected: impl Fn(usize) -> bool,
    options: SurveyOptions,
) -> Result<Survey, SurveyError> {
    let images = project.images().iter().enumerate();
    let asked = images.map(|(position, image)| {
        let reference = selected(position).then(|| reference(registry, &image.name, &image.version.value).ok());
        reference.flatten()
    });
    let ask = |reference: Option<Reference>| async move {
        let Some(reference) = reference else { return Ok(Published::Absent) };
        one(session, &reference).await.map_err(|source| SurveyError { reference: Box::new(reference), source })
    };
    let asked: Vec<_> = asked.map(ask).collect();
    let answers = futures::stream::iter(asked).buffered(options.concurrency.max(1));
    Ok(Survey { published: answers.try_collect().await? })
}

/// Asks the registries for the digests of the base images of some images, which are not images of the project: each base once,
/// several at the same time. One that does not exist has no digest: its build will say so.
///
/// # Errors
///
/// [`SurveyError`] for the first base, by name, for which a registry gave no usable answer.
pub async fn base_digests(
    session: &Session,
    project: &Project,
    selected: impl Fn(usize) -> bool,
    options: SurveyOptions,
) -> Result<BTreeMap<String, Digest>, SurveyError> {
    let images = project.images().iter().enumerate().filter(|(position, _)| selected(*position));
    let names: BTreeSet<&String> = images.flat_map(|(_, image)| &image.bases).collect();
    // Several names may mean the same image: `alpine` and `docker.io/library/alpine:latest`.
    let mut spelled: BTreeMap<String, (Reference, Vec<String>)> = BTreeMap::new();
    for name in names {
        let Ok(Location::Registry(reference)) = name.parse::<Location>() else { continue };
        spelled.entry(reference.to_string()).or_insert((reference, Vec::new())).1.push(name.clone());
    }
    let ask = |(reference, names): (Reference, Vec<String>)| async move {
        match session.open(&Location::registry(reference.clone())).await {
            Ok(root) => Ok(names.into_iter().map(|name| (name, root.digest())).collect::<Vec<_>>()),
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            Err(source) => Err(SurveyError { reference: Box::new(reference), source }),
        }
    };
    let asked: Vec<_> = spelled.into_values().map(ask).collect();
    let answers = futures::stream::iter(asked).buffered(options.concurrency.max(1));
    Ok(answers.try_collect::<Vec<_>>().await?.into_iter().flatten().collect())
}

/// Asks the registry about one image.
pub(in crate::project) async fn one(session: &Session, reference: &Reference) -> Result<Published, Error> {
    let root = match session.open(&Location::registry(reference.clone())).await {
        Err(error) if error.is_not_found() => return Ok(Published::Absent),
        root => root?,
    };
    let digest = root.digest();
    let platforms = match &root {
        Root::Index(index) => {
            let platforms = index.platforms().await?.into_iter().flatten();
            platforms.filter(|platform| !platform.is_unknown()).collect()
        }
        Root::Image(image) => image.config().await?.platform().cloned().into_iter().collect(),
        Root::Other(_) => Vec::new(),
    };
    let annotations = root.annotations();
    let get = |key: &str| annotations.get(key).map(str::to_owned);
    let base = get("org.opencontainers.image.base.name").zip(get("org.opencontainers.image.base.digest"));
    Ok(Published::Present { digest, platforms, inputs: get(INPUTS_ANNOTATION), base })
}
