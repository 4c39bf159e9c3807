//! TLS, proxies and mirrors.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use ocikit_image::{Memory, Name, Sink, Source, SourceExt, testing};
use ocikit_registry::hosts::{
    HostOptions, HostSettings, Identity, ProxyOptions, RegistriesConf, Scheme, TlsSettings, Verify,
};
use ocikit_registry::{Client, NoAnswer, RemoteRepository, Resolver};
use ocikit_spec::{Descriptor, MediaType};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::double::{Action, Double, status};
use crate::support::{failed, options};

/// A certificate authority that has issued certificates for a loopback server and for a client.
struct Authority {
    directory: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Authority { directory: TempDir::new().unwrap(), issuer };
        authority.write("ca.crt", &authority.issuer.pem());
        let key = KeyPair::generate().unwrap();
        let client = CertificateParams::new(vec!["client".to_owned()]).unwrap();
        authority.write("client.cert", &client.signed_by(&key, &authority.issuer).unwrap().pem());
        authority.write("client.key", &key.serialize_pem());
        authority
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Starts a registry with a certificate of this authority.
    async fn registry(&self, asks_for_certificate: bool, protocols: &[&str]) -> Double {
        self.registry_for(&["127.0.0.1", "localhost"], asks_for_certificate, protocols).await
    }

