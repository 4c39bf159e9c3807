use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ocikit_image::{ScratchDirectory, ScratchKind};

use crate::address::Address;
use crate::error::{Error, Result};
use crate::installation::Installation;
use crate::rootless;
use crate::watched::{self, Leftovers, Program, Watched};

/// Options of a BuildKit daemon.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DaemonOptions {
    /// The program.
    pub program: PathBuf,
    /// Additional arguments, like `BUILDKITD_FLAGS` of `buildctl-daemonless.sh`.
    pub arguments: Vec<String>,
    /// The program that runs a daemon without root; used if this process is not root, or starts the daemon as another user.
    pub rootlesskit: PathBuf,
    /// The user and group that run the daemon if this process is root, as numbers. The daemon then has no more rights than if that
    /// user had started it, while this process reads and writes files as root. Without root it is not used.
    pub user: Option<(u32, u32)>,
    /// The program that starts containers. `buildkitd` looks for it only when the first step runs.
    pub runc: PathBuf,
    /// A directory that the daemon searches for programs before the search path.
    pub programs: Option<PathBuf>,
    /// The entitlements that builds may use, such as `network.host`.
    pub entitlements: Vec<String>,
    /// The time limit for the daemon to become ready.
    pub startup_timeout: Duration,
}

impl DaemonOptions {
    /// Checks that containers can be started: the OCI worker of `buildkitd` needs `runc`, `buildkit-runc` or the program of
    /// `--oci-worker-binary`.
    pub(crate) fn check_runtime(&self) -> Result<()> {
        let chosen = |argument: &String| {
            ["--oci-worker-binary", "--oci-worker=false"].iter().any(|flag| argument.starts_with(flag))
        };
        let is_installed =
            |programs: &PathBuf| ["buildkit-runc", "runc"].iter().any(|name| programs.join(name).exists());
        if self.arguments.iter().any(chosen) || self.programs.as_ref().is_some_and(is_installed) {
            return Ok(());
        }
        watched::find(Path::new("buildkit-runc")).or_else(|_| watched::find(&self.runc))
    }

    /// Returns the program that starts containers, in the order in which `buildkitd` looks for it.
    fn runtime(&self) -> PathBuf {
        let installed =
            self.programs.iter().flat_map(|programs| ["buildkit-runc", "runc"].map(|name| programs.join(name)));
        let on_path = || Some(PathBuf::from("buildkit-runc")).filter(|name| watched::find(name).is_ok());
        installed.into_iter().find(|program| program.exists()).or_else(on_path).unwrap_or_else(|| self.runc.clone())
    }

    /// Checks that a daemon can be started, without starting it.
    ///
    /// # Errors
    ///
    /// [`Error::Start`] for the first program that is missing, [`Error::Rootless`] if this process is not root and cannot have a
    /// user namespace.
    pub fn check(&self) -> Result<()> {
        watched::find(&self.program)?;
        if self.is_rootless() {
            watched::find(&self.rootlesskit)?;
            rootless::check(self.other_user().map(|(user, _)| user))?;
        }
        self.check_runtime()
    }

    /// Returns whether the daemon runs without root.
    pub(crate) fn is_rootless(&self) -> bool {
        !is_root() || self.user.is_some()
    }

    /// Returns the user of the daemon if it is not that of this process.
    fn other_user(&self) -> Option<(u32, u32)> {
        self.user.filter(|_| is_root())
    }

    /// Returns the options with the programs of an installation.
    #[must_use]
    pub fn with_installation(self, installation: &Installation) -> DaemonOptions {
        let rootlesskit = Some(installation.program("rootlesskit")).filter(|program| program.exists());
        DaemonOptions {
            program: installation.program("buildkitd"),
            rootlesskit: rootlesskit.unwrap_or(self.rootlesskit),
            programs: Some(installation.programs.clone()),
            ..self
        }
    }
}

