//! What `buildkitd` needs to run without root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use ocikit_image::process::command;

use crate::error::{Error, Result};
use crate::watched;

/// The files with the IDs that users may use in their user namespaces, and the programs that set them.
const IDS: [(&str, &str, &str); 2] = [("user", "/etc/subuid", "newuidmap"), ("group", "/etc/subgid", "newgidmap")];

/// Settings of the kernel that can forbid user namespaces, with the value that forbids them.
const KERNEL_SETTINGS: [(&str, &str); 2] =
    [("user.max_user_namespaces", "0"), ("kernel.unprivileged_userns_clone", "0")];

/// A setting of Ubuntu: AppArmor lets only programs with a profile make a user namespace.
const APPARMOR_SETTING: &str = "kernel.apparmor_restrict_unprivileged_userns";

/// Returns why `rootlesskit` may have failed although [`check`] found nothing: a restriction that depends on the profile of
/// the program.
pub(crate) fn restriction() -> Option<String> {
    let value = fs::read_to_string(setting(Path::new("/proc/sys"), APPARMOR_SETTING)).ok()?;
    restriction_of(value.trim())
}

fn restriction_of(value: &str) -> Option<String> {
    (value != "0").then(|| {
        format!(
            "AppArmor restricts user namespaces: sysctl {APPARMOR_SETTING} is {value}; give rootlesskit a profile with `userns,`, \
             or set it to 0"
        )
    })
}

fn setting(directory: &Path, name: &str) -> PathBuf {
    directory.join(name.replace('.', "/"))
}

/// Checks that a user namespace with several IDs can be made, by a user or by that of this process. `rootlesskit` would fail with the
/// same problem, in other words.
///
/// # Errors
///
/// [`Error::Rootless`] for what is missing.
pub(crate) fn check(other_user: Option<u32>) -> Result<()> {
    let refuse = |reason: String| Error::Rootless { reason };
    for (_, _, program) in IDS {
        watched::find(Path::new(program))
            .map_err(|_| refuse(format!("the program `{program}` is missing, which the package `uidmap` has")))?;
    }
    for (name, forbidden) in KERNEL_SETTINGS {
        // Most kernels have only one of them.
        if fs::read_to_string(setting(Path::new("/proc/sys"), name)).is_ok_and(|value| value.trim() == forbidden) {
            return Err(refuse(format!("the kernel forbids user namespaces: sysctl {name} is {forbidden}")));
        }
    }
    let user = other_user.unwrap_or_else(user);
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    // `rootlesskit` finds out by itself what this machine knows about users of a directory service.
    let Some(name) = name_of(&passwd, user) else { return Ok(()) };
    for (kind, file, _) in IDS {
        let ranges = fs::read_to_string(file).unwrap_or_default();
        if !has_range(&ranges, name, user) && !is_known_elsewhere(kind, name) {
            let line = format!("{name}:100000:65536");
            return Err(refuse(format!("{file} has no {kind} IDs for {name}, for example the line `{line}`")));
        }
    }
    Ok(())
}

/// Returns whether a directory service has IDs for a user, which `getsubids` asks.
fn is_known_elsewhere(kind: &str, name: &str) -> bool {
    let mut command = command("getsubids");
    if kind == "group" {
        command.arg("-g");
    }
    let output = command.arg(name).stdin(Stdio::null()).output();
    output.is_ok_and(|output| output.status.success() && !output.stdout.is_empty())
}

#[cfg(unix)]
fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(not(unix))]
fn user() -> u32 {
    0
}

/// Returns the name of a user in the text of `/etc/passwd`.
fn name_of(passwd: &str, user: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(user)).then_some(name)
    })
}

/// Returns whether the text of `/etc/subuid` or `/etc/subgid` has a range for a user.
fn has_range(text: &str, name: &str, user: u32) -> bool {
    text.lines().any(|line| {
        let mut fields = line.split(':');
        let owner = fields.next().unwrap_or_default();
        let count = fields.nth(1).and_then(|count| count.trim().parse::<u64>().ok());
        (owner == name || owner.parse() == Ok(user)) && count.is_some_and(|count| count > 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_restriction_of_apparmor_is_named() {
        assert_eq!(restriction_of("0"), None);
        let reason = restriction_of("1").unwrap();
        assert!(reason.contains("kernel.apparmor_restrict_unprivileged_userns is 1"), "{reason}");
        let path = setting(Path::new("/proc/sys"), APPARMOR_SETTING);
        assert_eq!(path, Path::new("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"));
    }

    #[test]
    fn ranges_belong_to_names_and_numbers() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nmax:x:1000:1000::/home/max:/bin/sh\nbroken\n";
        assert_eq!((name_of(passwd, 1000), name_of(passwd, 7)), (Some("max"), None));
        for (text, expected) in [
            ("max:100000:65536\n", true),
            ("1000:100000:65536", true),
            ("maxim:100000:65536", false),
            ("max:100000:0", false),
            ("max", false),
            ("", false),
        ] {
            assert_eq!(has_range(text, "max", 1000), expected, "{text}");
        }
    }
}
