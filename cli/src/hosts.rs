//! Turns errors in the configuration of registries into usage failures.

use std::io::ErrorKind;

use ocikit::Error;

use crate::failure::{Code, Failure};

/// Turns an error in a configuration file into a usage failure: without this, it has the exit code of a broken image.
pub(crate) fn configuration_failure(error: Error) -> Failure {
    let hint = match &error {
        // Of all these files, only the one that the user names has to exist.
        Error::Failed { source, .. } if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => {
            "set CONTAINERS_REGISTRIES_CONF to a file in the format of registries.conf"
        }
        _ => "correct the file; see containers-registries.conf(5) and containers-certs.d(5)",
    };
    Failure { code: Code::Usage, ..Failure::from(error) }.hint(hint)
}
