//! Running signing programs with limits on time and output.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// The default timeout of a program. It is long because a person may have to touch a security key or enter a PIN.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// The output of a program.
pub(crate) struct Answer {
    pub(crate) status: ExitStatus,
    pub(crate) output: Vec<u8>,
    /// Standard error; empty if it was inherited.
    pub(crate) complaints: Vec<u8>,
}

/// Where standard error of a program goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Complaints {
    /// To the standard error of this process.
    Shown,
    /// Into [`ProgramOutput::stderr`].
    Kept,
}

/// Runs a program with input on standard input. The program is killed if it takes longer than `timeout`, writes more
/// than `max_bytes` bytes, or the future is dropped.
pub(crate) async fn run(
    mut command: Command,
    input: &[u8],
    most: u64,
    complaints: Complaints,
    patience: Duration,
) -> io::Result<Answer> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    if complaints == Complaints::Kept {
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
        let ((), output, complaints) = futures::try_join!(write, read(stdout, most), read(stderr, most))?;
        Ok(Answer { status: child.wait().await?, output, complaints })
    };
    match tokio::time::timeout(patience, all).await {
        Ok(answer) => answer,
        Err(_) => Err(io::Error::other(format!("it took longer than {} seconds", patience.as_secs()))),
    }
}

async fn read(from: Option<impl AsyncRead + Unpin>, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        from.take(most + 1).read_to_end(&mut bytes).await?;
    }
    match bytes.len() as u64 > most {
        true => Err(io::Error::other(format!("its answer has more than {most} bytes"))),
        false => Ok(bytes),
    }
}

/// Returns program output as part of one line.
pub(crate) fn line(text: &str) -> String {
    const LONGEST: usize = 300;
    text.trim().chars().take(LONGEST).map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run_line(line: &str, most: u64, patience: u64) -> io::Result<Answer> {
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        run(command, &[b'x'; 1 << 20], most, Complaints::Kept, Duration::from_millis(patience)).await
    }

    #[tokio::test]
    async fn programs_that_do_not_behave_are_not_waited_for() {
        let begun = std::time::Instant::now();
        for (line, most, patience, said) in [
            ("sleep 60", 10, 200, "took longer"),
            ("yes", 1000, 60_000, "more than 1000 bytes"),
            ("cat", 1000, 60_000, "more than 1000 bytes"),
            ("/nonexistent", 10, 1000, "No such file"),
        ] {
            let error = run_line(line, most, patience).await.map(|answer| answer.output).unwrap_err();
            assert!(error.to_string().contains(said), "{line}: {error}");
        }
        assert!(begun.elapsed() < Duration::from_secs(30));
        assert_eq!(run_line("cat", 2 << 20, 60_000).await.unwrap().output.len(), 1 << 20);
        let answer = run_line("cat /nonexistent", 1000, 60_000).await.unwrap();
        assert!(!answer.status.success() && answer.output.is_empty() && !answer.complaints.is_empty());
    }
}
