//! Registries with unusual access control, slow answers and rate limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ocikit_image::{CopyOptions, Memory, Name, Naming, Root, Sink, Source, SourceExt, copy, testing};
use ocikit_registry::hosts::{HostOptions, HostSettings, ProxyOptions, Scheme, TlsSettings, Verify};
use ocikit_registry::{Client, Credential, Error, Fixed, Named, NoAnswer, Timeouts};
use ocikit_spec::{Descriptor, Digest, MediaType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::double::{Action, Double, Seen, status};
use crate::support::{failed, options, repository};

fn user() -> Client {
    let keychain = Arc::new(Fixed { registry: None, credential: Credential::password("user", "pass") });
    Client::new(options().keychain(keychain))
}

fn absent() -> Descriptor {
    Descriptor::of(MediaType::OCI_LAYER, b"absent")
}

fn basic() -> Action {
    Action::Reply(401, vec![("www-authenticate", "Basic realm=\"x\"".to_owned())], Bytes::new())
}

fn is_anonymous(seen: &Seen) -> bool {
    seen.header("authorization").is_empty()
}

/// Starts a registry that answers anonymous requests with this status, and sends a challenge for `/v2/` only.
async fn without_challenge(answer: u16) -> Double {
    let double = Double::start().await;
    double.put_blob("a", &b"absent"[..]);
    double.rule(move |seen| match seen.path.as_str() {
        "/v2/" if is_anonymous(seen) => basic(),
        _ if is_anonymous(seen) => status(answer),
        _ => Action::Pass,
    });
    double
}

#[tokio::test]
async fn containerd_3291_github_packages_answers_404_without_a_challenge() {
    let double = without_challenge(404).await;
    assert!(repository(&user(), &double, "a").has(&absent()).await.unwrap());
    let log = double.log();
    assert_eq!(log.len(), 3, "{log:?}");
    assert_eq!(log[1], "GET /v2/");
    // Without a credential, 404 means "not found", and no further request is made.
    assert!(!repository(&Client::new(options()), &double, "a").has(&absent()).await.unwrap());
    assert_eq!(double.log().len(), 1);
}

#[tokio::test]
async fn containerd_3291_wrong_password_that_is_answered_with_404_is_unauthorized() {
    let tag = Name::Tag("v1".parse().unwrap());
    let keychain = || {
        let keychain = Fixed { registry: None, credential: Credential::password("user", "wr0ng") };
        Arc::new(Named { origin: "a file".to_owned(), keychain })
    };
    for with_service in [false, true] {
        let double = Double::start().await;
        let realm = format!("Bearer realm=\"http://{}/token\"", double.host());
        double.rule(move |seen| match seen.path.as_str() {
            "/v2/" if with_service => Action::Reply(401, vec![("www-authenticate", realm.clone())], Bytes::new()),
            "/v2/" => basic(),
            "/token" => status(403),
            _ => status(404),
        });
        let client = Client::new(options().keychain(keychain()));
        let repository = repository(&client, &double, "a");
        let error = repository.resolve(&tag).await.unwrap_err();
        assert!(matches!(error, Error::Denied { .. }), "{error:?}");
        let error = failed::<()>(Err(error));
        assert!(error.contains("it answers 404 to requests without a valid credential"), "{error}");
        assert!(error.ends_with("the credential is from a file"), "{error}");
        assert!(!error.contains("wr0ng"), "{error}");
        assert!(matches!(repository.tags().await, Err(Error::Denied { .. })));
        let memory = Memory::new();
        let root = testing::image(&memory, 1, &"linux/amd64".parse().unwrap(), &[10]);
        let put = repository.put(&root, &memory).await;
        assert!(matches!(put, Err(Error::Denied { .. })), "{put:?}");
        // Without a credential, 404 means "not found".
        let anonymous = crate::support::repository(&Client::new(options()), &double, "a");
        assert!(anonymous.resolve(&tag).await.unwrap_err().is_not_found());
    }
}

#[tokio::test]
async fn stale_credential_does_not_hide_what_a_public_repository_lacks() {
    let double = Double::start().await;
    double.put_manifest("a", "v1", MediaType::OCI_INDEX.as_str(), r#"{"schemaVersion":2,"manifests":[]}"#);
    let realm = format!("Bearer realm=\"http://{}/token\"", double.host());
    double.rule(move |seen| match seen.path.as_str() {
        "/v2/" => Action::Reply(401, vec![("www-authenticate", realm.clone())], Bytes::new()),
        "/token" => status(403),
        _ => Action::Pass,
    });
    let repository = repository(&user(), &double, "a");
    repository.resolve(&Name::Tag("v1".parse().unwrap())).await.unwrap();
    let missing = repository.resolve(&Name::Tag("v2".parse().unwrap())).await.unwrap_err();
    assert!(missing.is_not_found(), "{missing:?}");
}

#[tokio::test]
async fn containers_image_211_gcr_answers_403_without_a_challenge() {
    for answer in [401, 403] {
        let double = without_challenge(answer).await;
        let repository = repository(&user(), &double, "a");
        assert!(repository.has(&absent()).await.unwrap(), "{answer}");
        repository.has(&absent()).await.unwrap();
        let probes = double.log().iter().filter(|line| *line == "GET /v2/").count();
        assert_eq!(probes, 1, "{answer}");
    }
}

#[tokio::test]
async fn no_credentials_without_a_challenge() {
    for answer in [401, 403, 404] {
        let double = Double::start().await;
        double.rule(move |_| status(answer));
        let repository = repository(&user(), &double, "a");
        for _ in 0..3 {
            repository.has(&absent()).await.ok();
        }
        let seen = double.seen();
        assert!(seen.iter().all(is_anonymous), "{answer}");
        assert_eq!(seen.len(), 4, "{answer}");
    }
}

#[tokio::test]
async fn challenge_decides_the_scope_of_a_token() {
    let double = Double::start().await;
    let realm = format!("http://{}/token", double.host());
    double.rule(move |seen| match seen.path.as_str() {
        "/token" if seen.parameter("scope").as_deref() == Some("repository:proxy/a:pull") => {
            Action::Reply(200, vec![], r#"{"access_token":"t","expires_in":"300"}"#.into())
        }
        "/token" => status(403),
        _ if seen.header("authorization") == "Bearer t" => Action::Pass,
        _ => {
            let challenge = format!(r#"Bearer realm="{realm}",scope="repository:proxy/a:pull""#);
            Action::Reply(401, vec![("www-authenticate", challenge)], Bytes::new())
        }
    });
    assert!(!repository(&user(), &double, "a").has(&absent()).await.unwrap());
    assert_eq!(double.log().len(), 3);
}

#[tokio::test]
async fn rules_oci_648_push_without_permission_to_read() {
    for refusal in [403, 401] {
        let double = Double::start().await;
        double.rule(move |seen| match seen.method.as_str() {
            "HEAD" | "GET" if !seen.path.contains("/uploads/") => status(refusal),
            _ => Action::Pass,
        });
        let here = Arc::new(Memory::new());
        let image = testing::image(&here, 1, &"linux/amd64".parse().unwrap(), &[1000, 2000]);
        let root = Root::at(here, image).await.unwrap();
        let there: Arc<dyn Sink> = Arc::new(repository(&Client::new(options()), &double, "a"));
        let names = vec![Naming::of_tag("v1".parse().unwrap())];
        copy(&root, &there, &CopyOptions::default().names(names)).await.unwrap();
        assert_eq!(double.tag("a", "v1"), Some(root.digest()), "{refusal}");
    }
}

#[tokio::test]
async fn small_documents_have_a_total_time_limit() {
    for line in ["200 OK", "404 Not Found"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap();
        let (sender, mut accepted) = tokio::sync::mpsc::unbounded_channel();
        let server = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                sender.send(()).unwrap();
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    let _ = stream.read(&mut request).await;
                    let head = format!("HTTP/1.1 {line}\r\ncontent-length: 100000\r\n\r\n");
                    let mut next = stream.write_all(head.as_bytes()).await;
                    while next.is_ok() {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        next = stream.write_all(b" ").await;
                    }
                });
            }
        });
        let timeouts = Timeouts::default().document(Duration::from_millis(200));
        let client = Client::new(options().timeouts(timeouts));
        let repository = client.repository(format!("{host}/a").parse().unwrap()).unwrap();
        let outcome = repository.resolve(&Name::Tag("v1".parse().unwrap())).await;
        let error = outcome.unwrap_err();
        if line.starts_with("200") {
            assert_eq!(error.no_answer(), Some(NoAnswer::TimedOut));
            assert!(accepted.recv().await.is_some() && accepted.try_recv().is_err(), "a retry would be as slow");
        } else {
            assert!(error.is_not_found());
        }
        server.abort();
    }
}

