//! Envelopes of ocikit verified by notation, and envelopes of notation verified by ocikit.

use std::fs;

use ocikit_tests::{Outcome, Peers, json, multi, run, testdata};
use serde_json::Value;

use super::sign::{Place, cosign, cosign_signs, with_password};
use crate::bench;

/// notation with a configuration of this test: a key, its certificate, and a trust policy for it.
pub(super) struct Notation<'a> {
    peers: &'a Peers,
}

impl<'a> Notation<'a> {
    pub(super) fn new(peers: &'a Peers) -> Notation<'a> {
        let notation = Notation { peers };
        notation.run("cert generate-test --default --bits 2048 acme").ok();
        notation.trust("strict", "acme");
        notation
    }

    pub(super) fn run(&self, line: &str) -> Outcome {
        let mut command = self.peers.command("notation");
        command.env("NOTATION_CONFIG", self.peers.path("notation")).env("NOTATION_EXPERIMENTAL", "1");
        run(command.args(line.split_whitespace()), &[])
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.peers.path("notation").join(name).display().to_string()
    }

    /// Writes a trust policy for all repositories.
    fn trust(&self, level: &str, store: &str) {
        self.policy(&serde_json::json!({"level": level}), &[&format!("ca:{store}")]);
    }

    /// Writes a trust policy with these verification settings and trust stores.
    pub(super) fn policy(&self, verification: &Value, stores: &[&str]) {
        let policy = serde_json::json!({"version": "1.0", "trustPolicies": [{
            "name": "all", "registryScopes": ["*"], "signatureVerification": verification,
            "trustStores": stores, "trustedIdentities": ["*"],
        }]});
        fs::write(self.path("trustpolicy.json"), policy.to_string()).unwrap();
    }

    /// Returns the flags of `verify` for that policy.
    pub(super) fn words(&self) -> [String; 2] {
        ["--trust-policy".to_owned(), self.path("trustpolicy.json")]
    }
}

pub(super) const ENVELOPES: [(&str, &str); 2] = [("jws", "notation-jws"), ("cose", "notation-cose")];

#[test]
fn ocikit_verifies_signatures_of_notation() {
    let Some(peers) = Peers::find(&["registry", "olareg", "notation"]) else { return };
    let (bench, notation) = (bench(), Notation::new(&peers));
    notation.run("cert generate-test --bits 3072 stranger").ok();
    for (kind, registry) in peers.registries() {
        for (envelope, format) in ENVELOPES {
            let place = Place::new(&bench, &registry, &format!("acme/{envelope}"));
            let reference = format!("{}@{}", place.repository, place.digests[0]);
            let [flag, policy] = notation.words();
            let verify =
                || bench.ocikit(&["verify", "--json", "--recursive", &flag, &policy, "--format", format, &reference]);
            for digest in &place.digests {
                assert_eq!(verify().code, 5, "{kind} {envelope}");
                // By default notation writes the fallback tag even if the registry lists referrers, and then does not
                // find the signature.
                let flags = format!("--force-referrers-tag={} --insecure-registry", kind == "distribution");
                let flags = format!("{flags} --expiry 24h --user-metadata who=acme");
                notation.run(&format!("sign {flags} --signature-format {envelope} {}@{digest}", place.repository)).ok();
            }
            let facts = json(&verify().ok());
            let cells = facts["signatures"].as_array().unwrap();
            let covered: Vec<_> = cells.iter().map(|cell| cell["digest"].as_str().unwrap()).collect();
            assert_eq!(covered, place.digests, "{kind} {envelope}");
            for cell in cells {
                assert_eq!((&cell["formats"][0], &cell["metadata"]["who"]), (&format.into(), &"acme".into()), "{cell}");
            }
            // Another trust store trusts another signer; the level `audit` only prints a warning.
            notation.trust("permissive", "stranger");
            assert_eq!(verify().code, 5, "{kind} {envelope}");
            notation.trust("audit", "stranger");
            let facts = json(&verify().ok());
            assert_eq!(facts["signatures"][0]["warnings"][0], "it is not by the expected signer", "{facts}");
            notation.trust("strict", "acme");
        }
    }
}

#[test]
fn notation_verifies_signatures_of_ocikit() {
    let Some(peers) = Peers::find(&["registry", "olareg", "notation", "openssl"]) else { return };
    let (bench, notation) = (bench(), Notation::new(&peers));
    // A chain of three certificates; notation generates self-signed certificates only.
    let store = peers.path("notation/truststore/x509/ca/company");
    fs::create_dir_all(&store).unwrap();
    fs::write(peers.path("ca.ext"), "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n").unwrap();
    fs::write(peers.path("leaf.ext"), "keyUsage=critical,digitalSignature\nextendedKeyUsage=codeSigning\n").unwrap();
    for (name, issuer, extensions, curve) in
        [("root", "", "ca", "P-384"), ("middle", "root", "ca", "P-256"), ("signer", "middle", "leaf", "P-384")]
    {
        peers.ok(&format!("openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:{curve} -out {name}.key"));
        peers.ok(&format!("openssl req -new -key {name}.key -subj /C=US/ST=WA/O=Acme/CN={name} -out {name}.csr"));
        let by = match issuer {
            "" => format!("-signkey {name}.key"),
            issuer => format!("-CA {issuer}.crt -CAkey {issuer}.key -CAcreateserial"),
        };
        peers.ok(&format!(
            "openssl x509 -req -sha384 -in {name}.csr {by} -extfile {extensions}.ext -days 2 -out {name}.crt"
        ));
    }
    let chain: String = ["signer", "middle", "root"]
        .map(|name| fs::read_to_string(peers.path(&format!("{name}.crt"))).unwrap())
        .concat();
    fs::write(peers.path("chain.pem"), chain).unwrap();
    fs::copy(peers.path("root.crt"), store.join("root.crt")).unwrap();
    for (kind, registry) in peers.registries() {
        for (envelope, format) in ENVELOPES {
            for (who, key, chain) in [
                ("acme", notation.path("localkeys/acme.key"), notation.path("localkeys/acme.crt")),
                (
                    "company",
                    peers.path("signer.key").display().to_string(),
                    peers.path("chain.pem").display().to_string(),
                ),
            ] {
                let place = Place::new(&bench, &registry, &format!("{who}/{envelope}"));
                notation.trust("strict", who);
                let mut line =
                    vec!["sign", "--recursive", "--format", format, "--key", &key, "--certificate-chain", &chain];
                let tag = place.tag();
                line.extend(["--expiry", "2d", "--user-metadata", "who=us", &tag]);
                bench.ok(&line);
                for digest in &place.digests {
                    let reference = format!("{}@{digest}", place.repository);
                    let verify =
                        || notation.run(&format!("verify --insecure-registry --user-metadata who=us {reference}"));
                    let outcome = verify();
                    assert_eq!(outcome.code, 0, "{kind} {envelope} {who}: {outcome}");
                    notation.trust("strict", if who == "acme" { "company" } else { "acme" });
                    assert_ne!(verify().code, 0, "{kind} {envelope} {who}");
                    notation.trust("strict", who);
                }
                let [flag, policy] = notation.words();
                bench.ok(&["verify", "--recursive", &flag, &policy, &tag]);
            }
        }
    }
}

#[test]
fn a_policy_counts_signers_of_all_formats() {
    let Some(peers) = Peers::find(&["registry", "olareg", "cosign", "notation"]) else { return };
    let (bench, notation) = (with_password(), Notation::new(&peers));
    cosign(&peers, "generate-key-pair").ok();
    bench.ok(&["keygen", "-o", "ours"]);
    fs::copy(peers.path("cosign.pub"), bench.path("theirs.pub")).unwrap();
    notation.run("cert generate-test --bits 2048 second").ok();
    // Two trust policies; the second one trusts both certificates.
    let statement = |level: &str, stores: &[&str]| {
        serde_json::json!({"version": "1.0", "trustPolicies": [{
            "name": "all", "registryScopes": ["*"], "signatureVerification": {"level": level},
            "trustStores": stores, "trustedIdentities": ["*"],
        }]})
        .to_string()
    };
    bench.write("corp.json", statement("strict", &["ca:acme"]));
    bench.write("other.json", statement("strict", &["ca:acme", "ca:second"]));
    let store = notation.path("truststore");
    let policy = |rules: &str| {
        let signers = format!(
            "ours: {{key: ours.pub}}\n  theirs: {{key: theirs.pub}}\n  corp: {{trustPolicy: corp.json, trustStore: {store}}}\n  \
             other: {{trustPolicy: other.json, trustStore: {store}}}"
        );
        let text = format!("version: 1\nsigners:\n  {signers}\nrules: [{{scope: '*', require: [{rules}]}}]");
        bench.write("policy.yaml", text);
    };
    for (kind, registry) in peers.registries() {
        let place = Place::new(&bench, &registry, "acme/app");
        let reference = format!("{}@{}", place.repository, place.digests[0]);
        let asks = |rules: &str| {
            policy(rules);
            bench.ocikit(&["verify", "--policy", "policy.yaml", &reference]).code
        };
        let two = "{signers: [ours, theirs, corp], threshold: 2}";
        cosign_signs(&peers, "cosign.key", "cosign", "", &reference);
        assert_eq!(asks(two), 5, "{kind}");
        let archive = format!("{kind}.tar");
        assert_eq!(bench.ocikit(&["copy", "--verify", "policy.yaml", &reference, &archive]).code, 5, "{kind}");
        let flags = format!("--insecure-registry --force-referrers-tag={}", kind == "distribution");
        notation.run(&format!("sign {flags} --key acme {reference}")).ok();
        assert_eq!(asks(two), 0, "{kind}");
        bench.ok(&["copy", "--verify", "policy.yaml", &reference, &archive]);
        bench.ok(&["verify", "--policy", "policy.yaml", &archive]);
        assert_eq!(
            asks("{signers: [theirs], formats: [cosign]}, {signers: [corp], formats: [notation-jws]}"),
            0,
            "{kind}"
        );
        assert_eq!(asks("{signers: [corp], formats: [notation-cose]}"), 5, "{kind}");
        // Both policies trust the same certificate, which is one signer.
        assert_eq!((asks("{signers: [corp]}, {signers: [other]}"), asks("{signers: [corp, other]}")), (0, 5), "{kind}");
        notation.run(&format!("sign {flags} --key second {reference}")).ok();
        assert_eq!(asks("{signers: [corp, other]}"), 0, "{kind}");
        bench.write("corp.json", statement("audit", &["ca:acme"]));
        assert_eq!(asks("{signers: [corp]}"), 2, "{kind}: a policy that only audits identifies no signer");
        bench.write("corp.json", statement("strict", &["ca:acme"]));
    }
}

#[test]
fn envelopes_of_notation_are_attached() {
    let Some(peers) = Peers::find(&["registry", "olareg", "notation"]) else { return };
    let (bench, notation) = (bench(), Notation::new(&peers));
    notation.run("cert generate-test --bits 2048 stranger").ok();
    let registries = peers.registries();
    let (_, registry) = registries.iter().find(|(kind, _)| *kind == "olareg").unwrap();
    for (envelope, format) in ENVELOPES {
        let made = Place::new(&bench, registry, &format!("made/{envelope}"));
        let flags = "--insecure-registry --force-referrers-tag=false";
        let reference = format!("{}@{}", made.repository, made.digests[0]);
        notation.run(&format!("sign {flags} --signature-format {envelope} {reference}")).ok();
        let listed = bench.json(&["referrers", "--json", &made.tag()]);
        let manifest = format!("{}@{}", made.repository, listed["referrers"][0]["digest"].as_str().unwrap());
        let manifest = bench.json(&["inspect", "--raw", &manifest]);
        let blob = format!("{}@{}", made.repository, manifest["layers"][0]["digest"].as_str().unwrap());
        bench.ok(&["blob", "get", &blob, "-o", "envelope"]);

        let place = Place::new(&bench, registry, &format!("other/{envelope}"));
        fs::copy(testdata("buildkit-multi/image.tar"), bench.path("a.tar")).unwrap();
        fs::copy(testdata("buildkit-single/image.tar"), bench.path("other.tar")).unwrap();
        let [flag, policy] = notation.words();
        let attach = |more: &[&str]| bench.ocikit(&[&["attach", "--json", "--envelope", "envelope"], more].concat());
        for target in ["a.tar", &place.tag()] {
            notation.trust("strict", "stranger");
            assert_eq!(attach(&[&flag, &policy, target]).code, 5, "{envelope}");
            notation.trust("audit", "stranger");
            assert_eq!(
                attach(&[&flag, &policy, target]).code,
                2,
                "{envelope}: a policy that only audits identifies no signer"
            );
            notation.trust("strict", "acme");
            assert_eq!(attach(&[&flag, &policy, "other.tar"]).code, 5, "{envelope}: another subject");
            assert_eq!(attach(&["--unverified", "other.tar"]).code, 5, "{envelope}: the subject is always checked");
            assert_eq!(bench.ocikit(&["verify", &flag, &policy, target]).code, 5, "{envelope}");
            let facts = json(&attach(&[&flag, &policy, target]).ok());
            assert_eq!((&facts["checked"], &facts["signatures"][0]["format"]), (&"signer".into(), &format.into()));
            bench.ok(&["verify", &flag, &policy, "--format", format, target]);
        }
        notation.run(&format!("verify --insecure-registry {}@{}", place.repository, place.digests[0])).ok();
        // Without a trust anchor the signer is not verified, and the command says so.
        fs::copy(testdata("buildkit-multi/image.tar"), bench.path("b.tar")).unwrap();
        let unverified = attach(&["--unverified", "b.tar"]);
        let facts = unverified.json();
        assert_eq!(facts["checked"], "subject");
        assert!(unverified.stderr.contains("the signer was not verified"), "{unverified}");
        bench.ok(&["verify", &flag, &policy, "b.tar"]);
    }
}

#[test]
fn notation_and_ocikit_read_each_others_layouts() {
    let Some(peers) = Peers::find(&["notation", "oras"]) else { return };
    let (bench, notation) = (bench(), Notation::new(&peers));
    notation.trust("strict", "acme");
    let source = multi();
    for (envelope, format) in ENVELOPES {
        let place = format!("oci:{envelope}:1");
        bench.ok(&["copy", &source, &place]);
        let (digest, path) = (bench.ok(&["digest", &place]), bench.path(envelope).display().to_string());
        let (key, chain) = (notation.path("localkeys/acme.key"), notation.path("localkeys/acme.crt"));
        bench.ok(&["sign", "--format", format, "--key", &key, "--certificate-chain", &chain, &place]);
        assert_eq!(bench.ok(&["digest", &place]), digest);
        notation.run(&format!("verify --oci-layout --scope local/app {path}@{digest}")).ok();
        let listed = peers.ok(&format!("oras discover --oci-layout --format json {path}@{digest}"));
        assert!(listed.contains("application/vnd.cncf.notary.signature"), "{listed}");

        let place = format!("oci:{envelope}-theirs:1");
        bench.ok(&["copy", &source, &place]);
        let path = bench.path(&format!("{envelope}-theirs")).display().to_string();
        let [flag, policy] = notation.words();
        assert_eq!(bench.ocikit(&["verify", &flag, &policy, &place]).code, 5);
        notation.run(&format!("sign --oci-layout --signature-format {envelope} {path}@{digest}")).ok();
        bench.ok(&["verify", &flag, &policy, "--scope", "local/app", &place]);
    }
}
