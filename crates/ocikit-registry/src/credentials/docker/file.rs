//! The format of docker's `config.json` and podman's `auth.json`, and which of its entries apply.

use std::collections::BTreeMap;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ocikit_http::Secret;
use ocikit_spec::{Registry, null_is_default};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::credentials::keychain::Credential;
use crate::credentials::scope::{CredentialScope, host_and_path};

/// The key under which docker stores the credential of Docker Hub.
pub(crate) const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// The user name that marks an identity token.
pub(crate) const TOKEN_USER: &str = "<token>";

/// The fields that are read; others are preserved.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct File {
    #[serde(alias = "Auths", deserialize_with = "null_is_default")]
    auths: BTreeMap<String, Option<AuthEntry>>,
    #[serde(alias = "CredHelpers", alias = "credhelpers", deserialize_with = "null_is_default")]
    cred_helpers: BTreeMap<String, String>,
    #[serde(alias = "CredsStore", alias = "credsstore", deserialize_with = "null_is_default")]
    creds_store: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AuthEntry {
    #[serde(alias = "Auth")]
    auth: Option<Secret>,
    #[serde(alias = "Username")]
    username: Option<String>,
    #[serde(alias = "Password")]
    password: Option<Secret>,
    #[serde(alias = "identityToken", alias = "IdentityToken")]
    identitytoken: Option<Secret>,
    #[serde(alias = "registryToken", alias = "RegistryToken")]
    registrytoken: Option<Secret>,
}

/// A possible source of a credential.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Candidate {
    /// A credential helper, and the server name to ask for.
    Helper { name: String, server: String },
    /// An entry of the file.
    Entry(Credential),
    /// An entry of the file that cannot be decoded.
    Broken(String),
}

/// A file that is not JSON in docker's format. serde's message is left out: it quotes the wrong value, which may be a
/// secret.
#[derive(Debug, thiserror::Error)]
#[error("the JSON is invalid at line {line}, column {column}")]
pub(crate) struct InvalidFile {
    line: usize,
    column: usize,
}

impl File {
    pub(crate) fn parse(text: &[u8]) -> Result<File, InvalidFile> {
        serde_json::from_slice(text).map_err(|error| InvalidFile { line: error.line(), column: error.column() })
    }

    /// Returns the possible sources of a credential for a repository, the most specific first. As in docker, a helper
    /// for the registry precedes the store for all registries, and that precedes entries of the file.
    pub(crate) fn candidates(&self, registry: &Registry, path: &str) -> Vec<Candidate> {
        let mut found = Vec::new();
        for name in names(registry, path) {
            let helpers = self.cred_helpers.iter().filter(|(key, _)| normalize(key) == name);
            found.extend(helpers.map(|(key, helper)| {
                // The credential of a whole registry is stored under one canonical name, however the key is spelled.
                let server = if name == registry.as_str() { server(&registry.into()) } else { key.clone() };
                Candidate::Helper { name: helper.clone(), server }
            }));
            let entries: Vec<_> = self.auths.iter().filter(|(key, _)| normalize(key) == name).collect();
            if name == registry.as_str() && !self.creds_store.is_empty() {
                let default = server(&registry.into());
                let mut servers: Vec<_> = entries.iter().map(|(key, _)| (*key).clone()).collect();
                servers.push(default);
                servers.dedup();
                let store = |server| Candidate::Helper { name: self.creds_store.clone(), server };
                found.extend(servers.into_iter().map(store));
            }
            for (key, entry) in entries {
                match entry.as_ref().map_or(Ok(None), AuthEntry::credential) {
                    Ok(credential) => found.extend(credential.map(Candidate::Entry)),
                    Err(problem) => found.push(Candidate::Broken(format!("the entry `{key}` {problem}"))),
                }
            }
        }
        found
    }

    /// Returns whether the file has a credential or a helper for exactly this scope.
    pub(crate) fn mentions(&self, scope: &CredentialScope) -> bool {
        let name = scope.to_string();
        let named = |key: &String| normalize(key) == name;
        self.cred_helpers.keys().any(named)
            || self.auths.iter().any(|(key, entry)| {
                named(key) && entry.as_ref().is_some_and(|entry| entry.credential().is_ok_and(|found| found.is_some()))
            })
    }

