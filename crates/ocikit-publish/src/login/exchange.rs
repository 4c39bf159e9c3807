use std::collections::BTreeMap;
use std::fmt;
use std::io;

use jiff::Timestamp;
use ocikit::Registry;
use ocikit::registry::{Credential, Secret};
use ocikit_sign::Http;

use super::aws::Ecr;
use super::azure::Acr;
use super::error::ExchangeError;
use super::google::Google;
use super::kind::ExchangeKind;
use super::source::Source;

/// What gets a short-lived credential for a registry, from the environment of a job.
///
/// ```
/// use std::collections::BTreeMap;
/// use ocikit_publish::login::{Exchange, ExchangeKind};
///
/// let environment = BTreeMap::from([
///     ("GITHUB_ACTOR".to_owned(), "octocat".to_owned()),
///     ("GITHUB_TOKEN".to_owned(), "secret".to_owned()),
/// ]);
/// let exchange = Exchange::read(None, &"ghcr.io".parse()?, &environment, &|path| std::fs::read(path))?;
/// assert_eq!(exchange.kind(), ExchangeKind::GitHub);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Exchange {
    registry: Registry,
    kind: ExchangeKind,
    way: Way,
}

#[derive(Debug, Clone)]
enum Way {
    /// The token service of the registry exchanges the token of the job.
    Token(Credential),
    Ecr(Ecr),
    Google(Google),
    Acr(Acr),
}

/// A credential that was exchanged.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Exchanged {
    /// The credential.
    pub credential: Credential,
    /// When it expires, if the service says so.
    pub expires: Option<Timestamp>,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("registry", &self.registry).field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Exchange {
    /// Reads the environment of a job; `docs/publish.md` lists the variables. Without a kind, the host of the registry
    /// decides. `read` returns the content of a file. Nothing is requested.
    ///
    /// # Errors
    ///
    /// [`ExchangeError`] if the registry is not known, or a variable or file is missing or malformed.
    pub fn read(
        kind: Option<ExchangeKind>,
        registry: &Registry,
        environment: &BTreeMap<String, String>,
        read: &dyn Fn(&str) -> io::Result<Vec<u8>>,
    ) -> Result<Exchange, ExchangeError> {
        let source = Source { environment, read };
        let own = source.get("CI_REGISTRY").is_some_and(|host| host == registry.as_str());
        let kind = kind.or(own.then_some(ExchangeKind::GitLab)).or_else(|| ExchangeKind::of(registry));
        let kind = kind.ok_or_else(|| ExchangeError::UnknownRegistry { registry: registry.to_string() })?;
        let way = match kind {
            ExchangeKind::GitHub => Way::Token(github(registry, &source)?),
            ExchangeKind::GitLab => Way::Token(gitlab(registry, &source)?),
            ExchangeKind::Ecr => Way::Ecr(Ecr::read(registry, &source)?),
            ExchangeKind::EcrPublic => Way::Ecr(Ecr::read_public(&source)?),
            ExchangeKind::ArtifactRegistry => Way::Google(Google::read(&source)?),
            ExchangeKind::Acr => Way::Acr(Acr::read(registry, &source)?),
        };
        Ok(Exchange { registry: registry.clone(), kind, way })
    }

    /// Returns the registry.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Returns the kind.
    pub fn kind(&self) -> ExchangeKind {
        self.kind
    }

    /// Exchanges the token of the job for a credential of the registry.
    ///
    /// # Errors
    ///
    /// [`ExchangeError`] if a service refuses or gives no usable response.
    pub async fn credential(&self, http: &Http, now: Timestamp) -> Result<Exchanged, ExchangeError> {
        let (credential, expires) = match &self.way {
            Way::Token(credential) => (credential.clone(), None),
            Way::Ecr(ecr) => ecr.credential(http, now).await?,
            Way::Google(google) => google.credential(http, now).await?,
            Way::Acr(acr) => (acr.credential(http).await?, None),
        };
        Ok(Exchanged { credential, expires })
    }
}

/// Returns the token of a GitHub job, for the registry of the same GitHub only: `ghcr.io`, or `containers.HOST`.
fn github(registry: &Registry, source: &Source<'_>) -> Result<Credential, ExchangeError> {
    let kind = ExchangeKind::GitHub;
    let server = source.get("GITHUB_SERVER_URL").unwrap_or("https://github.com");
    let host = server.trim_start_matches("https://").trim_end_matches('/');
    let expected = if host == "github.com" { "ghcr.io".to_owned() } else { format!("containers.{host}") };
    if registry.as_str() != expected {
        return Err(ExchangeError::OtherRegistry { registry: registry.to_string(), expected });
    }
    let username = source.required(kind, "GITHUB_ACTOR")?;
    Ok(Credential::password(username, Secret::new(source.required(kind, "GITHUB_TOKEN")?)))
}

/// Returns the token of a GitLab job, for the registry of the same GitLab only.
fn gitlab(registry: &Registry, source: &Source<'_>) -> Result<Credential, ExchangeError> {
    let kind = ExchangeKind::GitLab;
    let expected = source.required(kind, "CI_REGISTRY")?;
    if registry.as_str() != expected {
        let expected = expected.to_owned();
        return Err(ExchangeError::OtherRegistry { registry: registry.to_string(), expected });
    }
    let (username, password) = match (source.get("CI_REGISTRY_USER"), source.get("CI_REGISTRY_PASSWORD")) {
        (Some(username), Some(password)) => (username, password),
        _ => ("gitlab-ci-token", source.required(kind, "CI_JOB_TOKEN")?),
    };
    Ok(Credential::password(username, Secret::new(password)))
}
