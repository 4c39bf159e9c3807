//! The services are doubles: they answer as the documentation of the real ones says, and check what they are asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use ocikit::registry::{Credential, Keychain};
use ocikit_sign::{Http, HttpOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const TOKEN: &str = "canary-id-token";

/// A service on a loopback address that gives one answer for each path.
struct Double {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Double {
    async fn start(answers: &'static [(&'static str, u16, &'static str)]) -> Double {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let kept = requests.clone();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let kept = kept.clone();
                tokio::spawn(async move {
                    let request = read_request(&mut client).await;
                    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                    kept.lock().unwrap().push(request);
                    let found = answers.iter().find(|(known, ..)| path.split('?').next() == Some(known));
                    let (status, body) = found.map_or((404, ""), |(_, status, body)| (*status, *body));
                    let length = body.len();
                    let answer =
                        format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
                    let _ = client.write_all(answer.as_bytes()).await;
                });
            }
        });
        Double { address, requests }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn read_request(client: &mut tokio::net::TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
        let mut part = [0; 4096];
        match client.read(&mut part).await {
            Ok(count @ 1..) => bytes.extend_from_slice(&part[..count]),
            _ => return text,
        }
    }
}

fn environment(variables: &[(&str, &str)]) -> BTreeMap<String, String> {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn read(kind: Option<ExchangeKind>, registry: &str, variables: &[(&str, &str)]) -> Result<Exchange, ExchangeError> {
    let file = |path: &str| match path {
        "token.jwt" => Ok(format!("{TOKEN}\n").into_bytes()),
        "account.json" => Ok(br#"{"type": "external_account", "audience": "//iam.googleapis.com/projects/1/x",
            "token_url": "https://sts.googleapis.com/v1/token", "credential_source": {"file": "token.jwt"}}"#
            .to_vec()),
        "key.json" => Ok(br#"{"type": "service_account", "audience": ""}"#.to_vec()),
        _ => Err(std::io::ErrorKind::NotFound.into()),
    };
    Exchange::read(kind, &registry.parse().unwrap(), &environment(variables), &file)
}

fn http() -> Http {
    let mut options = HttpOptions::default();
    options.retries.attempts = 1;
    Http::new(&options).unwrap()
}

fn now() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

fn shown(credential: &Credential) -> (String, String) {
    match credential {
        Credential::Password { username, password } => (username.clone(), password.reveal().to_owned()),
        Credential::Identity(_) | Credential::Bearer(_) => panic!("no password"),
    }
}

#[test]
fn hosts_tell_how_tokens_are_exchanged() {
    for (host, kind) in [
        ("ghcr.io", Some(ExchangeKind::GitHub)),
        ("registry.gitlab.com", Some(ExchangeKind::GitLab)),
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", Some(ExchangeKind::Ecr)),
        ("123456789012.dkr.ecr-fips.us-east-1.amazonaws.com", Some(ExchangeKind::Ecr)),
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", Some(ExchangeKind::Ecr)),
        ("public.ecr.aws", Some(ExchangeKind::EcrPublic)),
        ("europe-docker.pkg.dev", Some(ExchangeKind::ArtifactRegistry)),
        ("eu.gcr.io", Some(ExchangeKind::ArtifactRegistry)),
        ("acme.azurecr.io", Some(ExchangeKind::Acr)),
        ("docker.io", None),
        ("registry.example.com", None),
        ("x.dkr.ecr.eu-west-1.amazonaws.com.evil.example", None),
        ("evil.dkr.ecr.a.b.amazonaws.com", None),
        ("azurecr.io.evil.example", None),
        ("evil.public.ecr.aws", None),
    ] {
        assert_eq!(ExchangeKind::of(&host.parse().unwrap()), kind, "{host}");
    }
}

#[tokio::test]
async fn job_tokens_go_to_the_registry_of_their_system_only() {
    let github = [("GITHUB_ACTOR", "octocat"), ("GITHUB_TOKEN", "canary")];
    let exchange = read(None, "ghcr.io", &github).unwrap();
    let exchanged = exchange.credential(&http(), now()).await.unwrap();
    assert_eq!(shown(&exchanged.credential), ("octocat".to_owned(), "canary".to_owned()));
    let error = read(Some(ExchangeKind::GitHub), "evil.example", &github).unwrap_err().to_string();
    assert_eq!(error, "cannot log in to evil.example: the token of the job is for ghcr.io");
    let enterprise = [&github[..], &[("GITHUB_SERVER_URL", "https://git.acme.example")]].concat();
    read(Some(ExchangeKind::GitHub), "containers.git.acme.example", &enterprise).unwrap();
    read(Some(ExchangeKind::GitHub), "ghcr.io", &enterprise).unwrap_err();
    let gitlab = [("CI_REGISTRY", "registry.acme.example"), ("CI_JOB_TOKEN", "canary")];
    let exchange = read(None, "registry.acme.example", &gitlab).unwrap();
    let exchanged = exchange.credential(&http(), now()).await.unwrap();
    assert_eq!(shown(&exchanged.credential).0, "gitlab-ci-token");
    read(Some(ExchangeKind::GitLab), "ghcr.io", &gitlab).unwrap_err();
    assert!(!format!("{exchange:?}").contains("canary"));
}

#[tokio::test]
async fn double_of_ecr_gets_a_signed_request_with_the_keys_of_the_role() {
    // <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html> and
    // <https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_GetAuthorizationToken.html>
    let sts = Double::start(&[(
        "/",
        200,
        "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">
          <AssumeRoleWithWebIdentityResult><Credentials>
            <AccessKeyId>ASgeIAIOSFODNN7EXAMPLE</AccessKeyId>
            <SecretAccessKey>canary/secret+key</SecretAccessKey>
            <SessionToken>canary-session</SessionToken>
            <Expiration>2026-01-02T04:04:05Z</Expiration>
          </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>",
    )])
    .await;
    let ecr = Double::start(&[(
        "/",
        200,
        r#"{"authorizationData": [{"authorizationToken": "QVdTOmNhbmFyeS1wYXNzd29yZA==", "expiresAt": 1767366245.5,
            "proxyEndpoint": "https://123456789012.dkr.ecr.eu-west-1.amazonaws.com"}]}"#,
    )])
    .await;
    let variables = [
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/ci"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "token.jwt"),
        ("AWS_ENDPOINT_URL_STS", &sts.url()),
        ("AWS_ENDPOINT_URL_ECR", &ecr.url()),
    ];
    let exchange = read(None, "123456789012.dkr.ecr.eu-west-1.amazonaws.com", &variables).unwrap();
    let exchanged = exchange.credential(&http(), now()).await.unwrap();
    assert_eq!(shown(&exchanged.credential), ("AWS".to_owned(), "canary-password".to_owned()));
    assert_eq!(exchanged.expires.unwrap().as_second(), 1_767_366_245);
    let asked = sts.requests().join("");
    for part in ["Action=AssumeRoleWithWebIdentity", "RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fci", TOKEN] {
        assert!(asked.contains(part), "{part}: {asked}");
    }
    let asked = ecr.requests().join("");
    for part in [
        "x-amz-target: AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken",
        "content-type: application/x-amz-json-1.1",
        "x-amz-security-token: canary-session",
        "Credential=ASgeIAIOSFODNN7EXAMPLE/20260102/eu-west-1/ecr/aws4_request, SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target, Signature=",
    ] {
        assert!(asked.contains(part), "{part}: {asked}");
    }
    assert!(!format!("{exchange:?} {exchanged:?}").contains("canary"));
}

