use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// The cost of running a program.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// Seconds from start to end.
    pub wall: f64,
    /// Seconds of processor time, user and system.
    pub processor: f64,
    /// Peak memory in KiB.
    pub memory: u64,
    /// Bytes written to files.
    pub written: u64,
    /// The number of requests, if they were counted.
    pub requests: Option<u64>,
    /// The bytes of the result, if they were counted.
    pub result: Option<u64>,
}

/// If this variable is set, the benchmark only measures one program. The system adds up the cost of all children of a process, so
/// each measured program needs a separate parent.
const MEASURE_VARIABLE: &str = "OCIKIT_BENCH_MEASURE";

/// Runs a program that must succeed, and returns its cost.
///
/// # Panics
///
/// If the program fails.
pub fn measure(command: &Command) -> Cost {
    let mut parent = Command::new(std::env::current_exe().expect("this program"));
    parent.arg(command.get_program()).args(command.get_args()).env(MEASURE_VARIABLE, "1");
    if let Some(directory) = command.get_current_dir() {
        parent.current_dir(directory);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => parent.env(name, value),
            None => parent.env_remove(name),
        };
    }
    let output = parent.stdin(Stdio::null()).output().expect("the output of the parent");
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?} failed: {stderr}", command);
    let numbers: Vec<f64> = last.split(' ').map(|word| word.parse().expect("a number")).collect();
    Cost {
        wall: numbers[0],
        processor: numbers[1],
        memory: numbers[2] as u64,
        written: numbers[3] as u64,
        requests: None,
        result: None,
    }
}

/// Measures one program and exits, if [`measure`] started this process. Call it first in `main`.
pub fn run_if_asked() {
    if std::env::var_os(MEASURE_VARIABLE).is_none() {
        return;
    }
    let mut arguments = std::env::args_os().skip(1);
    let mut command = Command::new(arguments.next().expect("a program"));
    command.args(arguments).env_remove(MEASURE_VARIABLE).stdout(Stdio::null());
    let begun = Instant::now();
    let mut child = command.spawn().expect("an executable program");
    let pid = Pid::from_raw(child.id().cast_signed());
    // Waits for the end without reaping the process, so that /proc still has its complete I/O counters.
    waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).expect("a child");
    let wall = begun.elapsed();
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap_or("0").to_owned();
    let status = child.wait().expect("a child");
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("the resource usage");
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    let processor = seconds(usage.user_time()) + seconds(usage.system_time());
    println!("{} {processor} {} {written}", wall.as_secs_f64(), usage.max_rss());
    let code = if status.success() { 0 } else { 1 };
    // This process only measures, so no destructor needs to run.
    #[allow(clippy::exit, reason = "see above")]
    std::process::exit(code);
}

/// Returns the path of a program, or `None` with a message if it is not installed.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    let found = std::env::split_paths(&path).map(|directory| directory.join(program)).find(|path| path.is_file());
    if found.is_none() {
        eprintln!("{program} is not on PATH and is skipped; see tests/peers/README.md");
    }
    found
}
