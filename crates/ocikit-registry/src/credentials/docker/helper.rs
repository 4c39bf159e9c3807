//! Runs docker's credential helpers.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use ocikit_http::Secret;
use ocikit_image::process::command;
use ocikit_image::{Error, Result};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use zeroize::Zeroizing;

use super::file::{TOKEN_USER, credential_of};
use crate::credentials::keychain::Credential;

/// Maximum size of a helper's output.
const MAX_OUTPUT_BYTES: u64 = 1 << 20;

/// How credential helpers are run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HelperOptions {
    /// Directories that are searched before those of the operating system.
    pub directories: Vec<PathBuf>,
    /// Time limit for one run.
    pub timeout: Duration,
}

ocikit_spec::setters! {
    HelperOptions {
        directories: Vec<PathBuf>,
        timeout: Duration,
    }
}

impl Default for HelperOptions {
    /// Returns a time limit of 30 s.
    fn default() -> HelperOptions {
        HelperOptions { directories: Vec::new(), timeout: Duration::from_secs(30) }
    }
}

/// A helper, by its name in the configuration.
pub(crate) struct Helper<'a> {
    pub(crate) name: &'a str,
    pub(crate) options: &'a HelperOptions,
}

impl Helper<'_> {
    /// Returns the credential for a server.
    pub(crate) async fn get(&self, server: &str) -> Result<Option<Credential>> {
        let output = match self.run("get", server.as_bytes()).await? {
            Output::Answer(output) => output,
            Output::NotFound => return Ok(None),
        };
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct HelperCredential {
            #[serde(default, alias = "username")]
            username: Option<String>,
            #[serde(default, alias = "secret")]
            secret: Option<Secret>,
        }
        // Like Go's decoder, this reads one value and ignores what follows.
        let first = serde_json::Deserializer::from_slice(&output).into_iter::<HelperCredential>().next();
        let answer = first.and_then(Result::ok).ok_or_else(|| self.broken("it returned no credential"))?;
        let secret = answer.secret.filter(|secret| !secret.reveal().is_empty());
        Ok(secret.map(|secret| credential_of(answer.username.unwrap_or_default(), secret)))
    }

    /// Stores a credential.
    pub(crate) async fn store(&self, server: &str, credential: &Credential) -> Result<()> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct StoreRequest<'a> {
            #[serde(rename = "ServerURL")]
            server: &'a str,
            username: &'a str,
            secret: &'a str,
        }
        let (username, secret) = match credential {
            Credential::Password { username, password } => (username.as_str(), password),
            Credential::Identity(token) => (TOKEN_USER, token),
            Credential::Bearer(_) => return Err(self.broken("a credential helper cannot store a registry token")),
        };
        let entry = StoreRequest { server, username, secret: secret.reveal() };
        let input = Zeroizing::new(serde_json::to_vec(&entry).map_err(|error| self.broken(&error.to_string()))?);
        self.run("store", &input).await.map(drop)
    }

    /// Deletes the credential for a server.
    pub(crate) async fn erase(&self, server: &str) -> Result<()> {
        self.run("erase", server.as_bytes()).await.map(drop)
    }

    async fn run(&self, action: &str, input: &[u8]) -> Result<Output> {
        let is_safe = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
        if self.name.is_empty() || !self.name.chars().all(is_safe) {
            return Err(self.broken("the name is not valid"));
        }
        let running = self.talk(action, input);
        match tokio::time::timeout(self.options.timeout, running).await {
            Ok(outcome) => outcome,
            // The process is killed when its future is dropped.
            Err(_) => Err(self.broken(&format!("it took longer than {} s", self.options.timeout.as_secs_f64()))),
        }
    }

    async fn talk(&self, action: &str, input: &[u8]) -> Result<Output> {
        let program = format!("docker-credential-{}", self.name);
        let here = self.options.directories.iter().map(|directory| directory.join(&program));
        let program = here.into_iter().find(|path| path.is_file()).unwrap_or_else(|| program.into());
        let mut child = Command::from(command(program))
            .arg(action)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Error::failed("run", self.shown(), error))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let write = async {
            if let Some(mut stdin) = stdin {
                // A helper that does not read its input reports failure by its exit status.
                let _ = stdin.write_all(input).await;
            }
        };
        let read = async {
            let mut output = Zeroizing::new(Vec::new());
            if let Some(stdout) = stdout {
                stdout.take(MAX_OUTPUT_BYTES).read_to_end(&mut output).await?;
            }
            Ok::<_, std::io::Error>(output)
        };
        let ((), output) = futures::join!(write, read);
        let output = output.map_err(|error| Error::failed("read from", self.shown(), error))?;
        let ended = child.wait().await.map_err(|error| Error::failed("wait for", self.shown(), error))?;
        if ended.success() {
            return Ok(Output::Answer(output));
        }
        let said = String::from_utf8_lossy(&output);
        if said.contains("credentials not found") {
            return Ok(Output::NotFound);
        }
        // An output that looks like an answer is not shown, since it may contain the secret.
        let said = said.lines().next().filter(|line| !line.contains('{')).unwrap_or_default();
        let said: String = said.chars().filter(|character| !character.is_control()).take(200).collect();
        Err(self.broken(&format!("it ended with {ended} and printed `{said}`")))
    }

    fn shown(&self) -> String {
        format!("the credential helper `{}`", self.name)
    }

    fn broken(&self, problem: &str) -> Error {
        Error::broken(self.shown(), problem)
    }
}

enum Output {
    Answer(Zeroizing<Vec<u8>>),
    NotFound,
}
