use std::io;
use std::time::Duration;

use ocikit_spec::Digest;

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option of the build cannot be used.
    #[error("cannot use {option} `{value}`: {reason}")]
    Option {
        /// The kind of option, in the words of the command line: `secret`.
        option: &'static str,
        /// The value that was given, without any secret.
        value: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// A file or directory that the build needs does not exist.
    #[error("cannot read {what} {path}: no such file or directory")]
    Missing {
        /// What it is for.
        what: &'static str,
        /// Its path.
        path: String,
    },
    /// A program that BuildKit needs could not be started; usually it is not installed.
    #[error("cannot start `{program}`")]
    Start {
        /// The program.
        program: String,
        /// The underlying error.
        source: io::Error,
    },
    /// BuildKit cannot be started without root on this machine.
    #[error("cannot start buildkitd without root: {reason}")]
    Rootless {
        /// What is missing.
        reason: String,
    },
    /// An image is not one of BuildKit for this machine.
    #[error("cannot install BuildKit from {image}: {reason}")]
    Unfit {
        /// The location of the image.
        image: String,
        /// Why not.
        reason: String,
    },
    /// An installed BuildKit cannot be removed, because a build uses it.
    #[error("cannot remove BuildKit {digest}: a build uses it")]
    InUse {
        /// The digest of its image.
        digest: Digest,
    },
    /// No Dockerfile can be generated for a project.
    #[error("cannot generate a Dockerfile for {runtime}: {reason}")]
    Generate {
        /// The runtime, as on the command line.
        runtime: String,
        /// Why not.
        reason: String,
    },
    /// A build context that was read from a stream cannot be used.
    #[error("cannot read the build context: {reason}")]
    Context {
        /// Why not.
        reason: String,
    },
    /// A BuildKit daemon was started and did not become ready.
    #[error("buildkitd {problem}{}", because(.reason.as_deref()))]
    Daemon {
        /// What happened instead.
        problem: &'static str,
        /// The last lines of its log.
        log: String,
        /// What about this machine may be the reason.
        reason: Option<String>,
    },
    /// No BuildKit daemon answers at an address.
    #[error("cannot reach BuildKit at {address}: {problem}")]
    Unreachable {
        /// The address.
        address: String,
        /// The message of `buildctl`.
        problem: String,
    },
    /// The build failed: the Dockerfile is invalid, a step failed, or the connection to the daemon broke.
    #[error("the build failed: {message}")]
    Solve {
        /// The message of BuildKit.
        message: String,
        /// The last lines of the failed step.
        log: String,
    },
    /// BuildKit built the image and could not upload it.
    #[error("BuildKit cannot push to {target}: {message}")]
    Upload {
        /// The repository, as BuildKit names it.
        target: String,
        /// Why not.
        problem: UploadProblem,
        /// The message of BuildKit.
        message: String,
    },
    /// The build exceeded its time limit and was cancelled.
    #[error("the build took longer than {} seconds and was cancelled", .limit.as_secs())]
    TimedOut {
        /// The time limit.
        limit: Duration,
    },
    /// A key of `build.json` is missing, unknown, or has a value that cannot be used.
    #[error("cannot use {} of build.json: {problem}", named(.key))]
    Config {
        /// The key; empty for the whole document.
        key: String,
        /// Why it cannot be used. It does not repeat the value.
        problem: String,
    },
    /// A document or message has a newer version.
    #[error("cannot read {what}: it has version {found}; this agent knows version {supported}")]
    Version {
        /// What has the version.
        what: &'static str,
        /// Its version.
        found: u64,
        /// The newest known version.
        supported: u64,
    },
    /// A build of an agent has no Dockerfile.
    #[error(
        "Dockerfile required: the source has no file `Dockerfile`, and build.json has neither `dockerfile` nor `runtime`"
    )]
    NoDockerfile,
    /// The source of a build cannot be read.
    #[error("cannot read {path} of the source")]
    Source {
        /// The path of the file or directory.
        path: String,
        /// The underlying error.
        source: io::Error,
    },
    /// The host did not send some secrets.
    #[error("cannot build without the secrets {}: the host did not send them", .ids.join(", "))]
    MissingSecrets {
        /// Their names.
        ids: Vec<String>,
    },
    /// No directory for the secrets is in memory.
    #[error("cannot store the secrets: {paths} is not on a tmpfs")]
    NotInMemory {
        /// The directories that were considered.
        paths: String,
    },
    /// A build did not use the base image that it had to use.
    #[error("the build does not use the base image {expected}: it used {}", listed(.used))]
    BaseImage {
        /// The digest of the requested image.
        expected: Digest,
        /// The images that were used, with their digests.
        used: Vec<String>,
    },
    /// The build was cancelled by the host.
    #[error("the build was cancelled")]
    Cancelled,
    /// The other side of a connection does not keep to the protocol.
    #[error("cannot talk to the other side: {problem}")]
    Protocol {
        /// What it did.
        problem: String,
    },
    /// The result could not be read or stored.
    #[error(transparent)]
    Image(#[from] ocikit_image::Error),
    /// An operation of the operating system failed.
    #[error("cannot {operation}")]
    Failed {
        /// The operation.
        operation: &'static str,
        /// The underlying error.
        source: io::Error,
    },
}

/// Why BuildKit could not upload an image, by its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum UploadProblem {
    /// The registry wants a credential, or another one.
    Denied,
    /// The registry could not be reached, or kept failing.
    Unreachable,
    /// Anything else.
    Other,
}

impl Error {
    pub(crate) fn failed(operation: &'static str) -> impl Fn(io::Error) -> Error {
        move |source| Error::Failed { operation, source }
    }

    /// Returns a function that makes the error of an option with this value, for a reason. Secrets in the value are hidden.
    pub(crate) fn option(option: &'static str, value: &str) -> impl Fn(&str) -> Error {
        let value = crate::hidden::hide_secrets(option, value).into_owned();
        move |reason| Error::Option { option, value: value.clone(), reason: reason.to_owned() }
    }
}

fn named(key: &str) -> String {
    if key.is_empty() { "the content".to_owned() } else { format!("`{key}`") }
}

fn because(reason: Option<&str>) -> String {
    reason.map(|reason| format!("; {reason}")).unwrap_or_default()
}

fn listed(images: &[String]) -> String {
    if images.is_empty() { "none".to_owned() } else { images.join(", ") }
}
