//! `index create`, `add`, `remove` and `list`: the documents and the requests.

use ocikit_tests::{Bench, Registry, attested, fixture, json, multi};
use serde_json::Value;

use crate::bench;

fn list(bench: &Bench, location: &str) -> Vec<Value> {
    let listed = bench.json(&["index", "list", "--json", location]);
    listed["manifests"].as_array().unwrap().clone()
}

fn digests(entries: &[Value]) -> Vec<String> {
    entries.iter().map(|entry| entry["digest"].as_str().unwrap().to_owned()).collect()
}

fn platforms(entries: &[Value]) -> Vec<String> {
    let text = |entry: &Value| {
        let part = |key: &str| entry["platform"][key].as_str().map(str::to_owned);
        let parts = [part("os"), part("architecture"), part("variant")];
        parts.into_iter().flatten().collect::<Vec<_>>().join("/")
    };
    entries.iter().map(text).collect()
}

/// Splits an index into archives of one image each.
fn split(bench: &Bench) -> Vec<&'static str> {
    let names = vec!["amd64.tar", "arm64.tar", "arm.tar"];
    for (name, platform) in names.iter().zip(["linux/amd64", "linux/arm64", "linux/arm"]) {
        bench.ok(&["copy", "-q", "--platform", platform, &multi(), name]);
    }
    names
}

#[test]
fn an_index_of_archives_has_the_entries_of_the_original() {
    let bench = bench();
    let sources = split(&bench);
    let digest = bench.ok(&[&["index", "create", "all.tar"], &sources[..]].concat());
    let (found, original) = (list(&bench, "all.tar"), list(&bench, &multi()));
    assert_eq!(digests(&found), digests(&original));
    assert_eq!(platforms(&found), ["linux/amd64", "linux/arm64", "linux/arm/v7"]);
    for target in ["oci:layout:1", "oci:other:2"] {
        let line = [&["index", "create", target], &sources[..]].concat();
        assert_eq!(bench.ok(&line), digest, "the same everywhere");
        bench.ok(&["validate", target]);
    }
    bench.ok(&["validate", "all.tar"]);
    assert_eq!(bench.ok(&[&["index", "create", "--dry-run", "none.tar"], &sources[..]].concat()), digest);
    assert!(!bench.path("none.tar").exists());
}

#[test]
fn a_registry_gets_the_index_and_no_blob() {
    let (bench, registry) = (bench(), Registry::start());
    let at = |tag: &str| format!("{}/app:{tag}", registry.name());
    for (name, tag) in split(&bench).iter().zip(["amd64", "arm64", "arm"]) {
        bench.ok(&["push", "-q", name, &at(tag)]);
    }
    registry.clear_requests();
    let digest = bench.ok(&["index", "create", &at("1"), &at("amd64"), &at("arm64")]);
    let sent: Vec<_> = registry.requests().iter().map(|sent| format!("{} {}", sent.method, sent.path)).collect();
    // oras 1.3 sends 5 requests for the same index and checks nothing, crane 0.21 sends 11, regctl 0.11 sends 13.
    assert_eq!(sent.len(), 6, "{sent:#?}");
    assert!(sent.iter().all(|sent| !sent.starts_with("POST")), "{sent:#?}");
    assert_eq!(registry.verified_digest("app", "1").unwrap().to_string(), digest);

    registry.clear_requests();
    let added = bench.ok(&["index", "add", &at("1"), &at("arm")]);
    let sent: Vec<_> = registry.requests().iter().map(|sent| format!("{} {}", sent.method, sent.path)).collect();
    // Without the tag being read twice if nothing happened in between.
    assert!(sent.len() <= 8, "{sent:#?}");
    assert_eq!(registry.verified_digest("app", "1").unwrap().to_string(), added);
    assert_eq!(bench.ok(&["index", "remove", "-q", "--platform", "linux/arm/v7", &at("1")]), digest);
    assert_eq!(registry.verified_digest("app", "1").unwrap().to_string(), digest);
}

#[test]
fn layers_of_another_repository_are_mounted() {
    let (bench, registry) = (bench(), Registry::start());
    let at = |name: &str| format!("{}/{name}", registry.name());
    for (name, place) in split(&bench).iter().zip(["one/app:1", "two/app:1"]) {
        bench.ok(&["push", "-q", name, &at(place)]);
    }
    registry.clear_requests();
    let digest = bench.ok(&["index", "create", &at("all/app:1"), &at("one/app:1"), &at("two/app:1")]);
    let sent = registry.requests();
    let uploaded: u64 = sent.iter().filter(|sent| sent.path.contains("/blobs/")).map(|sent| sent.request_bytes).sum();
    assert_eq!(uploaded, 0, "{sent:#?}");
    assert_eq!(registry.verified_digest("all/app", "1").unwrap().to_string(), digest);
}

