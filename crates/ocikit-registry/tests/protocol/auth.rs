//! Challenges, tokens, and which servers receive credentials.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use bytes::Bytes;
use ocikit_image::{Memory, Sink, Source, SourceExt, testing};
use ocikit_registry::{Client, Credential, Error, Fixed, Keychain, RequestEvent, RequestObserver, Result, Secret};
use ocikit_spec::{Descriptor, MediaType, Registry};

use crate::double::{Action, Double, Seen, status};
use crate::support::{FakeClock, failed, options, repository};

/// A token service on the registry's own port, and the access control of the registry.
#[derive(Clone)]
struct TokenService {
    inner: Arc<Mutex<Inner>>,
    realm: String,
}

#[derive(Default)]
struct Inner {
    /// The scopes of each token.
    tokens: HashMap<String, Vec<String>>,
    next: usize,
    /// The revoked tokens.
    revoked: Vec<String>,
    /// `user:password`, or the refresh token; without it every request for a token is granted.
    secret: Option<String>,
    /// The scopes that are never granted.
    withheld: Option<&'static str>,
    expires_in: u64,
}

impl TokenService {
    fn new(host: &str) -> TokenService {
        let inner = Inner { expires_in: 300, ..Inner::default() };
        TokenService { inner: Arc::new(Mutex::new(inner)), realm: format!("http://{host}/token") }
    }

    fn install(&self, double: &Double) {
        let token_service = self.clone();
        double.rule(
            move |seen| if seen.path == "/token" { token_service.grant(seen) } else { token_service.check(seen) },
        );
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.inner.lock().unwrap());
    }

    fn grant(&self, seen: &Seen) -> Action {
        let inner = &mut *self.inner.lock().unwrap();
        let basic = seen.header("authorization").strip_prefix("Basic ").unwrap_or_default();
        let basic = base64::engine::general_purpose::STANDARD.decode(basic).unwrap();
        let shown = seen.parameter("refresh_token").unwrap_or(String::from_utf8(basic).unwrap());
        if inner.secret.as_ref().is_some_and(|secret| *secret != shown) {
            return Action::Reply(
                401,
                vec![],
                r#"{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}"#.into(),
            );
        }
        let scopes: Vec<_> = seen
            .parameters("scope")
            .flat_map(|scope| scope.split(' ').map(str::to_owned).collect::<Vec<_>>())
            .collect();
        let withheld = inner.withheld.unwrap_or_default();
        let scopes = scopes.into_iter().map(|scope| match scope.rsplit_once(':') {
            Some((resource, actions)) => {
                let granted: Vec<_> = actions.split(',').filter(|action| *action != withheld).collect();
                format!("{resource}:{}", granted.join(","))
            }
            None => scope,
        });
        inner.next += 1;
        let token = format!("token-{}", inner.next);
        inner.tokens.insert(token.clone(), scopes.collect());
        let name = if seen.method == "POST" { "access_token" } else { "token" };
        let answer = serde_json::json!({ name: token, "expires_in": inner.expires_in });
        Action::Reply(200, vec![], answer.to_string().into())
    }

    fn check(&self, seen: &Seen) -> Action {
        let inner = &mut *self.inner.lock().unwrap();
        let path = seen.path.strip_prefix("/v2/").unwrap();
        let repository = ["/blobs/", "/manifests/", "/tags/"].iter().find_map(|part| path.split_once(part)).unwrap().0;
        let action = match seen.method.as_str() {
            "GET" | "HEAD" if !path.contains("/uploads/") => "pull",
            "DELETE" => "delete",
            _ => "push",
        };
        let shown = seen.header("authorization").strip_prefix("Bearer ").unwrap_or_default().to_owned();
        let mut needed = vec![(repository.to_owned(), action)];
        needed.extend(seen.parameter("from").map(|from| (from, "pull")));
        let granted = |(repository, action): &(String, &str)| {
            let scopes = inner.tokens.get(&shown).filter(|_| !inner.revoked.contains(&shown));
            scopes.into_iter().flatten().any(|scope| {
                let (resource, actions) = scope.rsplit_once(':').unwrap();
                resource == format!("repository:{repository}") && actions.split(',').any(|found| found == *action)
            })
        };
        if needed.iter().all(granted) {
            return Action::Pass;
        }
        let scope = format!("repository:{repository}:{}", if action == "pull" { "pull" } else { "pull,push" });
        let challenge = format!(r#"Basic realm="no" , Bearer realm="{}",service="double",scope="{scope}""#, self.realm);
        Action::Reply(401, vec![("www-authenticate", challenge)], Bytes::new())
    }
}