impl Default for DaemonOptions {
    /// Returns `buildkitd` and `rootlesskit` from the search path, and a time limit of two minutes: `buildkitd` syncs its
    /// databases to disk before it listens, which takes long on a disk that is busy with a build.
    fn default() -> DaemonOptions {
        DaemonOptions {
            program: "buildkitd".into(),
            arguments: Vec::new(),
            rootlesskit: "rootlesskit".into(),
            user: None,
            runc: "runc".into(),
            programs: None,
            entitlements: Vec::new(),
            startup_timeout: Duration::from_secs(120),
        }
    }
}

/// A BuildKit daemon in a temporary directory. It ends when this is dropped or this process ends.
#[derive(Debug)]
pub struct Daemon {
    /// `None` after it was stopped.
    program: Option<Watched>,
    address: Address,
    /// Its output. The watchdog removes the file with the directory, so it is read through this handle.
    log: File,
    _directory: ScratchDirectory,
}

impl Daemon {
    /// Starts a daemon and waits until it is ready.
    ///
    /// # Errors
    ///
    /// [`Error::Start`] if a program is missing, [`Error::Daemon`] if it ends or exceeds the time limit.
    pub async fn start(options: &DaemonOptions) -> Result<Daemon> {
        options.check()?;
        let runtime = options.runtime();
        // Until the watchdog has started, only the next build would remove the directory if this process is killed: nothing slow
        // comes in between.
        let directory = ScratchDirectory::create(&ScratchDirectory::default_parent(), ScratchKind::BuildKit);
        let directory = directory.map_err(Error::failed("make a temporary directory"))?;
        let socket = directory.path().join("buildkitd.sock");
        // Writing at the end is independent of reading from the beginning.
        let log = File::options().read(true).append(true).create_new(true).open(directory.path().join("log"));
        let log = log.map_err(Error::failed("make a log file"))?;
        let copy = || log.try_clone().map_err(Error::failed("make a log file"));
        let (output, errors) = (copy()?, copy()?);
        let address: Address = format!("unix://{}", socket.display()).parse()?;
        let rootless = options.is_rootless();
        if rootless {
            fs::create_dir(directory.path().join(RUNTIME)).map_err(Error::failed("make a temporary directory"))?;
        }
        if let Some(user) = options.other_user() {
            for path in [directory.path(), &directory.path().join(RUNTIME)] {
                give(path, user).map_err(Error::failed("make a temporary directory"))?;
            }
        }
        let (program, arguments) = call(options, directory.path(), &address);
        let remover = rootless.then_some(&*options.rootlesskit);
        // Without root, the containers are in the namespaces of `rootlesskit`.
        let runtime = (!rootless).then_some(&*runtime);
        let leftovers = Leftovers { always: vec![directory.path()], remover, runtime, ..Leftovers::default() };
        let program = Program { path: &program, arguments: &arguments, environment: &[], user: options.other_user() };
        let program = Watched::start(&program, &leftovers, output.into(), errors.into())?;
        let mut daemon = Daemon { program: Some(program), address, log, _directory: directory };
        daemon.wait_until_ready(&socket, options).await?;
        Ok(daemon)
    }

    /// Returns the address of the daemon.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Stops the daemon and waits for a few seconds at most.
    pub async fn stop(mut self) {
        if let Some(program) = self.program.take() {
            // If the runtime is shutting down, waiting is impossible; the closed pipe stops the daemon.
            let _ = tokio::task::spawn_blocking(move || drop(program)).await;
        }
    }

    async fn wait_until_ready(&mut self, socket: &Path, options: &DaemonOptions) -> Result<()> {
        const STEP: Duration = Duration::from_millis(20);
        let mut waited = Duration::ZERO;
        while !is_listening(socket) {
            let ended = self.program.as_mut().map(Watched::ended).transpose();
            let ended = ended.map_err(Error::failed("watch buildkitd"))?;
            if ended.flatten().is_some() {
                let reason = options.is_rootless().then(rootless::restriction).flatten();
                return Err(Error::Daemon { problem: "ended before it was ready", log: self.log(), reason });
            }
            if waited >= options.startup_timeout {
                return Err(Error::Daemon { problem: "did not become ready in time", log: self.log(), reason: None });
            }
            tokio::time::sleep(STEP).await;
            waited += STEP;
        }
        Ok(())
    }

