use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::program::{Outcome, run};

/// Programs of other projects, and the directory in which they run.
#[derive(Debug)]
pub struct Peers {
    directory: TempDir,
}

impl Peers {
    /// Finds the programs that a test needs. Returns `None`, after a message on standard error, if the test must be skipped.
    ///
    /// The variable `OCIKIT_PEERS` decides: if it is unset, tests that need other programs are skipped; with `require`, they
    /// fail if a program is missing.
    ///
    /// # Panics
    ///
    /// If the programs are required and one is missing.
    pub fn find(programs: &[&str]) -> Option<Peers> {
        let required = match std::env::var("OCIKIT_PEERS").as_deref() {
            Ok("require") => true,
            Ok("" | "0") | Err(_) => {
                skip("OCIKIT_PEERS is not set");
                return None;
            }
            Ok(_) => false,
        };
        let missing: Vec<_> = programs.iter().filter(|program| locate(program).is_none()).collect();
        if !missing.is_empty() {
            assert!(!required, "missing: {missing:?}; run tests/peers/install.sh and put its --print-path on PATH");
            skip(&format!("missing: {missing:?}"));
            return None;
        }
        let directory = tempfile::Builder::new().prefix("ocikit-peers-").tempdir().expect("a temporary directory");
        Some(Peers { directory })
    }

    /// Returns a path in the directory of the programs.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Returns a command for one of the programs, with an environment that does not depend on the user.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(locate(program).expect("`find` located the program"));
        let home = self.path("home");
        std::fs::create_dir_all(&home).expect("a home directory");
        command.current_dir(self.directory.path()).env_clear();
        command.env("HOME", &home).env("TMPDIR", self.directory.path()).env("PATH", search_path());
        command
    }

    /// Runs a command line whose words are separated by spaces.
    pub fn run(&self, line: &str) -> Outcome {
        let mut words = line.split_whitespace();
        let program = words.next().expect("a program");
        run(self.command(program).args(words), &[])
    }

    /// Runs a command line that must succeed, and returns its standard output.
    pub fn ok(&self, line: &str) -> String {
        let outcome = self.run(line);
        assert_eq!(outcome.code, 0, "{line}\n{outcome}");
        outcome.stdout.trim_end_matches('\n').to_owned()
    }

    /// Starts the registry of the distribution project on a free port: `registry` is the current version, `docker-registry`
    /// that of Debian.
    pub fn distribution(&self, program: &str) -> Daemon {
        let (port, root) = (free_port(), self.path(&format!("{program}-storage")));
        let config = self.path(&format!("{program}.yml"));
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: \
             127.0.0.1:{port}\nlog:\n  level: warn\n",
            root.display()
        );
        std::fs::write(&config, text).expect("a configuration");
        let mut command = self.command(program);
        command.arg("serve").arg(config).env("OTEL_TRACES_EXPORTER", "none");
        self.daemon(command, port)
    }

    /// Starts an in-memory registry with the referrers API on a free port.
    pub fn olareg(&self) -> Daemon {
        let port = free_port();
        let mut command = self.command("olareg");
        command.args(["serve", "--addr", "127.0.0.1", "--store-type", "mem", "--port", &port.to_string()]);
        command.args(["--api-delete", "--api-blob-delete"]);
        self.daemon(command, port)
    }

    /// Starts the in-memory registry of go-containerregistry on a free port.
    pub fn crane_registry(&self) -> Daemon {
        let port = free_port();
        let mut command = self.command("crane");
        command.args(["registry", "serve", "--address", &format!("127.0.0.1:{port}")]);
        self.daemon(command, port)
    }

    /// Starts a timestamp authority (TSA) with generated keys on a free port. Its responses include the certificate chain.
    pub fn timestamp_server(&self) -> Daemon {
        self.timestamp_server_with(&["--include-chain-in-response"])
    }

    /// Starts a timestamp authority with these flags. The program always occupies port 2112 as well, so only one can run at a
    /// time; the next call waits for up to 60 seconds.
    pub fn timestamp_server_with(&self, flags: &[&str]) -> Daemon {
        let guard = TIMESTAMP_SERVER.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = Instant::now();
        // Another test process may run one.
        while TcpListener::bind(("0.0.0.0", 2112)).is_err() && begun.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(100));
        }
        let port = free_port();
        let mut command = self.command("timestamp-server");
        command.args(["serve", "--host", "127.0.0.1", "--port", &port.to_string(), "--disable-ntp-monitoring"]);
        command.args(flags);
        let mut daemon = self.daemon_at(command, port, "/ping");
        daemon.guard = Some(guard);
        daemon
    }

    /// Starts every registry of other projects, each with its name in `docs/registries.md`.
    pub fn all_registries(&self) -> Vec<(&'static str, Daemon)> {
        vec![
            ("distribution 3.1", self.distribution("registry")),
            ("distribution 2.8", self.distribution("docker-registry")),
            ("olareg 0.1", self.olareg()),
            ("crane 0.21", self.crane_registry()),
        ]
    }

    /// Starts one registry without the referrers API and one with it, each with its name.
    pub fn registries(&self) -> Vec<(&'static str, Daemon)> {
        vec![("distribution", self.distribution("registry")), ("olareg", self.olareg())]
    }

    fn daemon(&self, command: Command, port: u16) -> Daemon {
        self.daemon_at(command, port, "/v2/")
    }

    /// Starts a program that is ready when it answers `GET` of a path with status 200.
    fn daemon_at(&self, command: Command, port: u16, path: &str) -> Daemon {
        let mut daemon = Daemon::start(command, &self.path(&format!("log-{port}")));
        daemon.address = format!("127.0.0.1:{port}");
        let address = daemon.address.clone();
        daemon.wait(|| answers(&address, path));
        daemon
    }
}

