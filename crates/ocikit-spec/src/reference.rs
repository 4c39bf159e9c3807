use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::Digest;
use crate::error::{Error, Result, excerpt, user_information};

/// A registry: a host name or address, with a port unless it is 443.
///
/// A registry has one canonical name, whatever spelling it was parsed from, so that policies, blocks, credentials and
/// certificates stored under its name apply to every spelling: lower case, no trailing dot, no port 443, a port without
/// leading zeros, addresses in their shortest form. Docker Hub is `docker.io` under each of its host names.
///
/// ```
/// use ocikit_spec::Registry;
///
/// let registry: Registry = "GHCR.io.:0443".parse()?;
/// assert_eq!(registry.as_str(), "ghcr.io");
/// # Ok::<(), ocikit_spec::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Registry {
    /// The canonical name. A host that would not be recognized as a registry in a reference keeps its port 443.
    name: String,
    /// Whether port 443 was written. It is not part of the identity.
    tls_port: bool,
}

impl Registry {
    /// Returns Docker Hub.
    pub fn docker_hub() -> Registry {
        Registry { name: "docker.io".to_owned(), tls_port: false }
    }

    /// Returns the canonical name, as in references and in credential files: `docker.io`, `localhost:5000`, `[::1]:5000`.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// Returns whether it is Docker Hub.
    pub fn is_docker_hub(&self) -> bool {
        self.name == "docker.io"
    }

    /// Returns the host and port of its API, which differ from the name only for Docker Hub.
    pub fn endpoint(&self) -> &str {
        if self.is_docker_hub() { "registry-1.docker.io" } else { &self.name }
    }

    /// Returns whether a text is read as a registry at the beginning of a reference, by Docker's rules: it has a dot or a colon,
    /// is `localhost`, or is not in lower case.
    pub fn is_name(text: &str) -> bool {
        text == "localhost" || text.contains(['.', ':']) || text.bytes().any(|byte| byte.is_ascii_uppercase())
    }

    /// Returns the host without the port, and without the brackets of an IPv6 address.
    pub fn host(&self) -> &str {
        match self.name.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => self.name.split(':').next().unwrap_or_default(),
        }
    }

    /// Returns whether the reference contained port 443, which the canonical name omits. A registry that is accessed
    /// without TLS then uses that port, and not 80.
    pub fn names_tls_port(&self) -> bool {
        self.tls_port
    }

    /// Returns whether the name alone shows that it is on this machine: `localhost`, a name below it, or a loopback
    /// address.
    pub fn is_loopback(&self) -> bool {
        let host = self.host();
        match host.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => host == "localhost" || host.ends_with(".localhost"),
        }
    }
}

impl PartialEq for Registry {
    fn eq(&self, other: &Registry) -> bool {
        self.name == other.name
    }
}

impl Eq for Registry {}

impl Hash for Registry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl PartialOrd for Registry {
    fn partial_cmp(&self, other: &Registry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Registry {
    fn cmp(&self, other: &Registry) -> Ordering {
        self.name.cmp(&other.name)
    }
}

/// Why a text with user information is refused. The name is public in messages, the password must not be.
const USER_INFORMATION: &str = "a reference has no user name or password; use `ocikit login`";

/// The port that a canonical name omits.
const TLS_PORT: u16 = 443;

impl FromStr for Registry {
    type Err = Error;

    /// Parses a host and a port in any spelling.
    ///
    /// # Errors
    ///
    /// [`Error::Reference`] for anything but a host name, an IPv4 address in dotted form or an IPv6 address in
    /// brackets. Other spellings of IPv4 addresses (`127.1`, `0x7f000001`) are rejected: URLs read them as addresses,
    /// name lookup does not.
    fn from_str(text: &str) -> Result<Registry> {
        let refuse = |problem| Error::Reference { text: excerpt(text), problem };
        if user_information(text).is_some() {
            return Err(refuse(USER_INFORMATION));
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']').ok_or_else(|| refuse("a bracket is not closed"))?;
                let address: Ipv6Addr = address.parse().map_err(|_| refuse("the brackets hold no IPv6 address"))?;
                let port = match port.strip_prefix(':') {
                    None if port.is_empty() => None,
                    None => return Err(refuse("something other than a port follows the IPv6 address")),
                    port => port,
                };
                // An IPv4-mapped address reaches the same server as the IPv4 address.
                let host = address.to_ipv4_mapped().map_or_else(|| format!("[{address}]"), |mapped| mapped.to_string());
                (host, port)
            }
            None => {
                let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
                (host_name(host).map_err(refuse)?, port)
            }
        };
        let port = port.map(|port| port_number(port).ok_or_else(|| refuse("the port is not a number up to 65535")));
        let port = port.transpose()?;
        let tls_port = port == Some(TLS_PORT);
        let name = match (host.as_str(), port) {
            (
                "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" | "docker.io",
                None | Some(TLS_PORT),
            ) => {
                return Ok(Registry { tls_port, ..Registry::docker_hub() });
            }
            // Without a port, a reference with this name would be one of Docker Hub.
            (host, None | Some(TLS_PORT)) if !(host.contains(['.', ':']) || host == "localhost") => {
                format!("{host}:{TLS_PORT}")
            }
            (_, None | Some(TLS_PORT)) => host,
            (_, Some(port)) => format!("{host}:{port}"),
        };
        Ok(Registry { name, tls_port })
    }
}

