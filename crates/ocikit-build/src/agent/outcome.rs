//! What an agent reports at the end.

use std::collections::BTreeMap;

use ocikit_spec::Digest;
use serde::{Deserialize, Serialize};

use super::dockerfile::DockerfileOrigin;
use crate::error::{Error, UploadProblem};
use crate::materials::UsedImage;

/// The result of a build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BuildResult {
    /// Whether the image was built and pushed.
    pub success: bool,
    /// The digest of the pushed image or index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<Digest>,
    /// The name of the pushed image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_ref: Option<String>,
    /// Why the build failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The kind of that failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<ErrorCode>,
    /// How the image was made, as far as it is known.
    #[serde(default)]
    pub provenance: Provenance,
    /// The duration in milliseconds, from the start of the agent to the pushed image.
    pub duration_ms: u64,
}

/// How an image was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Provenance {
    /// The digest of the requested base image, or of the only one that was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_image_digest: Option<Digest>,
    /// Every image that BuildKit used, with the digest that it really had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub base_images: Vec<UsedImage>,
    /// The hash of the source directory; see [`SourceHash`](super::SourceHash).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_hash: Option<Digest>,
    /// The hash of the source, the Dockerfile, the build arguments and the used base images together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs_hash: Option<Digest>,
    /// The SHA-256 of each lock file in the source directory, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lockfile_hashes: BTreeMap<String, String>,
    /// The version of the BuildKit daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buildkit_version: Option<String>,
    /// The time of the start (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<String>,
    /// Where the Dockerfile came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dockerfile: Option<DockerfileOrigin>,
    /// Other Dockerfiles that were given and not used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored_dockerfiles: Vec<DockerfileOrigin>,
}

/// The kind of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorCode {
    /// `build.json` is missing, or a key of it is missing, unknown or wrong.
    ConfigInvalid,
    /// `build.json` or the host has a newer version.
    VersionUnsupported,
    /// There is no Dockerfile.
    DockerfileRequired,
    /// No Dockerfile can be generated for the runtime: the source lacks a file.
    RuntimeUnusable,
    /// The source cannot be read.
    SourceUnreadable,
    /// The host did not send a secret.
    SecretMissing,
    /// No file system in memory was found for the secrets.
    SecretsNotInMemory,
    /// BuildKit is missing or cannot be started.
    BuildkitUnavailable,
    /// The Dockerfile is wrong, or a step failed.
    BuildFailed,
    /// The build did not use the requested base image.
    BaseImageMismatch,
    /// The registry refused the credential.
    RegistryDenied,
    /// The registry cannot be reached.
    RegistryUnreachable,
    /// The image could not be pushed for another reason.
    PushFailed,
    /// The build exceeded its time limit.
    Timeout,
    /// The host cancelled the build.
    Cancelled,
    /// A message was wrong.
    Protocol,
    /// Another reason.
    Other,
}

impl ErrorCode {
    /// Returns the kind of an error.
    pub fn of(error: &Error) -> ErrorCode {
        match error {
            Error::Config { .. } | Error::Option { .. } => ErrorCode::ConfigInvalid,
            Error::Version { .. } => ErrorCode::VersionUnsupported,
            Error::NoDockerfile => ErrorCode::DockerfileRequired,
            Error::Missing { what: "the description of the build", .. } => ErrorCode::ConfigInvalid,
            Error::Missing { what: "the Dockerfile", .. } => ErrorCode::DockerfileRequired,
            Error::Missing { .. } | Error::Source { .. } | Error::Context { .. } => ErrorCode::SourceUnreadable,
            Error::Generate { .. } => ErrorCode::RuntimeUnusable,
            Error::MissingSecrets { .. } => ErrorCode::SecretMissing,
            Error::NotInMemory { .. } => ErrorCode::SecretsNotInMemory,
            Error::Start { .. }
            | Error::Daemon { .. }
            | Error::Unreachable { .. }
            | Error::Rootless { .. }
            | Error::Unfit { .. } => ErrorCode::BuildkitUnavailable,
            Error::Solve { .. } => ErrorCode::BuildFailed,
            Error::BaseImage { .. } => ErrorCode::BaseImageMismatch,
            Error::TimedOut { .. } => ErrorCode::Timeout,
            Error::Cancelled => ErrorCode::Cancelled,
            Error::Protocol { .. } => ErrorCode::Protocol,
            Error::Upload { problem: UploadProblem::Denied, .. } | Error::Image(ocikit_image::Error::Denied { .. }) => {
                ErrorCode::RegistryDenied
            }
            Error::Upload { problem: UploadProblem::Unreachable, .. }
            | Error::Image(ocikit_image::Error::Unreachable { .. }) => ErrorCode::RegistryUnreachable,
            Error::Upload { problem: UploadProblem::Other, .. } | Error::Image(_) => ErrorCode::PushFailed,
            Error::Failed { .. } | Error::InUse { .. } => ErrorCode::Other,
        }
    }
}
