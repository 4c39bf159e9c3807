//! Timestamps, revocation lists and plugins of the Notary Project, verified by ocikit and by notation.

use std::fs;
use std::time::{Duration, SystemTime};

use ocikit_tests::{Bench, Daemon, Outcome, Peers};
use rcgen::{CertificateRevocationListParams, CrlDistributionPoint, KeyIdMethod, RevokedCertParams};
use serde_json::json;

use super::envelopes::{ENVELOPES, Notation};
use super::sign::{Place, cosign, cosign_signs, cosign_verifies};
use crate::bench;
use crate::signing_ca::SigningCa;

impl Notation<'_> {
    /// Adds a key under a name to notation's configuration.
    fn add_key(&self, name: &str, [key, chain]: &[String; 2]) {
        let path = self.path("signingkeys.json");
        let mut keys: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        keys["keys"].as_array_mut().unwrap().push(json!({"name": name, "keyPath": key, "certPath": chain}));
        fs::write(path, keys.to_string()).unwrap();
    }
}

/// Verifies a repository with notation and with ocikit, by notation's policy.
fn verdicts(bench: &Bench, notation: &Notation<'_>, place: &Place) -> [Outcome; 2] {
    let reference = format!("{}@{}", place.repository, place.digests[0]);
    let [flag, policy] = notation.words();
    [
        notation.run(&format!("verify --insecure-registry {reference}")),
        bench.ocikit(&["verify", &flag, &policy, &reference]),
    ]
}

/// Adds the root of a timestamp authority to the trust store `times`. Returns a file with it.
fn trust_tsa(peers: &Peers, server: &Daemon) -> String {
    let chain = peers.ok(&format!("curl -sf http://{}/api/v1/timestamp/certchain", server.address));
    let root = chain.split_inclusive("-----END CERTIFICATE-----").nth(2).unwrap().trim().to_owned() + "\n";
    let store = peers.path("notation/truststore/x509/tsa/times");
    fs::create_dir_all(&store).unwrap();
    fs::write(store.join("root.pem"), &root).unwrap();
    fs::write(peers.path("tsa.pem"), root).unwrap();
    peers.path("tsa.pem").display().to_string()
}

#[test]
fn timestamps_outlive_certificates_in_ocikit_and_notation() {
    let Some(peers) = Peers::find(&["registry", "notation", "timestamp-server", "curl"]) else { return };
    let (bench, notation, registry) = (bench(), Notation::new(&peers), peers.distribution("registry"));
    let (server, company) = (peers.timestamp_server(), SigningCa::new(peers.path(""), "acme-short"));
    let (root, url) = (trust_tsa(&peers, &server), format!("http://{}/api/v1/timestamp", server.address));
    let end = SystemTime::now() + Duration::from_secs(12);
    let files = company.signer("brief", |params| params.not_after = end.into());
    notation.add_key("brief", &files);
    let mut stamped = Vec::new();
    let mut plain = Vec::new();
    for (envelope, format) in ENVELOPES {
        let ours = Place::new(&bench, &registry, &format!("times/ours-{envelope}"));
        let [key, chain] = &files;
        let line = ["sign", "--format", format, "--key", key, "--certificate-chain", chain];
        let times = ["--timestamp-url", &url, "--timestamp-root-cert", &root];
        bench.ok(&[&line[..], &times, &[&ours.tag()]].concat());
        let theirs = Place::new(&bench, &registry, &format!("times/theirs-{envelope}"));
        let flags = format!("--insecure-registry --key brief --signature-format {envelope}");
        let reference = format!("{}@{}", theirs.repository, theirs.digests[0]);
        notation.run(&format!("sign {flags} --timestamp-url {url} --timestamp-root-cert {root} {reference}")).ok();
        let without = Place::new(&bench, &registry, &format!("times/without-{envelope}"));
        bench.ok(&[&line[..], &[&without.tag()]].concat());
        stamped.extend([ours, theirs]);
        plain.push(without);
    }
    let counts = |places: &[Place], expected: bool, what: &str| {
        for place in places {
            for outcome in verdicts(&bench, &notation, place) {
                assert_eq!(outcome.code == 0, expected, "{what} {}: {outcome}", place.repository);
            }
        }
    };
    let (always, after) =
        (json!({"level": "strict"}), json!({"level": "strict", "verifyTimestamp": "afterCertExpiry"}));
    let both = ["ca:acme-short", "tsa:times"];
    notation.policy(&always, &both);
    counts(&stamped, true, "always, valid");
    counts(&plain, false, "always, valid, none");
    notation.policy(&after, &both);
    counts(&plain, true, "afterwards, valid, none");
    // Another root with the same name.
    let other = fs::read(notation.path("truststore/x509/ca/acme-short/root.pem")).unwrap();
    let store = peers.path("notation/truststore/x509/tsa/others");
    fs::create_dir_all(&store).unwrap();
    fs::write(store.join("root.pem"), other).unwrap();
    notation.policy(&always, &["ca:acme-short", "tsa:others"]);
    counts(&stamped, false, "always, valid, others");
    while SystemTime::now() < end + Duration::from_secs(1) {
        std::thread::sleep(Duration::from_millis(100));
    }
    for policy in [&always, &after] {
        notation.policy(policy, &both);
        counts(&stamped, true, "expired");
        counts(&plain, false, "expired, none");
    }
    notation.policy(&always, &["ca:acme-short"]);
    counts(&stamped, false, "expired, and the policy requires no timestamp");
}

