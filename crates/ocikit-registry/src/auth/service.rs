//! Requests tokens from a token service.

use ocikit_http::{HttpClient, Method, Origin, Request, Url};
use ocikit_image::{Error, NoAnswer, Result};

use super::header::basic;
use super::scope::Scopes;
use super::token::Token;
use crate::credentials::{Credential, Secret};
use crate::endpoint::Endpoint;
use crate::problem;

/// Maximum size of the answer of a token service.
const MAX_RESPONSE_BYTES: u64 = 1 << 20;

/// A token service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Realm {
    pub(super) url: Url,
    pub(super) service: Option<String>,
    /// Whether the registry named itself or another server.
    pub(super) origin: Origin,
}

/// Requests a token.
pub(super) async fn fetch(
    http: &HttpClient,
    endpoint: &Endpoint,
    realm: &Realm,
    scopes: &Scopes,
    credential: Option<&Credential>,
) -> Result<Token> {
    let request = match credential {
        Some(Credential::Identity(token)) => identity_exchange_request(realm, scopes, token),
        other => token_request(realm, scopes, other),
    };
    let place = format!("{} for {}", realm.url.host(), endpoint.registry);
    let mut failures = 0;
    let body = loop {
        // Tokens are fetched on the way to other requests, which may authenticate again: the recursive future must be
        // boxed.
        let reply = Box::pin(http.send(&request)).await.map_err(|error| problem::unreachable(error, &place))?;
        let status = reply.answer.status;
        if !(200..300).contains(&status) {
            return Err(match problem::error(reply, "token service", &place).await {
                Error::Refused { problem, .. } => Error::Denied { place, problem },
                Error::NotFound { .. } => Error::Denied { place, problem: format!("status {status}") },
                other => other,
            });
        }
        match reply.answer.read(MAX_RESPONSE_BYTES).await {
            Ok(body) => break body,
            Err(error) => {
                failures += 1;
                if error.is_final() || !http.back_off(&request.method, &request.url, failures, None).await {
                    return Err(problem::unreachable(error, &place));
                }
            }
        }
    };
    Token::parse(&body, http.clock().now()).map_err(|problem| Error::Unreachable {
        place,
        cause: NoAnswer::Other,
        source: format!("its answer cannot be used: {problem}").into(),
    })
}

/// Returns a request by distribution's "Token Authentication Specification".
fn token_request(realm: &Realm, scopes: &Scopes, credential: Option<&Credential>) -> Request {
    let mut url = realm.url.clone();
    let account = match credential {
        Some(Credential::Password { username, .. }) => Some(("account", username.clone())),
        _ => None,
    };
    let scopes = scopes.iter().map(|scope| ("scope", scope));
    for (name, value) in service(realm).chain(scopes).chain(account) {
        url.append_query(name, &value);
    }
    let mut request = Request::new(Method::GET, url, realm.origin.clone());
    request.authorization = credential.and_then(basic);
    request
}

/// Returns a request by distribution's "Oauth2 Token Authentication".
fn identity_exchange_request(realm: &Realm, scopes: &Scopes, token: &Secret) -> Request {
    let fixed = [("grant_type", "refresh_token".to_owned()), ("client_id", "ocikit".to_owned())];
    let scopes = (!scopes.is_empty()).then(|| ("scope", scopes.to_string()));
    let mut form = realm.url.clone();
    form.set_path_and_query(realm.url.path(), None);
    for (name, value) in fixed.into_iter().chain(service(realm)).chain(scopes) {
        form.append_query(name, &value);
    }
    form.append_query("refresh_token", token.reveal());
    let body = form.query().unwrap_or_default().to_owned();
    let mut request = Request::new(Method::POST, realm.url.clone(), realm.origin.clone());
    request.is_secret = true;
    request.body("application/x-www-form-urlencoded", body.into())
}

fn service(realm: &Realm) -> impl Iterator<Item = (&'static str, String)> {
    realm.service.clone().map(|service| ("service", service)).into_iter()
}
