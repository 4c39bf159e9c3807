//! The inputs of a build in the notation of docker's flags.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ocikit_spec::Digest;

use crate::attributes::Attributes;
use crate::error::{Error, Result};

/// The build context: what `COPY` copies from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildContext {
    /// A directory.
    Directory(PathBuf),
    /// A git repository, an archive or a Dockerfile that BuildKit downloads.
    Remote(String),
    /// An empty directory, for a Dockerfile that needs no context.
    Empty,
}

impl BuildContext {
    /// Reads a context in the notation of docker: a directory, or the URL of a git repository, an archive or a
    /// Dockerfile.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] for a URL with a password: BuildKit would log it, and it would be visible in the list of
    /// processes.
    pub fn parse(text: &str) -> Result<BuildContext> {
        const REMOTE: [&str; 6] = ["http://", "https://", "git://", "ssh://", "git@", "github.com/"];
        if !REMOTE.iter().any(|start| text.starts_with(start)) {
            return Ok(BuildContext::Directory(text.into()));
        }
        check_password("context", text)?;
        Ok(BuildContext::Remote(text.to_owned()))
    }
}

/// Refuses a URL with a password or token.
fn check_password(option: &'static str, url: &str) -> Result<()> {
    let Some((scheme, rest)) = url.split_once("://") else { return Ok(()) };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let Some((user, host)) = authority.rsplit_once('@') else { return Ok(()) };
    // `ssh://git@host` names the account only; a user name of HTTP may be a token.
    if scheme == "ssh" && !user.contains(':') {
        return Ok(());
    }
    let shown = format!("{scheme}://***@{host}{}", &rest[authority.len()..]);
    let reason = "it has a password; give it with the secret GIT_AUTH_TOKEN: --secret id=GIT_AUTH_TOKEN,env=NAME";
    Err(Error::option(option, &shown)(reason))
}

/// The Dockerfile of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dockerfile {
    /// A file of this machine.
    File(PathBuf),
    /// Its content.
    Text(Vec<u8>),
    /// The content of a generated one and of its ignore file, which is empty for none.
    Generated {
        /// The Dockerfile.
        text: String,
        /// The lines of `Dockerfile.dockerignore`.
        ignore: String,
    },
    /// A file in the context. Its path is resolved there, also if the context has symlinks.
    InContext(String),
}

/// A secret for `RUN --mount=type=secret`. BuildKit reads it while it builds; it is never an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// The name in the Dockerfile.
    pub id: String,
    /// Where its value is.
    pub source: SecretSource,
}

/// The place of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// A file.
    File(PathBuf),
    /// An environment variable of this process.
    Variable(String),
}

impl FromStr for Secret {
    type Err = Error;

    /// Reads `id=ID,src=FILE`, `id=ID,env=NAME` or `id=ID`, which means the environment variable `ID` or the file `ID`.
    fn from_str(text: &str) -> Result<Secret> {
        let refuse = Error::option("secret", text);
        let mut attributes = Attributes::parse("secret", text)?;
        let id = attributes.take("id").filter(|id| !id.is_empty()).ok_or_else(|| refuse("it has no `id=`"))?;
        let kind = attributes.take("type");
        let file = attributes.take("src").or_else(|| attributes.take("source"));
        let variable = attributes.take("env");
        if let Some(unknown) = attributes.keys().next() {
            // Without `=`, it may be the secret.
            let unknown = if text.to_lowercase().contains(&format!("{unknown}=")) { unknown } else { "***" };
            return Err(refuse(&format!("`{unknown}` is not one of id, src, env and type")));
        }
        let source = match (kind.as_deref(), file, variable) {
            (None | Some("file"), Some(file), None) => SecretSource::File(file.into()),
            (None | Some("env"), None, Some(name)) | (Some("env"), Some(name), None) => SecretSource::Variable(name),
            (Some("file"), None, None) => SecretSource::File((&id).into()),
            (Some("env"), None, None) => SecretSource::Variable(id.clone()),
            (None, None, None) if std::env::var_os(&id).is_some() => SecretSource::Variable(id.clone()),
            (None, None, None) => SecretSource::File((&id).into()),
            _ => return Err(refuse("it needs one of `src=FILE` and `env=NAME`")),
        };
        Ok(Secret { id, source })
    }
}

