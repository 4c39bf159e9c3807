use ocikit::{Digest, Location, Name};

use crate::failure::{Failure, Result};

/// Returns the digest of a location that names a blob.
pub(super) fn digest_of(location: &Location, verb: &str) -> Result<Digest> {
    match location.name() {
        Name::Digest(digest) => Ok(digest),
        Name::Only | Name::Tag(_) | Name::Full(_) => {
            Err(Failure::usage(format_args!("cannot {verb} {location}: it has no digest"))
                .hint("name the blob by its digest: REPOSITORY@sha256:…"))
        }
    }
}
