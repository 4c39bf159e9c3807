use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::credentials::Secret;

/// The lifetime of a token without `expires_in`. Distribution's "Token Authentication Specification".
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);

/// Maximum time before its expiry from which a token is no longer used for new requests.
const MAX_EXPIRY_MARGIN: Duration = Duration::from_secs(60);

/// A token for a registry, and the time from which it is no longer used.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) secret: Secret,
    stale: SystemTime,
}

/// Why an answer of a token service cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidToken {
    #[error("it is not a token response: {0}")]
    Json(#[from] serde_json::Error),
    #[error("it contains no token")]
    Missing,
}

impl Token {
    /// Parses the answer of a token service, received at this time.
    pub(crate) fn parse(body: &[u8], now: SystemTime) -> Result<Token, InvalidToken> {
        let answer: TokenResponse = serde_json::from_slice(body)?;
        let texts = [answer.token, answer.access_token].into_iter().flatten();
        let secret = texts.map(|text| text.trim().to_owned()).find(|text| !text.is_empty());
        let secret = secret.ok_or(InvalidToken::Missing)?;
        let seconds = match answer.expires_in {
            Some(Value::Number(seconds)) => seconds.as_f64(),
            Some(Value::String(seconds)) => seconds.trim().parse().ok(),
            _ => None,
        };
        let lifetime = match seconds {
            Some(seconds) if seconds >= 1.0 => Duration::from_secs_f64(seconds.min(1e9)),
            _ => DEFAULT_LIFETIME,
        };
        let issued_at = answer.issued_at.as_ref().and_then(Value::as_str);
        let lifetime = remaining(lifetime, issued_at, now);
        // A short-lived token has a smaller margin, or it would never be used.
        Ok(Token { secret: Secret::new(secret), stale: now + lifetime - MAX_EXPIRY_MARGIN.min(lifetime / 4) })
    }

    /// Returns whether the token may be used for a request that starts now.
    pub(crate) fn is_fresh(&self, now: SystemTime) -> bool {
        now < self.stale
    }
}

/// Returns what remains of the lifetime of a token that the service may have cached. If nothing remains by the local
/// clock, the clocks disagree, and the full lifetime is returned.
fn remaining(lifetime: Duration, issued_at: Option<&str>, now: SystemTime) -> Duration {
    let issued = issued_at.and_then(|text| text.parse::<Timestamp>().ok()).map(SystemTime::from);
    let age = issued.and_then(|issued| now.duration_since(issued).ok()).unwrap_or_default();
    lifetime.checked_sub(age).filter(|rest| !rest.is_zero()).unwrap_or(lifetime)
}

#[derive(Deserialize)]
struct TokenResponse {
    token: Option<String>,
    /// The name in OAuth2 (google/go-containerregistry#54).
    access_token: Option<String>,
    /// A number by the specification; also a string (distribution/distribution#1746).
    expires_in: Option<Value>,
    issued_at: Option<Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_replaced_before_it_expires() {
        let now = SystemTime::from("2026-01-01T00:10:00Z".parse::<Timestamp>().unwrap());
        for (answer, seconds) in [
            (r#"{"token":"t"}"#, 45),
            (r#"{"access_token":"t","expires_in":300}"#, 240),
            (r#"{"token":"t","expires_in":3600}"#, 3540),
            (r#"{"token":"t","expires_in":"3600"}"#, 3540),
            (r#"{"token":"t","expires_in":300.0,"issued_at":null}"#, 240),
            (r#"{"token":"","access_token":" t\n","expires_in":null,"issued_at":7}"#, 45),
            (r#"{"token":"t","access_token":"u","expires_in":"soon","scope":{}}"#, 45),
            (r#"{"token":"t","expires_in":4}"#, 3),
            (r#"{"token":"t","expires_in":0}"#, 45),
            (r#"{"token":"t","expires_in":-5}"#, 45),
            (r#"{"token":"t","expires_in":300,"issued_at":"2026-01-01T00:10:00Z"}"#, 240),
            (r#"{"token":"t","expires_in":300,"issued_at":"2026-01-01T00:08:20.5Z"}"#, 150),
            // issued by a clock that is ahead, or far behind
            (r#"{"token":"t","expires_in":300,"issued_at":"2026-01-01T00:20:00Z"}"#, 240),
            (r#"{"token":"t","expires_in":300,"issued_at":"2025-01-01T00:00:00Z"}"#, 240),
            (r#"{"token":"t","expires_in":300,"issued_at":"yesterday"}"#, 240),
        ] {
            let token = Token::parse(answer.as_bytes(), now).unwrap();
            assert_eq!(token.secret.reveal(), "t");
            assert!(token.is_fresh(now + Duration::from_secs(seconds - 1)), "{answer}");
            assert!(!token.is_fresh(now + Duration::from_secs(seconds + 1)), "{answer}");
        }
    }

    #[test]
    fn invalid_token_responses_are_errors() {
        for answer in ["", "null", "[]", "{}", r#"{"token":""}"#, r#"{"token":null}"#, r#"{"token":1}"#] {
            assert!(Token::parse(answer.as_bytes(), SystemTime::UNIX_EPOCH).is_err(), "{answer}");
        }
        let absurd = Token::parse(br#"{"token":"t","expires_in":1e300}"#, SystemTime::UNIX_EPOCH).unwrap();
        assert!(absurd.is_fresh(SystemTime::UNIX_EPOCH));
    }
}