    /// Starts a registry whose certificate is for these names.
    async fn registry_for(&self, names: &[&str], asks_for_certificate: bool, protocols: &[&str]) -> Double {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names.iter().map(|name| name.to_string()).collect::<Vec<_>>()).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
        let builder = if asks_for_certificate {
            let mut roots = RootCertStore::empty();
            roots.add(self.issuer.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Double::secure(config).await
    }

    fn trusted(&self) -> TlsSettings {
        TlsSettings::default().authorities(vec![self.path("ca.crt").into()])
    }
}

fn client_with(hosts: HostOptions) -> Client {
    Client::new(options().hosts(hosts))
}

fn repository(double: &Double, settings: HostSettings) -> RemoteRepository {
    let hosts = HostOptions::default().named(HashMap::from([(double.host().parse().unwrap(), settings)]));
    crate::support::repository(&client_with(hosts), double, "a")
}

fn secure(tls: TlsSettings) -> HostSettings {
    HostSettings::default().scheme(Scheme::Https).tls(tls)
}

fn absent() -> Descriptor {
    Descriptor::of(MediaType::OCI_LAYER, b"absent")
}

#[tokio::test]
async fn certificates_are_verified_by_default() {
    let authority = Authority::new();
    let double = authority.registry(false, &["http/1.1"]).await;
    for tls in [
        authority.trusted(),
        TlsSettings::default().verify(Verify::Nothing),
        TlsSettings::default().verify(Verify::InsecureAllowHttp),
    ] {
        assert!(!repository(&double, secure(tls)).has(&absent()).await.unwrap());
    }
    double.log();
    let error = failed(repository(&double, secure(TlsSettings::default())).has(&absent()).await);
    assert!(error.contains("certificate"), "{error}");
    assert_eq!(double.log().len(), 0, "the request is not retried");
}

#[tokio::test]
async fn client_certificate_is_presented_on_request() {
    let authority = Authority::new();
    let double = authority.registry(true, &["http/1.1"]).await;
    let identity =
        Identity { certificate: authority.path("client.cert").into(), key: authority.path("client.key").into() };
    let shown = authority.trusted().identity(Some(identity));
    assert!(!repository(&double, secure(shown)).has(&absent()).await.unwrap());
    failed(repository(&double, secure(authority.trusted())).has(&absent()).await);

    // A certificate directory also implies that this loopback registry speaks TLS.
    for file in ["ca.crt", "client.cert", "client.key"] {
        let text = std::fs::read_to_string(authority.path(file)).unwrap();
        authority.write(&format!("certs.d/{}/{file}", double.host()), &text);
    }
    let hosts = HostOptions::default().certificates(vec![authority.path("certs.d")]);
    let found = crate::support::repository(&client_with(hosts), &double, "a").has(&absent()).await;
    assert!(!found.unwrap());
}

#[tokio::test]
async fn error_names_an_invalid_certificate_file() {
    let authority = Authority::new();
    let double = authority.registry(false, &["http/1.1"]).await;
    authority.write("empty.crt", "");
    for file in ["empty.crt", "missing.crt"] {
        let tls = TlsSettings::default().authorities(vec![authority.path(file).into()]);
        let error = failed(repository(&double, secure(tls)).has(&absent()).await);
        assert!(error.contains(file), "{error}");
    }
}

#[tokio::test]
async fn insecure_registry_may_use_plain_http() {
    let double = Double::start().await;
    let tls = TlsSettings::default().verify(Verify::InsecureAllowHttp);
    let repository = repository(&double, secure(tls));
    let memory = Memory::new();
    let bytes = testing::random(1, 100_000);
    memory.insert(bytes.clone());
    let descriptor = Descriptor::of(MediaType::OCI_LAYER, &bytes);
    let host = double.host();
    double.script(
        "POST",
        vec![Action::Headers(vec![("location", format!("http://{host}/v2/a/blobs/uploads/session-1"))])],
    );
    repository.put(&descriptor, &memory).await.unwrap();
    assert_eq!(repository.read(&descriptor).await.unwrap(), bytes);
    let plain = HostSettings::default().scheme(Scheme::Https).tls(TlsSettings::default().verify(Verify::Nothing));
    failed(self::repository(&double, plain).has(&absent()).await);
}

#[tokio::test]
async fn small_requests_share_a_connection_and_large_bodies_have_their_own() {
    let authority = Authority::new();
    let double = authority.registry(false, &["h2", "http/1.1"]).await;
    let repository = repository(&double, secure(authority.trusted()));
    let memory = Memory::new();
    let bytes = testing::random(1, 5_000_000);
    memory.insert(bytes.clone());
    let descriptor = Descriptor::of(MediaType::OCI_LAYER, &bytes);
    repository.put(&descriptor, &memory).await.unwrap();
    assert_eq!(repository.read(&descriptor).await.unwrap(), bytes);
    let versions: Vec<_> = double.seen().iter().map(|seen| format!("{} {:?}", seen.method, seen.version)).collect();
    assert_eq!(versions, ["HEAD HTTP/2.0", "POST HTTP/2.0", "PUT HTTP/1.1", "GET HTTP/1.1"]);
}

#[tokio::test]
async fn redirect_from_tls_to_plain_http_is_refused() {
    let authority = Authority::new();
    let (double, plain) = (authority.registry(false, &[]).await, Double::start().await);
    let location = format!("http://{}/x", plain.host());
    double.rule(move |_| Action::Reply(307, vec![("location", location.clone())], bytes::Bytes::new()));
    let error = failed(repository(&double, secure(authority.trusted())).read(&absent()).await);
    assert!(error.contains("without TLS"), "{error}");
    assert_eq!(plain.log().len(), 0);
}

/// Starts a proxy that reads this many bytes, answers each connection with these bytes and closes it. Returns its address and
/// what it has received.
async fn proxy_that_answers(answers: &'static [(usize, &'static [u8])]) -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (host, received) = (listener.local_addr().unwrap().to_string(), Arc::new(Mutex::new(Vec::new())));
    let all = received.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut seen = Vec::new();
            for (bytes, answer) in answers {
                let mut part = vec![0; 4096];
                let length = match bytes {
                    0 => stream.read(&mut part).await.unwrap_or_default(),
                    bytes => stream.read_exact(&mut part[..*bytes]).await.unwrap_or_default(),
                };
                seen.extend_from_slice(&part[..length]);
                stream.write_all(answer).await.ok();
            }
            *all.lock().unwrap() = seen;
        }
    });
    (host, received)
}

