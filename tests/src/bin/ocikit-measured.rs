//! Runs a program, ends as it does, and writes down what that took: `ocikit-measured FILE PROGRAM ARGUMENT…`.
//!
//! What a child took is told by the system to its parent as the highest of all its children, so each gets a parent of
//! its own. A program that hangs is killed.

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

/// No program that is tested takes so long, on any machine.
const HANGS: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let file = arguments.next().expect("a file");
    let begun = Instant::now();
    let mut child = Command::new(arguments.next().expect("a program")).args(arguments).spawn().expect("a child");
    let status = loop {
        match child.try_wait().expect("a child") {
            Some(status) => break status,
            None if begun.elapsed() > HANGS => {
                child.kill().expect("a child");
                break child.wait().expect("a child");
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("the books");
    let line = format!("{} {}", usage.max_rss(), begun.elapsed().as_millis());
    std::fs::write(file, line).expect("a file");
    let signal = || std::os::unix::process::ExitStatusExt::signal(&status).map(|signal| 128 + signal);
    ExitCode::from(status.code().or_else(signal).unwrap_or(255) as u8)
}
