use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// A test bench: runs the program in a temporary directory, with an environment that does not depend on the user.
#[derive(Debug)]
pub struct Bench {
    directory: TempDir,
    program: PathBuf,
    variables: Vec<(String, String)>,
}

/// The result of running a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The exit code; 128 plus the number of the signal if the program was killed.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Bench {
    /// Creates a temporary directory for the program at this path.
    pub fn new(program: impl Into<PathBuf>) -> Bench {
        let directory = tempfile::Builder::new().prefix("ocikit-test-").tempdir().expect("a temporary directory");
        Bench { directory, program: program.into(), variables: Vec::new() }
    }

    /// Sets an environment variable for all following commands.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Bench {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Returns a path in the directory in which every command runs.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file in the directory, and makes the directories above it.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("it is in the directory")).expect("a directory");
        fs::write(path, contents).expect("a file");
    }

    /// Reads a text file in the directory.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Returns the sorted file names in the directory, without the home directory.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).expect("the directory");
        let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a plain name"));
        let mut names: Vec<_> = names.filter(|name| name != "home").collect();
        names.sort();
        names
    }

    /// Returns a command that starts the program with these arguments.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(&self.program);
        let home = self.path("home");
        fs::create_dir_all(&home).expect("a home directory");
        command.args(arguments).current_dir(self.directory.path()).env_clear();
        command.env("HOME", home).env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs the program.
    pub fn ocikit<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Outcome {
        run(&mut self.command(arguments), &[])
    }

    /// Runs the program with this standard input.
    pub fn ocikit_with_input<S: AsRef<OsStr>>(&self, arguments: &[S], input: &[u8]) -> Outcome {
        run(&mut self.command(arguments), input)
    }

    /// Runs the program, requires exit code 0, and returns standard output without trailing line breaks.
    pub fn ok<S: AsRef<OsStr>>(&self, arguments: &[S]) -> String {
        self.ocikit(arguments).ok()
    }

    /// Runs the program, requires exit code 0, and parses standard output.
    pub fn json<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Value {
        json(&self.ok(arguments))
    }
}

impl Outcome {
    /// Requires exit code 0, and returns standard output without trailing line breaks.
    ///
    /// # Panics
    ///
    /// If the program failed.
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self}");
        self.stdout.trim_end_matches('\n').to_owned()
    }

    /// Parses standard output.
    pub fn json(&self) -> Value {
        json(&self.stdout)
    }

    /// Replaces text that differs from run to run.
    #[must_use]
    pub fn redacted(mut self, replacements: &[(&str, &str)]) -> Outcome {
        for (text, placeholder) in replacements {
            self.stdout = self.stdout.replace(text, placeholder);
            self.stderr = self.stderr.replace(text, placeholder);
        }
        self
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let block = |name: &str, text: &str| match text.trim_end_matches('\n') {
            "" => String::new(),
            text => format!("--- {name}\n{text}\n"),
        };
        write!(f, "exit {}\n{}{}", self.code, block("stdout", &self.stdout), block("stderr", &self.stderr))
    }
}

/// Parses a JSON document.
///
/// # Panics
///
/// If it is none.
pub fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Runs a command with this standard input and waits until it ends.
///
/// # Panics
///
/// If the command cannot be started.
pub fn run(command: &mut Command, input: &[u8]) -> Outcome {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", name(command.get_program())));
    feed(&mut child, input.to_vec());
    let output = child.wait_with_output().expect("the output of a child");
    Outcome {
        code: output.status.code().unwrap_or_else(|| 128 + signal(output.status)),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn feed(child: &mut Child, input: Vec<u8>) {
    if let Some(mut stdin) = child.stdin.take() {
        // The write fails if the program ends without reading its input. That is not an error of the test.
        thread::spawn(move || drop(stdin.write_all(&input)));
    }
}

fn name(program: &OsStr) -> String {
    Path::new(program).display().to_string()
}

#[cfg(unix)]
fn signal(status: std::process::ExitStatus) -> i32 {
    std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or_default()
}

#[cfg(not(unix))]
fn signal(_: std::process::ExitStatus) -> i32 {
    0
}

/// Waits until a process handles SIGINT and SIGTERM, for ten seconds at most: on a busy machine it takes long until the program
/// has started. Systems without `/proc` do not wait.
pub fn wait_for_signal_handlers(process: &Child) {
    const INT_AND_TERM: u64 = 1 << (2 - 1) | 1 << (15 - 1);
    let status = format!("/proc/{}/status", process.id());
    for _ in 0..1000 {
        let Ok(text) = fs::read_to_string(&status) else { return };
        let caught = text.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        if caught.is_none_or(|mask| mask & INT_AND_TERM == INT_AND_TERM) {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
}