fn client_of_proxy(proxy: &str) -> Client {
    let proxy = || Some(proxy.to_owned().into());
    let proxies = ProxyOptions::default().http(proxy()).https(proxy()).except(String::new());
    let retry = ocikit_registry::RetryOptions::never();
    Client::new(options().proxies(proxies).retry(retry))
}

#[tokio::test]
async fn proxy_that_fails_is_named_in_the_error() {
    const FORBIDDEN: &[u8] = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n";
    const CREDENTIALS: &[u8] = b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n";
    let closed_port = "127.0.0.1:1".to_owned();
    let forbids = proxy_that_answers(&[(0, FORBIDDEN)]).await.0;
    let asks = proxy_that_answers(&[(0, CREDENTIALS)]).await.0;
    for (proxy, problem) in [
        (closed_port, "cannot connect to the proxy http://ADDRESS: connection refused"),
        (forbids, "the proxy http://ADDRESS refuses to connect to registry.invalid"),
        (asks, "the proxy http://ADDRESS requires credentials, or rejects those in its URL (status 407)"),
    ] {
        let client = client_of_proxy(&format!("http://user:s3cret@{proxy}"));
        let repository = client.repository("registry.invalid/a".parse().unwrap()).unwrap();
        let error = repository.has(&absent()).await.unwrap_err();
        assert_eq!(error.no_answer(), Some(NoAnswer::Proxy), "{error:?}");
        let expected = format!("cannot connect to registry.invalid/a: {}", problem.replace("ADDRESS", &proxy));
        assert_eq!(failed::<()>(Err(error)), expected);
    }
}

#[tokio::test]
async fn go_24135_socks5_proxy_gets_the_name_of_the_server() {
    // RFC 1928: no authentication; then the proxy refuses the connection (5).
    const ANSWERS: &[(usize, &[u8])] = &[(3, &[5, 0]), (4, &[]), (0, &[5, 5, 0, 1, 0, 0, 0, 0, 0, 0])];
    for scheme in ["socks5", "socks5h"] {
        let (proxy, received) = proxy_that_answers(ANSWERS).await;
        let client = client_of_proxy(&format!("{scheme}://{proxy}"));
        let repository = client.repository("registry.invalid/a".parse().unwrap()).unwrap();
        let error = failed(repository.has(&absent()).await);
        assert!(error.contains(&format!("the proxy socks5h://{proxy}")), "{error}");
        let received = received.lock().unwrap().clone();
        // Connect (1) to a domain name (3).
        assert!(received.windows(4).any(|part| part == [5, 1, 0, 3]), "{received:?}");
        assert!(received.windows(16).any(|part| part == b"registry.invalid"), "{received:?}");
    }
}

#[tokio::test]
async fn proxy_is_used_except_for_loopback() {
    let proxy = Double::start().await;
    proxy.put_blob("a", &b"blob"[..]);
    let blob = Descriptor::of(MediaType::OCI_LAYER, b"blob");
    let settings = HostSettings::default().scheme(Scheme::Http);
    let hosts = HostOptions::default().others(settings);
    let proxies = |except: &str| {
        ProxyOptions::default().http(Some(format!("user:secret@{}", proxy.host()).into())).except(except.to_owned())
    };
    let client = |except| {
        let retry = ocikit_registry::RetryOptions::never();
        Client::new(options().hosts(hosts.clone()).proxies(proxies(except)).retry(retry))
    };
    let name: ocikit_spec::Repository = "registry.invalid/a".parse().unwrap();
    assert_eq!(client("").repository(name.clone()).unwrap().read(&blob).await.unwrap(), "blob");
    assert_eq!(proxy.seen()[0].header("proxy-authorization"), "Basic dXNlcjpzZWNyZXQ=");
    failed(client("example.com,.invalid").repository(name).unwrap().read(&blob).await);
    assert_eq!(proxy.log().len(), 0);
    let direct = Double::start().await;
    crate::support::repository(&client(""), &direct, "a").has(&blob).await.unwrap();
    assert_eq!((proxy.log().len(), direct.log().len()), (0, 1));
    assert!(!format!("{:?}", proxies("")).contains("secret"));
}

