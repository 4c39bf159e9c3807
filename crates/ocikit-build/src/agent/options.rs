use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ocikit::ClientOptions;

use super::endpoint::Endpoint;
use crate::builder::BuilderOptions;
use crate::progress::Observer;

/// Options of an agent.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AgentOptions {
    /// Where hosts connect to.
    pub endpoint: Endpoint,
    /// The BuildKit to use.
    pub builder: BuilderOptions,
    /// How to connect to the registry. The credential of `build.json` comes before its keychain.
    pub client: ClientOptions,
    /// The directory to build instead of that of `build.json`.
    pub source: Option<PathBuf>,
    /// The directory for secrets, which must be on a tmpfs. The first of `/run`, `/dev/shm` and `/tmp` that is on one if `None`.
    pub secrets_directory: Option<PathBuf>,
    /// How long the host may take to send the secrets.
    pub secrets_timeout: Duration,
    /// How long the agent waits for a host that reads the result.
    pub linger: Duration,
    /// The time of the start, for the provenance (RFC 3339).
    pub timestamp: Option<String>,
    /// The time of everything in the image, in seconds since 1970, for reproducible builds.
    pub source_date_epoch: Option<u64>,
    /// Receives the progress of the build, without secrets.
    pub observer: Option<Arc<dyn Observer>>,
}

impl AgentOptions {
    /// Returns the options of an agent that listens here, waits 30 seconds for secrets, and a minute for a host that reads
    /// the result.
    pub fn new(endpoint: Endpoint) -> AgentOptions {
        AgentOptions {
            endpoint,
            builder: BuilderOptions::default(),
            client: ClientOptions::default(),
            source: None,
            secrets_directory: None,
            secrets_timeout: Duration::from_secs(30),
            linger: Duration::from_secs(60),
            timestamp: None,
            source_date_epoch: None,
            observer: None,
        }
    }
}
