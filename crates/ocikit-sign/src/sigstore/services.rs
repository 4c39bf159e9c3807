//! Requests to signing services: certificates of Fulcio and tokens of GitHub.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ocikit_http::Document;
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::http::{Http, parsed, times};
use crate::key::Scheme;
use crate::pki::Certificate;
use crate::redact::address;
use crate::signer::{Signer, checked};

/// Requests a certificate for the identity in an OIDC token from Fulcio or a compatible certificate authority.
/// Returns the certificate and its chain.
///
/// The token is sent to this URL only, and only over TLS or a loopback address.
///
/// # Errors
///
/// [`Error::Unsupported`] if the token is malformed, or the URL has no TLS; [`Error::Service`] if the response is not
/// a certificate for this key.
pub async fn certify(http: &Http, authority: &str, token: &str, signer: &dyn Signer) -> Result<Vec<Certificate>> {
    if !Http::is_private(authority) {
        return Err(Error::Unsupported(format!(
            "a token is not sent to {}, where others can read it",
            address(authority)
        )));
    }
    let subject = subject(token)?;
    let scheme = Scheme::of_cosign(signer.public_key().kind());
    let proof = checked(signer, scheme, subject.as_bytes()).await?;
    let request = json!({
        "credentials": {"oidcIdentityToken": token},
        "publicKeyRequest": {
            "publicKey": {"content": signer.public_key().to_pem()},
            "proofOfPossession": STANDARD.encode(proof),
        },
    });
    let url = format!("{}/api/v2/signingCert", authority.trim_end_matches('/'));
    let answer = http.post(&url, JSON, &[], request.to_string().into_bytes(), MAX_RESPONSE_BYTES).await?;
    let refuse = |problem: String| Error::Service { place: address(&url), problem };
    let CertificateResponse { embedded, detached } = read(&url, &answer).map_err(|error| match error {
        // The error message of a service may repeat the token, which must not be shown.
        Error::Service { problem, .. } if token.split('.').any(|part| !part.is_empty() && problem.contains(part)) => {
            refuse(format!("it answers with status {}{}", answer.status, times(answer.attempts)))
        }
        error => error,
    })?;
    let issued = embedded.or(detached).ok_or_else(|| refuse("its response has no certificate".to_owned()))?;
    let certificates = Certificate::read_all(issued.chain.certificates.join("\n").as_bytes());
    let certificates = certificates.map_err(|error| refuse(error.to_string()))?;
    let key = certificates.first().map(Certificate::key);
    match key {
        Some(Ok(key)) if key == *signer.public_key() => Ok(certificates),
        _ => Err(refuse("its certificate is for another key".to_owned())),
    }
}

/// Requests the OIDC token of a GitHub workflow with the permission `id-token: write` for sigstore, from the URL and
/// with the secret that GitHub gives the workflow.
///
/// # Errors
///
/// Those of [`github_token_for`].
pub async fn github_token(http: &Http, url: &str, secret: &str) -> Result<Zeroizing<String>> {
    github_token_for(http, url, secret, "sigstore").await
}

/// Requests the OIDC token of a GitHub workflow as [`github_token`] does, for another service.
///
/// # Errors
///
/// [`Error::Unsupported`] if the URL has no TLS; [`Error::Service`] if the response is not a token.
pub async fn github_token_for(http: &Http, url: &str, secret: &str, audience: &str) -> Result<Zeroizing<String>> {
    if !Http::is_private(url) {
        return Err(Error::Unsupported("the address of GitHub's tokens has no TLS".to_owned()));
    }
    let mut url = parsed(url)?;
    url.append_query("audience", audience);
    let url = url.reveal();
    let bearer = Zeroizing::new(format!("Bearer {secret}"));
    let answer = http.get(url, &[("authorization", &bearer), ("accept", JSON)], MAX_RESPONSE_BYTES).await?;
    read::<GitHubTokenResponse>(url, &answer).map(|answer| Zeroizing::new(answer.value))
}

/// Returns the mail address or subject in a token, which is signed as proof of possession of the key. The token is
/// not verified; the authority does that.
fn subject(token: &str) -> Result<String> {
    #[derive(Deserialize)]
    struct Claims {
        sub: String,
        email: Option<String>,
    }
    let refuse = || Error::Unsupported("the identity token is not a JWT with a subject".to_owned());
    let parts: Vec<_> = token.split('.').collect();
    let [_, claims, _] = parts[..] else { return Err(refuse()) };
    let claims = URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).map_err(|_| refuse())?;
    let Claims { sub, email } = serde_json::from_slice(&claims).map_err(|_| refuse())?;
    Ok(email.filter(|email| !email.is_empty()).unwrap_or(sub))
}

/// Parses the JSON body of a successful response.
pub(super) fn read<T: for<'a> Deserialize<'a>>(url: &str, answer: &Document) -> Result<T> {
    let refuse = |problem: String| Error::Service { place: address(url), problem };
    if !(200..300).contains(&answer.status) {
        // Services explain errors in the body.
        let said = String::from_utf8_lossy(&answer.body);
        let said: String = said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
        let times = times(answer.attempts);
        return Err(refuse(format!("it answers with status {}{times}: {}", answer.status, said.trim())));
    }
    serde_json::from_slice(&answer.body).map_err(|error| refuse(format!("its response is malformed: {error}")))
}

pub(super) const JSON: &str = "application/json";
/// The maximum size of a response, in bytes.
pub(super) const MAX_RESPONSE_BYTES: usize = 1 << 20;

#[derive(Deserialize)]
struct CertificateResponse {
    #[serde(rename = "signedCertificateEmbeddedSct")]
    embedded: Option<CertificateChainJson>,
    #[serde(rename = "signedCertificateDetachedSct")]
    detached: Option<CertificateChainJson>,
}

#[derive(Deserialize)]
struct CertificateChainJson {
    chain: CertificatesJson,
}

#[derive(Deserialize)]
struct CertificatesJson {
    certificates: Vec<String>,
}

#[derive(Deserialize)]
struct GitHubTokenResponse {
    value: String,
}

#[cfg(test)]
mod tests;
