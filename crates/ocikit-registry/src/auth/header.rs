//! The `Authorization` header of each scheme.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ocikit_http::header::HeaderValue;

use crate::credentials::{Credential, Secret};

/// Returns the header with the credential itself, where the registry accepts it.
pub(super) fn direct(credential: &Credential) -> Option<HeaderValue> {
    match credential {
        Credential::Bearer(token) => Some(bearer(token)),
        Credential::Password { .. } => basic(credential),
        Credential::Identity(_) => None,
    }
}

pub(super) fn basic(credential: &Credential) -> Option<HeaderValue> {
    let Credential::Password { username, password } = credential else { return None };
    let pair = zeroize::Zeroizing::new(format!("{username}:{}", password.reveal()));
    secret_header(format!("Basic {}", STANDARD.encode(pair.as_bytes())))
}

pub(super) fn bearer(token: &Secret) -> HeaderValue {
    secret_header(format!("Bearer {}", token.reveal())).unwrap_or(HeaderValue::from_static("Bearer"))
}

fn secret_header(text: String) -> Option<HeaderValue> {
    let text = zeroize::Zeroizing::new(text);
    let mut header = HeaderValue::from_str(&text).ok()?;
    header.set_sensitive(true);
    Some(header)
}
