use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use ocikit_image::process::command;

use crate::address::{Address, Node};
use crate::daemon::{Daemon, DaemonOptions};
use crate::error::{Error, Result};
use crate::installation::{Installation, Installations};
use crate::version::{version, version_word};
use crate::watched;

/// Where to look for BuildKit.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct BuilderOptions {
    /// The `buildctl` program; that of the search path or of an installation if `None`.
    pub buildctl: Option<PathBuf>,
    /// The nodes to use. If there are none, a daemon is started.
    pub nodes: Vec<Node>,
    /// How a daemon is started.
    pub daemon: DaemonOptions,
    /// Where BuildKit may be installed.
    pub installations: Option<Installations>,
}

/// The BuildKit that a build uses: running daemons, or one that was started for the build and ends with it.
#[derive(Debug)]
pub struct Builder {
    nodes: Vec<Node>,
    daemon: Option<Daemon>,
    buildctl: PathBuf,
    /// The lock of the installation that is used.
    _held: Option<File>,
}

/// A kind of BuildKit, in the order in which they are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuilderKind {
    /// A daemon with an address that the user chose.
    Address,
    /// `buildkitd` of the search path, started for one build.
    Daemon,
    /// `buildkitd` of an installation, started for one build.
    Installed,
    /// The container of a builder of `docker buildx`.
    Buildx,
}

impl BuilderKind {
    /// Returns the name.
    pub fn as_str(self) -> &'static str {
        match self {
            BuilderKind::Address => "address",
            BuilderKind::Daemon => "buildkitd",
            BuilderKind::Installed => "installed",
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
    /// The installation, if it is one.
    pub installation: Option<Installation>,
    /// Why it cannot be used; `None` if it can.
    pub problem: Option<Unusable>,
}

/// Why a BuildKit cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Unusable {
    /// A program cannot be started, or tells no version.
    #[error("cannot start `{}`: {source}", .program.display())]
    NotStarted {
        /// The program.
        program: PathBuf,
        /// The failure.
        source: Arc<io::Error>,
    },
    /// A program ended with an error: the daemon cannot be reached, or docker fails.
    #[error("{message}")]
    Failed {
        /// The last line of its standard error.
        message: String,
    },
    /// The daemon cannot be started here, or the installations cannot be read.
    #[error("{}", with_cause(.0))]
    Other(Arc<Error>),
    /// BuildKit is not installed in this directory.
    #[error("no BuildKit is installed in {}", .directory.display())]
    NotInstalled {
        /// The directory of installations.
        directory: PathBuf,
    },
    /// BuildKit is installed and must not be used.
    #[error("{problem}")]
    Installation {
        /// The problem; see [`Installation::problem`].
        problem: String,
    },
    /// No container of a builder of `docker buildx` is running.
    #[error("no container of a `docker buildx` builder is running")]
    NoContainer,
}

impl Unusable {
    fn not_started(program: &Path, error: io::Error) -> Unusable {
        Unusable::NotStarted { program: program.to_owned(), source: Arc::new(error) }
    }
}

impl From<Error> for Unusable {
    fn from(error: Error) -> Unusable {
        Unusable::Other(Arc::new(error))
    }
}

impl Builder {
    /// Returns the given nodes. Without any, starts the daemon of the search path, or else that of an installation; if its programs
    /// are missing, uses the container of a `docker buildx` builder.
    ///
    /// # Errors
    ///
    /// Those of [`Daemon::start`].
    pub async fn find(options: &BuilderOptions) -> Result<Builder> {
        let installation = current(options)?;
        let buildctl = buildctl(options, installation.as_ref());
        let running = |nodes| Builder { nodes, daemon: None, buildctl: buildctl.clone(), _held: None };
        if !options.nodes.is_empty() {
            // A program of the installation could be removed only before it starts.
            return Ok(running(options.nodes.clone()));
        }
        let missing = match options.daemon.check() {
            Ok(()) => return Builder::start(&options.daemon, buildctl, None).await,
            Err(missing) => missing,
        };
        let missing = match &installation {
            None => missing,
            Some(installed) => {
                let daemon = options.daemon.clone().with_installation(installed);
                match daemon.check() {
                    Ok(()) => {
                        let buildctl = options.buildctl.clone().unwrap_or_else(|| installed.program("buildctl"));
                        return Builder::start(&daemon, buildctl, Some(installed.hold()?)).await;
                    }
                    Err(missing) => missing,
                }
            }
        };
        match buildx_container() {
            Ok(address) => Ok(running(vec![Node { platforms: Vec::new(), address }])),
            Err(_) => Err(missing),
        }
    }

    async fn start(options: &DaemonOptions, buildctl: PathBuf, held: Option<File>) -> Result<Builder> {
        let daemon = Daemon::start(options).await?;
        let node = Node { platforms: Vec::new(), address: daemon.address().clone() };
        Ok(Builder { nodes: vec![node], daemon: Some(daemon), buildctl, _held: held })
    }

