use std::collections::{BTreeMap, HashSet};
use std::sync::LazyLock;

use ocikit_spec::Repository;
use regex::Regex;
use serde::Deserialize;

use crate::error::{Error, PolicyEntry, PolicyFile, Result};
use crate::notation::identity::DistinguishedName;

/// A trust policy for images: the `trustpolicy.json` of notation. Notary Project, "Trust Policy for OCI artifacts".
#[derive(Debug, Clone)]
pub struct TrustPolicy {
    statements: Vec<Statement>,
}

/// The verification level of a trust policy statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// All checks are enforced.
    Strict,
    /// Integrity and authenticity are enforced; timestamp, expiry and revocation are logged.
    Permissive,
    /// Integrity is enforced; all other checks are logged.
    Audit,
    /// Nothing is verified.
    Skip,
}

/// What happens if a check fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Enforce,
    Log,
    Skip,
}

/// A statement that was checked.
#[derive(Debug, Clone)]
pub(crate) struct Statement {
    pub(crate) name: String,
    pub(crate) scopes: Vec<String>,
    pub(crate) level: Level,
    pub(crate) authenticity: Action,
    pub(crate) timestamp: Action,
    pub(crate) expiry: Action,
    pub(crate) revocation: Action,
    /// Whether a timestamp is required even if all certificates are still valid.
    pub(crate) always_timestamp: bool,
    /// Types and names of trust stores.
    pub(crate) stores: Vec<(String, String)>,
    /// `None` if every certificate in the trust stores is trusted.
    pub(crate) identities: Option<Vec<DistinguishedName>>,
    /// The identities as the policy spells them.
    pub(crate) identity_texts: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TrustPolicyJson {
    version: String,
    trust_policies: Vec<StatementJson>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StatementJson {
    name: String,
    registry_scopes: Vec<String>,
    signature_verification: VerificationJson,
    #[serde(default)]
    trust_stores: Vec<String>,
    #[serde(default)]
    trusted_identities: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct VerificationJson {
    level: String,
    #[serde(default, rename = "override")]
    overrides: BTreeMap<String, String>,
    #[serde(default)]
    verify_timestamp: Option<String>,
}

fn refuse(problem: impl ToString) -> Error {
    Error::policy(PolicyFile::TrustPolicy, problem)
}

impl TrustPolicy {
    /// Parses a policy.
    ///
    /// # Errors
    ///
    /// [`Error::Policy`] with the first rule of the specification that is violated.
    pub fn parse(json: &[u8]) -> Result<TrustPolicy> {
        let form: TrustPolicyJson = serde_json::from_slice(json).map_err(refuse)?;
        if form.version != "1.0" {
            return Err(refuse(format!("its version is {} and not 1.0", form.version)));
        }
        let (mut names, mut scopes) = (HashSet::new(), HashSet::new());
        let mut statements = Vec::new();
        for statement in form.trust_policies {
            let name = statement.name.clone();
            let statement =
                Statement::of(statement).map_err(|error| error.in_entry(PolicyEntry::Statement(name.clone())))?;
            if !names.insert(statement.name.clone()) {
                return Err(refuse(format!("two statements are called `{name}`")));
            }
            if let Some(scope) = statement.scopes.iter().find(|scope| !scopes.insert((*scope).clone())) {
                return Err(refuse(format!("two statements are for {scope}")));
            }
            statements.push(statement);
        }
        if statements.is_empty() {
            return Err(refuse("it has no statements"));
        }
        Ok(TrustPolicy { statements })
    }

    /// Returns the statement for a repository with its registry: the one with this scope, or else the one with the
    /// scope `*`. `scope` is empty for an image outside of a repository.
    ///
    /// # Errors
    ///
    /// [`Error::Policy`] if the policy has neither statement, or `scope` is not a repository.
    pub(crate) fn statement(&self, scope: &str) -> Result<&Statement> {
        let scope = match scope {
            "" => String::new(),
            scope => repository(scope)?,
        };
        let with = |wanted: &str| {
            self.statements.iter().find(|statement| statement.scopes.iter().any(|scope| scope == wanted))
        };
        with(&scope).or_else(|| with("*")).ok_or_else(|| match scope.as_str() {
            "" => refuse("it has no statement for every repository, and the image is in none"),
            scope => refuse(format!("it has no statement for {scope}")),
        })
    }

    /// Returns types and names of the trust stores that the statements use.
    pub fn stores(&self) -> impl Iterator<Item = (&str, &str)> {
        self.statements
            .iter()
            .flat_map(|statement| &statement.stores)
            .map(|(kind, name)| (kind.as_str(), name.as_str()))
    }
}

impl Statement {
    fn of(form: StatementJson) -> Result<Statement> {
        if form.name.is_empty() {
            return Err(refuse("it has no name"));
        }
        if form.registry_scopes.is_empty() {
            return Err(refuse("it has no scopes"));
        }
        if form.registry_scopes.len() > 1 && form.registry_scopes.iter().any(|scope| scope == "*") {
            return Err(refuse("the scope `*` cannot be combined with other scopes"));
        }
        let scopes = form.registry_scopes.iter();
        let scopes = scopes.map(|scope| if scope == "*" { Ok(scope.clone()) } else { repository(scope) });
        let scopes = scopes.collect::<Result<_>>()?;
        use Action::{Enforce, Log, Skip};
        let verification = &form.signature_verification;
        let (level, [mut authenticity, mut timestamp, mut expiry, mut revocation]) = match verification.level.as_str() {
            "strict" => (Level::Strict, [Enforce, Enforce, Enforce, Enforce]),
            "permissive" => (Level::Permissive, [Enforce, Log, Log, Log]),
            "audit" => (Level::Audit, [Log, Log, Log, Log]),
            "skip" => (Level::Skip, [Skip, Skip, Skip, Skip]),
            other => return Err(refuse(format!("`{other}` is not a verification level"))),
        };
        if level == Level::Skip {
            if !verification.overrides.is_empty()
                || !form.trust_stores.is_empty()
                || !form.trusted_identities.is_empty()
            {
                return Err(refuse("the level is `skip`, and it has stores, identities or overrides"));
            }
            if form.registry_scopes.iter().any(|scope| scope == "*") {
                return Err(refuse("the level is `skip` for the scope `*`"));
            }
        } else if form.trust_stores.is_empty() || form.trusted_identities.is_empty() {
            return Err(refuse("it names no trust stores, or no trusted identities"));
        }
        for (check, action) in &verification.overrides {
            let place = match check.as_str() {
                "authenticity" => &mut authenticity,
                "authenticTimestamp" => &mut timestamp,
                "expiry" => &mut expiry,
                "revocation" => &mut revocation,
                other => return Err(refuse(format!("the check `{other}` cannot be overridden"))),
            };
            *place = match (check.as_str(), action.as_str()) {
                (_, "enforce") => Enforce,
                (_, "log") => Log,
                ("revocation", "skip") => Skip,
                (check, action) => {
                    return Err(refuse(format!("`{action}` is nothing that {check} can be overridden with")));
                }
            };
        }
        let always_timestamp = match verification.verify_timestamp.as_deref() {
            None | Some("" | "always") => true,
            Some("afterCertExpiry") => false,
            Some(other) => return Err(refuse(format!("`{other}` is not a value of verifyTimestamp"))),
        };
        let stores = form.trust_stores.iter().map(|store| parse_store(store)).collect::<Result<_>>()?;
        let identities = identities(&form.trusted_identities)?;
        Ok(Statement {
            name: form.name,
            scopes,
            level,
            authenticity,
            timestamp,
            expiry,
            revocation,
            always_timestamp,
            stores,
            identities,
            identity_texts: form.trusted_identities,
        })
    }

    /// Returns whether it has a trust store of timestamp authorities.
    pub(crate) fn has_timestamp_store(&self) -> bool {
        self.stores.iter().any(|(kind, _)| kind == "tsa")
    }
}

/// Parses a scope: a registry and a repository. The grammar is that of notation. The registry is then normalized as
/// in references, so that `GHCR.io/acme/app` matches `ghcr.io/acme/app`.
///
/// An invalid scope is an error: it would never match, and the statement with the scope `*` would decide instead.
fn repository(scope: &str) -> Result<String> {
    const NAMES: &str = r"[a-z0-9]+(?:(?:[._]|__|-*)[a-z0-9]+)*";
    const LABEL: &str = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])";
    static GRAMMAR: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(&format!(r"\A{LABEL}(?:\.{LABEL})*(?::[0-9]+)?/{NAMES}(?:/{NAMES})*\z")).ok());
    let invalid = |why: &str| refuse(format!("the scope `{scope}` is not REGISTRY/REPOSITORY: {why}"));
    if !GRAMMAR.as_ref().is_some_and(|grammar| grammar.is_match(scope)) {
        return Err(invalid(match scope {
            "" => "it is empty",
            scope if scope.contains("://") => "remove the scheme",
            scope if scope.contains('*') => "only the scope `*` has a wildcard",
            scope if scope.contains('@') => "remove the digest",
            scope if !scope.contains('/') => "it has no repository",
            scope if scope.ends_with('/') => "remove the slash at the end",
            scope if scope.rsplit('/').next().is_some_and(|last| last.contains(':')) => "remove the tag",
            scope if scope.contains(|letter: char| letter.is_uppercase()) => "a repository is in lower case",
            _ => "it has a character that names do not have",
        }));
    }
    // By the grammar, only the registry can have upper-case letters here.
    let scope = scope.to_ascii_lowercase();
    let registry = scope.split('/').next().unwrap_or_default();
    match registry == "localhost" || registry.contains(['.', ':']) {
        true => scope.parse::<Repository>().map(|scope| scope.to_string()).map_err(|error| invalid(&error.to_string())),
        // The name of an OCI layout, as notation has it: `local/app`.
        false => Ok(scope),
    }
}