/// Starts a server that answers each request with these parts, one every 10 ms, and the last part over and over.
async fn dripping(parts: fn(&str) -> Vec<String>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (host, requests) = (listener.local_addr().unwrap().to_string(), Arc::new(AtomicUsize::new(0)));
    let counter = requests.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let length = stream.read(&mut request).await.unwrap_or_default();
                let parts = parts(&String::from_utf8_lossy(&request[..length]));
                let last = parts.last().cloned().unwrap_or_default();
                for part in parts.into_iter().chain(std::iter::repeat(last)) {
                    if stream.write_all(part.as_bytes()).await.is_err() {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            });
        }
    });
    (host, requests)
}

#[tokio::test]
async fn response_headers_count_for_the_time_limit_of_a_document() {
    let headers: fn(&str) -> Vec<String> = |_| vec!["HTTP/1.1 200 OK\r\nx-slow: ".to_owned(), "a".to_owned()];
    let hints: fn(&str) -> Vec<String> = |_| vec!["HTTP/1.1 103 Early Hints\r\n\r\n".to_owned()];
    for parts in [headers, hints] {
        let (host, requests) = dripping(parts).await;
        let timeouts = Timeouts::default().document(Duration::from_millis(200));
        let client = Client::new(options().timeouts(timeouts));
        let repository = client.repository(format!("{host}/a").parse().unwrap()).unwrap();
        let error = repository.resolve(&Name::Tag("v1".parse().unwrap())).await.unwrap_err();
        assert_eq!(error.no_answer(), Some(NoAnswer::TimedOut));
        assert_eq!(requests.load(Ordering::Relaxed), 2, "one retry");
    }
}

