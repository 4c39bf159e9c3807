//! `signify` against a service that requires a client certificate.

use std::fs;

use insta::assert_snapshot;
use ocikit_tests::{Bench, CertificateAuthority, Outcome, Registry, TlsProxy, fixture, json, multi};
use serde_json::{Value, json};

use crate::bench;
use crate::stub_server::{StubServer, answer};

/// A TLS service that returns these statuses in order and then repeats the last one.
fn service(statuses: &[u16]) -> StubServer {
    let said = |status| answer(&format!("{status} x"), format!("said {status}").as_bytes());
    StubServer::start(statuses.iter().map(said).collect())
}

/// The program with a client certificate issued by an authority, and a registry with an image and an index.
struct Place {
    bench: Bench,
    registry: Registry,
    service: StubServer,
    secure: TlsProxy,
}

const JOB: [&str; 4] = ["--repo", "acme/app", "--job-type", "postsubmit"];

impl Place {
    fn new(statuses: &[u16]) -> Place {
        let (authority, bench) = (CertificateAuthority::new(), bench());
        let service = service(statuses);
        let secure = TlsProxy::start(service.address, &authority, true);
        bench.write("ca.pem", authority.pem());
        let place = Place { bench, registry: Registry::start(), service, secure };
        place.write_secret(&authority);
        place.write_config("'*': [one]");
        for (tag, name) in [("index", "buildkit-multi/image.tar"), ("image", "buildkit-single/image.tar")] {
            place.bench.ok(&["push", &fixture(name), &place.reference(tag)]);
        }
        place
    }

    fn write_secret(&self, authority: &CertificateAuthority) {
        let identity = authority.client();
        let encode = |pem: &str| base64(pem.as_bytes());
        let secret = json!({"certData": encode(&identity.certificate), "privateKeyData": encode(&identity.key),
            "clientID": "client"});
        self.bench.write("secret.json", secret.to_string());
    }

    fn write_config(&self, enabled: &str) {
        let config = format!(
            "registry: localhost
sign-config:
  enabled-signers: {{{enabled}}}
  signers:
    - name: one
      type: notary
      job-type: [postsubmit]
      config: {{endpoint: 'https://{0}/sign?token=hidden', timeout: 30s, retry-timeout: 1ms, secret: {{path: secret.json, type: signify}}}}
    - name: two
      type: notary
      config: {{endpoint: 'https://{0}/two', timeout: 30s, secret: {{path: ./secret.json, type: signify}}}}
",
            self.secure.name()
        );
        self.bench.write("config.yaml", config);
    }

    fn reference(&self, tag: &str) -> String {
        format!("{}/acme/app:{tag}", self.registry.name())
    }

