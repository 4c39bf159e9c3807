use std::fmt;
use std::time::Duration;

use ocikit_spec::{Algorithm, Digest};
use subtle::ConstantTimeEq;

use crate::auth::scope::{Permission, Resource, Scope};
use crate::pattern::Pattern;
use crate::rules::Switch;

/// Who may do what, and how they prove who they are.
///
/// ```
/// use ocikit_server::{Authentication, Grant, User};
///
/// let anyone_reads = Authentication {
///     anonymous: vec![Grant::pull("**")],
///     ..Authentication::basic([User::new("alice", "secret")])
/// };
/// assert!(!format!("{anyone_reads:?}").contains("secret"));
/// ```
#[derive(Debug, Clone, Default)]
pub struct Authentication {
    /// How credentials are brought.
    pub scheme: Scheme,
    /// Who is known.
    pub users: Vec<User>,
    /// What may be done without credentials; nothing by default.
    pub anonymous: Vec<Grant>,
    /// What `/v2/` answers to whoever brings no credentials.
    pub ping: Ping,
}

impl Authentication {
    /// Everybody may do everything.
    pub fn none() -> Authentication {
        Authentication::default()
    }

    /// Name and password with every request.
    pub fn basic(users: impl IntoIterator<Item = User>) -> Authentication {
        Authentication { scheme: Scheme::Basic, users: users.into_iter().collect(), ..Authentication::default() }
    }

    /// Tokens for name and password, from an endpoint of this server.
    pub fn bearer(users: impl IntoIterator<Item = User>) -> Authentication {
        let scheme = Scheme::Bearer(Bearer::default());
        Authentication { scheme, users: users.into_iter().collect(), ..Authentication::default() }
    }

    /// The user with these credentials.
    pub(crate) fn user(&self, name: &str, password: &str) -> Option<&User> {
        let mut found = None;
        // Every user is tried, so that the time taken does not tell which names there are.
        for user in &self.users {
            if user.password.is(password) & (user.name == name) {
                found = Some(user);
            }
        }
        found
    }

    /// What a user may do, or whoever brings no credentials.
    pub(crate) fn grants(&self, user: Option<&str>) -> &[Grant] {
        match user {
            None => &self.anonymous,
            Some(name) => self.users.iter().find(|user| user.name == name).map_or(&[], |user| &user.grants),
        }
    }
}

/// How credentials are brought.
#[derive(Debug, Clone, Default)]
pub enum Scheme {
    /// Not at all: everybody may do everything.
    #[default]
    None,
    /// Name and password with every request.
    Basic,
    /// A token with every request.
    Bearer(Bearer),
}

/// How tokens are given out.
#[derive(Debug, Clone)]
pub struct Bearer {
    /// The name of the service in the challenge.
    pub service: String,
    /// Where tokens are had; by default the endpoint of this server, by the name that the client knows it by.
    pub realm: Option<String>,
    /// How long a token lasts.
    pub lifetime: Duration,
    /// How an answer names the token.
    pub field: TokenField,
    /// Whether identity tokens are given to whoever asks for one.
    pub identity_tokens: Switch,
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

/// Registries disagree about the key that the token has in the answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TokenField {
    /// `token` and `access_token`.
    #[default]
    Both,
    /// Only `token`, as of old.
    Token,
    /// Only `access_token`, as OAuth2 has it.
    AccessToken,
}

/// What `/v2/` answers to whoever brings no credentials.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ping {
    /// A challenge, by which clients find out how to bring them.
    #[default]
    Challenged,
    /// That all is well, as if no credentials were needed anywhere.
    Open,
}

/// A user.
#[derive(Debug, Clone)]
pub struct User {
    /// The name.
    pub name: String,
    /// The password.
    pub password: Password,
    /// What the user may do.
    pub grants: Vec<Grant>,
}

impl User {
    /// A user who may do everything.
    pub fn new(name: impl Into<String>, password: impl Into<Password>) -> User {
        User { name: name.into(), password: password.into(), grants: vec![Grant::everything()] }
    }
}

/// A password, of which only a digest is kept, and that is not shown.
#[derive(Clone, Copy)]
pub struct Password(Digest);

impl Password {
    /// Whether this is the password; takes as long for a wrong one as for the right one.
    fn is(&self, password: &str) -> bool {
        Password::from(password).0.as_bytes().ct_eq(self.0.as_bytes()).into()
    }
}

impl From<&str> for Password {
    fn from(text: &str) -> Password {
        Password(Digest::of(Algorithm::Sha512, text.as_bytes()))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// What may be done, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// In which repositories.
    pub repositories: Pattern,
    /// What.
    pub permissions: Vec<Permission>,
    /// Whether the catalog of all repositories may be read.
    pub catalog: Switch,
}

impl Grant {
    /// Everything everywhere.
    pub fn everything() -> Grant {
        Grant { repositories: Pattern::any(), permissions: Permission::ALL.to_vec(), catalog: Switch::On }
    }

    /// Reading in these repositories.
    pub fn pull(repositories: impl Into<Pattern>) -> Grant {
        Grant { repositories: repositories.into(), permissions: vec![Permission::Pull], catalog: Switch::Off }
    }

    /// Reading and writing in these repositories.
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

/// The part of a scope that the grants allow, `None` if that is nothing.
pub(crate) fn shrink(scope: &Scope, grants: &[Grant]) -> Option<Scope> {
    let allowed = |permission: &Permission| grants.iter().any(|grant| grant.allows(&scope.resource, *permission));
    let permissions: std::collections::BTreeSet<_> = scope.permissions.iter().copied().filter(allowed).collect();
    (!permissions.is_empty()).then(|| Scope { resource: scope.resource.clone(), permissions })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_shrinks_to_what_is_granted() {
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
    fn a_user_is_found_by_name_and_password() {
        let authentication = Authentication::basic([User::new("alice", "a"), User::new("bob", "b")]);
        for (name, password, found) in
            [("alice", "a", true), ("alice", "b", false), ("bob", "b", true), ("", "", false)]
        {
            assert_eq!(authentication.user(name, password).is_some(), found, "{name}");
        }
    }
}
