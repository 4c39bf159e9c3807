//! Keyless signing, verified by ocikit and by cosign.

use std::fs;

use ocikit_tests::{Peers, json, run, single};
use serde_json::json;

use super::old_log::OldLog;
use super::services::{Issuer, Services, WHO};
use super::sign::Place;
use crate::bench;

const PROGRAMS: [&str; 7] = ["registry", "olareg", "cosign", "fulcio", "rekor-server", "timestamp-server", "openssl"];

#[test]
fn cosign_verifies_keyless_signatures_of_ocikit() {
    let Some(peers) = Peers::find(&PROGRAMS) else { return };
    let services = Services::start(&peers);
    // The environment of a workflow.
    let bench = bench()
        .with("ACTIONS_ID_TOKEN_REQUEST_URL", &format!("{}/github?x=y", services.issuer.url))
        .with("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "workflow");
    let token = services.token(&bench, WHO).display().to_string();
    for (kind, registry) in peers.registries() {
        let place = Place::new(&bench, &registry, "bundle");
        let ours = ["--signing-config", &services.config, "--trusted-root", &services.root, "--identity-token", &token];
        bench.ok(&[&["sign", "--recursive"], &ours[..], &[place.tag().as_str()]].concat());
        for digest in &place.digests {
            let reference = format!("{}@{digest}", place.repository);
            let verify = |who: &str| services.cosign_verifies(&peers, "verify", "", who, &reference);
            let outcome = verify(WHO);
            assert!(outcome.code == 0 && outcome.stdout.contains(digest), "{kind}: {outcome}");
            assert_ne!(verify("other@example.com").code, 0, "{kind}");
        }
        let verify = |who: &str| services.ocikit_verifies(&bench, who, &["--recursive", &place.tag()]);
        assert_eq!(verify(WHO).code, 0, "{kind}: {}", verify(WHO));
        assert_eq!(verify("other@example.com").code, 5, "{kind}");
        // The older format cannot hold entries of logs of version 2.
        let place = Place::new(&bench, &registry, "legacy");
        let [fulcio, stamps] = [
            format!("--fulcio-url=http://{}", services.fulcio.address),
            format!("--timestamp-server-url=http://{}/api/v1/timestamp", services.timestamps.address),
        ];
        let legacy = [&fulcio, &stamps, "--trusted-root", &services.root, "--identity-token", &token];
        let tag = place.tag();
        bench.ok(&[&["sign", "--format=cosign-legacy", "--recursive"], &legacy[..], &[&tag]].concat());
        for digest in &place.digests {
            let flags = "--new-bundle-format=false --insecure-ignore-tlog --use-signed-timestamps";
            let reference = format!("{}@{digest}", place.repository);
            services.cosign_verifies(&peers, "verify", flags, WHO, &reference).ok();
        }
        assert_eq!(services.ocikit_verifies(&bench, WHO, &["--recursive", &tag]).code, 5);
        let verified = services.ocikit_verifies(&bench, WHO, &["--recursive", "--insecure-ignore-tlog", &tag]);
        assert_eq!(verified.code, 0, "{kind}: {verified}");
        let refused = bench.ocikit(&[&["sign", "--format=cosign-legacy"], &ours[..], &[&tag]].concat());
        assert_eq!(refused.code, 2, "{refused}");

        // Attestations, with the token that GitHub gives to a workflow.
        let place = Place::new(&bench, &registry, "attested");
        bench.write("said.json", r#"{"builder": {"id": "https://example.com"}}"#);
        let said = ["--type", "custom", "--predicate", "said.json", ours[0], ours[1], ours[2], ours[3]];
        bench.ok(&[&["attest"], &said[..], &[place.tag().as_str()]].concat());
        let reference = format!("{}@{}", place.repository, place.digests[0]);
        let kind_of = "--type https://cosign.sigstore.dev/attestation/v1";
        services.cosign_verifies(&peers, "verify-attestation", kind_of, WHO, &reference).ok();
        let verified = services.ocikit_verifies(&bench, WHO, &["--attestation", "custom", &place.tag()]);
        assert_eq!(verified.code, 0, "{kind}: {verified}");
        assert_eq!(services.ocikit_verifies(&bench, WHO, &[&place.tag()]).code, 5, "{kind}");
    }
}

#[test]
fn ocikit_verifies_keyless_signatures_of_cosign() {
    let Some(peers) = Peers::find(&PROGRAMS) else { return };
    let (bench, mut services) = (bench(), Services::start(&peers));
    for (kind, registry) in peers.registries() {
        let place = Place::new(&bench, &registry, "theirs");
        let reference = format!("{}@{}", place.repository, place.digests[0]);
        peers.ok(&format!(
            "cosign sign --recursive --signing-config {} --trusted-root {} --identity-token {} --allow-http-registry -y \
             {reference}",
            services.config,
            services.root,
            services.issuer.token(WHO)
        ));
        let outcome = services.ocikit_verifies(&bench, WHO, &["--json", "--recursive", &reference]);
        let facts = json(&outcome.ok());
        let cells = facts["signatures"].as_array().unwrap().iter();
        let covered: Vec<_> = cells.map(|cell| cell["digest"].as_str().unwrap()).collect();
        assert_eq!(covered, place.digests, "{kind}");
        let root = format!("--trusted-root={}", services.root);
        for (code, flags) in [
            (0, ["--certificate-identity-regexp=.*@example\\.com", "--certificate-oidc-issuer-regexp=http://127.*"]),
            (5, ["--certificate-identity-regexp=.*@example", "--certificate-oidc-issuer-regexp=http://127.*"]),
            (5, ["--certificate-identity-regexp=.*", "--certificate-oidc-issuer-regexp=127.*"]),
            (5, ["--certificate-identity=signer@example.com", "--certificate-oidc-issuer=http://127.0.0.1"]),
        ] {
            let outcome =
                bench.ocikit(&[&["verify", "--insecure-ignore-sct", &root], &flags[..], &[&reference]].concat());
            assert_eq!(outcome.code, code, "{kind}: {outcome}");
        }
        // There is no certificate transparency log here, and only a flag skips that check.
        let trust = services.trust(WHO);
        let strict = bench.ocikit(&["verify", &trust[0], &trust[1], &trust[2], &reference]);
        assert!(strict.code == 5 && strict.stdout.contains("no signed certificate timestamp"), "{kind}: {strict}");
        // An attestation of cosign is not a signature.
        let attested = Place::new(&bench, &registry, "said");
        let said = format!("{}@{}", attested.repository, attested.digests[0]);
        fs::write(peers.path("said.json"), r#"{"passed": true}"#).unwrap();
        peers.ok(&format!(
            "cosign attest --type custom --predicate said.json --signing-config {} --trusted-root {} --identity-token {} \
             --allow-http-registry -y {said}",
            services.config,
            services.root,
            services.issuer.token(WHO)
        ));
        let outcome = services.ocikit_verifies(&bench, WHO, &["--json", "--attestation", "custom", &said]);
        assert!(outcome.code == 0 && outcome.stdout.contains("passed"), "{kind}: {outcome}");
        assert_eq!(services.ocikit_verifies(&bench, WHO, &[&said]).code, 5, "{kind}");
        // A bundle from elsewhere is attached only if the expected identity signed it.
        let listed = bench.ok(&["referrers", "--json", &reference]);
        let listed = json(&listed);
        let signature = listed["referrers"][0]["digest"].as_str().unwrap();
        let manifest = bench.ok(&["manifest", "get", &format!("{}@{signature}", place.repository)]);
        let manifest = json(&manifest);
        let layer = manifest["layers"][0]["digest"].as_str().unwrap();
        bench.ok(&["blob", "get", &format!("{}@{layer}", place.repository), "-o", &format!("{kind}.json")]);
        let plain = format!("{kind}-plain.tar");
        bench.ok(&["copy", "--no-referrers", &reference, &plain]);
        for (code, who) in [(5, "other@example.com"), (0, WHO)] {
            let trust = services.trust(who);
            let given = ["attach", "--insecure-ignore-sct", &trust[0], &trust[1], &trust[2], "--bundle"];
            let outcome = bench.ocikit(&[&given[..], &[&format!("{kind}.json"), &plain]].concat());
            assert_eq!(outcome.code, code, "{kind}: {outcome}");
        }
        assert_eq!(services.ocikit_verifies(&bench, WHO, &[&plain]).code, 0, "{kind}");
        // The same requirements in a policy file.
        for (code, who) in [(0, WHO), (5, "other@example.com")] {
            let signer = json!({
                "identity": who, "issuer": services.issuer.url, "trustedRoot": services.root, "insecureIgnoreSct": true,
            });
            let rule = json!({"scope": "*", "depth": "images", "require": [{"signers": ["ci"]}]});
            let policy = json!({"version": 1, "signers": {"ci": signer}, "rules": [rule]});
            bench.write("policy.yaml", policy.to_string());
            let outcome = bench.ocikit(&["verify", "--policy", "policy.yaml", &reference]);
            assert_eq!(outcome.code, code, "{kind}: {outcome}");
        }
        // The signature is copied with the image and verified at the target.
        bench.ok(&["pull", &reference, "-o", &format!("{kind}.tar")]);
    }
    // Verification needs none of the services.
    for daemon in [&mut services.fulcio, &mut services.rekor, &mut services.timestamps] {
        daemon.stop();
    }
    for kind in ["distribution", "olareg"] {
        let outcome = services.ocikit_verifies(&bench, WHO, &["--recursive", &format!("{kind}.tar")]);
        assert_eq!(outcome.code, 0, "{kind}: {outcome}");
    }
    // The root of other instances of the same services is not trusted.
    drop(services);
    let Some(others) = Peers::find(&PROGRAMS) else { return };
    let services = Services::start(&others);
    let outcome = services.ocikit_verifies(&bench, WHO, &["olareg.tar"]);
    assert_eq!(outcome.code, 5, "{outcome}");
    // A token on standard input, and one in the variable that GitLab sets.
    bench.ok(&["copy", "olareg.tar", "again.tar", "--no-referrers"]);
    let line = ["sign", "--signing-config", &services.config, "--trusted-root", &services.root];
    let given = [&line[..], &["--identity-token", "-", "again.tar"]].concat();
    let outcome =
        bench.ocikit_with_input(&given, format!("{}\n", services.issuer.token("input@example.com")).as_bytes());
    assert_eq!(outcome.code, 0, "{outcome}");
    let bench = bench.with("SIGSTORE_ID_TOKEN", &services.issuer.token(WHO));
    bench.ok(&[&line[..], &["again.tar"]].concat());
    for who in ["input@example.com", WHO] {
        let outcome = services.ocikit_verifies(&bench, who, &["again.tar"]);
        assert_eq!(outcome.code, 0, "{outcome}");
    }
    // A token of an unknown issuer is refused, and the error of the service is shown without the token.
    let stranger = Issuer::start().token(WHO);
    bench.write("stranger", &stranger);
    let line = ["sign", "--signing-config", &services.config, "--identity-token", "stranger", "olareg.tar"];
    let refused = bench.ocikit(&line);
    assert!(refused.code == 6 && !refused.stderr.contains(&stranger), "{refused}");
}

#[test]
fn certificates_of_a_private_authority_verify() {
    let Some(peers) = Peers::find(&PROGRAMS) else { return };
    let (bench, services) = (bench(), Services::start(&peers));
    fs::write(peers.path("ca.ext"), "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n").unwrap();
    let leaf =
        "keyUsage=critical,digitalSignature\nextendedKeyUsage=codeSigning\nsubjectAltName=email:dev@acme.example\n";
    fs::write(peers.path("leaf.ext"), leaf).unwrap();
    for (name, issuer, extensions) in [("root", "", "ca"), ("middle", "root", "ca"), ("signer", "middle", "leaf")] {
        peers.ok(&format!("openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {name}.key"));
        peers.ok(&format!("openssl req -new -key {name}.key -subj /O=Acme/CN={name} -out {name}.csr"));
        let by = match issuer {
            "" => format!("-signkey {name}.key"),
            issuer => format!("-CA {issuer}.crt -CAkey {issuer}.key -CAcreateserial"),
        };
        peers.ok(&format!("openssl x509 -req -in {name}.csr {by} -extfile {extensions}.ext -days 2 -out {name}.crt"));
    }
    let read = |name: &str| fs::read_to_string(peers.path(name)).unwrap();
    fs::write(peers.path("issuers.pem"), read("middle.crt") + &read("root.crt")).unwrap();
    fs::write(peers.path("chain.pem"), read("signer.crt") + &read("issuers.pem")).unwrap();
    peers.ok(&format!(
        "cosign trusted-root create --no-default-fulcio --no-default-rekor --no-default-tsa --no-default-ctfe --out own.json \
         --fulcio url=http://own.example,certificate-chain=issuers.pem --tsa url=http://{},certificate-chain=stamps.pem",
        services.timestamps.address
    ));
    let path = |name: &str| peers.path(name).display().to_string();
    let stamps = format!("--timestamp-server-url=http://{}/api/v1/timestamp", services.timestamps.address);
    let identity = "--certificate-identity=dev@acme.example";
    let own = [&format!("--certificate-chain={}", path("issuers.pem")), identity].map(str::to_owned);
    let clock = format!("--timestamp-certificate-chain={}", path("stamps.pem"));
    let formats = ["--format=cosign", "--format=cosign-legacy"];
    let registry = peers.olareg();
    for stamped in [false, true] {
        let place = Place::new(&bench, &registry, &format!("own/{stamped}"));
        let (tag, reference) = (place.tag(), format!("{}@{}", place.repository, place.digests[0]));
        let (key, chain) = (path("signer.key"), path("chain.pem"));
        let mut line = vec!["sign", "--key", &key, "--certificate", &chain, formats[0], formats[1], &tag];
        if stamped {
            line.push(&stamps);
        }
        bench.ok(&line);
        let line = ["verify", &own[0], &own[1], formats[0], formats[1], &tag];
        // A timestamp that cannot be checked is not ignored.
        assert_eq!(bench.ocikit(&line).code, if stamped { 5 } else { 0 });
        let line = [&line[..], &[&clock]].concat();
        let outcome = bench.ocikit(&line);
        assert_eq!(outcome.code, 0, "{outcome}");
        let common = format!(
            "{identity} --certificate-oidc-issuer-regexp .* --insecure-ignore-sct --insecure-ignore-tlog \
             --allow-http-registry {reference}"
        );
        let uses = if stamped { "--use-signed-timestamps" } else { "" };
        peers.ok(&format!("cosign verify --trusted-root own.json {uses} {common}"));
        let clock = if stamped { "--timestamp-certificate-chain stamps.pem" } else { "" };
        let old = "--new-bundle-format=false --certificate-chain issuers.pem";
        peers.ok(&format!("cosign verify {old} {uses} {clock} {common}"));
        let old = "--new-bundle-format=false --certificate signer.crt --certificate-chain issuers.pem";
        peers.ok(&format!("cosign verify {old} {common}"));
    }
    // A certificate for another key is refused.
    let place = Place::new(&bench, &registry, "other");
    let (key, chain, tag) = (path("root.key"), path("chain.pem"), place.tag());
    let refused = bench.ocikit(&["sign", "--key", &key, "--certificate", &chain, &tag]);
    assert_eq!(refused.code, 2, "{refused}");

    // cosign with the same certificates, in the format that can hold them.
    let reference = format!("{}@{}", place.repository, place.digests[0]);
    run(
        peers
            .command("cosign")
            .env("COSIGN_PASSWORD", "")
            .args("import-key-pair --key signer.key --output-key-prefix imported".split_whitespace()),
        &[],
    )
    .ok();
    let line = format!(
        "sign --key imported.key --certificate signer.crt --certificate-chain issuers.pem --use-signing-config=false \
         --new-bundle-format=false --tlog-upload=false --allow-http-registry -y {reference}"
    );
    run(peers.command("cosign").env("COSIGN_PASSWORD", "").args(line.split_whitespace()), &[]).ok();
    bench.ok(&["verify", &own[0], &own[1], formats[1], &tag]);
    let other = format!("--certificate-chain={}", path("fulcio.pem"));
    assert_eq!(bench.ocikit(&["verify", &other, &own[1], &tag]).code, 5);
}

#[test]
fn signatures_by_keys_are_logged() {
    let Some(peers) = Peers::find(&PROGRAMS) else { return };
    let (bench, services) = (bench().with("OCIKIT_KEY_PASSWORD", "secret"), Services::start(&peers));
    let registry = peers.olareg();
    for kind in ["p256", "p384", "rsa-2048"] {
        bench.ok(&["keygen", "--type", kind, "-o", kind]);
        let (key, public) = (format!("{kind}.key"), bench.path(&format!("{kind}.pub")).display().to_string());
        let place = Place::new(&bench, &registry, kind);
        let config = ["--signing-config", &services.config, "--trusted-root", &services.root];
        bench.ok(&[&["sign", "--key", &key], &config[..], &[place.tag().as_str()]].concat());
        bench.ok(&["verify", "--key", &public, &place.tag()]);
        let hash = if kind == "p384" { "--signature-digest-algorithm=sha384" } else { "" };
        let root = &services.root;
        peers.ok(&format!(
            "cosign verify --key {public} --trusted-root {root} {hash} --allow-http-registry {}@{}",
            place.repository, place.digests[0]
        ));
    }
    let testdata = single();
    bench.ok(&["copy", &testdata, "a.tar"]);
    // Rekor accepts Ed25519ph only, which is another signature.
    bench.ok(&["keygen", "--type", "ed25519", "-o", "ed"]);
    let refused = bench.ocikit(&["sign", "--key", "ed.key", "--signing-config", &services.config, "a.tar"]);
    assert_eq!(refused.code, 2, "{refused}");
}

#[test]
fn logs_of_rekor_1_go_both_ways() {
    let Some(peers) = Peers::find(&PROGRAMS) else { return };
    let (bench, mut services) = (bench().with("OCIKIT_KEY_PASSWORD", "secret"), Services::start(&peers));
    let log = OldLog::start();
    fs::write(peers.path("old.pub"), log.public_key()).unwrap();
    let (since, fulcio) = ("start-time=2026-01-01T00:00:00Z", &services.fulcio.address);
    let nothing = "--no-default-fulcio --no-default-rekor --no-default-tsa";
    // Only the log proves the time.
    peers.ok(&format!(
        "cosign signing-config create {nothing} --no-default-oidc --out config1.json \
         --fulcio url=http://{fulcio},api-version=1,{since},operator=test \
         --rekor url={},api-version=1,{since},operator=test --rekor-config ANY",
        log.url
    ));
    peers.ok(&format!(
        "cosign trusted-root create {nothing} --no-default-ctfe --out root1.json \
         --fulcio url=http://{fulcio},certificate-chain=fulcio.pem --rekor url={},public-key=old.pub,{since}",
        log.url
    ));
    let path = |name: &str| peers.path(name).display().to_string();
    (services.config, services.root) = (path("config1.json"), path("root1.json"));
    let token = services.token(&bench, WHO).display().to_string();
    let ours = ["--signing-config", &services.config, "--trusted-root", &services.root, "--identity-token", &token];
    for (kind, registry) in peers.registries() {
        for (format, flags) in [("cosign", ""), ("cosign-legacy", "--new-bundle-format=false")] {
            let place = Place::new(&bench, &registry, format);
            let tag = place.tag();
            bench.ok(&[&["sign", "--recursive", "--format", format], &ours[..], &[tag.as_str()]].concat());
            for digest in &place.digests {
                let reference = format!("{}@{digest}", place.repository);
                let verify = |who: &str| services.cosign_verifies(&peers, "verify", flags, who, &reference);
                verify(WHO).ok();
                assert_ne!(verify("other@example.com").code, 0, "{kind} {format}");
            }
            let verified = services.ocikit_verifies(&bench, WHO, &["--recursive", &tag]);
            assert_eq!(verified.code, 0, "{kind} {format}: {verified}");
        }
        let old = format!(
            "--use-signing-config=false --new-bundle-format=false --insecure-skip-verify --fulcio-url http://{} --rekor-url {}",
            services.fulcio.address, log.url
        );
        for (name, flags) in [("theirs", "--signing-config config1.json"), ("theirs-legacy", &old)] {
            let place = Place::new(&bench, &registry, name);
            let reference = format!("{}@{}", place.repository, place.digests[0]);
            peers.ok(&format!(
                "cosign sign --yes {flags} --trusted-root root1.json --identity-token {} --allow-http-registry {reference}",
                services.issuer.token(WHO)
            ));
            let verified = services.ocikit_verifies(&bench, WHO, &[&reference]);
            assert_eq!(verified.code, 0, "{kind} {name}: {verified}");
        }
    }
    // Signing the same content again with RSA returns the existing entry.
    bench.ok(&["keygen", "--type", "rsa-2048", "-o", "rsa"]);
    let registry = peers.olareg();
    let place = Place::new(&bench, &registry, "twice");
    for format in ["cosign", "cosign-legacy"] {
        let sign = || {
            let with = ["--key", "rsa.key", "--rekor-url", &log.url, "--rekor-version", "1"];
            bench
                .ok(&[&["sign", "--format", format, "--trusted-root", &services.root], &with[..], &[&place.tag()]]
                    .concat());
            log.entries()
        };
        assert_eq!(sign(), sign(), "{format}");
    }
    let verify = format!("cosign verify --key {} --trusted-root root1.json --allow-http-registry", path("rsa.pub"));
    fs::copy(bench.path("rsa.pub"), peers.path("rsa.pub")).unwrap();
    peers.ok(&format!("{verify} {}@{}", place.repository, place.digests[0]));
    peers.ok(&format!("{verify} --new-bundle-format=false {}@{}", place.repository, place.digests[0]));
}
