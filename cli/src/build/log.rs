//! The full log of a build, which is kept if the build fails.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use ocikit_build::{Observer, Progress};
use tempfile::NamedTempFile;

use crate::environment::cache_directory;
use crate::failure::Failure;
use crate::output;

/// The maximum size of a log in bytes. The rest is left out.
const MAX_LOG_BYTES: u64 = 64 << 20;

/// The number of logs that are kept.
const MAX_KEPT_LOGS: usize = 20;

const PREFIX: &str = "build-";
const SUFFIX: &str = ".log";

/// Writes everything that the steps of a build print to a file, and passes it on.
#[derive(Debug)]
pub(crate) struct BuildLog {
    shown: Option<Arc<dyn Observer>>,
    /// `None` if the file cannot be written.
    file: Mutex<Option<LogFile>>,
}

#[derive(Debug)]
struct LogFile {
    writer: BufWriter<NamedTempFile>,
    bytes: u64,
}

impl BuildLog {
    /// Begins a log in the cache directory of the user, or else in the directory for temporary files. Without a file, the build
    /// has no log.
    pub(crate) fn begin(shown: Option<Arc<dyn Observer>>) -> Arc<BuildLog> {
        let directory = cache_directory().map_or_else(std::env::temp_dir, |cache| cache.join("logs"));
        Arc::new(BuildLog::begin_in(&directory, shown))
    }

    fn begin_in(directory: &Path, shown: Option<Arc<dyn Observer>>) -> BuildLog {
        let file = fs::create_dir_all(directory).and_then(|()| {
            let file = tempfile::Builder::new().prefix(PREFIX).suffix(SUFFIX).tempfile_in(directory)?;
            Ok(LogFile { writer: BufWriter::new(file), bytes: 0 })
        });
        BuildLog { shown, file: Mutex::new(file.ok()) }
    }

    /// Keeps the log of a failed build and returns its path. Without this, it is removed.
    pub(crate) fn keep(&self) -> Option<PathBuf> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        if file.bytes == 0 {
            return None;
        }
        let (_, path) = file.writer.into_inner().ok()?.keep().ok()?;
        if let Some(directory) = path.parent() {
            // Old logs only take space.
            let _ = remove_old(directory);
        }
        Some(path)
    }

    /// Returns the failure of a build that names the file with its full log.
    pub(crate) fn name_in(&self, error: ocikit_build::Error) -> Failure {
        let mut failure = Failure::from(error);
        failure.details.extend(self.keep().map(|path| format!("full log: {}", path.display())));
        failure
    }

    fn write(&self, text: &str) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = file.as_mut() else { return };
        if open.bytes > MAX_LOG_BYTES {
            return;
        }
        let line = output::line(text);
        open.bytes += line.len() as u64 + 1;
        let end = if open.bytes > MAX_LOG_BYTES { "\nthe rest of the log is left out\n" } else { "\n" };
        let written = open.writer.write_all(line.as_bytes()).and_then(|()| open.writer.write_all(end.as_bytes()));
        if written.is_err() {
            *file = None;
        }
    }
}

impl Observer for BuildLog {
    fn progress(&self, progress: &Progress) {
        match progress {
            Progress::Started { step } => self.write(&format!("START {step}")),
            Progress::Completed { step, cached: true } => self.write(&format!("CACHED {step}")),
            Progress::Completed { step, cached: false } => self.write(&format!("DONE {step}")),
            Progress::Failed { step, error } => self.write(&format!("ERROR {step}: {error}")),
            Progress::Log { step, line } => self.write(&format!("{step} | {line}")),
            Progress::Warning { message } => self.write(&format!("WARNING {message}")),
            _ => {}
        }
        if let Some(shown) = &self.shown {
            shown.progress(progress);
        }
    }
}

/// Removes the oldest logs.
fn remove_old(directory: &Path) -> io::Result<()> {
    let mut logs: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(PREFIX) && name.ends_with(SUFFIX) {
            logs.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    logs.sort_unstable();
    let old = logs.len().saturating_sub(MAX_KEPT_LOGS);
    logs[..old].iter().try_for_each(|(_, path)| fs::remove_file(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_failed_builds_leave_a_log() {
        let place = tempfile::tempdir().unwrap();
        let count = || fs::read_dir(place.path()).unwrap().count();
        let line = Progress::Log { step: "RUN x".to_owned(), line: "a\u{1b}b".to_owned() };
        let log = BuildLog::begin_in(place.path(), None);
        log.progress(&line);
        drop(log);
        assert_eq!(count(), 0);
        assert_eq!(BuildLog::begin_in(place.path(), None).keep(), None);
        for _ in 0..MAX_KEPT_LOGS + 3 {
            let log = BuildLog::begin_in(place.path(), None);
            log.progress(&line);
            let path = log.keep().unwrap();
            assert_eq!(fs::read_to_string(path).unwrap(), "RUN x | a\\u{1b}b\n");
        }
        assert_eq!(count(), MAX_KEPT_LOGS);
        let unwritable = BuildLog::begin_in(Path::new("/proc/none"), None);
        unwritable.progress(&line);
        assert_eq!(unwritable.keep(), None);
    }
}