#[tokio::test]
async fn blob_read_into_memory_has_the_time_limit_of_a_document() {
    let body: fn(&str) -> Vec<String> =
        |_| vec!["HTTP/1.1 200 OK\r\ncontent-length: 4000\r\n\r\n".to_owned(), " ".to_owned()];
    let (host, requests) = dripping(body).await;
    let timeouts = Timeouts::default().document(Duration::from_millis(200));
    let client = Client::new(options().timeouts(timeouts));
    let repository = client.repository(format!("{host}/a").parse().unwrap()).unwrap();
    for (media_type, is_content) in
        [("application/vnd.dev.sigstore.bundle.v0.3+json", false), ("application/x", true), ("application/x", false)]
    {
        let descriptor = Descriptor::new(MediaType::new(media_type), Digest::sha256_of(b"x"), 4000);
        let before = requests.load(Ordering::Relaxed);
        let error = match is_content {
            true => repository.content(&descriptor).await.map(drop).unwrap_err(),
            false => repository.read(&descriptor).await.map(drop).unwrap_err(),
        };
        assert_eq!(error.no_answer(), Some(NoAnswer::TimedOut), "{media_type}");
        assert_eq!(requests.load(Ordering::Relaxed), before + 1, "a retry would be as slow");
    }
    // A config is small where it is copied too; a layer may take as long as bytes arrive.
    let config = Descriptor::new(MediaType::OCI_CONFIG, Digest::sha256_of(b"x"), 4000);
    let copied = repository.open(&config).await.unwrap().bytes().await;
    assert_eq!(copied.unwrap_err().no_answer(), Some(NoAnswer::TimedOut));
    let layer = Descriptor::new(MediaType::OCI_LAYER, Digest::sha256_of(b"x"), 4000);
    let layer = repository.open(&layer).await.unwrap().bytes();
    assert!(tokio::time::timeout(Duration::from_millis(400), layer).await.is_err());
}

