//! Puts complete files under their names, all of them or none.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A file or directory that is complete, under a temporary name.
#[derive(Debug)]
pub(super) struct StagedFile {
    pub(super) from: PathBuf,
    /// The path below the target directory.
    pub(super) to: PathBuf,
}

/// The beginning of the temporary names of replaced files.
pub(super) const REPLACED: &str = "old-";

/// Renames files to their names below a directory. If one fails, the others are renamed back. Replaced files are moved to the
/// staging directory first.
pub(super) fn place(staged: &[StagedFile], directory: &Path, staging: &Path, overwrite: bool) -> Result<()> {
    for file in staged {
        check(file, directory, overwrite)?;
    }
    let mut undo = Undo::default();
    for (number, file) in staged.iter().enumerate() {
        let target = directory.join(&file.to);
        let placed = undo
            .create_parents(directory, &file.to)
            .and_then(|()| match exists(&target) {
                true => undo.rename(&target, &staging.join(format!("{REPLACED}{number}"))),
                false => Ok(()),
            })
            .and_then(|()| undo.rename(&file.from, &target));
        if let Err(error) = placed {
            undo.run();
            return Err(Error::failed("write", target.display(), error));
        }
    }
    Ok(())
}

/// Checks that a file can get its name: no part of its path is a symlink or a file, and nothing has the name.
fn check(file: &StagedFile, directory: &Path, overwrite: bool) -> Result<()> {
    let target = directory.join(&file.to);
    let place = || directory.display().to_string();
    let mut parent = directory.to_owned();
    for part in file.to.parent().into_iter().flat_map(Path::components) {
        parent.push(part);
        match fs::symlink_metadata(&parent) {
            Ok(found) if found.is_dir() => {}
            Ok(found) => {
                let kind = if found.is_symlink() { "a symlink" } else { "not a directory" };
                let what = format!("cannot write {}: {} is {kind}", file.to.display(), parent.display());
                return Err(Error::Unsupported { place: place(), what });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(Error::failed("read", parent.display(), error)),
        }
    }
    match fs::symlink_metadata(&target) {
        Err(_) => Ok(()),
        Ok(_) if !overwrite => Err(Error::Exists { what: file.to.display().to_string(), place: place() }),
        Ok(found) if found.is_dir() != file.from.is_dir() => {
            let kind = if found.is_dir() { "a directory" } else { "not a directory" };
            let what = format!("cannot replace {}: it is {kind}", file.to.display());
            Err(Error::Unsupported { place: place(), what })
        }
        Ok(_) => Ok(()),
    }
}

fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// The steps so far, which are undone in reverse order.
#[derive(Default)]
struct Undo(Vec<PlaceStep>);

enum PlaceStep {
    Renamed { from: PathBuf, to: PathBuf },
    Created(PathBuf),
}

impl Undo {
    fn create_parents(&mut self, directory: &Path, file: &Path) -> io::Result<()> {
        let mut parent = directory.to_owned();
        for part in file.parent().into_iter().flat_map(Path::components) {
            parent.push(part);
            match fs::create_dir(&parent) {
                Ok(()) => self.0.push(PlaceStep::Created(parent.clone())),
                // A symlink that appeared in the meantime is not followed.
                Err(_) if fs::symlink_metadata(&parent).is_ok_and(|found| found.is_dir()) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)?;
        self.0.push(PlaceStep::Renamed { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    /// Undoes everything, as far as possible: the error that led here is reported.
    fn run(self) {
        for step in self.0.into_iter().rev() {
            let _ = match step {
                PlaceStep::Renamed { from, to } => fs::rename(to, from),
                PlaceStep::Created(directory) => fs::remove_dir(directory),
            };
        }
    }
}
