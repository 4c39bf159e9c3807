//! The keys of an issuer: OpenID Connect Discovery 1.0, section 4, and RFC 7517.

use ocikit_sign::Http;
use serde::Deserialize;

use super::error::OidcError;
use super::issuer::TrustedIssuer;
use super::keys::KeySet;

/// The path of the discovery document below an issuer.
const DISCOVERY: &str = "/.well-known/openid-configuration";
/// The maximum size of a discovery document, in bytes.
const MAX_DISCOVERY_BYTES: usize = 64 << 10;

#[derive(Deserialize)]
struct DiscoveryJson {
    issuer: String,
    jwks_uri: String,
}

pub(super) async fn keys(issuer: &TrustedIssuer, http: &Http, max_bytes: usize) -> Result<KeySet, OidcError> {
    let url = match &issuer.jwks_url {
        Some(url) => url.clone(),
        None => discover(issuer, http).await?,
    };
    KeySet::parse(&get(issuer, http, &url, max_bytes).await?)
}

async fn discover(issuer: &TrustedIssuer, http: &Http) -> Result<String, OidcError> {
    let failed = |problem: &str| OidcError::Fetch { issuer: issuer.issuer.clone(), problem: problem.to_owned() };
    let url = format!("{}{DISCOVERY}", issuer.issuer.trim_end_matches('/'));
    let found = get(issuer, http, &url, MAX_DISCOVERY_BYTES).await?;
    let found: DiscoveryJson =
        serde_json::from_slice(&found).map_err(|_| failed("its discovery document has no `issuer` and `jwks_uri`"))?;
    if found.issuer != issuer.issuer {
        return Err(failed("its discovery document is of another issuer"));
    }
    if !Http::is_private(&found.jwks_uri) {
        return Err(failed("its keys are not at an https URL"));
    }
    Ok(found.jwks_uri)
}

async fn get(issuer: &TrustedIssuer, http: &Http, url: &str, max_bytes: usize) -> Result<Vec<u8>, OidcError> {
    let failed = |problem: String| OidcError::Fetch { issuer: issuer.issuer.clone(), problem };
    let response = http.get(url, &[("accept", "application/json")], max_bytes).await;
    let response = response.map_err(|error| failed(error.to_string()))?;
    match response.status {
        200 => Ok(response.body.to_vec()),
        status => Err(failed(format!("{url} answered {status}"))),
    }
}