async fn guarded() -> (Double, TokenService) {
    let double = Double::start().await;
    let token_service = TokenService::new(&double.host());
    token_service.install(&double);
    (double, token_service)
}

fn client(credential: Credential) -> Client {
    let keychain = Arc::new(Fixed { registry: None, credential });
    Client::new(options().keychain(keychain))
}

fn user() -> Client {
    client(Credential::password("user", "pass"))
}

fn blob(seed: u64, length: usize) -> (Memory, Descriptor) {
    let memory = Memory::new();
    let bytes = testing::random(seed, length);
    memory.insert(bytes.clone());
    (memory, Descriptor::of(MediaType::OCI_LAYER, &bytes))
}

fn tokens(log: &[String]) -> usize {
    log.iter().filter(|line| line.ends_with(" /token")).count()
}

#[tokio::test]
async fn push_fetches_one_token() {
    let (double, token_service) = guarded().await;
    token_service.change(|inner| inner.secret = Some("user:pass".to_owned()));
    let repository = repository(&user(), &double, "a");
    for seed in 0..4 {
        let (memory, descriptor) = blob(seed, 1000);
        repository.put(&descriptor, &memory).await.unwrap();
    }
    let seen = double.seen();
    let log: Vec<_> = seen.iter().map(Seen::line).collect();
    assert_eq!((tokens(&log), log.len()), (1, 1 + 1 + 4 * 3));
    assert_eq!(seen[1].parameter("service").unwrap(), "double");
    assert_eq!(seen[1].parameter("scope").unwrap(), "repository:a:pull,push");
    assert_eq!(seen[1].parameter("account").unwrap(), "user");
    assert!(!seen.iter().any(|seen| seen.path != "/token" && seen.header("authorization").starts_with("Basic")));
    // A token for pushing also allows pulling.
    assert!(repository.has(&blob(0, 1000).1).await.unwrap());
    assert_eq!(tokens(&double.log()), 0);
}

#[tokio::test]
async fn concurrent_requests_share_one_token() {
    let (double, _door) = guarded().await;
    let repository = repository(&user(), &double, "a");
    let descriptor = blob(1, 10).1;
    let found = futures::future::join_all((0..100).map(|_| repository.has(&descriptor))).await;
    assert!(found.into_iter().all(|found| !found.unwrap()));
    let log = double.log();
    assert_eq!((tokens(&log), log.len()), (1, 1 + 1 + 100));
}

#[tokio::test]
async fn identity_token_is_exchanged() {
    let (double, token_service) = guarded().await;
    token_service.change(|inner| inner.secret = Some("refresh&me=1".to_owned()));
    let repository = repository(&client(Credential::Identity("refresh&me=1".into())), &double, "a");
    assert!(!repository.has(&blob(1, 10).1).await.unwrap());
    let seen = double.seen();
    assert_eq!(seen[1].line(), "POST /token");
    for (name, value) in [("grant_type", "refresh_token"), ("service", "double"), ("scope", "repository:a:pull")] {
        assert_eq!(seen[1].parameter(name).unwrap(), value);
    }
}

#[tokio::test]
async fn registry_token_is_sent_as_is() {
    let (double, token_service) = guarded().await;
    token_service.change(|inner| drop(inner.tokens.insert("given".to_owned(), vec!["repository:a:pull".to_owned()])));
    let client = client(Credential::Bearer("given".into()));
    assert!(!repository(&client, &double, "a").has(&blob(1, 10).1).await.unwrap());
    let shown: Vec<_> = double.seen().iter().map(|seen| seen.header("authorization").to_owned()).collect();
    assert_eq!(shown, ["", "Bearer given"], "no token before the challenge");
    let refused = repository(&client, &double, "b").has(&blob(1, 10).1).await;
    assert!(matches!(refused, Err(Error::Denied { .. })));
    assert_eq!(double.log().len(), 1);
}

