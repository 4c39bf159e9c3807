//! Publishes images from CI: tags from the git state, many registries, signatures and a report.
//!
//! ```
//! use jiff::Timestamp;
//! use ocikit_publish::git::GitState;
//! use ocikit_publish::tags::{AllowedEnvironment, FixedScheme, TagRequest, compute};
//!
//! let mut git = GitState::default();
//! (git.branch, git.base_sha) = (Some("feature/x".to_owned()), Some("6c22711".to_owned()));
//! let mut request = TagRequest::default();
//! request.fixed = Some(FixedScheme::default());
//! let set = compute(&request, &git, &AllowedEnvironment::default(), Timestamp::UNIX_EPOCH)?;
//! assert_eq!(set.tags[0].tag.as_str(), "feature-x");
//! # Ok::<(), ocikit_publish::tags::TagError>(())
//! ```
//!
//! # What this crate never does
//!
//! * It never prints, reads the environment or a clock: all of them are parameters.
//! * It never moves a tag before everything below it is stored and read back in every registry.
//! * It never reports as signed what was not signed.

mod build;
mod changes;
pub mod ci;
pub mod config;
mod formats;
pub mod git;
mod lazy;
pub mod login;
pub mod oidc;
mod plan;
pub mod plugin;
pub mod project;
mod publish;
mod record;
pub mod report;
mod sanitize;
pub mod signify;
pub mod tags;
pub mod template;
mod yaml;

pub use build::{BuildError, BuiltImage, build, build_arguments};
pub use changes::{Changed, Changes, change, platforms};
pub use formats::{Formatted, LayerFormat, UnknownFormat, with_formats};
pub use lazy::{LazyError, LazyImage, LazyPlacement, LazyRequest, LazySuffix};
pub use plan::{Destination, Plan, PlanError, Signing};
pub use publish::{
    ImageSigner, LazyFailure, LazyPublishError, PUBLISHED_PREDICATE_TYPE, PublishError, Published, PublishedLazy,
    PublishedTag, PublishedTarget, TagState, Times, Transfer, dry_run, publish, publish_lazy,
};
pub use record::{Recorded, Recorder};
pub use sanitize::sanitize;
