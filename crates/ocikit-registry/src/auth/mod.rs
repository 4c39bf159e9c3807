//! Showing who we are: challenges, scopes, tokens.

mod challenge;
mod scope;
mod service;
mod token;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ocikit_image::{Error, Result, retry};
use reqwest::header::{HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, Url};
use tokio::sync::{Mutex as AsyncMutex, OnceCell, OwnedMutexGuard};

use crate::credentials::{Credential, Keychain, Secret};
use crate::endpoint::Endpoint;
use crate::http::address::Reach;
use crate::http::redirect;
use crate::http::send::{Http, Reply, Request};
use crate::http::transport::lock;

use challenge::Challenge;
pub(crate) use scope::Scopes;
use token::Token;

/// How long a refusal of a token service stands before it is asked again.
const REFUSAL: Duration = Duration::from_secs(10);

/// How often a request may be answered with a challenge: without a token, with one that was revoked, with one that
/// allows too little.
const ROUNDS: u32 = 3;

/// Shows servers who we are, in the way that each of them asks for.
#[derive(Debug)]
pub(crate) struct Authenticator {
    keychain: Arc<dyn Keychain>,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
}

/// What is known of one registry.
#[derive(Debug, Default)]
struct Host {
    scheme: Mutex<Scheme>,
    /// Held by the first request, whose answer will tell the scheme.
    gate: Arc<AsyncMutex<()>>,
    /// Whether the first request has ended, though it may have told nothing: then nobody waits any more.
    tried: AtomicBool,
    credentials: Mutex<HashMap<String, Arc<OnceCell<Option<Credential>>>>>,
    tokens: Mutex<Vec<Arc<Slot>>>,
    /// Scopes that a request takes by the specification, and those that the registry asks for instead.
    widened: Mutex<HashMap<Scopes, Scopes>>,
    /// Whether the registry was asked for a challenge, which its answers lacked.
    probed: AsyncMutex<bool>,
    /// Why a credential could not be found out.
    trouble: Mutex<Option<String>>,
}

/// What a registry wants to see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Scheme {
    /// Nobody has asked yet.
    #[default]
    Unknown,
    Nothing,
    /// The credential itself with every request: a password, or a token for the registry.
    Direct,
    /// A token of a token service.
    Bearer(Realm),
}

/// A token service, and how far the registry that named it may send us.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Realm {
    url: Url,
    service: Option<String>,
    reach: Reach,
}

/// A token for some scopes, or the place where it will be.
#[derive(Debug)]
struct Slot {
    realm: Realm,
    /// The repository whose credential it is fetched with.
    path: String,
    scopes: Scopes,
    state: AsyncMutex<State>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Empty,
    Token(Token),
    Refused {
        problem: String,
        until: SystemTime,
    },
}

/// What a request may need to be allowed.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    /// The repository, empty for the registry as a whole.
    pub(crate) path: String,
    pub(crate) scopes: Scopes,
}

/// What a request shows, and what to do once it was answered.
#[derive(Debug, Default)]
pub(crate) struct Authorization {
    pub(crate) header: Option<HeaderValue>,
    /// The token in it, to be forgotten if it is refused.
    slot: Option<Arc<Slot>>,
    /// Why there is no token though there should be one.
    missing: Option<String>,
    _first: Option<First>,
    /// Whether the token was fetched for this very request.
    new: bool,
    rounds: u32,
}

impl Authenticator {
    pub(crate) fn new(keychain: Arc<dyn Keychain>) -> Authenticator {
        Authenticator { keychain, hosts: Mutex::default() }
    }

    /// What to show for a request.
    pub(crate) async fn authorize(&self, http: &Http, endpoint: &Endpoint, access: &Access) -> Result<Authorization> {
        let host = self.host(endpoint);
        let mut first = None;
        if host.is_new() {
            let guard = host.gate.clone().lock_owned().await;
            if host.is_new() {
                first = Some(First { host: host.clone(), _guard: guard });
            }
        }
        let scheme = lock(&host.scheme).clone();
        match scheme {
            Scheme::Unknown | Scheme::Nothing => Ok(Authorization { _first: first, ..Authorization::default() }),
            Scheme::Direct => {
                let credential = self.credential(http, &host, endpoint, &access.path).await;
                Ok(Authorization { header: credential.as_ref().and_then(direct), ..Authorization::default() })
            }
            Scheme::Bearer(realm) => {
                // A token for the registry needs no token service.
                if let Some(Credential::Bearer(token)) = self.credential(http, &host, endpoint, &access.path).await {
                    return Ok(Authorization { header: Some(bearer(&token)), ..Authorization::default() });
                }
                self.token(http, &host, endpoint, realm, access).await
            }
        }
    }

