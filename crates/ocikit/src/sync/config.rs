use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use ocikit_image::Referrers;
use ocikit_registry::{Credential, Secret};
use ocikit_spec::{MediaType, Platform, Reference, Registry, Repository};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::select::Select;
use super::skopeo;

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
    pub(super) fn syntax(problem: impl fmt::Display) -> Invalid {
        Invalid::Syntax { problem: problem.to_string() }
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
    fn below(&self, from: &Repository) -> Result<Repository, ocikit_spec::Error> {
        let name = match self.scoped {
            true => from.to_string(),
            false => from.path().rsplit('/').next().unwrap_or_default().to_owned(),
        };
        let path = if self.path.is_empty() { name } else { format!("{}/{name}", self.path) };
        Repository::new(self.registry.clone(), &path)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    jobs: Option<usize>,
    per_minute: Option<u32>,
    images: Vec<Image>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Image {
    from: String,
    to: Option<String>,
    /// YAML reads `1.20` as a number; when a string is requested, the parser returns it as it is written.
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default, rename = "match")]
    matches: Vec<String>,
    semver: Option<String>,
    #[serde(default)]
    except: Vec<String>,
    #[serde(default)]
    platforms: Vec<String>,
    #[serde(default)]
    referrers: AlongWith,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum AlongWith {
    Whether(bool),
    Types(Vec<String>),
}

impl Default for AlongWith {
    fn default() -> AlongWith {
        AlongWith::Whether(true)
    }
}

impl Config {
    /// Parses a file with a list of `images`, or one in the format of `skopeo sync`, which names registries. `to` is
    /// the target of images for which the file states none: of all images in skopeo's format.
    ///
    /// # Errors
    ///
    /// [`Invalid`] with the position of the problem.
    pub fn parse(text: &str, to: Option<&Prefix>) -> Result<Config, Invalid> {
        let keys: BTreeMap<String, IgnoredAny> = serde_saphyr::from_str(text).map_err(Invalid::syntax)?;
        if !keys.contains_key("images") {
            return skopeo::parse(text, to);
        }
        let file: File = serde_saphyr::from_str(text).map_err(Invalid::syntax)?;
        let rules = file.images.into_iter().map(|image| image.rule(to)).collect::<Result<_, _>>()?;
        let jobs = file.jobs.unwrap_or(DEFAULT_JOBS).max(1);
        Ok(Config { jobs, per_minute: file.per_minute, rules, registries: BTreeMap::new() })
    }
}

/// The default number of images that are copied in parallel.
pub(super) const DEFAULT_JOBS: usize = 8;

impl Image {
    fn rule(self, to: Option<&Prefix>) -> Result<Rule, Invalid> {
        let image = &self.from;
        let from = source(image)?;
        let to = match (&self.to, to) {
            (Some(to), _) => repository(to).map_err(|problem| Invalid::Target {
                image: image.clone(),
                target: to.clone(),
                problem,
            })?,
            (None, Some(prefix)) => prefix.target(image, &from)?,
            (None, None) => return Err(Invalid::NoTarget { image: image.clone() }),
        };
        let platforms = self.platforms.iter().map(|platform| platform.parse());
        Ok(Rule {
            from,
            to,
            select: Select::of(&self.tags, &self.matches, self.semver.as_deref(), &self.except)
                .map_err(|problem| Invalid::selection(image, problem))?,
            platforms: platforms.collect::<Result<_, _>>().map_err(|error| Invalid::selection(image, error))?,
            referrers: match self.referrers {
                AlongWith::Whether(true) => Referrers::All,
                AlongWith::Whether(false) => Referrers::None,
                AlongWith::Types(types) => Referrers::OfTypes(types.into_iter().map(MediaType::new).collect()),
            },
        })
    }
}

/// Parses the source of an image.
pub(super) fn source(text: &str) -> Result<Repository, Invalid> {
    repository(text).map_err(|problem| Invalid::Source { image: text.to_owned(), problem })
}

/// Parses a repository without a tag; the tags are stated in a separate field.
fn repository(text: &str) -> Result<Repository, String> {
    let reference: Reference = text.parse().map_err(|error: ocikit_spec::Error| error.to_string())?;
    let repository = reference.repository().clone();
    let named_alone = text.contains('@') || text.rsplit('/').next().is_some_and(|last| last.contains(':'));
    if named_alone {
        return Err("a tag belongs in `tags`".to_owned());
    }
    Ok(repository)
}

/// Returns the credential for a user name and a password.
pub(super) fn password(username: String, password: String) -> Credential {
    Credential::Password { username, password: Secret::new(password) }
}

#[cfg(test)]
mod tests {
    use ocikit_image::Name;

    use super::*;

    #[test]
    fn reads_own_format() {
        let text = "
jobs: 2
perMinute: 30
images:
  - from: alpine
    to: localhost:5000/mirror/alpine
    tags: [3.20, latest]
    platforms: [linux/amd64]
    referrers: false
  - from: ghcr.io/acme/app
    match: ['^v1']
    except: [-rc]
    referrers: [application/vnd.dev.cosign.artifact.sig.v1+json]
";
        let config = Config::parse(text, Some(&"localhost:5000/all".parse().unwrap())).unwrap();
        assert_eq!((config.jobs, config.per_minute), (2, Some(30)));
        let [one, two] = &config.rules[..] else { panic!("two rules") };
        assert_eq!(one.from.to_string(), "docker.io/library/alpine");
        assert_eq!(one.to.to_string(), "localhost:5000/mirror/alpine");
        assert_eq!(one.select.choose(&[])[0], Name::Tag("3.20".parse().unwrap()), "not a number");
        assert_eq!((one.platforms.len(), &one.referrers), (1, &Referrers::None));
        assert_eq!(two.to.to_string(), "localhost:5000/all/app");
        assert!(matches!(&two.referrers, Referrers::OfTypes(types) if types.len() == 1));
    }

    #[test]
    fn rejects_invalid_files() {
        for (text, problem) in [
            ("images: [{from: alpine}]", "it has no target"),
            ("images: [{from: 'alpine:1', to: localhost/a}]", "tags"),
            ("images: [{from: alpine, to: localhost/a, tagz: [1]}]", "tagz"),
            ("images: [{from: alpine, to: localhost/a, match: ['(']}]", "regex"),
            ("images: [{from: alpine, to: localhost/a, semver: x.y}]", "x.y"),
            ("images: [{from: alpine, to: localhost/a, platforms: ['/']}]", "platform"),
            ("images: 1", "images"),
            ("[", ""),
        ] {
            let error = Config::parse(text, None).unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn repositories_go_below_a_prefix() {
        let from: Reference = "ghcr.io/acme/app".parse().unwrap();
        for (prefix, scoped, expected) in [
            ("localhost:5000", false, "localhost:5000/app"),
            ("localhost:5000/a/b/", false, "localhost:5000/a/b/app"),
            ("localhost:5000/a", true, "localhost:5000/a/ghcr.io/acme/app"),
        ] {
            let prefix = prefix.parse::<Prefix>().unwrap().scoped(scoped);
            assert_eq!(prefix.below(from.repository()).unwrap().to_string(), expected);
        }
        assert!("localhost/A".parse::<Prefix>().is_err());
    }
}
