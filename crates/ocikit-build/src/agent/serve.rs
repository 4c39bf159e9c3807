//! The agent: listens for the host while it builds.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::config::BuildConfig;
use super::connection;
use super::endpoint::{Endpoint, Listener};
use super::job;
use super::limits::{CLOSE_WAIT, LISTEN_ATTEMPTS, LISTEN_INTERVAL, MAX_CONNECTIONS};
use super::options::AgentOptions;
use super::outcome::{BuildResult, ErrorCode};
use super::shared::{Delivery, Shared};
use crate::error::{Error, Result};

/// The end of an agent.
#[derive(Debug)]
#[non_exhaustive]
pub struct Served {
    /// The result, as the host received it.
    pub result: BuildResult,
    /// Why the build failed.
    pub error: Option<Error>,
    /// Whether a host received the result.
    pub is_delivered: bool,
}

/// Builds what `build.json` says, while hosts can follow the log, and waits until a host has the result.
///
/// A configuration that cannot be used is a result too: the host learns which key is wrong. When this future is dropped, the
/// build ends, with everything that it started.
///
/// # Errors
///
/// [`Error::Failed`] if the agent cannot listen. A build that fails is not an error of this function: see [`Served::error`].
pub async fn serve(config: Result<BuildConfig>, options: &AgentOptions) -> Result<Served> {
    let listener = listen(&options.endpoint).await?;
    let ids = config.as_ref().map(|config| config.secrets.clone()).unwrap_or_default();
    let shared = Arc::new(Shared::new(ids, options.observer.clone()));
    shared.provenance().timestamp.clone_from(&options.timestamp);
    tokio::select! {
        () = accept(&listener, &shared) => Err(Error::Cancelled),
        served = work(config, options, &shared) => Ok(served),
    }
}

async fn listen(endpoint: &Endpoint) -> Result<Listener> {
    let mut attempt = 1;
    loop {
        match Listener::bind(endpoint) {
            Ok(listener) => return Ok(listener),
            Err(error) => {
                let is_late = matches!(endpoint, Endpoint::Vsock { .. }) && attempt < LISTEN_ATTEMPTS;
                if !is_late || error.kind() == std::io::ErrorKind::AddrInUse {
                    return Err(Error::failed("listen for the host")(error));
                }
            }
        }
        attempt += 1;
        tokio::time::sleep(LISTEN_INTERVAL).await;
    }
}

/// Serves every connection. Never ends by itself.
async fn accept(listener: &Listener, shared: &Arc<Shared>) {
    const PAUSE: Duration = Duration::from_millis(50);
    let mut connections = JoinSet::new();
    loop {
        let accepted = listener.accept().await;
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok(stream) if connections.len() < MAX_CONNECTIONS => {
                let shared = shared.clone();
                connections.spawn(async move { connection::serve(stream, &shared).await });
            }
            // Closed at once: a host tries again.
            Ok(_) => {}
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn work(config: Result<BuildConfig>, options: &AgentOptions, shared: &Shared) -> Served {
    let begun = Instant::now();
    let pushed = match config {
        Ok(config) => job::run(&config, options, shared).await,
        Err(error) => Err(error),
    };
    let mut result = BuildResult {
        success: pushed.is_ok(),
        provenance: shared.provenance().clone(),
        duration_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        ..BuildResult::default()
    };
    let error = match pushed {
        Ok(pushed) => {
            result.image_digest = Some(pushed.digest);
            result.image_ref = Some(pushed.reference);
            None
        }
        Err(error) => {
            let error = without_secrets(error, shared);
            let text = shared.log.redacted(&ocikit_spec::with_causes(&error));
            shared.log.push(None, &format!("error: {text}"));
            result.error = Some(text);
            result.code = Some(ErrorCode::of(&error));
            Some(error)
        }
    };
    shared.finish(result.clone());
    let sent = tokio::time::timeout(options.linger, shared.wait_for_delivery(Delivery::Sent)).await;
    if sent.is_ok() {
        let _ = tokio::time::timeout(CLOSE_WAIT, shared.wait_for_delivery(Delivery::Closed)).await;
    }
    Served { result, error, is_delivered: sent.is_ok() }
}

/// Replaces the secrets in what the steps of a failed build printed.
fn without_secrets(error: Error, shared: &Shared) -> Error {
    match error {
        Error::Solve { message, log } => {
            Error::Solve { message: shared.log.redacted(&message), log: shared.log.redacted(&log) }
        }
        error => error,
    }
}