impl Secret {
    /// Checks that the file or variable exists, because BuildKit notices only when a step needs it.
    pub(crate) fn check(&self) -> Result<()> {
        match &self.source {
            SecretSource::File(path) => exists("the secret", path),
            SecretSource::Variable(name) if std::env::var_os(name).is_none() => {
                let reason = format!("the environment variable {name} is not set");
                // The id was given as one, so it is not the secret.
                Err(Error::Option { option: "secret", value: self.id.clone(), reason })
            }
            SecretSource::Variable(_) => Ok(()),
        }
    }

    pub(crate) fn to_argument(&self) -> String {
        let mut attributes = Attributes::default();
        attributes.push("id", &self.id);
        match &self.source {
            SecretSource::File(path) => attributes.push("src", path.display().to_string()),
            SecretSource::Variable(name) => attributes.push("env", name),
        }
        attributes.to_line()
    }
}

/// Checks that a path exists.
pub(crate) fn exists(what: &'static str, path: &Path) -> Result<()> {
    match path.exists() {
        true => Ok(()),
        false => Err(Error::Missing { what, path: path.display().to_string() }),
    }
}

/// A context with a name, for `FROM NAME` and `COPY --from=NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedContext {
    /// The name in the Dockerfile.
    pub name: String,
    /// What it names.
    pub source: NamedSource,
}

/// The source of a named context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedSource {
    /// A directory.
    Directory(PathBuf),
    /// An image in an OCI layout.
    Layout {
        /// The directory of the layout.
        path: PathBuf,
        /// The digest of the image.
        digest: Digest,
    },
    /// An image of a registry, a git repository or a URL, which BuildKit downloads: `docker-image://alpine:3.22`.
    Remote(String),
}

impl FromStr for NamedContext {
    type Err = Error;

    /// Reads `NAME=DIRECTORY`, `NAME=docker-image://REFERENCE`, `NAME=oci-layout://DIRECTORY[:TAG|@DIGEST]` or `NAME=URL`.
    fn from_str(text: &str) -> Result<NamedContext> {
        let refuse = Error::option("build context", text);
        let (name, value) = text.split_once('=').ok_or_else(|| refuse("it is not of the form NAME=VALUE"))?;
        if name.is_empty() || value.is_empty() {
            return Err(refuse("it is not of the form NAME=VALUE"));
        }
        let source = match value.strip_prefix("oci-layout://") {
            Some(layout) => layout_source(layout).map_err(|error| refuse(&error.to_string()))?,
            None if value.starts_with("docker-image://") => NamedSource::Remote(value.to_owned()),
            None => match BuildContext::parse(value)? {
                BuildContext::Directory(path) => NamedSource::Directory(path),
                BuildContext::Remote(url) => NamedSource::Remote(url),
                BuildContext::Empty => return Err(refuse("it is empty")),
            },
        };
        Ok(NamedContext { name: name.to_owned(), source })
    }
}

/// A named context does not name one image of a layout.
#[derive(Debug, thiserror::Error)]
enum LayoutError {
    #[error("cannot read `index.json` of the layout {path}: {source}")]
    Unreadable { path: String, source: std::io::Error },
    #[error("cannot read the layout {path}: {source}")]
    Invalid { path: String, source: ocikit_spec::Error },
    #[error(transparent)]
    Digest(ocikit_spec::Error),
    #[error("the layout has no such image")]
    Missing,
    #[error("the layout has several images; add `:TAG` or `@DIGEST`")]
    Ambiguous,
}

/// Finds the digest of an image in a layout, because BuildKit opens a layout by digest only.
fn layout_source(text: &str) -> Result<NamedSource, LayoutError> {
    if let Some((path, digest)) = text.rsplit_once('@') {
        let digest = digest.parse().map_err(LayoutError::Digest)?;
        return Ok(NamedSource::Layout { path: path.into(), digest });
    }
    let (path, tag) = match text.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (text, None),
    };
    let list = std::fs::read(Path::new(path).join("index.json"));
    let list = list.map_err(|source| LayoutError::Unreadable { path: path.to_owned(), source })?;
    let list = ocikit_spec::Index::parse(list);
    let list = list.map_err(|source| LayoutError::Invalid { path: path.to_owned(), source })?;
    let named = |tag: &str| {
        let names = list.manifests().iter();
        names.filter(|entry| entry.annotations.get(ocikit_spec::annotations::REF_NAME) == Some(tag)).collect::<Vec<_>>()
    };
    let found = match tag {
        Some(tag) => named(tag),
        None => list.manifests().iter().collect(),
    };
    match found[..] {
        [entry] => Ok(NamedSource::Layout { path: path.into(), digest: entry.digest }),
        [] => Err(LayoutError::Missing),
        _ => Err(LayoutError::Ambiguous),
    }
}

