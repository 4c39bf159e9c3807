use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::error::{Error, Result};

/// How a daemon is started.
#[derive(Debug, Clone)]
pub struct DaemonOptions {
    /// The program.
    pub program: PathBuf,
    /// More arguments, as `BUILDKITD_FLAGS` has them for `buildctl-daemonless.sh`.
    pub arguments: Vec<String>,
    /// The program that makes a daemon without root possible; it is used if this process is not root.
    pub rootlesskit: PathBuf,
    /// How long it may take to become ready.
    pub patience: Duration,
}

impl Default for DaemonOptions {
    /// `buildkitd` and `rootlesskit` from the search path, half a minute.
    fn default() -> DaemonOptions {
        DaemonOptions {
            program: "buildkitd".into(),
            arguments: Vec::new(),
            rootlesskit: "rootlesskit".into(),
            patience: Duration::from_secs(30),
        }
    }
}

/// A BuildKit daemon of our own, in a temporary directory, for as long as this lives.
///
/// It runs below a shell that ends it when a pipe from this process closes: on [`Daemon::stop`], when this is dropped,
/// and when this process dies in whatever way.
#[derive(Debug)]
pub struct Daemon {
    /// The shell; `None` once it was stopped.
    child: Option<Child>,
    address: String,
    directory: TempDir,
}

/// Starts the daemon in the background, waits for the pipe on descriptor 3 to close, and ends the daemon.
const WATCHDOG: &str = r#"exec 3<&0 </dev/null
"$@" 3<&- &
daemon=$!
{ read -r _ <&3; kill "$daemon" 2>/dev/null; } &
watch=$!
wait "$daemon"
code=$?
kill "$watch" 2>/dev/null
exit "$code""#;

impl Daemon {
    /// Starts a daemon and waits until it is ready.
    ///
    /// # Errors
    ///
    /// [`Error::Start`] if a program is missing, [`Error::Daemon`] if it ends or takes too long.
    pub async fn start(options: &DaemonOptions) -> Result<Daemon> {
        let directory = tempfile::Builder::new().prefix("ocikit-buildkit-").tempdir();
        let directory = directory.map_err(Error::failed("make a temporary directory"))?;
        let socket = directory.path().join("buildkitd.sock");
        let log = File::create(directory.path().join("log")).map_err(Error::failed("make a log file"))?;
        let errors = log.try_clone().map_err(Error::failed("make a log file"))?;
        let address = format!("unix://{}", socket.display());
        let arguments = arguments(options, directory.path(), &address);
        for program in [&options.program].into_iter().chain((!is_root()).then_some(&options.rootlesskit)) {
            is_there(program)?;
        }
        let mut command = Command::new("sh");
        command.args(["-c", WATCHDOG, "buildkitd-watchdog"]).args(&arguments);
        command.stdin(Stdio::piped()).stdout(log).stderr(errors);
        // A key press that interrupts us must not reach the daemon before we had time to end the solve.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command.spawn().map_err(|source| Error::Start { program: "sh".to_owned(), source })?;
        let mut daemon = Daemon { child: Some(child), address, directory };
        daemon.wait_until_ready(&socket, options.patience).await?;
        Ok(daemon)
    }

    /// Where it listens, as `buildctl --addr` takes it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Ends it and waits for that, a few seconds at most.
    pub async fn stop(mut self) {
        if let Some(child) = self.child.take() {
            // Where the runtime is going down already nobody can wait; the closed pipe does the rest.
            let _ = tokio::task::spawn_blocking(move || end(child)).await;
        }
    }

    async fn wait_until_ready(&mut self, socket: &Path, patience: Duration) -> Result<()> {
        const STEP: Duration = Duration::from_millis(20);
        let mut waited = Duration::ZERO;
        while !is_listening(socket) {
            let ended =
                self.child.as_mut().map(Child::try_wait).transpose().map_err(Error::failed("watch buildkitd"))?;
            if ended.flatten().is_some() {
                return Err(Error::Daemon { problem: "ended before it was ready", log: self.log() });
            }
            if waited >= patience {
                return Err(Error::Daemon { problem: "did not become ready in time", log: self.log() });
            }
            tokio::time::sleep(STEP).await;
            waited += STEP;
        }
        Ok(())
    }

    /// The last lines of its log.
    fn log(&self) -> String {
        let log = fs::read(self.directory.path().join("log")).unwrap_or_default();
        last_lines(&String::from_utf8_lossy(&log), 20)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            end(child);
        }
    }
}

fn arguments(options: &DaemonOptions, directory: &Path, address: &str) -> Vec<String> {
    let text = |path: &Path| path.display().to_string();
    let mut arguments = Vec::new();
    if !is_root() {
        arguments.push(text(&options.rootlesskit));
        arguments.push(format!("--state-dir={}", text(&directory.join("rootlesskit"))));
        arguments.extend(["--net=host", "--copy-up=/etc", "--copy-up=/run"].map(str::to_owned));
    }
    arguments.push(text(&options.program));
    if !is_root() {
        arguments.extend(["--rootless", "--oci-worker-no-process-sandbox"].map(str::to_owned));
    }
    arguments.push(format!("--root={}", text(&directory.join("root"))));
    arguments.push(format!("--addr={address}"));
    // The snapshots live as long as the daemon: the one kind that works on every file system.
    arguments.push("--oci-worker-snapshotter=native".to_owned());
    arguments.extend(options.arguments.iter().cloned());
    arguments
}

/// Closes the pipe, gives the daemon time to end by itself, and takes that time away if it does not.
fn end(mut child: Child) {
    const PATIENCE: Duration = Duration::from_secs(10);
    const STEP: Duration = Duration::from_millis(10);
    drop(child.stdin.take());
    let mut waited = Duration::ZERO;
    while waited < PATIENCE && matches!(child.try_wait(), Ok(None)) {
        std::thread::sleep(STEP);
        waited += STEP;
    }
    if matches!(child.try_wait(), Ok(None)) {
        #[cfg(unix)]
        if let Some(group) = rustix::process::Pid::from_raw(child.id().cast_signed()) {
            // It may have ended in this moment; either way it is gone afterwards.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Whether a program can be started, asked before a shell hides the answer.
fn is_there(program: &Path) -> Result<()> {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let started = command.status();
    started.map(drop).map_err(|source| Error::Start { program: program.display().to_string(), source })
}

#[cfg(unix)]
fn is_listening(socket: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(socket).is_ok()
}

#[cfg(not(unix))]
fn is_listening(socket: &Path) -> bool {
    socket.exists()
}

#[cfg(unix)]
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(not(unix))]
fn is_root() -> bool {
    true
}

pub(crate) fn last_lines(text: &str, most: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(most)..].join("\n")
}