#[test]
fn sources_may_be_anywhere() {
    let (bench, registry) = (bench(), Registry::start());
    let names = split(&bench);
    let remote = format!("{}/app:amd64", registry.name());
    bench.ok(&["push", "-q", names[0], &remote]);
    bench.ok(&["copy", "-q", names[1], "oci:layout:arm64"]);
    bench.ok(&["copy", "-q", "--platform", "linux/arm", &multi(), "docker-archive:docker.tar:app:1"]);
    let target = format!("{}/app:1", registry.name());
    let digest = bench.ok(&["index", "create", &target, &remote, "oci:layout:arm64", "docker.tar"]);
    assert_eq!(platforms(&list(&bench, &target)), ["linux/amd64", "linux/arm64", "linux/arm/v7"]);
    assert_eq!(registry.verified_digest("app", "1").unwrap().to_string(), digest);
}

#[test]
fn attestation_manifests_go_with_their_image() {
    let bench = bench();
    let before = list(&bench, &attested());
    let count = before.len();
    bench.ok(&["index", "create", "one.tar", &attested(), "--platform", "linux/amd64"]);
    let one = list(&bench, "one.tar");
    assert_eq!(one.len(), 2, "the image and its attestation manifest: {one:#?}");
    assert_eq!(one[1]["annotations"]["vnd.docker.reference.digest"], one[0]["digest"]);
    bench.ok(&["copy", "-q", &attested(), "all.tar"]);
    let outcome = bench.ocikit(&["index", "remove", "--platform", "linux/amd64", "all.tar"]);
    assert_eq!(outcome.code, 0, "{outcome}");
    assert!(outcome.stderr.contains("removed the attestation manifest sha256:"), "{outcome}");
    assert_eq!(list(&bench, "all.tar").len(), count - 2);
    let back = bench.ok(&["index", "add", "all.tar", "one.tar", "--flatten", "--dry-run", "--json"]);
    let back = json(&back);
    assert_eq!(back["added"].as_array().unwrap().len(), 2, "{back:#}");
    bench.ok(&["index", "remove", "-q", "--platform", "unknown/unknown", "one.tar"]);
    assert_eq!(list(&bench, "one.tar").len(), 1);
}

#[test]
fn removing_a_missing_entry_names_the_list_and_no_other_platform() {
    let bench = bench();
    bench.ok(&["copy", "-q", &attested(), "all.tar"]);
    for wanted in [["--platform", "linux/s390x"], ["--digest", &format!("sha256:{}", "0".repeat(64))]] {
        for output in [&["all.tar"][..], &["all.tar", "-o", "b.tar"]] {
            let outcome = bench.ocikit(&[&["index", "remove"], &wanted[..], output].concat());
            assert_eq!(outcome.code, 3, "{outcome}");
            assert!(outcome.stderr.contains("hint: `ocikit index list all.tar` lists the entries"), "{outcome}");
            assert!(!outcome.stderr.contains("choose one with"), "{outcome}");
        }
    }
}

#[test]
fn duplicates_need_a_decision() {
    let bench = bench();
    let names = split(&bench);
    bench.ok(&["index", "create", "a.tar", names[0], names[1]]);
    bench.ok(&["annotate", "-q", "-o", "new.tar", names[1], "k=v"]);
    let refused = bench.ocikit(&["index", "add", "a.tar", "new.tar"]);
    assert_eq!(refused.code, 1, "{refused}");
    assert!(refused.stderr.contains("an entry for linux/arm64"), "{refused}");
    assert!(refused.stderr.contains("hint: add `--on-duplicate replace`"), "{refused}");
    let before = digests(&list(&bench, "a.tar"));
    bench.ok(&["index", "add", "-q", "--on-duplicate", "keep", "-o", "both.tar", "a.tar", "new.tar"]);
    assert_eq!(list(&bench, "both.tar").len(), 3);
    bench.ok(&["index", "add", "-q", "--on-duplicate", "replace", "a.tar", "new.tar"]);
    let after = digests(&list(&bench, "a.tar"));
    assert_eq!((after.len(), &after[0]), (2, &before[0]));
    assert_eq!(after[1], bench.ok(&["digest", "new.tar"]));
    bench.ok(&["validate", "a.tar"]);
}

