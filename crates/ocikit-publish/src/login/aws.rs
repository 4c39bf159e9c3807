//! Amazon's ECR and its public registry: `AssumeRoleWithWebIdentity` of the Security Token Service, and `GetAuthorizationToken` of
//! the registry's own service.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use ocikit::Registry;
use ocikit::registry::{Credential, Secret};
use ocikit_http::Url;
use ocikit_sign::Http;
use serde::Deserialize;

use super::answer::{FORM, MAX_RESPONSE_BYTES, body, json, other_form};
use super::error::ExchangeError;
use super::identity::Identity;
use super::kind::{ExchangeKind, ecr_region};
use super::sigv4::{AwsKeys, Post, sign};
use super::source::Source;

const STS: &str = "the Security Token Service";
const ECR: &str = "ECR";
/// The audience of OIDC tokens for roles.
const AUDIENCE: &str = "sts.amazonaws.com";
const AMZ_JSON: &str = "application/x-amz-json-1.1";

/// A service that gives passwords.
#[derive(Debug)]
struct Service {
    kind: ExchangeKind,
    /// The name in signatures, and after `api.` in the host.
    name: &'static str,
    /// The header `X-Amz-Target` of the operation.
    target: &'static str,
    /// The variable for another endpoint, as the tools of Amazon call it.
    endpoint: &'static str,
}

const PRIVATE: Service = Service {
    kind: ExchangeKind::Ecr,
    name: "ecr",
    target: "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken",
    endpoint: "AWS_ENDPOINT_URL_ECR",
};
/// <https://docs.aws.amazon.com/AmazonECRPublic/latest/APIReference/API_GetAuthorizationToken.html>
const PUBLIC: Service = Service {
    kind: ExchangeKind::EcrPublic,
    name: "ecr-public",
    target: "SpencerFrontendService.GetAuthorizationToken",
    endpoint: "AWS_ENDPOINT_URL_ECR_PUBLIC",
};
/// The region in which the public registry gives passwords.
const PUBLIC_REGION: &str = "us-east-1";

/// The way to a password of a registry.
#[derive(Debug, Clone)]
pub(super) struct Ecr {
    service: &'static Service,
    region: String,
    sts: String,
    ecr: String,
    by: Caller,
}

/// Who asks for the password.
#[derive(Debug, Clone)]
enum Caller {
    Keys(AwsKeys),
    Role { arn: String, session: String, identity: Identity },
}

impl Ecr {
    pub(super) fn read(registry: &Registry, source: &Source<'_>) -> Result<Ecr, ExchangeError> {
        let kind = ExchangeKind::Ecr;
        let host = registry.as_str();
        let region = match ecr_region(host) {
            Some(region) => region,
            None => source
                .get("AWS_REGION")
                .or_else(|| source.get("AWS_DEFAULT_REGION"))
                .ok_or(ExchangeError::Missing { kind, variable: "AWS_REGION" })?,
        };
        Ecr::in_region(&PRIVATE, region, source)
    }

    pub(super) fn read_public(source: &Source<'_>) -> Result<Ecr, ExchangeError> {
        Ecr::in_region(&PUBLIC, PUBLIC_REGION, source)
    }

    fn in_region(service: &'static Service, region: &str, source: &Source<'_>) -> Result<Ecr, ExchangeError> {
        let kind = service.kind;
        let is_name = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !is_name(region) {
            return Err(ExchangeError::Invalid { what: "AWS_REGION".to_owned(), problem: "it is not a region" });
        }
        let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        let endpoint = |variable: &str, default: String| {
            let url = source.get(variable).map_or(default, |url| format!("{}/", url.trim_end_matches('/')));
            private(variable, url)
        };
        let sts = endpoint("AWS_ENDPOINT_URL_STS", format!("https://sts.{region}.{domain}/"))?;
        let ecr = endpoint(service.endpoint, format!("https://api.{}.{region}.{domain}/", service.name))?;
        let by = match (source.get("AWS_ROLE_ARN"), source.get("AWS_ACCESS_KEY_ID")) {
            (None, Some(id)) => Caller::Keys(AwsKeys {
                id: id.to_owned(),
                secret: Secret::new(source.required(kind, "AWS_SECRET_ACCESS_KEY")?),
                session: source.get("AWS_SESSION_TOKEN").map(Secret::new),
            }),
            (Some(arn), _) => Caller::Role {
                arn: arn.to_owned(),
                session: source.get("AWS_ROLE_SESSION_NAME").unwrap_or("ocikit").to_owned(),
                identity: Identity::find(kind, source, Some("AWS_WEB_IDENTITY_TOKEN_FILE"))?,
            },
            (None, None) => {
                let variable = "AWS_ROLE_ARN or AWS_ACCESS_KEY_ID";
                return Err(ExchangeError::Missing { kind, variable });
            }
        };
        Ok(Ecr { service, region: region.to_owned(), sts, ecr, by })
    }

