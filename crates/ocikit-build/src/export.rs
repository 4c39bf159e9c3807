use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ocikit_image::{ScratchDirectory, ScratchKind};
use ocikit_layout::OutputFile;

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
    ///
    /// What the target is now decides what may be written: a directory takes only directories, and a device, a pipe or a socket
    /// is never replaced.
    pub(crate) fn new(export: &Export) -> Result<StagedExport> {
        let (Export::Directory(path) | Export::Tar(path)) = export;
        let failed = Error::failed("make a temporary directory beside the output");
        let found = path.metadata();
        let place = match export {
            Export::Directory(_) => match found {
                Ok(found) if found.is_dir() => path.clone(),
                // A symlink that leads nowhere is found only by itself.
                Err(error) if error.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_err() => {
                    parent(path).to_owned()
                }
                _ => return Err(refuse(path, "it exists and is not a directory")),
            },
            Export::Tar(_) if found.is_ok_and(|found| found.is_dir()) => {
                return Err(refuse(path, "it is a directory"));
            }
            Export::Tar(_) if OutputFile::is_stream(path) => ScratchDirectory::default_parent(),
            Export::Tar(_) => parent(&OutputFile::followed(path).map_err(&failed)?).to_owned(),
        };
        // A directory below a symlink would not be removed.
        let place = place.canonicalize().map_err(&failed)?;
        let staging = ScratchDirectory::create(&place, ScratchKind::Export).map_err(failed)?;
        let staged = StagedExport { export: export.clone(), staging };
        // It keeps the permissions that it has here. BuildKit would give a directory none for others, and a file all.
        let made = match export {
            Export::Directory(_) => fs::create_dir(staged.result()),
            Export::Tar(_) => fs::File::create(staged.result()).map(drop),
        };
        made.map_err(Error::failed("make a temporary file beside the output"))?;
        Ok(staged)
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
            Export::Tar(path) => self.publish_file(path),
            // A symlink to a directory is followed.
            Export::Directory(path) => match path.metadata() {
                Ok(found) if found.is_dir() => {
                    let path = path.canonicalize().map_err(Error::failed("find the directory of the output"))?;
                    check(&self.result(), &path)?;
                    merge(&self.result(), &path)
                }
                _ => match path.symlink_metadata() {
                    Ok(_) => return Err(refuse(path, "it exists and is not a directory")),
                    Err(_) => fs::rename(self.result(), path),
                },
            },
        };
        moved.map_err(Error::failed("move the result of the build to its target"))
    }

    fn publish_file(&self, path: &Path) -> io::Result<()> {
        if !OutputFile::is_stream(path) {
            return fs::rename(self.result(), OutputFile::followed(path)?);
        }
        let mut target = OutputFile::create(path)?;
        io::copy(&mut fs::File::open(self.result())?, &mut target)?;
        target.commit()
    }
}

fn refuse(path: &Path, reason: &str) -> Error {
    Error::option("output", &path.display().to_string())(reason)
}

/// Refuses to replace a device, a pipe or a socket in a directory, before anything is moved there.
fn check(from: &Path, to: &Path) -> Result<()> {
    let Ok(found) = to.symlink_metadata() else { return Ok(()) };
    if !found.is_dir() {
        return match found.is_file() || found.is_symlink() {
            true => Ok(()),
            false => Err(refuse(to, "it is a device, a pipe or a socket, which is not replaced")),
        };
    }
    if !is_directory(from) {
        return Ok(());
    }
    for entry in fs::read_dir(from).map_err(Error::failed("read the result of the build"))? {
        let entry = entry.map_err(Error::failed("read the result of the build"))?;
        check(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

fn is_directory(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.is_dir())
}

/// Moves a file or directory. Directories that exist are merged, files that exist are replaced.
fn merge(from: &Path, to: &Path) -> io::Result<()> {
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

    #[test]
    #[cfg(unix)]
    fn what_is_not_a_directory_or_a_file_is_never_replaced() {
        use std::os::unix::fs::{FileTypeExt, symlink};
        use std::os::unix::net::UnixListener;
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        fs::create_dir(at("out")).unwrap();
        fs::write(at("file"), "kept").unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        for (link, target) in [("to-out", "out"), ("to-file", "file"), ("to-nothing", "nothing"), ("to-new", "new.tar")]
        {
            symlink(target, at(link)).unwrap();
        }
        for name in ["file", "socket", "to-file", "to-nothing"] {
            let error = StagedExport::new(&Export::Directory(at(name))).unwrap_err();
            assert!(error.to_string().contains("not a directory"), "{name}: {error}");
        }
        assert!(StagedExport::new(&Export::Tar(at("out"))).is_err());
        let write = |staged: &StagedExport| fs::write(staged.result().join("added"), "new").unwrap();
        let staged = StagedExport::new(&Export::Directory(at("to-out"))).unwrap();
        write(&staged);
        staged.publish().unwrap();
        assert_eq!(fs::read_to_string(at("out/added")).unwrap(), "new");
        assert!(at("to-out").is_symlink());
        assert_eq!(fs::read_dir(at("out")).unwrap().count(), 1);
        let staged = StagedExport::new(&Export::Tar(at("to-new"))).unwrap();
        fs::write(staged.result(), "tar").unwrap();
        staged.publish().unwrap();
        assert!(at("to-new").is_symlink() && at("new.tar").is_file());
        // What became a file during the build.
        let staged = StagedExport::new(&Export::Directory(at("late"))).unwrap();
        fs::write(at("late"), "kept").unwrap();
        assert!(staged.publish().is_err() && at("late").is_file());
        // A socket below the directory.
        let _below = UnixListener::bind(at("out/socket")).unwrap();
        let staged = StagedExport::new(&Export::Directory(at("out"))).unwrap();
        fs::write(staged.result().join("added"), "newer").unwrap();
        fs::write(staged.result().join("socket"), "").unwrap();
        assert!(staged.publish().is_err());
        assert!(at("out/socket").metadata().unwrap().file_type().is_socket());
        assert_eq!(fs::read_to_string(at("out/added")).unwrap(), "new", "nothing was moved");
    }

    #[test]
    #[cfg(unix)]
    fn a_tar_is_written_into_a_pipe() {
        use std::os::unix::fs::FileTypeExt;
        let place = tempfile::tempdir().unwrap();
        let pipe = place.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let staged = StagedExport::new(&Export::Tar(pipe.clone())).unwrap();
        fs::write(staged.result(), "tar").unwrap();
        let reader = {
            let pipe = pipe.clone();
            std::thread::spawn(move || fs::read_to_string(pipe).unwrap())
        };
        staged.publish().unwrap();
        assert_eq!(reader.join().unwrap(), "tar");
        assert!(pipe.metadata().unwrap().file_type().is_fifo());
    }
}
