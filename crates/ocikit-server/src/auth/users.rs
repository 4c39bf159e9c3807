use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ocikit_spec::{Algorithm, Digest};
use subtle::ConstantTimeEq;

use crate::auth::scope::{Permission, Resource, Scope};
use crate::pattern::Pattern;
use crate::rules::Switch;

/// Users, their permissions, and how clients authenticate.
///
/// ```
/// use ocikit_server::{Authentication, Grant, User};
///
/// let anyone_reads = Authentication::basic([User::new("alice", "secret")]).anonymous(vec![Grant::pull("**")]);
/// assert!(!format!("{anyone_reads:?}").contains("secret"));
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Authentication {
    /// The authentication scheme.
    pub scheme: Scheme,
    /// The known users.
    pub users: Vec<User>,
    /// What is allowed without credentials; nothing by default.
    pub anonymous: Vec<Grant>,
    /// The answer of `/v2/` to a request without credentials.
    pub ping: Ping,
}

ocikit_spec::setters! {
    Authentication {
        scheme: Scheme,
        users: Vec<User>,
        anonymous: Vec<Grant>,
        ping: Ping,
    }
}

impl Authentication {
    /// No authentication: everything is allowed.
    pub fn none() -> Authentication {
        Authentication::default()
    }

    /// User name and password with every request.
    pub fn basic(users: impl IntoIterator<Item = User>) -> Authentication {
        Authentication { scheme: Scheme::Basic, users: users.into_iter().collect(), ..Authentication::default() }
    }

    /// Tokens in exchange for a user name and password, from an endpoint of this server.
    pub fn bearer(users: impl IntoIterator<Item = User>) -> Authentication {
        let scheme = Scheme::Bearer(Bearer::default());
        Authentication { scheme, users: users.into_iter().collect(), ..Authentication::default() }
    }

    /// Returns the user with these credentials. A password of an htpasswd file takes some milliseconds to check.
    pub(crate) fn user(&self, name: &str, password: &str) -> Option<&User> {
        let mut found = None;
        // Every user is compared, so that the time taken does not reveal which names exist.
        for user in self.users.iter().filter(|user| !user.password.is_slow()) {
            if user.password.is(password) & (user.name == name) {
                found = Some(user);
            }
        }
        // One slow comparison, whether or not the name exists.
        let mut slow = self.users.iter().filter(|user| user.password.is_slow());
        let named = slow.clone().find(|user| user.name == name);
        if let Some(user) = named.or_else(|| slow.next())
            && user.password.is(password) & (user.name == name)
        {
            found = Some(user);
        }
        found
    }

    /// Returns whether checking a password takes so long that it must not delay other requests.
    pub(crate) fn is_slow(&self) -> bool {
        self.users.iter().any(|user| user.password.is_slow())
    }

    /// Returns the users of an htpasswd file with all permissions, and user name and password with every request. Only
    /// bcrypt is supported, as in the registry of the distribution project: `htpasswd -B` writes it.
    ///
    /// # Errors
    ///
    /// [`InvalidHtpasswd`] with the number of the line.
    pub fn htpasswd(text: &str) -> Result<Authentication, InvalidHtpasswd> {
        let mut users: Vec<User> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let invalid = |problem| InvalidHtpasswd { line: number + 1, problem };
            let (name, hash) = line.split_once(':').ok_or_else(|| invalid("it is not of the form USER:HASH"))?;
            if name.is_empty() || users.iter().any(|user| user.name == name) {
                return Err(invalid("the user name is empty or occurs twice"));
            }
            let password = Password::bcrypt(hash).ok_or_else(|| invalid("the hash is not one of bcrypt"))?;
            users.push(User::new(name, password));
        }
        Ok(Authentication::basic(users))
    }

    /// Returns the grants of a user, or those of anonymous requests.
    pub(crate) fn grants(&self, user: Option<&str>) -> &[Grant] {
        match user {
            None => &self.anonymous,
            Some(name) => self.users.iter().find(|user| user.name == name).map_or(&[], |user| &user.grants),
        }
    }
}

/// The authentication scheme.
#[derive(Debug, Clone, Default)]
pub enum Scheme {
    /// None: everything is allowed.
    #[default]
    None,
    /// User name and password with every request.
    Basic,
    /// A token with every request.
    Bearer(Bearer),
}

