//! `sign` and `verify` with certificates and services, without tools of other projects.

use std::fs;

use ocikit_tests::{Bench, fixture, json, testdata};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, date_time_ymd,
};

use crate::bench;
use crate::sign::{BOTH, with_keys};
use crate::stub_server::{StubServer, answer};

/// Writes files with a root and with the chain and key of a signer that it issued, valid between these years.
fn company(bench: &Bench, name: &str, valid: (i32, i32)) {
    let mut root = CertificateParams::default();
    root.distinguished_name.push(DnType::CommonName, "company");
    root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root_key = KeyPair::generate().unwrap();
    let root_pem = root.self_signed(&root_key).unwrap().pem();
    let mut leaf = CertificateParams::default();
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    leaf.subject_alt_names = vec![SanType::Rfc822Name("dev@acme.example".try_into().unwrap())];
    (leaf.not_before, leaf.not_after) = (date_time_ymd(valid.0, 1, 1), date_time_ymd(valid.1, 1, 1));
    let key = KeyPair::generate().unwrap();
    let leaf = leaf.signed_by(&key, &Issuer::new(root, root_key)).unwrap();
    bench.write(&format!("{name}.root"), &root_pem);
    bench.write(&format!("{name}.chain"), leaf.pem() + &root_pem);
    bench.write(&format!("{name}.key"), key.serialize_pem());
}

#[test]
fn certificates_identify_the_signer() {
    let bench = bench();
    fs::copy(testdata("buildkit-multi/image.tar"), bench.path("a.tar")).unwrap();
    let identity = "--certificate-identity=dev@acme.example";
    // Another company of the same name, and certificates with other validity periods.
    for (name, valid) in
        [("now", (2020, 4000)), ("other", (2020, 4000)), ("past", (2020, 2021)), ("next", (3999, 4000))]
    {
        company(&bench, name, valid);
    }
    let verify = |name: &str, identity: &str, more: &[&str]| {
        let chain = format!("--certificate-chain={name}.root");
        bench.ocikit(&[&["verify", &chain, identity], more, &["a.tar"]].concat())
    };
    let signed = |name: &str| {
        let (key, chain) = (format!("{name}.key"), format!("{name}.chain"));
        bench.ok(&["sign", "--recursive", "--key", &key, "--certificate", &chain, BOTH[0], BOTH[1], "a.tar"]);
    };
    assert_eq!(verify("now", identity, &[]).code, 5);
    signed("now");
    assert_eq!(verify("now", identity, &["--recursive", BOTH[0], BOTH[1]]).code, 0);
    assert_eq!(verify("now", "--certificate-identity-regexp=[a-z]+@acme\\.example", &BOTH).code, 0);
    let facts = json(&verify("now", identity, &["--json"]).ok());
    assert_eq!(facts["signatures"][0]["by"], "dev@acme.example");
    for (name, identity, why) in [
        ("now", "--certificate-identity=ops@acme.example", "it is by dev@acme.example"),
        ("now", "--certificate-identity-regexp=acme", "it is by dev@acme.example"),
        ("other", identity, "is wrong"),
    ] {
        let refused = verify(name, identity, &[]);
        assert!(refused.code == 5 && refused.stdout.contains(why), "{refused}");
    }
    for name in ["past", "next"] {
        signed(name);
        let refused = verify(name, identity, &[]);
        assert!(refused.code == 5 && refused.stdout.contains("is not valid at"), "{refused}");
    }
    // A signer with a known key must be verified with the key.
    let refused = bench.ocikit(&["sign", "--key", "now.key", "--certificate", "other.chain", "a.tar"]);
    assert_eq!(refused.code, 2, "{refused}");
}

