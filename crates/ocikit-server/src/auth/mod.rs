//! Authentication and authorization: credentials, scopes, tokens.

mod credentials;
mod scope;
mod token;
mod tokens;
mod users;

use std::sync::Arc;

use axum::http::header::WWW_AUTHENTICATE;
use axum::http::{HeaderMap, StatusCode};

use crate::clock::Clock;
use crate::name::RepositoryName;
use crate::query::Query;
use crate::refusal::{Code, Refusal, Result};
use crate::route::{Route, TOKEN_PATH};

use credentials::{Credentials, Needs, bearer_challenge};
use scope::Scope;
use tokens::{Token, Tokens};
use users::shrink;

pub use scope::Permission;
pub(crate) use token::MAX_FORM_BYTES;
pub use users::{Authentication, Bearer, Grant, InvalidHtpasswd, Password, Ping, Scheme, TokenField, User};

/// Authenticates and authorizes requests.
#[derive(Debug)]
pub(crate) struct Guard {
    pub(crate) authentication: Authentication,
    pub(crate) tokens: Tokens,
    clock: Clock,
}

/// What an authenticated request may do.
#[derive(Debug)]
pub(crate) enum Access {
    Everything,
    Granted(Vec<Grant>),
    Scoped(Arc<Token>),
}

impl Access {
    fn allows(&self, scope: &Scope) -> bool {
        match self {
            Access::Everything => true,
            Access::Granted(grants) => shrink(scope, grants).is_some_and(|granted| granted.covers(scope)),
            Access::Scoped(token) => token.granted.iter().any(|granted| granted.covers(scope)),
        }
    }

    /// Returns whether a repository may be read.
    pub(crate) fn may_pull(&self, name: &RepositoryName) -> bool {
        self.allows(&Scope::repository(name, &[Permission::Pull]))
    }
}

impl Guard {
    pub(crate) fn new(authentication: Authentication, clock: Clock) -> Guard {
        Guard { authentication, tokens: Tokens::default(), clock }
    }

    /// Authorizes a request. `host` is the name by which the client addresses this server.
    pub(crate) fn admit(
        &self,
        method: &str,
        route: &Route,
        query: &Query,
        headers: &HeaderMap,
        host: &str,
    ) -> Result<Access> {
        if *route == Route::Token || (*route == Route::Ping && self.authentication.ping == Ping::Open) {
            return Ok(Access::Everything);
        }
        let needs = Needs::of(method, route, query);
        let credentials = Credentials::of(headers);
        match &self.authentication.scheme {
            Scheme::None => Ok(Access::Everything),
            Scheme::Basic => self.admit_basic(route, &needs, credentials),
            Scheme::Bearer(bearer) => {
                let realm = bearer.realm.clone().unwrap_or_else(|| format!("http://{host}{TOKEN_PATH}"));
                let challenge =
                    |error: Option<&str>| challenge(bearer_challenge(&realm, &bearer.service, &needs, error));
                self.admit_bearer(&needs, credentials, challenge)
            }
        }
    }

    fn admit_basic(&self, route: &Route, needs: &Needs, credentials: Credentials) -> Result<Access> {
        let user = self.basic_user(&credentials)?;
        let access = Access::Granted(self.authentication.grants(user.as_deref()).to_vec());
        if user.is_none() && *route == Route::Ping {
            return Err(basic_challenge());
        }
        match (needs.scopes.iter().all(|scope| access.allows(scope)), user) {
            (true, _) => Ok(access),
            (false, None) => Err(basic_challenge()),
            (false, Some(user)) => {
                let message = format_args!("{user} may not do that");
                Err(Refusal::new(StatusCode::FORBIDDEN, Code::Denied, message))
            }
        }
    }

    fn admit_bearer(
        &self,
        needs: &Needs,
        credentials: Credentials,
        challenge: impl Fn(Option<&str>) -> Refusal,
    ) -> Result<Access> {
        let Credentials::Bearer(text) = credentials else { return Err(challenge(None)) };
        let token = self.tokens.find(&text, self.clock.now()).ok_or_else(|| challenge(Some("invalid_token")))?;
        // A token that was requested with the optional scope and does not have it would not get it the next time
        // either, so the mount becomes an upload. A token that was requested without it is challenged.
        let asked = |scope: &Scope| token.asked.iter().any(|asked| asked.resource == scope.resource);
        let asked_for_optional = needs.optional.as_ref().is_none_or(asked);
        let access = Access::Scoped(token.clone());
        if needs.scopes.iter().all(|scope| access.allows(scope)) && asked_for_optional {
            return Ok(access);
        }
        Err(challenge(Some("insufficient_scope")))
    }

    /// Returns the name of the authenticated user; `None` without credentials.
    fn basic_user(&self, credentials: &Credentials) -> Result<Option<String>> {
        match credentials {
            Credentials::None => Ok(None),
            Credentials::Basic { name, password } => match self.authentication.user(name, password) {
                Some(user) => Ok(Some(user.name.clone())),
                None => Err(basic_challenge()),
            },
            Credentials::Bearer(_) | Credentials::Malformed => Err(basic_challenge()),
        }
    }
}

fn basic_challenge() -> Refusal {
    challenge("Basic realm=\"ocikit-server\"".to_owned())
}

fn challenge(header: String) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, Code::Unauthorized, "credentials are missing, wrong, or not enough")
        .with_header(WWW_AUTHENTICATE, header)
}
