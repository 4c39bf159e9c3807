//! Signify: a service that records the digest of a tag and signs it with its own keys.
//!
//! Requests contain names, digests and sizes in the terms of The Update Framework and are authenticated with a client
//! certificate. Nothing is signed locally and nothing is stored with the image; the only result is that the service
//! accepted the request.
//!
//! It uses the HTTP client of the crate that signs, and nothing else of it.

mod renew;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::SignedDuration;
use ocikit::{Descriptor, Digest, Reference};
use ocikit_http::{Document, Identity, RequestError, Url};
use ocikit_sign::Http;
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

pub use renew::{RenewOptions, renew};

use crate::yaml::yaml_problem;

/// The result of an operation of this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of reading a configuration, selecting services or requesting signatures.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration is malformed, contradictory or exceeds a limit.
    #[error("the sign-config is not valid: {problem}")]
    Config {
        /// What is wrong with it.
        problem: String,
    },
    /// A signer of the configuration is not valid.
    #[error("the sign-config is not valid: the signer `{name}`: {problem}")]
    Signer {
        /// The name of the signer.
        name: String,
        /// What is wrong with it. Contains no part of a URL, which may have a password.
        problem: SignerProblem,
    },
    /// A client certificate is malformed. The message contains none of it.
    #[error("cannot use the client certificate: {problem}")]
    ClientCertificate {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A client certificate could not be renewed.
    #[error("cannot renew the client certificate: {problem}")]
    Renewal {
        /// The problem. Contains no part of the secret or of a response.
        problem: String,
    },
    /// No service signs the images of a source repository in a job.
    #[error("{}", no_service(.repository, .job, .skipped))]
    NoService {
        /// The source repository.
        repository: String,
        /// The job.
        job: Job,
        /// The services that are enabled for other job types.
        skipped: Vec<String>,
    },
    /// A reference has no tag, which is what services record.
    #[error("{reference} has no tag")]
    NoTag {
        /// The reference.
        reference: Box<Reference>,
    },
    /// A digest is not SHA-256, the only algorithm that services support.
    #[error("{digest} is not a SHA-256 digest")]
    Algorithm {
        /// The digest.
        digest: Box<Digest>,
    },
    /// There are no targets.
    #[error("there is nothing to sign")]
    NoTargets,
    /// A service did not accept a request.
    #[error("{service}: it answered {status} and not {ACCEPTED}{}{}", quoted(.response), times(*.attempts))]
    NotAccepted {
        /// The name and the address of the service, without the query.
        service: String,
        /// The status of the last response.
        status: u16,
        /// The beginning of the last response, on one line.
        response: String,
        /// The number of attempts.
        attempts: u32,
    },
    /// A service gave no response.
    #[error("{service}: {problem}")]
    NoResponse {
        /// The name and the address of the service, without the query.
        service: String,
        /// The problem.
        problem: String,
    },
}

/// A rule that a signer of a configuration violates.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignerProblem {
    /// The endpoint is not a URL.
    #[error("its endpoint is not a URL")]
    NotUrl,
    /// The endpoint has another scheme than `https`, or a user name or password.
    #[error("its endpoint is not https, or has credentials; use a client certificate")]
    NotHttps,
    /// The timeout is zero.
    #[error("its timeout is zero")]
    NoTimeout,
    /// A duration is malformed or longer than an hour.
    #[error("`{0}` is not a duration of at most 1 hour, such as 30s")]
    Duration(String),
}

fn no_service(repository: &str, job: &Job, skipped: &[String]) -> String {
    let job = match job {
        _ if skipped.is_empty() => return format!("no signer is enabled for {repository}"),
        Job::Local => "outside CI".to_owned(),
        Job::Unknown => "in a job of an unknown kind".to_owned(),
        Job::Of(kind) => format!("in a {kind} job"),
    };
    format!("no signer signs for {repository} {job}; not asked: {}", skipped.join(", "))
}

fn quoted(response: &str) -> String {
    if response.is_empty() { String::new() } else { format!(" and said: {response}") }
}

