use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use ocikit_image::Result;
use ocikit_spec::Registry;

use super::secret::Secret;

/// What a registry, or the token service it sends us to, accepts as proof of who is asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// A user and a password, or an access token in its place.
    Password {
        /// The user.
        username: String,
        /// The password.
        password: Secret,
    },
    /// A token that the token service exchanges for others, called identity token by docker and refresh token by
    /// OAuth2.
    Identity(Secret),
    /// A token for the registry itself, sent as it is.
    Bearer(Secret),
}

impl Credential {
    /// A user and a password.
    pub fn password(username: impl Into<String>, password: impl Into<Secret>) -> Credential {
        Credential::Password { username: username.into(), password: password.into() }
    }
}

/// Where credentials are kept.
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
    /// The credential for a repository: for its path in a registry, or for the registry as a whole where the path is
    /// empty. `None` where there is none.
    ///
    /// # Errors
    ///
    /// Only where it could not be found out. A client then tells its
    /// [observer](crate::RequestObserver::credential_failed), makes requests without, and names the error if they are
    /// refused.
    async fn credential(&self, registry: &Registry, path: &str) -> Result<Option<Credential>>;
}

/// Nobody: every registry is asked without a credential.
#[derive(Debug, Clone, Copy, Default)]
pub struct Anonymous;

#[async_trait]
impl Keychain for Anonymous {
    async fn credential(&self, _: &Registry, _: &str) -> Result<Option<Credential>> {
        Ok(None)
    }
}

/// One credential that was given by hand.
#[derive(Debug, Clone)]
pub struct Fixed {
    /// The registry that it is for. `None` means every registry, which is right only where there is just one.
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

/// Several keychains; the first that has a credential gives it. One that fails does not keep the others from being asked.
#[derive(Debug, Clone, Default)]
pub struct Keychains(
    /// In the order in which they are asked.
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_that_has_one_gives_it() {
        let hub = Registry::docker_hub();
        let fixed = |registry: Option<&Registry>, user: &str| -> Arc<dyn Keychain> {
            Arc::new(Fixed { registry: registry.cloned(), credential: Credential::password(user, "p") })
        };
        let keychains = Keychains(vec![Arc::new(Anonymous), fixed(Some(&hub), "hub"), fixed(None, "any")]);
        let other: Registry = "ghcr.io".parse().unwrap();
        assert_eq!(keychains.credential(&hub, "").await.unwrap(), Some(Credential::password("hub", "p")));
        assert_eq!(keychains.credential(&other, "a/b").await.unwrap(), Some(Credential::password("any", "p")));
    }
}