    pub(super) async fn credential(
        &self,
        http: &Http,
        now: Timestamp,
    ) -> Result<(Credential, Option<Timestamp>), ExchangeError> {
        let keys = match &self.by {
            Caller::Keys(keys) => keys.clone(),
            Caller::Role { arn, session, identity } => {
                let token = identity.token(http, AUDIENCE).await?;
                assume(http, &self.sts, arn, session, &token).await?
            }
        };
        let host = host_of(&self.ecr).ok_or_else(|| other_form(ECR))?;
        let request = b"{}";
        let signed = sign(
            &Post {
                service: self.service.name,
                region: &self.region,
                host: &host,
                path: "/",
                headers: &[("content-type", AMZ_JSON), ("x-amz-target", self.service.target)],
                body: request,
            },
            &keys,
            now,
        );
        let mut headers: Vec<_> = signed.iter().map(|(name, value)| (*name, value.reveal())).collect();
        headers.push(("x-amz-target", self.service.target));
        let answer = http.post(&self.ecr, AMZ_JSON, &headers, request.to_vec(), MAX_RESPONSE_BYTES).await;
        password(json(ECR, answer)?)
    }
}

/// Returns the URL if others cannot read what is sent to it.
pub(super) fn private(what: &str, url: String) -> Result<String, ExchangeError> {
    match Http::is_private(&url) {
        true => Ok(url),
        false => Err(ExchangeError::Invalid { what: what.to_owned(), problem: "it is not an https URL" }),
    }
}

/// Returns the header `Host` of requests to a URL.
fn host_of(url: &str) -> Option<String> {
    url.parse::<Url>().ok().map(|url| url.authority())
}

async fn assume(http: &Http, url: &str, arn: &str, session: &str, token: &Secret) -> Result<AwsKeys, ExchangeError> {
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("Action", "AssumeRoleWithWebIdentity")
        .append_pair("Version", "2011-06-15")
        .append_pair("RoleArn", arn)
        .append_pair("RoleSessionName", session)
        .append_pair("WebIdentityToken", token.reveal())
        .finish();
    let answer = body(STS, http.post(url, FORM, &[], form.into_bytes(), MAX_RESPONSE_BYTES).await)?;
    let text = std::str::from_utf8(&answer.body).map_err(|_| other_form(STS))?;
    let part = |name: &str| element(text, name).ok_or_else(|| other_form(STS));
    Ok(AwsKeys {
        id: part("AccessKeyId")?.to_owned(),
        secret: Secret::new(part("SecretAccessKey")?),
        session: Some(Secret::new(part("SessionToken")?)),
    })
}

/// Returns the text of the only XML element with a name; `None` if there are several, or its text has markup. Keys are
/// in base64, so nothing in them is escaped.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, rest) = rest.split_once(&format!("</{name}>"))?;
    let text = text.trim();
    let is_plain = !text.is_empty() && !text.contains(['<', '&']) && !rest.contains(&format!("<{name}>"));
    is_plain.then_some(text)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthorizationJson {
    authorization_data: OneOrMany,
}

/// A list, or the element alone in a response of the public registry.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    Many(Vec<AuthorizationData>),
    One(AuthorizationData),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthorizationData {
    authorization_token: Secret,
    expires_at: Option<f64>,
}

/// Returns the user and password in a response, which has them in base64 as `USER:PASSWORD`.
fn password(answer: AuthorizationJson) -> Result<(Credential, Option<Timestamp>), ExchangeError> {
    let data = match answer.authorization_data {
        OneOrMany::Many(list) => list.into_iter().next().ok_or_else(|| other_form(ECR))?,
        OneOrMany::One(data) => data,
    };
    let text = STANDARD.decode(data.authorization_token.reveal()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let text = text.map(zeroize::Zeroizing::new).ok_or_else(|| other_form(ECR))?;
    let (username, password) = text.split_once(':').ok_or_else(|| other_form(ECR))?;
    let expires = data.expires_at.and_then(|seconds| Timestamp::from_second(seconds as i64).ok());
    Ok((Credential::password(username, Secret::new(password)), expires))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_found_once_and_without_markup() {
        let xml =
            "<A><Credentials><AccessKeyId> ASIA </AccessKeyId><X>a&amp;b</X><Y></Y></Credentials><Z>1</Z><Z>2</Z></A>";
        assert_eq!(element(xml, "AccessKeyId"), Some("ASIA"));
        for name in ["X", "Y", "Z", "Missing", "Credentials"] {
            assert_eq!(element(xml, name), None, "{name}");
        }
    }

    #[test]
    fn hosts_have_ports_other_than_the_default() {
        assert_eq!(host_of("https://api.ecr.eu-west-1.amazonaws.com/").unwrap(), "api.ecr.eu-west-1.amazonaws.com");
        assert_eq!(host_of("http://127.0.0.1:1234/").unwrap(), "127.0.0.1:1234");
    }
}