    /// Returns the helper that stores new credentials for a scope.
    ///
    /// # Errors
    ///
    /// The name of a helper that stores the credentials of the whole registry, for a scope with a path: the protocol of
    /// helpers has servers only, and the file must not get a secret that a helper is meant to keep.
    pub(crate) fn keeper(&self, scope: &CredentialScope) -> Result<Option<&str>, &str> {
        let named = |name: &str| {
            let mut helpers = self.cred_helpers.iter();
            helpers.find(|(key, _)| normalize(key) == name).map(|(_, helper)| helper.as_str())
        };
        let store = Some(self.creds_store.as_str()).filter(|store| !store.is_empty());
        let own = named(&scope.to_string());
        match (own.or_else(|| named(scope.registry().as_str())).or(store), scope.path()) {
            (Some(helper), Some(_)) if own.is_none() => Err(helper),
            (helper, _) => Ok(helper),
        }
    }
}

impl AuthEntry {
    fn credential(&self) -> Result<Option<Credential>, &'static str> {
        let is_set = |secret: &&Secret| !secret.reveal().is_empty();
        if let Some(token) = self.registrytoken.as_ref().filter(is_set) {
            return Ok(Some(Credential::Bearer(token.clone())));
        }
        if let Some(token) = self.identitytoken.as_ref().filter(is_set) {
            return Ok(Some(Credential::Identity(token.clone())));
        }
        if let Some(auth) = self.auth.as_ref().filter(is_set) {
            let (username, password) = decode(auth).ok_or("has an `auth` that is not a user and a password")?;
            return Ok(Some(credential_of(username, password)));
        }
        Ok(match (&self.username, &self.password) {
            (Some(username), Some(password)) if !username.is_empty() => {
                Some(credential_of(username.clone(), password.clone()))
            }
            _ => None,
        })
    }
}

/// Returns the credential for a user and a password; the user `<token>` marks an identity token.
pub(crate) fn credential_of(username: String, password: Secret) -> Credential {
    if username == TOKEN_USER { Credential::Identity(password) } else { Credential::Password { username, password } }
}

fn decode(auth: &Secret) -> Option<(String, Secret)> {
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    // Go's decoder skips line breaks.
    let text = Zeroizing::new(auth.reveal().replace(char::is_whitespace, ""));
    let bytes = Zeroizing::new(GeneralPurpose::new(&STANDARD, lenient).decode(text.as_str()).ok()?);
    let (username, password) = std::str::from_utf8(&bytes).ok()?.split_once(':')?;
    // Docker pads passwords with zero bytes and removes them when reading (spring-projects/spring-boot#45290).
    Some((username.to_owned(), Secret::new(password.trim_end_matches('\0'))))
}

/// Returns the names under which a credential for a repository may be stored, the most specific first.
fn names(registry: &Registry, path: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        names.push(format!("{registry}/{rest}"));
        rest = rest.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
    names.push(registry.to_string());
    names
}

/// Returns the canonical name of a key. Docker writes a URL with the version of an old API, other tools write the host.
pub(crate) fn normalize(key: &str) -> String {
    let (host, path) = host_and_path(key);
    let host = host.parse::<Registry>().map_or_else(|_| host.to_owned(), |registry| registry.to_string());
    path.map_or_else(|| host.clone(), |path| format!("{host}/{path}"))
}

