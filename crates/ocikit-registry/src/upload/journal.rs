use std::collections::HashMap;
use std::fmt::{self, Debug};
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use ocikit_image::{Result, bridge};
use ocikit_spec::{Digest, Repository};
use serde::{Deserialize, Serialize};

use crate::http::transport::lock;
use crate::http::{Clock, SystemClock};

/// Where uploads that are under way are written down, so that the next process goes on where this one died.
///
/// It is an aid and never a reason to fail: what cannot be written is not remembered, and what cannot be read was not.
#[async_trait]
pub trait Journal: Debug + Send + Sync + 'static {
    /// The session in which a blob was being sent. It is handed out once: two that send into the same session would
    /// spoil it for each other.
    async fn take(&self, blob: &JournalKey) -> Option<JournalEntry>;

    /// Writes down how far a blob is, in place of what was written before.
    async fn record(&self, blob: &JournalKey, session: &JournalEntry);

    /// Forgets a blob that is complete, or will not be.
    async fn forget(&self, blob: &JournalKey);

    /// Whether uploads of this blob are written down. Their sessions stay open at the registry when an upload is given
    /// up or its future is dropped, for another attempt to continue; those of other blobs are cancelled.
    fn keeps(&self, _blob: &JournalKey) -> bool {
        true
    }
}

/// A blob on its way to a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JournalKey {
    /// Where it is sent.
    pub repository: Repository,
    /// Which.
    pub digest: Digest,
    /// How many bytes it has.
    pub size: u64,
}

/// An upload that a registry waits for the rest of.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// Its URL. Whoever knows it may be able to write to it.
    pub url: String,
    /// How many bytes the registry was known to have. It may have more by now, and is asked.
    pub offset: u64,
}

impl Debug for JournalEntry {
    /// Without the URL: whoever knows it may be able to write to the session.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JournalEntry").field("offset", &self.offset).finish_non_exhaustive()
    }
}

/// A journal in a directory: a file with mode 0600 for every blob.
///
/// Processes that share the directory do not get each other's sessions as long as both live.
#[derive(Debug, Clone)]
pub struct FileJournal {
    directory: PathBuf,
    options: JournalOptions,
    clock: Arc<dyn Clock>,
    /// What was written down here and not forgotten, locked: that ends with the process, however it ends.
    held: Arc<Mutex<HashMap<PathBuf, File>>>,
}

/// What a journal keeps.
#[derive(Debug, Clone)]
pub struct JournalOptions {
    /// From which size on blobs are written down. Smaller ones are sooner sent again.
    pub smallest: u64,
    /// For how long. Registries remove what was begun and not completed after some days, or hours.
    pub lifetime: Duration,
}

impl Default for JournalOptions {
    /// From 8 MiB on, for a day.
    fn default() -> JournalOptions {
        JournalOptions { smallest: 8 << 20, lifetime: Duration::from_secs(24 * 60 * 60) }
    }
}

impl FileJournal {
    /// The journal in this directory, which is made when it is needed.
    pub fn new(directory: impl Into<PathBuf>) -> FileJournal {
        FileJournal::with_options(directory, JournalOptions::default())
    }

    /// The journal in this directory, which keeps these.
    pub fn with_options(directory: impl Into<PathBuf>, options: JournalOptions) -> FileJournal {
        FileJournal { directory: directory.into(), options, clock: Arc::new(SystemClock), held: Arc::default() }
    }

    /// Does something with the file of a blob, if the blob is worth it.
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

    /// Opens what a process wrote down that is no longer there; `None` while it is.
    fn claim(&self, path: &Path) -> io::Result<Option<File>> {
        lock(&self.held).remove(path);
        let file = File::open(path)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(None),
            // Some file systems know no locks: then it may be handed out while somebody uses it.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        // Until it was locked another process may have taken it, and written down its own.
        let (claimed, now) = (file.metadata()?, fs::metadata(path)?);
        let same = claimed.len() == now.len() && claimed.modified()? == now.modified()?;
        Ok(same.then_some(file))
    }