/// Parses a host name or IPv4 address and returns it in lower case and without a trailing dot.
fn host_name(text: &str) -> Result<String, &'static str> {
    let host = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        !bytes.is_empty()
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if host.len() > 253 || !host.split('.').all(is_label) {
        return Err("the registry is not a host name");
    }
    // URL Standard, "ends in a number checker": in a URL such a host is an IPv4 address, or invalid.
    let last = host.rsplit('.').next().unwrap_or_default();
    let is_hexadecimal = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_number =
        last.bytes().all(|byte| byte.is_ascii_digit()) || last.strip_prefix("0x").is_some_and(is_hexadecimal);
    if is_number && host.parse::<Ipv4Addr>().is_err() {
        return Err("the registry ends in a number and is not an IPv4 address in dotted form");
    }
    Ok(host)
}

fn port_number(text: &str) -> Option<u16> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

impl fmt::Display for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A repository in a registry: `docker.io/library/alpine`.
///
/// Distribution specification, "Pulling manifests", for the grammar of the path; Docker's rules for names without a
/// registry.
///
/// ```
/// use ocikit_spec::Repository;
///
/// let repository: Repository = "ghcr.io/acme/app".parse()?;
/// assert_eq!((repository.registry().as_str(), repository.path()), ("ghcr.io", "acme/app"));
/// # Ok::<(), ocikit_spec::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository {
    registry: Registry,
    path: String,
}

impl Repository {
    /// Creates a repository from a registry and a path.
    ///
    /// # Errors
    ///
    /// [`Error::Reference`] if the path is invalid.
    pub fn new(registry: Registry, path: &str) -> Result<Repository> {
        let refuse = |problem| Error::Reference { text: excerpt(path), problem };
        if path.is_empty() {
            return Err(refuse("it has no repository"));
        }
        if path.len() > 255 {
            return Err(refuse("the repository is longer than 255 characters"));
        }
        if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(refuse("a repository must be in lower case"));
        }
        if !path.split('/').all(is_path_component) {
            return Err(refuse(
                "a part of the repository is empty or has other characters than letters and digits with single `.`, \
                 `_`, `__` or `-` between them",
            ));
        }
        Ok(Repository { registry, path: path.to_owned() })
    }

    /// Returns the registry.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Returns the path within the registry: `library/alpine`.
    pub fn path(&self) -> &str {
        &self.path
    }
}

/// Returns the error about a whole reference in place of a part.
fn about(text: &str, error: Error) -> Error {
    match error {
        Error::Reference { problem, .. } => Error::Reference { text: excerpt(text), problem },
        other => other,
    }
}

/// Returns whether a text matches `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_path_component(text: &str) -> bool {
    let is_word = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit();
    // There is nothing between two letters of a word.
    let is_separator = |text: &str| [".", "_", "__"].contains(&text) || text.bytes().all(|byte| byte == b'-');
    text.starts_with(is_word) && text.ends_with(is_word) && text.split(is_word).all(is_separator)
}

impl FromStr for Repository {
    type Err = Error;

