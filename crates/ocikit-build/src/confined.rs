//! Paths in directories that others have filled.

use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// The maximum number of symlinks in a path, as in Linux.
const MAX_SYMLINKS: usize = 40;

/// Resolves a path in a directory whose symlinks are relative to it, as in an unpacked image. Returns the path without symlinks,
/// relative to the directory; `None` if it does not exist.
pub(crate) fn inside(root: &Path, path: &Path) -> Option<PathBuf> {
    let components = |path: &Path| {
        let names = path.components().filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        });
        names.collect::<Vec<_>>().into_iter().rev()
    };
    let mut rest: Vec<OsString> = components(path).collect();
    let mut resolved = PathBuf::new();
    let mut symlinks = 0;
    while let Some(name) = rest.pop() {
        if name == ".." {
            resolved.pop();
            continue;
        }
        let next = resolved.join(&name);
        let at = root.join(&next);
        if !at.symlink_metadata().ok()?.is_symlink() {
            resolved = next;
            continue;
        }
        symlinks += 1;
        if symlinks > MAX_SYMLINKS {
            return None;
        }
        let target = fs::read_link(at).ok()?;
        if target.is_absolute() {
            resolved = PathBuf::new();
        }
        rest.extend(components(&target));
    }
    Some(resolved)
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn symlinks_of_an_image_do_not_leave_it() {
        let place = tempfile::tempdir().unwrap();
        let (root, outside) = (place.path().join("root"), place.path().join("outside"));
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        fs::create_dir(&outside).unwrap();
        for path in [outside.join("buildctl"), root.join("usr/bin/buildkit-runc")] {
            fs::write(path, "").unwrap();
        }
        symlink("/usr/bin", root.join("bin")).unwrap();
        symlink("/bin/buildkit-runc", root.join("usr/bin/runc")).unwrap();
        symlink("../../../../outside", root.join("out")).unwrap();
        symlink(&outside, root.join("absolute")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let found = |path: &str| inside(&root, Path::new(path));
        assert_eq!(found("bin/runc"), Some("usr/bin/buildkit-runc".into()));
        for path in ["out/buildctl", "absolute/buildctl", "loop", "missing"] {
            assert_eq!(found(path), None, "{path}");
        }
    }
}
