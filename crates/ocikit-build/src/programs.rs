//! The programs of an unpacked image of BuildKit.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::confined::inside;
use crate::error::{Error, Result};
use crate::version::version;

/// The directories of an image that are searched for programs. The first one with a program is used.
const DIRECTORIES: [&str; 6] = ["usr/bin", "usr/local/bin", "bin", "usr/sbin", "usr/local/sbin", "sbin"];

/// Returns whether a program belongs to BuildKit. Those with the prefix are its runtime, its emulators and its network plugins.
fn is_wanted(name: &str) -> bool {
    ["buildctl", "buildkitd", "runc", "rootlesskit"].contains(&name) || name.starts_with("buildkit-")
}

/// Copies the programs of BuildKit from an unpacked image to a new directory in the same file system.
///
/// # Errors
///
/// [`Error::Unfit`] if one is missing.
pub(crate) fn collect(root: &Path, programs: &Path, image: &str) -> Result<()> {
    let failed = Error::failed("copy the programs of BuildKit");
    fs::create_dir(programs).map_err(&failed)?;
    // Whatever the mask of new files is: others must not be able to change the programs.
    fs::set_permissions(programs, PermissionsExt::from_mode(0o755)).map_err(&failed)?;
    for directory in DIRECTORIES {
        let Some(found) = inside(root, Path::new(directory)) else { continue };
        let Ok(entries) = fs::read_dir(root.join(&found)) else { continue };
        for entry in entries {
            let name = entry.map_err(&failed)?.file_name();
            let Some(name) = name.to_str().filter(|name| is_wanted(name)) else { continue };
            let to = programs.join(name);
            let Some(file) = inside(root, &found.join(name)).map(|path| root.join(path)) else { continue };
            if to.exists() || !file.symlink_metadata().is_ok_and(|found| found.is_file()) {
                continue;
            }
            fs::hard_link(&file, &to).or_else(|_| fs::copy(&file, &to).map(drop)).map_err(&failed)?;
            fs::set_permissions(&to, PermissionsExt::from_mode(0o755)).map_err(&failed)?;
        }
    }
    let missing = |name: &str| Error::Unfit {
        image: image.to_owned(),
        reason: format!("it has no program `{name}` in /{}", DIRECTORIES.join(", /")),
    };
    let has = |name: &str| programs.join(name).exists();
    match ["buildctl", "buildkitd"].into_iter().find(|name| !has(name)) {
        Some(name) => Err(missing(name)),
        None if !has("buildkit-runc") && !has("runc") => Err(missing("buildkit-runc")),
        None => Ok(()),
    }
}

/// Checks that the programs run on this machine, and returns the version of `buildkitd`.
///
/// # Errors
///
/// [`Error::Unfit`] if one does not run.
pub(crate) fn check(programs: &Path, image: &str) -> Result<String> {
    let run = |name: &str| {
        version(&programs.join(name)).map_err(|error| Error::Unfit {
            image: image.to_owned(),
            reason: format!("its program `{name}` does not run on this machine: {error}"),
        })
    };
    run("buildctl")?;
    run("buildkitd")
}

/// Returns why files cannot be trusted: another user than root and this one owns them, or may write to them.
pub(crate) fn safety_problem(paths: &[&Path]) -> Option<String> {
    const ROOT: u32 = 0;
    const WRITABLE_BY_OTHERS: u32 = 0o022;
    let own = rustix::process::geteuid().as_raw();
    let problem = |path: &Path| -> io::Result<Option<&str>> {
        let found = path.symlink_metadata()?;
        Ok(match () {
            () if ![ROOT, own].contains(&found.uid()) => Some("belongs to another user"),
            () if found.mode() & WRITABLE_BY_OTHERS != 0 => Some("can be written to by other users"),
            () => None,
        })
    };
    paths.iter().find_map(|path| match problem(path) {
        Ok(problem) => problem.map(|problem| format!("{} {problem}", path.display())),
        Err(error) => Some(format!("cannot read {}: {error}", path.display())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_without_a_program_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("root");
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        fs::create_dir_all(root.join("usr/local/bin")).unwrap();
        fs::write(root.join("usr/bin/buildctl"), "first").unwrap();
        fs::write(root.join("usr/local/bin/buildctl"), "second").unwrap();
        fs::write(root.join("usr/bin/buildkit-runc"), "").unwrap();
        fs::write(root.join("usr/bin/sh"), "").unwrap();
        let error = collect(&root, &place.path().join("one"), "the image").unwrap_err().to_string();
        assert!(error.contains("the image") && error.contains("`buildkitd`"), "{error}");
        fs::write(root.join("usr/bin/buildkitd"), "").unwrap();
        let programs = place.path().join("two");
        collect(&root, &programs, "the image").unwrap();
        let mut names: Vec<_> =
            fs::read_dir(&programs).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["buildctl", "buildkit-runc", "buildkitd"]);
        assert_eq!(fs::read_to_string(programs.join("buildctl")).unwrap(), "first");
        assert!(matches!(check(&programs, "the image"), Err(Error::Unfit { .. })));
    }
}
