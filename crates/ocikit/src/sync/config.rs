use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use ocikit_image::Referrers;
use ocikit_registry::Credential;
use ocikit_spec::{Platform, Reference, Registry, Repository};

use super::select::Select;

/// The configuration of a sync.
#[derive(Debug, Clone)]
pub struct Config {
    /// The number of images that are copied in parallel.
    pub jobs: usize,
    /// The maximum number of images that are started per minute.
    pub per_minute: Option<u32>,
    /// The rules.
    pub rules: Vec<Rule>,
    /// Settings for registries by name; only files in skopeo's format have them.
    pub registries: BTreeMap<String, Access>,
}

/// Some tags of a repository, and the repository that they are mirrored to.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The source repository.
    pub from: Repository,
    /// The target repository; tags keep their names.
    pub to: Repository,
    /// The tags.
    pub select: Select,
    /// The platforms; all if empty. See [`select_platforms`](ocikit_image::select_platforms).
    pub platforms: Vec<Platform>,
    /// The referrers to copy.
    pub referrers: Referrers,
}

/// Settings of a registry.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// The credential.
    pub credential: Option<Credential>,
    /// Whether its certificate is not checked.
    pub insecure: bool,
    /// A directory with certificates for it.
    pub certificates: Option<PathBuf>,
}

/// Why a configuration is invalid.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Invalid {
    /// The text is not YAML, or has unknown or missing keys.
    #[error("{problem}")]
    Syntax {
        /// The problem, with its position.
        problem: String,
    },
    /// The file states no target for an image, and there is no default.
    #[error("{image}: it has no target")]
    NoTarget {
        /// The image; in skopeo's format the first one.
        image: String,
    },
    /// The source of an image is not a repository.
    #[error("{image}: {problem}")]
    Source {
        /// The image, as it is written.
        image: String,
        /// The problem.
        problem: String,
    },
    /// The target of an image is not a repository.
    #[error("the target {target} of {image}: {problem}")]
    Target {
        /// The image.
        image: String,
        /// The target, as it is written.
        target: String,
        /// The problem.
        problem: String,
    },
    /// The tags or platforms of an image cannot be parsed.
    #[error("{image}: {problem}")]
    Selection {
        /// The image.
        image: String,
        /// The problem.
        problem: String,
    },
}

impl Invalid {
    pub(super) fn syntax(error: serde_saphyr::Error) -> Invalid {
        // The default messages name options of the parser, and quote lines of the file, which may have a password.
        Invalid::Syntax { problem: error.without_snippet().render_with_formatter(&serde_saphyr::UserMessageFormatter) }
    }

    pub(super) fn selection(image: &str, problem: impl fmt::Display) -> Invalid {
        Invalid::Selection { image: image.to_owned(), problem: problem.to_string() }
    }
}

/// A registry, or a path in it, that repositories are mirrored to.
#[derive(Debug, Clone)]
pub struct Prefix {
    registry: Registry,
    path: String,
    scoped: bool,
}

impl FromStr for Prefix {
    type Err = ocikit_spec::Error;

    fn from_str(text: &str) -> Result<Prefix, Self::Err> {
        let (registry, path) = text.split_once('/').unwrap_or((text, ""));
        let prefix = Prefix { registry: registry.parse()?, path: path.trim_end_matches('/').to_owned(), scoped: false };
        if !path.is_empty() {
            Repository::new(prefix.registry.clone(), &prefix.path)?;
        }
        Ok(prefix)
    }
}

impl Prefix {
    /// Sets whether the full name of a repository, including its registry, is appended, instead of its last component.
    #[must_use]
    pub fn scoped(self, scoped: bool) -> Prefix {
        Prefix { scoped, ..self }
    }

    /// Returns the target of an image of the file.
    pub(super) fn target(&self, image: &str, from: &Repository) -> Result<Repository, Invalid> {
        self.below(from).map_err(|error| Invalid::Target {
            image: image.to_owned(),
            target: format!("{}/{}", self.registry, self.path).trim_end_matches('/').to_owned(),
            problem: error.to_string(),
        })
    }

    /// Returns the target of a repository.
    pub(super) fn below(&self, from: &Repository) -> Result<Repository, ocikit_spec::Error> {
        let name = match self.scoped {
            true => from.to_string(),
            false => from.path().rsplit('/').next().unwrap_or_default().to_owned(),
        };
        let path = if self.path.is_empty() { name } else { format!("{}/{name}", self.path) };
        Repository::new(self.registry.clone(), &path)
    }
}

/// The default number of images that are copied in parallel.
pub(super) const DEFAULT_JOBS: usize = 8;

/// Parses the source of an image.
pub(super) fn source(text: &str) -> Result<Repository, Invalid> {
    repository(text).map_err(|problem| Invalid::Source { image: text.to_owned(), problem: problem.to_string() })
}

/// Why a text is not a repository.
#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidRepository {
    #[error(transparent)]
    Reference(#[from] ocikit_spec::Error),
    #[error("a tag belongs in `tags`")]
    HasTag,
}

/// Parses a repository without a tag; the tags are stated in a separate field.
pub(super) fn repository(text: &str) -> Result<Repository, InvalidRepository> {
    let reference: Reference = text.parse()?;
    let repository = reference.repository().clone();
    let named_alone = text.contains('@') || text.rsplit('/').next().is_some_and(|last| last.contains(':'));
    if named_alone {
        return Err(InvalidRepository::HasTag);
    }
    Ok(repository)
}
