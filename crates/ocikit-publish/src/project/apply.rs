//! Writes the files of a cascade as one transaction.
//!
//! 1. The new contents are written into a directory beside the journal and synchronized. No image has that directory in its
//!    context, so a build never sees them.
//! 2. The journal, which lists the files with their digests before and after, is renamed into place. This is the decision:
//!    a process that ends before has changed nothing, and after it the next run finishes.
//! 3. Each file is renamed into place.
//! 4. The journal is removed, and then the directory.
//!
//! Reading a project fails while a journal exists, so one half of the files is never seen.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ocikit::Digest;
use serde::{Deserialize, Serialize};

use super::cascade::{Cascade, FileChange};
use super::error::ProjectError;
use super::files::{JOURNAL, NEW_CONTENTS, check_not_interrupted, read_file, target};
use super::metadata::MetadataFormat;
use super::model::{DOCKERFILE, Project};

/// The maximum size of the journal, in bytes.
const MAX_JOURNAL_BYTES: usize = 64 << 20;

/// The maximum size of a file that is compared with the journal, in bytes: more than a Dockerfile can have.
const MAX_FILE_BYTES: usize = 4 << 20;

#[derive(Debug, Serialize, Deserialize)]
struct Journal {
    files: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    /// Relative to the project.
    path: PathBuf,
    before: Digest,
    after: Digest,
}

impl Cascade {
    /// Writes the files: all or none. If the process ends in between, [`finish_cascade`] completes it.
    ///
    /// # Errors
    ///
    /// [`ProjectError::Locked`], [`ProjectError::Interrupted`], [`ProjectError::Changed`] if a file is not the one that was
    /// read, and those of writing. No file has changed then, unless the error is one of the last step; the journal exists
    /// in that case.
    pub fn apply(&self) -> Result<(), ProjectError> {
        if self.changes.is_empty() {
            return Ok(());
        }
        let _lock = lock(&self.root)?;
        check_not_interrupted(&self.root)?;
        remove_leftovers(&self.root, &self.directories)?;
        match self.decide() {
            Ok(journal) => complete(&self.root, &journal),
            Err(error) => {
                // The error that is returned says what is wrong; what stays is removed by the next run.
                let _ = remove(&self.root.join(NEW_CONTENTS));
                Err(error)
            }
        }
    }

    /// Writes the new contents and the journal.
    fn decide(&self) -> Result<Journal, ProjectError> {
        let directory = self.root.join(NEW_CONTENTS);
        fs::create_dir(&directory).map_err(ProjectError::io("write", directory.clone()))?;
        for (position, change) in self.changes.iter().enumerate() {
            prepare(&self.root, change, &new_content(&self.root, position))?;
        }
        sync_directory(&directory).map_err(ProjectError::io("synchronize", directory))?;
        let entry = |change: &FileChange| Entry {
            path: change.path.clone(),
            before: Digest::sha256_of(&change.before),
            after: Digest::sha256_of(&change.after),
        };
        let journal = Journal { files: self.changes.iter().map(entry).collect() };
        write_journal(&self.root, &journal)?;
        Ok(journal)
    }
}

impl Project {
    /// Removes what a cascade left that ended before it was decided: also the files `.Dockerfile.ocikit-cascade` that
    /// previous versions wrote into the contexts of the images. Does nothing if there is nothing to remove.
    ///
    /// # Errors
    ///
    /// [`ProjectError::Locked`] if another process changes the project, and those of removing.
    pub fn remove_leftovers(&self) -> Result<(), ProjectError> {
        let directories: Vec<_> = self.images.iter().map(|image| image.directory.clone()).collect();
        if leftovers(&self.root, &directories).next().is_none() {
            return Ok(());
        }
        let _lock = lock(&self.root)?;
        check_not_interrupted(&self.root)?;
        remove_leftovers(&self.root, &directories)
    }
}

/// Finishes a cascade that was interrupted. Returns the files that it wrote or found written, or `None` if there was no
/// such cascade.
///
/// # Errors
///
/// [`ProjectError::Locked`], [`ProjectError::Journal`] if a file changed in between, and those of writing.
pub fn finish_cascade(root: &Path) -> Result<Option<Vec<PathBuf>>, ProjectError> {
    let path = root.join(JOURNAL);
    if read_file(&path, 0)?.is_none() {
        return Ok(None);
    }
    let _lock = lock(root)?;
    let Some(bytes) = read_file(&path, MAX_JOURNAL_BYTES)? else { return Ok(None) };
    let wrong = |path: &Path, problem| ProjectError::Journal { path: path.to_owned(), problem };
    let journal: Journal =
        serde_json::from_slice(&bytes).map_err(|_| wrong(&path, "it is not a journal of a cascade"))?;
    for (position, entry) in journal.files.iter().enumerate() {
        let is_inside = entry.path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        if !is_inside {
            return Err(wrong(&path, "it names a file outside of the project"));
        }
        let target = target(root, &entry.path)?;
        let digest = |path: &Path| Ok(read_file(path, MAX_FILE_BYTES)?.map(|bytes| Digest::sha256_of(&bytes)));
        let (now, next) = (digest(&target)?, digest(&new_content(root, position))?);
        if now != Some(entry.after) && (now != Some(entry.before) || next != Some(entry.after)) {
            return Err(wrong(&entry.path, "it is neither the file before the cascade nor the one after it"));
        }
    }
    complete(root, &journal)?;
    Ok(Some(journal.files.into_iter().map(|entry| entry.path).collect()))
}