/// Parses `TYPE:NAME`, such as `ca:acme`. The name becomes the name of a directory, so the allowed characters exclude
/// paths.
fn parse_store(text: &str) -> Result<(String, String)> {
    let (kind, name) = text.split_once(':').ok_or_else(|| refuse(format!("`{text}` is not of the form TYPE:NAME")))?;
    if !["ca", "signingAuthority", "tsa"].contains(&kind) {
        return Err(refuse(format!("`{kind}` is not a type of trust store")));
    }
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "_.-".contains(letter);
    if name.is_empty() || !name.chars().all(is_plain) || name.chars().all(|letter| letter == '.') {
        return Err(refuse(format!("`{name}` cannot be the name of a trust store")));
    }
    Ok((kind.to_owned(), name.to_owned()))
}

fn identities(texts: &[String]) -> Result<Option<Vec<DistinguishedName>>> {
    if texts.iter().any(|text| text == "*") {
        return match texts.len() {
            1 => Ok(None),
            _ => Err(refuse("`*` cannot be combined with other identities")),
        };
    }
    let mut found: Vec<DistinguishedName> = Vec::new();
    for text in texts {
        let (kind, name) = text.split_once(':').ok_or_else(|| refuse(format!("`{text}` is not an identity")))?;
        // Notation ignores unknown kinds of identities; they match no signer.
        if kind != "x509.subject" {
            continue;
        }
        let identity = DistinguishedName::parse(name).map_err(refuse)?;
        if found.iter().any(|other| other.is_part_of(&identity) || identity.is_part_of(other)) {
            return Err(refuse(format!("`{name}` overlaps with another identity")));
        }
        found.push(identity);
    }
    Ok(Some(found))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    type Change = Box<dyn FnOnce(&mut serde_json::Value)>;

    fn policy(change: impl FnOnce(&mut serde_json::Value)) -> Result<TrustPolicy> {
        let mut value = json!({"version": "1.0", "trustPolicies": [{
            "name": "one",
            "registryScopes": ["registry.example/acme/app"],
            "signatureVerification": {"level": "strict"},
            "trustStores": ["ca:acme"],
            "trustedIdentities": ["x509.subject: C=US, ST=WA, O=Acme"],
        }]});
        change(&mut value);
        TrustPolicy::parse(value.to_string().as_bytes())
    }

    #[test]
    fn levels_and_overrides_are_those_of_the_specification() {
        for (level, actions) in [
            ("strict", [Action::Enforce; 4]),
            ("permissive", [Action::Enforce, Action::Log, Action::Log, Action::Log]),
            ("audit", [Action::Log; 4]),
        ] {
            let policy =
                policy(|value| value["trustPolicies"][0]["signatureVerification"]["level"] = level.into()).unwrap();
            let found = policy.statement("registry.example/acme/app").unwrap();
            assert_eq!([found.authenticity, found.timestamp, found.expiry, found.revocation], actions);
            assert!(policy.statement("registry.example/acme/other").is_err());
        }
        let changed = policy(|value| {
            value["trustPolicies"][0]["signatureVerification"]["override"] =
                json!({"expiry": "log", "revocation": "skip"});
        });
        let policy = changed.unwrap();
        let found = policy.statement("registry.example/acme/app").unwrap();
        assert_eq!((found.authenticity, found.expiry, found.revocation), (Action::Enforce, Action::Log, Action::Skip));
    }

    #[test]
    fn scopes_are_validated_as_notation_does() {
        let of = |scope: &str| policy(|value| value["trustPolicies"][0]["registryScopes"] = json!([scope]));
        for (scope, image) in [
            ("registry.example/acme/app", "registry.example/acme/app"),
            ("registry.example:5000/acme/app", "registry.example:5000/acme/app"),
            ("localhost:5000/a", "localhost:5000/a"),
            ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c"),
            ("docker.io/library/alpine", "docker.io/library/alpine"),
            ("Registry.Example/acme/app", "registry.example/acme/app"),
            ("registry.example/a__b/c-d.e_f", "registry.example/a__b/c-d.e_f"),
            ("local/app", "local/app"),
        ] {
            let policy = of(scope).unwrap_or_else(|error| panic!("{scope}: {error}"));
            assert!(policy.statement(image).is_ok(), "{scope}");
            assert!(policy.statement("registry.example/other").is_err(), "{scope}");
        }
        for (scope, hint) in [
            ("https://registry.example/acme/app", "remove the scheme"),
            ("oci://registry.example/acme/app", "remove the scheme"),
            ("registry.example/acme/app:1.0", "remove the tag"),
            ("registry.example:5000/acme/app:1.0", "remove the tag"),
            ("registry.example/acme/app@sha256:abc", "remove the digest"),
            ("registry.example/Acme/app", "lower case"),
            ("registry.example/acme/app/", "remove the slash"),
            ("registry.example/", "remove the slash"),
            ("registry.example", "it has no repository"),
            ("registry.example:5000", "it has no repository"),
            ("registry.example/acme/*", "wildcard"),
            ("*/acme/app", "wildcard"),
            ("registry.example/**", "wildcard"),
            ("", "it is empty"),
            ("/acme/app", "a character"),
            ("registry.example//app", "a character"),
            ("registry.example/acme/app?x", "a character"),
            ("registry.example/acme app", "a character"),
            (" registry.example/acme/app", "a character"),
            ("registry.example/acme/app\n", "a character"),
            ("registry..example/acme/app", "a character"),
            ("-registry.example/acme/app", "a character"),
            ("registry.example:/acme/app", "a character"),
            ("registry.example/.acme", "a character"),
            ("registry.example/acme_", "a character"),
            ("registry.example/a___b", "a character"),
            ("régistry.example/acme", "a character"),
        ] {
            let error = of(scope).expect_err(scope).to_string();
            assert!(error.contains(hint), "{scope}: {error}");
        }
        // The same repository in two spellings is in two statements.
        let twice = policy(|value| {
            let mut second = value["trustPolicies"][0].clone();
            second["name"] = "two".into();
            second["registryScopes"] = json!(["Registry.example/acme/app"]);
            value["trustPolicies"].as_array_mut().unwrap().push(second);
        });
        assert!(twice.unwrap_err().to_string().contains("two statements are for"));
        // An invalid image name is not matched by the statement for all repositories.
        let all = policy(|value| value["trustPolicies"][0]["registryScopes"] = json!(["*"])).unwrap();
        assert!(all.statement("registry.example/a").is_ok() && all.statement("").is_ok());
        for name in ["https://registry.example/a", "registry.example/a:1", "registry.example"] {
            assert!(matches!(all.statement(name), Err(Error::Policy { .. })), "{name}");
        }
    }

    #[test]
    fn invalid_statements_are_refused() {
        let changes: Vec<(&str, Change)> = vec![
            ("version", Box::new(|value| value["version"] = "2.0".into())),
            ("unknown field", Box::new(|value| value["more"] = 1.into())),
            ("no scope", Box::new(|value| value["trustPolicies"][0]["registryScopes"] = json!([]))),
            ("both scopes", Box::new(|value| value["trustPolicies"][0]["registryScopes"] = json!(["*", "a/b"]))),
            ("no repository", Box::new(|value| value["trustPolicies"][0]["registryScopes"] = json!(["a"]))),
            ("level", Box::new(|value| value["trustPolicies"][0]["signatureVerification"]["level"] = "lax".into())),
            (
                "skip with stores",
                Box::new(|value| value["trustPolicies"][0]["signatureVerification"]["level"] = "skip".into()),
            ),
            ("no stores", Box::new(|value| value["trustPolicies"][0]["trustStores"] = json!([]))),
            ("store type", Box::new(|value| value["trustPolicies"][0]["trustStores"] = json!(["any:x"]))),
            ("store path", Box::new(|value| value["trustPolicies"][0]["trustStores"] = json!(["ca:.."]))),
            ("store slash", Box::new(|value| value["trustPolicies"][0]["trustStores"] = json!(["ca:a/b"]))),
            ("no identity", Box::new(|value| value["trustPolicies"][0]["trustedIdentities"] = json!([]))),
            (
                "both identities",
                Box::new(|value| {
                    value["trustPolicies"][0]["trustedIdentities"] = json!(["*", "x509.subject:C=US,ST=WA,O=a"]);
                }),
            ),
            (
                "overlap",
                Box::new(|value| {
                    value["trustPolicies"][0]["trustedIdentities"] =
                        json!(["x509.subject:C=US,ST=WA,O=a", "x509.subject:C=US,ST=WA,O=a,CN=b"]);
                }),
            ),
            (
                "override",
                Box::new(|value| {
                    value["trustPolicies"][0]["signatureVerification"]["override"] = json!({"integrity": "log"});
                }),
            ),
            (
                "override skip",
                Box::new(|value| {
                    value["trustPolicies"][0]["signatureVerification"]["override"] = json!({"expiry": "skip"});
                }),
            ),
            (
                "twice",
                Box::new(|value| {
                    let first = value["trustPolicies"][0].clone();
                    value["trustPolicies"].as_array_mut().unwrap().push(first);
                }),
            ),
        ];
        for (name, change) in changes {
            assert!(matches!(policy(change), Err(Error::Policy { .. })), "{name}");
        }
        assert!(TrustPolicy::parse(b"{}").is_err());
    }
}
