use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures::lock::Mutex;
use jiff::Timestamp;
use ocikit::registry::{Clock, Credential, Keychain, SystemClock};
use ocikit::{Error, Registry};
use ocikit_sign::Http;

use super::exchange::{Exchange, Exchanged};

/// How long before its expiry a credential is replaced.
const RENEW_BEFORE: Duration = Duration::from_secs(300);

/// A source of credentials that exchanges tokens when a registry first needs them, and again before they expire.
///
/// ```
/// use std::collections::BTreeMap;
/// use std::sync::Arc;
/// use ocikit::registry::{Client, ClientOptions};
/// use ocikit_publish::login::{Exchange, ExchangeKeychain};
/// use ocikit_sign::{Http, HttpOptions};
///
/// let environment: BTreeMap<String, String> = [("GITHUB_ACTOR", "octocat"), ("GITHUB_TOKEN", "secret")]
///     .map(|(name, value)| (name.to_owned(), value.to_owned())).into();
/// let exchange = Exchange::read(None, &"ghcr.io".parse()?, &environment, &|path| std::fs::read(path))?;
/// let keychain = ExchangeKeychain::new(vec![exchange], Http::new(&HttpOptions::default())?);
/// let client = Client::new(ClientOptions::default().keychain(Arc::new(keychain)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ExchangeKeychain {
    entries: Vec<(Exchange, Mutex<Option<Exchanged>>)>,
    http: Http,
    clock: Arc<dyn Clock>,
}

impl ExchangeKeychain {
    /// Creates a keychain for the registries of these exchanges, with the clock of the system.
    pub fn new(exchanges: Vec<Exchange>, http: Http) -> ExchangeKeychain {
        ExchangeKeychain::with_clock(exchanges, http, Arc::new(SystemClock))
    }

    /// Creates a keychain with another clock.
    pub fn with_clock(exchanges: Vec<Exchange>, http: Http, clock: Arc<dyn Clock>) -> ExchangeKeychain {
        let entries = exchanges.into_iter().map(|exchange| (exchange, Mutex::new(None))).collect();
        ExchangeKeychain { entries, http, clock }
    }
}

#[async_trait]
impl Keychain for ExchangeKeychain {
    async fn credential(&self, registry: &Registry, _path: &str) -> ocikit::Result<Option<Credential>> {
        let Some((exchange, known)) = self.entries.iter().find(|(exchange, _)| exchange.registry() == registry) else {
            return Ok(None);
        };
        let now = self.clock.now();
        // Others wait here, so that a token is exchanged once.
        let mut known = known.lock().await;
        if let Some(exchanged) = known.as_ref().filter(|exchanged| is_fresh(exchanged, now)) {
            return Ok(Some(exchanged.credential.clone()));
        }
        let time = Timestamp::try_from(now).unwrap_or_default();
        let failed = |error| Error::broken(format!("the credential for {registry}"), error);
        let exchanged = exchange.credential(&self.http, time).await.map_err(failed)?;
        Ok(Some(known.insert(exchanged).credential.clone()))
    }

    async fn origin(&self, registry: &Registry, _path: &str) -> Option<String> {
        let (exchange, _) = self.entries.iter().find(|(exchange, _)| exchange.registry() == registry)?;
        Some(format!("the exchange of tokens with {}", exchange.kind()))
    }
}

fn is_fresh(exchanged: &Exchanged, now: SystemTime) -> bool {
    exchanged.expires.is_none_or(|expires| SystemTime::from(expires) > now + RENEW_BEFORE)
}
