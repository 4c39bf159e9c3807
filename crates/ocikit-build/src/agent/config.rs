//! `build.json`: what an agent builds.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ocikit::registry::Secret;
use ocikit_spec::{Digest, Reference, Registry};
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::limits::{MAX_CONFIG_BYTES, MAX_SECRETS};
use crate::error::{Error, Result};

/// The newest version of `build.json` that this agent reads.
pub const CONFIG_VERSION: u64 = 1;

/// What an agent builds, and where the result goes: the content of `build.json`.
///
/// Keys that are not in this list are refused, so that a spelling mistake is noticed. `null` and an empty text mean that
/// an optional key is not set.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BuildConfig {
    /// `job_id`: the name of the build. The image is `REGISTRY/builds/JOB_ID:latest`.
    pub job_id: String,
    /// `registry_url`: host and port of the registry.
    pub registry: Registry,
    /// `registry_token`: the token for that registry.
    pub registry_token: Option<Secret>,
    /// `registry_username`: the user whose password the token is. Without it, the token is a bearer token.
    pub registry_username: Option<String>,
    /// `registry_plain_http`: whether the registry has no TLS. A loopback registry needs no such key.
    pub registry_plain_http: bool,
    /// `base_image_digest`: the digest that the base image must have, as `sha256:HEX` or `NAME@sha256:HEX`.
    pub base_image: Option<RequestedBase>,
    /// `cache_scope`: the build cache is `REGISTRY/cache/SCOPE`. None without it.
    pub cache_scope: Option<String>,
    /// `dockerfile`: a Dockerfile for a source that has none.
    pub dockerfile: Option<String>,
    /// `runtime`: the runtime for which a Dockerfile is generated if there is no other.
    pub runtime: Option<String>,
    /// `source_path`: the directory to build.
    pub source_path: PathBuf,
    /// `build_args`: the values of `ARG`.
    pub build_args: BTreeMap<String, String>,
    /// `secrets`: the names of the secrets to request from the host.
    pub secrets: Vec<String>,
    /// `timeout_seconds`: the time limit; 0 means none.
    pub timeout: Option<Duration>,
    /// `network_mode`: whether the steps have a network.
    pub network: AgentNetwork,
    /// `attestations`: whether the provenance of BuildKit is pushed with the image, which then is an index.
    pub attestations: bool,
}

/// The network of the steps of an agent. The agent itself always reaches the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentNetwork {
    /// `egress`: that of the machine.
    Egress,
    /// `isolated`: none.
    Isolated,
}

/// The base image that a build must use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedBase {
    /// Its name, if it is given.
    pub name: Option<String>,
    /// Its digest.
    pub digest: Digest,
}

