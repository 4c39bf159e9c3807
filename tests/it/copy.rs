//! `copy`: referrers, platforms, dry runs, `--no-clobber`, and all tags.

use std::fs;

use ocikit_server::{Children, Rules, Server, Switch};
use ocikit_tests::{Bench, Registry, attested, fixture, multi, single};
use serde_json::Value;

use crate::bench;

fn json(bench: &Bench, arguments: &[&str]) -> Value {
    let text = bench.ok(&[&["--json"], arguments].concat());
    serde_json::from_str(&text).unwrap()
}

/// Returns the architectures of an index in order.
fn architectures(bench: &Bench, location: &str) -> Vec<String> {
    let facts = json(bench, &["inspect", location]);
    let manifests = facts["manifests"].as_array().unwrap().iter();
    manifests.filter_map(|entry| Some(entry["platform"]["architecture"].as_str()?.to_owned())).collect()
}

#[test]
fn referrers_are_copied() {
    let (bench, one, two) = (bench(), Registry::start(), Registry::start());
    let without_api = Registry::start_with(Server::default().rules(Rules::default().referrers(Switch::Off)));
    let source = format!("oci:{}", fixture("layout-oras-referrers/layout"));
    let first = format!("{}/app:1", one.name());
    let sent = json(&bench, &["push", &source, &first]);
    let referrers = sent["targets"][0]["referrers"].as_array().unwrap().len();
    assert_eq!(referrers, 1, "only the note; attestations are part of the index: {sent}");
    // From registry to registry, with and without the referrers API, to a layout, and back.
    let second = format!("{}/other:1", two.name());
    let third = format!("{}/third:1", without_api.name());
    let back = format!("{}/back:1", two.name());
    for (from, to) in
        [(&first, &second), (&second, &third), (&third, &"oci:there:1".to_owned()), (&"oci:there:1".to_owned(), &back)]
    {
        let copied = json(&bench, &["copy", from, to]);
        assert_eq!(copied["targets"][0]["referrers"].as_array().unwrap().len(), referrers, "{from} {to}");
    }
    // A second copy transfers neither the image nor its referrers.
    let again = json(&bench, &["copy", &first, &second]);
    assert_eq!(again["targets"][0]["sent"]["blobs"], 0, "{again}");
    assert_eq!(again["targets"][0]["present"]["blobs"], 0, "{again}");
    let alone = format!("{}/alone:1", two.name());
    let copied = json(&bench, &["copy", "--no-referrers", &first, &alone]);
    assert!(copied["targets"][0]["referrers"].is_null(), "{copied}");
    let none = json(&bench, &["copy", "--referrers-type", "application/vnd.nothing", &first, &alone]);
    assert!(none["targets"][0]["referrers"].is_null(), "{none}");
}

#[test]
fn signatures_under_cosign_tags_are_copied() {
    let (bench, registry) = (bench(), Registry::start());
    let (from, to) = (format!("{}/from", registry.name()), format!("{}/to", registry.name()));
    bench.ok(&["push", &multi(), &format!("{from}:1")]);
    let index = bench.ok(&["digest", &format!("{from}:1")]).replace(':', "-");
    let child =
        json(&bench, &["inspect", &format!("{from}:1")])["manifests"][0]["digest"].as_str().unwrap().replace(':', "-");
    for tag in [format!("{index}.sig"), format!("{child}.att")] {
        bench.ok(&["push", &single(), &format!("{from}:{tag}")]);
    }
    bench.ok(&["copy", &format!("{from}:1"), &format!("{to}:1")]);
    for tag in [format!("{index}.sig"), format!("{child}.att")] {
        assert_eq!(bench.ok(&["digest", &format!("{to}:{tag}")]), bench.ok(&["digest", &format!("{from}:{tag}")]));
    }
}

#[test]
fn platforms_are_selected() {
    let bench = bench();
    let source = attested();
    let all = architectures(&bench, &source);
    assert_eq!(all, ["amd64", "arm64"]);
    bench.ok(&["copy", "--platform", "linux/arm64", &source, "one.tar"]);
    assert_eq!(bench.ok(&["kind", "one.tar"]), "image");
    let entry = json(&bench, &["inspect", &source])["manifests"][1]["digest"].clone();
    assert_eq!(bench.ok(&["digest", "one.tar"]), entry.as_str().unwrap());
    // Several platforms make an index, with their attestation manifests.
    let three = multi();
    let both = ["copy", "--platform", "linux/amd64", "--platform", "linux/arm64", &three, "two.tar"];
    bench.ok(&both);
    assert_eq!(architectures(&bench, "two.tar"), ["amd64", "arm64"]);
    let same = ["copy", "--platform", "linux/amd64", "--platform", "linux/arm64", &source, "same.tar"];
    bench.ok(&same);
    assert_eq!(bench.ok(&["digest", "same.tar"]), bench.ok(&["digest", &source]), "all platforms are selected");
    // A sparse index keeps its digest.
    bench.ok(&["copy", "--platform", "linux/arm64", "--sparse", &source, "sparse.tar"]);
    assert_eq!(bench.ok(&["digest", "sparse.tar"]), bench.ok(&["digest", &source]));
    let sizes = |name: &str| fs::metadata(bench.path(name)).unwrap().len();
    assert!(sizes("sparse.tar") < sizes("same.tar"));
    // If the registry has the index, its children are assumed to exist, except with `--recheck`.
    let rules = Rules::default().children(Children::SparseIndexes);
    let registry = Registry::start_with(Server::default().rules(rules));
    for more in [&[][..], &["oci:layout:1"]] {
        let target = format!("{}/app{}:1", registry.name(), more.len());
        let is_complete = || bench.ocikit(&["validate", &target]).code == 0;
        bench.ok(&["copy", "--platform", "linux/arm64", "--sparse", &source, &target]);
        bench.ok(&[&["copy", &source, &target], more].concat());
        assert!(!is_complete());
        bench.ok(&[&["copy", "--recheck", &source, &target], more].concat());
        assert!(is_complete());
    }
    let outcome = bench.ocikit(&["copy", "--platform", "linux/s390x", &source, "none.tar"]);
    assert!(outcome.code == 3 && outcome.stderr.contains("linux/s390x"), "{outcome}");
    assert!(!bench.path("none.tar").exists());
}

