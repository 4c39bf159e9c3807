//! The messages between an agent and its host: one JSON object per line.

use std::collections::BTreeMap;

use ocikit::registry::Secret;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

use super::limits::MAX_MESSAGE_BYTES;
use super::outcome::{BuildResult, ErrorCode};
use crate::error::{Error, Result};

/// The newest version of the protocol that this agent and host speak.
pub const PROTOCOL_VERSION: u64 = 1;

/// A message of the host.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum FromHost {
    /// The host wants the log from a line on, and then the result.
    HostReady {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<u64>,
        /// The number of the first line to send.
        #[serde(default)]
        from: u64,
    },
    /// The values of the requested secrets.
    SecretsResponse {
        #[serde(default, serialize_with = "revealed")]
        secrets: BTreeMap<String, Secret>,
    },
    /// The host waits for the result.
    GetResult,
    /// The host asks whether the build has ended.
    GetStatus,
    /// The build is cancelled.
    Cancel,
}

/// A message of the agent.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum FromAgent {
    GetSecrets {
        secret_ids: Vec<String>,
    },
    Log(LogLine),
    BuildResult {
        result: Box<BuildResult>,
    },
    Status {
        log: Status,
    },
    /// A message of the host could not be handled.
    Error {
        error: String,
        code: ErrorCode,
    },
}

/// A line of the log of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LogLine {
    /// Its number: the first line of a build is 0. Numbers are missing only if lines were dropped.
    pub sequence: u64,
    /// The line, without its end. It comes from the steps of the build: escape it before it is shown.
    pub log: String,
    /// The name of the step that printed it, or whose state it tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

/// Whether a build has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It runs.
    Building,
    /// It has ended, well or not.
    Completed,
}

fn revealed<S: serde::Serializer>(secrets: &BTreeMap<String, Secret>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(secrets.iter().map(|(id, secret)| (id, secret.reveal())))
}

/// Writes a message and its line end.
pub(super) async fn write<T: Serialize>(to: &mut (impl AsyncWrite + Unpin), message: &T) -> Result<()> {
    let invalid =
        |error: serde_json::Error| Error::Protocol { problem: format!("a message cannot be written: {error}") };
    let mut line = Zeroizing::new(serde_json::to_vec(message).map_err(invalid)?);
    if line.len() >= MAX_MESSAGE_BYTES {
        return Err(Error::Protocol { problem: format!("a message has more than {MAX_MESSAGE_BYTES} bytes") });
    }
    line.push(b'\n');
    let failed = Error::failed("write to the connection");
    to.write_all(&line).await.map_err(&failed)?;
    to.flush().await.map_err(failed)
}

/// Reads a line without its end; `None` at the end of the connection.
pub(super) async fn read_line(from: &mut (impl AsyncBufRead + Unpin)) -> Result<Option<Zeroizing<Vec<u8>>>> {
    let mut line = Zeroizing::new(Vec::new());
    let mut limited = from.take(MAX_MESSAGE_BYTES as u64);
    limited.read_until(b'\n', &mut line).await.map_err(Error::failed("read from the connection"))?;
    match line.last() {
        None => Ok(None),
        Some(b'\n') => {
            line.pop();
            Ok(Some(line))
        }
        Some(_) if line.len() >= MAX_MESSAGE_BYTES => {
            Err(Error::Protocol { problem: format!("a message has more than {MAX_MESSAGE_BYTES} bytes") })
        }
        // The connection ended within a message.
        Some(_) => Ok(None),
    }
}

/// Parses a message. The text of a message that cannot be parsed is not repeated, because it may be a secret.
pub(super) fn parse<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T> {
    serde_json::from_slice(line).map_err(|error| {
        let kind = match error.classify() {
            serde_json::error::Category::Data => "has an unknown type or a field that is missing or wrong",
            serde_json::error::Category::Syntax
            | serde_json::error::Category::Eof
            | serde_json::error::Category::Io => "is not a JSON object on one line",
        };
        Error::Protocol { problem: format!("a message {kind}") }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_types_of_the_protocol() {
        for (text, shown) in [
            (r#"{"type":"host_ready"}"#, "HostReady { version: None, from: 0 }"),
            (r#"{"type":"host_ready","version":1,"from":7}"#, "HostReady { version: Some(1), from: 7 }"),
            (r#"{"type":"get_result"}"#, "GetResult"),
            (r#"{"type":"secrets_response","secrets":{"a":"hunter2"}}"#, "SecretsResponse { secrets: {\"a\": ***} }"),
            (r#"{"type":"secrets_response"}"#, "SecretsResponse { secrets: {} }"),
        ] {
            assert_eq!(format!("{:?}", parse::<FromHost>(text.as_bytes()).unwrap()), shown);
        }
        let message = FromHost::SecretsResponse { secrets: [("a".to_owned(), Secret::new("x"))].into() };
        assert_eq!(serde_json::to_string(&message).unwrap(), r#"{"type":"secrets_response","secrets":{"a":"x"}}"#);
        let line = FromAgent::Log(LogLine { sequence: 3, log: "made".to_owned(), step: None });
        assert_eq!(serde_json::to_string(&line).unwrap(), r#"{"type":"log","sequence":3,"log":"made"}"#);
        let status = FromAgent::Status { log: Status::Building };
        assert_eq!(serde_json::to_string(&status).unwrap(), r#"{"type":"status","log":"building"}"#);
        for text in ["hunter2", r#"{"type":"hunter2"}"#, r#"{"type":"secrets_response","secrets":"hunter2"}"#] {
            let error = parse::<FromHost>(text.as_bytes()).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[tokio::test]
    async fn lines_are_limited() {
        let mut endless = tokio::io::BufReader::new(tokio::io::repeat(b'x'));
        assert!(read_line(&mut endless).await.is_err());
        let mut cut: &[u8] = b"{\"a\":1}\n{\"b";
        assert_eq!(read_line(&mut cut).await.unwrap().unwrap().as_slice(), b"{\"a\":1}");
        assert!(read_line(&mut cut).await.unwrap().is_none());
    }
}
