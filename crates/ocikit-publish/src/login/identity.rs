use std::fmt;

use ocikit::registry::Secret;
use ocikit_sign::{Http, github_token_for};

use super::error::ExchangeError;
use super::kind::ExchangeKind;
use super::source::Source;

/// Where the OIDC token of a job comes from.
#[derive(Clone)]
pub(super) enum Identity {
    /// A variable or file has it.
    Given(Secret),
    /// GitHub issues it on request.
    GitHub { url: String, secret: Secret },
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Identity::Given(_) => "Identity::Given(***)",
            Identity::GitHub { .. } => "Identity::GitHub(***)",
        })
    }
}

impl Identity {
    /// Finds the token of a job: the file that `variable` names, as the tools of the provider read it, then
    /// `OCIKIT_ID_TOKEN`, then that of GitHub.
    pub(super) fn find(
        kind: ExchangeKind,
        source: &Source<'_>,
        variable: Option<&'static str>,
    ) -> Result<Identity, ExchangeError> {
        if let Some(path) = variable.and_then(|variable| source.get(variable)) {
            return source.secret_file(path).map(Identity::Given);
        }
        if let Some(token) = source.get("OCIKIT_ID_TOKEN") {
            return Ok(Identity::Given(Secret::new(token.trim())));
        }
        match (source.get("ACTIONS_ID_TOKEN_REQUEST_URL"), source.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN")) {
            (Some(url), Some(secret)) => Ok(Identity::GitHub { url: url.to_owned(), secret: Secret::new(secret) }),
            _ => Err(ExchangeError::NoIdentity { kind }),
        }
    }

    /// Returns the token for a service.
    pub(super) async fn token(&self, http: &Http, audience: &str) -> Result<Secret, ExchangeError> {
        match self {
            Identity::Given(token) => Ok(token.clone()),
            Identity::GitHub { url, secret } => {
                let token = github_token_for(http, url, secret.reveal(), audience).await;
                let token = token.map_err(|_| ExchangeError::Service {
                    service: "GitHub",
                    problem: "it gave no OIDC token; has the job the permission `id-token: write`?".to_owned(),
                })?;
                Ok(Secret::new(token.as_str()))
            }
        }
    }
}
