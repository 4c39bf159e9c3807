use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ocikit_server::{Authentication, Bearer, Clock, Grant, Ping, Running, Scheme, Server, Switch, TokenField, User};
use ocikit_spec::Digest;

use crate::http::{Http, start_with};

fn basic(name: &str, password: &str) -> String {
    format!("authorization: Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

/// Alice may do everything, Bob writes below `bob/` and reads everywhere.
fn users() -> [User; 2] {
    let grants = vec![Grant::pull("**"), Grant::push("bob/**")];
    [User::new("alice", "a"), User { grants, ..User::new("bob", "b") }]
}

async fn start(authentication: Authentication) -> (Running, Http) {
    start_with(Server::default().authentication(authentication)).await
}

/// Requests a token with `GET`, as a user or anonymously.
async fn token(http: &Http, who: &str, scope: &str) -> serde_json::Value {
    let answer = http.send(&format!("GET /token?service=ocikit-server&{scope}"), who, "").await;
    assert_eq!(answer.status, 200);
    answer.json()
}

fn bearer(answer: &serde_json::Value) -> String {
    format!("authorization: Bearer {}", answer["token"].as_str().unwrap())
}

#[tokio::test]
async fn basic_credentials_are_required() {
    let (running, http) = start(Authentication::basic(users())).await;
    for (line, headers, status) in [
        ("GET /v2/", String::new(), 401),
        ("GET /v2/", basic("alice", "b"), 401),
        ("GET /v2/", basic("carol", "a"), 401),
        ("GET /v2/", "authorization: Basic !".to_owned(), 401),
        ("GET /v2/", "authorization: Bearer x".to_owned(), 401),
        ("GET /v2/", basic("alice", "a"), 200),
        ("GET /v2/", basic("bob", "b"), 200),
        ("GET /v2/x/tags/list", String::new(), 401),
        ("GET /v2/x/tags/list", basic("bob", "b"), 404),
        ("POST /v2/x/blobs/uploads/", basic("bob", "b"), 403),
        ("POST /v2/bob/x/blobs/uploads/", basic("bob", "b"), 202),
        ("DELETE /v2/bob/x/manifests/v1", basic("bob", "b"), 403),
        ("DELETE /v2/bob/x/manifests/v1", basic("alice", "a"), 404),
        ("GET /v2/_catalog", basic("bob", "b"), 403),
        ("GET /v2/_catalog", basic("alice", "a"), 200),
        ("GET /token", basic("alice", "a"), 404),
    ] {
        let answer = http.send(line, &headers, "").await;
        assert_eq!(answer.status, status, "{line} {headers}");
        match status {
            401 => {
                assert!(answer.header("www-authenticate").starts_with("Basic realm="));
                assert_eq!(answer.code(), "UNAUTHORIZED");
            }
            403 => assert_eq!(answer.code(), "DENIED"),
            _ => assert_eq!(answer.header("www-authenticate"), ""),
        }
    }
    assert!(!format!("{:?}", running.requests()).contains(&STANDARD.encode("alice:a")));
}

#[tokio::test]
async fn anonymous_reads_can_be_allowed() {
    let anonymous = vec![Grant::pull("public/**")];
    let (_running, http) = start(Authentication::basic(users()).anonymous(anonymous)).await;
    for (line, status) in [
        ("GET /v2/", 401),
        ("GET /v2/public/x/tags/list", 404),
        ("GET /v2/private/x/tags/list", 401),
        ("POST /v2/public/x/blobs/uploads/", 401),
    ] {
        assert_eq!(http.status(line).await, status, "{line}");
    }
    let open = Authentication::basic(users()).ping(Ping::Open);
    let (_running, http) = start(open).await;
    assert_eq!(http.status("GET /v2/").await, 200);
    assert_eq!(http.status("GET /v2/public/x/tags/list").await, 401);
}

#[tokio::test]
async fn challenge_leads_to_a_token() {
    let (running, http) = start(Authentication::bearer(users())).await;
    let realm = format!("http://{}/token", running.registry());
    let plain = http.get("/v2/").await;
    assert_eq!(plain.status, 401);
    assert_eq!(plain.header("www-authenticate"), format!(r#"Bearer realm="{realm}",service="ocikit-server""#));
    let asked = http.send("POST /v2/a/b/blobs/uploads/", &basic("alice", "a"), "").await;
    assert_eq!(asked.status, 401, "a token is required, not a password");
    assert_eq!(
        asked.header("www-authenticate"),
        format!(r#"Bearer realm="{realm}",service="ocikit-server",scope="repository:a/b:pull,push""#)
    );
    let answer = token(&http, &basic("alice", "a"), "scope=repository:a/b:pull,push").await;
    assert_eq!((&answer["token"], &answer["expires_in"]), (&answer["access_token"], &300.into()));
    assert_eq!(answer["scope"], "repository:a/b:pull,push");
    assert_eq!(answer.get("refresh_token"), None);
    let alice = bearer(&answer);
    assert_eq!(http.send("GET /v2/", &alice, "").await.status, 200);
    assert_eq!(http.send("POST /v2/a/b/blobs/uploads/", &alice, "").await.status, 202);
    let elsewhere = http.send("POST /v2/a/c/blobs/uploads/", &alice, "").await;
    assert_eq!(elsewhere.status, 401);
    assert!(
        elsewhere
            .header("www-authenticate")
            .ends_with(r#"scope="repository:a/c:pull,push",error="insufficient_scope""#)
    );
    let unknown = http.send("GET /v2/", "authorization: Bearer x", "").await;
    assert!(unknown.header("www-authenticate").ends_with(r#",error="invalid_token""#));
    assert_eq!(http.send("GET /token", &basic("alice", "x"), "").await.status, 401);
}

#[tokio::test]
async fn granted_scope_is_limited_by_permissions() {
    let (_running, http) = start(Authentication::bearer(users())).await;
    let two = "scope=repository:bob/x:pull,push&scope=repository:alice/x:pull,push,delete%20registry:catalog:*";
    let answer = token(&http, &basic("bob", "b"), two).await;
    assert_eq!(answer["scope"], "repository:bob/x:pull,push repository:alice/x:pull");
    let bob = bearer(&answer);
    assert_eq!(http.send("POST /v2/bob/x/blobs/uploads/", &bob, "").await.status, 202);
    assert_eq!(http.send("GET /v2/alice/x/tags/list", &bob, "").await.status, 404);
    assert_eq!(http.send("POST /v2/alice/x/blobs/uploads/", &bob, "").await.status, 401);
    assert_eq!(http.send("GET /v2/_catalog", &bob, "").await.status, 401);
}

#[tokio::test]
async fn anonymous_token_for_public_repositories() {
    let (_running, http) = start(Authentication::bearer(users())).await;
    assert_eq!(http.status("GET /token?scope=repository:a:pull").await, 401);

    let anonymous = vec![Grant::pull("public/**")];
    let (_running, http) = start(Authentication::bearer(users()).anonymous(anonymous)).await;
    let answer = token(&http, "", "scope=repository:public/x:pull,push%20repository:private/x:pull").await;
    assert_eq!(answer["scope"], "repository:public/x:pull");
    assert_eq!(http.send("GET /v2/public/x/tags/list", &bearer(&answer), "").await.status, 404);
    assert_eq!(http.status("GET /v2/public/x/tags/list").await, 401, "anonymous access requires a token too");
}

#[tokio::test]
async fn tokens_expire() {
    let clock = Clock::system();
    let scheme = Scheme::Bearer(Bearer::default().lifetime(Duration::from_secs(60)));
    let authentication = Authentication::bearer(users()).scheme(scheme);
    let (running, http) = start_with(Server::default().authentication(authentication).clock(clock.clone())).await;
    let answer = token(&http, &basic("alice", "a"), "").await;
    assert_eq!(answer["expires_in"], 60);
    clock.advance(Duration::from_secs(59));
    assert_eq!(http.send("GET /v2/", &bearer(&answer), "").await.status, 200);
    clock.advance(Duration::from_secs(1));
    assert_eq!(http.send("GET /v2/", &bearer(&answer), "").await.status, 401);

    let answer = token(&http, &basic("alice", "a"), "").await;
    assert_eq!(http.send("GET /v2/", &bearer(&answer), "").await.status, 200);
    running.expire_tokens();
    assert_eq!(http.send("GET /v2/", &bearer(&answer), "").await.status, 401);
}

#[tokio::test]
async fn oauth2_issues_tokens_and_identity_tokens() {
    let (running, http) = start(Authentication::bearer(users())).await;
    let form = "content-type: application/x-www-form-urlencoded";
    let ask = async |body: &str| http.send("POST /token", form, body.to_owned()).await;
    let scope = "scope=repository%3Abob%2Fx%3Apull%2Cpush";
    let first = ask(&format!("grant_type=password&username=bob&password=b&access_type=offline&{scope}")).await;
    assert_eq!(first.status, 200);
    assert_eq!(first.json()["scope"], "repository:bob/x:pull,push");
    let identity = first.json()["refresh_token"].as_str().unwrap().to_owned();

    running.expire_tokens();
    let second = ask(&format!("grant_type=refresh_token&refresh_token={identity}&{scope}")).await;
    assert_eq!(second.json()["refresh_token"], identity);
    assert_eq!(http.send("POST /v2/bob/x/blobs/uploads/", &bearer(&second.json()), "").await.status, 202);

    let plain = ask("grant_type=password&username=bob&password=b").await;
    assert_eq!(plain.json().get("refresh_token"), None);
    for (body, status) in [
        ("grant_type=password&username=bob&password=a", 401),
        ("grant_type=refresh_token&refresh_token=x", 401),
        ("grant_type=refresh_token", 401),
        ("grant_type=other", 400),
        ("", 400),
        ("%ff=%ff&&&=", 400),
    ] {
        assert_eq!(ask(body).await.status, status, "{body}");
    }
    assert_eq!(ask(&"x".repeat(100_000)).await.status, 413);

    let offline = token(&http, &basic("bob", "b"), "offline_token=true").await;
    assert!(offline["refresh_token"].is_string());
    let scheme = Scheme::Bearer(Bearer::default().identity_tokens(Switch::Off));
    let (_running, http) = start(Authentication::bearer(users()).scheme(scheme)).await;
    assert_eq!(token(&http, &basic("bob", "b"), "offline_token=true").await.get("refresh_token"), None);
}

#[tokio::test]
async fn token_field_is_configurable() {
    for (field, names) in [
        (TokenField::Both, &["token", "access_token"][..]),
        (TokenField::Token, &["token"]),
        (TokenField::AccessToken, &["access_token"]),
    ] {
        let scheme = Scheme::Bearer(Bearer::default().field(field));
        let (_running, http) = start(Authentication::bearer(users()).scheme(scheme)).await;
        let answer = token(&http, &basic("alice", "a"), "").await;
        let found: Vec<_> = ["token", "access_token"].into_iter().filter(|name| answer[name].is_string()).collect();
        assert_eq!(found, names);
    }
}

#[tokio::test]
async fn mount_requires_read_access_to_its_source() {
    let mut bob = users()[1].clone();
    bob.grants = vec![Grant::push("bob/**")];
    let (running, http) = start(Authentication::bearer([users()[0].clone(), bob])).await;
    let alice = bearer(&token(&http, &basic("alice", "a"), "scope=repository:secret:pull,push").await);
    let digest = Digest::sha256_of(b"hello");
    let push = http.send(&format!("POST /v2/secret/blobs/uploads/?digest={digest}"), &alice, "hello").await;
    assert_eq!(push.status, 201);

    let mount = format!("POST /v2/bob/x/blobs/uploads/?mount={digest}&from=secret");
    let scopes = r#"scope="repository:bob/x:pull,push repository:secret:pull""#;
    assert!(http.send(&mount, "", "").await.header("www-authenticate").contains(scopes));
    let narrow = bearer(&token(&http, &basic("bob", "b"), "scope=repository:bob/x:pull,push").await);
    let answer = http.send(&mount, &narrow, "").await;
    assert_eq!(answer.status, 401, "the client can request a token with the missing scope");
    assert!(answer.header("www-authenticate").contains(scopes));

    let both = "scope=repository:bob/x:pull,push&scope=repository:secret:pull";
    let shrunk = bearer(&token(&http, &basic("bob", "b"), both).await);
    assert_eq!(
        http.send(&mount, &shrunk, "").await.status,
        202,
        "without access to the source, the mount starts an upload"
    );
    let anonymous = format!("POST /v2/bob/x/blobs/uploads/?mount={digest}");
    assert_eq!(http.send(&anonymous, &shrunk, "").await.status, 202, "a mount without `from` needs read access too");
    let alice = bearer(&token(&http, &basic("alice", "a"), both).await);
    assert_eq!(http.send(&mount, &alice, "").await.status, 201);
    running.shutdown().await;
}