#[test]
fn notation_verifies_signing_authorities() {
    let Some(peers) = Peers::find(&["registry", "notation"]) else { return };
    let (bench, notation, registry) = (bench(), Notation::new(&peers), peers.distribution("registry"));
    let [key, chain] = &SigningCa::new(peers.path(""), "service").signer("one", |_| {});
    for (envelope, format) in ENVELOPES {
        let place = Place::new(&bench, &registry, &format!("service/{envelope}"));
        let line = ["sign", "--format", format, "--key", key, "--certificate-chain", chain, "--signing-authority"];
        bench.ok(&[&line[..], &[&place.tag()]].concat());
        for (stores, expected) in [
            (&["signingAuthority:service"][..], true),
            (&["ca:service", "signingAuthority:service"], true),
            (&["ca:service"], false),
        ] {
            notation.policy(&json!({"level": "strict"}), stores);
            for outcome in verdicts(&bench, &notation, &place) {
                assert_eq!(outcome.code == 0, expected, "{envelope} {stores:?}: {outcome}");
            }
        }
    }
}

/// Serves the files of a folder over HTTP on this machine until the tests end.
fn serve(folder: std::path::PathBuf) -> String {
    use std::io::{BufRead, BufReader, Write};

    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut lines = BufReader::new(client.try_clone().unwrap()).lines().map_while(Result::ok);
            let first = lines.next().unwrap_or_default();
            lines.find(String::is_empty);
            let name = first.split_whitespace().nth(1).unwrap_or_default().trim_start_matches('/');
            let body = fs::read(folder.join(name)).unwrap_or_default();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _ = client.write_all(&[head.as_bytes(), &body].concat());
        }
    });
    format!("http://{address}")
}

