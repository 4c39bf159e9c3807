//! Programs that sign: how they are started, and what becomes of those that do not behave.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// How long a program may take: somebody may have to touch a key, or to type a number.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// What a program answered.
pub(crate) struct Answer {
    pub(crate) status: ExitStatus,
    pub(crate) output: Vec<u8>,
    /// What it complained of; nothing if that went to where our own complaints go.
    pub(crate) complaints: Vec<u8>,
}

/// Where complaints go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Complaints {
    /// To whoever reads ours.
    Shown,
    /// Into the answer.
    Kept,
}

/// Starts a program, gives it its input, and waits for its end. It is killed if it takes longer than `patience`, answers with more
/// than `most` bytes, or nobody waits any more.
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
            // A program that does not read its input closes it; what it answers tells.
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

/// What a program says, as a part of one line.
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
