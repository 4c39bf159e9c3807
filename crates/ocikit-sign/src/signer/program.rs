//! Running signing programs with limits on time and output.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// The default timeout of a program. It is long because a person may have to touch a security key or enter a PIN.
pub(crate) const PROGRAM_TIMEOUT: Duration = Duration::from_secs(300);

/// The output of a program.
pub(crate) struct ProgramOutput {
    pub(crate) status: ExitStatus,
    pub(crate) output: Vec<u8>,
    /// Standard error; empty if it was inherited.
    pub(crate) stderr: Vec<u8>,
}

/// Where standard error of a program goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum StderrMode {
    /// To the standard error of this process.
    Inherit,
    /// Into [`ProgramOutput::stderr`].
    Capture,
}

/// Runs a program with input on standard input. The program is killed if it takes longer than `timeout`, writes more
/// than `max_bytes` bytes, or the future is dropped.
pub(crate) async fn run(
    mut command: Command,
    input: &[u8],
    max_bytes: u64,
    stderr: StderrMode,
    timeout: Duration,
) -> io::Result<ProgramOutput> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    if stderr == StderrMode::Capture {
        command.stderr(Stdio::piped());
    }
    let mut child = command.spawn()?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            // A program that ignores its input closes it, which is not an error. Its output decides.
            let _ = stdin.write_all(input).await;
        }
        Ok(())
    };
    let all = async {
        let ((), output, stderr) = futures::try_join!(write, read(stdout, max_bytes), read(stderr, max_bytes))?;
        Ok(ProgramOutput { status: child.wait().await?, output, stderr })
    };
    match tokio::time::timeout(timeout, all).await {
        Ok(response) => response,
        Err(_) => Err(io::Error::other(format!("it took longer than {} seconds", timeout.as_secs()))),
    }
}

async fn read(from: Option<impl AsyncRead + Unpin>, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        from.take(max_bytes + 1).read_to_end(&mut bytes).await?;
    }
    match bytes.len() as u64 > max_bytes {
        true => Err(io::Error::other(format!("its answer has more than {max_bytes} bytes"))),
        false => Ok(bytes),
    }
}

/// Returns program output as part of one line.
pub(crate) fn line(text: &str) -> String {
    const MAX_LINE_CHARACTERS: usize = 300;
    text.trim().chars().take(MAX_LINE_CHARACTERS).map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run_line(line: &str, max_bytes: u64, timeout: u64) -> io::Result<ProgramOutput> {
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        run(command, &[b'x'; 1 << 20], max_bytes, StderrMode::Capture, Duration::from_millis(timeout)).await
    }

    #[tokio::test]
    async fn programs_are_killed_at_their_limits() {
        let begun = std::time::Instant::now();
        for (line, max_bytes, timeout, said) in [
            ("sleep 60", 10, 200, "took longer"),
            ("yes", 1000, 60_000, "more than 1000 bytes"),
            ("cat", 1000, 60_000, "more than 1000 bytes"),
            ("/nonexistent", 10, 1000, "No such file"),
        ] {
            let error = run_line(line, max_bytes, timeout).await.map(|response| response.output).unwrap_err();
            assert!(error.to_string().contains(said), "{line}: {error}");
        }
        assert!(begun.elapsed() < Duration::from_secs(30));
        assert_eq!(run_line("cat", 2 << 20, 60_000).await.unwrap().output.len(), 1 << 20);
        let response = run_line("cat /nonexistent", 1000, 60_000).await.unwrap();
        assert!(!response.status.success() && response.output.is_empty() && !response.stderr.is_empty());
    }
}
