//! What commands on registries have in common.

use ocikit::registry::RemoteRepository;
use ocikit::{Location, Name, Reference, Registry, Repository};

use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::quote::quoted;

/// A repository as it is typed, with `docker://` in front or without.
pub(crate) fn repository(text: &str) -> std::result::Result<Repository, String> {
    let name = text.strip_prefix("docker://").unwrap_or(text);
    name.parse().map_err(|error: ocikit::spec::Error| match name.parse::<Reference>() {
        Ok(reference) => format!("it names one image; the repository is {}", reference.repository()),
        Err(_) => error.to_string(),
    })
}

/// A registry as it is typed, with `docker://` in front or without.
pub(crate) fn registry(text: &str) -> std::result::Result<Registry, String> {
    let name = text.strip_prefix("docker://").unwrap_or(text).trim_end_matches('/');
    name.parse().map_err(|error: ocikit::spec::Error| error.to_string())
}

/// A location, and whether its text names one image of the place: a reference without tag and digest means `latest`, which
/// is too little for a command that destroys something.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) location: Location,
    pub(crate) is_named: bool,
}

impl std::str::FromStr for Named {
    type Err = ocikit::spec::Error;

    fn from_str(text: &str) -> std::result::Result<Named, Self::Err> {
        let location: Location = text.parse()?;
        let is_named = match &location {
            Location::Registry(reference) => {
                let is_tagged = |tag: &ocikit::Tag| text.ends_with(&format!(":{tag}"));
                reference.digest().is_some() || reference.tag().is_some_and(is_tagged)
            }
            other => other.name() != Name::Only,
        };
        Ok(Named { location, is_named })
    }
}

impl Named {
    /// The location, if it names one image.
    pub(crate) fn required(&self) -> Result<&Location> {
        if self.is_named {
            return Ok(&self.location);
        }
        let (place, tag) = match &self.location {
            Location::Path { path, .. } if Location::names_an_archive(path) => (path.display().to_string(), '#'),
            Location::Path { path, .. } => (format!("oci:{}", path.display()), ':'),
            location => (place(location), ':'),
        };
        let message = format!("cannot change {place}: it names neither a tag nor a digest");
        Err(Failure::usage(message)
            .hint(format_args!("write {place}{tag}TAG or {place}@DIGEST; `ocikit tags {}` lists tags", quoted(&place))))
    }
}

/// The repository of a location that has to be in a registry.
pub(crate) fn open<'a>(context: &Context, location: &'a Location) -> Result<(RemoteRepository, &'a Reference)> {
    let Location::Registry(reference) = location else {
        return Err(Failure::usage(format_args!("{location} is not in a registry"))
            .hint("a registry reference is written without `./` and does not end in `.tar`"));
    };
    let client = context.client_of([reference.registry()])?;
    Ok((client.repository(reference.repository().clone())?, reference))
}

/// A location without its tag or digest, as others of the same place are written.
pub(crate) fn place(location: &Location) -> String {
    match location {
        Location::Registry(reference) => reference.repository().to_string(),
        Location::Layout { path, .. } => format!("oci:{}", path.display()),
        Location::Archive { path, .. } => format!("oci-archive:{}", path.display()),
        Location::DockerArchive { path, .. } => format!("docker-archive:{}", path.display()),
        Location::Path { path, .. } => path.display().to_string(),
        Location::Stdio => "-".to_owned(),
    }
}

/// What separates a tag from the place that it is in.
pub(crate) fn tagged(location: &Location, tag: &ocikit::Tag) -> String {
    let separator = if matches!(location, Location::Path { .. }) { '#' } else { ':' };
    format!("{}{separator}{tag}", place(location))
}
