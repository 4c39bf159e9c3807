//! A repository of images that depend on each other.
//!
//! A project has a directory for each image: `contexts/00-base`, `contexts/10-app`, each with a `Dockerfile` and an
//! `info.edn` or `image.toml`. The dependencies are the references in the Dockerfiles.
//!
//! ```
//! use ocikit_publish::project::{CascadePolicy, Project, ProjectOptions};
//!
//! # let directory = std::env::temp_dir().join(format!("ocikit-doc-project-{}", std::process::id()));
//! # for (name, file) in [("00-base", "FROM scratch\n"), ("10-app", "ARG REGISTRY\nFROM ${REGISTRY}/base:1.2.9\n")] {
//! #     let path = directory.join("contexts").join(name);
//! #     std::fs::create_dir_all(&path)?;
//! #     std::fs::write(path.join("Dockerfile"), file)?;
//! #     let version = if name == "00-base" { "1.3.0" } else { "0.1.0" };
//! #     std::fs::write(path.join("info.edn"), format!("{{:version \"{version}\"}}\n"))?;
//! # }
//! let project = Project::load(&directory, &ProjectOptions::default())?;
//! assert_eq!(project.images()[1].name, "app");
//! let cascade = project.cascade(CascadePolicy::default())?;
//! assert_eq!(cascade.bumps[0].to, "0.1.1");
//! cascade.apply()?;
//! # std::fs::remove_dir_all(&directory)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod apply;
mod build;
mod cascade;
mod dockerfile;
mod edn;
mod error;
mod files;
mod inputs;
mod layouts;
mod limits;
mod load;
mod metadata;
mod model;
mod order;
mod place;
mod plan;
mod render;
mod report;
#[cfg(test)]
mod tests;
mod transfer;
mod version;

pub use apply::finish_cascade;
pub use build::{
    BuildObserver, BuildOptions, BuildReport, Done, ImageError, ImageOutcome, ImageReport, Publishing, SignerError,
    SignerSource, build_project,
};
pub use cascade::{Bump, Cascade, CascadeNote, CascadePolicy, ChangedReference, FileChange};
pub use dockerfile::{
    Arguments, Dockerfile, DockerfileError, DockerfileProblem, ImageReference, Piece, PieceKind, References, Traced,
    Via,
};
pub use error::{CycleStep, Problem, ProjectError};
pub use limits::{
    MAX_DOCKERFILE_BYTES, MAX_EDN_DEPTH, MAX_EXPANDED_BYTES, MAX_EXPANSION_BYTES, MAX_IMAGES, MAX_LINE_BYTES,
    MAX_METADATA_BYTES, MAX_PATTERN_BYTES, MAX_PROBLEMS, MAX_SUBSTITUTION_DEPTH,
};
pub use load::ProjectOptions;
pub use metadata::{ContextEntry, Located, Metadata, MetadataError, MetadataFormat};
pub use model::{Dependency, Pin, Project, ProjectImage};
pub use place::{FilePlace, Span};
pub use plan::{
    BuildPlan, CiMatrix, Decision, INPUTS_ANNOTATION, PlanOptions, PlannedImage, Published as PublishedImage, Reason,
    Selection, Shard, ShardError, Shards, Share, Survey, SurveyError, SurveyOptions, UnknownImage, assign,
    base_digests, matrix, reference, survey,
};
pub use render::{GraphDependency, GraphImage, GraphOutput};
pub use report::{ProjectReport, ReportedImage};
pub use transfer::{ImagePlace, TransferOutcome, transfer};
pub use version::{Level, Version};