#[tokio::test]
async fn tokens_are_renewed_when_expired_or_revoked() {
    let (double, token_service) = guarded().await;
    let clock = Arc::new(FakeClock::default());
    let client = Client::new(options().clock(clock.clone()));
    let repository = repository(&client, &double, "a");
    let descriptor = blob(1, 10).1;
    for (passed, fetched) in [(0, 1), (200, 0), (50, 1), (300, 1)] {
        clock.pass(Duration::from_secs(passed));
        repository.has(&descriptor).await.unwrap();
        assert_eq!(tokens(&double.log()), fetched, "after {passed} s");
    }
    token_service.change(|inner| inner.revoked = inner.tokens.keys().cloned().collect());
    repository.has(&descriptor).await.unwrap();
    assert_eq!(double.log().len(), 3);
}

#[tokio::test]
async fn upload_survives_expired_token() {
    for length in [1000, 10_000_000] {
        let (double, token_service) = guarded().await;
        let revoking = token_service.clone();
        double.rule(move |seen| {
            let first = seen.method == "POST";
            if first {
                revoking.change(|inner| inner.revoked = inner.tokens.keys().cloned().collect());
            }
            Action::Pass
        });
        let (memory, descriptor) = blob(1, length);
        repository(&user(), &double, "a").put(&descriptor, &memory).await.unwrap();
        assert_eq!(double.blob("a", &descriptor.digest).unwrap().len(), length);
        assert_eq!(tokens(&double.log()), 2);
    }
}

#[tokio::test]
async fn mount_requests_the_scope_of_its_source() {
    let (double, _door) = guarded().await;
    let client = user();
    let (memory, descriptor) = blob(1, 1000);
    let one = repository(&client, &double, "one");
    one.put(&descriptor, &memory).await.unwrap();
    double.log();
    let put = repository(&client, &double, "two").put(&descriptor, &one).await.unwrap();
    assert_eq!(put, ocikit_image::Put::Mounted);
    let seen = double.seen();
    let asked = seen.iter().find(|seen| seen.path == "/token").unwrap();
    let scopes: Vec<_> = asked.parameters("scope").collect();
    assert_eq!(scopes, ["repository:one:pull", "repository:two:pull,push"]);
}

#[tokio::test]
async fn missing_scope_is_an_error_without_endless_retries() {
    let (double, token_service) = guarded().await;
    token_service.change(|inner| inner.withheld = Some("push"));
    let (memory, descriptor) = blob(1, 1000);
    let refused = repository(&user(), &double, "a").put(&descriptor, &memory).await;
    assert!(matches!(refused, Err(Error::Denied { .. })), "{refused:?}");
    assert!(double.log().len() < 10);
}

#[tokio::test]
async fn wrong_credentials_are_sent_once() {
    let (double, token_service) = guarded().await;
    token_service.change(|inner| inner.secret = Some("user:other".to_owned()));
    let repository = repository(&user(), &double, "a");
    let descriptor = blob(1, 10).1;
    let error = failed(repository.has(&descriptor).await);
    assert_eq!(error, format!("cannot access {}/a: UNAUTHORIZED: who are you (status 401)", double.host()));
    for _ in 0..10 {
        failed(repository.has(&descriptor).await);
    }
    assert_eq!(tokens(&double.log()), 1);
}

#[tokio::test]
async fn challenge_may_come_for_one_repository_only() {
    let (double, token_service) = guarded().await;
    let open = Double::start().await;
    let access = token_service.clone();
    open.rule(move |seen| match seen.path.as_str() {
        path if path.starts_with("/v2/open/") || path == "/v2/" => Action::Pass,
        _ => access.check(seen),
    });
    let client = user();
    let descriptor = blob(1, 10).1;
    for (path, tokens_fetched) in [("open/a", 0), ("closed/a", 1), ("open/a", 1), ("closed/b", 1), ("closed/a", 0)] {
        assert!(!repository(&client, &open, path).has(&descriptor).await.unwrap());
        // Once the registry has named a token service, a token is requested first, which costs one request for a public
        // repository.
        assert_eq!(tokens(&double.log()), tokens_fetched, "{path}");
    }
}

