use std::collections::HashMap;
use std::fmt::{self, Debug};
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ocikit_http::{Clock, SystemClock, Url, lock};
use ocikit_image::{Result, bridge};
use ocikit_spec::{Digest, Repository};
use serde::{Deserialize, Serialize};

/// Records the sessions of uploads, so that the next process resumes what an earlier one did not complete.
///
/// It is best effort: an upload that cannot be recorded, or whose entry cannot be read, is not resumed. Neither is an
/// error.
#[async_trait]
pub trait Journal: Debug + Send + Sync + 'static {
    /// Returns the recorded session of a blob and removes it. Two processes that send into the same session would
    /// corrupt it.
    async fn take(&self, blob: &JournalKey) -> Option<JournalEntry>;

    /// Records the session of a blob, replacing an earlier entry.
    async fn record(&self, blob: &JournalKey, session: &JournalEntry);

    /// Removes the entry of a blob whose upload is complete or given up.
    async fn forget(&self, blob: &JournalKey);

    /// Returns whether uploads of this blob are recorded. Their sessions stay open when an upload fails or its future
    /// is dropped, so that another attempt can resume them; sessions of other blobs are cancelled.
    fn keeps(&self, _blob: &JournalKey) -> bool {
        true
    }
}

/// An upload of a blob to a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JournalKey {
    /// The target repository.
    pub repository: Repository,
    /// The digest of the blob.
    pub digest: Digest,
    /// The size of the blob in bytes.
    pub size: u64,
}

/// An upload session.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// The URL of the session. It is a secret: it may be all that is needed to write to the session.
    pub url: String,
    /// Number of bytes that the registry had received when this was recorded. The registry is asked for the current
    /// number.
    pub offset: u64,
}

impl Debug for JournalEntry {
    /// Omits the URL, which may be all that is needed to write to the session.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JournalEntry").field("offset", &self.offset).finish_non_exhaustive()
    }
}

/// The journal entry of one upload; nothing if there is no journal.
pub(crate) struct JournalRecord<'a> {
    journal: Option<&'a dyn Journal>,
    key: &'a JournalKey,
    written: Option<Url>,
}

impl<'a> JournalRecord<'a> {
    pub(crate) fn new(journal: Option<&'a dyn Journal>, key: &'a JournalKey) -> JournalRecord<'a> {
        JournalRecord { journal, key, written: None }
    }

    /// Returns the recorded session and removes it.
    pub(crate) async fn take(&self) -> Option<Url> {
        self.journal?.take(self.key).await?.url.parse().ok()
    }

    /// Records the session. The offset is recorded only with a new URL: the registry knows the current one.
    pub(crate) async fn record(&mut self, url: &Url, offset: u64) {
        let Some(journal) = self.journal.filter(|_| self.written.as_ref() != Some(url)) else { return };
        journal.record(self.key, &JournalEntry { url: url.reveal().to_owned(), offset }).await;
        self.written = Some(url.clone());
    }

    /// Notes a session that may be recorded, so that [`forget`](JournalRecord::forget) removes its entry.
    pub(crate) fn note(&mut self, url: &Url) {
        self.written = Some(url.clone());
    }

    pub(crate) async fn forget(&self) {
        if let Some(journal) = self.journal.filter(|_| self.written.is_some()) {
            journal.forget(self.key).await;
        }
    }
}

/// A journal in a directory, with one file of mode 0600 per blob.
///
/// A lock on the file keeps processes that share the directory from using each other's sessions while both run.
#[derive(Debug, Clone)]
pub struct FileJournal {
    directory: PathBuf,
    options: JournalOptions,
    /// The files that this process has recorded and not removed, locked. The operating system releases the locks when
    /// the process ends.
    held: Arc<Mutex<HashMap<PathBuf, File>>>,
}

/// Which uploads a journal records.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct JournalOptions {
    /// Minimum size of a blob, in bytes. Smaller ones are faster to send again.
    pub min_blob_bytes: u64,
    /// Maximum age of an entry. Registries delete incomplete uploads after hours or days.
    pub lifetime: Duration,
}

ocikit_spec::setters! {
    JournalOptions {
        min_blob_bytes: u64,
        lifetime: Duration,
    }
}

impl Default for JournalOptions {
    /// Returns a minimum size of 8 MiB and a maximum age of one day.
    fn default() -> JournalOptions {
        JournalOptions { min_blob_bytes: 8 << 20, lifetime: Duration::from_secs(24 * 60 * 60) }
    }
}