#[test]
fn options_describe_the_index_and_its_entries() {
    let bench = bench();
    let names = split(&bench);
    let outcome = bench.ok(&[
        "index",
        "create",
        "oci:layout:1",
        names[0],
        "-a",
        "team=web",
        "--entry-annotation",
        "k=v",
        "--artifact-type",
        "a/b",
        "--subject",
        names[0],
    ]);
    let raw = bench.json(&["manifest", "get", "oci:layout:1"]);
    assert_eq!(raw["annotations"]["team"], "web", "{outcome}");
    assert_eq!((&raw["artifactType"], &raw["manifests"][0]["annotations"]["k"]), (&"a/b".into(), &"v".into()));
    assert_eq!(raw["subject"]["digest"].as_str().unwrap(), bench.ok(&["digest", names[0]]));
    bench.ok(&[
        "index",
        "create",
        "two.tar",
        names[0],
        names[1],
        "--set-platform",
        "linux/riscv64",
        "--set-platform",
        "a/b",
    ]);
    assert_eq!(platforms(&list(&bench, "two.tar")), ["linux/riscv64", "a/b"]);
    let wrong = bench.ocikit(&["index", "create", "two.tar", names[0], names[1], "--set-platform", "linux/riscv64"]);
    assert_eq!(wrong.code, 2, "{wrong}");
    let docker = fixture("buildkit-docker/schema2.tar");
    bench.ok(&["index", "create", "docker.tar", &docker]);
    assert_eq!(bench.ok(&["kind", "docker.tar"]), "docker-index");
    bench.ok(&["index", "create", "--format", "oci", "oci.tar", &docker]);
    assert_eq!(bench.ok(&["kind", "oci.tar"]), "index");
    let mixed = bench.ocikit(&["index", "create", "--format", "docker", "mixed.tar", names[1]]);
    assert!(mixed.code == 1 && mixed.stderr.contains("hint: add `--format oci`"), "{mixed}");
}

#[test]
fn a_nested_index_is_kept_and_said() {
    let bench = bench();
    let outcome = bench.ocikit(&["index", "create", "nested.tar", &multi()]);
    assert!(outcome.stderr.contains("--flatten"), "{outcome}");
    assert_eq!(digests(&list(&bench, "nested.tar")), [bench.ok(&["digest", &multi()])]);
    bench.ok(&["validate", "nested.tar"]);
    let flat = bench.ok(&["index", "create", "--flatten", "flat.tar", "nested.tar"]);
    assert_eq!(digests(&list(&bench, "flat.tar")), digests(&list(&bench, &multi())), "{flat}");
    let single = bench.ocikit(&["index", "list", &fixture("buildkit-docker/schema2.tar")]);
    assert!(single.code == 2 && single.stderr.contains("not an index"), "{single}");
}

#[test]
fn concurrent_additions_are_all_applied() {
    let bench = bench();
    let names = split(&bench);
    bench.ok(&["index", "create", "oci:layout:1", names[0]]);
    bench.ok(&["index", "create", "a.tar", names[0]]);
    for place in ["oci:layout:1", "a.tar"] {
        let children: Vec<_> = names[1..]
            .iter()
            .map(|name| {
                bench.command(&["index", "add", "-q", place, name]).stdout(std::process::Stdio::null()).spawn().unwrap()
            })
            .collect();
        for mut child in children {
            assert!(child.wait().unwrap().success());
        }
        assert_eq!(list(&bench, place).len(), 3, "{place}");
        bench.ok(&["validate", place]);
    }
}

#[test]
fn unknown_fields_of_entries_are_kept() {
    let bench = bench();
    let raw = bench.ok(&["manifest", "get", &multi()]);
    let mut index = json(&raw);
    for entry in index["manifests"].as_array_mut().unwrap() {
        entry["platform"]["x-cpu"] = "v4".into();
        entry["x-note"] = 1.into();
    }
    bench.ok(&["copy", "-q", &multi(), "oci:layout:old"]);
    bench.write("index.json", index.to_string());
    bench.ok(&["manifest", "put", "index.json", "oci:layout:1"]);
    let target = ["index", "create", "-q", "oci:layout:2", "oci:layout:1"];
    for flags in [&["--flatten"][..], &["--platform", "linux/amd64"], &["--flatten", "--entry-annotation", "k=v"]] {
        bench.ok(&[&target[..], flags].concat());
        let found = list_raw(&bench, "oci:layout:2");
        for entry in &found {
            assert_eq!(
                (&entry["platform"]["x-cpu"], &entry["x-note"]),
                (&"v4".into(), &1.into()),
                "{flags:?}: {entry}"
            );
        }
    }
    bench.ok(&["index", "create", "-q", "oci:layout:3", &multi(), "--platform", "linux/arm64"]);
    bench.ok(&["index", "add", "-q", "oci:layout:3", "oci:layout:1", "--platform", "linux/amd64"]);
    assert_eq!(list_raw(&bench, "oci:layout:3")[1]["platform"]["x-cpu"], "v4");
}

fn list_raw(bench: &Bench, location: &str) -> Vec<Value> {
    let raw = bench.json(&["manifest", "get", location]);
    raw["manifests"].as_array().unwrap().clone()
}

#[test]
fn a_list_of_an_image_is_refused_as_such() {
    let bench = bench();
    let names = split(&bench);
    let outcome = bench.ocikit(&["index", "list", names[0]]);
    assert_eq!(outcome.code, 2, "{outcome}");
    assert!(outcome.stderr.contains("cannot list amd64.tar: it is of type"), "{outcome}");
}