/// How tokens are issued.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Bearer {
    /// The name of the service in the challenge.
    pub service: String,
    /// The URL of the token service; by default the endpoint of this server, with the host name that the client uses.
    pub realm: Option<String>,
    /// The lifetime of a token.
    pub lifetime: Duration,
    /// The field of the response that contains the token.
    pub field: TokenField,
    /// Whether identity tokens are issued to clients that request one.
    pub identity_tokens: Switch,
}

ocikit_spec::setters! {
    Bearer {
        service: String,
        realm: Option<String>,
        lifetime: Duration,
        field: TokenField,
        identity_tokens: Switch,
    }
}

impl Default for Bearer {
    fn default() -> Bearer {
        Bearer {
            service: "ocikit-server".to_owned(),
            realm: None,
            lifetime: Duration::from_secs(300),
            field: TokenField::Both,
            identity_tokens: Switch::On,
        }
    }
}

/// The field of a token response that contains the token; token services differ (google/go-containerregistry#54).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TokenField {
    /// `token` and `access_token`.
    #[default]
    Both,
    /// Only `token`, the older form.
    Token,
    /// Only `access_token`, as in OAuth2.
    AccessToken,
}

/// The answer of `/v2/` to a request without credentials.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ping {
    /// A challenge, which tells clients how to authenticate.
    #[default]
    Challenged,
    /// Status 200, as if no credentials were needed anywhere.
    Open,
}

/// A user.
#[derive(Debug, Clone)]
pub struct User {
    /// The user name.
    pub name: String,
    /// The password.
    pub password: Password,
    /// The permissions of the user.
    pub grants: Vec<Grant>,
}

impl User {
    /// Creates a user with all permissions.
    pub fn new(name: impl Into<String>, password: impl Into<Password>) -> User {
        User { name: name.into(), password: password.into(), grants: vec![Grant::everything()] }
    }
}

/// A line of an htpasswd file cannot be used. The line is not repeated: it may have a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct InvalidHtpasswd {
    /// The number of the line, counted from 1.
    pub line: usize,
    /// The problem.
    pub problem: &'static str,
}

/// A password. Only a digest or hash of it is stored, and `Debug` hides it.
#[derive(Clone)]
pub struct Password(Stored);

#[derive(Clone)]
enum Stored {
    Digest(Digest),
    /// A hash of bcrypt, and the digest of the password once it was given.
    Bcrypt {
        hash: Arc<str>,
        verified: Arc<OnceLock<Digest>>,
    },
}

impl Password {
    /// Returns the password with this hash of bcrypt; `None` if it is none.
    pub fn bcrypt(hash: &str) -> Option<Password> {
        let parts: bcrypt::HashParts = hash.parse().ok()?;
        let is_usable = (MIN_BCRYPT_COST..=MAX_BCRYPT_COST).contains(&parts.get_cost());
        is_usable.then(|| Password(Stored::Bcrypt { hash: hash.into(), verified: Arc::default() }))
    }

    fn is_slow(&self) -> bool {
        matches!(self.0, Stored::Bcrypt { .. })
    }

    /// Compares in constant time.
    fn is(&self, password: &str) -> bool {
        let given = digest_of(password);
        let equals = |known: &Digest| bool::from(given.as_bytes().ct_eq(known.as_bytes()));
        match &self.0 {
            Stored::Digest(known) => equals(known),
            // Clients send the password with every request.
            Stored::Bcrypt { verified, .. } if verified.get().is_some_and(equals) => true,
            Stored::Bcrypt { hash, verified } => {
                let is_right = bcrypt::verify(password, hash).unwrap_or(false);
                if is_right {
                    let _ = verified.set(given);
                }
                is_right
            }
        }
    }
}

/// The costs of bcrypt that are accepted: the lowest of the algorithm, and the highest that takes about a second.
const MIN_BCRYPT_COST: u32 = 4;
const MAX_BCRYPT_COST: u32 = 14;

fn digest_of(password: &str) -> Digest {
    Digest::of(Algorithm::Sha512, password.as_bytes())
}