#[tokio::test]
async fn mirrors_are_read_first_and_never_written() {
    let [registry, mirror, by_digest] = [Double::start().await, Double::start().await, Double::start().await];
    let conf = format!(
        "[[registry]]\nlocation = \"{}\"\n[[registry.mirror]]\nlocation = \"{}\"\npull-from-mirror = \"digest-only\"\n\
         [[registry.mirror]]\nlocation = \"{}/cache\"\n",
        registry.host(),
        by_digest.host(),
        mirror.host()
    );
    let registries = RegistriesConf::parse(&conf).unwrap();
    let client = client_with(HostOptions::default().registries(registries));
    let repository = crate::support::repository(&client, &registry, "a");

    let memory = Memory::new();
    let bytes = testing::random(1, 1000);
    memory.insert(bytes.clone());
    let descriptor = Descriptor::of(MediaType::OCI_LAYER, &bytes);
    repository.put(&descriptor, &memory).await.unwrap();
    assert_eq!((registry.log().len(), mirror.log().len(), by_digest.log().len()), (3, 0, 0));

    mirror.put_blob("cache/a", bytes.clone());
    by_digest.rule(|_| status(500));
    assert_eq!(repository.read(&descriptor).await.unwrap(), bytes);
    assert_eq!((registry.log().len(), mirror.log().len()), (0, 1));
    assert!(!by_digest.log().is_empty());

    let missing = repository.resolve(&Name::Tag("v1".parse().unwrap())).await.unwrap_err();
    assert!(missing.is_not_found());
    assert_eq!((registry.log().len(), mirror.log().len(), by_digest.log().len()), (1, 1, 0));
    let text = r#"{"schemaVersion":2,"manifests":[]}"#;
    let digest = registry.put_manifest("a", "v1", MediaType::OCI_INDEX.as_str(), text);
    assert_eq!(repository.resolve(&Name::Tag("v1".parse().unwrap())).await.unwrap().digest, digest);
}

#[tokio::test]
async fn blocked_registries_are_not_contacted() {
    let double = Double::start().await;
    let conf = format!("[[registry]]\nlocation = \"{}\"\nblocked = true\n", double.host());
    let registries = RegistriesConf::parse(&conf).unwrap();
    let client = client_with(HostOptions::default().registries(registries));
    let refused = client.repository(format!("{}/a", double.host()).parse().unwrap());
    assert!(failed(refused).contains("blocked"));
    let registry = double.host().parse().unwrap();
    let scratch = format!("{}/a", double.host()).parse().unwrap();
    assert!(failed(client.check(&registry).await).contains("blocked"));
    assert!(failed(client.catalog(&registry).await).contains("blocked"));
    assert!(failed(client.probe(&scratch).await).contains("blocked"));
    assert!(double.log().is_empty());
}

#[tokio::test]
async fn insecure_registry_with_tls_is_not_downgraded() {
    let authority = Authority::new();
    let double = authority.registry(false, &["http/1.1"]).await;
    let tls = TlsSettings::default().verify(Verify::InsecureAllowHttp);
    let repository = repository(&double, secure(tls));
    assert!(!repository.has(&absent()).await.unwrap());
    let plain = Double::instead_of(double).await;
    failed(repository.has(&absent()).await);
    assert_eq!(plain.log().len(), 0);
}

/// A repository whose registry has a mirror.
fn mirrored(registry: &Double, mirror: &Double) -> RemoteRepository {
    let (location, other) = (registry.host(), mirror.host());
    let conf = format!("[[registry]]\nlocation = \"{location}\"\n[[registry.mirror]]\nlocation = \"{other}\"\n");
    let registries = RegistriesConf::parse(&conf).unwrap();
    crate::support::repository(&client_with(HostOptions::default().registries(registries)), registry, "a")
}