/// A program that runs until this is dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
    /// Host and port, if the program listens on a port.
    pub address: String,
    /// The lock of a program that can run only once. It is released after the program has ended.
    guard: Option<MutexGuard<'static, ()>>,
}

static TIMESTAMP_SERVER: Mutex<()> = Mutex::new(());

impl Daemon {
    /// Starts a program whose output goes to a file.
    ///
    /// # Panics
    ///
    /// If the program cannot be started.
    pub fn start(mut command: Command, log: &Path) -> Daemon {
        let file = File::create(log).expect("a log");
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("a log")).stderr(file);
        let child = command.spawn().expect("an executable program");
        Daemon { child, log: log.to_owned(), address: String::new(), guard: None }
    }

    /// Waits until the program is ready.
    ///
    /// # Panics
    ///
    /// If the program ends, or is not ready after 30 seconds.
    pub fn wait(&mut self, mut ready: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !ready() {
            let ended = self.child.try_wait().expect("a child").is_some();
            let late = begun.elapsed() > Duration::from_secs(30);
            assert!(!ended && !late, "not ready: {}", std::fs::read_to_string(&self.log).unwrap_or_default());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends SIGTERM, waits up to 10 seconds for the program to end, and kills it then.
    pub fn stop(&mut self) {
        let pid = self.child.id().to_string();
        let asked = Command::new("kill").arg(&pid).stderr(Stdio::null()).status();
        let begun = Instant::now();
        while asked.is_ok() && begun.elapsed() < Duration::from_secs(10) {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Writes directly to standard error, because the test harness hides the output of successful tests.
fn skip(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let how = "tests/peers/install.sh, then PATH=$(tests/peers/install.sh --print-path):$PATH OCIKIT_PEERS=require";
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why} ({how})");
}

fn search_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    // Debian installs daemons in directories that are not on the PATH of ordinary users.
    format!("{path}:/usr/sbin:/sbin")
}

fn locate(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&search_path()).map(|directory| directory.join(program)).find(|path| path.is_file())
}

/// Returns a TCP port that is not in use.
///
/// # Panics
///
/// If every port is in use.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).expect("a free port").port()
}

fn answers(address: &str, path: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let mut answer = [0; 12];
    stream.write_all(request.as_bytes()).is_ok() && stream.read_exact(&mut answer).is_ok() && answer.ends_with(b"200")
}
