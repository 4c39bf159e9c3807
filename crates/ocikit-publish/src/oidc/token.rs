use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::error::OidcError;
use super::issuer::Accepted;

/// The maximum length of a token, in bytes. GitHub's have about 2 KiB.
pub const MAX_TOKEN_BYTES: usize = 16 << 10;

/// A token (RFC 7519) in the compact form of RFC 7515, section 3.1. Nothing of it is verified.
pub(super) struct Token<'a> {
    /// The signed bytes.
    pub(super) message: &'a str,
    pub(super) signature: Vec<u8>,
    pub(super) header: Header,
    pub(super) claims: Claims,
}

#[derive(Deserialize)]
pub(super) struct Header {
    pub(super) alg: String,
    pub(super) kid: Option<String>,
    /// Extensions that must be understood.
    crit: Option<Value>,
}

/// The claims of a token (RFC 7519, section 4.1).
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Claims {
    /// The issuer.
    pub issuer: String,
    /// The services that the token is for.
    pub audiences: Vec<String>,
    /// The time after which it is not valid, in seconds since 1970.
    pub expires: Option<i64>,
    /// The time before which it is not valid, in seconds since 1970.
    pub not_before: Option<i64>,
    /// The time at which it was made, in seconds since 1970.
    pub issued: Option<i64>,
    /// All claims.
    pub all: Map<String, Value>,
}

/// Only the issuer is shown: claims have names of users.
impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claims").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

/// Derived, so that a header or claim that stands twice is an error.
#[derive(Deserialize)]
struct ClaimsJson {
    iss: String,
    aud: Option<Accepted>,
    exp: Option<f64>,
    nbf: Option<f64>,
    iat: Option<f64>,
}

impl<'a> Token<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Token<'a>, OidcError> {
        let refuse = |problem| OidcError::Malformed { problem };
        if text.len() > MAX_TOKEN_BYTES {
            return Err(refuse("it has more than 16384 bytes"));
        }
        let parts: Vec<_> = text.split('.').collect();
        let [header, claims, signature] = parts[..] else {
            return Err(refuse("it does not have three parts, as a signed token has"));
        };
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| refuse("a part is not in base64url"));
        let header: Header = serde_json::from_slice(&decode(header)?)
            .map_err(|_| refuse("its header is not a JSON object with `alg`"))?;
        if header.crit.is_some() {
            return Err(refuse("it has extensions that must be understood (`crit`), which are not"));
        }
        let claims = Claims::parse(&decode(claims)?)?;
        let signature = decode(signature)?;
        let message = &text[..text.rfind('.').unwrap_or_default()];
        Ok(Token { message, signature, header, claims })
    }
}

impl Claims {
    fn parse(bytes: &[u8]) -> Result<Claims, OidcError> {
        let refuse = |problem| OidcError::Malformed { problem };
        let malformed = "its claims are not a JSON object with `iss`, or a registered claim has another type";
        let known: ClaimsJson = serde_json::from_slice(bytes).map_err(|_| refuse(malformed))?;
        let all: Map<String, Value> = serde_json::from_slice(bytes).map_err(|_| refuse(malformed))?;
        let audiences = known.aud.map(|audiences| audiences.values().to_vec()).unwrap_or_default();
        // The range of dates that anything can be compared with; 2^53 is the year 285 million.
        let seconds = |time: Option<f64>| match time {
            None => Ok(None),
            Some(time) if time.is_finite() && (0.0..9_007_199_254_740_992.0).contains(&time) => Ok(Some(time as i64)),
            Some(_) => Err(refuse("a time is out of range")),
        };
        let (expires, not_before, issued) = (seconds(known.exp)?, seconds(known.nbf)?, seconds(known.iat)?);
        Ok(Claims { issuer: known.iss, audiences, expires, not_before, issued, all })
    }
}