    /// Parses a repository, with or without its registry, by Docker's rules: the first of several components is a registry if
    /// [`Registry::is_name`] says so.
    fn from_str(text: &str) -> Result<Repository> {
        if user_information(text).is_some() {
            return Err(Error::Reference { text: excerpt(text), problem: USER_INFORMATION });
        }
        let (registry, path) = match text.split_once('/') {
            Some((first, path)) if Registry::is_name(first) => (first.parse()?, path),
            _ => (Registry::docker_hub(), text),
        };
        let repository = match registry.is_docker_hub() && !path.contains('/') && !path.is_empty() {
            true => Repository::new(registry, &format!("library/{path}")),
            false => Repository::new(registry, path),
        };
        repository.map_err(|error| about(text, error))
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.path)
    }
}

/// A tag: a movable name of a manifest in a repository.
///
/// Distribution specification: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
///
/// ```
/// use ocikit_spec::Tag;
///
/// assert_eq!("v1.0".parse::<Tag>()?.as_str(), "v1.0");
/// assert!("a/b".parse::<Tag>().is_err());
/// # Ok::<(), ocikit_spec::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(String);

impl Tag {
    /// Returns the tag `latest`.
    pub fn latest() -> Tag {
        Tag("latest".to_owned())
    }

    /// Returns the text of the tag.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = Error;

    fn from_str(text: &str) -> Result<Tag> {
        let refuse = |problem| Err(Error::Tag { text: excerpt(text), problem });
        if text.is_empty() {
            return refuse("it is empty");
        }
        if text.len() > 128 {
            return refuse("it is longer than 128 characters");
        }
        if text.starts_with(['.', '-']) {
            return refuse("it begins with a dot or a dash");
        }
        if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
            return refuse("it has a character other than letters, digits, `.`, `_` and `-`");
        }
        Ok(Tag(text.to_owned()))
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A repository and a manifest in it, by tag, by digest or by both: `ghcr.io/acme/app:1@sha256:…`.
///
/// A text with neither has the tag `latest`. If both are given, the digest decides.
///
/// ```
/// use ocikit_spec::Reference;
///
/// let reference: Reference = "ghcr.io/acme/app:1".parse()?;
/// assert_eq!(reference.tag().map(|tag| tag.as_str()), Some("1"));
/// assert_eq!("alpine".parse::<Reference>()?.to_string(), "docker.io/library/alpine:latest");
/// # Ok::<(), ocikit_spec::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    repository: Repository,
    tag: Option<Tag>,
    digest: Option<Digest>,
}

impl Reference {
    /// Creates a reference with a tag.
    pub fn tagged(repository: Repository, tag: Tag) -> Reference {
        Reference { repository, tag: Some(tag), digest: None }
    }

    /// Creates a reference with a digest.
    pub fn digested(repository: Repository, digest: Digest) -> Reference {
        Reference { repository, tag: None, digest: Some(digest) }
    }

    /// Returns the registry.
    pub fn registry(&self) -> &Registry {
        &self.repository.registry
    }

    /// Returns the repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Returns the tag; `None` if the reference has only a digest.
    pub fn tag(&self) -> Option<&Tag> {
        self.tag.as_ref()
    }