/// Returns the name of a scope for helpers, and as the key of a new entry.
pub(crate) fn server(scope: &CredentialScope) -> String {
    match scope.path() {
        None if scope.registry().is_docker_hub() => DOCKER_HUB_KEY.to_owned(),
        _ => scope.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(text: &str, reference: &str) -> Vec<Candidate> {
        let (registry, path) = reference.split_once('/').unwrap_or((reference, ""));
        File::parse(text.as_bytes()).unwrap().candidates(&registry.parse().unwrap(), path)
    }

    fn user(name: &str) -> Candidate {
        Candidate::Entry(Credential::password(name, "p"))
    }

    fn helper(name: &str, server: &str) -> Candidate {
        Candidate::Helper { name: name.to_owned(), server: server.to_owned() }
    }

    #[test]
    fn keys_are_normalized() {
        for key in ["docker.io", "https://index.docker.io/v1/", "index.docker.io", "http://registry-1.docker.io/v2"] {
            assert_eq!(normalize(key), "docker.io", "{key}");
        }
        for (key, name) in [
            ("https://host:5000", "host:5000"),
            ("https://host:5000/v2/", "host:5000"),
            ("host.io/ns/repo", "host.io/ns/repo"),
            ("Host.io./v1x", "host.io/v1x"),
            ("", ""),
        ] {
            assert_eq!(normalize(key), name, "{key}");
        }
    }

    #[test]
    fn the_most_specific_entry_wins() {
        let text = r#"{"auths":{"h":{"username":"host","password":"p"},"h/ns":{"username":"ns","password":"p"},
            "h/ns/repo":{"username":"repo","password":"p"},"h/n":{"username":"other","password":"p"}}}"#;
        assert_eq!(ask(text, "h/ns/repo"), [user("repo"), user("ns"), user("host")]);
        assert_eq!(ask(text, "h/ns/repository"), [user("ns"), user("host")]);
        assert_eq!(ask(text, "h"), [user("host")]);
        assert_eq!(ask(text, "other/ns/repo"), []);
        let text = r#"{"auths":{"https://HOST.example:05000/v2/":{"username":"host","password":"p"}}}"#;
        for name in ["host.example:5000/a", "Host.Example.:5000/a"] {
            assert_eq!(ask(text, name), [user("host")]);
        }
    }

    #[test]
    fn helpers_of_a_registry_do_not_store_for_a_repository() {
        let text = r#"{"credsStore":"store","credHelpers":{"h.io":"special","h.io/ns":"own"}}"#;
        let file = File::parse(text.as_bytes()).unwrap();
        let keeper = |scope: &str| file.keeper(&scope.parse().unwrap());
        assert_eq!(keeper("h.io"), Ok(Some("special")));
        assert_eq!(keeper("h.io/ns"), Ok(Some("own")));
        assert_eq!(keeper("h.io/other"), Err("special"));
        assert_eq!((keeper("other.io"), keeper("other.io/a")), (Ok(Some("store")), Err("store")));
        let none = File::default();
        assert_eq!(none.keeper(&"h.io/a".parse().unwrap()), Ok(None));
    }

    #[test]
    fn helpers_precede_entries_of_the_file() {
        let text = r#"{"auths":{"https://index.docker.io/v1/":{},"h.io":{"username":"host","password":"p"}},
            "credsStore":"store","credHelpers":{"h.io":"special"}}"#;
        assert_eq!(ask(text, "docker.io/a/b"), [helper("store", DOCKER_HUB_KEY)]);
        assert_eq!(ask(text, "h.io/a"), [helper("special", "h.io"), helper("store", "h.io"), user("host")]);
        assert_eq!(ask(text, "other.io/a"), [helper("store", "other.io")]);
        let text = r#"{"credHelpers":{"docker.io":"hub","https://h.io/":"special","h.io/ns":"own"}}"#;
        assert_eq!(ask(text, "docker.io/a/b"), [helper("hub", DOCKER_HUB_KEY)]);
        assert_eq!(ask(text, "h.io/ns/a"), [helper("own", "h.io/ns"), helper("special", "h.io")]);
    }

    #[test]
    fn parses_every_form_of_an_entry() {
        let entry = |text: &str| ask(&format!(r#"{{"auths":{{"h":{text}}}}}"#), "h").pop();
        let here = |credential| Some(Candidate::Entry(credential));
        for (text, expected) in [
            (r#"{"auth":"dXNlcjpwOnE="}"#, here(Credential::password("user", "p:q"))),
            (r#"{"Auth":"dXNl\ncjpw\r\nOnE="}"#, here(Credential::password("user", "p:q"))),
            (r#"{"auth":"dXNlcjpwOnE"}"#, here(Credential::password("user", "p:q"))),
            (r#"{"auth":"dTpwAAA="}"#, here(Credential::password("u", "p"))),
            (r#"{"username":"u","password":"p"}"#, here(Credential::password("u", "p"))),
            (r#"{"auth":"dTpw","identitytoken":"t"}"#, here(Credential::Identity("t".into()))),
            (r#"{"registrytoken":"t"}"#, here(Credential::Bearer("t".into()))),
            (r#"{"username":"<token>","password":"t"}"#, here(Credential::Identity("t".into()))),
            (r#"{"auth":""}"#, None),
            (r#"{"auth":null}"#, None),
            (r#"{"email":"x"}"#, None),
            ("{}", None),
        ] {
            assert_eq!(entry(text), expected, "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong_without_quoting_it() {
        for text in [r#"{"auths":{"h":"hunter2"}}"#, r#"{"auths":{"h":{"auth":{"hunter2":1}}}}"#, "hunter2"] {
            let problem = File::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(!problem.contains("hunter2"), "{problem}");
        }
        for auth in ["hunter2", "aHVudGVyMg=="] {
            let file = File::parse(format!(r#"{{"auths":{{"h":{{"auth":"{auth}"}}}}}}"#).as_bytes()).unwrap();
            let problem = "the entry `h` has an `auth` that is not a user and a password";
            assert_eq!(file.candidates(&"h".parse().unwrap(), ""), [Candidate::Broken(problem.to_owned())]);
        }
        assert!(File::parse(b"{}").is_ok());
        assert!(File::parse(br#"{"auths":{"h":null,"i":{"auth":null}},"CredHelpers":{},"credsstore":""}"#).is_ok());
        assert!(File::parse(br#"{"auths":null,"credsStore":null,"credHelpers":null,"HttpHeaders":{"a":"b"}}"#).is_ok());
    }
}
