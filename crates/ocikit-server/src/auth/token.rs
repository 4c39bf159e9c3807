//! The token endpoint: `GET` with user name and password, as in docker, and `POST` as in OAuth2.

use std::time::Duration;

use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};

use super::credentials::Credentials;
use super::scope::{Scope, join};
use super::tokens::Token;
use super::users::{Bearer, Scheme, TokenField, shrink};
use super::{Guard, basic_challenge};
use crate::query::Query;
use crate::refusal::{Code, Refusal, Result, json};
use crate::rules::Switch;

/// Maximum size of a form, in bytes.
pub(crate) const MAX_FORM_BYTES: u64 = 64 << 10;

impl Credentials {
    pub(crate) fn of(headers: &HeaderMap) -> Credentials {
        let header = headers.get(axum::http::header::AUTHORIZATION);
        Credentials::parse(header.map(|value| value.to_str().unwrap_or_default()))
    }
}

/// A token request.
#[derive(Debug)]
struct TokenRequest {
    user: Option<String>,
    scopes: Vec<Scope>,
    /// The identity token to return: a new one, or the one in the request.
    identity: Option<Identity>,
}

#[derive(Debug)]
enum Identity {
    New,
    Known(String),
}

impl Guard {
    /// Answers a token request. `form` is the body of a `POST`.
    pub(crate) fn issue(&self, method: &Method, headers: &HeaderMap, query: &Query, form: &[u8]) -> Result<Response> {
        let Scheme::Bearer(bearer) = &self.authentication.scheme else {
            return Err(Refusal::new(StatusCode::NOT_FOUND, Code::Unsupported, "this registry issues no tokens"));
        };
        let asked = match *method {
            Method::GET => self.request_by_basic(headers, query)?,
            Method::POST => self.request_by_form(&Query::parse_bytes(form))?,
            _ => return Err(Refusal::unsupported("a token is requested with GET or POST")),
        };
        self.answer(bearer, asked)
    }

    fn request_by_basic(&self, headers: &HeaderMap, query: &Query) -> Result<TokenRequest> {
        let user = self.basic_user(&Credentials::of(headers))?;
        let offline = query.get("offline_token") == Some("true") && user.is_some();
        Ok(TokenRequest { user, scopes: scopes(query), identity: offline.then_some(Identity::New) })
    }

    fn request_by_form(&self, form: &Query) -> Result<TokenRequest> {
        let field = |key| form.get(key).unwrap_or_default();
        let offline = form.get("access_type") == Some("offline");
        let (user, identity) = match field("grant_type") {
            "password" => {
                let user =
                    self.authentication.user(field("username"), field("password")).ok_or_else(basic_challenge)?;
                (user.name.clone(), offline.then_some(Identity::New))
            }
            "refresh_token" => {
                let text = field("refresh_token");
                let user = self.tokens.identity(text).ok_or_else(basic_challenge)?;
                (user, Some(Identity::Known(text.to_owned())))
            }
            other => {
                let message = format_args!("grant type `{other}` is not supported");
                return Err(Refusal::invalid(Code::Unsupported, message));
            }
        };
        Ok(TokenRequest { user: Some(user), scopes: scopes(form), identity })
    }

    fn answer(&self, bearer: &Bearer, asked: TokenRequest) -> Result<Response> {
        let grants = self.authentication.grants(asked.user.as_deref());
        if asked.user.is_none() && grants.is_empty() {
            return Err(basic_challenge());
        }
        let granted: Vec<_> = asked.scopes.iter().filter_map(|scope| shrink(scope, grants)).collect();
        let now = self.clock.now();
        let expires = now.checked_add(bearer.lifetime).unwrap_or(now + MAX_TOKEN_LIFETIME);
        let scope = join(&granted);
        let token = Token { granted, asked: asked.scopes, expires };
        let text = self.tokens.issue(token, now).map_err(Refusal::internal)?;

        let mut answer = Map::new();
        if bearer.field != TokenField::AccessToken {
            answer.insert("token".to_owned(), text.clone().into());
        }
        if bearer.field != TokenField::Token {
            answer.insert("access_token".to_owned(), text.into());
        }
        answer.insert("expires_in".to_owned(), bearer.lifetime.as_secs().into());
        answer.insert("scope".to_owned(), scope.into());
        let identity = match (asked.identity, asked.user, bearer.identity_tokens) {
            (Some(Identity::Known(text)), ..) => Some(text),
            (Some(Identity::New), Some(user), Switch::On) => {
                Some(self.tokens.issue_identity(&user).map_err(Refusal::internal)?)
            }
            _ => None,
        };
        if let Some(identity) = identity {
            answer.insert("refresh_token".to_owned(), identity.into());
        }
        Ok(([(CACHE_CONTROL, "no-store")], json("application/json", &Value::Object(answer))).into_response())
    }
}

/// Longer than any server runs.
const MAX_TOKEN_LIFETIME: Duration = Duration::from_secs(1 << 32);

/// The parameter may be repeated, and each value may be a list.
fn scopes(query: &Query) -> Vec<Scope> {
    query.all("scope").flat_map(Scope::parse_list).collect()
}
