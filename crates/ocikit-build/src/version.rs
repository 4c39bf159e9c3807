//! The versions of the programs of BuildKit.

use std::io::{self, Read};
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ocikit_image::process::command;

/// The time limit for a program that prints its version. Its first start reads a large file from a disk that may be busy.
const TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The maximum length of a version text in bytes.
const MAX_TEXT_BYTES: u64 = 64 << 10;

/// Returns the version of a program of BuildKit: the word of its version text that starts with `v` and a digit.
///
/// The program may be one of an image that was just installed, so its time and its output are limited.
pub(crate) fn version(program: &Path) -> io::Result<String> {
    version_within(program, TIMEOUT)
}

fn version_within(program: &Path, limit: Duration) -> io::Result<String> {
    let mut command = command(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let stdout = child.stdout.take();
    let (sender, receiver) = mpsc::channel();
    // It is not joined: a process that the program left could hold the pipe open.
    std::thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(stdout) = stdout {
            // An incomplete text has an unknown version.
            let _ = stdout.take(MAX_TEXT_BYTES).read_to_end(&mut text);
        }
        let _ = sender.send(text);
    });
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if begun.elapsed() >= limit {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, "`--version` did not end in time"));
        }
        std::thread::sleep(POLL_INTERVAL);
    };
    if !status.success() {
        return Err(io::Error::other(format!("`--version` failed with {status}")));
    }
    let text = receiver.recv_timeout(limit).unwrap_or_default();
    Ok(version_word(&String::from_utf8_lossy(&text)))
}

pub(crate) fn version_word(text: &str) -> String {
    let is_version = |word: &&str| {
        word.strip_prefix('v').unwrap_or(word).starts_with(|letter: char| letter.is_ascii_digit()) && word.contains('.')
    };
    text.split_whitespace().find(is_version).unwrap_or("unknown version").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_text() {
        for (text, version) in [
            ("buildctl github.com/moby/buildkit v0.32.2 ", "v0.32.2"),
            ("BuildKit:\tgithub.com/moby/buildkit 0.12.0 abc", "0.12.0"),
            ("", "unknown version"),
        ] {
            assert_eq!(version_word(text), version);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_program_that_does_not_end_is_killed() {
        let place = tempfile::tempdir().unwrap();
        // Written by another process: a file that this one writes cannot be executed while another test starts a process.
        let write = |name: &str, text: &str| {
            let path = place.path().join(name);
            let line = "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"";
            let written = command("sh").args(["-c", line, "sh", text]).arg(&path).status().unwrap();
            assert!(written.success());
            path
        };
        let endless = write("endless", "#!/bin/sh\nexec sleep 600\n");
        let error = version_within(&endless, Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let long = write("long", "#!/bin/sh\necho v1.2.3\nexec yes\n");
        version_within(&long, Duration::from_secs(20)).unwrap_err();
        let good = write("good", "#!/bin/sh\necho buildkitd v1.2.3\n");
        assert_eq!(version(&good).unwrap(), "v1.2.3");
        version(&write("bad", "#!/bin/sh\nexit 3\n")).unwrap_err();
    }
}