    fn signify(&self, more: &[&str]) -> Outcome {
        let line = [&["signify", "--config", "config.yaml", "--ca-file", "ca.pem"], more].concat();
        self.bench.ocikit(&line).redacted(&[(&self.secure.name(), "service"), (&self.registry.name(), "registry")])
    }
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |group: &[u8]| {
        let number = group.iter().fold(0u32, |number, byte| number << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        let letter = |place: usize| match place <= group.len() {
            true => char::from(LETTERS[(number >> (18 - 6 * place)) as usize & 63]),
            false => '=',
        };
        (0..4).map(letter).collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}

#[test]
fn kym_8_and_9_request_has_one_collection_per_image() {
    let place = Place::new(&[202]);
    let registry = place.registry.name();
    let mut expected = Vec::new();
    for tag in ["index", "image"] {
        let reference = place.reference(tag);
        let outcome = place.signify(&[&JOB[..], &["--json", &reference]].concat());
        let raw = place.bench.ok(&["manifest", "get", &reference]);
        let digest = place.bench.ok(&["digest", &reference]);
        // The exact bytes, in this order.
        let collection = format!(
            r#"{{"gun":"{registry}/acme/app","targets":[{{"name":"{tag}","byteSize":{},"digest":"{}"}}]}}"#,
            raw.len(),
            digest.strip_prefix("sha256:").unwrap()
        );
        let (head, body) = place.service.requests().pop().unwrap();
        assert_eq!(body, format!(r#"{{"trustedCollections":[{collection}]}}"#));
        assert!(head.starts_with("POST /sign?token=hidden HTTP/1.1\r\n"), "{head}");
        assert!(head.to_lowercase().contains("\r\ncontent-type: application/json\r\n"), "{head}");
        let facts = json(&outcome.ok());
        let signer = &facts["signers"][0];
        assert_eq!(signer["endpoint"], "https://service/sign");
        assert_eq!(
            (&signer["name"], &signer["outcome"], &signer["status"]),
            (&"one".into(), &"accepted".into(), &202.into())
        );
        assert_eq!((&signer["answer"], &signer["attempts"]), (&"said 202".into(), &1.into()));
        expected.push(collection);
    }
    assert_eq!(place.service.requests().len(), 2);
    // Several images in one request.
    place.signify(&[&JOB[..], &[&place.reference("index"), &place.reference("image")]].concat()).ok();
    let asked = place.service.requests();
    assert_eq!((asked.len(), &asked[2].1), (3, &format!(r#"{{"trustedCollections":[{}]}}"#, expected.join(","))));
    let planned = place.signify(&[&JOB[..], &["--dry-run", &place.reference("index")]].concat()).ok();
    assert_eq!(planned, format!(r#"{{"trustedCollections":[{}]}}"#, expected[0].replace(&registry, "registry")));
    assert_eq!(place.service.requests().len(), 3);
}

#[test]
fn kym_10_only_status_202_is_success() {
    for (statuses, code, asked) in [
        (&[500][..], 6, 5),
        (&[200], 6, 5),
        (&[204], 6, 5),
        (&[403], 6, 1),
        (&[500, 503, 429, 200, 202], 0, 5),
        (&[500, 202], 0, 2),
        (&[302], 6, 5),
    ] {
        let place = Place::new(statuses);
        let outcome = place.signify(&[&JOB[..], &[&place.reference("index")]].concat());
        assert_eq!((outcome.code, place.service.requests().len()), (code, asked), "{statuses:?}: {outcome}");
        if code != 0 {
            let status = statuses[0];
            let times = if asked == 1 { "once".to_owned() } else { format!("{asked} times") };
            let said = format!(
                "one at https://service/sign: it answered {status} and not 202 and said: said {status}, asked {times}"
            );
            let said = if status == 204 { said.replace(" and said: said 204", "") } else { said };
            assert!(outcome.stderr.contains(&said), "{outcome}");
        }
        assert!(!outcome.stderr.contains("hidden"), "{outcome}");
    }
}

#[test]
fn client_certificates_of_other_authorities_are_refused() {
    let place = Place::new(&[202]);
    place.write_secret(&CertificateAuthority::new());
    let outcome = place.signify(&[&JOB[..], &["--json", &place.reference("index")]].concat());
    assert_eq!((outcome.code, place.service.requests().len()), (6, 0), "{outcome}");
    assert!(outcome.stderr.contains("asked 5 times"), "{outcome}");
    let facts = outcome.json();
    assert_eq!((&facts["signers"][0]["outcome"], &facts["signers"][0]["status"]), (&"failed".into(), &Value::Null));
    // A service whose certificate is not trusted gets no request.
    place.write_secret(&CertificateAuthority::new());
    let line = ["signify", "--config", "config.yaml", &place.reference("index")];
    assert_eq!(place.bench.ocikit(&[&line[..], &JOB].concat()).code, 6);
    place.bench.write("secret.json", r#"{"certData": "", "privateKeyData": "QUJD"}"#);
    let outcome = place.signify(&[&JOB[..], &[&place.reference("index")]].concat());
    assert!(
        outcome.code == 2 && outcome.stderr.contains("secret.json") && !outcome.stderr.contains("QUJD"),
        "{outcome}"
    );
    assert_eq!(place.service.requests().len(), 0);
}

#[test]
fn kym_11_and_12_unsigned_and_moved_images_are_errors() {
    let place = Place::new(&[202]);
    let reference = place.reference("index");
    assert_snapshot!(place.signify(&[&reference]), @r"
    exit 2
    --- stderr
    error: cannot select signers: the source repository is not given
    hint: add --repo ORG/REPO, or set CI=true, REPO_OWNER and REPO_NAME
    ");
    assert_snapshot!(place.signify(&["--repo", "acme/app", &reference]), @r"
    exit 2
    --- stderr
    error: no signer signs for acme/app outside CI; not asked: one
    ");
    assert_snapshot!(place.signify(&["--repo", "acme/app", "--job-type", "presubmit", &reference]), @r"
    exit 2
    --- stderr
    error: no signer signs for acme/app in a presubmit job; not asked: one
    ");
    place.write_config("acme/lib: [two]");
    assert_snapshot!(place.signify(&[&JOB[..], &[&reference]].concat()), @r"
    exit 2
    --- stderr
    error: no signer is enabled for acme/app
    ");
    place.write_config("'*': [two]");
    let digest = place.bench.ok(&["digest", &reference]);
    let pinned = format!("{}@{digest}", reference.trim_end_matches(":index"));
    let outcome = place.signify(&["--repo", "acme/app", &pinned]);
    assert!(outcome.code == 2 && outcome.stderr.contains("has no tag"), "{outcome}");
    let moved = place.signify(&["--repo", "acme/app", "--expect", &digest, &place.reference("image")]);
    assert_eq!(moved.code, 5, "{moved}");
    assert_eq!(place.service.requests().len(), 0);
}

#[test]
fn ci_environment_variables_select_the_services() {
    let mut place = Place::new(&[202]);
    place.write_config("'*': [one], acme/app: [two]");
    let paths = |place: &Place| {
        let asked = place.service.requests().into_iter();
        asked.map(|(head, _)| head.split(' ').nth(1).unwrap().to_owned()).collect::<Vec<_>>()
    };
    for (name, value) in [("REPO_OWNER", "acme"), ("REPO_NAME", "app"), ("JOB_TYPE", "presubmit")] {
        place.bench = place.bench.with(name, value);
    }
    let reference = place.reference("index");
    assert_eq!(place.signify(&[&reference]).code, 2, "it is not CI");
    place.bench = place.bench.with("CI", "true");
    assert_eq!(place.signify(&[&reference]).ok(), "two accepted 202");
    place.bench = place.bench.with("JOB_TYPE", "postsubmit");
    assert_eq!(place.signify(&[&reference]).ok(), "one accepted 202\ntwo accepted 202");
    // If CI does not set the job type, no service is skipped.
    place.bench = place.bench.with("JOB_TYPE", "");
    assert_eq!(place.signify(&[&reference]).ok(), "one accepted 202\ntwo accepted 202");
    assert_eq!(paths(&place), ["/two", "/sign?token=hidden", "/two", "/sign?token=hidden", "/two"]);
    // A failing service does not prevent requests to the others.
    let place = Place::new(&[403, 202]);
    place.write_config("'*': [one, two]");
    let outcome = place.signify(&[&JOB[..], &[&place.reference("index")]].concat());
    assert_eq!((outcome.code, outcome.stdout.as_str()), (7, "one failed\ntwo accepted 202\n"), "{outcome}");
}

#[test]
fn kym_11_unsigned_is_explicit() {
    let place = Place::new(&[202]);
    let reference = place.reference("index");
    let outcome = place.signify(&["--repo", "acme/app", "--allow-unsigned", &reference]);
    assert_snapshot!(outcome, @r"
    exit 0
    --- stderr
    warning: no signer signs for acme/app outside CI; not asked: one; nothing is signed
    ");
    assert_eq!(place.service.requests().len(), 0);
}

/// The old certificate gets a token, and the token a certificate for a new key. The old secret stays until that is there.
#[test]
fn certificates_are_renewed_or_the_secret_stays() {
    let (authority, bench) = (CertificateAuthority::new(), bench());
    let token = answer("200 OK", br#"{"access_token": "canary-token"}"#);
    let chain = answer("200 OK", br#"{"certificateChain": {"value": "canary-chain"}}"#);
    let service = StubServer::start(vec![token, chain]);
    let secure = TlsProxy::start(service.address, &authority, true);
    bench.write("ca.pem", authority.pem());
    let identity = authority.client();
    let encode = |pem: &str| base64(pem.as_bytes());
    let secret = json!({"certData": encode(&identity.certificate), "privateKeyData": encode(&identity.key),
        "clientID": "the client", "tokenURL": format!("https://{}/token", secure.name()),
        "certServiceURL": format!("https://{}/certificates", secure.name()), "password": "canary-password"});
    bench.write("secret.json", secret.to_string());
    let outcome = bench.ocikit(&["signify", "renew", "secret.json", "--ca-file", "ca.pem", "--days", "3"]);
    assert_snapshot!(outcome, @r"
    exit 1
    --- stderr
    error: secret.json: cannot renew the client certificate: the certificate chain is not PKCS #7 in PEM
    ");
    assert_eq!(bench.read("secret.json"), secret.to_string());
    let requests = service.requests();
    let [(token_head, form), (chain_head, body)] = &requests[..] else { panic!("{requests:?}") };
    assert!(token_head.starts_with("POST /token HTTP/1.1\r\n"), "{token_head}");
    assert_eq!(form, "grant_type=client_credentials&client_id=the+client");
    assert!(chain_head.to_lowercase().contains("\r\nauthorization: bearer canary-token\r\n"), "{chain_head}");
    let body = json(body);
    assert_eq!(
        (&body["validity"], &body["policy"]),
        (&json!({"value": 3, "type": "DAYS"}), &"sap-cloud-platform-clients".into())
    );
    assert!(body["csr"]["value"].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE REQUEST-----\n"), "{body}");
    let plain = secret.to_string().replace("https://", "http://");
    bench.write("secret.json", plain);
    let outcome = bench.ocikit(&["signify", "renew", "secret.json", "--ca-file", "ca.pem"]);
    assert!(outcome.code != 0, "{outcome}");
}

/// The published digest is recorded for every tag, and secrets are in none of the files and outputs.
#[test]
fn kym_8_15_and_19_publications_are_recorded() {
    let mut place = Place::new(&[202]);
    for (name, value) in [
        ("CI", "true"),
        ("BUILD_BUILDID", "7"),
        ("JOB_TYPE", "postsubmit"),
        ("REPO_OWNER", "acme"),
        ("REPO_NAME", "app"),
        ("PULL_BASE_SHA", "6c22711f5a0c9d0f5f4c1c0e8b5d7a3e9f1b2c3d"),
        ("OCIKIT_USERNAME", "me"),
        ("OCIKIT_PASSWORD", "canary-password"),
    ] {
        place.bench = place.bench.with(name, value);
    }
    let registry = place.registry.name();
    let config = place.bench.read("config.yaml");
    fs::write(
        place.bench.path("config.yaml"),
        config.replace("registry: localhost", &format!("registry: {registry}/prod")),
    )
    .unwrap();
    let source = multi();
    let line = ["publish", "-v", &source, "--config", "config.yaml", "--name", "app", "--tag", "a", "--tag", "b"];
    let files =
        ["--report", "report.json", "--build-report", "build.json", "--html", "page.html", "--ca-file", "ca.pem"];
    let outcome = place.bench.ocikit(&[&line[..], &files].concat());
    let digest = place.bench.ok(&["digest", &source]);
    let (_, body) = place.service.requests().pop().unwrap_or_else(|| panic!("{outcome}"));
    let body = json(&body);
    for (collection, tag) in body["trustedCollections"].as_array().unwrap().iter().zip(["a", "b"]) {
        assert_eq!(collection["gun"], format!("{registry}/prod/app"));
        assert_eq!(collection["targets"][0]["name"], tag);
        assert_eq!(format!("sha256:{}", collection["targets"][0]["digest"].as_str().unwrap()), digest);
    }
    let read = |name: &str| place.bench.read(name);
    let build = json(&read("build.json"));
    assert_eq!(
        (&build["signed"], &build["tags"], &build["digest"]),
        (&true.into(), &json!(["a", "b"]), &json!(digest))
    );
    assert!(
        outcome.stderr.contains("##vso[task.setvariable variable=digest;issecret=false;isoutput=true]sha256:"),
        "{outcome}"
    );
    let secret = json(&read("secret.json"));
    for text in [&outcome.stdout, &outcome.stderr, &read("report.json"), &read("build.json"), &read("page.html")] {
        for canary in ["canary", "hidden", secret["privateKeyData"].as_str().unwrap()] {
            assert!(!text.contains(canary), "{canary}: {text}");
        }
    }
    outcome.ok();
}