impl FileJournal {
    /// Uses a directory, which is created when needed.
    pub fn new(directory: impl Into<PathBuf>) -> FileJournal {
        FileJournal::with_options(directory, JournalOptions::default())
    }

    /// Uses a directory, with options.
    pub fn with_options(directory: impl Into<PathBuf>, options: JournalOptions) -> FileJournal {
        FileJournal { directory: directory.into(), options, held: Arc::default() }
    }

    /// Runs a function with the path of a blob's file, if the journal keeps this blob.
    async fn with_file<T: Send + 'static>(
        &self,
        blob: &JournalKey,
        work: impl FnOnce(FileJournal, PathBuf) -> io::Result<T> + Send + 'static,
    ) -> Option<T> {
        if !self.keeps(blob) {
            return None;
        }
        let name = Digest::sha256_of(format!("{}@{}", blob.repository, blob.digest).as_bytes()).hex();
        let (journal, path) = (self.clone(), self.directory.join(format!("{name}.json")));
        let done: Result<_> = bridge::blocking(move || Ok(work(journal, path))).await;
        done.ok()?.ok()
    }

    /// Opens and locks an entry; `None` while the process that recorded it runs.
    fn claim(&self, path: &Path) -> io::Result<Option<File>> {
        lock(&self.held).remove(path);
        let file = File::open(path)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(None),
            // File systems without locks return an error. Then the entry may be used while its process runs.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        // Another process may have taken the entry before it was locked, and recorded a new one.
        let (claimed, now) = (file.metadata()?, fs::metadata(path)?);
        let same = claimed.len() == now.len() && claimed.modified()? == now.modified()?;
        Ok(same.then_some(file))
    }

    fn is_stale(&self, path: &Path) -> bool {
        let written = fs::metadata(path).and_then(|metadata| metadata.modified());
        let age = written.ok().and_then(|written| SystemClock.now().duration_since(written).ok());
        age.is_some_and(|age| age > self.options.lifetime)
    }

    /// Removes entries that no process has come back for.
    fn sweep(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
            // Also removes partial files of processes that died while writing.
            if matches!(extension, "json" | "partial") && self.is_stale(&path) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Journal for FileJournal {
    async fn take(&self, blob: &JournalKey) -> Option<JournalEntry> {
        let taken = self.with_file(blob, |journal, path| {
            let _ = fs::remove_file(partial(&path));
            let Some(mut file) = journal.claim(&path)? else { return Ok(None) };
            let stale = journal.is_stale(&path);
            let mut text = Vec::new();
            file.read_to_end(&mut text)?;
            // Only one process succeeds in removing the file. If this process dies here, the entry is either complete
            // or gone.
            fs::remove_file(&path)?;
            Ok((!stale).then_some(text))
        });
        let session: JournalEntry = serde_json::from_slice(&taken.await??).ok()?;
        (session.offset <= blob.size).then_some(session)
    }

    async fn record(&self, blob: &JournalKey, session: &JournalEntry) {
        let Ok(text) = serde_json::to_vec(session) else { return };
        self.with_file(blob, move |journal, path| {
            if !path.exists() {
                fs::create_dir_all(&journal.directory)?;
                journal.sweep()?;
            }
            // The name depends on the blob only, so that the next upload of the same blob removes what a process left
            // that died while writing. If two processes write at the same time, one of the entries is lost.
            let partial = partial(&path);
            let _ = fs::remove_file(&partial);
            let name = partial.file_name().unwrap_or_default();
            // `tempfile` creates files with mode 0600.
            let mut file = tempfile::Builder::new().prefix(name).rand_bytes(0).tempfile_in(&journal.directory)?;
            file.write_all(&text)?;
            // Locked before other processes can see it.
            let _ = file.as_file().try_lock();
            lock(&journal.held).remove(&path);
            let file = file.persist(&path)?;
            lock(&journal.held).insert(path, file);
            Ok(())
        })
        .await;
    }

    fn keeps(&self, blob: &JournalKey) -> bool {
        blob.size >= self.options.min_blob_bytes
    }

    async fn forget(&self, blob: &JournalKey) {
        self.with_file(blob, |journal, path| {
            lock(&journal.held).remove(&path);
            let _ = fs::remove_file(partial(&path));
            fs::remove_file(path)
        })
        .await;
    }
}

/// Returns the path of the temporary file for an entry.
fn partial(path: &Path) -> PathBuf {
    path.with_extension("partial")
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use ocikit_spec::Digest;

    use super::*;

    fn key(repository: &str) -> JournalKey {
        JournalKey { repository: repository.parse().unwrap(), digest: Digest::sha256_of(b"x"), size: 100 }
    }

    fn session(url: &str) -> JournalEntry {
        JournalEntry { url: url.to_owned(), offset: 10 }
    }

    fn journal(directory: &Path) -> FileJournal {
        FileJournal::with_options(
            directory.join("journal"),
            JournalOptions { min_blob_bytes: 100, ..Default::default() },
        )
    }

    #[tokio::test]
    async fn entries_are_taken_once() {
        let directory = tempfile::TempDir::new().unwrap();
        let journal = journal(directory.path());
        assert_eq!(journal.take(&key("h.io/a")).await, None);
        journal.record(&key("h.io/a"), &session("one")).await;
        journal.record(&key("h.io/a"), &session("two")).await;
        journal.record(&key("h.io/b"), &session("other")).await;
        journal.record(&key("h.io/c"), &session("done")).await;
        journal.forget(&key("h.io/c")).await;
        assert_eq!(journal.take(&key("h.io/a")).await, Some(session("two")));
        for forgotten in ["h.io/a", "h.io/c"] {
            assert_eq!(journal.take(&key(forgotten)).await, None);
        }
        assert_eq!(journal.take(&key("h.io/b")).await, Some(session("other")));
        let small = JournalKey { size: 99, ..key("h.io/a") };
        journal.record(&small, &session("small")).await;
        assert_eq!(fs::read_dir(directory.path().join("journal")).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn partial_files_of_dead_processes_are_removed() {
        let directory = tempfile::TempDir::new().unwrap();
        let journal = journal(directory.path());
        let count = || fs::read_dir(directory.path().join("journal")).unwrap().count();
        journal.record(&key("h.io/a"), &session("one")).await;
        let file = fs::read_dir(directory.path().join("journal")).unwrap().next().unwrap().unwrap().path();
        let leave = || fs::write(partial(&file), "{").unwrap();
        leave();
        journal.record(&key("h.io/a"), &session("two")).await;
        assert_eq!(count(), 1, "the partial file is replaced");
        leave();
        assert_eq!(journal.take(&key("h.io/a")).await, Some(session("two")));
        assert_eq!(count(), 0);
        leave();
        assert_eq!(journal.take(&key("h.io/a")).await, None, "half an entry is none");
        assert_eq!(count(), 0);
        leave();
        journal.forget(&key("h.io/a")).await;
        assert_eq!(count(), 0);
    }

    #[tokio::test]
    async fn stale_and_invalid_entries_are_removed() {
        let directory = tempfile::TempDir::new().unwrap();
        let journal = journal(directory.path());
        journal.record(&key("h.io/a"), &session("old")).await;
        let file = fs::read_dir(directory.path().join("journal")).unwrap().next().unwrap().unwrap().path();
        let long_ago = SystemTime::now() - Duration::from_secs(25 * 60 * 60);
        let old = || File::options().write(true).open(&file).unwrap().set_modified(long_ago).unwrap();
        old();
        assert_eq!(journal.take(&key("h.io/a")).await, None);
        journal.record(&key("h.io/a"), &session("old")).await;
        old();
        journal.record(&key("h.io/b"), &session("new")).await;
        assert!(!file.exists(), "swept away");
        journal.record(&key("h.io/a"), &session("x")).await;
        fs::write(&file, "nonsense").unwrap();
        assert_eq!(journal.take(&key("h.io/a")).await, None);
        journal.record(&key("h.io/a"), &JournalEntry { offset: 101, ..session("x") }).await;
        assert_eq!(journal.take(&key("h.io/a")).await, None, "a blob has no more bytes than it has");
    }

    #[tokio::test]
    async fn entries_of_running_processes_are_locked() {
        let directory = tempfile::TempDir::new().unwrap();
        let [one, other] = [journal(directory.path()), journal(directory.path())];
        one.record(&key("h.io/a"), &session("one")).await;
        assert_eq!(other.take(&key("h.io/a")).await, None);
        one.record(&key("h.io/a"), &session("two")).await;
        assert_eq!(other.take(&key("h.io/a")).await, None);
        // The process that recorded it may retry, and another one takes over when that process has ended.
        assert_eq!(one.take(&key("h.io/a")).await, Some(session("two")));
        one.record(&key("h.io/a"), &session("three")).await;
        drop(one);
        assert_eq!(other.take(&key("h.io/a")).await, Some(session("three")));
        assert_eq!(other.take(&key("h.io/a")).await, None);
        assert_eq!(fs::read_dir(directory.path().join("journal")).unwrap().count(), 0);
    }
}
