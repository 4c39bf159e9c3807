//! `sync`: mirroring by a configuration file.

use ocikit_tests::{Bench, Registry, fixture};
use serde_json::Value;

use crate::bench;

/// Starts a registry with two repositories and several tags.
fn filled(bench: &Bench) -> Registry {
    let registry = Registry::start();
    for (name, repository, tags) in [
        ("buildkit-single", "acme/app", &["1.0", "1.1", "2.0", "2.1-rc1", "latest"][..]),
        ("buildkit-multi", "acme/multi", &["1.0", "nightly"]),
    ] {
        for tag in tags {
            let source = fixture(&format!("{name}/image.tar"));
            bench.ok(&["push", &source, &format!("{}/{repository}:{tag}", registry.name())]);
        }
    }
    registry
}

fn tags(bench: &Bench, repository: &str) -> Vec<String> {
    bench.ok(&["tags", repository]).lines().map(str::to_owned).collect()
}

#[test]
fn sync_file_selects_tags_and_platforms() {
    let (bench, to) = (bench(), Registry::start());
    let from = filled(&bench);
    let (from_name, to_name) = (from.name(), to.name());
    let text = format!(
        "images:
  - {{from: {from_name}/acme/app, to: {to_name}/mirror/app, tags: [latest], semver: '>=1.1', except: [rc]}}
  - {{from: {from_name}/acme/multi, match: ['^1'], platforms: [linux/arm64]}}
"
    );
    bench.write("sync.yaml", text);
    let target = format!("{to_name}/more");
    let planned = bench.ok(&["sync", "--dry-run", "sync.yaml", &target]);
    assert_eq!(planned.lines().filter(|line| line.starts_with("planned")).count(), 4, "{planned}");
    assert!(to.requests().iter().all(|request| ["GET", "HEAD"].contains(&request.method.as_str())));
    let done = bench.ok(&["sync", "--json", "sync.yaml", &target]);
    let facts: Vec<Value> = done.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(facts.len() == 4 && facts.iter().all(|facts| facts["outcome"] == "copied"), "{done}");
    assert_eq!(tags(&bench, &format!("{to_name}/mirror/app")), ["1.1", "2.0", "latest"]);
    assert_eq!(tags(&bench, &format!("{to_name}/more/multi")), ["1.0"]);
    assert_eq!(
        bench.ok(&["kind", &format!("{to_name}/more/multi:1.0")]),
        "image",
        "one selected platform is copied without the index"
    );
    // A second run copies nothing.
    to.clear_requests();
    let again = bench.ok(&["sync", "sync.yaml", &target]);
    assert!(again.lines().count() == 4 && again.lines().all(|line| line.starts_with("same")), "{again}");
    assert!(to.requests().iter().all(|request| ["GET", "HEAD"].contains(&request.method.as_str())));
}

#[test]
fn skopeo_sync_files_are_read() {
    let (bench, to) = (bench(), Registry::start());
    let from = filled(&bench);
    let text = format!(
        "{}:
  tls-verify: false
  images:
    acme/multi: []
  images-by-tag-regex:
    acme/app: ^2
",
        from.name()
    );
    bench.write("skopeo.yaml", text);
    let outcome = bench.ocikit(&["sync", "skopeo.yaml"]);
    assert!(outcome.code == 2 && outcome.stderr.contains("has no target"), "{outcome}");
    bench.ok(&["sync", "skopeo.yaml", &to.name()]);
    assert_eq!(tags(&bench, &format!("{}/app", to.name())), ["2.0", "2.1-rc1"]);
    assert_eq!(tags(&bench, &format!("{}/multi", to.name())), ["1.0", "nightly"]);
}

#[test]
fn keep_going_continues_after_a_failure() {
    let (bench, to) = (bench(), Registry::start());
    let from = filled(&bench);
    let text = format!(
        "jobs: 1\nimages:\n  - {{from: {0}/gone, to: {1}/gone}}\n  - {{from: {0}/acme/app, to: {1}/app, tags: [gone, '1.0']}}\n",
        from.name(),
        to.name()
    );
    bench.write("sync.yaml", text);
    assert_eq!(bench.ocikit(&["sync", "sync.yaml"]).code, 3);
    let outcome = bench.ocikit(&["sync", "-k", "sync.yaml"]);
    assert_eq!(outcome.code, 7, "{outcome}");
    assert!(outcome.stderr.contains("2 of 3 images failed"), "{outcome}");
    assert_eq!(tags(&bench, &format!("{}/app", to.name())), ["1.0"]);
    for (text, problem) in [("images: [{from: a, too: b}]", "too"), ("[", "sync.yaml")] {
        bench.write("sync.yaml", text);
        let outcome = bench.ocikit(&["sync", "sync.yaml"]);
        assert!(outcome.code == 2 && outcome.stderr.contains(problem), "{outcome}");
    }
    assert_eq!(bench.ocikit(&["sync", "none.yaml"]).code, 3);
}

#[test]
fn hint_for_an_invalid_file_names_the_side() {
    let bench = bench();
    for (text, to, problem, hint) in [
        ("images: [{from: alpine}]", None, "it has no target", "name the target"),
        ("images: [{from: 'alpine:1', to: localhost/a}]", None, "alpine:1: ", "the name of the image in the file"),
        ("images: [{from: alpine, to: 'localhost/A'}]", None, "the target localhost/A of alpine", "correct the target"),
        ("registry.example: {images: {app: []}}", None, "registry.example/app: it has no target", "name the target"),
        ("images: [{from: alpine, to: localhost/a, tagz: [1]}]", Some("localhost/b"), "tagz", ""),
    ] {
        bench.write("sync.yaml", text);
        let outcome = bench.ocikit(&[&["sync", "sync.yaml"], to.as_slice()].concat());
        assert_eq!(outcome.code, 2, "{text}: {outcome}");
        assert!(outcome.stderr.contains(problem) && outcome.stderr.contains(hint), "{text}: {outcome}");
        assert_eq!(outcome.stderr.contains("hint: "), !hint.is_empty(), "{text}: {outcome}");
    }
}

#[test]
fn invalid_yaml_is_reported_in_plain_words() {
    let bench = bench();
    for (text, problem) in [
        ("a: 1\na: 2\n", "duplicate mapping key"),
        ("images: []\n---\nimages: []\n", "line 3"),
        ("images: 5\n", "line 1"),
    ] {
        bench.write("sync.yaml", text);
        let outcome = bench.ocikit(&["sync", "sync.yaml"]);
        assert!(outcome.code == 2 && outcome.stderr.contains(problem), "{outcome}");
        for word in ["Options", "from_str", "<input>", "\\n"] {
            assert!(!outcome.stderr.contains(word), "{outcome}");
        }
    }
}