fn times(attempts: u32) -> String {
    if attempts == 1 { ", asked once".to_owned() } else { format!(", asked {attempts} times") }
}

/// The configuration of signing services by repository: the `sign-config` section of an image builder's
/// configuration.
#[derive(Debug, Clone)]
pub struct Config {
    enabled: BTreeMap<String, Vec<String>>,
    services: Vec<Service>,
}

/// A signing service.
#[derive(Clone, PartialEq, Eq)]
pub struct Service {
    /// The name of the service.
    pub name: String,
    /// The URL of the service: `https`, without user name and password. Its query may be secret.
    pub endpoint: String,
    /// The timeout of one request.
    pub timeout: Duration,
    /// The delay before a retry.
    pub pause: Duration,
    /// The path of the file with the client certificate, as in the configuration; [`identity`] parses its content.
    pub secret: PathBuf,
    /// The CI job types whose images the service signs; empty for all.
    pub job_types: Vec<String>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("name", &self.name).field("address", &self.address()).finish_non_exhaustive()
    }
}

/// The kind of build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// A build outside CI.
    Local,
    /// A CI job of an unknown type.
    Unknown,
    /// A CI job of this type, such as `postsubmit`.
    Of(String),
}

/// The services that were selected, at least one, and those that were skipped.
#[derive(Debug, Clone)]
pub struct Selected<'a> {
    /// The selected services.
    pub services: Vec<&'a Service>,
    /// The names of services for other job types.
    pub skipped: Vec<&'a str>,
}

