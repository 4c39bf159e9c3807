//! Mirrors images by a configuration file: which tags of which repositories are copied to which target.
//!
//! ```
//! use ocikit::sync::Config;
//!
//! let config = Config::parse(
//!     "
//!     images:
//!       - from: alpine
//!         to: registry.example.com/mirror/alpine
//!         tags: [latest]
//!         semver: '>=3.18, <4'
//!         platforms: [linux/amd64, linux/arm64]
//!     ",
//!     None,
//! )?;
//! assert_eq!(config.rules[0].from.to_string(), "docker.io/library/alpine");
//! # Ok::<(), ocikit::sync::Invalid>(())
//! ```

mod config;
mod file;
mod run;
mod select;
mod skopeo;
mod versions;

pub use config::{Access, Config, Invalid, Prefix, Rule};
pub use run::{Done, Gate, Item, SyncError, SyncOptions, sync};
pub use select::Select;
pub use versions::{InvalidVersions, Versions, VersionsProblem};
