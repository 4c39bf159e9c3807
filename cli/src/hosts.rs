//! Turns errors in the configuration of registries into usage failures.

use std::io::ErrorKind;

use ocikit::registry::hosts::HostOptions;
use ocikit::{Error, Registry};

use crate::failure::{Code, Failure, Result};

/// Checks the configuration of a registry before the first request.
pub(crate) fn check(hosts: &HostOptions, registry: &Registry) -> Result {
    hosts.of(registry).map(drop).map_err(configuration_failure)
}

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