/// An entry for `/etc/hosts` of the steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraHost {
    /// The host name.
    pub name: String,
    /// Its IP address, or `host-gateway`.
    pub address: String,
}

impl FromStr for ExtraHost {
    type Err = Error;

    /// Reads `HOST:IP` or `HOST=IP`.
    fn from_str(text: &str) -> Result<ExtraHost> {
        let refuse = Error::option("host", text);
        let (name, address) = text.split_once(['=', ':']).ok_or_else(|| refuse("it is not of the form HOST:IP"))?;
        let address = address.trim_start_matches('[').trim_end_matches(']');
        if name.is_empty() || (address != "host-gateway" && address.parse::<IpAddr>().is_err()) {
            return Err(refuse("it is not of the form HOST:IP"));
        }
        Ok(ExtraHost { name: name.to_owned(), address: address.to_owned() })
    }
}

/// The network of the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkMode {
    /// That of BuildKit.
    Default,
    /// None.
    None,
    /// That of the machine; BuildKit must allow the entitlement `network.host`.
    Host,
}

impl FromStr for NetworkMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<NetworkMode> {
        match text {
            "default" | "sandbox" | "bridge" => Ok(NetworkMode::Default),
            "none" => Ok(NetworkMode::None),
            "host" => Ok(NetworkMode::Host),
            _ => Err(Error::option("network", text)("it is not one of default, none and host")),
        }
    }
}

/// A resource limit of the steps: `nofile=1024:2048`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ulimit(String);

impl FromStr for Ulimit {
    type Err = Error;

    /// Reads `NAME=SOFT[:HARD]`.
    fn from_str(text: &str) -> Result<Ulimit> {
        let refuse = Error::option("ulimit", text);
        let form = || refuse("it is not of the form NAME=SOFT[:HARD]");
        let (name, limits) = text.split_once('=').ok_or_else(form)?;
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        let (soft, hard) = (soft.parse::<i64>().map_err(|_| form())?, hard.parse::<i64>().map_err(|_| form())?);
        match name.is_empty() || (hard != -1 && (soft == -1 || soft > hard)) {
            true => Err(refuse("its soft limit exceeds the hard limit, or it has no name")),
            false => Ok(Ulimit(text.to_owned())),
        }
    }
}

impl fmt::Display for Ulimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = Error;

    /// Reads a number with an optional binary unit: `64m`, `2GB`, `1024`.
    fn from_str(text: &str) -> Result<ByteSize> {
        let refuse = || Error::option("size", text)("it is not a number of bytes such as 64m or 2g");
        let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
        let unit = match text[digits..].trim().to_lowercase().trim_end_matches("ib").trim_end_matches('b') {
            "" => 1,
            "k" => 1 << 10,
            "m" => 1 << 20,
            "g" => 1 << 30,
            "t" => 1 << 40,
            _ => return Err(refuse()),
        };
        let number = text[..digits].parse::<u64>().map_err(|_| refuse())?;
        number.checked_mul(unit).map(ByteSize).ok_or_else(refuse)
    }
}

/// An attestation that BuildKit adds to the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attestation {
    kind: &'static str,
    /// `None` if it is switched off.
    attributes: Option<Attributes>,
}

impl Attestation {
    /// Reads the value of docker's `--provenance`: `true`, `false`, `mode=max` or other attributes.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if it cannot be read.
    pub fn provenance(text: &str) -> Result<Attestation> {
        Attestation::of("provenance", text)
    }

    /// Reads the value of docker's `--sbom`: `true`, `false`, `generator=IMAGE` or other attributes.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if it cannot be read.
    pub fn sbom(text: &str) -> Result<Attestation> {
        Attestation::of("sbom", text)
    }

    fn of(kind: &'static str, text: &str) -> Result<Attestation> {
        let attributes = match text {
            "" | "true" | "1" => Some(Attributes::default()),
            "false" | "0" => None,
            "min" | "max" if kind == "provenance" => Some(Attributes::parse(kind, &format!("mode={text}"))?),
            text => Some(Attributes::parse(kind, text)?),
        };
        Attestation { kind, attributes }.checked(text)
    }

