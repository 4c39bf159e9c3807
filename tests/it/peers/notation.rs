//! What the Notary Project knows besides signatures, in both directions: timestamps, lists of revoked certificates, plugins.

use std::fs;
use std::time::{Duration, SystemTime};

use ocikit_tests::{Bench, Daemon, Outcome, Peers};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P384_SHA384,
    RevokedCertParams,
};
use serde_json::json;

use super::sign::{ENVELOPES, Notation, Place};
use crate::bench;

/// An authority for certificates, whose root is in a trust store of its name, of each type that signers have.
struct Company<'a> {
    peers: &'a Peers,
    name: &'static str,
    root: String,
    issuer: Issuer<'static, KeyPair>,
}

fn params(company: &str, name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    for (kind, value) in [
        (DnType::CountryName, "US"),
        (DnType::StateOrProvinceName, "WA"),
        (DnType::OrganizationName, company),
        (DnType::CommonName, name),
    ] {
        params.distinguished_name.push(kind, value);
    }
    params.not_before = (SystemTime::now() - Duration::from_secs(60)).into();
    params.not_after = (SystemTime::now() + Duration::from_secs(3600)).into();
    params
}

impl<'a> Company<'a> {
    fn new(peers: &'a Peers, name: &'static str) -> Company<'a> {
        let mut root = params(name, "root");
        root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = root.self_signed(&key).unwrap().pem();
        for kind in ["ca", "signingAuthority"] {
            let store = peers.path(&format!("notation/truststore/x509/{kind}/{name}"));
            fs::create_dir_all(&store).unwrap();
            fs::write(store.join("root.pem"), &pem).unwrap();
        }
        Company { peers, name, root: pem, issuer: Issuer::new(root, key) }
    }

    /// The key of a signer and its chain, in files.
    fn signer(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> [String; 2] {
        let mut signer = params(self.name, name);
        signer.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        signer.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        change(&mut signer);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        let chain = signer.signed_by(&key, &self.issuer).unwrap().pem() + &self.root;
        [("key", key.serialize_pem()), ("pem", chain)].map(|(kind, text)| {
            let path = self.peers.path(&format!("{}-{name}.{kind}", self.name));
            fs::write(&path, text).unwrap();
            path.display().to_string()
        })
    }
}

impl Notation<'_> {
    /// A key that notation signs with by its name.
    fn add_key(&self, name: &str, [key, chain]: &[String; 2]) {
        let path = self.path("signingkeys.json");
        let mut keys: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        keys["keys"].as_array_mut().unwrap().push(json!({"name": name, "keyPath": key, "certPath": chain}));
        fs::write(path, keys.to_string()).unwrap();
    }
}

/// What notation and we say to a place by notation's policy.
fn verdicts(bench: &Bench, notation: &Notation<'_>, place: &Place) -> [Outcome; 2] {
    let reference = format!("{}@{}", place.repository, place.digests[0]);
    let [flag, policy] = notation.words();
    [
        notation.run(&format!("verify --insecure-registry {reference}")),
        bench.ocikit(&["verify", &flag, &policy, &reference]),
    ]
}

/// The root of an authority for timestamps: in the store `times`, and in a file.
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
fn timestamps_outlive_certificates_on_both_sides() {
    let Some(peers) = Peers::find(&["registry", "notation", "timestamp-server", "curl"]) else { return };
    let (bench, notation, registry) = (bench(), Notation::new(&peers), peers.distribution("registry"));
    let (server, company) = (peers.timestamp_server(), Company::new(&peers, "acme-short"));
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
    // Another root of that name.
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
    counts(&stamped, false, "expired, nobody asks for the time");
}

#[test]
fn signing_authorities_are_the_same_to_notation() {
    let Some(peers) = Peers::find(&["registry", "notation"]) else { return };
    let (bench, notation, registry) = (bench(), Notation::new(&peers), peers.distribution("registry"));
    let [key, chain] = &Company::new(&peers, "service").signer("one", |_| {});
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

/// A server on this machine that gives out files of a folder for as long as the tests run.
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
fn revoked_certificates_are_the_same_ones() {
    let Some(peers) = Peers::find(&["registry", "notation"]) else { return };
    let (bench, notation, registry) = (bench(), Notation::new(&peers), peers.distribution("registry"));
    let (company, folder) = (Company::new(&peers, "lists"), peers.path("crl"));
    fs::create_dir_all(&folder).unwrap();
    let url = serve(folder.clone());
    let now = SystemTime::now();
    let hour = Duration::from_secs(3600);
    // The list that a certificate names, who is on it, whether it is up to date: what is known by it.
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
                None => "nobody knows whether",
            };
            assert!(revocation == "skip" || ours.stdout.contains(said), "{name} {revocation}: {ours}");
        }
    }
}
