//! Runs a program, exits with its code, and writes its peak memory (KiB) and run time (ms) to a file:
//! `ocikit-measured FILE PROGRAM ARGUMENT…`.
//!
//! The system reports the maximum over all children of a process, so each measured program needs a separate parent. A program
//! that runs for more than 60 seconds is killed.

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

/// The time after which the program is considered to hang.
const RUN_TIMEOUT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let file = arguments.next().expect("a file");
    let begun = Instant::now();
    let mut child = Command::new(arguments.next().expect("a program")).args(arguments).spawn().expect("a child");
    let status = loop {
        match child.try_wait().expect("a child") {
            Some(status) => break status,
            None if begun.elapsed() > RUN_TIMEOUT => {
                child.kill().expect("a child");
                break child.wait().expect("a child");
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("the resource usage");
    let line = format!("{} {}", usage.max_rss(), begun.elapsed().as_millis());
    std::fs::write(file, line).expect("a file");
    let signal = || std::os::unix::process::ExitStatusExt::signal(&status).map(|signal| 128 + signal);
    ExitCode::from(status.code().or_else(signal).unwrap_or(255) as u8)
}
