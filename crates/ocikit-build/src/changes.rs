use std::path::{Path, PathBuf};
use std::process::Stdio;

use ocikit_image::process::command;

use crate::error::{Error, Result};

/// Returns the files below a directory that differ from a git revision, and those that git does not know yet and does not
/// ignore. Paths are relative to the directory.
///
/// # Errors
///
/// [`Error::Start`] if git is missing, and [`Error::Option`] if git does not know the revision.
pub async fn changed_files(directory: &Path, revision: &str) -> Result<Vec<PathBuf>> {
    let (directory, revision) = (directory.to_owned(), revision.to_owned());
    let read = tokio::task::spawn_blocking(move || {
        // Renamed files count in both places. Programs and hooks that the repository configures do not run.
        let changed = ["diff", "--name-only", "--no-renames", "--no-ext-diff", "--no-textconv", "--relative", "-z"];
        let mut files = git(&directory, &revision, &changed, &["--end-of-options", &revision, "--"])?;
        let unknown = ["ls-files", "--others", "--exclude-standard", "-z"];
        files.extend(git(&directory, &revision, &unknown, &["--"])?);
        Ok(files)
    });
    read.await.map_err(std::io::Error::other).map_err(Error::failed("wait for git"))?
}

fn git(directory: &Path, revision: &str, arguments: &[&str], more: &[&str]) -> Result<Vec<PathBuf>> {
    let mut command = command("git");
    command.arg("-C").arg(directory).args(["-c", "core.fsmonitor=false", "--no-optional-locks"]);
    let output = command.args(arguments).args(more).stdin(Stdio::null()).output();
    let output = output.map_err(|source| Error::Start { program: "git".to_owned(), source })?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let reason = text.lines().next().unwrap_or("git failed without a message").trim_start_matches("fatal: ");
        return Err(Error::option("revision", revision)(reason));
    }
    let names = output.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(path).collect())
}

#[cfg(unix)]
fn path(name: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    std::ffi::OsStr::from_bytes(name).into()
}

#[cfg(not(unix))]
fn path(name: &[u8]) -> PathBuf {
    String::from_utf8_lossy(name).into_owned().into()
}
