use std::ffi::OsStr;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A temporary directory, and the program in it, with an environment that holds nothing of whoever runs the tests.
#[derive(Debug)]
pub struct Bench {
    directory: TempDir,
    program: PathBuf,
    variables: Vec<(String, String)>,
}

/// What became of a program that ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The exit code; 128 and the signal for one that was killed.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Bench {
    /// A new one, for the program at this path.
    pub fn new(program: impl Into<PathBuf>) -> Bench {
        let directory = tempfile::Builder::new().prefix("ocikit-test-").tempdir().expect("a temporary directory");
        Bench { directory, program: program.into(), variables: Vec::new() }
    }

    /// Sets a variable for every command from now on.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Bench {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The directory, in which every command runs.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What is in the directory, sorted; the home directory excepted.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.directory.path()).expect("the directory");
        let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a plain name"));
        let mut names: Vec<_> = names.filter(|name| name != "home").collect();
        names.sort();
        names
    }

    /// The program with these arguments, ready to be started.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(&self.program);
        let home = self.path("home");
        std::fs::create_dir_all(&home).expect("a home directory");
        command.args(arguments).current_dir(self.directory.path()).env_clear();
        command.env("HOME", home).env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs the program.
    pub fn ocikit<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Outcome {
        run(&mut self.command(arguments), &[])
    }

    /// Runs the program with this on standard input.
    pub fn ocikit_with_input<S: AsRef<OsStr>>(&self, arguments: &[S], input: &[u8]) -> Outcome {
        run(&mut self.command(arguments), input)
    }

    /// Runs the program, which has to succeed, and returns its output without the last line break.
    pub fn ok<S: AsRef<OsStr>>(&self, arguments: &[S]) -> String {
        self.ocikit(arguments).ok()
    }
}

impl Outcome {
    /// The output of a program that succeeded, without the last line break.
    ///
    /// # Panics
    ///
    /// If it did not.
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self}");
        self.stdout.trim_end_matches('\n').to_owned()
    }

    /// The same with what differs from run to run replaced.
    #[must_use]
    pub fn redacted(mut self, replacements: &[(&str, &str)]) -> Outcome {
        for (what, with) in replacements {
            self.stdout = self.stdout.replace(what, with);
            self.stderr = self.stderr.replace(what, with);
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

/// Runs a command to its end.
///
/// # Panics
///
/// If it cannot be started.
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
        // A program that does not read its input closes it, which is its right.
        std::thread::spawn(move || drop(stdin.write_all(&input)));
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
