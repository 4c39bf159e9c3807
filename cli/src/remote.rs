//! Functions that commands on registries share.

use ocikit::registry::RemoteRepository;
use ocikit::{Location, Name, Reference, Registry, Repository};

use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::quote::quoted;

/// Parses a repository, with or without `docker://`.
pub(crate) fn repository(text: &str) -> std::result::Result<Repository, String> {
    let name = text.strip_prefix("docker://").unwrap_or(text);
    name.parse().map_err(|error: ocikit::spec::Error| match name.parse::<Reference>() {
        Ok(reference) => format!("it names one image; the repository is {}", reference.repository()),
        Err(_) => error.to_string(),
    })
}

/// Parses a registry, with or without `docker://`.
pub(crate) fn registry(text: &str) -> std::result::Result<Registry, String> {
    let name = text.strip_prefix("docker://").unwrap_or(text).trim_end_matches('/');
    name.parse().map_err(|error: ocikit::spec::Error| error.to_string())
}

/// A location, and whether its text has a tag or digest. A reference without one means `latest`, which is not explicit enough
/// for a destructive command.
#[derive(Debug, Clone)]
pub(crate) struct NamedLocation {
    pub(crate) location: Location,
    pub(crate) is_named: bool,
}

impl std::str::FromStr for NamedLocation {
    type Err = ocikit::spec::Error;

    fn from_str(text: &str) -> std::result::Result<NamedLocation, Self::Err> {
        let location: Location = text.parse()?;
        let is_named = match &location {
            Location::Registry(reference) => {
                let is_tagged = |tag: &ocikit::Tag| text.ends_with(&format!(":{tag}"));
                reference.digest().is_some() || reference.tag().is_some_and(is_tagged)
            }
            other => other.name() != Name::Only,
        };
        Ok(NamedLocation { location, is_named })
    }
}

impl NamedLocation {
    /// Returns the location, or fails if it has neither a tag nor a digest.
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
            .hint(format_args!("give {place}{tag}TAG or {place}@DIGEST; `ocikit tags {}` lists tags", quoted(&place))))
    }
}

/// Opens the repository of a location, which has to be in a registry.
pub(crate) fn open<'a>(context: &Context, location: &'a Location) -> Result<(RemoteRepository, &'a Reference)> {
    let reference = location.reference().ok_or_else(|| {
        Failure::usage(format_args!("{location} is not a registry reference"))
            .hint("write a registry reference as HOST/REPOSITORY, without `./` and `.tar`")
    })?;
    let client = context.client_of([reference.registry()])?;
    Ok((client.repository(reference.repository().clone())?, reference))
}

/// Returns the text of a location without its tag or digest.
pub(crate) fn place(location: &Location) -> String {
    match location.reference() {
        Some(reference) => reference.repository().to_string(),
        None => location.with_name(Name::Only).to_string(),
    }
}