#[tokio::test]
async fn tls_option_keeps_credentials_from_plain_http_on_loopback() {
    let double = Double::start().await;
    double.rule(|seen| if is_anonymous(seen) { basic() } else { Action::Pass });
    let keychain = Arc::new(Fixed { registry: None, credential: Credential::password("user", "pass") });
    let insecure = TlsSettings::default().verify(Verify::Nothing);
    for (scheme, is_sent) in [(Scheme::Guess, false), (Scheme::Http, true)] {
        let others = HostSettings::default().scheme(scheme).tls(insecure.clone());
        let hosts = HostOptions::default().others(others);
        let client = Client::new(options().keychain(keychain.clone()).hosts(hosts));
        let outcome = repository(&client, &double, "a").has(&absent()).await;
        let seen = double.seen();
        assert_eq!(seen.iter().any(|seen| !is_anonymous(seen)), is_sent, "{scheme:?}");
        match is_sent {
            true => assert!(!outcome.unwrap()),
            false => {
                assert!(failed(outcome).contains("a TLS option applies to this registry, but it speaks plain HTTP"));
            }
        }
        double.log();
    }
}

#[tokio::test]
async fn rate_limit_error_has_retry_after() {
    let double = Double::start().await;
    double.rule(|_| {
        let body = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#;
        Action::Reply(429, vec![("retry-after", "300".to_owned())], body.into())
    });
    let error = repository(&user(), &double, "a").resolve(&Name::Tag("v1".parse().unwrap())).await.unwrap_err();
    let retry_after = Some(Duration::from_secs(300));
    assert_eq!(error.no_answer(), Some(NoAnswer::RateLimited { retry_after }));
    let expected = format!(
        "cannot get an answer from {}/a: rate limited: TOOMANYREQUESTS: slow down (status 429), Retry-After: 300 s",
        double.host()
    );
    assert_eq!(failed::<()>(Err(error)), expected);
    assert_eq!(double.log().len(), 1, "a delay this long is not waited for");
}

#[tokio::test]
async fn error_names_tls_to_a_plain_http_port() {
    let double = Double::start().await;
    let settings = HostSettings::default().scheme(Scheme::Https).tls(TlsSettings::default());
    let hosts = HostOptions::default().others(settings);
    let client = Client::new(options().hosts(hosts));
    let error = repository(&client, &double, "a").has(&absent()).await.unwrap_err();
    assert_eq!(error.no_answer(), Some(NoAnswer::SpeaksPlainHttp));
    assert!(failed::<()>(Err(error)).ends_with("the server speaks plain HTTP, not TLS"));
}

#[tokio::test]
async fn forbidden_referrers_are_not_an_empty_list() {
    let double = Double::start().await;
    double.rule(|seen| if seen.path.contains("/referrers/") { status(403) } else { Action::Pass });
    let repository = repository(&user(), &double, "a");
    let subject = Digest::sha256_of(b"x");
    let error = repository.referrers(&subject).await.unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{error:?}");
    // The fallback tag replaces the referrers API.
    let index = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
    let tag = subject.to_string().replace(':', "-");
    double.put_manifest("a", &tag, MediaType::OCI_INDEX.as_str(), index);
    assert!(repository.referrers(&subject).await.unwrap().is_empty());
}

#[tokio::test]
async fn host_names_are_resolved_before_a_proxy_is_used() {
    let proxy = Double::start().await;
    proxy.put_blob("a", &b"absent"[..]);
    proxy.script(
        "GET",
        vec![Action::Reply(307, vec![("location", "http://internal.invalid/x".to_owned())], Bytes::new())],
    );
    let settings = HostSettings::default().scheme(Scheme::Http);
    let hosts = HostOptions::default().others(settings);
    let proxies = ProxyOptions::default().http(Some(format!("http://{}", proxy.host()).into()));
    let client = Client::new(options().hosts(hosts).proxies(proxies));
    let repository = client.repository("registry.invalid/a".parse().unwrap()).unwrap();
    let error = repository.read(&absent()).await.unwrap_err();
    assert_eq!(error.no_answer(), Some(NoAnswer::OutOfReach));
    assert_eq!(proxy.log().len(), 1);
}