#[tokio::test]
async fn mirror_with_a_wrong_manifest_is_skipped() {
    let [registry, mirror] = [Double::start().await, Double::start().await];
    let text = r#"{"schemaVersion":2,"manifests":[]}"#;
    let digest = registry.put_manifest("a", "v1", MediaType::OCI_INDEX.as_str(), text);
    mirror.rule(|_| {
        let media_type = ("content-type", MediaType::OCI_INDEX.to_string());
        Action::Reply(200, vec![media_type], r#"{"schemaVersion":2,"manifests":[],"x":1}"#.into())
    });
    let repository = mirrored(&registry, &mirror);
    assert_eq!(repository.resolve(&Name::Digest(digest)).await.unwrap().digest, digest);
    assert_eq!(mirror.log().len(), 1);
}

#[tokio::test]
async fn tag_is_restored_if_deletion_fails() {
    let [registry, mirror] = [Double::start().await, Double::start().await];
    let put = |double: &Double, text: &'static str| double.put_manifest("a", "v1", MediaType::OCI_INDEX.as_str(), text);
    let digest = put(&registry, r#"{"schemaVersion":2,"manifests":[]}"#);
    put(&mirror, r#"{"schemaVersion":2,"manifests":[],"old":1}"#);
    registry.rule(|seen| if seen.method == "DELETE" { status(405) } else { Action::Pass });
    failed(mirrored(&registry, &mirror).delete_tag_by_replacing(&"v1".parse().unwrap()).await);
    assert_eq!(registry.tag("a", "v1"), Some(digest));
}

#[tokio::test]
async fn mirror_scope_limits_lists() {
    let [registry, by_digest, by_tag] = [Double::start().await, Double::start().await, Double::start().await];
    let mirror = |double: &Double, serves: &str| {
        format!("[[registry.mirror]]\nlocation = \"{}\"\npull-from-mirror = \"{serves}\"\n", double.host())
    };
    let conf = format!("[[registry]]\nlocation = \"{}\"\n", registry.host());
    let conf = conf + &mirror(&by_digest, "digest-only") + &mirror(&by_tag, "tag-only");
    let registries = RegistriesConf::parse(&conf).unwrap();
    let client = client_with(HostOptions::default().registries(registries));
    let text = r#"{"schemaVersion":2,"manifests":[]}"#;
    for (double, tag) in [(&registry, "v1"), (&registry, "v2"), (&by_digest, "v1"), (&by_tag, "v1")] {
        double.put_manifest("a", tag, MediaType::OCI_INDEX.as_str(), text);
    }
    let repository = crate::support::repository(&client, &registry, "a");
    let tags = repository.tags().await.unwrap();
    assert_eq!(tags.iter().map(ToString::to_string).collect::<Vec<_>>(), ["v1", "v2"]);
    assert_eq!((by_digest.log().len(), by_tag.log().len()), (0, 0));
    repository.referrers(&ocikit_spec::Digest::sha256_of(b"x")).await.unwrap();
    assert_eq!(by_tag.log().len(), 0);
}

#[tokio::test]
async fn registry_completes_an_interrupted_mirror_download() {
    for (length, then) in [(500_000, Action::CutResponse(0)), (500_000, status(503)), (40 << 20, status(404))] {
        let [registry, mirror] = [Double::start().await, Double::start().await];
        let bytes = testing::random(7, length);
        let digest = registry.put_blob("a", bytes.clone());
        mirror.put_blob("a", bytes.clone());
        let mut is_first = true;
        mirror.rule(move |_| match std::mem::take(&mut is_first) {
            true => Action::CutResponse(100_000),
            false => then.clone(),
        });
        let descriptor = Descriptor::new(MediaType::OCI_LAYER, digest, length as u64);
        // `put` verifies the digest.
        Memory::new().put(&descriptor, &mirrored(&registry, &mirror)).await.unwrap();
        let seen = registry.seen();
        assert!(!seen[0].header("range").is_empty(), "{seen:?}");
        let sent: usize = seen.iter().filter(|seen| seen.header("range").starts_with("bytes=0-")).count();
        assert_eq!(sent, 0, "bytes that the mirror sent are not requested again");
    }
}

#[tokio::test]
async fn loopback_registry_with_tls_is_upgraded() {
    let authority = Authority::new();
    for (tls, trusted) in [(authority.trusted(), true), (TlsSettings::default(), false)] {
        let double = authority.registry(false, &["http/1.1"]).await;
        double.rule(|seen| match seen.header("authorization") {
            "" => Action::Reply(401, vec![("www-authenticate", "Basic realm=\"x\"".to_owned())], bytes::Bytes::new()),
            _ => Action::Pass,
        });
        let host = double.host();
        let location = format!("https://{host}/v2/a/blobs/uploads/session-1");
        double.script("POST", vec![Action::Headers(vec![("location", location)])]);
        let credential = ocikit_registry::Credential::password("user", "pass");
        let keychain = Arc::new(ocikit_registry::Fixed { registry: None, credential });
        let settings = HostSettings::default().scheme(Scheme::Http).tls(tls);
        let hosts = HostOptions::default().others(settings);
        let client = Client::new(options().hosts(hosts).keychain(keychain));
        let repository = crate::support::repository(&client, &double, "a");
        let memory = Memory::new();
        let bytes = testing::random(1, 1000);
        memory.insert(bytes.clone());
        let descriptor = Descriptor::of(MediaType::OCI_LAYER, &bytes);
        let outcome = repository.put(&descriptor, &memory).await;
        if trusted {
            outcome.unwrap();
            assert_eq!(repository.read(&descriptor).await.unwrap(), bytes);
        } else {
            let error = outcome.unwrap_err();
            assert_eq!(error.no_answer(), Some(NoAnswer::UntrustedCertificate), "{error:?}");
            assert!(double.log().iter().all(|line| line == "HEAD /"), "the only request checks for TLS");
        }
    }
}

#[tokio::test]
async fn self_signed_certificate_is_trusted_if_configured() {
    for is_authority in [false, true] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        if is_authority {
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        }
        let certificate = params.self_signed(&key).unwrap();
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("own.crt");
        std::fs::write(&file, certificate.pem()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
        let double = Double::secure(config).await;
        let tls = TlsSettings::default().authorities(vec![file.into()]);
        assert!(!repository(&double, secure(tls)).has(&absent()).await.unwrap(), "{is_authority}");
        let untrusted = repository(&double, secure(TlsSettings::default())).has(&absent()).await.unwrap_err();
        assert_eq!(untrusted.no_answer(), Some(NoAnswer::UntrustedCertificate), "{untrusted:?}");
        let problem = if is_authority { "is self-signed" } else { "no trusted certificate authority issued" };
        assert!(failed::<()>(Err(untrusted)).contains(problem));
    }
}

#[tokio::test]
async fn certificate_for_another_name_is_named_in_the_error() {
    let authority = Authority::new();
    let double = authority.registry_for(&["127.0.0.1", "registry.example"], false, &["http/1.1"]).await;
    let hosts = HostOptions::default().others(secure(authority.trusted()));
    let name = format!("{}/a", double.host().replace("127.0.0.1", "localhost"));
    let error = client_with(hosts).repository(name.parse().unwrap()).unwrap().has(&absent()).await.unwrap_err();
    assert_eq!(error.no_answer(), Some(NoAnswer::CertificateName), "{error:?}");
    let error = failed::<()>(Err(error));
    let expected = "TLS failed: the server's certificate is for 127.0.0.1, registry.example, not for localhost";
    assert!(error.ends_with(expected), "{error}");
}

/// A resolver that knows one name, of this machine.
#[derive(Debug)]
struct OneName(&'static str);

impl Resolver for OneName {
    fn resolve(&self, host: &str) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> {
        let found = if host == self.0 { vec![IpAddr::from([127, 0, 0, 1])] } else { Vec::new() };
        Box::pin(async { Ok(found) })
    }
}

#[tokio::test]
async fn certificates_configuration_and_resolver_can_come_from_the_caller() {
    let authority = Authority::new();
    let read = |name: &str| std::fs::read(authority.path(name)).unwrap();
    let identity = || Identity { certificate: read("client.cert").into(), key: read("client.key").into() };
    let from_memory = || TlsSettings::default().authorities(vec![read("ca.crt").into()]).identity(Some(identity()));
    let configured = from_memory().load().unwrap();
    assert!(configured.config.is_some() && configured.identity.is_none());
    for (tls, reads) in [
        (from_memory(), true),
        (from_memory().system_authorities(false), true),
        (configured.clone(), true),
        (from_memory().identity(None), false),
        (configured.without_identity(), false),
    ] {
        let double = authority.registry(true, &["http/1.1"]).await;
        let outcome = repository(&double, secure(tls)).has(&absent()).await;
        assert_eq!(outcome.is_ok(), reads, "{outcome:?}");
    }

    let double = Double::start().await;
    let (_, port) = double.host().split_once(':').map(|(host, port)| (host.to_owned(), port.to_owned())).unwrap();
    let others = HostSettings::default().scheme(Scheme::Http);
    let hosts = HostOptions::default().others(others);
    let resolver = Arc::new(OneName("registry.test"));
    let retry = ocikit_registry::RetryOptions::never();
    let client = Client::new(options().hosts(hosts).resolver(resolver).retry(retry));
    let at = |host: &str| client.repository(format!("{host}:{port}/a").parse().unwrap()).unwrap();
    assert!(!at("registry.test").has(&absent()).await.unwrap());
    assert!(at("other.test").has(&absent()).await.is_err());
}

/// A configuration of the caller presents its client certificate only to the registries that the caller names.
#[tokio::test]
async fn client_certificate_of_a_configuration_is_not_presented_after_a_redirect() {
    let authority = Authority::new();
    let identity =
        Identity { certificate: authority.path("client.cert").into(), key: authority.path("client.key").into() };
    let tls = authority.trusted().identity(Some(identity)).load().unwrap();
    let [registry, other] =
        [authority.registry(true, &["http/1.1"]).await, authority.registry(true, &["http/1.1"]).await];
    let target = format!("https://{}/blob", other.host());
    registry.rule(move |_| Action::Reply(307, vec![("location", target.clone())], bytes::Bytes::new()));
    let hosts = HostOptions::default().others(secure(tls));
    let repository = crate::support::repository(&client_with(hosts), &registry, "a");
    let error = repository.has(&absent()).await.unwrap_err();
    assert!(!registry.log().is_empty() && other.log().is_empty(), "{error:?}");
}

/// A registry that is its own token service asks for the client certificate there too.
#[tokio::test]
async fn token_service_of_the_registry_itself_gets_the_client_certificate() {
    let authority = Authority::new();
    let registry = authority.registry(true, &["http/1.1"]).await;
    let realm = format!("Bearer realm=\"https://{}/token\"", registry.host());
    registry.rule(move |seen| match (seen.path.as_str(), seen.header("authorization")) {
        ("/token", _) => Action::Reply(200, Vec::new(), bytes::Bytes::from_static(b"{\"token\":\"abc\"}")),
        (_, "Bearer abc") => Action::Pass,
        _ => Action::Reply(401, vec![("www-authenticate", realm.clone())], bytes::Bytes::new()),
    });
    let identity =
        Identity { certificate: authority.path("client.cert").into(), key: authority.path("client.key").into() };
    let tls = authority.trusted().identity(Some(identity));
    let hosts = HostOptions::default().others(secure(tls));
    let repository = crate::support::repository(&client_with(hosts), &registry, "a");
    assert!(!repository.has(&absent()).await.unwrap());
}