impl BuildConfig {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] if there is no file, and those of [`BuildConfig::parse`].
    pub fn read(path: &Path) -> Result<BuildConfig> {
        let missing = |_| Error::Missing { what: "the description of the build", path: path.display().to_string() };
        let file = File::open(path).map_err(missing)?;
        let mut text = Vec::new();
        file.take(MAX_CONFIG_BYTES + 1).read_to_end(&mut text).map_err(Error::failed("read build.json"))?;
        if text.len() as u64 > MAX_CONFIG_BYTES {
            return Err(problem("", format_args!("it has more than {MAX_CONFIG_BYTES} bytes")));
        }
        BuildConfig::parse(&text)
    }

    /// Parses the content of `build.json`.
    ///
    /// # Errors
    ///
    /// [`Error::Version`] for a newer version, [`Error::Config`] with the key that is missing, unknown, repeated, or has a
    /// value that cannot be used.
    pub fn parse(text: &[u8]) -> Result<BuildConfig> {
        let mut fields = Fields::parse(text, "")?;
        // Before anything else: a newer version may have other keys.
        if let Some(found) = fields.take::<u64>("version", "a number")?.filter(|found| *found != CONFIG_VERSION) {
            return Err(Error::Version { what: "build.json", found, supported: CONFIG_VERSION });
        }
        let job_id = fields.required::<String>("job_id", "a text")?;
        let registry = fields.required::<String>("registry_url", "a text")?;
        let registry: Registry = registry.parse().map_err(|error| problem("registry_url", error))?;
        let timeout = fields.required::<u64>("timeout_seconds", "a number of seconds")?;
        let base_image = fields.text("base_image_digest")?.map(|text| RequestedBase::parse(&text)).transpose()?;
        let cache_scope = fields.text("cache_scope")?.map(checked_scope).transpose()?;
        let network = match fields.required::<String>("network_mode", "a text")?.as_str() {
            "egress" => AgentNetwork::Egress,
            "isolated" => AgentNetwork::Isolated,
            _ => return Err(problem("network_mode", "it is not one of egress and isolated")),
        };
        let config = BuildConfig {
            registry,
            registry_token: fields.text("registry_token")?.map(Secret::new),
            registry_username: fields.text("registry_username")?,
            registry_plain_http: fields.take("registry_plain_http", "true or false")?.unwrap_or_default(),
            base_image,
            cache_scope,
            dockerfile: fields.text("dockerfile")?,
            runtime: fields.text("runtime")?,
            source_path: fields.required::<String>("source_path", "a text")?.into(),
            build_args: build_arguments(&mut fields)?,
            secrets: secrets(&mut fields)?,
            timeout: (timeout > 0).then(|| Duration::from_secs(timeout)),
            network,
            attestations: fields.take("attestations", "true or false")?.unwrap_or_default(),
            job_id,
        };
        fields.end()?;
        config.reference()?;
        Ok(config)
    }

    /// Returns the name of the image.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if `job_id` cannot be the name of a repository.
    pub fn reference(&self) -> Result<Reference> {
        let is_one_segment = !self.job_id.is_empty() && !self.job_id.contains(['/', ':', '@']);
        let text = format!("{}/builds/{}:latest", self.registry, self.job_id);
        match text.parse() {
            Ok(reference) if is_one_segment => Ok(reference),
            Ok(_) => Err(problem("job_id", "it is not one segment of the name of a repository")),
            Err(error) => Err(problem("job_id", error)),
        }
    }

    /// Returns the reference of the build cache.
    pub fn cache_reference(&self) -> Option<String> {
        Some(format!("{}/cache/{}", self.registry, self.cache_scope.as_ref()?))
    }
}

impl RequestedBase {
    fn parse(text: &str) -> Result<RequestedBase> {
        let (name, digest) = text.rsplit_once('@').map_or((None, text), |(name, digest)| (Some(name), digest));
        let digest = digest.parse().map_err(|error| problem("base_image_digest", error))?;
        Ok(RequestedBase { name: name.map(str::to_owned), digest })
    }
}

/// Checks a cache scope. It is not normalized: two scopes would then name one cache, and the token of the registry names
/// the repository exactly.
fn checked_scope(scope: String) -> Result<String> {
    const LENGTHS: std::ops::RangeInclusive<usize> = 3..=64;
    let is_allowed = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    let reason = match () {
        () if !scope.chars().all(is_allowed) => "it has other characters than lower case letters, digits and `-`",
        () if !LENGTHS.contains(&scope.len()) => "it has less than 3 or more than 64 characters",
        () if scope.starts_with('-') || scope.ends_with('-') || scope.contains("--") => {
            "it begins or ends with `-`, or has two of them in a row"
        }
        () => return Ok(scope),
    };
    Err(problem("cache_scope", reason))
}

fn build_arguments(fields: &mut Fields) -> Result<BTreeMap<String, String>> {
    let Some(mut inner) = fields.inner("build_args")? else { return Ok(BTreeMap::new()) };
    let names: Vec<String> = inner.entries.iter().map(|(name, _)| name.clone()).collect();
    if names.iter().any(|name| name.is_empty() || name.contains(['=', '\0'])) {
        return Err(problem("build_args", "a name is empty or contains `=`"));
    }
    names.into_iter().map(|name| Ok((name.clone(), inner.required(&name, "a text")?))).collect()
}

