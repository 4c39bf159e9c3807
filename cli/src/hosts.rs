//! Reads the registry configuration of this machine: `registries.conf` and `certs.d` directories, in the places where podman,
//! skopeo and docker keep them.

use std::path::{Path, PathBuf};

use ocikit::Registry;
use ocikit::registry::hosts::{HostOptions, RegistriesConf};

use crate::context::variable;
use crate::failure::{Code, Failure, Result};

/// Adds the registry configuration of this machine and of this user.
///
/// # Errors
///
/// Fails if a file is not valid, or if the file that CONTAINERS_REGISTRIES_CONF names does not exist.
pub(crate) fn add_files(hosts: &mut HostOptions) -> Result {
    let (file, directories) = places(named_file().as_deref(), configuration_home().as_deref(), &|path| path.exists());
    hosts.registries = RegistriesConf::read(&file, &directories).map_err(configuration_failure)?;
    let own = configuration_home().map(|home| home.join("containers/certs.d"));
    let common = ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from);
    hosts.certificates = own.into_iter().chain(common).collect();
    if let Some(named) = named_file().filter(|named| !named.is_file()) {
        let reason = if named.exists() { "not a regular file" } else { "no such file" };
        return Err(Failure::usage(format_args!("cannot read {}: {reason}", named.display()))
            .hint("set CONTAINERS_REGISTRIES_CONF to a file in the format of registries.conf"));
    }
    Ok(())
}

/// Checks the configuration of a registry before the first request.
pub(crate) fn check(hosts: &HostOptions, registry: &Registry) -> Result {
    hosts.of(registry).map(drop).map_err(configuration_failure)
}

/// Turns an error in a configuration file into a usage failure: without this, it has the exit code of a broken image.
fn configuration_failure(error: ocikit::Error) -> Failure {
    let failure = Failure::from(error);
    let hint = "correct the file; see containers-registries.conf(5) and containers-certs.d(5)";
    Failure { code: Code::Usage, ..failure }.hint(hint)
}

/// Returns the `registries.conf` and the drop-in directories to read, in order of increasing precedence. As in
/// containers-registries.conf(5), the file of the user replaces the file and the drop-in directory of the system, and a file
/// named by CONTAINERS_REGISTRIES_CONF replaces both files.
fn places(
    named: Option<&Path>,
    configuration: Option<&Path>,
    exists: &dyn Fn(&Path) -> bool,
) -> (PathBuf, Vec<PathBuf>) {
    let system = PathBuf::from("/etc/containers");
    let own = configuration.map(|home| home.join("containers"));
    let drop_ins = |directory: &PathBuf| directory.join("registries.conf.d");
    let own_file = own.as_ref().map(|own| own.join("registries.conf")).filter(|file| exists(file));
    match (named, own_file) {
        (None, Some(file)) => (file, own.iter().map(drop_ins).collect()),
        (named, _) => {
            let file = named.map_or_else(|| system.join("registries.conf"), Path::to_owned);
            (file, [&system].into_iter().chain(&own).map(drop_ins).collect())
        }
    }
}

fn named_file() -> Option<PathBuf> {
    variable("CONTAINERS_REGISTRIES_CONF").map(PathBuf::from)
}

fn configuration_home() -> Option<PathBuf> {
    let own = variable("XDG_CONFIG_HOME").map(PathBuf::from);
    own.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".config")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_the_user_replaces_the_file_of_the_system() {
        let system = ("/etc/containers/registries.conf", "/etc/containers/registries.conf.d");
        let own = ("/home/a/.config/containers/registries.conf", "/home/a/.config/containers/registries.conf.d");
        for (named, home, exists, file, directories) in [
            (None, None, false, system.0, vec![system.1]),
            (None, Some("/home/a/.config"), false, system.0, vec![system.1, own.1]),
            (None, Some("/home/a/.config"), true, own.0, vec![own.1]),
            (Some("r.conf"), Some("/home/a/.config"), true, "r.conf", vec![system.1, own.1]),
        ] {
            let found = places(named.map(Path::new), home.map(Path::new), &|_| exists);
            assert_eq!(found, (PathBuf::from(file), directories.into_iter().map(PathBuf::from).collect()));
        }
    }
}