#[test]
fn dry_run_changes_nothing() {
    let (bench, registry) = (bench(), Registry::start());
    let (source, reference) = (multi(), format!("{}/app:1", registry.name()));
    let planned = json(&bench, &["push", "--dry-run", &source, &reference]);
    let target = &planned["targets"][0];
    assert_eq!((target["dryRun"].clone(), target["present"]["blobs"].clone()), (true.into(), 0.into()), "{planned}");
    assert!(registry.requests().iter().all(|request| ["GET", "HEAD"].contains(&request.method.as_str())));
    assert_eq!(bench.ocikit(&["digest", &reference]).code, 3);
    let sent = json(&bench, &["push", &source, &reference]);
    assert_eq!(target["sent"], sent["targets"][0]["sent"]);
    let planned = json(&bench, &["push", "--dry-run", &source, &reference]);
    assert_eq!(planned["targets"][0]["sent"]["blobs"], 0);
    bench.ok(&["copy", "-n", &source, "out.tar", "./layout"]);
    assert!(bench.names().is_empty(), "{:?}", bench.names());
}

#[test]
fn no_clobber_overwrites_no_tag() {
    let (bench, registry) = (bench(), Registry::start());
    let (one, two) = (single(), multi());
    let reference = format!("{}/app:1", registry.name());
    bench.ok(&["push", "--no-clobber", &one, &reference]);
    bench.ok(&["push", "--no-clobber", &one, &reference]);
    let outcome = bench.ocikit(&["push", "--no-clobber", &two, &reference]);
    assert!(outcome.code == 1 && outcome.stderr.contains("already"), "{outcome}");
    assert_eq!(bench.ok(&["digest", &reference]), bench.ok(&["digest", &one]));
    bench.ok(&["copy", &one, "out.tar"]);
    assert_eq!(bench.ocikit(&["copy", "--no-clobber", &two, "out.tar"]).code, 1);
    let other = format!("{}/app:2", registry.name());
    let outcome = bench.ocikit(&["push", "--no-clobber", &two, &reference, &other]);
    assert_eq!(outcome.code, 7, "{outcome}");
    assert_eq!(bench.ok(&["digest", &other]), bench.ok(&["digest", &two]));
}

#[test]
fn all_tags_are_copied() {
    let (bench, registry, other) = (bench(), Registry::start(), Registry::start());
    let from = format!("{}/from", registry.name());
    for (name, tag) in [("single", "1"), ("multi", "2"), ("attested", "3")] {
        bench.ok(&["push", &fixture(&format!("buildkit-{name}/image.tar")), &format!("{from}:{tag}")]);
    }
    let to = format!("{}/to", other.name());
    bench.ok(&["copy", "--all-tags", &from, &to]);
    bench.ok(&["copy", "--all-tags", &from, "all.tar"]);
    for tag in ["1", "2", "3"] {
        let digest = bench.ok(&["digest", &format!("{from}:{tag}")]);
        assert_eq!(bench.ok(&["digest", &format!("{to}:{tag}")]), digest);
        assert_eq!(bench.ok(&["digest", &format!("all.tar#{tag}")]), digest);
    }
}

#[test]
fn push_to_several_targets_uploads_each_blob_once() {
    let (bench, registry) = (bench(), Registry::start());
    let source = multi();
    let targets: Vec<_> = (0..5).map(|at| format!("{}/app{at}:1", registry.name())).collect();
    let words: Vec<&str> = ["push", "--digest-file", "digest", source.as_str()]
        .into_iter()
        .chain(targets.iter().map(String::as_str))
        .collect();
    bench.ok(&words);
    assert_eq!(bench.read("digest").trim(), bench.ok(&["digest", &source]));
    let uploads = registry
        .requests()
        .into_iter()
        .filter(|request| request.method.as_str() == "PUT" && request.path.contains("/blobs/uploads/"));
    let blobs = json(&bench, &["copy", &source, "out.tar"])["targets"][0]["sent"]["blobs"].as_u64().unwrap();
    let documents = 4;
    assert_eq!(
        uploads.count() as u64,
        blobs - documents,
        "each blob is uploaded to one repository and mounted into the others"
    );
}