    /// Learns from an answer. `Ok(true)` means that the request should be made again, as [`Authenticator::authorize`]
    /// says now.
    ///
    /// # Errors
    ///
    /// [`Error::Denied`] if nothing more can be shown.
    pub(crate) async fn learn(
        &self,
        http: &Http,
        endpoint: &Endpoint,
        access: &Access,
        authorization: &mut Authorization,
        reply: &Reply,
    ) -> Result<bool> {
        let host = self.host(endpoint);
        let status = reply.answer.status;
        let challenges = challenges(reply);
        let too_little = challenges.iter().any(|found| found.parameter("error") == Some("insufficient_scope"));
        let is_challenge =
            reply.direct && (status == 401 && choose(&challenges).is_some() || status == 403 && too_little);
        if !is_challenge {
            if self.probe(http, &host, endpoint, access, authorization, reply).await? {
                return Ok(true);
            }
            // A server that fails says nothing about whom it lets in.
            if status < 500 && (status != 401 || !reply.direct) && *lock(&host.scheme) == Scheme::Unknown {
                *lock(&host.scheme) = Scheme::Nothing;
            }
            let problem = authorization.missing.take().filter(|_| reply.direct && status == 401);
            return self.refused(&host, endpoint, reply, problem);
        }
        if let Some(problem) = authorization.missing.take() {
            return self.refused(&host, endpoint, reply, Some(problem));
        }
        authorization.rounds += 1;
        let challenge = choose(&challenges).filter(|_| authorization.rounds <= ROUNDS);
        let again = match challenge {
            None => false,
            Some(challenge) if challenge.is_direct() => {
                let credential = self.credential(http, &host, endpoint, &access.path).await;
                let answers = credential.as_ref().is_some_and(|credential| answers(credential, challenge));
                if answers || challenge.scheme == "basic" {
                    *lock(&host.scheme) = Scheme::Direct;
                }
                // Who shows a password that is refused need not show it again.
                authorization.header.is_none() && answers
            }
            Some(challenge) => self.answer(http, &host, endpoint, access, authorization, challenge, reply).await?,
        };
        if again { Ok(true) } else { self.refused(&host, endpoint, reply, None) }
    }

    /// Prepares the answer to a challenge that names a token service. Says whether a new token may help.
    #[allow(clippy::too_many_arguments, reason = "they are what `learn` has, and the challenge")]
    async fn answer(
        &self,
        http: &Http,
        host: &Host,
        endpoint: &Endpoint,
        access: &Access,
        authorization: &mut Authorization,
        challenge: &Challenge,
        reply: &Reply,
    ) -> Result<bool> {
        *lock(&host.scheme) = Scheme::Bearer(realm(http, endpoint, challenge, reply)?);
        let asked = challenge.parameter("scope").map(Scopes::parse).unwrap_or_default();
        let Some(slot) = authorization.slot.take() else {
            let wanted = access.scopes.follow(&asked);
            if wanted != access.scopes {
                lock(&host.widened).entry(access.scopes.clone()).or_insert(wanted);
            }
            return Ok(authorization.header.is_none());
        };
        {
            let mut state = slot.state.lock().await;
            // Another request may have replaced it meanwhile.
            if matches!(&*state, State::Token(token) if authorization.header == Some(bearer(&token.secret))) {
                *state = State::Empty;
            }
        }
        let wider = slot.scopes.follow(&asked);
        if wider != slot.scopes {
            lock(&host.widened).insert(access.scopes.clone(), wider);
            return Ok(true);
        }
        // An old token may have been revoked; a new one for the same scopes would be refused again.
        Ok(!authorization.new)
    }

