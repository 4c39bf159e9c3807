use std::path::PathBuf;
use std::sync::Arc;

use ocikit::{Digest, Platform, Repository};
use ocikit_build::{Observer, Solve};

use crate::project::error::ProjectError;
use crate::publish::PublishError;
use crate::tags::TagError;

/// How the images of a project are built.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BuildOptions {
    /// The options of every build: what the user gives besides the project. Context, Dockerfile, platforms and the registry
    /// are set for each image.
    pub solve: Solve,
    /// The registry and path of the references in the Dockerfiles: the value of the build argument.
    pub registry: String,
    /// The name of that build argument.
    pub registry_argument: String,
    /// The directory with a layout for each image.
    pub layouts: PathBuf,
    /// The maximum number of builds at the same time.
    pub parallel: usize,
    /// Whether other images are built after a failure.
    pub keep_going: bool,
    /// Whether the images are published below the registry.
    pub publish: bool,
}

impl BuildOptions {
    /// Returns the options to build into a directory.
    pub fn new(solve: Solve, registry: impl Into<String>, layouts: impl Into<PathBuf>) -> BuildOptions {
        BuildOptions {
            solve,
            registry: registry.into(),
            registry_argument: "REGISTRY".to_owned(),
            layouts: layouts.into(),
            parallel: 1,
            keep_going: false,
            publish: false,
        }
    }
}

/// Follows a run.
pub trait BuildObserver: Send + Sync + std::fmt::Debug {
    /// An image starts. Returns what follows its steps.
    fn started(&self, image: &str, version: &str) -> Option<Arc<dyn Observer>>;

    /// An image ended.
    fn ended(&self, image: &str, outcome: &ImageOutcome);
}

/// The result of a run: an entry for each image that it had to build, in the order of the project.
#[derive(Debug)]
#[non_exhaustive]
pub struct BuildReport {
    /// The images.
    pub images: Vec<ImageReport>,
}

/// The result of an image.
#[derive(Debug)]
#[non_exhaustive]
pub struct ImageReport {
    /// The position in the project.
    pub position: usize,
    /// What happened.
    pub outcome: ImageOutcome,
}

/// What happened to an image.
#[derive(Debug)]
#[non_exhaustive]
pub enum ImageOutcome {
    /// It was built.
    Built(Done),
    /// It existed with the same inputs, and was not built again.
    Present(Done),
    /// It failed.
    Failed(ImageError),
    /// It was not started, because an image that it depends on failed, or the run stopped.
    Skipped,
}

/// An image that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Done {
    /// The digest of the index.
    pub digest: Digest,
    /// The layout.
    pub layout: PathBuf,
    /// The tags in the layout, or in the repository if it was published.
    pub tags: Vec<String>,
    /// The repository that it was published to.
    pub published: Option<Repository>,
}

/// Why an image failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// BuildKit failed, or cannot be used.
    #[error(transparent)]
    Build(#[from] ocikit_build::Error),
    /// The image cannot be read or stored.
    #[error(transparent)]
    Image(#[from] ocikit::Error),
    /// It cannot be published; no tag has changed.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// Its files cannot be read.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// The tags cannot be computed.
    #[error(transparent)]
    Tags(#[from] TagError),
    /// The repository is not valid.
    #[error(transparent)]
    Reference(#[from] ocikit::spec::Error),
    /// No builder builds a platform.
    #[error("no builder builds {0}")]
    NoBuilder(Platform),
    /// Some tags do not point to the image.
    #[error("the tags {} do not point to the image", .0.join(", "))]
    Tagged(Vec<String>),
}
