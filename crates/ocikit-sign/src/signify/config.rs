use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::SignedDuration;
use ocikit_http::{Identity, Url};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// The configuration of signing services by repository: the `sign-config` section of an image builder's
/// configuration.
#[derive(Debug, Clone)]
pub struct Config {
    enabled: BTreeMap<String, Vec<String>>,
    services: Vec<Service>,
}

/// A signing service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The name of the service.
    pub name: String,
    /// The URL of the service: `https`, without user name and password.
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
    /// [`Error::Policy`] if it is malformed or contradictory.
    pub fn parse(text: &str) -> Result<Config> {
        if text.len() > MAX_CONFIG_BYTES {
            return Err(refused(format!("it has more than {MAX_CONFIG_BYTES} bytes")));
        }
        let ConfigYaml { sign } = serde_saphyr::from_str(text).map_err(|error| refused(error.to_string()))?;
        if sign.signers.len() > MAX_SIGNERS {
            return Err(refused(format!("it has more than {MAX_SIGNERS} signers")));
        }
        let mut services: Vec<Service> = Vec::new();
        for yaml in sign.signers {
            let name = yaml.name.clone();
            if services.iter().any(|service| service.name == name) {
                return Err(refused(format!("two signers are called `{name}`")));
            }
            services.push(Service::of(yaml).map_err(|why| refused(format!("the signer `{name}`: {why}")))?);
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
    /// [`Error::Unsupported`] if no service remains, because an image that no service signed must not be reported as
    /// signed.
    pub fn select(&self, sources: &str, job: &Job) -> Result<Selected<'_>> {
        let enabled = |service: &&Service| {
            let named = |key: &str| self.enabled.get(key).is_some_and(|names| names.contains(&service.name));
            named("*") || named(sources)
        };
        let (services, skipped): (Vec<_>, Vec<_>) =
            self.services.iter().filter(enabled).partition(|service| service.signs(job));
        let skipped: Vec<_> = skipped.into_iter().map(|service| service.name.as_str()).collect();
        if !services.is_empty() {
            return Ok(Selected { services, skipped });
        }
        let job = match job {
            Job::Local => "outside CI".to_owned(),
            Job::Unknown => "in a job of an unknown kind".to_owned(),
            Job::Of(kind) => format!("in a {kind} job"),
        };
        Err(Error::Unsupported(match &skipped[..] {
            [] => format!("no signer is enabled for {sources}"),
            skipped => format!("no signer signs for {sources} {job}; not asked: {}", skipped.join(", ")),
        }))
    }
}