#[tokio::test]
async fn basic_credentials_are_sent_only_after_a_challenge() {
    let double = Double::start().await;
    double.rule(|seen| match seen.header("authorization") {
        "Basic dXNlcjpwYXNz" => Action::Pass,
        _ => Action::Reply(401, vec![("www-authenticate", "Basic realm=\"x\"".to_owned())], Bytes::new()),
    });
    let descriptor = blob(1, 10).1;
    let repository_of = |client: &Client| repository(client, &double, "a");
    let user = user();
    assert!(!repository_of(&user).has(&descriptor).await.unwrap());
    assert!(!repository_of(&user).has(&descriptor).await.unwrap());
    let shown: Vec<_> = double.seen().iter().map(|seen| seen.header("authorization").len()).collect();
    assert_eq!(shown, [0, 18, 18]);
    let refused = repository_of(&client(Credential::password("user", "other"))).has(&descriptor).await;
    assert!(matches!(refused, Err(Error::Denied { .. })));
    assert_eq!(double.log().len(), 2);
    assert!(matches!(repository_of(&Client::default()).has(&descriptor).await, Err(Error::Denied { .. })));
    assert_eq!(double.log().len(), 1);
}

#[tokio::test]
async fn token_service_out_of_reach_is_refused() {
    let double = Double::start().await;
    let challenge = r#"Bearer realm="http://169.254.169.254/token""#.to_owned();
    double.rule(move |_| Action::Reply(401, vec![("www-authenticate", challenge.clone())], Bytes::new()));
    let error = failed(repository(&user(), &double, "a").has(&blob(1, 10).1).await);
    assert!(error.contains("169.254.169.254"), "{error}");
}

#[tokio::test]
async fn failing_token_service_is_retried() {
    let (double, _door) = guarded().await;
    let flaky = Double::start().await;
    flaky.script("GET /token", vec![status(503), status(429)]);
    let token_service = TokenService::new(&flaky.host());
    token_service.install(&flaky);
    double.log();
    assert!(!repository(&user(), &flaky, "a").has(&blob(1, 10).1).await.unwrap());
    assert_eq!(tokens(&flaky.log()), 3);
}

/// A keychain that counts its calls, and fails if `broken` is set.
#[derive(Debug, Default)]
struct Counting {
    asked: Mutex<Vec<String>>,
    broken: bool,
}

#[async_trait]
impl Keychain for Counting {
    async fn credential(&self, registry: &Registry, path: &str) -> Result<Option<Credential>> {
        self.asked.lock().unwrap().push(path.to_owned());
        match self.broken {
            true => Err(Error::broken(format!("the keychain of {registry}"), "it is locked")),
            false => Ok(None),
        }
    }
}

#[tokio::test]
async fn keychain_is_asked_once_per_repository_and_failure_is_reported() {
    let (double, token_service) = guarded().await;
    double.put_blob("a", testing::random(1, 10));
    let keychain = Arc::new(Counting::default());
    let client = Client::new(options().keychain(keychain.clone()));
    for _ in 0..5 {
        repository(&client, &double, "a").read(&blob(1, 10).1).await.unwrap();
        repository(&client, &double, "b").has(&blob(1, 10).1).await.unwrap();
    }
    assert_eq!(*keychain.asked.lock().unwrap(), ["a", "b"]);
    // Public repositories need no credential, so a failing keychain is a warning until a request is refused.
    let broken = Arc::new(Counting { broken: true, ..Counting::default() });
    let recorded = Arc::new(RecordedEvents::default());
    let client = Client::new(options().keychain(broken).observer(Some(recorded.clone())));
    let repository = repository(&client, &double, "a");
    repository.read(&blob(1, 10).1).await.unwrap();
    let warnings = recorded.0.lock().unwrap().matches("it is locked").count();
    assert_eq!(warnings, 1);
    token_service.change(|inner| {
        inner.revoked = inner.tokens.keys().cloned().collect();
        inner.secret = Some("user:pass".to_owned());
    });
    let error = failed(repository.has(&blob(1, 10).1).await);
    assert!(error.contains("who are you") && error.ends_with("it is locked"), "{error}");
}

