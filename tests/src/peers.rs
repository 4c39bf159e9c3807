use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::program::{Outcome, run};

/// Other people's programs, and a directory in which they leave what they leave.
#[derive(Debug)]
pub struct Peers {
    directory: TempDir,
}

impl Peers {
    /// The programs that a test needs, or `None` if it is to be skipped, which it says loudly.
    ///
    /// The variable `OCIKIT_PEERS` decides: unset, tests that need others are skipped; `require`, they fail where one is
    /// missing.
    ///
    /// # Panics
    ///
    /// If they are required and one is missing.
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

    /// A path in their directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// One of the programs, with an environment that holds nothing of whoever runs the tests.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(locate(program).expect("it was found before"));
        let home = self.path("home");
        std::fs::create_dir_all(&home).expect("a home directory");
        command.current_dir(self.directory.path()).env_clear();
        command.env("HOME", &home).env("TMPDIR", self.directory.path()).env("PATH", search_path());
        command
    }

    /// Runs one of the programs with words separated by spaces.
    pub fn run(&self, line: &str) -> Outcome {
        let mut words = line.split_whitespace();
        let program = words.next().expect("a program");
        run(self.command(program).args(words), &[])
    }

    /// The same for one that has to succeed; its output.
    pub fn ok(&self, line: &str) -> String {
        let outcome = self.run(line);
        assert_eq!(outcome.code, 0, "{line}\n{outcome}");
        outcome.stdout.trim_end_matches('\n').to_owned()
    }

    /// Distribution's registry, of the current version or of the one that Debian has, on a free port.
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

    /// A registry with the referrers API, in memory, on a free port.
    pub fn olareg(&self) -> Daemon {
        let port = free_port();
        let mut command = self.command("olareg");
        command.args(["serve", "--addr", "127.0.0.1", "--store-type", "mem", "--port", &port.to_string()]);
        command.args(["--api-delete", "--api-blob-delete"]);
        self.daemon(command, port)
    }

    /// The registry of go-containerregistry, in memory, on a free port.
    pub fn crane_registry(&self) -> Daemon {
        let port = free_port();
        let mut command = self.command("crane");
        command.args(["registry", "serve", "--address", &format!("127.0.0.1:{port}")]);
        self.daemon(command, port)
    }

    /// An authority for timestamps, with keys of its own, on a free port, whose answers bring all certificates.
    pub fn timestamp_server(&self) -> Daemon {
        self.timestamp_server_with(&["--include-chain-in-response"])
    }

    /// The same with other flags. It takes port 2112 as well, so that there is one at a time: others wait for their turn.
    pub fn timestamp_server_with(&self, flags: &[&str]) -> Daemon {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = Instant::now();
        // Another process may have one.
        while TcpListener::bind(("0.0.0.0", 2112)).is_err() && begun.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(100));
        }
        let port = free_port();
        let mut command = self.command("timestamp-server");
        command.args(["serve", "--host", "127.0.0.1", "--port", &port.to_string(), "--disable-ntp-monitoring"]);
        command.args(flags);
        let mut daemon = self.daemon_at(command, port, "/ping");
        daemon.turn = Some(turn);
        daemon
    }

    /// Every registry of others that there is to try, by its name in `docs/registries.md`.
    pub fn all_registries(&self) -> Vec<(&'static str, Daemon)> {
        vec![
            ("distribution 3.1", self.distribution("registry")),
            ("distribution 2.8", self.distribution("docker-registry")),
            ("olareg 0.1", self.olareg()),
            ("crane 0.21", self.crane_registry()),
        ]
    }

    /// A registry of whatever kind, and whether it has the referrers API.
    pub fn registries(&self) -> Vec<(&'static str, Daemon)> {
        vec![("distribution", self.distribution("registry")), ("olareg", self.olareg())]
    }

    fn daemon(&self, command: Command, port: u16) -> Daemon {
        self.daemon_at(command, port, "/v2/")
    }

    /// One that is ready when it answers to a path.
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
    /// Where it listens, for those that listen at a port.
    pub address: String,
    /// For one of which there may be one only; it is given on when this is dropped, after the program has ended.
    turn: Option<MutexGuard<'static, ()>>,
}

static TURN: Mutex<()> = Mutex::new(());

impl Daemon {
    /// Starts a program whose output goes to a file.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn start(mut command: Command, log: &Path) -> Daemon {
        let file = File::create(log).expect("a log");
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("a log")).stderr(file);
        let child = command.spawn().expect("a program that starts");
        Daemon { child, log: log.to_owned(), address: String::new(), turn: None }
    }

    /// Waits until it is ready.
    ///
    /// # Panics
    ///
    /// If it ends before, or after half a minute.
    pub fn wait(&mut self, mut ready: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !ready() {
            let ended = self.child.try_wait().expect("a child").is_some();
            let late = begun.elapsed() > Duration::from_secs(30);
            assert!(!ended && !late, "not ready: {}", std::fs::read_to_string(&self.log).unwrap_or_default());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asks it to end and waits for that.
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

/// Straight to the terminal, past the test harness, which keeps what successful tests print.
fn skip(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let how = "tests/peers/install.sh, then PATH=$(tests/peers/install.sh --print-path):$PATH OCIKIT_PEERS=require";
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why} ({how})");
}

fn search_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    // Daemons live where an ordinary user does not look.
    format!("{path}:/usr/sbin:/sbin")
}

fn locate(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&search_path()).map(|directory| directory.join(program)).find(|path| path.is_file())
}

/// A port at which nobody listens.
///
/// # Panics
///
/// If there is none.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).expect("a free port").port()
}

fn answers(address: &str, path: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let mut answer = [0; 12];
    stream.write_all(request.as_bytes()).is_ok() && stream.read_exact(&mut answer).is_ok() && answer.ends_with(b"200")
}