    /// Asks a registry for a challenge if it refused an anonymous request without one and there is a credential that it
    /// might have accepted. Says whether the request should be made again.
    ///
    /// GitHub Packages answers anonymous requests with 404 (containerd/containerd#3291), gcr.io with 403
    /// (containers/image#211); both send a challenge for `/v2/`.
    async fn probe(
        &self,
        http: &Http,
        host: &Host,
        endpoint: &Endpoint,
        access: &Access,
        authorization: &mut Authorization,
        reply: &Reply,
    ) -> Result<bool> {
        let status = reply.answer.status;
        let is_anonymous = authorization.header.is_none() && authorization.missing.is_none();
        if !reply.direct || !matches!(status, 401 | 403 | 404) || !is_anonymous || authorization.rounds >= ROUNDS {
            return Ok(false);
        }
        let Some(credential) = self.credential(http, host, endpoint, &access.path).await else { return Ok(false) };
        {
            let mut probed = host.probed.lock().await;
            if !std::mem::replace(&mut *probed, true) {
                // This is on the way to other requests, which may be on the way to this: the future has to be boxed.
                let request = Request::new(Method::GET, endpoint.url(""));
                let answered = Box::pin(http.send(&request, &endpoint.tls)).await;
                if let Ok(answered) = answered {
                    let challenges = challenges(&answered);
                    if let Some(challenge) = choose(&challenges).filter(|_| answered.direct) {
                        if !challenge.is_direct() {
                            *lock(&host.scheme) = Scheme::Bearer(realm(http, endpoint, challenge, &answered)?);
                        } else if answers(&credential, challenge) {
                            *lock(&host.scheme) = Scheme::Direct;
                        }
                    }
                    answered.answer.drain().await;
                }
            }
        }
        authorization.rounds += 1;
        Ok(match &*lock(&host.scheme) {
            Scheme::Unknown | Scheme::Nothing => false,
            Scheme::Direct => direct(&credential).is_some(),
            Scheme::Bearer(_) => true,
        })
    }

    /// Ends what `learn` does with an answer: if it is a refusal and a credential could not be found out, that may be why.
    fn refused(&self, host: &Host, endpoint: &Endpoint, reply: &Reply, problem: Option<String>) -> Result<bool> {
        let status = reply.answer.status;
        let trouble = lock(&host.trouble).clone().filter(|_| reply.direct && matches!(status, 401 | 403));
        let problem = match (problem, trouble) {
            (None, None) => return Ok(false),
            (Some(problem), None) => problem,
            (problem, Some(trouble)) => {
                format!("{}; no credential was used, since {trouble}", problem.unwrap_or(format!("status {status}")))
            }
        };
        Err(Error::Denied { place: endpoint.registry.to_string(), problem })
    }

    fn host(&self, endpoint: &Endpoint) -> Arc<Host> {
        lock(&self.hosts).entry(endpoint.base.to_string()).or_default().clone()
    }

    /// The credential for a repository, asked for once. Where it cannot be found out, requests are made without: many
    /// images can be read by everybody.
    async fn credential(&self, http: &Http, host: &Host, endpoint: &Endpoint, path: &str) -> Option<Credential> {
        if endpoint.is_tls_expected && !http.uses_tls(&endpoint.base) {
            *lock(&host.trouble) = Some("a TLS option applies to this registry and it speaks plain HTTP".to_owned());
            return None;
        }
        let cell = lock(&host.credentials).entry(path.to_owned()).or_default().clone();
        let ask = || async {
            match self.keychain.credential(&endpoint.registry, path).await {
                Ok(found) => found,
                Err(error) => {
                    let mut causes: Vec<_> = retry::causes(&error).map(ToString::to_string).collect();
                    // An IO error says what the error says that it wraps.
                    causes.dedup();
                    let causes = causes.join(": ");
                    let is_new = lock(&host.trouble).replace(causes.clone()).is_none();
                    if is_new {
                        http.tell().credential_failed(&endpoint.registry, &causes);
                    }
                    None
                }
            }
        };
        cell.get_or_init(ask).await.clone()
    }

    async fn token(
        &self,
        http: &Http,
        host: &Host,
        endpoint: &Endpoint,
        realm: Realm,
        access: &Access,
    ) -> Result<Authorization> {
        let scopes = lock(&host.widened).get(&access.scopes).cloned().unwrap_or_else(|| access.scopes.clone());
        let now = || http.clock().now();
        let slots: Vec<_> = {
            let mut tokens = lock(&host.tokens);
            if !tokens.iter().any(|slot| slot.serves(&realm, &access.path) && slot.scopes == scopes) {
                let state = AsyncMutex::default();
                let (realm, path, scopes) = (realm.clone(), access.path.clone(), scopes.clone());
                tokens.push(Arc::new(Slot { realm, path, scopes, state }));
            }
            let serving = tokens.iter().filter(|slot| slot.serves(&realm, &access.path) && slot.scopes.cover(&scopes));
            serving.cloned().collect()
        };
        // Whoever waits here for a token that is being fetched finds it.
        for slot in slots.iter().filter(|slot| slot.scopes != scopes) {
            if let State::Token(token) = &*slot.state.lock().await
                && token.is_fresh(now())
            {
                return Ok(Authorization::of(slot, token));
            }
        }
        let exact = slots.iter().find(|slot| slot.scopes == scopes);
        let Some(slot) = exact else { return Ok(Authorization::default()) };
        let mut state = slot.state.lock().await;
        match &*state {
            State::Token(token) if token.is_fresh(now()) => return Ok(Authorization::of(slot, token)),
            State::Refused { problem, until } if now() < *until => return Ok(Authorization::missing(problem.clone())),
            _ => {}
        }
        let credential = self.credential(http, host, endpoint, &access.path).await;
        match service::fetch(http, endpoint, &slot.realm, &slot.scopes, credential.as_ref()).await {
            Ok(token) => {
                let authorization = Authorization { new: true, ..Authorization::of(slot, &token) };
                *state = State::Token(token);
                Ok(authorization)
            }
            // The registry may let us in without; if it does not, this is why.
            Err(Error::Denied { problem, .. }) => {
                *state = State::Refused { problem: problem.clone(), until: now() + REFUSAL };
                Ok(Authorization::missing(problem))
            }
            Err(error) => Err(error),
        }
    }
}

