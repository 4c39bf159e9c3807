//! Google's Artifact Registry: the token exchange of RFC 8693 at the Security Token Service, and a service account by
//! the IAM Credentials API: <https://cloud.google.com/iam/docs/workload-identity-federation-with-other-providers>.

use jiff::{SignedDuration, Timestamp};
use ocikit::registry::{Credential, Secret};
use ocikit_sign::Http;
use serde::Deserialize;
use serde_json::json;

use super::answer::{FORM, JSON, MAX_RESPONSE_BYTES, json as parsed};
use super::aws::private;
use super::error::ExchangeError;
use super::identity::Identity;
use super::kind::ExchangeKind;
use super::source::Source;

const STS: &str = "Google's Security Token Service";
const IAM: &str = "Google's IAM Credentials API";
const TOKEN_URL: &str = "https://sts.googleapis.com/v1/token";
const IAM_URL: &str = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/";
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// The user name that Artifact Registry expects with an access token.
const USERNAME: &str = "oauth2accesstoken";

/// The way to an access token.
#[derive(Debug, Clone)]
pub(super) struct Google {
    /// The full name of the provider: `//iam.googleapis.com/projects/…/providers/…`.
    audience: String,
    token_url: String,
    /// The URL that gives the access token of a service account.
    account_url: Option<String>,
    identity: Identity,
}

/// The file that `GOOGLE_APPLICATION_CREDENTIALS` names, of the type `external_account`.
#[derive(Deserialize)]
struct ExternalAccount {
    #[serde(rename = "type")]
    kind: String,
    audience: String,
    token_url: Option<String>,
    service_account_impersonation_url: Option<String>,
    credential_source: Option<CredentialSource>,
}

#[derive(Deserialize)]
struct CredentialSource {
    file: Option<String>,
}

impl Google {
    pub(super) fn read(source: &Source<'_>) -> Result<Google, ExchangeError> {
        let kind = ExchangeKind::ArtifactRegistry;
        let provider = source.get("GOOGLE_WORKLOAD_IDENTITY_PROVIDER");
        let (audience, token_url, account_url, identity) = match provider {
            Some(provider) => {
                let provider = provider.trim_start_matches("https:").trim_start_matches("//iam.googleapis.com/");
                let account = source.get("GOOGLE_SERVICE_ACCOUNT");
                if account.is_some_and(|account| account.contains(['/', '?', '#', '%'])) {
                    let what = "GOOGLE_SERVICE_ACCOUNT".to_owned();
                    return Err(ExchangeError::Invalid { what, problem: "it is not a mail address" });
                }
                let account = account.map(|account| format!("{IAM_URL}{account}:generateAccessToken"));
                let identity = Identity::find(kind, source, None)?;
                (format!("//iam.googleapis.com/{provider}"), TOKEN_URL.to_owned(), account, identity)
            }
            None => {
                let variable = "GOOGLE_WORKLOAD_IDENTITY_PROVIDER or GOOGLE_APPLICATION_CREDENTIALS";
                let path = source.get("GOOGLE_APPLICATION_CREDENTIALS");
                let path = path.ok_or(ExchangeError::Missing { kind, variable })?;
                let invalid = |problem| ExchangeError::Invalid { what: path.to_owned(), problem };
                let file: ExternalAccount = serde_json::from_slice(&source.file(path)?)
                    .map_err(|_| invalid("it is not JSON with `type` and `audience`"))?;
                if file.kind != "external_account" {
                    return Err(invalid("its type is not `external_account`; keys of service accounts are not used"));
                }
                let identity = match file.credential_source.and_then(|found| found.file) {
                    Some(token) => Identity::Given(source.secret_file(&token)?),
                    None => Identity::find(kind, source, None)?,
                };
                let token_url = file.token_url.unwrap_or_else(|| TOKEN_URL.to_owned());
                (file.audience, token_url, file.service_account_impersonation_url, identity)
            }
        };
        let account_url = account_url.map(|url| private("the URL of the service account", url)).transpose()?;
        Ok(Google { audience, token_url: private("the token URL", token_url)?, account_url, identity })
    }

    pub(super) async fn credential(
        &self,
        http: &Http,
        now: Timestamp,
    ) -> Result<(Credential, Option<Timestamp>), ExchangeError> {
        let (token, expires) = self.access_token(http, now).await?;
        let (token, expires) = match &self.account_url {
            None => (token, expires),
            Some(url) => account_token(http, url, &token).await?,
        };
        Ok((Credential::password(USERNAME, token), expires))
    }

    async fn access_token(&self, http: &Http, now: Timestamp) -> Result<(Secret, Option<Timestamp>), ExchangeError> {
        #[derive(Deserialize)]
        struct TokenJson {
            access_token: Secret,
            expires_in: Option<u32>,
        }
        // A provider accepts tokens for its own name, with the scheme.
        let identity = self.identity.token(http, &format!("https:{}", self.audience)).await?;
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange")
            .append_pair("audience", &self.audience)
            .append_pair("scope", SCOPE)
            .append_pair("requested_token_type", "urn:ietf:params:oauth:token-type:access_token")
            .append_pair("subject_token_type", "urn:ietf:params:oauth:token-type:jwt")
            .append_pair("subject_token", identity.reveal())
            .finish();
        let answer = http.post(&self.token_url, FORM, &[], form.into_bytes(), MAX_RESPONSE_BYTES).await;
        let TokenJson { access_token, expires_in } = parsed(STS, answer)?;
        let lasts = |seconds| now.checked_add(SignedDuration::from_secs(i64::from(seconds))).ok();
        Ok((access_token, expires_in.and_then(lasts)))
    }
}

/// Returns the access token of a service account.
async fn account_token(http: &Http, url: &str, token: &Secret) -> Result<(Secret, Option<Timestamp>), ExchangeError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct AccountJson {
        access_token: Secret,
        expire_time: Option<String>,
    }
    let bearer = zeroize::Zeroizing::new(format!("Bearer {}", token.reveal()));
    let request = json!({"scope": [SCOPE]}).to_string().into_bytes();
    let answer = http.post(url, JSON, &[("authorization", &bearer)], request, MAX_RESPONSE_BYTES).await;
    let AccountJson { access_token, expire_time } = parsed(IAM, answer)?;
    Ok((access_token, expire_time.and_then(|time| time.parse().ok())))
}