/// Other sections of the file are ignored.
#[derive(Deserialize)]
struct ConfigYaml {
    #[serde(rename = "sign-config")]
    sign: SignConfigYaml,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct SignConfigYaml {
    enabled_signers: BTreeMap<String, Vec<String>>,
    signers: Vec<SignerYaml>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct SignerYaml {
    name: String,
    /// Only one type exists, so its name is ignored.
    #[serde(default, rename = "type")]
    _kind: Option<String>,
    #[serde(default)]
    job_type: Vec<String>,
    config: ServiceYaml,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct ServiceYaml {
    endpoint: String,
    timeout: Option<String>,
    retry_timeout: Option<String>,
    secret: SecretYaml,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretYaml {
    path: PathBuf,
    #[serde(default, rename = "type")]
    _kind: Option<String>,
}

/// Other fields are ignored: tools that renew certificates store more in the same file.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SecretJson {
    cert_data: String,
    private_key_data: String,
}

/// The maximum size of a configuration, in bytes.
const MAX_CONFIG_BYTES: usize = 1 << 20;
/// The maximum number of signers.
const MAX_SIGNERS: usize = 1000;
/// The maximum of every duration in a configuration.
const MAX_DURATION: Duration = Duration::from_secs(3600);

impl Config {
    /// Parses a configuration in YAML.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] and [`Error::Signer`] if it is malformed or contradictory.
    pub fn parse(text: &str) -> Result<Config> {
        if text.len() > MAX_CONFIG_BYTES {
            return Err(refused(format!("it has more than {MAX_CONFIG_BYTES} bytes")));
        }
        let ConfigYaml { sign } = serde_saphyr::from_str(text).map_err(|error| refused(yaml_problem(&error)))?;
        if sign.signers.len() > MAX_SIGNERS {
            return Err(refused(format!("it has more than {MAX_SIGNERS} signers")));
        }
        let mut services: Vec<Service> = Vec::new();
        for yaml in sign.signers {
            let name = yaml.name.clone();
            if services.iter().any(|service| service.name == name) {
                return Err(refused(format!("two signers are called `{name}`")));
            }
            services.push(Service::of(yaml).map_err(|problem| Error::Signer { name, problem })?);
        }
        let is_known = |name: &String| services.iter().any(|service| service.name == *name);
        if let Some(unknown) = sign.enabled_signers.values().flatten().find(|name| !is_known(name)) {
            return Err(refused(format!("there is no signer `{unknown}`")));
        }
        Ok(Config { enabled: sign.enabled_signers, services })
    }

    /// Selects the services for a source repository, named `organization/repository`: those enabled for `*` and for
    /// this repository, except those for other job types.
    ///
    /// # Errors
    ///
    /// [`Error::NoService`] if no service remains, because an image that no service signed must not be reported as
    /// signed.
    pub fn select(&self, repository: &str, job: &Job) -> Result<Selected<'_>> {
        let enabled = |service: &&Service| {
            let named = |key: &str| self.enabled.get(key).is_some_and(|names| names.contains(&service.name));
            named("*") || named(repository)
        };
        let (services, skipped): (Vec<_>, Vec<_>) =
            self.services.iter().filter(enabled).partition(|service| service.signs(job));
        if services.is_empty() {
            let skipped = skipped.into_iter().map(|service| service.name.clone()).collect();
            return Err(Error::NoService { repository: repository.to_owned(), job: job.clone(), skipped });
        }
        Ok(Selected { services, skipped: skipped.into_iter().map(|service| service.name.as_str()).collect() })
    }
}

impl Service {
    fn of(yaml: SignerYaml) -> Result<Service, SignerProblem> {
        let ServiceYaml { endpoint, timeout, retry_timeout, secret } = yaml.config;
        // The invalid URL may contain a password, so the error does not show it.
        let endpoint = endpoint.parse::<Url>().map_err(|_| SignerProblem::NotUrl)?;
        if endpoint.scheme() != "https" || endpoint.has_user_information() {
            return Err(SignerProblem::NotHttps);
        }
        let timeout = timeout.as_deref().map(duration).transpose()?.unwrap_or(Duration::from_secs(60));
        let pause = retry_timeout.as_deref().map(duration).transpose()?.unwrap_or_default();
        if timeout.is_zero() {
            return Err(SignerProblem::NoTimeout);
        }
        let (name, endpoint, job_types) = (yaml.name, endpoint.reveal().to_owned(), yaml.job_type);
        Ok(Service { name, endpoint, timeout, pause, secret: secret.path, job_types })
    }

    /// Returns the endpoint without query and fragment, which may be secret.
    pub fn address(&self) -> &str {
        self.endpoint.split(['?', '#']).next().unwrap_or_default()
    }

    /// Returns whether the service signs for this job. A job of unknown type is not excluded.
    fn signs(&self, job: &Job) -> bool {
        match job {
            _ if self.job_types.is_empty() => true,
            Job::Local => false,
            Job::Unknown => true,
            Job::Of(kind) => self.job_types.contains(kind),
        }
    }
}

/// Parses a client certificate and its key: JSON with `certData` and `privateKeyData`, each PEM in base64.
///
/// # Errors
///
/// [`Error::ClientCertificate`] if a part is missing or malformed. The message contains none of the content.
pub fn identity(json: &[u8]) -> Result<Identity> {
    let refuse = |problem| Error::ClientCertificate { problem };
    let secret: SecretJson =
        serde_json::from_slice(json).map_err(|_| refuse("it is not JSON with `certData` and `privateKeyData`"))?;
    let [chain, key] = [secret.cert_data, secret.private_key_data].map(Zeroizing::new);
    let decode = |text: &str| STANDARD.decode(text.trim()).map_err(|_| refuse("a part is not in base64"));
    Ok(Identity { certificate: decode(&chain)?.into(), key: decode(&key)?.into() })
}

/// Parses a duration in Go's syntax: `5m`, `1m30s`, `500ms`.
fn duration(text: &str) -> Result<Duration, SignerProblem> {
    let parsed = text.parse::<SignedDuration>().ok().and_then(|found| Duration::try_from(found).ok());
    match parsed {
        Some(duration) if duration <= MAX_DURATION => Ok(duration),
        _ => Err(SignerProblem::Duration(text.to_owned())),
    }
}

fn refused(problem: String) -> Error {
    Error::Config { problem }
}

/// A tag and the digest that it points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The globally unique name (GUN) of the repository; Docker Hub is `index.docker.io` in it.
    pub gun: String,
    /// The tag.
    pub tag: String,
    /// The SHA-256 digest of the image or index.
    pub digest: Digest,
    /// The size of the manifest or index, in bytes.
    pub size: u64,
}

impl Target {
    /// Creates a target from a reference and its descriptor.
    ///
    /// # Errors
    ///
    /// [`Error::NoTag`]; [`Error::Algorithm`] if the digest is not SHA-256.
    pub fn new(reference: &Reference, found: &Descriptor) -> Result<Target> {
        let tag = reference.tag().ok_or_else(|| Error::NoTag { reference: Box::new(reference.clone()) })?;
        if found.digest.algorithm().name() != "sha256" {
            return Err(Error::Algorithm { digest: Box::new(found.digest) });
        }
        let repository = reference.repository();
        let registry = match repository.registry().is_docker_hub() {
            true => "index.docker.io",
            false => repository.registry().as_str(),
        };
        let gun = format!("{registry}/{}", repository.path());
        Ok(Target { gun, tag: tag.to_string(), digest: found.digest, size: found.size })
    }
}

/// The response of a service that accepted the request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Accepted {
    /// The status, which is 202.
    pub status: u16,
    /// The body of the response.
    pub body: String,
    /// The number of attempts.
    pub attempts: u32,
}

