//! Azure's container registry: a federated token at Microsoft's identity platform, and the exchange of its access token
//! for a refresh token of the registry:
//! <https://github.com/Azure/acr/blob/main/docs/AAD-OAuth.md>.

use ocikit::Registry;
use ocikit::registry::{Credential, Secret};
use ocikit_sign::Http;
use serde::Deserialize;

use super::answer::{FORM, MAX_RESPONSE_BYTES, json};
use super::aws::private;
use super::error::ExchangeError;
use super::identity::Identity;
use super::kind::ExchangeKind;
use super::source::Source;

const LOGIN: &str = "Microsoft's identity platform";
const REGISTRY: &str = "the registry";
const AUTHORITY: &str = "https://login.microsoftonline.com";
/// The audience of federated tokens.
const AUDIENCE: &str = "api://AzureADTokenExchange";
const SCOPE: &str = "https://containerregistry.azure.net/.default";
/// The user name that the registry expects with a refresh token.
const USERNAME: &str = "00000000-0000-0000-0000-000000000000";

/// The way to a refresh token.
#[derive(Debug, Clone)]
pub(super) struct Acr {
    registry: String,
    exchange_url: String,
    token_url: String,
    tenant: String,
    client: String,
    identity: Identity,
}

impl Acr {
    pub(super) fn read(registry: &Registry, source: &Source<'_>) -> Result<Acr, ExchangeError> {
        let kind = ExchangeKind::Acr;
        let tenant = source.required(kind, "AZURE_TENANT_ID")?;
        if !tenant.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.')) {
            let what = "AZURE_TENANT_ID".to_owned();
            return Err(ExchangeError::Invalid { what, problem: "it is not the id or domain of a tenant" });
        }
        let client = source.required(kind, "AZURE_CLIENT_ID")?.to_owned();
        let authority = source.get("AZURE_AUTHORITY_HOST").unwrap_or(AUTHORITY).trim_end_matches('/');
        let scheme = if registry.is_loopback() { "http" } else { "https" };
        Ok(Acr {
            registry: registry.as_str().to_owned(),
            exchange_url: format!("{scheme}://{}/oauth2/exchange", registry.as_str()),
            token_url: private("AZURE_AUTHORITY_HOST", format!("{authority}/{tenant}/oauth2/v2.0/token"))?,
            tenant: tenant.to_owned(),
            client,
            identity: Identity::find(kind, source, Some("AZURE_FEDERATED_TOKEN_FILE"))?,
        })
    }

    pub(super) async fn credential(&self, http: &Http) -> Result<Credential, ExchangeError> {
        #[derive(Deserialize)]
        struct AccessJson {
            access_token: Secret,
        }
        #[derive(Deserialize)]
        struct RefreshJson {
            refresh_token: Secret,
        }
        let identity = self.identity.token(http, AUDIENCE).await?;
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "client_credentials")
            .append_pair("client_id", &self.client)
            .append_pair("scope", SCOPE)
            .append_pair("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
            .append_pair("client_assertion", identity.reveal())
            .finish();
        let answer = http.post(&self.token_url, FORM, &[], form.into_bytes(), MAX_RESPONSE_BYTES).await;
        let AccessJson { access_token } = json(LOGIN, answer)?;
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "access_token")
            .append_pair("service", &self.registry)
            .append_pair("tenant", &self.tenant)
            .append_pair("access_token", access_token.reveal())
            .finish();
        let answer = http.post(&self.exchange_url, FORM, &[], form.into_bytes(), MAX_RESPONSE_BYTES).await;
        let RefreshJson { refresh_token } = json(REGISTRY, answer)?;
        Ok(Credential::password(USERNAME, refresh_token))
    }
}
