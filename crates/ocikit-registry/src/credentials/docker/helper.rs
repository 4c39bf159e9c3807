//! Programs that keep credentials: docker's credential helpers.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use ocikit_image::process::command;
use ocikit_image::{Error, Result};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use zeroize::Zeroizing;

use super::file::{TOKEN_USER, sorted};
use crate::credentials::{Credential, Secret};

/// How much of what a helper says is read.
const LONGEST: u64 = 1 << 20;

/// How credential helpers are run.
#[derive(Debug, Clone)]
pub struct HelperOptions {
    /// Where to look for them before the directories in which the system finds programs.
    pub directories: Vec<PathBuf>,
    /// How long one may take.
    pub timeout: Duration,
}

impl Default for HelperOptions {
    /// Half a minute.
    fn default() -> HelperOptions {
        HelperOptions { directories: Vec::new(), timeout: Duration::from_secs(30) }
    }
}

/// A helper, by the name that stands in a configuration.
pub(crate) struct Helper<'a> {
    pub(crate) name: &'a str,
    pub(crate) options: &'a HelperOptions,
}

impl Helper<'_> {
    /// What it knows of a server.
    pub(crate) async fn get(&self, server: &str) -> Result<Option<Credential>> {
        let output = match self.run("get", server.as_bytes()).await? {
            Output::Answer(output) => output,
            Output::NotFound => return Ok(None),
        };
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Answer {
            #[serde(default, alias = "username")]
            username: Option<String>,
            #[serde(default, alias = "secret")]
            secret: Option<Secret>,
        }
        // As Go's decoder, this reads one value and not what follows.
        let first = serde_json::Deserializer::from_slice(&output).into_iter::<Answer>().next();
        let answer = first.and_then(Result::ok).ok_or_else(|| self.broken("it gives no credential"))?;
        let secret = answer.secret.filter(|secret| !secret.reveal().is_empty());
        Ok(secret.map(|secret| sorted(answer.username.unwrap_or_default(), secret)))
    }

    /// Lets it keep a credential.
    pub(crate) async fn store(&self, server: &str, credential: &Credential) -> Result<()> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Entry<'a> {
            #[serde(rename = "ServerURL")]
            server: &'a str,
            username: &'a str,
            secret: &'a str,
        }
        let (username, secret) = match credential {
            Credential::Password { username, password } => (username.as_str(), password),
            Credential::Identity(token) => (TOKEN_USER, token),
            Credential::Bearer(_) => return Err(self.broken("helpers keep no tokens for a registry")),
        };
        let entry = Entry { server, username, secret: secret.reveal() };
        let input = Zeroizing::new(serde_json::to_vec(&entry).map_err(|error| self.broken(&error.to_string()))?);
        self.run("store", &input).await.map(drop)
    }

    /// Lets it forget what it knows of a server.
    pub(crate) async fn erase(&self, server: &str) -> Result<()> {
        self.run("erase", server.as_bytes()).await.map(drop)
    }

    async fn run(&self, action: &str, input: &[u8]) -> Result<Output> {
        let is_safe = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
        if self.name.is_empty() || !self.name.chars().all(is_safe) {
            return Err(self.broken("this is not the name of one"));
        }
        let running = self.talk(action, input);
        match tokio::time::timeout(self.options.timeout, running).await {
            Ok(outcome) => outcome,
            // The process ends with the future that waited for it.
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
                // One that does not read what it is told says so by how it ends.
                let _ = stdin.write_all(input).await;
            }
        };
        let read = async {
            let mut output = Zeroizing::new(Vec::new());
            if let Some(stdout) = stdout {
                stdout.take(LONGEST).read_to_end(&mut output).await?;
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
        // What should have been an answer is not repeated, in case it is one.
        let said = said.lines().next().filter(|line| !line.contains('{')).unwrap_or_default();
        let said: String = said.chars().filter(|character| !character.is_control()).take(200).collect();
        Err(self.broken(&format!("it ended with {ended} and said `{said}`")))
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
