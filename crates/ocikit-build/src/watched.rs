use std::io;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, ExitStatus, Stdio};
use std::time::Duration;

use ocikit_image::process::command;

use crate::error::{Error, Result};

/// A program that ends when this is dropped, and when this process dies in whatever way.
///
/// It runs below a shell that waits for a pipe from this process to close: no signal has to reach anybody, and nobody has
/// to be alive to send one.
#[derive(Debug)]
pub(crate) struct Watched(Child);

/// Starts the program in the background with nothing on its standard input; ends it when descriptor 3 closes, gently at
/// first; and passes its exit code on.
const WATCHDOG: &str = r#"exec 3<&0 </dev/null
"$@" 3<&- &
program=$!
{
  read -r _ <&3
  kill "$program"
  sleep 10
  kill -9 "$program"
} >/dev/null 2>&1 &
watch=$!
wait "$program"
code=$?
kill "$watch" 2>/dev/null
[ -z "$OCIKIT_LEFTOVERS" ] || rm -rf "$OCIKIT_LEFTOVERS"
exit "$code""#;

impl Watched {
    /// Starts a program with these arguments. A directory that is named as its leftovers is removed when it has ended.
    pub(crate) fn start(
        program: &Path,
        arguments: &[String],
        leftovers: Option<&Path>,
        stdout: Stdio,
        stderr: Stdio,
    ) -> Result<Watched> {
        let mut command = command("sh");
        command.args(["-c", WATCHDOG, "ocikit-watchdog"]).arg(program).args(arguments);
        command.stdin(Stdio::piped()).stdout(stdout).stderr(stderr);
        command.env("OCIKIT_LEFTOVERS", leftovers.unwrap_or(Path::new("")));
        // A key press that interrupts us is answered by us, in the right order.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command.spawn().map_err(|source| Error::Start { program: "sh".to_owned(), source })?;
        Ok(Watched(child))
    }

    /// What it prints, for those of its outputs that are piped. Once.
    pub(crate) fn take_output(&mut self) -> (Option<ChildStdout>, Option<ChildStderr>) {
        (self.0.stdout.take(), self.0.stderr.take())
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.0.try_wait()
    }

    /// Asks it to end, without waiting.
    pub(crate) fn ask_to_end(&mut self) {
        drop(self.0.stdin.take());
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> io::Result<ExitStatus> {
        // `wait` of the standard library would close the pipe first, which asks it to end.
        let pipe = self.0.stdin.take();
        let status = self.0.wait();
        drop(pipe);
        status
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        const PATIENCE: Duration = Duration::from_secs(12);
        const STEP: Duration = Duration::from_millis(10);
        self.ask_to_end();
        let mut waited = Duration::ZERO;
        while waited < PATIENCE && matches!(self.0.try_wait(), Ok(None)) {
            std::thread::sleep(STEP);
            waited += STEP;
        }
        if matches!(self.0.try_wait(), Ok(None)) {
            #[cfg(unix)]
            if let Some(group) = rustix::process::Pid::from_raw(self.0.id().cast_signed()) {
                // It may have ended in this moment; either way it is gone afterwards.
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// Whether a program can be started, asked before a shell hides the answer.
pub(crate) fn find(program: &Path) -> Result<()> {
    let mut command = command(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let started = command.status();
    started.map(drop).map_err(|source| Error::Start { program: program.display().to_string(), source })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn shell(script: &str) -> Watched {
        let arguments = ["-c".to_owned(), script.to_owned()];
        Watched::start(Path::new("sh"), &arguments, None, Stdio::piped(), Stdio::null()).unwrap()
    }

    #[test]
    fn output_and_exit_code_pass_through() {
        let mut watched = shell("echo said; cat; exit 7");
        let mut text = String::new();
        watched.take_output().0.unwrap().read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), watched.wait().unwrap().code()), ("said\n", Some(7)));
    }

    #[test]
    fn it_ends_when_it_is_dropped() {
        let mut watched = shell("echo ready; exec sleep 1000");
        let mut output = watched.take_output().0.unwrap();
        let mut ready = [0; 6];
        output.read_exact(&mut ready).unwrap();
        drop(watched);
        // The end of the output says that nobody is left who could write.
        assert_eq!(output.read(&mut ready).unwrap(), 0);
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(
            matches!(find(Path::new("no-such-program")), Err(Error::Start { program, .. }) if program == "no-such-program")
        );
        find(Path::new("sh")).unwrap();
    }
}