    /// Returns the last lines of its log.
    fn log(&self) -> String {
        const MAX_BYTES: u64 = 64 << 10;
        let mut text = Vec::new();
        let mut log = &self.log;
        let length = log.seek(SeekFrom::End(0)).unwrap_or_default();
        // A log that cannot be read is one without lines.
        let _ = log.seek(SeekFrom::Start(length.saturating_sub(MAX_BYTES)));
        let _ = log.take(MAX_BYTES).read_to_end(&mut text);
        last_lines(&String::from_utf8_lossy(&text), 20)
    }
}

/// Puts a directory before the search path of a program.
const WITH_PROGRAMS: &str = r#"PATH="$1:$PATH"
export PATH
shift
exec "$@""#;

/// The directory for the state of `runc` without root. Its default without a login session is that of root, which the user cannot
/// read.
const RUNTIME: &str = "runtime";

/// Names the directory for the state of `runc`, and a home directory unless it is empty: the daemon of another user cannot read that of
/// root.
const WITH_RUNTIME: &str = r#"XDG_RUNTIME_DIR=$1
HOME=${2:-$HOME}
export XDG_RUNTIME_DIR HOME
shift 2
exec "$@""#;

/// Returns the program to start and its arguments.
fn call(options: &DaemonOptions, directory: &Path, address: &Address) -> (PathBuf, Vec<String>) {
    let program = if options.is_rootless() { &options.rootlesskit } else { &options.program };
    let arguments = arguments(options, directory, address);
    let Some(programs) = &options.programs else { return (program.clone(), arguments) };
    let text = |path: &Path| path.display().to_string();
    let shell = ["-c".to_owned(), WITH_PROGRAMS.to_owned(), "ocikit-programs".to_owned()];
    let shell = shell.into_iter().chain([text(programs), text(program)]);
    ("sh".into(), shell.chain(arguments).collect())
}

fn arguments(options: &DaemonOptions, directory: &Path, address: &Address) -> Vec<String> {
    let text = |path: &Path| path.display().to_string();
    let mut arguments = Vec::new();
    if options.is_rootless() {
        arguments.push(format!("--state-dir={}", text(&directory.join("rootlesskit"))));
        arguments.extend(["--net=host", "--copy-up=/etc", "--copy-up=/run"].map(str::to_owned));
    }
    if options.is_rootless() {
        let shell = ["sh", "-c", WITH_RUNTIME, "ocikit-runtime"].map(str::to_owned);
        let home = options.other_user().map_or(String::new(), |_| text(directory));
        arguments.extend(shell.into_iter().chain([text(&directory.join(RUNTIME)), home, text(&options.program)]));
        arguments.extend(["--rootless", "--oci-worker-no-process-sandbox"].map(str::to_owned));
    }
    arguments.push(format!("--root={}", text(&directory.join("root"))));
    arguments.push(format!("--addr={address}"));
    // Its default is one path for the whole machine, which is mounted into every container: a daemon that ends removes
    // the socket of all others, whose next step then fails.
    arguments.push(format!("--otel-socket-path={}", text(&directory.join("otel-grpc.sock"))));
    // The snapshots exist only as long as the daemon, and `native` works on every file system.
    arguments.push("--oci-worker-snapshotter=native".to_owned());
    arguments.extend(options.entitlements.iter().map(|name| format!("--allow-insecure-entitlement={name}")));
    arguments.extend(options.arguments.iter().cloned());
    arguments
}

#[cfg(unix)]
fn is_listening(socket: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(socket).is_ok()
}

#[cfg(not(unix))]
fn is_listening(socket: &Path) -> bool {
    socket.exists()
}

/// Makes a user the owner of a file.
#[cfg(unix)]
fn give(path: &Path, (user, group): (u32, u32)) -> std::io::Result<()> {
    std::os::unix::fs::chown(path, Some(user), Some(group))
}

#[cfg(not(unix))]
fn give(_: &Path, _: (u32, u32)) -> std::io::Result<()> {
    Ok(())
}

#[cfg(unix)]
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(not(unix))]
pub(crate) fn is_root() -> bool {
    true
}

pub(crate) fn last_lines(text: &str, most: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(most)..].join("\n")
}