/// An observer that records its calls as text.
#[derive(Debug, Default)]
struct RecordedEvents(Mutex<String>);

impl RequestObserver for RecordedEvents {
    fn request(&self, event: RequestEvent<'_>) {
        self.0.lock().unwrap().push_str(&format!("{event:?}\n"));
    }

    fn credential_failed(&self, registry: &Registry, problem: &str) {
        self.0.lock().unwrap().push_str(&format!("{registry}: {problem}\n"));
    }
}

#[tokio::test]
async fn observer_sees_every_request_without_secrets() {
    for credential in
        [Credential::password("user", "pass-secret"), Credential::Identity(Secret::new("identity-secret"))]
    {
        let (double, token_service) = guarded().await;
        let secret = match &credential {
            Credential::Identity(_) => "identity-secret",
            _ => "user:pass-secret",
        };
        token_service.change(|inner| inner.secret = Some(secret.to_owned()));
        let recorded = Arc::new(RecordedEvents::default());
        let keychain = Arc::new(Fixed { registry: None, credential });
        let client = Client::new(options().keychain(keychain).observer(Some(recorded.clone())));
        let (memory, descriptor) = blob(1, 1000);
        let repository = repository(&client, &double, "a");
        double.script("PUT /v2/a/blobs/uploads/", vec![Action::CutRequest(100)]);
        repository.put(&descriptor, &memory).await.unwrap();
        let elsewhere = format!("http://{}/v2/a/blobs/{}?signature=address-secret", double.host(), descriptor.digest);
        double.script("GET /v2/a/blobs/", vec![Action::Reply(307, vec![("location", elsewhere)], Bytes::new())]);
        repository.open(&descriptor).await.unwrap().bytes().await.unwrap();
        let recorded = recorded.0.lock().unwrap().clone();
        let requests = recorded.lines().filter(|line| !line.contains("Retried")).count();
        assert_eq!(requests, double.log().len(), "{recorded}");
        assert!(
            recorded.contains("/token\"") && recorded.contains("Retried") && recorded.contains("Failed"),
            "{recorded}"
        );
        let basic = base64::engine::general_purpose::STANDARD.encode("user:pass-secret");
        for secret in ["secret", "token-", "session-", "?", &basic] {
            assert!(!recorded.contains(secret), "{secret}\n{recorded}");
        }
    }
}

#[tokio::test]
async fn identity_token_is_not_sent_to_redirect_targets() {
    for status in [301, 302, 307, 308] {
        let elsewhere = Double::start().await;
        let location = format!("http://{}/token", elsewhere.host());
        let redirect = move || Action::Reply(status, vec![("location", location.clone())], Bytes::new());
        let front = Double::start().await;
        let token_service = TokenService::new(&front.host());
        front.rule(move |seen| if seen.path == "/token" { redirect() } else { token_service.check(seen) });
        let repository = repository(&client(Credential::Identity("refresh-secret".into())), &front, "a");
        let refused = repository.has(&blob(1, 10).1).await;
        assert!(elsewhere.seen().is_empty(), "{status}: {refused:?}");
        assert!(failed(refused).contains("redirects"), "{status}");
    }
}

#[tokio::test]
async fn revoked_token_is_replaced_once() {
    let (double, token_service) = guarded().await;
    let repository = repository(&user(), &double, "a");
    let descriptor = blob(1, 10).1;
    repository.has(&descriptor).await.unwrap();
    token_service.change(|inner| inner.revoked.push("token-1".to_owned()));
    double.log();
    let found = futures::future::join_all((0..20).map(|_| repository.has(&descriptor))).await;
    assert!(found.into_iter().all(|found| !found.unwrap()));
    assert_eq!(tokens(&double.log()), 1);
}
