use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// What running a program cost.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// Seconds from start to end.
    pub wall: f64,
    /// Seconds of processor time, user and system.
    pub processor: f64,
    /// The most memory it held, in KiB.
    pub memory: u64,
    /// Bytes it wrote into files.
    pub written: u64,
    /// Requests that it made, where somebody counted them.
    pub requests: Option<u64>,
}

/// The variable by which a bench tells itself that it is to measure one program and nothing else. What children cost is
/// summed up by the system over all children that a process ever had, so each gets a parent of its own.
const ASKED: &str = "OCIKIT_BENCH_MEASURE";

/// Runs a program that has to succeed and says what that cost.
///
/// # Panics
///
/// If it fails.
pub fn measure(command: &Command) -> Cost {
    let mut parent = Command::new(std::env::current_exe().expect("this program"));
    parent.arg(command.get_program()).args(command.get_args()).env(ASKED, "1");
    if let Some(directory) = command.get_current_dir() {
        parent.current_dir(directory);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => parent.env(name, value),
            None => parent.env_remove(name),
        };
    }
    let output = parent.stdin(Stdio::null()).output().expect("this program again");
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?} failed: {said}", command);
    let numbers: Vec<f64> = last.split(' ').map(|word| word.parse().expect("a number")).collect();
    Cost {
        wall: numbers[0],
        processor: numbers[1],
        memory: numbers[2] as u64,
        written: numbers[3] as u64,
        requests: None,
    }
}

/// Measures one program and ends, if this process was started for that. To be called first.
pub fn run_if_asked() {
    if std::env::var_os(ASKED).is_none() {
        return;
    }
    let mut arguments = std::env::args_os().skip(1);
    let mut command = Command::new(arguments.next().expect("a program"));
    command.args(arguments).env_remove(ASKED).stdout(Stdio::null());
    let begun = Instant::now();
    let mut child = command.spawn().expect("a program that starts");
    let pid = Pid::from_raw(child.id().cast_signed());
    // It has ended and is still known to the system: now its books are complete.
    waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).expect("a child");
    let wall = begun.elapsed();
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap_or("0").to_owned();
    let status = child.wait().expect("a child");
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("the books");
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    let processor = seconds(usage.user_time()) + seconds(usage.system_time());
    println!("{} {processor} {} {written}", wall.as_secs_f64(), usage.max_rss());
    let code = if status.success() { 0 } else { 1 };
    // This process exists for these numbers and has nothing to clean up.
    #[allow(clippy::exit, reason = "see above")]
    std::process::exit(code);
}

/// Another program, if it is installed.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    let found = std::env::split_paths(&path).map(|directory| directory.join(program)).find(|path| path.is_file());
    if found.is_none() {
        eprintln!("{program} is not on PATH and is left out; see tests/peers/README.md");
    }
    found
}
