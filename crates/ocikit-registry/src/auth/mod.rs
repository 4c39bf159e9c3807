//! Authentication: challenges, scopes and tokens.

mod challenge;
mod header;
mod scope;
mod service;
mod token;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use ocikit_http::header::{HeaderValue, WWW_AUTHENTICATE};
use ocikit_http::{HttpClient, InvalidLocation, Method, Reply, lock, retry};
use ocikit_image::{Error, Result};
use tokio::sync::{Mutex as AsyncMutex, OnceCell, OwnedMutexGuard};

use crate::credentials::{Credential, Keychain};
use crate::endpoint::Endpoint;
use crate::problem::Problem;

use challenge::Challenge;
use header::{bearer, direct};
pub(crate) use scope::Scopes;
use service::Realm;
use token::Token;

/// How long a refusal of a token service is remembered before another request is made.
const REFUSAL_LIFETIME: Duration = Duration::from_secs(10);

/// Maximum number of challenges that one request answers: without a token, with a revoked token, with a token of too
/// narrow a scope.
const MAX_CHALLENGES: u32 = 3;

/// What is known about the authentication of all registries.
#[derive(Debug, Default)]
pub(crate) struct Authenticator(Mutex<HashMap<String, Arc<HostAuth>>>);

impl Authenticator {
    pub(crate) fn host(&self, endpoint: &Endpoint) -> Arc<HostAuth> {
        lock(&self.0).entry(endpoint.base.reveal().to_owned()).or_default().clone()
    }
}

/// Authenticates one request with the scheme that its registry requires.
#[derive(Debug)]
pub(crate) struct Authentication<'a> {
    pub(crate) keychain: &'a dyn Keychain,
    pub(crate) host: Arc<HostAuth>,
    pub(crate) http: &'a HttpClient,
    pub(crate) endpoint: &'a Endpoint,
    /// The repository; empty for the registry as a whole.
    pub(crate) path: &'a str,
    /// The place that an [`Error::Denied`] names.
    pub(crate) place: &'a str,
    pub(crate) scopes: &'a Scopes,
}

/// What is known about the authentication of one registry.
#[derive(Debug, Default)]
pub(crate) struct HostAuth {
    scheme: Mutex<Scheme>,
    /// Locked by the first request, whose answer shows the scheme.
    gate: Arc<AsyncMutex<()>>,
    /// Whether the first request has ended. If its answer showed no scheme, other requests no longer wait.
    tried: AtomicBool,
    credentials: Mutex<HashMap<String, Arc<OnceCell<Option<Credential>>>>>,
    tokens: Mutex<Vec<Arc<TokenSlot>>>,
    /// The scopes that an operation needs by the specification, and the ones that the registry demands instead.
    widened: Mutex<HashMap<Scopes, Scopes>>,
    /// Whether `/v2/` was requested, because an answer lacked a challenge.
    probed: AsyncMutex<bool>,
    /// Why the keychain could not provide a credential.
    credential_error: Mutex<Option<String>>,
}

/// The authentication scheme of a registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Scheme {
    /// No request has been answered yet.
    #[default]
    Unknown,
    Nothing,
    /// The credential itself with every request: a password, or a registry token.
    Direct,
    /// A token from a token service.
    Bearer(Realm),
}

/// A cached token for some scopes, or the place where it will be stored.
#[derive(Debug)]
struct TokenSlot {
    realm: Realm,
    /// The repository whose credential is used to fetch it.
    path: String,
    scopes: Scopes,
    state: AsyncMutex<TokenState>,
}

#[derive(Debug, Default)]
enum TokenState {
    #[default]
    Empty,
    Token(Token),
    Refused {
        problem: String,
        until: SystemTime,
    },
}

/// The authorization of a request, and what is needed to evaluate the answer.
#[derive(Debug, Default)]
pub(crate) struct Authorization {
    pub(crate) header: Option<HeaderValue>,
    /// The slot of the token, which is cleared if the token is refused.
    slot: Option<Arc<TokenSlot>>,
    /// Why there is no token although the registry requires one.
    missing: Option<String>,
    _first: Option<FirstRequest>,
    /// Whether the token was fetched for this request.
    new: bool,
    challenges_answered: u32,
}