impl From<&str> for Password {
    fn from(text: &str) -> Password {
        Password(Stored::Digest(digest_of(text)))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Permissions for a set of repositories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The repositories.
    pub repositories: Pattern,
    /// The permissions.
    pub permissions: Vec<Permission>,
    /// Whether the catalog of repositories may be read.
    pub catalog: Switch,
}

impl Grant {
    /// Grants everything.
    pub fn everything() -> Grant {
        Grant { repositories: Pattern::any(), permissions: Permission::ALL.to_vec(), catalog: Switch::On }
    }

    /// Grants reading in these repositories.
    pub fn pull(repositories: impl Into<Pattern>) -> Grant {
        Grant { repositories: repositories.into(), permissions: vec![Permission::Pull], catalog: Switch::Off }
    }

    /// Grants reading and writing in these repositories.
    pub fn push(repositories: impl Into<Pattern>) -> Grant {
        let permissions = vec![Permission::Pull, Permission::Push];
        Grant { repositories: repositories.into(), permissions, catalog: Switch::Off }
    }

    fn allows(&self, resource: &Resource, permission: Permission) -> bool {
        match resource {
            Resource::Catalog => self.catalog == Switch::On,
            Resource::Repository(name) => {
                self.permissions.contains(&permission) && self.repositories.matches(name.as_str())
            }
        }
    }
}

/// Returns the part of a scope that the grants allow; `None` if nothing is left.
pub(crate) fn shrink(scope: &Scope, grants: &[Grant]) -> Option<Scope> {
    let allowed = |permission: &Permission| grants.iter().any(|grant| grant.allows(&scope.resource, *permission));
    let permissions: std::collections::BTreeSet<_> = scope.permissions.iter().copied().filter(allowed).collect();
    (!permissions.is_empty()).then(|| Scope { resource: scope.resource.clone(), permissions })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scope_is_limited_by_grants() {
        let grants = [Grant::pull("**"), Grant::push("alice/**")];
        for (asked, granted) in [
            ("repository:alice/app:pull,push", Some("repository:alice/app:pull,push")),
            ("repository:bob/app:pull,push", Some("repository:bob/app:pull")),
            ("repository:bob/app:push", None),
            ("repository:alice/app:delete", None),
            ("registry:catalog:*", None),
        ] {
            let scope = Scope::parse(asked).unwrap();
            assert_eq!(shrink(&scope, &grants).map(|scope| scope.to_string()).as_deref(), granted, "{asked}");
        }
        let all = Scope::parse("registry:catalog:*").unwrap();
        assert_eq!(shrink(&all, &[Grant::everything()]), Some(all));
    }

    #[test]
    fn htpasswd_files_have_hashes_of_bcrypt() {
        // The password is `secret`, with the lowest cost.
        let hash = bcrypt::hash("secret", MIN_BCRYPT_COST).unwrap();
        let authentication = Authentication::htpasswd(&format!("# users\n\nalice:{hash}\nbob:{hash}\n")).unwrap();
        for (name, password, found) in
            [("alice", "secret", true), ("alice", "other", false), ("bob", "secret", true), ("carol", "secret", false)]
        {
            for _ in 0..2 {
                assert_eq!(authentication.user(name, password).is_some(), found, "{name} {password}");
            }
        }
        assert!(!format!("{authentication:?}").contains(&hash));
        for (text, line) in [
            ("alice", 1),
            ("\nalice:secret", 2),
            ("alice:{SHA}2jmj7l5rSw0yVb/vlWAYkK/YBwk=", 1),
            (&format!(":{hash}"), 1),
            (&format!("alice:{hash}\nalice:{hash}"), 2),
            (&format!("alice:{}", hash.replace("$04$", "$31$")), 1),
        ] {
            let error = Authentication::htpasswd(text).unwrap_err();
            assert_eq!(error.line, line, "{text}: {error}");
        }
    }

    #[test]
    fn a_user_is_found_by_name_and_password() {
        let authentication = Authentication::basic([User::new("alice", "a"), User::new("bob", "b")]);
        for (name, password, found) in
            [("alice", "a", true), ("alice", "b", false), ("bob", "b", true), ("", "", false)]
        {
            assert_eq!(authentication.user(name, password).is_some(), found, "{name}");
        }
    }
}
