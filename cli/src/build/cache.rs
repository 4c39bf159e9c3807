//! The directory of the build cache.

use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};

use ocikit_build::Cache;

use crate::context::Context;

/// Returns the cache in a directory, or `None` after a warning if it cannot be used: a build without a cache is slower but has
/// the same result.
pub(crate) fn usable(context: &Context, directory: PathBuf, place: Place, max_bytes: Option<u64>) -> Option<Cache> {
    match check_cache(&directory, place) {
        Ok(()) => Some(Cache { directory, max_bytes }),
        Err(error) => {
            context.output.say(format!("warning: building without a cache at {}: {error}", directory.display()));
            None
        }
    }
}

/// The owner of the directory of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// One that the user chose, for example a volume that all users of a container may write to.
    Own,
    /// The cache directory of the user.
    Home,
    /// A predictable path in a directory where all users can create files.
    Shared,
}

/// Creates the parent directory of a cache. Fails for a cache that another user can have created or can change, because its
/// content becomes part of images.
fn check_cache(directory: &Path, place: Place) -> io::Result<()> {
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, if place == Place::Shared { 0o700 } else { 0o777 });
    let failed = |operation: &str, error: io::Error| {
        io::Error::new(error.kind(), format!("cannot {operation} {}: {error}", parent.display()))
    };
    builder.create(parent).map_err(|error| failed("create", error))?;
    let probe = tempfile::tempfile_in(parent).map_err(|error| failed("write to", error))?;
    for path in [directory].into_iter().chain((place == Place::Shared).then_some(parent)) {
        match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(found) => check_owner(path, &found, &probe.metadata()?, place)?,
        }
    }
    match place {
        Place::Own => Ok(()),
        Place::Home => check_above(directory, &probe.metadata()?),
        Place::Shared => check_above(parent, &probe.metadata()?),
    }
}

#[cfg(unix)]
fn check_owner(path: &Path, found: &Metadata, own: &Metadata, place: Place) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    const WRITABLE_BY_OTHERS: u32 = 0o022;
    const WRITABLE_BY_ALL: u32 = 0o002;
    let problem = match () {
        () if !found.is_dir() => "is a symlink or not a directory",
        () if found.uid() != own.uid() => "belongs to another user",
        () if found.mode() & if place == Place::Shared { WRITABLE_BY_OTHERS } else { WRITABLE_BY_ALL } != 0 => {
            "can be written to by other users"
        }
        () => return Ok(()),
    };
    Err(io::Error::other(format!("{} {problem}", path.display())))
}

/// Refuses a directory whose own directory lets another user rename it or put another in its place.
#[cfg(unix)]
fn check_above(directory: &Path, own: &Metadata) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    const ROOT: u32 = 0;
    const STICKY: u32 = 0o1000;
    const WRITABLE_BY_ALL: u32 = 0o002;
    let own = own.uid();
    let above = match directory.canonicalize() {
        // The first build creates the directory.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            directory.parent().map(Path::canonicalize).transpose()?
        }
        canonical => canonical?.parent().map(Path::to_owned),
    };
    let Some(above) = above else { return Ok(()) };
    let found = above.metadata()?;
    let problem = match () {
        () if ![ROOT, own].contains(&found.uid()) => "belongs to another user",
        () if found.mode() & WRITABLE_BY_ALL != 0 && found.mode() & STICKY == 0 => {
            "can be written to by other users and is not sticky"
        }
        () => return Ok(()),
    };
    Err(io::Error::other(format!("{} {problem}", above.display())))
}

#[cfg(not(unix))]
fn check_above(_: &Path, _: &Metadata) -> io::Result<()> {
    Ok(())
}

#[cfg(not(unix))]
fn check_owner(_: &Path, _: &Metadata, _: &Metadata, _: Place) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_cache_that_others_can_change_is_not_used() {
        let place = tempfile::tempdir().unwrap();
        let cache = place.path().join("cache");
        let buildkit = cache.join("buildkit");
        check_cache(&buildkit, Place::Shared).unwrap();
        assert_eq!(std::fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o700);

        std::fs::set_permissions(&cache, PermissionsExt::from_mode(0o777)).unwrap();
        let error = check_cache(&buildkit, Place::Shared).unwrap_err();
        assert!(error.to_string().contains("by other users"), "{error}");
        check_cache(&buildkit, Place::Own).unwrap();

        std::fs::set_permissions(&cache, PermissionsExt::from_mode(0o700)).unwrap();
        std::fs::create_dir(&buildkit).unwrap();
        std::fs::set_permissions(&buildkit, PermissionsExt::from_mode(0o777)).unwrap();
        for owner in [Place::Shared, Place::Own, Place::Home] {
            let error = check_cache(&buildkit, owner).unwrap_err();
            assert!(error.to_string().contains("by other users"), "{error}");
        }
        std::fs::remove_dir(&buildkit).unwrap();

        for (mode, is_used) in [(0o777, false), (0o1777, true), (0o755, true)] {
            std::fs::set_permissions(place.path(), PermissionsExt::from_mode(mode)).unwrap();
            assert_eq!(check_cache(&buildkit, Place::Shared).is_ok(), is_used, "{mode:o}");
            assert_eq!(check_cache(&cache, Place::Home).is_ok(), is_used, "{mode:o}");
            assert_eq!(check_cache(&place.path().join("first"), Place::Home).is_ok(), is_used, "{mode:o}");
        }

        symlink(place.path(), &buildkit).unwrap();
        for owner in [Place::Shared, Place::Own] {
            let error = check_cache(&buildkit, owner).unwrap_err();
            assert!(error.to_string().contains("is a symlink"), "{error}");
        }
        let linked = place.path().join("linked");
        symlink(&cache, &linked).unwrap();
        assert!(check_cache(&linked.join("buildkit"), Place::Shared).is_err());
    }
}