fn secrets(fields: &mut Fields) -> Result<Vec<String>> {
    let list = fields.take::<Vec<Box<RawValue>>>("secrets", "a list of objects")?.unwrap_or_default();
    if list.len() > MAX_SECRETS {
        return Err(problem("secrets", format_args!("it has more than {MAX_SECRETS} entries")));
    }
    let mut ids: Vec<String> = Vec::new();
    for (position, secret) in list.iter().enumerate() {
        let mut fields = Fields::parse(secret.get().as_bytes(), &format!("secrets[{position}]."))?;
        let id = fields.required::<String>("id", "a text")?;
        // For the host, which may read the value from a variable; the agent does not need it.
        fields.text("env_var")?;
        fields.end()?;
        let key = format!("secrets[{position}].id");
        let is_allowed = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
        if id.is_empty() || id.len() > 128 || !id.chars().all(is_allowed) || id.starts_with('.') {
            return Err(problem(&key, "it is not a name of letters, digits, `.`, `_` and `-`"));
        }
        if ids.contains(&id) {
            return Err(problem(&key, "two secrets have this name"));
        }
        ids.push(id);
    }
    Ok(ids)
}

fn problem(key: &str, problem: impl fmt::Display) -> Error {
    Error::Config { key: key.to_owned(), problem: problem.to_string() }
}

/// The fields of an object, in their order.
struct Fields {
    /// What precedes a key in messages: `secrets[0].`.
    prefix: String,
    entries: Vec<(String, Box<RawValue>)>,
}

impl Fields {
    fn parse(text: &[u8], prefix: &str) -> Result<Fields> {
        let Entries(entries) = serde_json::from_slice(text).map_err(|error| {
            // The message may repeat the text, which may be a secret.
            let place = format_args!("it is not a JSON object (line {}, column {})", error.line(), error.column());
            problem(prefix.trim_end_matches('.'), place)
        })?;
        let fields = Fields { prefix: prefix.to_owned(), entries };
        for (position, (key, _)) in fields.entries.iter().enumerate() {
            if fields.entries[..position].iter().any(|(earlier, _)| earlier == key) {
                return Err(fields.problem(key, "it is there twice"));
            }
        }
        Ok(fields)
    }

    fn problem(&self, key: &str, reason: impl fmt::Display) -> Error {
        problem(&format!("{}{key}", self.prefix), reason)
    }

    /// Removes a field and returns its value; `None` if it is not there or `null`.
    fn take<T: DeserializeOwned>(&mut self, key: &str, expected: &str) -> Result<Option<T>> {
        let Some(position) = self.entries.iter().position(|(found, _)| found == key) else { return Ok(None) };
        let (_, value) = self.entries.remove(position);
        let value = serde_json::from_str(value.get());
        value.map_err(|_| self.problem(key, format_args!("it is not {expected}")))
    }

    fn required<T: DeserializeOwned>(&mut self, key: &str, expected: &str) -> Result<T> {
        self.take(key, expected)?.ok_or_else(|| self.problem(key, "it is missing"))
    }

    /// Removes a text, which is not set if it is empty.
    fn text(&mut self, key: &str) -> Result<Option<String>> {
        Ok(self.take::<String>(key, "a text")?.filter(|text| !text.is_empty()))
    }

    /// Removes a field that is an object itself.
    fn inner(&mut self, key: &str) -> Result<Option<Fields>> {
        let Some(raw) = self.take::<Box<RawValue>>(key, "an object")? else { return Ok(None) };
        if raw.get() == "null" {
            return Ok(None);
        }
        Ok(Some(Fields::parse(raw.get().as_bytes(), &format!("{}{key}.", self.prefix))?))
    }

    /// Fails if a field is left.
    fn end(self) -> Result<()> {
        match self.entries.first() {
            None => Ok(()),
            Some((key, _)) => Err(self.problem(key, "it is not a key of this version")),
        }
    }
}