    fn is_stale(&self, path: &Path) -> bool {
        let written = fs::metadata(path).and_then(|metadata| metadata.modified());
        let age = written.ok().and_then(|written| self.now().duration_since(written).ok());
        age.is_some_and(|age| age > self.options.lifetime)
    }

    fn now(&self) -> SystemTime {
        self.clock.now()
    }

    /// Removes what nobody came back for.
    fn sweep(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
            // And what processes left that died while they wrote, and never came back to the same blob.
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
            // Of several processes one succeeds. One that is killed here leaves either all or nothing.
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
            // A name of its own for every blob, so that whoever sends the same blob next finds what a process left that
            // was killed while it wrote here. If two write at the same time one of them is not remembered.
            let partial = partial(&path);
            let _ = fs::remove_file(&partial);
            let name = partial.file_name().unwrap_or_default();
            // Such files are made with mode 0600.
            let mut file = tempfile::Builder::new().prefix(name).rand_bytes(0).tempfile_in(&journal.directory)?;
            file.write_all(&text)?;
            // Before others can see it.
            let _ = file.as_file().try_lock();
            lock(&journal.held).remove(&path);
            let file = file.persist(&path)?;
            lock(&journal.held).insert(path, file);
            Ok(())
        })
        .await;
    }

    fn keeps(&self, blob: &JournalKey) -> bool {
        blob.size >= self.options.smallest
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

/// Where a file is written before it takes its name.
fn partial(path: &Path) -> PathBuf {
    path.with_extension("partial")
}

#[cfg(test)]
mod tests {
    use ocikit_spec::Digest;

    use super::*;

    fn key(repository: &str) -> JournalKey {
        JournalKey { repository: repository.parse().unwrap(), digest: Digest::sha256_of(b"x"), size: 100 }
    }

    fn session(url: &str) -> JournalEntry {
        JournalEntry { url: url.to_owned(), offset: 10 }
    }

    fn journal(directory: &Path) -> FileJournal {
        FileJournal::with_options(directory.join("journal"), JournalOptions { smallest: 100, ..Default::default() })
    }

    #[tokio::test]
    async fn what_was_written_down_is_handed_out_once() {
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
    async fn what_was_being_written_when_a_process_died_is_removed_by_the_next() {
        let directory = tempfile::TempDir::new().unwrap();
        let journal = journal(directory.path());
        let count = || fs::read_dir(directory.path().join("journal")).unwrap().count();
        journal.record(&key("h.io/a"), &session("one")).await;
        let file = fs::read_dir(directory.path().join("journal")).unwrap().next().unwrap().unwrap().path();
        let leave = || fs::write(partial(&file), "{").unwrap();
        leave();
        journal.record(&key("h.io/a"), &session("two")).await;
        assert_eq!(count(), 1, "in the way of nobody");
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
    async fn what_is_old_or_broken_is_forgotten() {
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
    async fn what_another_process_is_sending_is_not_handed_out() {
        let directory = tempfile::TempDir::new().unwrap();
        let [one, other] = [journal(directory.path()), journal(directory.path())];
        one.record(&key("h.io/a"), &session("one")).await;
        assert_eq!(other.take(&key("h.io/a")).await, None);
        one.record(&key("h.io/a"), &session("two")).await;
        assert_eq!(other.take(&key("h.io/a")).await, None);
        // The process that began it may give up and come back, and whoever comes when it is gone goes on.
        assert_eq!(one.take(&key("h.io/a")).await, Some(session("two")));
        one.record(&key("h.io/a"), &session("three")).await;
        drop(one);
        assert_eq!(other.take(&key("h.io/a")).await, Some(session("three")));
        assert_eq!(other.take(&key("h.io/a")).await, None);
        assert_eq!(fs::read_dir(directory.path().join("journal")).unwrap().count(), 0);
    }
}
