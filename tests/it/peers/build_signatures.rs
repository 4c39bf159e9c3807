//! The signatures of a build, made in the same run, with a real BuildKit.

use ocikit_server::{Action, Fault, Reply};
use ocikit_tests::{Peers, Registry};

use super::build::{BUILDERS, build, built, shell};
use crate::bench;

#[test]
fn a_build_is_signed_in_the_same_run() {
    let Some(peers) = Peers::find(&[&BUILDERS[..], &["cosign"]].concat()) else { return };
    let bench = bench().with("OCIKIT_KEY_PASSWORD", "").with("COSIGN_PASSWORD", "");
    let registry = peers.distribution("registry");
    shell(&bench, "app", &["echo one > /one"]);
    bench.ok(&["keygen", "--output", "k"]);
    let names = bench.names();
    let key = names.iter().find(|name| name.ends_with(".key")).unwrap_or_else(|| panic!("{names:?}"));
    let public = names.iter().find(|name| name.ends_with(".pub")).unwrap();
    let tag = format!("{}/acme/app:1", registry.address);
    built(&bench, &["app", "--tag", &tag, "--push", "-o", "app.tar", "--key", key]);
    built(&bench, &["app", "-o", "docker-archive:d.tar", "--key", key]);
    built(&bench, &["app", "-o", "docker-archive:d.tar.gz", "--key", key]);
    for location in [tag.as_str(), "app.tar", "oci-archive:d.tar", "oci-archive:d.tar.gz"] {
        bench.ok(&["verify", "--key", public, location]);
    }
    // A build with the same result is signed once: its other outputs get the same signature.
    let bench = bench.with("SOURCE_DATE_EPOCH", "1700000000");
    let push = ["app", "--tag", &tag, "--push", "--key", key];
    built(&bench, &push);
    let signatures = |name: &str| bench.json(&["referrers", "--json", name]).to_string();
    let first = signatures(&tag);
    let other = format!("{}/acme/other:1", registry.address);
    for more in [&["-o", "app.tar"][..], &["-o", "oci:layout:1"], &["-o", "oci:layout:1"], &["--tag", &other]] {
        built(&bench, &[&push[..], more].concat());
        assert_eq!(signatures(&tag), first, "{more:?}");
    }
    for place in ["app.tar", "oci:layout:1", &other] {
        bench.ok(&["verify", "--key", public, place]);
        assert_eq!(
            bench.json(&["referrers", "--json", place])["referrers"].as_array().map(Vec::len),
            Some(1),
            "{place}"
        );
    }
    built(&bench, &[&push[..], &["--sign-format", "cosign-legacy"]].concat());
    let legacy = || {
        bench.ok(&[
            "digest",
            &format!("{}/acme/app:{}.sig", registry.address, bench.ok(&["digest", &tag]).replace(':', "-")),
        ])
    };
    let before = legacy();
    built(&bench, &[&push[..], &["--sign-format", "cosign-legacy", "-o", "legacy.tar"]].concat());
    assert_eq!(legacy(), before);
    bench.ok(&["verify", "--key", public, "--format", "cosign-legacy", "legacy.tar"]);
    // The flags of the Notary Project are those of `sign`, and what is missing is said before the build.
    let outcome = build(&bench, &[&push[..], &["--sign-format", "notation-jws"]].concat());
    assert!(
        outcome.code == 2 && outcome.stderr.contains("--certificate-chain") && !outcome.stderr.contains("DONE"),
        "{outcome}"
    );
    // One image of an index has no signature of the index.
    let platforms = ["--platform", "linux/amd64,linux/arm64"];
    shell(&bench, "many", &["!COPY file /file"]);
    let outcome = built(&bench, &[&["many", "-o", "docker-archive:many.tar", "--key", key][..], &platforms].concat());
    assert!(outcome.stderr.contains("without the signature of the index"), "{outcome}");
    let outcome = build(&bench, &["app", "--key", "no-such.key"]);
    assert!(outcome.code != 0 && !outcome.stderr.contains("DONE"), "{outcome}");
}

/// A client that sees a tag of a signed build finds its signature.
#[test]
fn signatures_are_stored_before_tags() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let bench = bench().with("OCIKIT_KEY_PASSWORD", "");
    shell(&bench, "app", &["echo one > /one"]);
    bench.ok(&["keygen", "-o", "k"]);
    for flags in [&[][..], &["--lazy", "estargz"], &["--lazy", "nydus", "--lazy-placement", "referrer"]] {
        let registry = Registry::start();
        let tag = |name: &str| format!("{}/acme/app:{name}", registry.name());
        let line = ["app", "--tag", &tag("a"), "--tag", &tag("b"), "--push", "--key", "k.key"];
        built(&bench, &[&line[..], flags].concat());
        let requests = registry.requests().into_iter();
        let put: Vec<_> = requests.filter(|one| one.method == "PUT").map(|one| one.path).collect();
        let place = |reference: &str| put.iter().position(|path| path.ends_with(&format!("/manifests/{reference}")));
        let signature = bench.ok(&["referrers", &tag("a")]);
        let signature = signature.lines().find(|line| line.contains("sigstore") || line.contains("cosign")).unwrap();
        let signature = signature.split_whitespace().find(|word| word.starts_with("sha256:")).unwrap();
        assert!(place(signature) < place("a") && place("a") < place("b"), "{signature} {put:?}");
        bench.ok(&["verify", "--key", "k.pub", &tag("b")]);
        if flags.contains(&"estargz") {
            bench.ok(&["verify", "--key", "k.pub", &tag("b-fastpull")]);
        }

        // Without its signature, no tag; the other registry has both.
        let other = Registry::start();
        let refused = Fault::on("PUT /v2/acme/app/manifests/sha256:*", Action::Answer(Reply::status(403)));
        other.faults().add(refused.nth(2));
        let name = format!("{}/acme/app:a", other.name());
        let line = ["app", "--tag", &name, "--tag", &tag("c"), "--push", "--key", "k.key"];
        let outcome = build(&bench, &line);
        assert_eq!(outcome.code, 7, "{outcome}");
        bench.ok(&["verify", "--key", "k.pub", &tag("c")]);
        assert_eq!(bench.ocikit(&["digest", &name]).code, 3);
    }
}