impl Authentication<'_> {
    /// Returns the authorization for a request.
    pub(crate) async fn authorize(&self) -> Result<Authorization> {
        let host = &self.host;
        let mut first = None;
        if host.is_new() {
            let guard = host.gate.clone().lock_owned().await;
            if host.is_new() {
                first = Some(FirstRequest { host: host.clone(), _guard: guard });
            }
        }
        let scheme = lock(&host.scheme).clone();
        match scheme {
            Scheme::Unknown | Scheme::Nothing => Ok(Authorization { _first: first, ..Authorization::default() }),
            Scheme::Direct => {
                let credential = self.credential().await;
                Ok(Authorization { header: credential.as_ref().and_then(direct), ..Authorization::default() })
            }
            Scheme::Bearer(realm) => {
                // A registry token needs no token service.
                if let Some(Credential::Bearer(token)) = self.credential().await {
                    return Ok(Authorization { header: Some(bearer(&token)), ..Authorization::default() });
                }
                self.token(realm).await
            }
        }
    }

    /// Evaluates an answer. `Ok(true)` means that the request should be repeated with a new
    /// [`Authentication::authorize`].
    ///
    /// # Errors
    ///
    /// [`Error::Denied`] if there is no further way to authenticate.
    pub(crate) async fn learn(&self, authorization: &mut Authorization, reply: &Reply) -> Result<bool> {
        let host = &self.host;
        let status = reply.answer.status;
        let challenges = challenges(reply);
        let too_little = challenges.iter().any(|found| found.parameter("error") == Some("insufficient_scope"));
        let is_challenge =
            reply.direct && (status == 401 && choose(&challenges).is_some() || status == 403 && too_little);
        if !is_challenge {
            if self.probe(authorization, reply).await? {
                return Ok(true);
            }
            // A server error says nothing about authentication.
            if status < 500 && (status != 401 || !reply.direct) && *lock(&host.scheme) == Scheme::Unknown {
                *lock(&host.scheme) = Scheme::Nothing;
            }
            let problem = authorization.missing.take().filter(|_| reply.direct && status == 401);
            return self.refused(reply, problem);
        }
        if let Some(problem) = authorization.missing.take() {
            return self.refused(reply, Some(problem));
        }
        authorization.challenges_answered += 1;
        let challenge = choose(&challenges).filter(|_| authorization.challenges_answered <= MAX_CHALLENGES);
        let again = match challenge {
            None => false,
            Some(challenge) if challenge.is_direct() => {
                let credential = self.credential().await;
                let answers = credential.as_ref().is_some_and(|credential| answers(credential, challenge));
                if answers || challenge.scheme == "basic" {
                    *lock(&host.scheme) = Scheme::Direct;
                }
                // A password that was refused is not sent again.
                authorization.header.is_none() && answers
            }
            Some(challenge) => self.answer(authorization, challenge, reply).await?,
        };
        if again { Ok(true) } else { self.refused(reply, None) }
    }

    /// Prepares for a challenge that names a token service. Returns whether a new token may help.
    async fn answer(&self, authorization: &mut Authorization, challenge: &Challenge, reply: &Reply) -> Result<bool> {
        *lock(&self.host.scheme) = Scheme::Bearer(self.realm(challenge, reply)?);
        let asked = challenge.parameter("scope").map(Scopes::parse).unwrap_or_default();
        let Some(slot) = authorization.slot.take() else {
            let wanted = self.scopes.follow(&asked);
            if wanted != *self.scopes {
                lock(&self.host.widened).entry(self.scopes.clone()).or_insert(wanted);
            }
            return Ok(authorization.header.is_none());
        };
        {
            let mut state = slot.state.lock().await;
            // Another request may have replaced the token meanwhile.
            if matches!(&*state, TokenState::Token(token) if authorization.header == Some(bearer(&token.secret))) {
                *state = TokenState::Empty;
            }
        }
        let wider = slot.scopes.follow(&asked);
        if wider != slot.scopes {
            lock(&self.host.widened).insert(self.scopes.clone(), wider);
            return Ok(true);
        }
        // A cached token may have been revoked; a new one for the same scopes would be refused again.
        Ok(!authorization.new)
    }

    /// Requests `/v2/` to obtain a challenge, if the registry refused an anonymous request without one and there is a
    /// credential for it. Returns whether the request should be repeated.
    ///
    /// GitHub Packages answers anonymous requests with 404 (containerd/containerd#3291), gcr.io with 403
    /// (containers/image#211). Both send a challenge for `/v2/`.
    async fn probe(&self, authorization: &mut Authorization, reply: &Reply) -> Result<bool> {
        let Authentication { host, http, endpoint, .. } = self;
        let status = reply.answer.status;
        let is_anonymous = authorization.header.is_none() && authorization.missing.is_none();
        if !reply.direct
            || !matches!(status, 401 | 403 | 404)
            || !is_anonymous
            || authorization.challenges_answered >= MAX_CHALLENGES
        {
            return Ok(false);
        }
        let Some(credential) = self.credential().await else { return Ok(false) };
        {
            let mut probed = host.probed.lock().await;
            if !std::mem::replace(&mut *probed, true) {
                // `http.send` is called on the way to other requests, which may authenticate again: the recursive
                // future must be boxed.
                let request = endpoint.request(Method::GET, endpoint.url(""));
                let answered = Box::pin(http.send(&request)).await;
                if let Ok(answered) = answered {
                    let challenges = challenges(&answered);
                    if let Some(challenge) = choose(&challenges).filter(|_| answered.direct) {
                        if !challenge.is_direct() {
                            *lock(&host.scheme) = Scheme::Bearer(self.realm(challenge, &answered)?);
                        } else if answers(&credential, challenge) {
                            *lock(&host.scheme) = Scheme::Direct;
                        }
                    }
                    answered.answer.drain().await;
                }
            }
        }
        authorization.challenges_answered += 1;
        Ok(match &*lock(&host.scheme) {
            Scheme::Unknown | Scheme::Nothing => false,
            Scheme::Direct => direct(&credential).is_some(),
            Scheme::Bearer(_) => true,
        })
    }

    /// Returns why the registry, or its token service, rejects the credential for a repository; `None` if there is no
    /// credential or it is accepted. A registry that hides repositories answers 404 to a rejected credential too.
    pub(crate) async fn rejection(&self) -> Option<String> {
        let Authentication { host, http, endpoint, .. } = self;
        let credential = self.credential().await?;
        let scheme = lock(&host.scheme).clone();
        match scheme {
            // Without a challenge no credential is sent.
            Scheme::Unknown | Scheme::Nothing => None,
            Scheme::Bearer(realm) if !matches!(credential, Credential::Bearer(_)) => {
                self.token(realm).await.ok()?.missing
            }
            Scheme::Bearer(_) | Scheme::Direct => {
                let mut request = endpoint.request(Method::GET, endpoint.url(""));
                request.authorization = Some(direct(&credential)?);
                let reply = Box::pin(http.send(&request)).await.ok()?;
                let is_rejected = reply.direct && reply.answer.status == 401;
                if is_rejected { Some(Problem::of(reply).await.text) } else { None }
            }
        }
    }

    /// Returns where the credential for a repository comes from, if there is one and its keychain names it.
    pub(crate) async fn origin(&self) -> Option<String> {
        self.credential().await?;
        self.keychain.origin(&self.endpoint.registry, self.path).await
    }

    /// Returns the error of a refused request if there is one: a missing token, or a credential that could not be read.
    fn refused(&self, reply: &Reply, problem: Option<String>) -> Result<bool> {
        let status = reply.answer.status;
        let credential_error =
            lock(&self.host.credential_error).clone().filter(|_| reply.direct && matches!(status, 401 | 403));
        let problem = match (problem, credential_error) {
            (None, None) => return Ok(false),
            (Some(problem), None) => problem,
            (problem, Some(credential_error)) => {
                format!(
                    "{}; no credential was used, since {credential_error}",
                    problem.unwrap_or(format!("status {status}"))
                )
            }
        };
        Err(Error::Denied { place: self.place.to_owned(), problem })
    }

    /// Returns the credential for a repository; the keychain is asked once. If it fails, requests are made without a
    /// credential, since most images are public.
    async fn credential(&self) -> Option<Credential> {
        let Authentication { keychain, host, http, endpoint, path, .. } = self;
        if endpoint.is_tls_expected && !http.uses_tls(&endpoint.base) {
            let problem = "a TLS option applies to this registry, but it speaks plain HTTP";
            *lock(&host.credential_error) = Some(problem.to_owned());
            return None;
        }
        let cell = lock(&host.credentials).entry((*path).to_owned()).or_default().clone();
        let ask = || async {
            match keychain.credential(&endpoint.registry, path).await {
                Ok(found) => found,
                Err(error) => {
                    let mut causes: Vec<_> = retry::causes(&error).map(ToString::to_string).collect();
                    // The message of an I/O error repeats the error that it wraps.
                    causes.dedup();
                    let causes = causes.join(": ");
                    let is_new = lock(&host.credential_error).replace(causes.clone()).is_none();
                    if is_new && let Some(observer) = http.observer() {
                        observer.credential_failed(&endpoint.registry, &causes);
                    }
                    None
                }
            }
        };
        cell.get_or_init(ask).await.clone()
    }

    async fn token(&self, realm: Realm) -> Result<Authorization> {
        let Authentication { host, http, path, .. } = self;
        let scopes = lock(&host.widened).get(self.scopes).cloned().unwrap_or_else(|| self.scopes.clone());
        let now = || http.clock().now();
        let slots: Vec<_> = {
            let mut tokens = lock(&host.tokens);
            if !tokens.iter().any(|slot| slot.serves(&realm, path) && slot.scopes == scopes) {
                let state = AsyncMutex::default();
                let (realm, path, scopes) = (realm.clone(), (*path).to_owned(), scopes.clone());
                tokens.push(Arc::new(TokenSlot { realm, path, scopes, state }));
            }
            let serving = tokens.iter().filter(|slot| slot.serves(&realm, path) && slot.scopes.cover(&scopes));
            serving.cloned().collect()
        };
        // A token that is being fetched by another request is waited for here.
        for slot in slots.iter().filter(|slot| slot.scopes != scopes) {
            if let TokenState::Token(token) = &*slot.state.lock().await
                && token.is_fresh(now())
            {
                return Ok(Authorization::of(slot, token));
            }
        }
        let exact = slots.iter().find(|slot| slot.scopes == scopes);
        let Some(slot) = exact else { return Ok(Authorization::default()) };
        let mut state = slot.state.lock().await;
        match &*state {
            TokenState::Token(token) if token.is_fresh(now()) => return Ok(Authorization::of(slot, token)),
            TokenState::Refused { problem, until } if now() < *until => {
                return Ok(Authorization::missing(problem.clone()));
            }
            _ => {}
        }
        let credential = self.credential().await;
        match service::fetch(http, self.endpoint, &slot.realm, &slot.scopes, credential.as_ref()).await {
            Ok(token) => {
                let authorization = Authorization { new: true, ..Authorization::of(slot, &token) };
                *state = TokenState::Token(token);
                Ok(authorization)
            }
            // The registry may allow anonymous access. If not, this is reported as the reason.
            Err(Error::Denied { problem, .. }) => {
                *state = TokenState::Refused { problem: problem.clone(), until: now() + REFUSAL_LIFETIME };
                Ok(Authorization::missing(problem))
            }
            Err(error) => Err(error),
        }
    }

    /// Returns the token service that a challenge names, if it is allowed.
    fn realm(&self, challenge: &Challenge, reply: &Reply) -> Result<Realm> {
        let refused = |problem: InvalidLocation| Error::Denied {
            place: self.place.to_owned(),
            problem: format!("it names an unusable token service: {problem}"),
        };
        let text = challenge.parameter("realm").unwrap_or_default();
        let url = ocikit_http::resolve(&reply.url, text).map_err(refused)?;
        let origin = self.http.origin_of(&url, self.endpoint.home(), reply);
        Ok(Realm { url, service: challenge.parameter("service").map(str::to_owned), origin })
    }
}