impl Host {
    fn is_new(&self) -> bool {
        *lock(&self.scheme) == Scheme::Unknown && !self.tried.load(Ordering::Acquire)
    }
}

/// The first request to a registry, for as long as its answer was not looked at.
#[derive(Debug)]
struct First {
    host: Arc<Host>,
    _guard: OwnedMutexGuard<()>,
}

impl Drop for First {
    fn drop(&mut self) {
        self.host.tried.store(true, Ordering::Release);
    }
}

impl Slot {
    fn serves(&self, realm: &Realm, path: &str) -> bool {
        self.realm == *realm && self.path == path
    }
}

impl Authorization {
    fn of(slot: &Arc<Slot>, token: &Token) -> Authorization {
        Authorization { header: Some(bearer(&token.secret)), slot: Some(slot.clone()), ..Authorization::default() }
    }

    fn missing(problem: String) -> Authorization {
        Authorization { missing: Some(problem), ..Authorization::default() }
    }

    /// The same count of rounds, for the next attempt of a request.
    pub(crate) fn after(mut self, before: &Authorization) -> Authorization {
        self.rounds = before.rounds;
        self
    }
}

fn challenges(reply: &Reply) -> Vec<Challenge> {
    let headers = reply.answer.headers.get_all(WWW_AUTHENTICATE);
    // A realm may hold letters that are not ASCII.
    headers.iter().flat_map(|header| challenge::parse(&String::from_utf8_lossy(header.as_bytes()))).collect()
}

/// Tokens of a token service are preferred to sending a password with every request.
fn choose(challenges: &[Challenge]) -> Option<&Challenge> {
    let of = |scheme: &str| challenges.iter().find(|challenge| challenge.scheme == scheme);
    let with_service = of("bearer").filter(|challenge| challenge.parameter("realm").is_some());
    with_service.or_else(|| of("basic")).or_else(|| of("bearer"))
}

/// The token service that a challenge names, if it may be one.
fn realm(http: &Http, endpoint: &Endpoint, challenge: &Challenge, reply: &Reply) -> Result<Realm> {
    let refused = |problem: String| Error::Denied {
        place: endpoint.registry.to_string(),
        problem: format!("it names a token service that cannot be used: {problem}"),
    };
    let text = challenge.parameter("realm").unwrap_or_default();
    let url = redirect::resolve(&reply.url, text).map_err(refused)?;
    let same = redirect::same_server(&reply.url, &url);
    let reach = if same { Reach::Anywhere } else { http.reach_from(reply.answer.zone) };
    Ok(Realm { url, service: challenge.parameter("service").map(str::to_owned), reach })
}

/// Whether a credential itself is what a challenge asks for. A password is no bearer token.
fn answers(credential: &Credential, challenge: &Challenge) -> bool {
    match credential {
        Credential::Bearer(_) => true,
        Credential::Password { .. } => challenge.scheme == "basic",
        Credential::Identity(_) => false,
    }
}

/// The credential itself, where it can be sent to the registry.
fn direct(credential: &Credential) -> Option<HeaderValue> {
    match credential {
        Credential::Bearer(token) => Some(bearer(token)),
        Credential::Password { .. } => basic(credential),
        Credential::Identity(_) => None,
    }
}

fn basic(credential: &Credential) -> Option<HeaderValue> {
    let Credential::Password { username, password } = credential else { return None };
    let pair = zeroize::Zeroizing::new(format!("{username}:{}", password.reveal()));
    secret_header(format!("Basic {}", STANDARD.encode(pair.as_bytes())))
}

fn bearer(token: &Secret) -> HeaderValue {
    secret_header(format!("Bearer {}", token.reveal())).unwrap_or(HeaderValue::from_static("Bearer"))
}

fn secret_header(text: String) -> Option<HeaderValue> {
    let text = zeroize::Zeroizing::new(text);
    let mut header = HeaderValue::from_str(&text).ok()?;
    header.set_sensitive(true);
    Some(header)
}
