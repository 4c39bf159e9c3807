use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// An empty registry of the distribution project on a free port. It is stopped when this value is dropped.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    address: String,
    storage: PathBuf,
    log: PathBuf,
}

impl Registry {
    /// Starts the program, with its storage below this directory.
    ///
    /// # Panics
    ///
    /// If the registry does not listen within 20 seconds.
    pub fn start(program: &Path, directory: &Path) -> Registry {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
        let path = |ending: &str| directory.join(format!("registry-{port}.{ending}"));
        let (storage, config, log) = (path("storage"), path("yml"), path("log"));
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\nlog:\n  level: \
             error\n",
            storage.display()
        );
        fs::write(&config, text).expect("a configuration");
        let mut command = Command::new(program);
        command.arg("serve").arg(config).env("OTEL_TRACES_EXPORTER", "none");
        command.stdin(Stdio::null()).stdout(File::create(&log).expect("a log")).stderr(Stdio::null());
        let child = command.spawn().expect("a registry");
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "the registry did not start within 20 seconds");
            std::thread::sleep(Duration::from_millis(10));
        }
        Registry { child, address: format!("localhost:{port}"), storage, log }
    }

    /// Returns host and port, as written in references.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Returns the number of answered requests, according to the log of the registry.
    ///
    /// # Panics
    ///
    /// If the log cannot be read.
    pub fn requests(&self) -> u64 {
        // The registry writes the log line after the response.
        std::thread::sleep(Duration::from_millis(50));
        fs::read_to_string(&self.log).expect("a log").lines().filter(|line| line.contains(" HTTP/1.")).count() as u64
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
        // Removed files need not be flushed to the disk, which would slow down the next measurement.
        let _ = fs::remove_dir_all(&self.storage);
    }
}
