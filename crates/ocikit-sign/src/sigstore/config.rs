use std::fmt;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, PolicyFile, Result};
use crate::redact::{Redacted, RedactedList};
use crate::sigstore::json::Validity;

/// A sigstore signing configuration: the services that a signer uses.
#[derive(Debug, Clone)]
pub struct SigningConfig(SigningConfigJson);

/// The services of a configuration that were selected.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServiceUrls {
    /// The certificate authority, if there is one.
    pub authority: Option<String>,
    /// The transparency logs; each gets an entry.
    pub logs: Vec<LogUrl>,
    /// The timestamp authorities; each provides a timestamp.
    pub timestamps: Vec<String>,
}

ocikit_spec::setters! {
    ServiceUrls {
        authority: Option<String>,
        logs: Vec<LogUrl>,
        timestamps: Vec<String>,
    }
}

impl fmt::Debug for ServiceUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceUrls")
            .field("authority", &self.authority.as_deref().map(Redacted))
            .field("logs", &self.logs)
            .field("timestamps", &RedactedList(&self.timestamps))
            .finish()
    }
}

/// The address and API version of a transparency log.
#[derive(Clone, PartialEq, Eq)]
pub struct LogUrl {
    /// The base URL of the API.
    pub url: String,
    /// The version of Rekor's API.
    pub version: LogVersion,
}

impl fmt::Debug for LogUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogUrl").field("url", &Redacted(&self.url)).field("version", &self.version).finish()
    }
}

/// A version of Rekor's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogVersion {
    /// Version 1, whose entries have a time signed by the log.
    One,
    /// Version 2, whose entries have no time; a timestamp authority provides it.
    Two,
}

impl SigningConfig {
    /// Parses a `signing_config.json` of version 0.2, as published by sigstore and written by `cosign signing-config
    /// create`.
    ///
    /// # Errors
    ///
    /// [`Error::Policy`] if it has another media type or version, or unknown fields.
    pub fn parse(json: &[u8]) -> Result<SigningConfig> {
        let json: SigningConfigJson = serde_json::from_slice(json).map_err(|error| refuse(error.to_string()))?;
        match json.media_type.as_str() {
            "application/vnd.dev.sigstore.signingconfig.v0.2+json" => Ok(SigningConfig(json)),
            other => Err(refuse(format!("it is of type {other}"))),
        }
    }

    /// Selects the services to use at a time.
    ///
    /// # Errors
    ///
    /// [`Error::Policy`] if required services are missing, or support no known API version.
    pub fn services(&self, now: Timestamp) -> Result<ServiceUrls> {
        let SigningConfigJson { ca_urls, rekor_tlog_urls, rekor_tlog_config, tsa_urls, tsa_config, .. } = &self.0;
        let authority = choose("authority", ca_urls, &SelectionJson::default(), &[1], now)?;
        let version = |version| if version == 1 { LogVersion::One } else { LogVersion::Two };
        let logs = choose("transparency log", rekor_tlog_urls, rekor_tlog_config, &[2, 1], now)?;
        let timestamps = choose("timestamp authority", tsa_urls, tsa_config, &[1], now)?;
        Ok(ServiceUrls {
            authority: authority.into_iter().next().map(|service| service.url.clone()),
            logs: logs
                .into_iter()
                .map(|log| LogUrl { url: log.url.clone(), version: version(log.major_api_version) })
                .collect(),
            timestamps: timestamps.into_iter().map(|service| service.url.clone()).collect(),
        })
    }
}

/// Selects the number of services that the selector asks for. Only services with the first of `versions` that any of
/// them has are considered, the newest per operator, in order from the newest.
fn choose<'a>(
    what: &str,
    all: &'a [ServiceJson],
    selection: &SelectionJson,
    versions: &[u32],
    now: Timestamp,
) -> Result<Vec<&'a ServiceJson>> {
    let valid: Vec<_> = all.iter().filter(|service| service.valid_for.holds(now)).collect();
    if valid.is_empty() {
        return if all.is_empty() { Ok(Vec::new()) } else { Err(refuse(format!("no {what} in it is used at {now}"))) };
    }
    let of = |version: u32| valid.iter().copied().filter(move |service| service.major_api_version == version);
    let spoken = versions.iter().find(|version| of(**version).next().is_some());
    let mut spoken: Vec<_> = spoken.into_iter().flat_map(|version| of(*version)).collect();
    spoken.sort_by_key(|service| std::cmp::Reverse(service.valid_for.start()));
    let mut chosen: Vec<&ServiceJson> = Vec::new();
    for service in spoken {
        if chosen.iter().all(|other| other.operator != service.operator) {
            chosen.push(service);
        }
    }
    let wanted = match (selection.selector.as_str(), selection.count) {
        ("" | "ANY", _) => 1,
        ("ALL", _) => chosen.len().max(1),
        ("EXACT", Some(count)) if count > 0 => count,
        _ => return Err(refuse(format!("the selector of {what}s is not supported"))),
    };
    if chosen.len() < wanted {
        return Err(refuse(format!(
            "it demands {wanted} {what}, and has {} of a version that is spoken here",
            chosen.len()
        )));
    }
    chosen.truncate(wanted);
    Ok(chosen)
}