/// The entries of an object, with repeated keys.
struct Entries(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Entries, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn minimal() -> Value {
        json!({
            "job_id": "b1", "registry_url": "localhost:5000", "source_path": "/src", "timeout_seconds": 600,
            "network_mode": "egress",
        })
    }

    fn with(key: &str, value: Value) -> Vec<u8> {
        let mut config = minimal();
        config[key] = value;
        config.to_string().into_bytes()
    }

    #[test]
    fn every_key_is_read() {
        let mut all = minimal();
        let digest = Digest::sha256_of(b"base");
        for (key, value) in [
            ("version", json!(1)),
            ("registry_token", json!("t0ken")),
            ("registry_username", json!("builder")),
            ("registry_plain_http", json!(true)),
            ("base_image_digest", json!(format!("alpine@{digest}"))),
            ("cache_scope", json!("team-a")),
            ("dockerfile", json!("FROM scratch\n")),
            ("runtime", json!("nodejs20")),
            ("build_args", json!({"A": "1", "B": ""})),
            ("secrets", json!([{"id": "npm_token", "env_var": "X"}, {"id": "b"}])),
            ("network_mode", json!("isolated")),
            ("attestations", json!(true)),
        ] {
            all[key] = value;
        }
        let config = BuildConfig::parse(all.to_string().as_bytes()).unwrap();
        assert_eq!(config.reference().unwrap().to_string(), "localhost:5000/builds/b1:latest");
        assert_eq!(config.cache_reference().unwrap(), "localhost:5000/cache/team-a");
        assert_eq!(config.base_image, Some(RequestedBase { name: Some("alpine".to_owned()), digest }));
        assert_eq!((config.secrets.len(), config.build_args["A"].as_str()), (2, "1"));
        assert_eq!((config.network, config.timeout), (AgentNetwork::Isolated, Some(Duration::from_secs(600))));
        assert!(!format!("{config:?}").contains("t0ken"));
    }

    #[test]
    fn hyp_6_problems_name_the_key() {
        let parsed = |text: &[u8]| BuildConfig::parse(text).map(drop);
        for key in ["job_id", "registry_url", "source_path", "timeout_seconds", "network_mode"] {
            let mut config = minimal();
            config.as_object_mut().unwrap().remove(key);
            let error = parsed(config.to_string().as_bytes()).unwrap_err();
            assert!(matches!(&error, Error::Config { key: found, .. } if found == key), "{error}");
        }
        for (key, value, shown) in [
            ("registry_tokne", json!("x"), "registry_tokne"),
            ("timeout_seconds", json!("600"), "timeout_seconds"),
            ("timeout_seconds", json!(-1), "timeout_seconds"),
            ("network_mode", json!("open"), "network_mode"),
            ("cache_scope", json!("Team A"), "cache_scope"),
            ("cache_scope", json!("ab"), "cache_scope"),
            ("job_id", json!("a/b"), "job_id"),
            ("job_id", json!("A"), "job_id"),
            ("base_image_digest", json!("latest"), "base_image_digest"),
            ("build_args", json!({"A": 1}), "build_args.A"),
            ("build_args", json!([]), "build_args"),
            ("secrets", json!([{"id": "../x"}]), "secrets[0].id"),
            ("secrets", json!([{"id": "a"}, {"id": "a"}]), "secrets[1].id"),
            ("secrets", json!([{"name": "a"}]), "secrets[0].id"),
            ("secrets", json!([{"id": "a", "value": "x"}]), "secrets[0].value"),
        ] {
            let error = parsed(&with(key, value)).unwrap_err();
            assert!(matches!(&error, Error::Config { key: found, .. } if found == shown), "{shown}: {error}");
        }
        let twice = br#"{"job_id":"a","job_id":"b"}"#;
        assert!(matches!(parsed(twice), Err(Error::Config { key, .. }) if key == "job_id"));
        for text in ["", "[]", "{", "{\"registry_token\":\"t0ken\"", "\"t0ken\""] {
            let error = parsed(text.as_bytes()).unwrap_err().to_string();
            assert!(!error.contains("t0ken"), "{error}");
        }
    }

    #[test]
    fn hyp_6_a_newer_version_is_a_version_error() {
        let mut newer = with("version", json!(2));
        newer.pop();
        newer.extend(br#","new_key":1}"#);
        assert!(matches!(BuildConfig::parse(&newer), Err(Error::Version { found: 2, supported: CONFIG_VERSION, .. })));
        assert!(BuildConfig::parse(&with("version", json!(0))).is_err());
    }

    #[test]
    fn null_and_empty_texts_are_not_set() {
        for key in ["registry_token", "cache_scope", "dockerfile", "base_image_digest", "runtime"] {
            BuildConfig::parse(&with(key, json!(""))).unwrap();
            BuildConfig::parse(&with(key, Value::Null)).unwrap();
        }
        for key in ["secrets", "build_args", "attestations"] {
            BuildConfig::parse(&with(key, Value::Null)).unwrap();
        }
        assert_eq!(BuildConfig::parse(&with("timeout_seconds", json!(0))).unwrap().timeout, None);
    }
}