    /// Returns the `buildctl` program for these nodes.
    pub fn buildctl(&self) -> &Path {
        &self.buildctl
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
            let installation = current(&options);
            let buildctl = buildctl(&options, installation.as_ref().ok().and_then(Option::as_ref));
            let missing = version(&buildctl).err().map(|error| Unusable::not_started(&buildctl, error));
            let ready = |daemon: &DaemonOptions, missing: &Option<Unusable>| match (missing, daemon.check()) {
                (Some(missing), _) => Err(missing.clone()),
                (None, Err(error)) => Err(error.into()),
                (None, Ok(())) => {
                    version(&daemon.program).map_err(|error| Unusable::not_started(&daemon.program, error))
                }
            };
            let reachable = |address: &Address| match &missing {
                Some(missing) => Err(missing.clone()),
                None => reach(&buildctl, address),
            };
            let mut found = Vec::new();
            for Node { address, .. } in &options.nodes {
                found.push(candidate(BuilderKind::Address, Some(address.clone()), reachable(address)));
            }
            found.push(candidate(BuilderKind::Daemon, None, ready(&options.daemon, &missing)));
            if let Some(installations) = &options.installations {
                let (installation, state) = match installation {
                    Err(error) => (None, Err(error.into())),
                    Ok(None) => (None, Err(unusable(installations))),
                    Ok(Some(found)) => {
                        let state = ready(&options.daemon.clone().with_installation(&found), &None);
                        (Some(found), state)
                    }
                };
                found.push(Candidate { installation, ..candidate(BuilderKind::Installed, None, state) });
            }
            let container = buildx_container();
            let reached = container.as_ref().map_err(Clone::clone).and_then(reachable);
            found.push(candidate(BuilderKind::Buildx, container.ok(), reached));
            found
        });
        found.await.unwrap_or_default()
    }

    /// Returns how a daemon would be started: as root, or without root by `rootlesskit`.
    pub fn daemon_mode(options: &DaemonOptions) -> &'static str {
        if options.is_rootless() { "rootless" } else { "root" }
    }
}

fn candidate(kind: BuilderKind, address: Option<Address>, reached: Result<String, Unusable>) -> Candidate {
    let (version, problem) = match reached {
        Ok(version) => (Some(version), None),
        Err(problem) => (None, Some(problem)),
    };
    Candidate { kind, address, version, installation: None, problem }
}

fn current(options: &BuilderOptions) -> Result<Option<Installation>> {
    options.installations.as_ref().map_or(Ok(None), Installations::current)
}

/// Returns the `buildctl` program: the chosen one, that of the search path, or that of an installation.
fn buildctl(options: &BuilderOptions, installation: Option<&Installation>) -> PathBuf {
    const ON_PATH: &str = "buildctl";
    match (&options.buildctl, installation) {
        (Some(chosen), _) => chosen.clone(),
        (None, Some(installed)) if watched::find(Path::new(ON_PATH)).is_err() => installed.program(ON_PATH),
        (None, _) => ON_PATH.into(),
    }
}

/// Returns why no installation can be used.
fn unusable(installations: &Installations) -> Unusable {
    match installations.list().unwrap_or_default().into_iter().find_map(|found| found.problem) {
        Some(problem) => Unusable::Installation { problem },
        None => Unusable::NotInstalled { directory: installations.directory().to_owned() },
    }
}

fn with_cause(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Runs a program and returns its standard output, or the last line of its standard error.
fn run(program: &Path, arguments: &[String]) -> Result<String, Unusable> {
    let mut command = command(program);
    command.args(arguments).stdin(Stdio::null());
    let output = command.output().map_err(|error| Unusable::not_started(program, error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it failed without a message");
    Err(Unusable::Failed { message: last.trim_start_matches("error: ").to_owned() })
}

/// Asks a daemon for its version.
pub(crate) fn reach(buildctl: &Path, address: &Address) -> Result<String, Unusable> {
    let mut arguments = address.arguments();
    arguments.extend(["debug", "info"].map(str::to_owned));
    Ok(version_word(&run(buildctl, &arguments)?))
}

/// Returns the address of the first running container of a `docker buildx` builder.
fn buildx_container() -> Result<Address, Unusable> {
    let arguments = ["ps", "--filter", "name=buildx_buildkit_", "--format", "{{.Names}}"].map(str::to_owned);
    let names = run(Path::new("docker"), &arguments)?;
    let name = names.lines().find(|name| name.starts_with("buildx_buildkit_"));
    let name = name.ok_or(Unusable::NoContainer)?;
    Ok(format!("docker-container://{name}").parse::<Address>()?)
}
