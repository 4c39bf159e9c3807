//! An agent whose build fails at once, with hosts of every kind.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use super::limits::{MAX_CONNECTIONS, MAX_MESSAGE_BYTES};
use super::{AgentOptions, Endpoint, ErrorCode, Host, HostHandler, LogLine, Secret, Served, Status, serve};
use crate::error::Error;

/// Collects the log.
#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

#[async_trait]
impl HostHandler for Lines {
    async fn secret(&self, _: &str) -> Option<Secret> {
        None
    }

    fn log(&self, line: &LogLine) {
        self.0.lock().unwrap().push(line.log.clone());
    }
}

fn endpoint(place: &Path) -> Endpoint {
    Endpoint::Unix(place.join("agent.sock"))
}

/// Starts an agent without a Dockerfile, and waits until it listens.
async fn start(place: &Path, linger: Duration) -> JoinHandle<Served> {
    let mut options = AgentOptions::new(endpoint(place));
    options.linger = linger;
    let agent = tokio::spawn(async move { serve(Err(Error::NoDockerfile), &options).await.unwrap() });
    while UnixStream::connect(place.join("agent.sock")).await.is_err() {
        tokio::task::yield_now().await;
    }
    agent
}

fn host(place: &Path) -> Host {
    Host::new(endpoint(place))
}

const LONG: Duration = Duration::from_secs(600);

#[tokio::test]
async fn a_host_receives_the_log_and_the_failure() {
    let place = tempfile::tempdir().unwrap();
    let agent = start(place.path(), LONG).await;
    assert_eq!(host(place.path()).status().await.unwrap(), Status::Completed);
    let lines = Lines::default();
    let result = host(place.path()).run(&lines).await.unwrap();
    assert_eq!((result.success, result.code), (false, Some(ErrorCode::DockerfileRequired)));
    let error = result.error.clone().unwrap();
    assert_eq!(*lines.0.lock().unwrap(), [format!("error: {error}")]);
    let served = agent.await.unwrap();
    assert_eq!((served.is_delivered, &served.result), (true, &result));
    assert!(matches!(served.error, Some(Error::NoDockerfile)));
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn the_result_alone_is_enough() {
    let place = tempfile::tempdir().unwrap();
    let agent = start(place.path(), LONG).await;
    // Too late, and without an effect.
    host(place.path()).cancel().await.unwrap();
    let result = host(place.path()).result().await.unwrap();
    assert_eq!(result.code, Some(ErrorCode::DockerfileRequired));
    assert!(agent.await.unwrap().is_delivered);
}

#[tokio::test]
async fn an_agent_ends_without_a_host() {
    let place = tempfile::tempdir().unwrap();
    let agent = start(place.path(), Duration::from_millis(10)).await;
    assert!(!agent.await.unwrap().is_delivered);
}

/// Sends bytes and returns what the agent answers until it closes the connection, or this many lines.
async fn answers(place: &Path, sent: &[u8], count: usize) -> Vec<String> {
    let mut stream = UnixStream::connect(place.join("agent.sock")).await.unwrap();
    // The agent may close the connection before it has read everything.
    let _ = stream.write_all(sent).await;
    let mut text = Vec::new();
    while text.iter().filter(|byte| **byte == b'\n').count() < count {
        match stream.read_u8().await {
            Ok(byte) => text.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(text).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn wrong_messages_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let agent = start(place.path(), LONG).await;
    let told = answers(place.path(), b"hunter2\n{\"type\":\"other\"}\n{\"type\":\"get_status\"}\n", 3).await;
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].contains(r#""code":"protocol""#) && !told[0].contains("hunter2"), "{told:?}");
    assert!(told[1].contains(r#""code":"protocol""#), "{told:?}");
    assert_eq!(told[2], r#"{"type":"status","log":"completed"}"#);
    let told = answers(place.path(), b"{\"type\":\"host_ready\",\"version\":9}\n", 9).await;
    assert!(told.len() == 1 && told[0].contains(r#""code":"version_unsupported""#), "{told:?}");
    let endless = vec![b'x'; MAX_MESSAGE_BYTES + 10];
    let told = answers(place.path(), &endless, 9).await;
    assert!(told.len() <= 1 && told.iter().all(|line| line.contains(r#""code":"protocol""#)), "{told:?}");
    assert!(answers(place.path(), b"{\"type\":\"get_st", 0).await.is_empty());
    host(place.path()).result().await.unwrap();
    agent.await.unwrap();
}

#[tokio::test]
async fn connections_are_limited() {
    let place = tempfile::tempdir().unwrap();
    let agent = start(place.path(), LONG).await;
    let mut open = Vec::new();
    for _ in 0..MAX_CONNECTIONS + 1 {
        open.push(UnixStream::connect(place.path().join("agent.sock")).await.unwrap());
    }
    // One of them is closed at once.
    let (closed, ..) = futures::future::select_all(open.iter_mut().map(|stream| Box::pin(stream.read_u8()))).await;
    assert!(closed.is_err());
    drop(open);
    host(place.path()).result().await.unwrap();
    agent.await.unwrap();
}
