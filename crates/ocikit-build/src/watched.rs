use std::io;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use ocikit_image::process::command;

use crate::error::{Error, Result};

/// A program that ends when this is dropped, and when this process ends for any reason.
///
/// It runs below a shell that waits for a pipe from this process to close, so that no signal has to be sent and no
/// process has to survive to send one.
#[derive(Debug)]
pub(crate) struct Watched(Child);

/// Directories that are removed after the program has ended, also if this process is killed before.
#[derive(Debug, Default)]
pub(crate) struct Leftovers<'a> {
    /// Those that are removed in any case.
    pub(crate) always: Vec<&'a Path>,
    /// Those that are removed if the program fails or is ended.
    pub(crate) on_failure: Vec<&'a Path>,
    /// The program that starts `rm` for directories with files of other users: `rootlesskit`, in whose user namespace the
    /// containers of a daemon wrote.
    pub(crate) remover: Option<&'a Path>,
    /// The program that ends containers of a daemon, `runc`: if the daemon was killed, its containers and their mounts remain.
    pub(crate) runtime: Option<&'a Path>,
}

/// A program to start.
#[derive(Debug)]
pub(crate) struct Program<'a> {
    pub(crate) path: &'a Path,
    pub(crate) arguments: &'a [String],
    /// Variables that are added to the environment.
    pub(crate) environment: &'a [(&'a str, &'a Path)],
    /// The user and group that it runs as, unless those of this process. Only root can start it as others.
    pub(crate) user: Option<(u32, u32)>,
}

