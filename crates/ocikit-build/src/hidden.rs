//! Hides secrets in values of options, for messages.

use std::borrow::Cow;

use ocikit_spec::hide_user_information;

/// The attributes of `--secret`, which are names and paths. Whatever else is given there may be the secret itself.
const SECRET_ATTRIBUTES: [&str; 5] = ["id", "src", "source", "env", "type"];

/// Parts of the names of attributes that hold secrets.
const SECRET_NAMES: [&str; 9] =
    ["secret", "token", "password", "passwd", "credential", "access_key", "account_key", "api_key", "private_key"];

/// Replaces what may be a secret in the value of an option by `***`: user information of URLs, attributes with names such as
/// `secret_access_key`, and with the option `secret` all but the names and paths of secrets. Messages use it for every value that
/// they repeat.
///
/// ```
/// use ocikit_build::hide_secrets;
///
/// assert_eq!(hide_secrets("cache", "type=s3,session_token=abc,bucket=b"), "type=s3,session_token=***,bucket=b");
/// assert_eq!(hide_secrets("secret", "id=a,value=abc"), "id=a,value=***");
/// assert_eq!(hide_secrets("address", "tcp://alice:abc@host:1234"), "tcp://***@host:1234");
/// ```
pub fn hide_secrets<'a>(option: &str, text: &'a str) -> Cow<'a, str> {
    let mut shown: Vec<Cow<'_, str>> = Vec::new();
    let mut is_hidden = false;
    for field in text.split(',') {
        let (key, value) = field.split_once('=').map_or(("", field), |(key, value)| (key, value));
        let name = key.trim_matches([' ', '"']).to_lowercase().replace('-', "_");
        let is_secret = match option {
            "secret" => !SECRET_ATTRIBUTES.contains(&name.as_str()),
            _ => SECRET_NAMES.iter().any(|part| name.contains(part)),
        };
        if !is_secret || value.is_empty() {
            shown.push(field.into());
            continue;
        }
        is_hidden = true;
        shown.push(if key.is_empty() { "***".into() } else { format!("{key}=***").into() });
        if text.contains('"') {
            // A comma of a quoted value does not end it.
            break;
        }
    }
    let shown = if is_hidden { Cow::Owned(shown.join(",")) } else { Cow::Borrowed(text) };
    match hide_user_information(&shown) {
        Cow::Owned(hidden) => hidden.into(),
        Cow::Borrowed(_) => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden() {
        for (option, text, shown) in [
            ("cache", "type=s3,secret_access_key=x,bucket=b", "type=s3,secret_access_key=***,bucket=b"),
            ("cache", "type=gha,\"token=x,y\",scope=s", "type=gha,\"token=***"),
            ("cache", "type=gha,Token=x", "type=gha,Token=***"),
            ("cache", "ghcr.io/a/b:1", "ghcr.io/a/b:1"),
            ("secret", "id=a,foo=x", "id=a,foo=***"),
            ("secret", "x", "***"),
            ("secret", "id=a,x", "id=a,***"),
            ("secret", "id=a,src=b", "id=a,src=b"),
            ("builder", "linux/amd64=tcp://u:x@h:1", "linux/amd64=tcp://***@h:1"),
        ] {
            assert_eq!(hide_secrets(option, text), shown);
        }
    }
}
