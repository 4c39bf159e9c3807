//! One connection of a host to an agent.

use std::time::Duration;

use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{Mutex, watch};

use super::limits::CLOSE_WAIT;
use super::message::{self, FromAgent, FromHost, PROTOCOL_VERSION, Status};
use super::outcome::ErrorCode;
use super::shared::{Delivery, Shared};
use crate::error::{Error, Result};

/// How long a host may take to read what is written to it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// Serves a host until it closes the connection, or has the result.
pub(super) async fn serve(stream: UnixStream, shared: &Shared) {
    let (read, write) = stream.into_split();
    let connection = Connection { writer: Mutex::new(write), shared, begin: watch::Sender::new(None) };
    let reading = async {
        let mut read = BufReader::new(read);
        if let Err(error) = connection.read(&mut read).await {
            // The host may have gone.
            let _ = connection.refuse(&error).await;
        }
    };
    let streaming = async {
        if connection.stream().await.is_ok() {
            tokio::time::sleep(CLOSE_WAIT).await;
        }
    };
    tokio::select! {
        () = reading => {}
        () = streaming => {}
    }
    // The result, if it was sent, was sent to a connection that is closed now.
    shared.connection_closed();
}

struct Connection<'a> {
    writer: Mutex<OwnedWriteHalf>,
    shared: &'a Shared,
    /// The number of the first line that the host wants.
    begin: watch::Sender<Option<u64>>,
}

impl Connection<'_> {
    async fn write(&self, message: &FromAgent) -> Result<()> {
        let mut writer = self.writer.lock().await;
        let written = tokio::time::timeout(WRITE_TIMEOUT, message::write(&mut *writer, message)).await;
        written.unwrap_or_else(|_| Err(Error::Protocol { problem: "the host does not read".to_owned() }))
    }

    async fn refuse(&self, error: &Error) -> Result<()> {
        self.write(&FromAgent::Error { error: error.to_string(), code: ErrorCode::of(error) }).await
    }

    /// Handles the messages of the host until it closes the connection.
    async fn read(&self, from: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> Result<()> {
        while let Some(line) = message::read_line(from).await? {
            match message::parse::<FromHost>(&line) {
                Ok(FromHost::HostReady { version: Some(found), .. }) if found > PROTOCOL_VERSION => {
                    return Err(Error::Version { what: "the host", found, supported: PROTOCOL_VERSION });
                }
                Ok(FromHost::HostReady { from, .. }) => {
                    if self.shared.needs_secrets() {
                        self.write(&FromAgent::GetSecrets { secret_ids: self.shared.secret_ids.clone() }).await?;
                    }
                    self.begin.send_replace(Some(from));
                }
                Ok(FromHost::SecretsResponse { secrets }) => self.shared.offer_secrets(secrets),
                Ok(FromHost::GetStatus) => {
                    let log = if self.shared.result().is_some() { Status::Completed } else { Status::Building };
                    self.write(&FromAgent::Status { log }).await?;
                }
                Ok(FromHost::GetResult) => {
                    self.send_result().await?;
                    return Ok(());
                }
                Ok(FromHost::Cancel) => self.shared.cancel(),
                // A newer host may know more messages.
                Err(error) => self.refuse(&error).await?,
            }
        }
        Ok(())
    }

    async fn send_result(&self) -> Result<()> {
        let Some(result) = self.shared.wait_for_result().await else { return Ok(()) };
        self.write(&FromAgent::BuildResult { result: Box::new((*result).clone()) }).await?;
        self.shared.delivered(Delivery::Sent);
        Ok(())
    }

    /// Waits until the host is ready, and writes each line of the log as soon as it is there, and then the result.
    async fn stream(&self) -> Result<()> {
        let mut begin = self.begin.subscribe();
        let begin = begin.wait_for(Option::is_some).await.ok().and_then(|begin| *begin);
        let mut next = begin.unwrap_or_default();
        let mut changed = self.shared.log.subscribe();
        loop {
            changed.borrow_and_update();
            // Looked up before the lines: the log is closed before there is a result.
            let is_finished = self.shared.result().is_some();
            let lines = self.shared.log.from(next);
            for line in &lines {
                self.write(&FromAgent::Log((**line).clone())).await?;
                next = line.sequence + 1;
            }
            if !lines.is_empty() {
                continue;
            }
            if is_finished {
                return self.send_result().await;
            }
            tokio::select! {
                _ = changed.changed() => {}
                _ = self.shared.wait_for_result() => {}
            }
        }
    }
}
