use std::collections::BTreeMap;

use ocikit_sign::Http;
use serde::Deserialize;

use super::algorithm::Algorithm;
use super::error::OidcError;

/// The default maximum age of a token, in minutes, from the time at which it was issued.
pub const DEFAULT_MAX_AGE_MINUTES: u32 = 10;
/// The default tolerance for clocks that differ, in seconds.
pub const DEFAULT_CLOCK_SKEW_SECONDS: u32 = 60;
/// The maximum tolerance, in seconds.
pub const MAX_CLOCK_SKEW_SECONDS: u32 = 300;
/// An issuer whose tokens authorize callers, and which of them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub struct TrustedIssuer {
    /// The name in messages.
    pub name: String,
    /// The issuer: the claim `iss`, and the URL below which the keys are found.
    pub issuer: String,
    /// The accepted audiences; one is sufficient.
    pub audiences: Vec<String>,
    /// The accepted workflows: `OWNER/REPOSITORY/PATH@REF`, the claim `job_workflow_ref`. Any workflow if empty.
    #[serde(default)]
    pub workflows: Vec<String>,
    /// Other claims that are required, with their accepted values.
    #[serde(default)]
    pub claims: BTreeMap<String, Accepted>,
    /// The accepted algorithms.
    #[serde(default = "rs256")]
    pub algorithms: Vec<Algorithm>,
    /// A file with the keys, which are then not requested.
    pub jwks_file: Option<String>,
    /// The URL of the keys; by default that of the issuer's discovery document.
    pub jwks_url: Option<String>,
    /// The maximum age in minutes, from the time at which the token was issued.
    #[serde(default = "max_age")]
    pub max_age_minutes: u32,
    /// Whether a token is also refused after its own expiry. Tokens of GitHub expire after 5 minutes, which a queue may
    /// take.
    #[serde(default = "enabled")]
    pub check_expiry: bool,
    /// The tolerance for clocks that differ, in seconds.
    #[serde(default = "clock_skew")]
    pub clock_skew_seconds: u32,
    /// The URL of GitHub, for the caller's output.
    pub github_url: Option<String>,
    /// The client id, for the caller's output.
    pub client_id: Option<String>,
}

/// One value or a list: the accepted values of a claim.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "an accepted value is a text, or a list of texts")]
pub enum Accepted {
    /// This value.
    One(String),
    /// One of these.
    More(Vec<String>),
}

impl Accepted {
    pub(super) fn values(&self) -> &[String] {
        match self {
            Accepted::One(value) => std::slice::from_ref(value),
            Accepted::More(values) => values,
        }
    }
}

fn rs256() -> Vec<Algorithm> {
    vec![Algorithm::Rs256]
}

fn max_age() -> u32 {
    DEFAULT_MAX_AGE_MINUTES
}

fn clock_skew() -> u32 {
    DEFAULT_CLOCK_SKEW_SECONDS
}

fn enabled() -> bool {
    true
}

impl TrustedIssuer {
    /// Creates an issuer that accepts RS256 and any workflow, with the default limits.
    pub fn new(name: impl Into<String>, issuer: impl Into<String>, audiences: Vec<String>) -> TrustedIssuer {
        TrustedIssuer {
            name: name.into(),
            issuer: issuer.into(),
            audiences,
            workflows: Vec::new(),
            claims: BTreeMap::new(),
            algorithms: rs256(),
            jwks_file: None,
            jwks_url: None,
            max_age_minutes: DEFAULT_MAX_AGE_MINUTES,
            check_expiry: true,
            clock_skew_seconds: DEFAULT_CLOCK_SKEW_SECONDS,
            github_url: None,
            client_id: None,
        }
    }

    /// Checks that an entry is complete.
    ///
    /// # Errors
    ///
    /// [`OidcError::Configuration`].
    pub fn check(&self) -> Result<(), OidcError> {
        let refuse =
            |problem: &str| Err(OidcError::Configuration { name: self.name.clone(), problem: problem.to_owned() });
        if self.audiences.is_empty() || self.audiences.iter().any(String::is_empty) {
            return refuse("it has no audience, so it would accept tokens for other services");
        }
        if self.algorithms.is_empty() {
            return refuse("it accepts no algorithm");
        }
        if self.claims.values().any(|accepted| accepted.values().is_empty()) {
            return refuse("a claim has no accepted value");
        }
        if self.clock_skew_seconds > MAX_CLOCK_SKEW_SECONDS {
            return refuse("its `clock-skew-seconds` is more than 300");
        }
        if self.jwks_file.is_some() && self.jwks_url.is_some() {
            return refuse("it has both `jwks-file` and `jwks-url`");
        }
        let is_private = |url: &str| Http::is_private(url);
        if self.jwks_file.is_none() && !is_private(self.jwks_url.as_deref().unwrap_or(&self.issuer)) {
            return refuse("its keys are not requested by https");
        }
        Ok(())
    }
}
