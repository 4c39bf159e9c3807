//! Artifacts: their manifests, and the files in them by the conventions of oras.

mod builder;
mod file;
mod place;
mod pull;
mod title;
mod unpack;

pub use builder::{ArtifactBuilder, UNKNOWN_ARTIFACT};
pub use file::{ArtifactFile, UNKNOWN_CONFIG};
pub use pull::{PullOptions, Pulled, PulledFile, pull_files};

/// `io.deis.oras.content.digest`: the digest of the tar of a directory before it was compressed.
const CONTENT_DIGEST: &str = "io.deis.oras.content.digest";

/// `io.deis.oras.content.unpack`: `true` on the layer of a directory.
const CONTENT_UNPACK: &str = "io.deis.oras.content.unpack";