    /// Returns the digest, if there is one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Reference> {
        let refuse = |problem| Error::Reference { text: excerpt(text), problem };
        if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(refuse("it is the identifier of an image, not a name"));
        }
        if user_information(text).is_some() {
            return Err(refuse(USER_INFORMATION));
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse()?)),
            None => (text, None),
        };
        // The last colon separates the tag, unless a slash follows it: then it separates a port.
        let (repository, tag) = match name.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag.parse()?)),
            _ => (name, None),
        };
        if name.contains("://") {
            return Err(refuse("it is a URL; remove the scheme and `//`"));
        }
        let repository = repository.parse().map_err(|error| about(text, error))?;
        let tag = tag.or_else(|| digest.is_none().then(Tag::latest));
        Ok(Reference { repository, tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.repository, f)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn follows_the_rules_of_docker() {
        for (text, full) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("alpine:3.22", "docker.io/library/alpine:3.22"),
            ("acme/app", "docker.io/acme/app:latest"),
            ("docker.io/alpine", "docker.io/library/alpine:latest"),
            ("index.docker.io/acme/app:1", "docker.io/acme/app:1"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/app:1", "localhost:5000/app:1"),
            ("[::1]:5000/a/b:1", "[::1]:5000/a/b:1"),
            ("[2001:db8::1]/a", "[2001:db8::1]/a:latest"),
            ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c:latest"),
            ("ghcr.io/acme/app_a.b-c__d:V1.2_3-x", "ghcr.io/acme/app_a.b-c__d:V1.2_3-x"),
            ("Registry/app", "registry:443/app:latest"),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), full);
            assert_eq!(full.parse(), Ok(reference));
        }
        let both = format!("ghcr.io/acme/app:1@sha256:{HEX}");
        assert_eq!(both.parse::<Reference>().unwrap().to_string(), both);
        let only_digest: Reference = format!("app@sha256:{HEX}").parse().unwrap();
        assert_eq!(only_digest.tag(), None);
        assert_eq!(only_digest.to_string(), format!("docker.io/library/app@sha256:{HEX}"));
    }

    #[test]
    fn rejects_invalid_references() {
        for text in [
            "",
            ":",
            "/",
            "@",
            "a//b",
            "/a",
            "a/",
            "A/B",
            "ghcr.io/Acme/app",
            "ghcr.io/",
            "a:",
            "a:.x",
            "a:-x",
            "a:b:c/d",
            "a b",
            "a/b c",
            "a@sha256:12",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a._b",
            "a/.b",
            "a/b_",
            "http://a/b",
            "a:5000x/b",
            "a:70000/b",
            "[::1/a",
            "[zz]/a",
            "[::1]5/a",
            "ä/b",
            "a/ä",
            "a:ä",
            "..",
            "../a",
            "a/../b",
            "-.com/a",
            HEX,
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
        assert!("x".repeat(129).parse::<Tag>().is_err());
        assert!("x".repeat(128).parse::<Tag>().is_ok());
        assert!(format!("a/{}", "x".repeat(260)).parse::<Repository>().is_err());
    }

    #[test]
    fn a_registry_has_one_name_in_every_spelling() {
        for (canonical, spellings) in [
            ("ghcr.io", &["ghcr.io", "GHCR.IO", "ghcr.io.", "ghcr.io:443", "Ghcr.io.:00443"][..]),
            ("host.example:5000", &["host.example:05000", "HOST.example:5000", "host.example.:5000"]),
            ("localhost", &["LOCALHOST", "localhost.", "localhost:443"]),
            ("localhost:80", &["localhost:080"]),
            ("registry:443", &["Registry", "registry", "registry:443", "REGISTRY:0443"]),
            ("registry:5000", &["Registry:5000", "registry.:5000"]),
            ("[::1]:5000", &["[0:0:0:0:0:0:0:1]:5000", "[::0001]:05000"]),
            ("[2001:db8::a]", &["[2001:DB8:0::A]", "[2001:db8::a]:443"]),
            ("127.0.0.1:5000", &["[::ffff:127.0.0.1]:5000", "[::FFFF:7f00:1]:5000", "127.0.0.1.:5000"]),
            ("docker.io", &["index.docker.io", "Registry-1.Docker.io", "docker.io.", "DOCKER.IO:443"]),
            ("docker.io:5000", &["docker.io:5000"]),
        ] {
            for spelling in spellings {
                let registry: Registry = spelling.parse().unwrap();
                assert_eq!(registry.as_str(), canonical, "{spelling}");
                assert_eq!(canonical.parse::<Registry>().unwrap(), registry);
                let reference: Reference = format!("{}/a/b:1", registry).parse().unwrap();
                assert_eq!(reference.registry(), &registry, "{spelling}");
            }
        }
        for text in [
            "2130706433:5000",
            "0x7f000001",
            "127.1",
            "127.0.0.01",
            "a.0x7f",
            "host..",
            "host:",
            "host:+1",
            "[::1%eth0]",
        ] {
            assert!(text.parse::<Registry>().is_err(), "{text}");
        }
        assert!("localhost:443".parse::<Registry>().unwrap().names_tls_port());
        assert!(!"localhost".parse::<Registry>().unwrap().names_tls_port());
    }

    #[test]
    fn recognizes_loopback_registries() {
        for (text, loopback) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("registry.localhost:80", true),
            ("127.0.0.1:5000", true),
            ("127.8.8.8", true),
            ("[::1]:5000", true),
            ("[::2]", false),
            ("10.0.0.1", false),
            ("localhost.example.com", false),
            ("127.0.0.1.example.com", false),
        ] {
            assert_eq!(text.parse::<Registry>().unwrap().is_loopback(), loopback, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-zA-Z0-9_.:/@\\[\\]-]{0,40}|.*") {
            if let Ok(reference) = text.parse::<Reference>() {
                proptest::prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
            }
        }
    }
}