impl Service {
    fn of(yaml: SignerYaml) -> Result<Service, String> {
        let ServiceYaml { endpoint, timeout, retry_timeout, secret } = yaml.config;
        // The invalid URL may contain a password, so the error does not show it.
        let endpoint = endpoint.parse::<Url>().map_err(|_| "its endpoint is not a URL".to_owned())?;
        if endpoint.scheme() != "https" || endpoint.has_user_information() {
            return Err("its endpoint is not https, or has credentials; use a client certificate".to_owned());
        }
        let timeout = timeout.as_deref().map(duration).transpose()?.unwrap_or(Duration::from_secs(60));
        let pause = retry_timeout.as_deref().map(duration).transpose()?.unwrap_or_default();
        if timeout.is_zero() {
            return Err("its timeout is zero".to_owned());
        }
        let (name, endpoint, job_types) = (yaml.name, endpoint.reveal().to_owned(), yaml.job_type);
        Ok(Service { name, endpoint, timeout, pause, secret: secret.path, job_types })
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
/// [`Error::Key`] if a part is missing or malformed. The message contains none of the content.
pub fn identity(json: &[u8]) -> Result<Identity> {
    let refuse = |why: &str| Error::Key(format!("the client key is missing: {why}"));
    let secret: SecretJson = serde_json::from_slice(json).map_err(|_| refuse("it is no JSON with both parts"))?;
    let [chain, key] = [secret.cert_data, secret.private_key_data].map(Zeroizing::new);
    let decode = |text: &str| STANDARD.decode(text.trim()).map_err(|_| refuse("a part is not in base64"));
    Ok(Identity { certificate: decode(&chain)?.into(), key: decode(&key)?.into() })
}

/// Parses a duration in Go's syntax: `5m`, `1m30s`, `500ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<SignedDuration>().ok().and_then(|found| Duration::try_from(found).ok());
    match parsed {
        Some(duration) if duration <= MAX_DURATION => Ok(duration),
        _ => Err(format!("`{text}` is not a duration of at most 1 hour, such as 30s")),
    }
}

fn refused(problem: String) -> Error {
    Error::Policy { what: "the sign-config".to_owned(), problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
registry: [localhost]
default-commit-tag: {name: default_tag, value: 'v1'}
sign-config:
  enabled-signers:
    '*': [all]
    acme/app: [merged, all]
  signers:
    - name: all
      type: notary
      config: {endpoint: https://sign.example/sign, timeout: 5m, retry-timeout: 1m30s, secret: {path: /all.json, type: signify}}
    - name: merged
      type: notary
      job-type: [postsubmit, schedule]
      config: {endpoint: https://sign.example:1234/, secret: {path: merged.json}}
    - name: unused
      config: {endpoint: https://sign.example/, secret: {path: x}}
";

    #[test]
    fn signers_are_chosen_by_repository_and_job() {
        let config = Config::parse(TEXT).unwrap();
        let all = &config.services[0];
        assert_eq!((all.timeout, all.pause), (Duration::from_secs(300), Duration::from_secs(90)));
        for (sources, job, expected) in [
            ("acme/other", Job::Local, &["all"][..]),
            ("acme/other", Job::Of("postsubmit".to_owned()), &["all"]),
            ("acme/app", Job::Local, &["all"]),
            ("acme/app", Job::Unknown, &["all", "merged"]),
            ("acme/app", Job::Of("postsubmit".to_owned()), &["all", "merged"]),
            ("acme/app", Job::Of("presubmit".to_owned()), &["all"]),
        ] {
            let found = config.select(sources, &job).unwrap();
            let names: Vec<_> = found.services.iter().map(|service| service.name.as_str()).collect();
            assert_eq!(names, expected, "{sources} {job:?}");
            let enabled = if sources == "acme/app" { 2 } else { 1 };
            assert_eq!(found.skipped.len(), enabled - names.len(), "{sources} {job:?}");
        }
        let config = Config::parse(&TEXT.replace("'*': [all]", "'*': [merged]")).unwrap();
        let error = config.select("acme/other", &Job::Of("merge_group".to_owned())).unwrap_err().to_string();
        assert!(error.contains("in a merge_group job; not asked: merged"), "{error}");
        let config = Config::parse(&TEXT.replace("'*': [all]", "acme/lib: [all]")).unwrap();
        let error = config.select("acme/other", &Job::Local).unwrap_err().to_string();
        assert!(error.contains("no signer is enabled for acme/other"), "{error}");
    }

    #[test]
    fn invalid_configurations_are_refused() {
        for (from, to, problem) in [
            ("job-type: [postsubmit, schedule]", "jobtype: [postsubmit]", "jobtype"),
            ("'*': [all]", "'*': [nobody]", "no signer `nobody`"),
            ("name: unused", "name: all", "two signers"),
            ("https://sign.example:1234/", "http://sign.example/", "not https"),
            ("https://sign.example:1234/", "https://me:secret@sign.example/", "has credentials"),
            ("https://sign.example:1234/", "nowhere", "not a URL"),
            ("timeout: 5m", "timeout: 5", "`5` is not a duration"),
            ("timeout: 5m", "timeout: 2h", "at most 1 hour"),
            ("timeout: 5m", "timeout: 0s", "timeout is zero"),
            ("timeout: 5m", "timeout: -1s", "not a duration"),
            ("sign-config:", "sign-configs:", "sign-config"),
        ] {
            let error = Config::parse(&TEXT.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(problem) && !error.contains("me:secret"), "{to}: {error}");
        }
    }

    #[test]
    fn a_secret_has_two_base64_fields() {
        let found = identity(br#"{"certData": "QUJD\n", "privateKeyData": "REVG", "clientID": "x"}"#).unwrap();
        assert_eq!((found.certificate, found.key), (b"ABC".to_vec().into(), b"DEF".to_vec().into()));
        for text in ["", "{}", r#"{"certData": "QUJD"}"#, r#"{"certData": "QUJD", "privateKeyData": "TOP-SECRET!"}"#] {
            let error = identity(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("the client key is missing") && !error.contains("SECRET"), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn untrusted_input_does_not_panic(text in ".*") {
            let _ = Config::parse(&text);
            let _ = identity(text.as_bytes());
            let _ = duration(&text);
        }
    }
}