#[test]
fn keyless_flags_must_name_root_identity_and_issuer() {
    let bench = with_keys();
    fs::copy(testdata("buildkit-single/image.tar"), bench.path("a.tar")).unwrap();
    let root = fixture("sigstore/rekor2-root.json");
    let (root, identity, issuer) =
        (["--trusted-root", &root], ["--certificate-identity", "a@b"], ["--certificate-oidc-issuer", "https://c"]);
    for (words, code) in [
        ([&root[..], &identity, &issuer].concat(), 5),
        ([&root[..], &identity].concat(), 2),
        ([&root[..], &issuer].concat(), 2),
        ([&identity[..], &issuer].concat(), 2),
        ([&root[..], &issuer, &["--certificate-identity-regexp", "("]].concat(), 2),
        ([&root[..], &issuer, &identity, &["--key", "ocikit.pub"]].concat(), 5),
        (issuer.to_vec(), 2),
        (["--trusted-root", "a.tar", identity[0], identity[1], issuer[0], issuer[1]].to_vec(), 2),
    ] {
        let outcome = bench.ocikit(&[&["verify"], &words[..], &["a.tar"]].concat());
        assert_eq!(outcome.code, code, "{words:?}: {outcome}");
    }
    // No server listens on this port, and `--dry-run` sends no requests.
    let unreachable = ["--retries", "0", "--fulcio-url", "http://127.0.0.1:1"];
    bench.write("token", "e30.eyJzdWIiOiIxIn0.c2VjcmV0");
    for (words, code) in [
        (vec![], 2),
        (unreachable.to_vec(), 2),
        ([&unreachable[..], &["--identity-token", "token"]].concat(), 6),
        ([&unreachable[..], &["--identity-token", "token", "--dry-run"]].concat(), 0),
        (vec!["--fulcio-url", "http://fulcio.example", "--identity-token", "token"], 2),
        ([&unreachable[..], &["--identity-token", "ocikit.pub"]].concat(), 2),
        ([&unreachable[..], &["--identity-token", &format!("e30.{}.c2VjcmV0", "e30".repeat(50))]].concat(), 2),
        (vec!["--key", "ocikit.key", "--retries", "0", "--timestamp-server-url", "http://127.0.0.1:1"], 6),
        ([&unreachable[..], &["--key", "ocikit.key"]].concat(), 2),
    ] {
        let outcome = bench.ocikit(&[&["sign"], &words[..], &["a.tar"]].concat());
        assert_eq!(outcome.code, code, "{words:?}: {outcome}");
        assert!(!outcome.stderr.contains("c2VjcmV0"), "{outcome}");
    }
}

#[test]
fn requests_to_a_failing_timestamp_authority_are_retried() {
    let bench = with_keys();
    let image = testdata("buildkit-single/image.tar");
    fs::copy(&image, bench.path("a.tar")).unwrap();
    // Without a trusted timestamp authority, the content of the timestamp is not checked.
    let stamp = answer("200 OK", &fs::read(testdata("timestamps/openssl.tsr")).unwrap());
    let busy = answer("503 Busy", b"busy");
    let sign = |url: &str, more: &[&str]| {
        let line = ["sign", "--key", "ocikit.key", "--format", "cosign", "--timestamp-server-url", url, "a.tar"];
        bench.ocikit(&[&line[..], more].concat()).redacted(&[(url, "service")])
    };
    let service = |answers| {
        let service = StubServer::start(answers);
        (format!("http://{}/", service.address), service)
    };
    let (url, asked) = service(vec![busy.clone()]);
    for (retries, times, said) in [("0", 1, "status 503\n"), ("1", 3, "status 503, asked 2 times\n")] {
        let outcome = sign(&url, &["--retries", retries]);
        assert_eq!((outcome.code, asked.requests().len()), (6, times), "{outcome}");
        assert!(outcome.stderr.contains(&format!("service: it answers with {said}")), "{outcome}");
        assert_eq!(fs::read(bench.path("a.tar")).unwrap(), fs::read(&image).unwrap());
    }
    let (url, asked) = service(vec![busy, Vec::new(), stamp]);
    sign(&url, &[]).ok();
    assert_eq!(asked.requests().len(), 3);
    bench.ok(&["verify", "--key", "ocikit.pub", "a.tar"]);
}
