//! Removes secrets from the text of a server's answer, which may repeat the headers of the request.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;

use crate::secret::Secret;

/// Replaces a secret.
const HIDDEN: &str = "***";

/// Shorter secrets are not removed: they are no real secrets, and their text appears in messages by chance.
const MIN_SECRET_BYTES: usize = 4;

/// Form fields that hold secrets.
const SECRET_FIELDS: [&str; 3] = ["refresh_token", "password", "access_token"];

/// The secrets of a request, in every encoding in which a server may repeat them.
#[derive(Debug, Clone, Default)]
pub struct Secrets(Vec<Secret>);

impl Secrets {
    /// Collects the secrets of an `Authorization` header, and of a form that was sent to a token service.
    pub(crate) fn of(authorization: Option<&HeaderValue>, form: Option<&[u8]>) -> Secrets {
        let mut secrets = Secrets::default();
        if let Some(header) = authorization.and_then(|value| std::str::from_utf8(value.as_bytes()).ok()) {
            secrets.add_header(header);
        }
        for (name, value) in reqwest::Url::parse("form:/").into_iter().flat_map(|mut url| {
            url.set_query(form.and_then(|form| std::str::from_utf8(form).ok()));
            url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect::<Vec<_>>()
        }) {
            if SECRET_FIELDS.contains(&name.as_str()) {
                secrets.add(&value);
            }
        }
        // A secret may contain another one; the longest is replaced first.
        secrets.0.sort_by_key(|secret| std::cmp::Reverse(secret.reveal().len()));
        secrets
    }

    fn add_header(&mut self, header: &str) {
        let (scheme, value) = header.split_once(' ').unwrap_or(("", header));
        self.add(value);
        if scheme.eq_ignore_ascii_case("basic")
            && let Ok(plain) = STANDARD.decode(value.trim())
            && let Ok(plain) = String::from_utf8(plain)
        {
            if let Some((_, password)) = plain.split_once(':') {
                self.add(password);
            }
            self.add(&plain);
        }
    }

    fn add(&mut self, secret: &str) {
        let plain = secret.trim();
        if plain.len() < MIN_SECRET_BYTES {
            return;
        }
        let unpadded = plain.trim_end_matches('=');
        let escaped: String = reqwest::Url::parse("form:/").map_or_else(
            |_| String::new(),
            |mut url| {
                url.query_pairs_mut().append_key_only(plain);
                url.query().unwrap_or_default().to_owned()
            },
        );
        for form in [plain, unpadded, &escaped, &STANDARD.encode(plain)] {
            if form.len() >= MIN_SECRET_BYTES && !self.0.iter().any(|known| known.reveal() == form) {
                self.0.push(Secret::new(form));
            }
        }
    }

    /// Returns a text without these secrets, and without anything that looks like a credential.
    pub fn hide(&self, text: &str) -> String {
        let mut shown = text.to_owned();
        for secret in &self.0 {
            if shown.contains(secret.reveal()) {
                shown = shown.replace(secret.reveal(), HIDDEN);
            }
        }
        hide_credentials(&shown)
    }
}

/// Replaces words that look like credentials: a long word behind `Basic` or `Bearer`, and JSON web tokens anywhere.
fn hide_credentials(text: &str) -> String {
    const MIN_CREDENTIAL_CHARACTERS: usize = 12;
    let is_inside = |letter: char| letter.is_ascii_alphanumeric() || "-._~+/=".contains(letter);
    let mut shown = String::with_capacity(text.len());
    let mut follows_scheme = false;
    for word in text.split_inclusive(|letter: char| !is_inside(letter)) {
        let end = word.trim_end_matches(|letter: char| !is_inside(letter)).len();
        let (word, separator) = word.split_at(end);
        let is_token = word.starts_with("eyJ") && word.contains('.');
        let is_secret = is_token || follows_scheme && word.len() >= MIN_CREDENTIAL_CHARACTERS;
        shown.push_str(if is_secret { HIDDEN } else { word });
        shown.push_str(separator);
        let is_scheme = ["basic", "bearer"].iter().any(|scheme| word.eq_ignore_ascii_case(scheme));
        follows_scheme = is_scheme || follows_scheme && word.is_empty();
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_a_request_are_redacted() {
        let basic = HeaderValue::from_static("Basic YWxpY2U6czNjcjN0L3Bhc3M=");
        let bearer = HeaderValue::from_static("Bearer abc/DEF-123");
        let form = b"grant_type=refresh_token&service=x&refresh_token=to%2Fken+1";
        for (secrets, text, shown) in [
            (Secrets::of(Some(&basic), None), "got Basic YWxpY2U6czNjcjN0L3Bhc3M=", "got Basic ***"),
            (Secrets::of(Some(&basic), None), "`YWxpY2U6czNjcjN0L3Bhc3M`", "`***`"),
            (Secrets::of(Some(&basic), None), "alice:s3cr3t/pass is wrong", "*** is wrong"),
            (Secrets::of(Some(&basic), None), "password s3cr3t/pass", "password ***"),
            (Secrets::of(Some(&basic), None), "password s3cr3t%2Fpass", "password ***"),
            (Secrets::of(Some(&bearer), None), "token abc/DEF-123 expired", "token *** expired"),
            (Secrets::of(None, Some(form)), "bad to/ken 1", "bad ***"),
            (Secrets::of(None, Some(form)), "bad to%2Fken+1", "bad ***"),
            (Secrets::default(), "Authorization: Bearer abcdefghijklmnop", "Authorization: Bearer ***"),
            (Secrets::default(), "x eyJhbGciOi.eyJzdWIi.c2ln y", "x *** y"),
            (Secrets::default(), "bearer token required", "bearer token required"),
            (Secrets::default(), "nothing here", "nothing here"),
        ] {
            assert_eq!(secrets.hide(text), shown, "{text}");
        }
        assert!(!format!("{:?}", Secrets::of(Some(&bearer), None)).contains("DEF"));
    }
}
