use std::collections::BTreeMap;

use ocikit::Annotations;

use super::prefix::Prefix;
use crate::formats::LayerFormat;
use crate::git::Event;
use crate::lazy::LazyRequest;
use crate::oidc::{OidcError, TrustedIssuer};
use crate::signify;
use crate::tags::{DefaultTags, FixedScheme, NamedTag, TagError, TagRequest};

/// The maximum size of a configuration, in bytes.
pub const MAX_CONFIG_BYTES: usize = 1 << 20;
/// The maximum number of registries of one kind.
pub const MAX_REGISTRIES: usize = 100;

/// A configuration.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Config {
    /// The name of the image: the path below each registry.
    pub name: Option<String>,
    /// The registries by kind.
    pub registries: BTreeMap<(Stage, Access), Vec<Target>>,
    /// The events that differ from [`Rule::default_of`].
    pub rules: BTreeMap<Event, Rule>,
    /// The fixed scheme of tags, if it is on.
    pub scheme: Option<FixedScheme>,
    /// The tags of every image.
    pub tags: Vec<NamedTag>,
    /// The default tags.
    pub defaults: DefaultTags,
    /// The tag that pull requests get in addition.
    pub additional_pull_request: Option<NamedTag>,
    /// The environment variables that templates may read.
    pub allowed_environment: Vec<String>,
    /// Whether moving tags may go back to an older version.
    pub allow_back: bool,
    /// Annotations of every image.
    pub annotations: Annotations,
    /// The formats of the layers; as they are if empty.
    pub formats: Vec<LayerFormat>,
    /// The lazily pulled images.
    pub lazy: LazyRequest,
    /// The issuers of tokens that authorize callers.
    pub trusted_issuers: Vec<TrustedIssuer>,
    /// The signing services.
    pub signify: Option<signify::Config>,
    /// The keys that are for other programs.
    pub ignored: Vec<&'static str>,
}

/// Which registries an event publishes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Stage {
    /// Those for unaccepted commits.
    Dev,
    /// Those for accepted commits.
    Prod,
}

/// Whether everyone may read the images of a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[non_exhaustive]
pub enum Access {
    /// The ordinary registries.
    #[default]
    Open,
    /// The restricted ones.
    Restricted,
}

/// A registry, or a path in it, that images are pushed to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Target {
    /// Where images are pushed to.
    pub push: Prefix,
    /// Where they are read from; another name for the same images, as virtual repositories have.
    pub read: Prefix,
}

impl Target {
    /// Creates a target that is read where it is pushed to.
    pub fn new(push: Prefix) -> Target {
        Target { read: push.clone(), push }
    }
}

/// What an event does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rule {
    /// The registries that it publishes to; none if `None`.
    pub stage: Option<Stage>,
    /// Whether its images are signed.
    pub sign: bool,
    /// The attestations that its images get.
    pub attest: Attest,
}

/// The attestations that are made when an image is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Attest {
    /// Whether the attestations of BuildKit in the index are signed: provenance and SBOM.
    pub build: bool,
    /// Whether a statement about the publication is signed: repository, tags, event and commit.
    pub published: bool,
}

impl Attest {
    /// Returns whether there is anything to attest.
    pub fn any(self) -> bool {
        self.build || self.published
    }
}

impl Rule {
    /// Returns the rule of an event that a configuration does not mention: accepted commits go to the production
    /// registries and are signed; all others go to the development registries.
    pub fn default_of(event: Event) -> Rule {
        let stage = Some(if event.is_accepted() { Stage::Prod } else { Stage::Dev });
        Rule { stage, sign: event.is_accepted(), attest: Attest::default() }
    }
}

impl Config {
    /// Returns the tags that every image gets.
    pub fn tag_request(&self) -> TagRequest {
        TagRequest {
            fixed: self.scheme.clone(),
            named: self.tags.clone(),
            additional_pull_request: self.additional_pull_request.clone(),
            defaults: self.defaults.clone(),
            ..TagRequest::default()
        }
    }

    /// Returns the rule of an event.
    pub fn rule(&self, event: Event) -> Rule {
        self.rules.get(&event).copied().unwrap_or_else(|| Rule::default_of(event))
    }
}

/// Why a configuration is not valid.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// It is not YAML, or has unknown, missing or malformed keys.
    #[error("{problem}")]
    Syntax {
        /// The problem with its place.
        problem: String,
    },
    /// The value of a key is not valid.
    #[error("line {line}, column {column}: `{key}`: {problem}")]
    Value {
        /// The key.
        key: String,
        /// The line, from 1.
        line: u64,
        /// The column, from 1.
        column: u64,
        /// The problem.
        problem: String,
    },
    /// A tag is not valid.
    #[error("line {line}, column {column}: `{key}`: {source}")]
    Tag {
        /// The key.
        key: String,
        /// The line, from 1.
        line: u64,
        /// The column, from 1.
        column: u64,
        /// The problem.
        source: TagError,
    },
    /// An issuer is not valid.
    #[error("`trusted-issuers`: {0}")]
    Issuer(#[from] OidcError),
    /// The section `sign-config` is not valid.
    #[error(transparent)]
    Signify(#[from] signify::Error),
}
