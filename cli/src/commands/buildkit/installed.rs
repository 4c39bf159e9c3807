use ocikit_build::Installations;

use crate::build::installations;
use crate::failure::{Failure, Result};

/// Returns the BuildKits in the cache directory of the user.
pub(super) fn installed() -> Result<Installations> {
    installations().ok_or_else(|| {
        Failure::usage("cannot find the cache directory: HOME is not set").hint("set XDG_CACHE_HOME to a directory")
    })
}
