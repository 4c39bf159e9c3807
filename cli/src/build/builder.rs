use std::path::PathBuf;

use clap::Args;
use ocikit::Platform;
use ocikit_build::{Address, BuilderOptions, DaemonOptions, Installations, Node, Tls};

use crate::environment::{cache_directory, variable};
use crate::failure::{Failure, Result};

/// The BuildKit to use.
#[derive(Debug, Args)]
#[command(next_help_heading = "BuildKit")]
pub(crate) struct BuilderArguments {
    /// Use the BuildKit at this address; default: BUILDKIT_HOST
    ///
    /// The schemes are those of `buildctl`: unix, tcp, ssh, docker-container, podman-container, nerdctl-container and
    /// kube-pod. Without an address, `buildkitd` of the PATH or of `ocikit buildkit install` is started for the build.
    #[arg(long, value_name = "ADDRESS")]
    addr: Option<Address>,
    /// Build these platforms at this address; repeatable
    ///
    /// All builders work at the same time, and their images become one index.
    #[arg(long, value_name = "PLATFORMS=ADDRESS", conflicts_with = "addr")]
    builder: Vec<Node>,
    /// Verify the certificate of BuildKit with these authorities (PEM)
    #[arg(long, value_name = "FILE")]
    tlscacert: Option<PathBuf>,
    /// Send this client certificate to BuildKit (PEM)
    #[arg(long, value_name = "FILE")]
    tlscert: Option<PathBuf>,
    /// Use this private key for the client certificate (PEM)
    #[arg(long, value_name = "FILE")]
    tlskey: Option<PathBuf>,
    /// Read ca.pem, cert.pem and key.pem from this directory
    #[arg(long, value_name = "DIR")]
    tlsdir: Option<PathBuf>,
    /// Expect this name in the certificate of BuildKit
    #[arg(long, value_name = "NAME")]
    tlsservername: Option<String>,
}

impl BuilderArguments {
    /// Returns the options for platforms; all that the builders name if empty.
    pub(crate) fn options(&self, platforms: &[Platform], entitlements: Vec<String>) -> Result<BuilderOptions> {
        let mut tls = Tls::default();
        tls.authorities.clone_from(&self.tlscacert);
        tls.certificate.clone_from(&self.tlscert);
        tls.key.clone_from(&self.tlskey);
        tls.directory.clone_from(&self.tlsdir);
        tls.server_name.clone_from(&self.tlsservername);
        let mut nodes = Node::assign(&self.builder, platforms)?;
        if nodes.is_empty() {
            let named = variable("BUILDKIT_HOST").map(|address| address.parse::<Address>());
            let address = match (&self.addr, named) {
                (Some(address), _) => Some(address.clone()),
                (None, Some(address)) => {
                    Some(address.map_err(|error| Failure::usage(format_args!("cannot use BUILDKIT_HOST: {error}")))?)
                }
                (None, None) => None,
            };
            nodes.extend(address.map(|address| Node { platforms: Vec::new(), address }));
        }
        nodes.iter_mut().for_each(|node| node.address.tls = tls.clone());
        let mut options = BuilderOptions::default();
        let mut daemon = DaemonOptions::default();
        let flags = variable("BUILDKITD_FLAGS").unwrap_or_default();
        daemon.arguments = flags.split_whitespace().map(str::to_owned).collect();
        daemon.entitlements = entitlements;
        daemon.user = variable("OCIKIT_BUILDKIT_USER").as_deref().map(user).transpose()?;
        options.nodes = nodes;
        options.daemon = daemon;
        options.installations = installations();
        Ok(options)
    }
}

/// Reads a user and a group as numbers: `1000:1000`.
fn user(text: &str) -> Result<(u32, u32)> {
    let parts = text.split_once(':').and_then(|(user, group)| Some((user.parse().ok()?, group.parse().ok()?)));
    let valid = parts.filter(|(user, _)| *user != 0);
    valid.ok_or_else(|| {
        Failure::usage("cannot use OCIKIT_BUILDKIT_USER: it is not a user without root and a group, such as 1000:1000")
    })
}

/// Returns where `buildkit install` installs, if the user has a cache directory.
pub(crate) fn installations() -> Option<Installations> {
    cache_directory().map(|cache| Installations::at(cache.join("buildkit-programs")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbers_other_than_root() {
        assert_eq!(user("1000:1001").ok(), Some((1000, 1001)));
        for text in ["0:0", "1000", "name:group", "1000:", ":1", "-1:1"] {
            assert!(user(text).is_err(), "{text}");
        }
    }
}
