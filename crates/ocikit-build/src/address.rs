use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use ocikit_spec::Platform;

use crate::error::Error;

/// The address of a BuildKit daemon, in the form that `buildctl --addr` accepts.
///
/// ```
/// use ocikit_build::Address;
///
/// assert_eq!("docker-container://buildkitd".parse::<Address>()?.to_string(), "docker-container://buildkitd");
/// assert!("http://localhost".parse::<Address>().is_err());
/// # Ok::<(), ocikit_build::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    text: String,
    /// The TLS files for a `tcp` address.
    pub tls: Tls,
}

/// The TLS files for the connection to a BuildKit daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tls {
    /// The certificates of the authorities that the certificate of the daemon is verified with (PEM).
    pub authorities: Option<PathBuf>,
    /// The client certificate (PEM).
    pub certificate: Option<PathBuf>,
    /// The private key of the client certificate (PEM).
    pub key: Option<PathBuf>,
    /// A directory with `ca.pem`, `cert.pem` and `key.pem`.
    pub directory: Option<PathBuf>,
    /// The name in the certificate of the daemon, if it is not the host in the address.
    pub server_name: Option<String>,
}

/// A BuildKit daemon that builds for some platforms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The platforms that it builds for; all that are requested if empty.
    pub platforms: Vec<Platform>,
    /// Its address.
    pub address: Address,
}

/// The schemes that `buildctl` connects to.
const SCHEMES: [&str; 8] =
    ["unix", "npipe", "tcp", "ssh", "docker-container", "nerdctl-container", "podman-container", "kube-pod"];

impl Address {
    /// Returns the address with TLS files.
    #[must_use]
    pub fn with_tls(self, tls: Tls) -> Address {
        Address { tls, ..self }
    }

    /// Returns the arguments of `buildctl` that connect to the daemon.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let Tls { authorities, certificate, key, directory, server_name } = &self.tls;
        let mut arguments = vec![format!("--addr={}", self.text)];
        let files =
            [("tlscacert", authorities), ("tlscert", certificate), ("tlskey", key), ("tlsdir", directory)].into_iter();
        arguments
            .extend(files.filter_map(|(flag, path)| path.as_ref().map(|path| format!("--{flag}={}", path.display()))));
        arguments.extend(server_name.iter().map(|name| format!("--tlsservername={name}")));
        arguments
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Address, Error> {
        let refuse = Error::option("address of BuildKit", text);
        let (scheme, rest) = text.split_once("://").ok_or_else(|| refuse("it has no scheme such as `unix://`"))?;
        if rest.split('/').next().and_then(|host| host.rsplit_once('@')).is_some_and(|(user, _)| user.contains(':')) {
            return Err(refuse("an address of BuildKit has no password"));
        }
        match (SCHEMES.contains(&scheme), rest.is_empty()) {
            (false, _) => Err(refuse(&format!("buildctl knows the schemes {}", SCHEMES.join(", ")))),
            (true, true) => Err(refuse("nothing follows the scheme")),
            (true, false) => Ok(Address { text: text.to_owned(), tls: Tls::default() }),
        }
    }
}

impl Node {
    /// Distributes platforms: each is built by the first node that names it. Returns the nodes that are needed. Without
    /// platforms, each node builds all that it names.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if no node builds a platform. Without nodes, nothing is distributed.
    pub fn assign(nodes: &[Node], platforms: &[Platform]) -> Result<Vec<Node>, Error> {
        if nodes.is_empty() || platforms.is_empty() {
            return Ok(nodes.to_vec());
        }
        let mut assigned: Vec<Node> = nodes.to_vec();
        assigned.iter_mut().for_each(|node| node.platforms.clear());
        for platform in platforms {
            let builds = |node: &Node| node.platforms.iter().any(|found| platform.accepts(found));
            let position = nodes.iter().position(builds);
            let position = position
                .ok_or_else(|| Error::option("platform", &platform.to_string())("none of the builders builds it"))?;
            assigned[position].platforms.push(platform.clone());
        }
        assigned.retain(|node| !node.platforms.is_empty());
        Ok(assigned)
    }
}

impl FromStr for Node {
    type Err = Error;

    /// Reads `PLATFORM[,PLATFORM]...=ADDRESS`.
    fn from_str(text: &str) -> Result<Node, Error> {
        let refuse = Error::option("builder", text);
        let (platforms, address) =
            text.split_once('=').ok_or_else(|| refuse("it is not of the form PLATFORMS=ADDRESS"))?;
        let platforms: Result<Vec<Platform>, _> = platforms.split(',').map(str::parse).collect();
        let platforms = platforms.map_err(|error| refuse(&error.to_string()))?;
        Ok(Node { platforms, address: address.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scheme_of_buildctl_is_accepted() {
        for text in [
            "unix:///run/buildkit/buildkitd.sock",
            "tcp://10.0.0.1:1234",
            "ssh://user@host",
            "docker-container://buildkitd",
            "podman-container://buildkitd",
            "kube-pod://buildkitd?namespace=ci",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().arguments(), [format!("--addr={text}")]);
        }
        for text in ["", "/run/x.sock", "http://x", "unix://", "tcp://u:hunter2@host:1", "ssh://u:hunter2@host"] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn tls_files_become_arguments() {
        let tls =
            Tls { authorities: Some("ca.pem".into()), server_name: Some("buildkit".to_owned()), ..Tls::default() };
        let address = "tcp://host:1".parse::<Address>().unwrap().with_tls(tls);
        assert_eq!(address.arguments(), ["--addr=tcp://host:1", "--tlscacert=ca.pem", "--tlsservername=buildkit"]);
    }

    #[test]
    fn a_builder_names_its_platforms() {
        let node: Node = "linux/amd64,linux/386=tcp://a:1".parse().unwrap();
        assert_eq!((node.platforms.len(), node.address.to_string()), (2, "tcp://a:1".to_owned()));
        let nodes = [node, "linux/arm64=tcp://b:1".parse().unwrap()];
        let assigned = |platform: &str| Node::assign(&nodes, &[platform.parse().unwrap()]);
        assert_eq!(assigned("linux/arm64").unwrap()[0].address.to_string(), "tcp://b:1");
        assert_eq!(assigned("linux/386").unwrap()[0].platforms.len(), 1);
        assert!(assigned("linux/s390x").is_err());
        assert_eq!(Node::assign(&nodes, &[]).unwrap(), nodes);
        for text in ["tcp://a:1", "=tcp://a:1", "linux/amd64=a"] {
            assert!(text.parse::<Node>().is_err(), "{text}");
        }
    }
}