    fn checked(mut self, text: &str) -> Result<Attestation> {
        let Some(attributes) = &mut self.attributes else { return Ok(self) };
        match attributes.take("disabled").as_deref() {
            None | Some("false") => Ok(self),
            Some("" | "true") => Ok(Attestation { attributes: None, ..self }),
            Some(_) => Err(Error::option("attestation", text)("`disabled` is not true or false")),
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.attributes.is_some()
    }

    pub(crate) fn kind(&self) -> &'static str {
        self.kind
    }

    pub(crate) fn to_option(&self) -> Option<String> {
        Some(format!("attest:{}={}", self.kind, self.attributes.as_ref()?.to_line()))
    }
}

impl FromStr for Attestation {
    type Err = Error;

    /// Reads docker's `--attest`: `type=sbom` or `type=provenance`, with attributes.
    fn from_str(text: &str) -> Result<Attestation> {
        let mut attributes = Attributes::parse("attestation", text)?;
        let kind = match attributes.take("type").as_deref() {
            Some("provenance") => "provenance",
            Some("sbom") => "sbom",
            _ => return Err(Error::option("attestation", text)("it has no `type=provenance` or `type=sbom`")),
        };
        Attestation { kind, attributes: Some(attributes) }.checked(text)
    }
}

/// A build cache that is imported or exported: `type=registry,ref=ghcr.io/acme/cache`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheEntry {
    pub(crate) kind: String,
    pub(crate) attributes: Attributes,
}

/// The kinds of build cache that BuildKit knows.
const CACHE_KINDS: [&str; 6] = ["local", "registry", "inline", "gha", "s3", "azblob"];

/// The attributes of a build cache that are secrets, and the environment variables that take their place.
const CACHE_SECRETS: [(&str, &str); 5] = [
    ("token", "ACTIONS_RUNTIME_TOKEN"),
    ("secret_access_key", "AWS_SECRET_ACCESS_KEY"),
    ("session_token", "AWS_SESSION_TOKEN"),
    ("access_key_id", "AWS_ACCESS_KEY_ID"),
    ("secret_key", "AZURE_CLIENT_SECRET"),
];

impl FromStr for CacheEntry {
    type Err = Error;

    /// Reads docker's `--cache-from` and `--cache-to`: attributes with `type=`, or the reference of an image.
    fn from_str(text: &str) -> Result<CacheEntry> {
        if !text.contains('=') {
            let attributes = Attributes::parse("cache", &crate::attributes::field(&format!("ref={text}")))?;
            return Ok(CacheEntry { kind: "registry".to_owned(), attributes });
        }
        let mut attributes = Attributes::parse("cache", text)?;
        let secret = CACHE_SECRETS.iter().find(|(key, _)| attributes.get(key).is_some());
        if let Some((key, variable)) = secret {
            let reason = format!("`{key}` would be visible in the list of processes; set {variable} instead");
            return Err(Error::option("cache", &format!("{key}=***"))(&reason));
        }
        let refuse = Error::option("cache", text);
        let kind = attributes.take("type").ok_or_else(|| refuse("it has no `type=`"))?;
        if !CACHE_KINDS.contains(&kind.as_str()) {
            return Err(refuse(&format!("its type is not one of {}", CACHE_KINDS.join(", "))));
        }
        let entry = CacheEntry { kind, attributes };
        if entry.attributes.get("max-size").is_some() && entry.limited().is_none() {
            return Err(refuse("`max-size` needs `type=local`, `dest=DIRECTORY` and a size such as 500m"));
        }
        Ok(entry)
    }
}

impl CacheEntry {
    /// Returns the directory and the maximum size of `type=local,dest=DIRECTORY,max-size=SIZE`: a [`Cache`](crate::Cache),
    /// whose size BuildKit itself does not limit.
    pub fn limited(&self) -> Option<(PathBuf, ByteSize)> {
        let size = self.attributes.get("max-size").filter(|_| self.kind == "local")?.parse().ok()?;
        Some((self.attributes.get("dest")?.into(), size))
    }

