use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file in the making: it appears under its name whole, or not at all.
///
/// Where the system can, it has no name until then, so that even a killed process leaves nothing behind.
#[derive(Debug)]
pub(crate) struct Staged {
    target: PathBuf,
    form: Form,
}

#[derive(Debug)]
enum Form {
    #[cfg(target_os = "linux")]
    Nameless(File),
    Named(tempfile::NamedTempFile),
}

impl Staged {
    /// Begins a file that will have this name; what has it now stays until then.
    pub(crate) fn create(target: &Path) -> io::Result<Staged> {
        let directory = parent(target);
        #[cfg(target_os = "linux")]
        if let Some(file) = nameless(directory) {
            return Ok(Staged { target: target.to_owned(), form: Form::Nameless(file) });
        }
        let file = temporary_name(directory, |path| {
            let mut options = File::options();
            options.read(true).write(true).create_new(true).open(path)
        })?;
        Ok(Staged { target: target.to_owned(), form: Form::Named(file) })
    }

    /// The file as it is so far.
    pub(crate) fn file(&self) -> &File {
        match &self.form {
            #[cfg(target_os = "linux")]
            Form::Nameless(file) => file,
            Form::Named(file) => file.as_file(),
        }
    }

    /// Gives it its name. What had it before is replaced in one step, and only after the new bytes are on the disk.
    pub(crate) fn commit(self) -> io::Result<()> {
        if fs::exists(&self.target)? {
            self.file().sync_all()?;
        }
        match self.form {
            #[cfg(target_os = "linux")]
            Form::Nameless(file) => link(&file, &self.target),
            Form::Named(file) => file.persist(&self.target).map(drop).map_err(|error| error.error),
        }
    }
}

impl Write for Staged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Replaces a small file, or creates it.
pub(crate) fn write(target: &Path, bytes: &[u8]) -> io::Result<()> {
    let staged = Staged::create(target)?;
    staged.file().write_all(bytes)?;
    staged.commit()
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn temporary_name<T>(
    directory: &Path,
    make: impl FnMut(&Path) -> io::Result<T>,
) -> io::Result<tempfile::NamedTempFile<T>> {
    tempfile::Builder::new().prefix(".ocikit-").make_in(directory, make)
}

#[cfg(target_os = "linux")]
fn nameless(directory: &Path) -> Option<File> {
    use rustix::fs::{Mode, OFlags};
    // The name is given through /proc, so without it there is no way back.
    if !Path::new("/proc/self/fd").exists() {
        return None;
    }
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::open(directory, flags, Mode::from_raw_mode(0o666)).ok().map(File::from)
}

#[cfg(target_os = "linux")]
fn link(file: &File, target: &Path) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    use rustix::fs::{AtFlags, CWD};
    let from = format!("/proc/self/fd/{}", file.as_raw_fd());
    let link = |to: &Path| rustix::fs::linkat(CWD, &from, CWD, to, AtFlags::SYMLINK_FOLLOW).map_err(io::Error::from);
    match link(target) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        done => return done,
    }
    // Linking does not replace: take a name beside it and rename.
    temporary_name(parent(target), link)?.into_temp_path().persist(target)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn appears_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("file");
        for text in ["one", "two"] {
            let staged = Staged::create(&target).unwrap();
            staged.file().write_all(text.as_bytes()).unwrap();
            staged.commit().unwrap();
            assert_eq!(fs::read_to_string(&target).unwrap(), text);
            assert_eq!(names(directory.path()), ["file"]);
        }
        let staged = Staged::create(&target).unwrap();
        staged.file().write_all(b"three").unwrap();
        drop(staged);
        assert_eq!(fs::read_to_string(&target).unwrap(), "two");
        assert_eq!(names(directory.path()), ["file"]);
    }

    #[cfg(unix)]
    #[test]
    fn has_the_permissions_of_any_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("plain"), b"").unwrap();
        write(&directory.path().join("staged"), b"").unwrap();
        let mode = |name: &str| fs::metadata(directory.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode("staged"), mode("plain"));
    }
}
