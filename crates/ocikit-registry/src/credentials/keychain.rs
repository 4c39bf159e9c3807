use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use ocikit_image::Result;
use ocikit_spec::Registry;

use super::secret::Secret;

/// A credential that a registry, or its token service, accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// A user and a password; an access token can take the place of the password.
    Password {
        /// The user name.
        username: String,
        /// The password or access token.
        password: Secret,
    },
    /// A token that the token service exchanges for others. Docker calls it identity token, OAuth2 calls it refresh
    /// token.
    Identity(Secret),
    /// A token for the registry itself, sent as is.
    Bearer(Secret),
}

impl Credential {
    /// Creates a credential from a user and a password.
    pub fn password(username: impl Into<String>, password: impl Into<Secret>) -> Credential {
        Credential::Password { username: username.into(), password: password.into() }
    }
}

/// A source of credentials.
///
/// ```
/// use async_trait::async_trait;
/// use ocikit_registry::{Credential, Keychain, Result};
/// use ocikit_spec::Registry;
///
/// /// Tokens that the machine issues for its own registry.
/// #[derive(Debug)]
/// struct Machine;
///
/// #[async_trait]
/// impl Keychain for Machine {
///     async fn credential(&self, registry: &Registry, _path: &str) -> Result<Option<Credential>> {
///         Ok((registry.as_str() == "registry.internal").then(|| Credential::password("machine", "token")))
///     }
/// }
/// ```
#[async_trait]
pub trait Keychain: Debug + Send + Sync + 'static {
    /// Returns the credential for a repository by its path, or for the registry as a whole if the path is empty. `None`
    /// if there is none.
    ///
    /// # Errors
    ///
    /// Only if the credential could not be read. A client then calls
    /// [`credential_failed`](crate::RequestObserver::credential_failed) of its observer and makes requests without a
    /// credential. If they are refused, the error names this one.
    async fn credential(&self, registry: &Registry, path: &str) -> Result<Option<Credential>>;

    /// Returns where that credential comes from, for the error of a request that was refused: a file, a variable or a
    /// flag. It must contain no secret. `None` if there is no credential or its origin has no name.
    async fn origin(&self, _registry: &Registry, _path: &str) -> Option<String> {
        None
    }
}

/// A keychain without credentials.
#[derive(Debug, Clone, Copy, Default)]
pub struct Anonymous;

#[async_trait]
impl Keychain for Anonymous {
    async fn credential(&self, _: &Registry, _: &str) -> Result<Option<Credential>> {
        Ok(None)
    }
}

/// A single credential, for example from command-line flags.
#[derive(Debug, Clone)]
pub struct Fixed {
    /// The registry that it is for. `None` means every registry, which is right only if there is just one.
    pub registry: Option<Registry>,
    /// The credential.
    pub credential: Credential,
}

#[async_trait]
impl Keychain for Fixed {
    async fn credential(&self, registry: &Registry, _: &str) -> Result<Option<Credential>> {
        let meant = self.registry.as_ref().is_none_or(|meant| meant == registry);
        Ok(meant.then(|| self.credential.clone()))
    }
}

/// Several keychains; the first one that has a credential provides it. If one fails, the next ones are still asked.
#[derive(Debug, Clone, Default)]
pub struct Keychains(
    /// In the order of priority.
    pub Vec<Arc<dyn Keychain>>,
);

#[async_trait]
impl Keychain for Keychains {
    async fn credential(&self, registry: &Registry, path: &str) -> Result<Option<Credential>> {
        let mut failure = None;
        for keychain in &self.0 {
            match keychain.credential(registry, path).await {
                Ok(None) => {}
                Ok(found) => return Ok(found),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(None), Err)
    }

    async fn origin(&self, registry: &Registry, path: &str) -> Option<String> {
        for keychain in &self.0 {
            if let Ok(Some(_)) = keychain.credential(registry, path).await {
                return keychain.origin(registry, path).await;
            }
        }
        None
    }
}

/// A keychain whose credentials all come from one place, which errors name.
#[derive(Debug, Clone)]
pub struct Named<K> {
    /// Where the credentials come from, for example `the environment variable TOKEN`.
    pub origin: String,
    /// The credentials.
    pub keychain: K,
}

#[async_trait]
impl<K: Keychain> Keychain for Named<K> {
    async fn credential(&self, registry: &Registry, path: &str) -> Result<Option<Credential>> {
        self.keychain.credential(registry, path).await
    }

    async fn origin(&self, _: &Registry, _: &str) -> Option<String> {
        Some(self.origin.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn first_keychain_with_a_credential_wins() {
        let hub = Registry::docker_hub();
        let fixed = |registry: Option<&Registry>, user: &str| -> Arc<dyn Keychain> {
            Arc::new(Fixed { registry: registry.cloned(), credential: Credential::password(user, "p") })
        };
        let keychains = Keychains(vec![Arc::new(Anonymous), fixed(Some(&hub), "hub"), fixed(None, "any")]);
        let other: Registry = "ghcr.io".parse().unwrap();
        assert_eq!(keychains.credential(&hub, "").await.unwrap(), Some(Credential::password("hub", "p")));
        assert_eq!(keychains.credential(&other, "a/b").await.unwrap(), Some(Credential::password("any", "p")));
        let named = |origin: &str, keychain| Arc::new(Named { origin: origin.to_owned(), keychain });
        let hub_only = Fixed { registry: Some(hub.clone()), credential: Credential::password("hub", "p") };
        let any = Fixed { registry: None, credential: Credential::password("any", "p") };
        let keychains = Keychains(vec![Arc::new(Anonymous), named("a flag", hub_only), named("a file", any)]);
        assert_eq!(keychains.origin(&hub, "").await.unwrap(), "a flag");
        assert_eq!(keychains.origin(&other, "a/b").await.unwrap(), "a file");
        assert_eq!(Keychains::default().origin(&other, "a/b").await, None);
    }
}