#[tokio::test]
async fn double_of_ecr_public_gets_a_request_signed_for_its_own_service() {
    // <https://docs.aws.amazon.com/AmazonECRPublic/latest/APIReference/API_GetAuthorizationToken.html>: the same protocol as ECR,
    // but the signature names `ecr-public` and `us-east-1`, and the response has one element and no list.
    let ecr = Double::start(&[(
        "/",
        200,
        r#"{"authorizationData": {"authorizationToken": "QVdTOmNhbmFyeS1wYXNzd29yZA==", "expiresAt": 1.7673662455E9}}"#,
    )])
    .await;
    let variables = [
        ("AWS_ACCESS_KEY_ID", "ASgeIAIOSFODNN7EXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "canary/secret+key"),
        // The region of the job is that of its private registries.
        ("AWS_REGION", "eu-west-1"),
        ("AWS_ENDPOINT_URL_ECR", "http://127.0.0.1:1"),
        ("AWS_ENDPOINT_URL_ECR_PUBLIC", &ecr.url()),
    ];
    let exchange = read(None, "public.ecr.aws", &variables).unwrap();
    assert_eq!(exchange.kind(), "ecr-public".parse().unwrap());
    let exchanged = exchange.credential(&http(), now()).await.unwrap();
    assert_eq!(shown(&exchanged.credential), ("AWS".to_owned(), "canary-password".to_owned()));
    assert_eq!(exchanged.expires.unwrap().as_second(), 1_767_366_245);
    let asked = ecr.requests().join("");
    for part in [
        "x-amz-target: SpencerFrontendService.GetAuthorizationToken",
        "Credential=ASgeIAIOSFODNN7EXAMPLE/20260102/us-east-1/ecr-public/aws4_request, SignedHeaders=content-type;host;x-amz-date;x-amz-target, Signature=",
    ] {
        assert!(asked.contains(part), "{part}: {asked}");
    }
    assert!(!format!("{exchange:?} {exchanged:?}").contains("canary"));
    let error = read(None, "public.ecr.aws", &[]).unwrap_err().to_string();
    assert_eq!(
        error,
        "cannot log in by ecr-public: the environment variable AWS_ROLE_ARN or AWS_ACCESS_KEY_ID is not set"
    );
}

#[tokio::test]
async fn double_of_artifact_registry_gives_the_token_of_a_service_account() {
    // <https://cloud.google.com/iam/docs/reference/sts/rest/v1/TopLevel/token> and
    // <https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/generateAccessToken>
    let google = Double::start(&[
        ("/v1/token", 200, r#"{"access_token": "canary-federated", "expires_in": 3600, "token_type": "Bearer"}"#),
        ("/v1/account", 200, r#"{"accessToken": "canary-account", "expireTime": "2026-01-02T04:04:05Z"}"#),
    ])
    .await;
    let file = format!(
        r#"{{"type": "external_account", "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/a/providers/b",
            "token_url": "{0}/v1/token", "service_account_impersonation_url": "{0}/v1/account"}}"#,
        google.url()
    );
    let variables = environment(&[("GOOGLE_APPLICATION_CREDENTIALS", "x"), ("OCIKIT_ID_TOKEN", TOKEN)]);
    let registry = "europe-docker.pkg.dev".parse().unwrap();
    let exchange = Exchange::read(None, &registry, &variables, &|_| Ok(file.clone().into_bytes())).unwrap();
    let exchanged = exchange.credential(&http(), now()).await.unwrap();
    assert_eq!(shown(&exchanged.credential), ("oauth2accesstoken".to_owned(), "canary-account".to_owned()));
    assert_eq!(exchanged.expires, Some("2026-01-02T04:04:05Z".parse().unwrap()));
    let [exchange, account] = &google.requests()[..] else { panic!("two requests") };
    for part in ["grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange", "providers%2Fb", TOKEN] {
        assert!(exchange.contains(part), "{part}: {exchange}");
    }
    assert!(account.contains("authorization: Bearer canary-federated"), "{account}");
    // Without a service account, the federated token is the password.
    let direct = read(None, "eu.gcr.io", &[("GOOGLE_APPLICATION_CREDENTIALS", "account.json")]).unwrap();
    assert_eq!(direct.kind(), ExchangeKind::ArtifactRegistry);
    let error = read(None, "gcr.io", &[("GOOGLE_APPLICATION_CREDENTIALS", "key.json")]).unwrap_err().to_string();
    assert!(error.contains("keys of service accounts are not used"), "{error}");
}

#[tokio::test]
async fn double_of_acr_exchanges_for_a_refresh_token() {
    // <https://github.com/Azure/acr/blob/main/docs/AAD-OAuth.md>
    let azure = Double::start(&[
        ("/tenant/oauth2/v2.0/token", 200, r#"{"access_token": "canary-access", "expires_in": 3599}"#),
        ("/oauth2/exchange", 200, r#"{"refresh_token": "canary-refresh"}"#),
        // GitHub's own service for OIDC tokens.
        ("/github", 200, r#"{"value": "canary-id-token"}"#),
    ])
    .await;
    let request = format!("{}/github?api-version=2.0", azure.url());
    let variables = [
        ("AZURE_TENANT_ID", "tenant"),
        ("AZURE_CLIENT_ID", "client"),
        ("AZURE_AUTHORITY_HOST", &*azure.url()),
        ("ACTIONS_ID_TOKEN_REQUEST_URL", &*request),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "canary-request"),
    ];
    let exchange = read(Some(ExchangeKind::Acr), &azure.address, &variables).unwrap();
    let keychain = ExchangeKeychain::new(vec![exchange], http());
    let registry = azure.address.parse().unwrap();
    for _ in 0..2 {
        let credential = keychain.credential(&registry, "acme/app").await.unwrap().unwrap();
        let expected = ("00000000-0000-0000-0000-000000000000".to_owned(), "canary-refresh".to_owned());
        assert_eq!(shown(&credential), expected);
    }
    assert_eq!(keychain.credential(&"ghcr.io".parse().unwrap(), "").await.unwrap(), None);
    let requests = azure.requests();
    let [github, login, exchange] = &requests[..] else { panic!("{requests:?}") };
    assert!(github.contains("audience=api%3A%2F%2FAzureADTokenExchange"), "{github}");
    assert!(login.contains("client_assertion=canary-id-token"), "{login}");
    assert!(
        exchange.contains("grant_type=access_token") && exchange.contains("access_token=canary-access"),
        "{exchange}"
    );
    assert!(!format!("{keychain:?}").contains("canary"));
}

#[tokio::test]
async fn refused_and_malformed_answers_are_not_repeated() {
    let service = Double::start(&[
        ("/a/oauth2/v2.0/token", 401, r#"{"error": "canary"}"#),
        ("/b/oauth2/v2.0/token", 200, "canary"),
    ])
    .await;
    for (tenant, message) in [("a", "answered 401"), ("b", "another form"), ("c", "answered 404")] {
        let variables = [
            ("AZURE_TENANT_ID", tenant),
            ("AZURE_CLIENT_ID", "client"),
            ("AZURE_AUTHORITY_HOST", &*service.url()),
            ("OCIKIT_ID_TOKEN", TOKEN),
        ];
        let exchange = read(Some(ExchangeKind::Acr), &service.address, &variables).unwrap();
        let error = exchange.credential(&http(), now()).await.unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains(message) && !text.contains("canary"), "{tenant}: {text}");
    }
}

#[test]
fn incomplete_environments_are_explained() {
    let ecr = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
    for (registry, variables, message) in [
        ("registry.example.com", &[][..], "not known which tokens"),
        ("ghcr.io", &[("GITHUB_ACTOR", "x")], "GITHUB_TOKEN is not set"),
        ("ghcr.io", &[("GITHUB_ACTOR", ""), ("GITHUB_TOKEN", "x")], "GITHUB_ACTOR is not set"),
        (ecr, &[], "AWS_ROLE_ARN or AWS_ACCESS_KEY_ID is not set"),
        (ecr, &[("AWS_ROLE_ARN", "x")], "the job has no OIDC token"),
        (ecr, &[("AWS_ROLE_ARN", "x"), ("AWS_WEB_IDENTITY_TOKEN_FILE", "missing")], "cannot read missing"),
        (ecr, &[("AWS_ACCESS_KEY_ID", "x")], "AWS_SECRET_ACCESS_KEY is not set"),
        (
            ecr,
            &[("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "y"), ("AWS_ENDPOINT_URL_ECR", "http://a.example")],
            "AWS_ENDPOINT_URL_ECR: it is not an https URL",
        ),
        ("a.azurecr.io", &[("AZURE_TENANT_ID", "../x"), ("AZURE_CLIENT_ID", "y")], "not the id or domain of a tenant"),
        ("eu.gcr.io", &[], "GOOGLE_WORKLOAD_IDENTITY_PROVIDER or GOOGLE_APPLICATION_CREDENTIALS is not set"),
        (
            "eu.gcr.io",
            &[("GOOGLE_WORKLOAD_IDENTITY_PROVIDER", "p"), ("GOOGLE_SERVICE_ACCOUNT", "a/b"), ("OCIKIT_ID_TOKEN", "x")],
            "not a mail address",
        ),
    ] {
        let error = read(None, registry, variables).unwrap_err().to_string();
        assert!(error.contains(message), "{registry} {variables:?}: {error}");
    }
}
