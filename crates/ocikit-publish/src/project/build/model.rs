use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;
use ocikit::{Annotations, Digest, Platform, Reference, Repository};
use ocikit_build::{Observer, Solve};

use crate::config::Attest;
use crate::git::GitState;
use crate::project::error::ProjectError;
use crate::publish::{ImageSigner, PublishError, PublishedTag};
use crate::report::Report;
use crate::tags::TagError;

/// How the images of a project are built.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BuildOptions<'a> {
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
    /// The annotations that every image gets, on its index and its manifests.
    pub annotations: Annotations,
    /// How the images are published below the registry; `None` if they are not.
    pub publishing: Option<Publishing<'a>>,
}

/// How images are published.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Publishing<'a> {
    /// Who signs, if anything is signed. Images of pull requests and merge groups are not, as by
    /// [`Plan::signed_by_event`](crate::Plan::signed_by_event).
    pub signers: Option<&'a dyn SignerSource>,
    /// The attestations to make.
    pub attest: Attest,
    /// Where the images come from: the event decides about signatures, and a statement about the publication names the rest.
    pub git: GitState,
}

/// An error of a [`SignerSource`].
pub type SignerError = Box<dyn std::error::Error + Send + Sync>;

/// Provides the signer of each image when it is published. A certificate of keyless signing is valid for minutes, and a run
/// takes as long as its builds.
pub trait SignerSource: Send + Sync + std::fmt::Debug {
    /// Returns a signer that is valid now.
    fn signer(&self) -> BoxFuture<'_, Result<ImageSigner, SignerError>>;
}

impl BuildOptions<'_> {
    /// Returns the options to build into a directory.
    pub fn new(solve: Solve, registry: impl Into<String>, layouts: impl Into<PathBuf>) -> Self {
        Self {
            solve,
            registry: registry.into(),
            registry_argument: "REGISTRY".to_owned(),
            layouts: layouts.into(),
            parallel: 1,
            keep_going: false,
            annotations: Annotations::default(),
            publishing: None,
        }
    }
}

/// Follows a run.
pub trait BuildObserver: Send + Sync + std::fmt::Debug {
    /// An image starts. Returns what follows its steps.
    fn started(&self, image: &str, version: &str) -> Option<Arc<dyn Observer>>;

    /// An image exists, and is published now.
    fn publishing(&self, image: &str, version: &str);

    /// An image ended.
    fn ended(&self, image: &str, outcome: &ImageOutcome);
}

/// The result of a run: an entry for each image that it had to build, in the order of the project.
#[derive(Debug, Default)]
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
#[derive(Debug, Clone)]
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
    /// The report of its publication.
    pub report: Option<Box<Report>>,
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
    /// There is no signer.
    #[error("cannot sign")]
    Signer(#[source] SignerError),
    /// Some tags do not point to the image.
    #[error("{}", not_tagged(.tags))]
    Tagged {
        /// The tags and what was found.
        tags: Vec<PublishedTag>,
        /// The report of the publication.
        report: Box<Report>,
    },
    /// The statement about the publication could not be stored. Every tag points to the image.
    #[error("the image is published without a statement about that")]
    Statement {
        /// The reason.
        source: Box<ocikit_sign::Error>,
        /// The report of the publication.
        report: Box<Report>,
    },
    /// Another process published the version meanwhile, and that image lacks platforms. It was not replaced.
    #[error("{reference} was published meanwhile by another process, as {digest}, without {}", .missing.join(", "))]
    Taken {
        /// The image.
        reference: Box<Reference>,
        /// Its digest.
        digest: Digest,
        /// The platforms that it lacks.
        missing: Vec<String>,
    },
    /// An image that this one is built from is neither in its layout nor in the registry.
    #[error("it is built from {reference}, which is neither in a layout nor in the registry")]
    MissingParent {
        /// The image that is missing.
        reference: Box<Reference>,
        /// The stage of that image.
        stage: usize,
    },
}

impl ImageError {
    /// Returns the report of a publication that failed after tags were put.
    pub fn report(&self) -> Option<&Report> {
        match self {
            ImageError::Tagged { report, .. } | ImageError::Statement { report, .. } => Some(report),
            _ => None,
        }
    }
}

/// Returns the message about tags that do not point to an image, with the reason of each.
pub(super) fn not_tagged(tags: &[PublishedTag]) -> String {
    let tags = tags.iter().filter_map(|tag| Some(format!("{}: {}", tag.planned.tag, tag.state.problem()?)));
    format!("some tags do not point to the image: {}", tags.collect::<Vec<_>>().join("; "))
}
