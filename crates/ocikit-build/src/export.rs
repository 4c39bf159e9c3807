use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ocikit_image::{ScratchDirectory, ScratchKind};

use crate::attributes::Attributes;
use crate::error::{Error, Result};

/// A result of a build that is not an image: the files of the last stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Export {
    /// Files in a directory. Existing files with other names are kept.
    Directory(PathBuf),
    /// A tar file.
    Tar(PathBuf),
}

/// An export that BuildKit writes beside its target, where it becomes visible after the build.
#[derive(Debug)]
pub(crate) struct StagedExport {
    export: Export,
    staging: ScratchDirectory,
}

/// The name of the result in the staging directory.
const RESULT: &str = "result";

impl StagedExport {
    /// Makes the staging directory, in the same file system as the target.
    pub(crate) fn new(export: &Export) -> Result<StagedExport> {
        let (Export::Directory(path) | Export::Tar(path)) = export;
        let staging = ScratchDirectory::create(parent(path), ScratchKind::Export);
        let staging = staging.map_err(Error::failed("make a temporary directory beside the output"))?;
        Ok(StagedExport { export: export.clone(), staging })
    }

    pub(crate) fn directory(&self) -> &Path {
        self.staging.path()
    }

    fn result(&self) -> PathBuf {
        self.staging.path().join(RESULT)
    }

    /// Returns the value of `--output` of `buildctl`.
    pub(crate) fn to_argument(&self) -> String {
        let mut attributes = Attributes::default();
        attributes.push(
            "type",
            match self.export {
                Export::Directory(_) => "local",
                Export::Tar(_) => "tar",
            },
        );
        attributes.push("dest", self.result().display().to_string());
        attributes.to_line()
    }

    /// Moves the result to its target.
    pub(crate) fn publish(self) -> Result<()> {
        let moved = match &self.export {
            Export::Tar(path) => fs::rename(self.result(), path),
            Export::Directory(path) => merge(&self.result(), path),
        };
        moved.map_err(Error::failed("move the result of the build to its target"))
    }
}

/// Moves a file or directory. Directories that exist are merged, files that exist are replaced.
fn merge(from: &Path, to: &Path) -> io::Result<()> {
    let is_directory = |path: &Path| path.symlink_metadata().is_ok_and(|found| found.is_dir());
    if !is_directory(from) || !is_directory(to) {
        // A directory does not replace a file.
        if is_directory(from) && to.symlink_metadata().is_ok() {
            fs::remove_file(to)?;
        }
        return fs::rename(from, to);
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        merge(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Returns the directory of a path.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exports_appear_when_they_are_published() {
        let place = tempfile::tempdir().unwrap();
        let out = place.path().join("out");
        fs::create_dir_all(out.join("dir")).unwrap();
        fs::write(out.join("kept"), "kept").unwrap();
        fs::write(out.join("dir/old"), "old").unwrap();
        let staged = StagedExport::new(&Export::Directory(out.clone())).unwrap();
        fs::create_dir_all(staged.result().join("dir")).unwrap();
        fs::write(staged.result().join("dir/old"), "new").unwrap();
        fs::write(staged.result().join("added"), "added").unwrap();
        assert_eq!(fs::read_to_string(out.join("dir/old")).unwrap(), "old");
        staged.publish().unwrap();
        for (name, text) in [("kept", "kept"), ("dir/old", "new"), ("added", "added")] {
            assert_eq!(fs::read_to_string(out.join(name)).unwrap(), text);
        }
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
        drop(StagedExport::new(&Export::Tar(place.path().join("x.tar"))).unwrap());
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    }
}