/// Starts the program in the background without standard input, ends it when descriptor 3 closes, first by `TERM` and
/// then by `KILL`, and passes on its exit code. The directories to remove precede the program in the arguments: their
/// numbers, the program that starts `rm` if it fails alone, the one that ends containers, those that are removed always, and those
/// that are removed after a failure.
const WATCHDOG: &str = r#"exec 3<&0 </dev/null
always=$1 failed=$2 remover=$3 runtime=$4
shift 4
launch() {
  shift "$((always + failed))"
  exec "$@" 3<&-
}
launch "$@" &
program=$!
{
  read -r _ <&3
  kill "$program"
  pause=
  trap '[ -z "$pause" ] || kill "$pause"; exit' TERM
  sleep 10 &
  pause=$!
  wait "$pause"
  kill -9 "$program"
} >/dev/null 2>&1 &
watch=$!
end_containers() {
  for container in "$1"/root/runc-*/executor/*; do
    [ -d "$container/rootfs" ] || continue
    "$runtime" delete --force "${container##*/}"
  done
  below=$(cd "$1" && pwd -P) || return
  while read -r _ point _; do
    # Spaces are escaped.
    point=$(printf '%b' "$point")
    case $point in
      "$below"/*) umount -l "$point" ;;
    esac
  done </proc/mounts
}
wait "$program"
code=$?
kill "$watch" 2>/dev/null
while [ "$always" -gt 0 ]; do
  [ -z "$runtime" ] || end_containers "$1" >/dev/null 2>&1
  if [ -n "$remover" ]; then
    rm -rf -- "$1" 2>/dev/null || "$remover" rm -rf -- "$1"
  else
    rm -rf -- "$1"
  fi
  shift
  always=$((always - 1))
done
while [ "$failed" -gt 0 ] && [ "$code" -ne 0 ]; do
  rm -rf -- "$1"
  shift
  failed=$((failed - 1))
done
exit "$code""#;

/// Returns the call of the shell that watches a program.
fn watchdog(program: &Program<'_>, leftovers: &Leftovers<'_>) -> Command {
    let mut command = command("sh");
    command.args(["-c", WATCHDOG, "ocikit-watchdog"]);
    let Leftovers { always, on_failure, remover, runtime } = leftovers;
    command.arg(always.len().to_string()).arg(on_failure.len().to_string());
    command.args([remover.unwrap_or(Path::new("")), runtime.unwrap_or(Path::new(""))]);
    command.args(always).args(on_failure).arg(program.path).args(program.arguments);
    command.envs(program.environment.iter().copied());
    #[cfg(unix)]
    if let Some((user, group)) = program.user {
        use std::os::unix::process::CommandExt;
        // The standard library also drops the other groups of root.
        command.gid(group).uid(user);
    }
    command
}

impl Watched {
    /// Starts a program.
    pub(crate) fn start(
        program: &Program<'_>,
        leftovers: &Leftovers<'_>,
        stdout: Stdio,
        stderr: Stdio,
    ) -> Result<Watched> {
        let mut command = watchdog(program, leftovers);
        command.stdin(Stdio::piped()).stdout(stdout).stderr(stderr);
        // Ctrl-C reaches this process only, which stops the program in the right order.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command.spawn().map_err(|source| Error::Start { program: "sh".to_owned(), source })?;
        Ok(Watched(child))
    }

    /// Returns the piped outputs of the program. Works once.
    pub(crate) fn take_output(&mut self) -> (Option<ChildStdout>, Option<ChildStderr>) {
        (self.0.stdout.take(), self.0.stderr.take())
    }

    /// Returns the exit status, if it has ended.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.0.try_wait()
    }

    /// Asks the program to end, without waiting.
    pub(crate) fn ask_to_end(&mut self) {
        drop(self.0.stdin.take());
    }

    /// Waits for the program to end.
    #[cfg(test)]
    pub(crate) fn wait(&mut self) -> io::Result<ExitStatus> {
        // `wait` of the standard library would close the pipe first, which ends the program.
        let pipe = self.0.stdin.take();
        let status = self.0.wait();
        drop(pipe);
        status
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        const MAX_SHUTDOWN_WAIT: Duration = Duration::from_secs(12);
        const POLL_INTERVAL: Duration = Duration::from_millis(10);
        self.ask_to_end();
        let mut waited = Duration::ZERO;
        while waited < MAX_SHUTDOWN_WAIT && matches!(self.0.try_wait(), Ok(None)) {
            std::thread::sleep(POLL_INTERVAL);
            waited += POLL_INTERVAL;
        }
        if matches!(self.0.try_wait(), Ok(None)) {
            #[cfg(unix)]
            if let Some(group) = rustix::process::Pid::from_raw(self.0.id().cast_signed()) {
                // The program may just have ended; either way it is gone afterwards.
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// Checks that a program can be started, because the shell would hide that error. The program is ended at once: what it would
/// print is not needed, and programs written in Go take long to start.
pub(crate) fn find(program: &Path) -> Result<()> {
    let mut command = command(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let started = command.spawn().map_err(|source| Error::Start { program: program.display().to_string(), source });
    let mut child = started?;
    // It may have ended by itself. It is waited for so that no zombie remains.
    let _ = child.kill();
    let _ = child.wait();
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn start(script: &str, leftovers: &Leftovers<'_>, stdout: Stdio) -> Watched {
        let arguments = ["-c".to_owned(), script.to_owned()];
        let program = Program { path: Path::new("sh"), arguments: &arguments, environment: &[], user: None };
        Watched::start(&program, leftovers, stdout, Stdio::null()).unwrap()
    }

    fn shell(script: &str) -> Watched {
        start(script, &Leftovers::default(), Stdio::piped())
    }

    #[test]
    fn output_and_exit_code_pass_through() {
        let mut watched = shell("echo said; cat; exit 7");
        let mut text = String::new();
        watched.take_output().0.unwrap().read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), watched.wait().unwrap().code()), ("said\n", Some(7)));
    }

    #[test]
    fn program_ends_on_drop() {
        let mut watched = shell("echo ready; exec sleep 1000");
        let mut output = watched.take_output().0.unwrap();
        let mut ready = [0; 6];
        output.read_exact(&mut ready).unwrap();
        drop(watched);
        // End of file means that no process can write to the pipe any more.
        assert_eq!(output.read(&mut ready).unwrap(), 0);
    }

    #[test]
    fn leftovers_are_removed() {
        let place = tempfile::tempdir().unwrap();
        for (exit, kept) in [("0", true), ("3", false)] {
            let [always, failed] = ["always", "if it fails"].map(|name| place.path().join(name));
            std::fs::create_dir_all(&always).unwrap();
            std::fs::create_dir_all(&failed).unwrap();
            let leftovers = Leftovers { always: vec![&always], on_failure: vec![&failed], ..Leftovers::default() };
            let mut watched = start(&format!("exit {exit}"), &leftovers, Stdio::null());
            watched.wait().unwrap();
            assert_eq!((always.exists(), failed.exists()), (false, kept), "{exit}");
        }
    }

    #[test]
    fn missing_program_is_named() {
        assert!(
            matches!(find(Path::new("no-such-program")), Err(Error::Start { program, .. }) if program == "no-such-program")
        );
        find(Path::new("sh")).unwrap();
    }
}
