use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A BuildKit daemon with an empty cache. It ends when this is dropped.
#[derive(Debug)]
pub struct Buildkitd {
    child: Child,
    address: String,
}

impl Buildkitd {
    /// Starts `buildkitd`, with its state below this directory.
    ///
    /// # Panics
    ///
    /// If it is not ready within 60 seconds.
    pub fn start(directory: &Path) -> Buildkitd {
        let address = format!("unix://{}", directory.join("buildkitd.sock").display());
        let mut command = Command::new("buildkitd");
        command.arg("--root").arg(directory.join("buildkit")).args(["--addr", &address]);
        command.args(["--oci-worker-snapshotter=native", "--otel-socket-path"]).arg(directory.join("otel.sock"));
        let log = File::create(directory.join("buildkitd.log")).expect("a log");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        let daemon = Buildkitd { child: command.spawn().expect("buildkitd"), address };
        let begun = Instant::now();
        let is_ready = || {
            let mut workers = Command::new("buildctl");
            workers.args(["--addr", &daemon.address, "debug", "workers"]).stdout(Stdio::null()).stderr(Stdio::null());
            workers.status().is_ok_and(|status| status.success())
        };
        while !is_ready() {
            assert!(begun.elapsed() < Duration::from_secs(60), "buildkitd did not start within 60 seconds");
            std::thread::sleep(Duration::from_millis(50));
        }
        daemon
    }

    /// Returns its address.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Buildkitd {
    fn drop(&mut self) {
        // It unmounts its snapshots before it ends.
        let id = self.child.id().to_string();
        let _ = Command::new("kill").arg(id).status().and_then(|_| self.child.wait());
    }
}
