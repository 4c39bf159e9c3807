//! Commands for other programs: credential helpers, plugins, signers, BuildKit.
//!
//! This is the one place where such a command is made. Whatever is started from here does not see the secrets that
//! the environment holds for this program.

use std::ffi::OsStr;
use std::process::Command;

/// Variables that hold secrets of this program, or give access to them. No protocol of helpers, plugins or BuildKit needs
/// one of these.
pub const SECRET_VARIABLES: [&str; 7] = [
    "OCIKIT_PASSWORD",
    "OCIKIT_KEY_PASSWORD",
    "OCIKIT_TOKEN",
    "COSIGN_PASSWORD",
    "SIGSTORE_ID_TOKEN",
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    "ACTIONS_ID_TOKEN_REQUEST_URL",
];

/// A command for a program, without the [`SECRET_VARIABLES`] in its environment.
///
/// ```
/// let command = ocikit_image::process::command("docker-credential-pass");
/// assert!(command.get_envs().any(|(name, value)| name == "OCIKIT_TOKEN" && value.is_none()));
/// ```
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for name in SECRET_VARIABLES {
        command.env_remove(name);
    }
    command
}