    pub(crate) fn to_argument(&self) -> String {
        let line = self.attributes.to_line();
        format!("type={}{}{line}", self.kind, if line.is_empty() { "" } else { "," })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_name_a_file_or_a_variable() {
        let secret = |text: &str| text.parse::<Secret>().unwrap().to_argument();
        assert_eq!(secret("id=a,src=/x"), "id=a,src=/x");
        assert_eq!(secret("\"id=a\",\"source=/x,y\""), "id=a,\"src=/x,y\"");
        assert_eq!(secret("type=env,id=PATH"), "id=PATH,env=PATH");
        assert_eq!(secret("id=a,env=B"), "id=a,env=B");
        assert_eq!(secret("id=PATH"), "id=PATH,env=PATH");
        assert_eq!(secret("id=no-such-variable"), "id=no-such-variable,src=no-such-variable");
        for text in ["", "src=/x", "id=a,src=/x,env=B", "id=a,value=x"] {
            assert!(text.parse::<Secret>().is_err(), "{text}");
        }
    }

    #[test]
    fn contexts_with_a_password_are_refused() {
        for text in ["https://user:pass@example.com/a.git", "https://token@example.com/a.git#main"] {
            let error = BuildContext::parse(text).unwrap_err().to_string();
            assert!(error.contains("***@example.com/a.git") && !error.contains("pass@"), "{error}");
        }
        for text in ["git@github.com:a/b.git", "ssh://git@example.com/a", "https://example.com/a.git#main:dir"] {
            assert_eq!(BuildContext::parse(text).unwrap(), BuildContext::Remote(text.to_owned()));
        }
        assert_eq!(BuildContext::parse("dir").unwrap(), BuildContext::Directory("dir".into()));
    }

    #[test]
    fn options_have_the_notation_of_docker() {
        let host = |text: &str| text.parse::<ExtraHost>().unwrap();
        assert_eq!(host("a:1.2.3.4"), host("a=1.2.3.4"));
        assert_eq!(host("a:[::1]").address, "::1");
        assert_eq!(host("a:host-gateway").address, "host-gateway");
        assert!("a".parse::<ExtraHost>().is_err() && "a:b".parse::<ExtraHost>().is_err());
        for (text, bytes) in [("64m", 64 << 20), ("2GB", 2 << 30), ("7", 7), ("1KiB", 1024), ("3b", 3)] {
            assert_eq!(text.parse::<ByteSize>().unwrap(), ByteSize(bytes), "{text}");
        }
        assert!("m".parse::<ByteSize>().is_err() && "1x".parse::<ByteSize>().is_err());
        assert!("nofile=1024:2048".parse::<Ulimit>().is_ok() && "nofile=2:1".parse::<Ulimit>().is_err());
        assert!("nofile".parse::<Ulimit>().is_err());
        assert_eq!("host".parse::<NetworkMode>().unwrap(), NetworkMode::Host);
    }

    #[test]
    fn attestations_are_options_of_the_frontend() {
        let option = |attestation: Result<Attestation>| attestation.unwrap().to_option();
        assert_eq!(option(Attestation::provenance("true")).unwrap(), "attest:provenance=");
        assert_eq!(option(Attestation::provenance("mode=max")).unwrap(), "attest:provenance=mode=max");
        assert_eq!(option(Attestation::provenance("false")), None);
        assert_eq!(option(Attestation::sbom("generator=a/b:1")).unwrap(), "attest:sbom=generator=a/b:1");
        assert_eq!(option("type=sbom,disabled=true".parse()), None);
        assert!("sbom".parse::<Attestation>().is_err());
    }

    #[test]
    fn secrets_of_caches_are_refused() {
        let cache = |text: &str| text.parse::<CacheEntry>().map(|cache| cache.to_argument());
        assert_eq!(cache("ghcr.io/acme/cache:1").unwrap(), "type=registry,ref=ghcr.io/acme/cache:1");
        assert_eq!(cache("type=inline").unwrap(), "type=inline");
        assert_eq!(cache("type=s3,region=x,bucket=y").unwrap(), "type=s3,region=x,bucket=y");
        let error = cache("type=gha,token=t0ken").unwrap_err().to_string();
        assert!(error.contains("ACTIONS_RUNTIME_TOKEN") && !error.contains("t0ken"), "{error}");
        let limited = "type=local,dest=c,max-size=1k".parse::<CacheEntry>().unwrap().limited();
        assert_eq!(limited, Some(("c".into(), ByteSize(1024))));
        assert!(cache("type=gha,max-size=1k").is_err() && cache("type=local,dest=c,max-size=x").is_err());
        assert!(cache("type=other").is_err() && cache("mode=max").is_err());
    }
}
