use std::path::{Path, PathBuf};
use std::process::Stdio;

use ocikit_image::process::command;

use crate::address::{Address, Node};
use crate::daemon::{Daemon, DaemonOptions, is_root};
use crate::error::{Error, Result};

/// Where to look for BuildKit.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct BuilderOptions {
    /// The `buildctl` program; that of the search path if `None`.
    pub buildctl: Option<PathBuf>,
    /// The nodes to use. If there are none, a daemon is started.
    pub nodes: Vec<Node>,
    /// How a daemon is started.
    pub daemon: DaemonOptions,
}

/// The BuildKit that a build uses: running daemons, or one that was started for the build and ends with it.
#[derive(Debug)]
pub struct Builder {
    nodes: Vec<Node>,
    daemon: Option<Daemon>,
}

/// A kind of BuildKit, in the order in which they are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuilderKind {
    /// A daemon with an address that the user chose.
    Address,
    /// `buildkitd`, started for one build.
    Daemon,
    /// The container of a builder of `docker buildx`.
    Buildx,
}

impl BuilderKind {
    /// Returns the name.
    pub fn as_str(self) -> &'static str {
        match self {
            BuilderKind::Address => "address",
            BuilderKind::Daemon => "buildkitd",
            BuilderKind::Buildx => "buildx",
        }
    }
}

/// A BuildKit that could be used.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Candidate {
    /// Its kind.
    pub kind: BuilderKind,
    /// Its address, if it is running.
    pub address: Option<Address>,
    /// Its version, if it is known.
    pub version: Option<String>,
    /// Why it cannot be used; `None` if it can.
    pub problem: Option<String>,
}

impl Builder {
    /// Returns the given nodes; without any, starts a daemon; if its programs are missing, uses the container of a `docker
    /// buildx` builder.
    ///
    /// # Errors
    ///
    /// Those of [`Daemon::start`].
    pub async fn find(options: &BuilderOptions) -> Result<Builder> {
        if !options.nodes.is_empty() {
            return Ok(Builder { nodes: options.nodes.clone(), daemon: None });
        }
        if let Err(missing) = options.daemon.check() {
            return match buildx_container() {
                Ok(address) => Ok(Builder { nodes: vec![Node { platforms: Vec::new(), address }], daemon: None }),
                Err(_) => Err(missing),
            };
        }
        let daemon = Daemon::start(&options.daemon).await?;
        let node = Node { platforms: Vec::new(), address: daemon.address().clone() };
        Ok(Builder { nodes: vec![node], daemon: Some(daemon) })
    }

    /// Returns the nodes to build on.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Stops the daemon, if one was started.
    pub async fn stop(self) {
        if let Some(daemon) = self.daemon {
            daemon.stop().await;
        }
    }

    /// Returns every BuildKit that could be used, in the order in which they are tried: the first without a problem is
    /// used. Starts nothing.
    pub async fn candidates(options: &BuilderOptions) -> Vec<Candidate> {
        let options = options.clone();
        let found = tokio::task::spawn_blocking(move || {
            let buildctl = options.buildctl.unwrap_or_else(|| "buildctl".into());
            let missing =
                version(&buildctl).err().map(|error| format!("cannot start `{}`: {error}", buildctl.display()));
            let mut found = Vec::new();
            for node in &options.nodes {
                let reached = match &missing {
                    Some(missing) => Err(missing.clone()),
                    None => reach(&buildctl, &node.address),
                };
                found.push(candidate(BuilderKind::Address, Some(node.address.clone()), reached));
            }
            let ready = match (&missing, options.daemon.check()) {
                (Some(missing), _) => Err(missing.clone()),
                (None, Err(error)) => Err(with_cause(&error)),
                (None, Ok(())) => version(&options.daemon.program).map_err(|error| error.to_string()),
            };
            found.push(candidate(BuilderKind::Daemon, None, ready));
            let container = buildx_container();
            let address = container.as_ref().ok().cloned();
            let reached = match (missing, container) {
                (_, Err(problem)) => Err(problem),
                (Some(missing), _) => Err(missing),
                (None, Ok(address)) => reach(&buildctl, &address),
            };
            found.push(candidate(BuilderKind::Buildx, address, reached));
            found
        });
        found.await.unwrap_or_default()
    }

    /// Returns how a daemon would be started: as root, or without root by `rootlesskit`.
    pub fn daemon_mode() -> &'static str {
        if is_root() { "root" } else { "rootless" }
    }
}

fn candidate(kind: BuilderKind, address: Option<Address>, reached: Result<String, String>) -> Candidate {
    let (version, problem) = match reached {
        Ok(version) => (Some(version), None),
        Err(problem) => (None, Some(problem)),
    };
    Candidate { kind, address, version, problem }
}

fn with_cause(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Runs a program and returns its standard output, or the last line of its standard error.
fn run(program: &Path, arguments: &[String]) -> Result<String, String> {
    let mut command = command(program);
    command.args(arguments).stdin(Stdio::null());
    let output = command.output().map_err(|error| format!("cannot start `{}`: {error}", program.display()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it failed without a message");
    Err(last.trim_start_matches("error: ").to_owned())
}

/// Returns the version of a program of BuildKit: the word of its version text that starts with `v` and a digit.
fn version(program: &Path) -> std::io::Result<String> {
    let output = command(program).arg("--version").stdin(Stdio::null()).output()?;
    Ok(version_word(&String::from_utf8_lossy(&output.stdout)))
}

fn version_word(text: &str) -> String {
    let is_version = |word: &&str| {
        word.strip_prefix('v').unwrap_or(word).starts_with(|letter: char| letter.is_ascii_digit()) && word.contains('.')
    };
    text.split_whitespace().find(is_version).unwrap_or("unknown version").to_owned()
}

/// Asks a daemon for its version.
fn reach(buildctl: &Path, address: &Address) -> Result<String, String> {
    let mut arguments = address.arguments();
    arguments.extend(["debug", "info"].map(str::to_owned));
    Ok(version_word(&run(buildctl, &arguments)?))
}

/// Returns the address of the first running container of a `docker buildx` builder.
fn buildx_container() -> Result<Address, String> {
    let arguments = ["ps", "--filter", "name=buildx_buildkit_", "--format", "{{.Names}}"].map(str::to_owned);
    let names = run(Path::new("docker"), &arguments)?;
    let name = names.lines().find(|name| name.starts_with("buildx_buildkit_"));
    let name = name.ok_or("no container of a `docker buildx` builder is running")?;
    format!("docker-container://{name}").parse().map_err(|error: Error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_text() {
        for (text, version) in [
            ("buildctl github.com/moby/buildkit v0.32.2 ", "v0.32.2"),
            ("BuildKit:\tgithub.com/moby/buildkit 0.12.0 abc", "0.12.0"),
            ("", "unknown version"),
        ] {
            assert_eq!(version_word(text), version);
        }
    }
}
