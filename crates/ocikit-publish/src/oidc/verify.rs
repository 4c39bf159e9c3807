use jiff::Timestamp;
use ocikit_sign::Http;
use serde_json::Value;

use super::algorithm::Algorithm;
use super::error::OidcError;
use super::fetch;
use super::issuer::TrustedIssuer;
use super::keys::{KeySet, MAX_KEY_SET_BYTES};
use super::token::{Claims, Token};

/// The claim of GitHub that names the workflow which called for the token, with its ref.
const WORKFLOW_CLAIM: &str = "job_workflow_ref";
/// The maximum length of a value in a message, in characters.
const MAX_SHOWN_CHARS: usize = 200;

/// A token whose signature and claims were verified.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Caller {
    /// The entry of the issuer.
    pub issuer: TrustedIssuer,
    /// The claims.
    pub claims: Claims,
}

/// Verifies the token of a caller with the keys of its issuer, from a file or by HTTP. `read` returns the content of a
/// file.
///
/// # Errors
///
/// [`OidcError`]; [`OidcError::is_refusal`] tells whether the token is the reason.
pub async fn verify_token(
    text: &str,
    issuers: &[TrustedIssuer],
    read: &(dyn Fn(&str) -> std::io::Result<Vec<u8>> + Sync),
    http: &Http,
    now: Timestamp,
) -> Result<Caller, OidcError> {
    let token = Token::parse(text)?;
    let issuer = select(&token, issuers)?;
    let keys = match &issuer.jwks_file {
        Some(path) => {
            let bytes = read(path).map_err(|source| OidcError::KeyFile { path: path.clone(), source })?;
            KeySet::parse(&bytes)?
        }
        None => fetch::keys(issuer, http, MAX_KEY_SET_BYTES).await?,
    };
    check(&token, issuer, &keys, now)
}

/// Verifies the token of a caller with keys that are known.
///
/// # Errors
///
/// [`OidcError`].
pub fn verify_with(text: &str, issuers: &[TrustedIssuer], keys: &KeySet, now: Timestamp) -> Result<Caller, OidcError> {
    let token = Token::parse(text)?;
    check(&token, select(&token, issuers)?, keys, now)
}

/// Returns the entry of the issuer that a token names, before its signature is verified: nothing is requested for a token
/// that would be refused anyway.
fn select<'a>(token: &Token<'_>, issuers: &'a [TrustedIssuer]) -> Result<&'a TrustedIssuer, OidcError> {
    if issuers.is_empty() {
        return Err(OidcError::NoIssuers);
    }
    let named: Vec<_> = issuers.iter().filter(|issuer| issuer.issuer == token.claims.issuer).collect();
    // An issuer may stand in several entries, for several audiences.
    let fits = |issuer: &&&TrustedIssuer| issuer.audiences.iter().any(|one| token.claims.audiences.contains(one));
    let Some(issuer) = named.iter().find(fits).or(named.first()).copied() else {
        let expected = list(issuers.iter().map(|issuer| issuer.issuer.as_str()));
        return Err(OidcError::Issuer { expected, provided: shown(&token.claims.issuer) });
    };
    issuer.check()?;
    algorithm(token, issuer)?;
    Ok(issuer)
}

fn algorithm(token: &Token<'_>, issuer: &TrustedIssuer) -> Result<Algorithm, OidcError> {
    let found = Algorithm::of(&token.header.alg).filter(|found| issuer.algorithms.contains(found));
    found.ok_or_else(|| OidcError::Algorithm {
        expected: list(issuer.algorithms.iter().map(|algorithm| algorithm.name())),
        provided: shown(&token.header.alg),
    })
}

fn check(token: &Token<'_>, issuer: &TrustedIssuer, keys: &KeySet, now: Timestamp) -> Result<Caller, OidcError> {
    let algorithm = algorithm(token, issuer)?;
    let id = token.header.kid.as_deref();
    if !keys.has(id) {
        return Err(OidcError::Signature { problem: "the issuer has no key with the id that it names" });
    }
    if !keys.verifies(id, algorithm, token.message.as_bytes(), &token.signature) {
        return Err(OidcError::Signature { problem: "its signature is not one of the issuer's keys" });
    }
    let claims = &token.claims;
    check_times(claims, issuer, now.as_second())?;
    if !issuer.audiences.iter().any(|audience| claims.audiences.contains(audience)) {
        let (expected, provided) = (list(&issuer.audiences), list(&claims.audiences));
        return Err(OidcError::Audience { expected, provided });
    }
    if !issuer.workflows.is_empty() {
        check_claim(claims, WORKFLOW_CLAIM, &issuer.workflows)?;
    }
    for (name, accepted) in &issuer.claims {
        check_claim(claims, name, accepted.values())?;
    }
    Ok(Caller { issuer: issuer.clone(), claims: claims.clone() })
}

fn check_times(claims: &Claims, issuer: &TrustedIssuer, now: i64) -> Result<(), OidcError> {
    let skew = i64::from(issuer.clock_skew_seconds);
    let refuse = |problem: String| Err(OidcError::Time { problem });
    let Some(issued) = claims.issued else {
        return refuse("it does not say when it was issued (`iat`)".to_owned());
    };
    if issued - skew > now {
        return refuse(format!("it was issued in the future: `iat` is {issued}, and it is {now}"));
    }
    let limit = i64::from(issuer.max_age_minutes) * 60;
    if now - issued > limit + skew {
        let age = now - issued;
        return refuse(format!("it is too old: expected at most {limit} seconds, provided {age}"));
    }
    if let Some(not_before) = claims.not_before.filter(|time| time - skew > now) {
        return refuse(format!("it is not valid yet: `nbf` is {not_before}, and it is {now}"));
    }
    match claims.expires {
        None if issuer.check_expiry => refuse("it does not say when it expires (`exp`)".to_owned()),
        Some(expires) if issuer.check_expiry && now >= expires + skew => {
            refuse(format!("it has expired: `exp` is {expires}, and it is {now}"))
        }
        _ => Ok(()),
    }
}

fn check_claim(claims: &Claims, name: &str, accepted: &[String]) -> Result<(), OidcError> {
    let found = claims.all.get(name);
    let text = found.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    let is_scalar = matches!(found, Some(Value::String(_) | Value::Bool(_) | Value::Number(_)));
    if is_scalar && text.as_ref().is_some_and(|text| accepted.contains(text)) {
        return Ok(());
    }
    let provided = text.map_or_else(|| "nothing".to_owned(), |text| format!("`{}`", shown(&text)));
    Err(OidcError::Claim { claim: name.to_owned(), expected: list(accepted), provided })
}

fn list<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> String {
    let quoted: Vec<_> = texts.into_iter().map(|text| format!("`{}`", shown(text.as_ref()))).collect();
    if quoted.is_empty() { "none".to_owned() } else { shown(&quoted.join(" or ")) }
}

/// Returns a text of an unverified token for a message: on one line and bounded.
fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_SHOWN_CHARS).collect()
}