/// Returns the body of the request: one collection per target.
pub fn body(targets: &[Target]) -> String {
    let collection = |target: &Target| {
        let Target { gun, tag, digest, size } = target;
        json!({"gun": gun, "targets": [{"name": tag, "byteSize": size, "digest": digest.hex()}]})
    };
    json!({"trustedCollections": targets.iter().map(collection).collect::<Vec<_>>()}).to_string()
}

/// The only status that means success.
const ACCEPTED: u16 = 202;
/// The maximum number of attempts.
const MAX_ATTEMPTS: u32 = 5;
/// The maximum size of a response, in bytes.
const MAX_RESPONSE_BYTES: usize = 64 << 10;
/// How many characters of a response an error quotes.
const MAX_QUOTED_CHARACTERS: usize = 200;

/// Sends a signing request, with up to 5 attempts. `http` must have the client certificate.
///
/// # Errors
///
/// [`Error::NotAccepted`] if the status of the last response is not 202; [`Error::NoResponse`] if there is none.
pub async fn send(service: &Service, targets: &[Target], http: &Http) -> Result<Accepted> {
    if targets.is_empty() {
        return Err(Error::NoTargets);
    }
    let pause = |attempts, outcome: ocikit_sign::Result<&Document, &RequestError>| match outcome {
        Ok(response) if response.status == ACCEPTED || is_final(response.status) => None,
        _ => (attempts < MAX_ATTEMPTS).then_some(service.pause),
    };
    let body = body(targets).into_bytes();
    let sent = http.post_until(&service.endpoint, "application/json", body, MAX_RESPONSE_BYTES, pause).await;
    match sent {
        Ok(Document { status: ACCEPTED, body, attempts, .. }) => {
            Ok(Accepted { status: ACCEPTED, body: String::from_utf8_lossy(&body).into_owned(), attempts })
        }
        Ok(response) => {
            let Document { status, attempts, .. } = response;
            Err(Error::NotAccepted { service: named(service), status, response: excerpt(&response.body), attempts })
        }
        Err(error) => {
            let problem = match error {
                // `named` adds the address.
                ocikit_sign::Error::Service { problem, .. } => problem,
                error => error.to_string(),
            };
            Err(Error::NoResponse { service: named(service), problem })
        }
    }
}

/// Returns whether a retry is pointless. Client errors are final, except for 408, 425 and 429.
fn is_final(status: u16) -> bool {
    (400..500).contains(&status) && ![408, 425, 429].contains(&status)
}

/// Returns the beginning of a response. Any white space becomes a space, so that it is one line.
fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.chars().take(MAX_QUOTED_CHARACTERS).collect()
}

/// Returns the name and the address of a service.
fn named(service: &Service) -> String {
    format!("{} at {}", service.name, service.address())
}

#[cfg(test)]
mod tests;