fn refuse(problem: String) -> Error {
    Error::policy(PolicyFile::SigningConfig, problem)
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SigningConfigJson {
    media_type: String,
    #[serde(default)]
    ca_urls: Vec<ServiceJson>,
    /// Not used: the caller provides the token.
    #[serde(rename = "oidcUrls")]
    _oidc_urls: Option<Value>,
    #[serde(default)]
    rekor_tlog_urls: Vec<ServiceJson>,
    #[serde(default)]
    rekor_tlog_config: SelectionJson,
    #[serde(default)]
    tsa_urls: Vec<ServiceJson>,
    #[serde(default)]
    tsa_config: SelectionJson,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ServiceJson {
    url: String,
    #[serde(default)]
    major_api_version: u32,
    #[serde(default)]
    valid_for: Validity,
    #[serde(default)]
    operator: String,
}

impl fmt::Debug for ServiceJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceJson").field("url", &Redacted(&self.url)).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SelectionJson {
    #[serde(default)]
    selector: String,
    count: Option<usize>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn services(change: impl FnOnce(&mut Value)) -> Result<ServiceUrls> {
        let service = |url: &str, version: u32, start: &str, operator: &str| {
            json!({
                "url": url, "majorApiVersion": version, "validFor": {"start": start}, "operator": operator,
            })
        };
        let mut value = json!({
            "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
            "caUrls": [service("https://ca", 1, "2020-01-01T00:00:00Z", "a")],
            "oidcUrls": [service("https://idp", 1, "2020-01-01T00:00:00Z", "a")],
            "rekorTlogUrls": [
                service("https://v1", 1, "2020-01-01T00:00:00Z", "a"),
                service("https://old", 2, "2020-01-01T00:00:00Z", "a"),
                service("https://new", 2, "2025-01-01T00:00:00Z", "a"),
                service("https://next", 2, "2099-01-01T00:00:00Z", "a"),
                service("https://other", 2, "2024-01-01T00:00:00Z", "b"),
            ],
            "rekorTlogConfig": {"selector": "ANY"},
            "tsaUrls": [service("https://tsa", 1, "2020-01-01T00:00:00Z", "a")],
            "tsaConfig": {"selector": "ANY"},
        });
        change(&mut value);
        SigningConfig::parse(value.to_string().as_bytes())?.services("2026-06-01T00:00:00Z".parse().unwrap())
    }

    #[test]
    fn the_newest_service_of_each_operator_is_selected() {
        let log = |url: &str, version| LogUrl { url: url.to_owned(), version };
        let [new, other] = ["https://new", "https://other"].map(|url| log(url, LogVersion::Two));
        let found = services(|_| {}).unwrap();
        assert_eq!(found.authority.as_deref(), Some("https://ca"));
        assert_eq!((found.logs, found.timestamps), (vec![new.clone()], vec!["https://tsa".to_owned()]));
        // The older version is used if no service has the newer one.
        let found = services(|config| config["rekorTlogUrls"].as_array_mut().unwrap().truncate(1)).unwrap();
        assert_eq!(found.logs, [log("https://v1", LogVersion::One)]);
        for selection in [json!({"selector": "ALL"}), json!({"selector": "EXACT", "count": 2})] {
            let found = services(|config| config["rekorTlogConfig"] = selection).unwrap();
            assert_eq!(found.logs, [new.clone(), other.clone()]);
        }
        let none = services(|config| {
            *config = json!({"mediaType": config["mediaType"]});
        });
        assert_eq!(none.unwrap(), ServiceUrls::default());
    }

    #[test]
    fn unavailable_services_are_refused() {
        let changes: [&dyn Fn(&mut Value); 8] = [
            &|config| config["rekorTlogConfig"] = json!({"selector": "EXACT", "count": 3}),
            &|config| config["rekorTlogConfig"] = json!({"selector": "EXACT"}),
            &|config| config["rekorTlogConfig"] = json!({"selector": "SOME"}),
            &|config| config["rekorTlogUrls"] = json!([{"url": "https://v3", "majorApiVersion": 3}]),
            &|config| config["tsaUrls"][0]["validFor"] = json!({"end": "2021-01-01T00:00:00Z"}),
            &|config| config["mediaType"] = json!("application/vnd.dev.sigstore.signingconfig.v0.3+json"),
            &|config| config["unknown"] = json!(1),
            &|config| config["caUrls"] = json!([{"url": "https://ca", "majorApiVersion": 2}]),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            assert!(matches!(services(change), Err(Error::Policy { .. })), "{number}");
        }
    }
}