/// Returns the place of the new content of the file at this position of the journal.
fn new_content(root: &Path, position: usize) -> PathBuf {
    root.join(NEW_CONTENTS).join(position.to_string())
}

/// Returns a temporary name beside a file.
fn beside(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.ocikit-cascade"))
}

/// Writes the new content of a file, and checks that the file can be replaced.
fn prepare(root: &Path, change: &FileChange, path: &Path) -> Result<(), ProjectError> {
    let target = target(root, &change.path)?;
    if read_file(&target, MAX_FILE_BYTES)?.as_deref() != Some(&change.before[..]) {
        return Err(ProjectError::Changed { path: change.path.clone() });
    }
    check_writable(target.parent().unwrap_or(root)).map_err(ProjectError::io("write", target.clone()))?;
    let write = || -> io::Result<()> {
        let mut file = File::options().write(true).create_new(true).open(path)?;
        file.write_all(&change.after)?;
        file.set_permissions(fs::metadata(&target)?.permissions())?;
        file.sync_all()
    };
    write().map_err(ProjectError::io("write", path))
}

/// Fails if a file cannot be renamed into a directory. After the decision it would be too late to notice.
#[cfg(unix)]
fn check_writable(directory: &Path) -> io::Result<()> {
    use rustix::fs::{Access, access};
    access(directory, Access::WRITE_OK | Access::EXEC_OK).map_err(io::Error::from)
}

/// Directories have no permission to write that could be missing.
#[cfg(not(unix))]
fn check_writable(_: &Path) -> io::Result<()> {
    Ok(())
}

fn write_journal(root: &Path, journal: &Journal) -> Result<(), ProjectError> {
    let path = root.join(JOURNAL);
    let temporary = root.join(NEW_CONTENTS).join("journal");
    let write = || -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(journal)?)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        sync_directory(root)
    };
    let written = write();
    if written.is_err() {
        // If only the synchronization failed, the journal is in place and has to go, because the caller gives up.
        let _ = fs::remove_file(&path);
    }
    written.map_err(ProjectError::io("write", path))
}

/// Renames the files into place and removes the journal.
fn complete(root: &Path, journal: &Journal) -> Result<(), ProjectError> {
    for (position, entry) in journal.files.iter().enumerate() {
        let target = target(root, &entry.path)?;
        match replace(&new_content(root, position), &target) {
            // It was renamed before the interruption.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            replaced => replaced.map_err(ProjectError::io("replace", target.clone()))?,
        }
        let directory = target.parent().unwrap_or(root);
        sync_directory(directory).map_err(ProjectError::io("synchronize", directory))?;
    }
    let path = root.join(JOURNAL);
    fs::remove_file(&path).map_err(ProjectError::io("remove", path))?;
    sync_directory(root).map_err(ProjectError::io("synchronize", root))?;
    // The cascade is complete; the next run removes what stays.
    let _ = remove(&root.join(NEW_CONTENTS));
    Ok(())
}

/// Renames a file over another one. Contexts may be mounted from another file system, where a copy is renamed; no build
/// sees it, because the journal exists.
fn replace(new: &Path, target: &Path) -> io::Result<()> {
    match fs::rename(new, target) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            let copy = beside(target);
            fs::copy(new, &copy)?;
            File::open(&copy)?.sync_all()?;
            fs::rename(copy, target)
        }
        renamed => renamed,
    }
}

#[cfg(unix)]
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Directories cannot be opened as files; the file system orders their changes.
#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Returns what processes left that ended before their decision. Previous versions wrote the new contents beside the files.
fn leftovers<'a>(root: &'a Path, directories: &'a [PathBuf]) -> impl Iterator<Item = PathBuf> + 'a {
    let names = || MetadataFormat::ALL.map(MetadataFormat::file_name).into_iter().chain([DOCKERFILE]);
    let files = directories.iter().flat_map(move |directory| names().map(move |name| root.join(directory).join(name)));
    let beside_files = files.filter_map(|file| Some(beside(&fs::canonicalize(file).ok()?)));
    let own = [root.join(NEW_CONTENTS), beside(&root.join(JOURNAL))];
    beside_files.chain(own).filter(|path| path.symlink_metadata().is_ok())
}

fn remove_leftovers(root: &Path, directories: &[PathBuf]) -> Result<(), ProjectError> {
    leftovers(root, directories).try_for_each(|path| remove(&path))
}

/// Removes a file, or a directory with its contents.
fn remove(path: &Path) -> Result<(), ProjectError> {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(ProjectError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Locks the directory of the project against other processes. The system releases the lock when the process ends, and no
/// file stays.
fn lock(root: &Path) -> Result<File, ProjectError> {
    let path = root.to_owned();
    let file = File::open(root).map_err(ProjectError::io("open", root))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(ProjectError::Locked { path }),
        Err(fs::TryLockError::Error(source)) => Err(ProjectError::Io { operation: "lock", path, source }),
    }
}
