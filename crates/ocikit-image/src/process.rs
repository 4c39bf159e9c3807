//! Commands for other programs: credential helpers, plugins, signers, BuildKit.
//!
//! Every command is created here, so that no other program receives the secrets in the environment of this one.

use std::ffi::OsStr;
use std::process::Command;

/// Environment variables that hold secrets of this program, or give access to them. No protocol of helpers, plugins or
/// BuildKit needs one of these.
pub const SECRET_VARIABLES: [&str; 9] = [
    "OCIKIT_PASSWORD",
    "OCIKIT_ID_TOKEN",
    "PLP_REGISTRY_PASSWORD",
    "OCIKIT_KEY_PASSWORD",
    "OCIKIT_TOKEN",
    "COSIGN_PASSWORD",
    "SIGSTORE_ID_TOKEN",
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    "ACTIONS_ID_TOKEN_REQUEST_URL",
];

/// Creates a command for a program, without the [`SECRET_VARIABLES`] in its environment.
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
