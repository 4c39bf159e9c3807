use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use crate::Digest;
use crate::error::{Error, Result, excerpt};

/// A registry: a host name or address, with a port where it is not the usual one.
///
/// Docker Hub is `docker.io`, whatever other name it was given.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Registry(String);

impl Registry {
    /// Docker Hub.
    pub fn docker_hub() -> Registry {
        Registry("docker.io".to_owned())
    }

    /// Its name, as in references and in credential files: `docker.io`, `localhost:5000`, `[::1]:5000`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is Docker Hub.
    pub fn is_docker_hub(&self) -> bool {
        self.0 == "docker.io"
    }

    /// Where its API answers, which is the name itself for every registry but Docker Hub.
    pub fn endpoint(&self) -> &str {
        if self.is_docker_hub() { "registry-1.docker.io" } else { &self.0 }
    }

    /// The host without the port, and without the brackets of an IPv6 address.
    pub fn host(&self) -> &str {
        match self.0.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => self.0.split(':').next().unwrap_or_default(),
        }
    }

    /// Whether it is on this machine by its name alone: `localhost`, a name below it, or a loopback address.
    pub fn is_loopback(&self) -> bool {
        let host = self.host();
        match host.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => host == "localhost" || host.ends_with(".localhost"),
        }
    }
}

impl FromStr for Registry {
    type Err = Error;

    fn from_str(text: &str) -> Result<Registry> {
        let refuse = |problem| Error::Reference { text: excerpt(text), problem };
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']').ok_or_else(|| refuse("a bracket is not closed"))?;
                address.parse::<Ipv6Addr>().map_err(|_| refuse("the brackets hold no IPv6 address"))?;
                let port = match port.strip_prefix(':') {
                    None if port.is_empty() => None,
                    None => return Err(refuse("something other than a port follows the IPv6 address")),
                    port => port,
                };
                (None, port)
            }
            None => match text.split_once(':') {
                Some((host, port)) => (Some(host), Some(port)),
                None => (Some(text), None),
            },
        };
        let is_label = |label: &str| {
            let bytes = label.as_bytes();
            !bytes.is_empty()
                && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if let Some(host) = host
            && !(host.len() <= 253 && host.split('.').all(is_label))
        {
            return Err(refuse("the registry is not a host name"));
        }
        if let Some(port) = port
            && (port.bytes().any(|byte| !byte.is_ascii_digit()) || port.parse::<u16>().is_err())
        {
            return Err(refuse("the port is not a number up to 65535"));
        }
        Ok(match text {
            "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => Registry::docker_hub(),
            _ => Registry(text.to_owned()),
        })
    }
}

impl fmt::Display for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A repository in a registry: `docker.io/library/alpine`.
///
/// Distribution specification, "Pulling manifests", for the grammar of the path; docker for the names that leave out
/// the registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository {
    registry: Registry,
    path: String,
}

impl Repository {
    /// The repository with this path in this registry.
    ///
    /// # Errors
    ///
    /// [`Error::Reference`] if the path is not one.
    pub fn new(registry: Registry, path: &str) -> Result<Repository> {
        let refuse = |problem| Error::Reference { text: excerpt(path), problem };
        if path.is_empty() {
            return Err(refuse("it names no repository"));
        }
        if path.len() > 255 {
            return Err(refuse("the repository is longer than 255 characters"));
        }
        if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(refuse("a repository is written in lower case"));
        }
        if !path.split('/').all(is_path_component) {
            return Err(refuse(
                "a part of the repository is empty or has other characters than letters and digits with single `.`, \
                 `_`, `__` or `-` between them",
            ));
        }
        Ok(Repository { registry, path: path.to_owned() })
    }

    /// The registry.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The path within the registry: `library/alpine`.
    pub fn path(&self) -> &str {
        &self.path
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut separator = String::new();
    let mut begun = false;
    for character in text.chars() {
        if u8::try_from(character).is_ok_and(is_word) {
            if !separator.is_empty() {
                let dashes = separator.bytes().all(|byte| byte == b'-');
                if !begun || !(dashes || [".", "_", "__"].contains(&separator.as_str())) {
                    return false;
                }
                separator.clear();
            }
            begun = true;
        } else if matches!(character, '.' | '_' | '-') {
            separator.push(character);
        } else {
            return false;
        }
    }
    begun && separator.is_empty()
}

impl FromStr for Repository {
    type Err = Error;

    /// Reads a repository, with or without its registry, by docker's rules: the first part is a registry if it has a
    /// dot or a colon, is `localhost`, or is not in lower case.
    fn from_str(text: &str) -> Result<Repository> {
        let is_registry = |part: &str| {
            part == "localhost" || part.contains(['.', ':']) || part.bytes().any(|byte| byte.is_ascii_uppercase())
        };
        let (registry, path) = match text.split_once('/') {
            Some((first, path)) if is_registry(first) => (first.parse()?, path),
            _ => (Registry::docker_hub(), text),
        };
        let whole = |error| match error {
            Error::Reference { problem, .. } => Error::Reference { text: excerpt(text), problem },
            other => other,
        };
        if registry.is_docker_hub() && !path.contains('/') && !path.is_empty() {
            return Repository::new(registry, &format!("library/{path}")).map_err(whole);
        }
        Repository::new(registry, path).map_err(whole)
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.path)
    }
}

/// A tag: the name of a manifest within a repository, which can be moved.
///
/// Distribution specification: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(String);

impl Tag {
    /// `latest`.
    pub fn latest() -> Tag {
        Tag("latest".to_owned())
    }

    /// Its text.
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
/// A text with neither means the tag `latest`. Where both are given the digest decides.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    repository: Repository,
    tag: Option<Tag>,
    digest: Option<Digest>,
}

impl Reference {
    /// The reference of a tag.
    pub fn tagged(repository: Repository, tag: Tag) -> Reference {
        Reference { repository, tag: Some(tag), digest: None }
    }

    /// The reference of a digest.
    pub fn digested(repository: Repository, digest: Digest) -> Reference {
        Reference { repository, tag: None, digest: Some(digest) }
    }

    /// The registry.
    pub fn registry(&self) -> &Registry {
        &self.repository.registry
    }

    /// The repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The tag; there is one unless there is only a digest.
    pub fn tag(&self) -> Option<&Tag> {
        self.tag.as_ref()
    }

    /// The digest.
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
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse()?)),
            None => (text, None),
        };
        // The last colon begins a tag unless a slash follows it: then it began a port.
        let (repository, tag) = match name.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag.parse()?)),
            _ => (name, None),
        };
        if name.contains("://") {
            return Err(refuse("it is a URL; leave out the part before `//`, and that too"));
        }
        let repository = repository.parse::<Repository>().map_err(|error| match error {
            Error::Reference { problem, .. } => refuse(problem),
            other => other,
        })?;
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
            ("Registry/app", "Registry/app:latest"),
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
    fn refuses_what_no_registry_would_take() {
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
    fn knows_what_is_on_this_machine() {
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