#[test]
fn notation_and_ocikit_refuse_the_same_revoked_certificates() {
    let Some(peers) = Peers::find(&["registry", "notation"]) else { return };
    let (bench, notation, registry) = (bench(), Notation::new(&peers), peers.distribution("registry"));
    let (company, folder) = (SigningCa::new(peers.path(""), "lists"), peers.path("crl"));
    fs::create_dir_all(&folder).unwrap();
    let url = serve(folder.clone());
    let now = SystemTime::now();
    let hour = Duration::from_secs(3600);
    // The URL of the revocation list in the certificate, the revoked certificate, whether the list is current, and the
    // expected revocation status.
    for (name, revoked, next, known) in [
        ("good", None, now + hour, Some(true)),
        ("others", Some(77), now + hour, Some(true)),
        ("bad", Some(5), now + hour, Some(false)),
        ("stale", None, now - Duration::from_secs(10), None),
        ("missing", None, now + hour, None),
    ] {
        let [key, chain] = &company.signer(name, |params| {
            params.serial_number = Some(5.into());
            params.crl_distribution_points = vec![CrlDistributionPoint { uris: vec![format!("{url}/{name}")] }];
        });
        let list = CertificateRevocationListParams {
            this_update: (now - hour).into(),
            next_update: next.into(),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: Vec::from_iter(revoked.map(|serial: u64| RevokedCertParams {
                serial_number: serial.into(),
                revocation_time: (now - hour).into(),
                reason_code: None,
                invalidity_date: None,
            })),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let file = folder.join(name).display().to_string();
        if name != "missing" {
            fs::write(&file, list.signed_by(&company.issuer).unwrap().der()).unwrap();
        }
        let place = Place::new(&bench, &registry, &format!("lists/{name}"));
        let line = ["sign", "--format", "notation-jws", "--key", key, "--certificate-chain", chain, &place.tag()];
        bench.ok(&line);
        let reference = format!("{}@{}", place.repository, place.digests[0]);
        for (revocation, counts) in [("enforce", known == Some(true)), ("log", true), ("skip", true)] {
            notation.policy(&json!({"level": "strict", "override": {"revocation": revocation}}), &["ca:lists"]);
            let theirs = notation.run(&format!("verify --insecure-registry {reference}"));
            assert_eq!(theirs.code == 0, counts, "{name} {revocation}: {theirs}");
            let [flag, policy] = notation.words();
            let line = ["verify", &flag, &policy, &reference, "--crl", &file];
            let ours = bench.ocikit(if name == "missing" { &line[..4] } else { &line });
            assert_eq!(ours.code == 0, counts, "{name} {revocation}: {ours}");
            let said = match known {
                Some(true) => "",
                Some(false) => "was revoked at",
                None => "the revocation status of its certificates is unknown",
            };
            assert!(revocation == "skip" || ours.stdout.contains(said), "{name} {revocation}: {ours}");
        }
    }
}

#[test]
fn certificates_signed_with_rsa_pss_verify() {
    let Some(peers) = Peers::find(&["registry", "notation", "openssl"]) else { return };
    let (bench, notation, registry) = (bench(), Notation::new(&peers), peers.distribution("registry"));
    let ca =
        "[req]\ndistinguished_name=dn\n[dn]\n[ca]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n";
    fs::write(peers.path("ca.cnf"), ca).unwrap();
    fs::write(peers.path("leaf.ext"), "keyUsage=critical,digitalSignature\n").unwrap();
    for (hash, bits) in [("sha256", 2048), ("sha384", 3072), ("sha512", 4096)] {
        let pss = format!("-{hash} -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest");
        let root = format!("-subj /C=US/ST=WA/O=Pss/CN=root-{hash} -config ca.cnf -extensions ca -days 2");
        peers.ok(&format!("openssl req -x509 -newkey rsa:2048 -nodes -keyout root.key -out root.crt {root} {pss}"));
        let leaf = format!("-subj /C=US/ST=WA/O=Pss/CN=leaf -newkey rsa:{bits} -nodes");
        peers.ok(&format!("openssl req -config ca.cnf {leaf} -keyout leaf.key -out leaf.csr"));
        peers.ok(&format!(
            "openssl x509 -req -in leaf.csr -CA root.crt -CAkey root.key -CAcreateserial -days 2 -extfile leaf.ext -out \
             leaf.crt {pss}"
        ));
        let store = peers.path(&format!("notation/truststore/x509/ca/{hash}"));
        fs::create_dir_all(&store).unwrap();
        fs::copy(peers.path("root.crt"), store.join("root.crt")).unwrap();
        let chain = ["leaf.crt", "root.crt"].map(|name| fs::read_to_string(peers.path(name)).unwrap()).concat();
        fs::write(peers.path("chain.pem"), chain).unwrap();
        let files = ["leaf.key", "chain.pem"].map(|name| peers.path(name).display().to_string());
        notation.add_key(hash, &files);
        notation.policy(&json!({"level": "strict"}), &[&format!("ca:{hash}")]);
        let ours = Place::new(&bench, &registry, &format!("pss/{hash}"));
        let [key, chain] = &files;
        bench.ok(&["sign", "--format", "notation-cose", "--key", key, "--certificate-chain", chain, &ours.tag()]);
        let theirs = Place::new(&bench, &registry, &format!("pss/{hash}-theirs"));
        let reference = format!("{}@{}", theirs.repository, theirs.digests[0]);
        notation.run(&format!("sign --insecure-registry --key {hash} {reference}")).ok();
        for place in [&ours, &theirs] {
            for outcome in verdicts(&bench, &notation, place) {
                assert_eq!(outcome.code, 0, "{hash}: {outcome}");
            }
        }
    }
}

/// Installs the test plugins where notation looks for plugins.
fn install(notation: &Notation<'_>) {
    for name in ["raw", "whole", "checks"] {
        let folder = notation.path(&format!("plugins/{name}"));
        fs::create_dir_all(&folder).unwrap();
        std::os::unix::fs::symlink(PLUGIN, format!("{folder}/notation-{name}")).unwrap();
    }
}

#[test]
fn signing_plugins_work_with_notation_and_ocikit() {
    let Some(peers) = Peers::find(&["registry", "notation", "openssl"]) else { return };
    let notation = Notation::new(&peers);
    let registry = peers.distribution("registry");
    install(&notation);
    let bench = bench().with("NOTATION_CONFIG", &peers.path("notation").display().to_string());
    let company = SigningCa::new(peers.path(""), "plugged");
    // notation generates RSA keys; the key of `company` is of another kind.
    let rsa = [notation.path("localkeys/acme.key"), notation.path("localkeys/acme.crt")];
    for (store, [key, chain]) in [("plugged", company.signer("one", |_| {})), ("acme", rsa)] {
        notation.policy(&json!({"level": "strict"}), &[&format!("ca:{store}")]);
        for plugin in ["raw", "whole"] {
            let config = [format!("key={key}"), format!("chain={chain}")];
            for (envelope, format) in ENVELOPES {
                if (plugin, envelope) == ("whole", "cose") {
                    continue;
                }
                let ours = Place::new(&bench, &registry, &format!("plugged/{store}-{plugin}-{envelope}"));
                let line = ["sign", "--format", format, "--plugin", plugin, "--key-id", "k", "--expiry", "24h"];
                let more = ["--plugin-config", &config[0], "--plugin-config", &config[1], "--user-metadata", "a=b"];
                bench.ok(&[&line[..], &more, &[&ours.tag()]].concat());
                let theirs = Place::new(&bench, &registry, &format!("plugged/{store}-{plugin}-{envelope}-theirs"));
                let reference = format!("{}@{}", theirs.repository, theirs.digests[0]);
                let flags = format!("--insecure-registry --signature-format {envelope} --plugin {plugin} --id k");
                let config = format!("--plugin-config {} --plugin-config {}", config[0], config[1]);
                notation.run(&format!("sign {flags} {config} {reference}")).ok();
                for place in [&ours, &theirs] {
                    for outcome in verdicts(&bench, &notation, place) {
                        assert_eq!(outcome.code, 0, "{store} {plugin} {envelope}: {outcome}");
                    }
                }
            }
        }
    }
}

#[test]
fn verification_plugins_work_with_notation_and_ocikit() {
    let Some(peers) = Peers::find(&["registry", "notation"]) else { return };
    let notation = Notation::new(&peers);
    let registry = peers.distribution("registry");
    install(&notation);
    let bench = bench().with("NOTATION_CONFIG", &peers.path("notation").display().to_string());
    let [key, chain] = &SigningCa::new(peers.path(""), "asked").signer("one", |_| {});
    for (version, is_old) in [("1.0.0", false), ("1.0.1", true)] {
        let place = Place::new(&bench, &registry, &format!("asked/{}", version.replace('.', "-")));
        let reference = format!("{}@{}", place.repository, place.digests[0]);
        let config = format!("--plugin-config key={key} --plugin-config chain={chain} --plugin-config asks=checks");
        let config = format!("{config} --plugin-config version={version}");
        notation.run(&format!("sign --insecure-registry --plugin whole --id k {config} {reference}")).ok();
        for errs in [
            "nothing",
            "SIGNATURE_VERIFIER.TRUSTED_IDENTITY",
            "SIGNATURE_VERIFIER.REVOCATION_CHECK",
            "processed",
            "denies",
        ] {
            for revocation in ["enforce", "log", "skip"] {
                let verification = json!({"level": "strict", "override": {"revocation": revocation}});
                notation.policy(&verification, &["ca:asked"]);
                let errs = format!("errs={errs}");
                let theirs = notation.run(&format!("verify --insecure-registry --plugin-config {errs} {reference}"));
                let [flag, policy] = notation.words();
                let line = ["verify", &flag, &policy, "--plugin", "checks", "--plugin-config", &errs, &reference];
                let ours = bench.ocikit(&line);
                assert_eq!(theirs.code == 0, ours.code == 0, "{version} {errs} {revocation}: {theirs} {ours}");
                assert!(!is_old || ours.code == 5, "{version} {errs} {revocation}: {ours}");
                assert!(is_old || errs != "errs=nothing" || ours.code == 0, "{version} {errs} {revocation}: {ours}");
            }
        }
    }
}

#[test]
fn kms_plugins_work_with_cosign_and_ocikit() {
    let Some(peers) = Peers::find(&["registry", "cosign", "openssl"]) else { return };
    let registry = peers.distribution("registry");
    let folder = peers.path("programs");
    fs::create_dir_all(&folder).unwrap();
    std::os::unix::fs::symlink(PLUGIN, folder.join("sigstore-kms-ours")).unwrap();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let bench = bench().with("PATH", &path);
    peers.ok("openssl ecparam -name prime256v1 -genkey -noout -out p256.key");
    peers.ok("openssl genrsa -out rsa.key 3072");
    for name in ["p256", "rsa"] {
        let file = peers.path(&format!("{name}.key")).display().to_string();
        let (key, public) = (format!("ours://{file}"), format!("{file}.pub"));
        peers.ok(&format!("openssl pkey -in {file} -pubout -out {public}"));
        for format in ["cosign", "cosign-legacy"] {
            let ours = Place::new(&bench, &registry, &format!("kms/{name}-{format}"));
            bench.ok(&["sign", "--key", &key, "--format", format, &ours.tag()]);
            let theirs = Place::new(&bench, &registry, &format!("kms/{name}-{format}-theirs"));
            let reference = format!("{}@{}", theirs.repository, theirs.digests[0]);
            cosign_signs(&peers, &key, format, "", &reference);
            for place in [&ours, &theirs] {
                for key in [&key, &public] {
                    bench.ok(&["verify", "--key", key, "--format", format, &place.tag()]);
                    cosign_verifies(&peers, key, format, "", &place.tag()).ok();
                }
            }
        }
    }
    // cosign and ocikit print the same public key.
    let theirs = cosign(&peers, &format!("public-key --key ours://{}", peers.path("p256.key").display())).ok();
    assert_eq!(theirs.trim(), fs::read_to_string(peers.path("p256.key.pub")).unwrap().trim());
}

const PLUGIN: &str = env!("CARGO_BIN_EXE_ocikit-plugin");
