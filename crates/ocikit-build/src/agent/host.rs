//! The host of an agent: follows a build, sends the secrets and receives the result.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use ocikit::registry::Secret;
use tokio::io::BufReader;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::endpoint::Endpoint;
use super::message::{self, FromAgent, FromHost, LogLine, PROTOCOL_VERSION, Status};
use super::outcome::BuildResult;
use crate::error::{Error, Result};

/// Connects to the agent of a build.
///
/// ```no_run
/// use ocikit_build::agent::{Host, HostHandler, LogLine, Secret};
///
/// #[derive(Debug)]
/// struct Service;
///
/// #[async_trait::async_trait]
/// impl HostHandler for Service {
///     async fn secret(&self, id: &str) -> Option<Secret> {
///         std::fs::read_to_string(format!("/srv/secrets/{id}")).ok().map(Secret::new)
///     }
///
///     fn log(&self, line: &LogLine) {
///         tracing(line);
///     }
/// }
///
/// # fn tracing(_: &LogLine) {}
/// # async fn example() -> Result<(), ocikit_build::Error> {
/// let mut host = Host::new("vmm:/run/vm-1.sock:5001".parse()?);
/// host.secrets = ["npm_token".to_owned()].into();
/// let result = host.run(&Service).await?;
/// println!("{:?} {:?}", result.image_digest, result.error);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Host {
    /// Where the agent is.
    pub endpoint: Endpoint,
    /// The names of the secrets that the agent may request: those of its `build.json`.
    pub secrets: BTreeSet<String>,
    /// How often to connect until the agent answers, and again when the connection breaks.
    pub attempts: u32,
    /// The pause between two attempts.
    pub interval: Duration,
    /// The time limit of an attempt.
    pub timeout: Duration,
}

/// What a host does with the messages of an agent.
#[async_trait]
pub trait HostHandler: Send + Sync {
    /// Returns the value of a secret; `None` if there is none. The build then fails before its first step.
    async fn secret(&self, id: &str) -> Option<Secret>;

    /// Handles a line of the log. Each is passed once, in order, as soon as it was printed.
    fn log(&self, line: &LogLine);
}

impl Host {
    /// Returns a host that connects up to 30 times, every 2 seconds, and sends no secrets.
    pub fn new(endpoint: Endpoint) -> Host {
        Host {
            endpoint,
            secrets: BTreeSet::new(),
            attempts: 30,
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(5),
        }
    }

    /// Follows the build to its end. If the connection breaks, connects again and goes on where the log ended.
    ///
    /// There is no time limit: the agent has one. Drop the future to stop following; the build goes on.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if the agent does not answer any more, [`Error::Protocol`] if it speaks another protocol. A build
    /// that failed is a result, not an error.
    pub async fn run(&self, handler: &dyn HostHandler) -> Result<BuildResult> {
        let mut next = 0;
        let mut attempt = 0;
        loop {
            let mut connection = self.connect(&mut attempt).await?;
            let before = next;
            match connection.follow(self, handler, &mut next).await {
                Ok(Some(result)) => return Ok(result),
                // Only an agent that answers nothing is given up.
                Ok(None) | Err(Error::Failed { .. }) if next > before => attempt = 0,
                Ok(None) | Err(Error::Failed { .. }) => {}
                Err(error) => return Err(error),
            }
            self.pause(&mut attempt, std::io::ErrorKind::UnexpectedEof.into()).await?;
        }
    }

    /// Returns whether the build has ended.
    ///
    /// # Errors
    ///
    /// As [`Host::run`].
    pub async fn status(&self) -> Result<Status> {
        match self.ask(&[FromHost::GetStatus]).await? {
            Some(FromAgent::Status { log }) => Ok(log),
            other => Err(unexpected(other)),
        }
    }

    /// Waits for the result, without the log.
    ///
    /// # Errors
    ///
    /// As [`Host::run`].
    pub async fn result(&self) -> Result<BuildResult> {
        match self.ask(&[FromHost::GetResult]).await? {
            Some(FromAgent::BuildResult { result }) => Ok(*result),
            other => Err(unexpected(other)),
        }
    }

    /// Cancels the build. It then has a result with the code `cancelled`, which [`Host::run`] returns.
    ///
    /// # Errors
    ///
    /// As [`Host::run`].
    pub async fn cancel(&self) -> Result<()> {
        // The answer to a second message shows that the first was read.
        self.ask(&[FromHost::Cancel, FromHost::GetStatus]).await.map(drop)
    }

    /// Writes messages to the agent and returns its next one.
    async fn ask(&self, messages: &[FromHost]) -> Result<Option<FromAgent>> {
        let mut connection = self.connect(&mut 0).await?;
        for message in messages {
            connection.write(message).await?;
        }
        connection.read().await
    }

    async fn connect(&self, attempt: &mut u32) -> Result<Connection> {
        loop {
            match self.endpoint.connect(self.timeout).await {
                Ok(stream) => {
                    let (read, write) = stream.into_split();
                    return Ok(Connection { reader: BufReader::new(read), writer: write });
                }
                Err(error) => self.pause(attempt, error).await?,
            }
        }
    }

    /// Waits before the next attempt; after the last one, fails.
    async fn pause(&self, attempt: &mut u32, error: std::io::Error) -> Result<()> {
        *attempt += 1;
        if *attempt >= self.attempts {
            return Err(Error::failed("connect to the agent of the build")(error));
        }
        tokio::time::sleep(self.interval).await;
        Ok(())
    }

    async fn answers(&self, ids: Vec<String>, handler: &dyn HostHandler) -> BTreeMap<String, Secret> {
        let mut secrets = BTreeMap::new();
        // The steps of a build may have taken over the machine.
        for id in ids.into_iter().filter(|id| self.secrets.contains(id)) {
            if let Some(secret) = handler.secret(&id).await {
                secrets.insert(id, secret);
            }
        }
        secrets
    }
}

fn unexpected(message: Option<FromAgent>) -> Error {
    let problem = match message {
        None => "the agent closed the connection".to_owned(),
        Some(FromAgent::Error { error, .. }) => format!("the agent refused a message: {error}"),
        Some(_) => "the agent answered with another message".to_owned(),
    };
    Error::Protocol { problem }
}

struct Connection {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Connection {
    async fn write(&mut self, message: &FromHost) -> Result<()> {
        message::write(&mut self.writer, message).await
    }

    async fn read(&mut self) -> Result<Option<FromAgent>> {
        match message::read_line(&mut self.reader).await? {
            Some(line) => message::parse(&line).map(Some),
            None => Ok(None),
        }
    }

    /// Handles messages until the result, or until the connection ends.
    async fn follow(&mut self, host: &Host, handler: &dyn HostHandler, next: &mut u64) -> Result<Option<BuildResult>> {
        self.write(&FromHost::HostReady { version: Some(PROTOCOL_VERSION), from: *next }).await?;
        while let Some(message) = self.read().await? {
            match message {
                FromAgent::GetSecrets { secret_ids } => {
                    let secrets = host.answers(secret_ids, handler).await;
                    self.write(&FromHost::SecretsResponse { secrets }).await?;
                }
                FromAgent::Log(line) => {
                    if line.sequence >= *next {
                        *next = line.sequence.saturating_add(1);
                        handler.log(&line);
                    }
                }
                FromAgent::BuildResult { result } => return Ok(Some(*result)),
                FromAgent::Status { .. } => {}
                error @ FromAgent::Error { .. } => return Err(unexpected(Some(error))),
            }
        }
        Ok(None)
    }
}