impl HostAuth {
    fn is_new(&self) -> bool {
        *lock(&self.scheme) == Scheme::Unknown && !self.tried.load(Ordering::Acquire)
    }
}

/// Marks the first request to a registry, until its answer has been evaluated.
#[derive(Debug)]
struct FirstRequest {
    host: Arc<HostAuth>,
    _guard: OwnedMutexGuard<()>,
}

impl Drop for FirstRequest {
    fn drop(&mut self) {
        self.host.tried.store(true, Ordering::Release);
    }
}

impl TokenSlot {
    fn serves(&self, realm: &Realm, path: &str) -> bool {
        self.realm == *realm && self.path == path
    }
}

impl Authorization {
    fn of(slot: &Arc<TokenSlot>, token: &Token) -> Authorization {
        Authorization { header: Some(bearer(&token.secret)), slot: Some(slot.clone()), ..Authorization::default() }
    }

    fn missing(problem: String) -> Authorization {
        Authorization { missing: Some(problem), ..Authorization::default() }
    }

    /// Carries the number of challenges over to the next attempt of a request.
    pub(crate) fn after(mut self, before: &Authorization) -> Authorization {
        self.challenges_answered = before.challenges_answered;
        self
    }
}

fn challenges(reply: &Reply) -> Vec<Challenge> {
    let headers = reply.answer.headers.get_all(WWW_AUTHENTICATE);
    // A realm may contain non-ASCII text.
    headers.iter().flat_map(|header| challenge::parse(&String::from_utf8_lossy(header.as_bytes()))).collect()
}

/// Selects a challenge. A token service is preferred to sending a password with every request.
fn choose(challenges: &[Challenge]) -> Option<&Challenge> {
    let of = |scheme: &str| challenges.iter().find(|challenge| challenge.scheme == scheme);
    let with_service = of("bearer").filter(|challenge| challenge.parameter("realm").is_some());
    with_service.or_else(|| of("basic")).or_else(|| of("bearer"))
}

/// Returns whether a credential answers a challenge without a token service. A password is no bearer token.
fn answers(credential: &Credential, challenge: &Challenge) -> bool {
    match credential {
        Credential::Bearer(_) => true,
        Credential::Password { .. } => challenge.scheme == "basic",
        Credential::Identity(_) => false,
    }
}
