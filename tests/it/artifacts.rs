//! `artifact push` and `pull`, and `attach` of files.

use std::fs;

use ocikit_tests::{Bench, Registry, multi};
use serde_json::{Value, json};

use crate::bench;

fn manifest(bench: &Bench, location: &str) -> Value {
    bench.json(&["manifest", "get", location])
}

#[test]
fn files_and_directories_come_back_from_everywhere() {
    let (bench, registry) = (bench(), Registry::start());
    bench.write("site/index.html", "<h1>");
    bench.write("site/img/a.svg", "<svg>");
    bench.write("notes.txt", "notes");
    let remote = format!("{}/docs:1", registry.name());
    let mut digests = Vec::new();
    for (number, place) in ["docs.tar", "oci:layout:1", &remote].iter().enumerate() {
        let pushed = bench.ok(&["artifact", "push", place, "site", "notes.txt:text/plain", "--artifact-type", "a/b"]);
        digests.push(pushed.rsplit_once('@').unwrap().1.to_owned());
        let out = format!("out-{number}");
        let pulled = bench.ok(&["artifact", "pull", place, "-o", &out]);
        assert_eq!(pulled, format!("{out}/site\n{out}/notes.txt"));
        assert_eq!(fs::read_to_string(bench.path(&out).join("site/img/a.svg")).unwrap(), "<svg>");
        assert_eq!(fs::read_to_string(bench.path(&out).join("notes.txt")).unwrap(), "notes");
        assert_eq!(bench.ok(&["digest", place]), digests[0], "the same everywhere");
    }
    let manifest = manifest(&bench, "docs.tar");
    assert_eq!((&manifest["artifactType"], &manifest["layers"][1]["mediaType"]), (&json!("a/b"), &json!("text/plain")));
    assert_eq!(manifest["layers"][0]["annotations"]["io.deis.oras.content.unpack"], "true");
    assert_eq!(bench.ok(&["artifact", "push", "--dry-run", "x.tar", "notes.txt"]).matches("x.tar@sha256:").count(), 1);
    assert!(!bench.path("x.tar").exists());
}

#[test]
fn existing_files_are_kept() {
    let bench = bench();
    bench.write("a.txt", "new");
    bench.ok(&["artifact", "push", "a.tar", "a.txt"]);
    bench.write("out/a.txt", "old");
    let refused = bench.ocikit(&["artifact", "pull", "a.tar", "-o", "out"]);
    assert_eq!(refused.code, 1, "{refused}");
    assert!(refused.stderr.contains("already has a.txt") && refused.stderr.contains("--overwrite"), "{refused}");
    assert_eq!(bench.read("out/a.txt"), "old");
    bench.ok(&["artifact", "pull", "a.tar", "-o", "out", "--overwrite"]);
    assert_eq!(bench.read("out/a.txt"), "new");
}

#[test]
fn annotations_come_from_flags_a_file_and_the_epoch() {
    let bench = bench().with("SOURCE_DATE_EPOCH", "946684800");
    bench.write("a.txt", "a");
    bench.write("c.json", "{}");
    let annotations = json!({"$manifest": {"m": "1", "n": "file"}, "$config": {"c": "1"}, "a.txt": {"f": "1"}});
    bench.write("annotations.json", annotations.to_string());
    bench.ok(&[
        "artifact",
        "push",
        "a.tar",
        "a.txt",
        "--config",
        "c.json:a/c",
        "-a",
        "n=flag",
        "--annotation-file",
        "annotations.json",
    ]);
    let manifest = manifest(&bench, "a.tar");
    assert_eq!(
        manifest["annotations"],
        json!({"m": "1", "n": "flag", "org.opencontainers.image.created": "2000-01-01T00:00:00Z"})
    );
    assert_eq!(
        (&manifest["config"]["annotations"]["c"], &manifest["config"]["mediaType"]),
        (&json!("1"), &json!("a/c"))
    );
    assert_eq!(manifest["layers"][0]["annotations"]["f"], "1");
    bench.ok(&["artifact", "pull", "a.tar", "-o", "out", "--config", "config.json"]);
    assert_eq!(bench.read("config.json"), "{}");
    bench.write("annotations.json", r#"{"other.txt": {"f": "1"}}"#);
    let refused = bench.ocikit(&["artifact", "push", "a.tar", "a.txt", "--annotation-file", "annotations.json"]);
    assert_eq!(refused.code, 2, "{refused}");
}

#[test]
fn titles_that_lead_out_are_refused() {
    let bench = bench();
    bench.write("a.txt", "a");
    bench.ok(&["artifact", "push", "oci:layout:ok", "a.txt"]);
    let original = bench.ok(&["manifest", "get", "oci:layout:ok"]);
    for title in ["../a.txt", "/a.txt", "a\\u0007b", "d/../../a"] {
        bench.write("bad.json", original.replace("a.txt", title));
        bench.ok(&["manifest", "put", "bad.json", "oci:layout:bad"]);
        let refused = bench.ocikit(&["artifact", "pull", "oci:layout:bad", "-o", "out"]);
        assert_eq!(refused.code, 3, "{title}: {refused}");
        assert!(refused.stderr.contains("cannot be used"), "{title}: {refused}");
        assert!(!refused.stderr.contains('\u{7}'), "{title}: {refused}");
        assert!(!bench.path("out").exists(), "{title}");
    }
    let index = multi();
    let refused = bench.ocikit(&["artifact", "pull", &index, "-o", "out"]);
    assert!(refused.code != 0 && refused.stderr.contains("--platform"), "{refused}");
}

#[test]
fn an_artifact_without_titles_has_no_files_to_pull() {
    let bench = bench();
    bench.write("a.txt", "a");
    bench.ok(&["artifact", "push", "oci:layout:ok", "a.txt"]);
    let original = bench.ok(&["manifest", "get", "oci:layout:ok"]);
    bench.write("untitled.json", original.replace("org.opencontainers.image.title", "other"));
    bench.ok(&["manifest", "put", "untitled.json", "oci:layout:untitled"]);
    let outcome = bench.ocikit(&["artifact", "pull", "oci:layout:untitled", "-o", "out"]);
    assert_eq!(outcome.code, 3, "{outcome}");
    assert!(outcome.stderr.contains("no layer has an `org.opencontainers.image.title`"), "{outcome}");
    assert!(outcome.stderr.contains("`ocikit manifest get oci:layout:untitled`"), "{outcome}");
    assert!(!bench.path("out").exists(), "{outcome}");
    let config = bench.ocikit(&["artifact", "pull", "oci:layout:untitled", "--config", "config.json"]);
    assert_eq!(config.code, 0, "{config}");
    assert!(bench.path("config.json").exists() && config.stderr.contains("which has no title"), "{config}");
}

#[test]
fn files_are_attached_to_an_image() {
    let (bench, registry) = (bench(), Registry::start());
    bench.write("sbom.json", "{}");
    bench.write("report/index.html", "<h1>");
    let image = multi();
    let remote = format!("{}/app:1", registry.name());
    bench.ok(&["copy", "-q", &image, "a.tar"]);
    bench.ok(&["copy", "-q", &image, "oci:layout:1"]);
    bench.ok(&["push", "-q", &image, &remote]);
    let mut digests = Vec::new();
    for place in ["a.tar", "oci:layout:1", &remote] {
        let line =
            ["attach", place, "sbom.json:application/spdx+json", "report", "--artifact-type", "application/spdx+json"];
        let planned = bench.ok(&[&line[..], &["--dry-run"]].concat());
        let attached = bench.ok(&line);
        assert_eq!(planned, attached);
        digests.push(attached.rsplit_once('@').unwrap().1.to_owned());
        let listed = bench.json(&["referrers", "--json", place]);
        assert_eq!(listed["referrers"][0]["digest"], digests[0].as_str(), "{place}");
        assert_eq!(listed["referrers"][0]["artifactType"], "application/spdx+json", "{place}");
        bench.ok(&["validate", place]);
    }
    let referrer = format!("{}/app@{}", registry.name(), digests[0]);
    bench.ok(&["artifact", "pull", &referrer, "-o", "out"]);
    assert_eq!(bench.read("out/report/index.html"), "<h1>");
    bench.ok(&["attach", &remote, "sbom.json", "--artifact-type", "a/b", "--platform", "linux/arm64"]);
    let listed = bench.json(&["referrers", "--json", &remote, "--platform", "linux/arm64"]);
    assert_eq!(listed["referrers"].as_array().unwrap().len(), 1);
    for (line, hint) in [
        (&["attach", "a.tar", "sbom.json"][..], "--artifact-type"),
        (&["attach", "a.tar", "sbom.json", "--artifact-type", "a/b", "--unverified", "--bundle", "x"], "twice"),
    ] {
        let refused = bench.ocikit(line);
        assert!(refused.code == 2 && refused.stderr.contains(hint), "{refused}");
    }
}

#[test]
fn helm_charts_and_webassembly_modules_are_artifacts() {
    let bench = bench();
    bench.write("Chart.json", r#"{"name":"app","version":"1.0.0","apiVersion":"v2"}"#);
    bench.write("app-1.0.0.tgz", "chart");
    bench.ok(&[
        "artifact",
        "push",
        "oci:layout:chart",
        "app-1.0.0.tgz:application/vnd.cncf.helm.chart.content.v1.tar+gzip",
        "--config",
        "Chart.json:application/vnd.cncf.helm.config.v1+json",
    ]);
    assert_eq!(bench.ok(&["kind", "oci:layout:chart"]), "helm-chart");
    bench.write("app.wasm", "\0asm");
    bench.write("config.json", "{}");
    bench.ok(&[
        "artifact",
        "push",
        "oci:layout:wasm",
        "app.wasm:application/wasm",
        "--config",
        "config.json:application/vnd.wasm.config.v0+json",
    ]);
    assert_eq!(bench.ok(&["kind", "oci:layout:wasm"]), "wasm");
    bench.ok(&["artifact", "pull", "oci:layout:wasm", "-o", "out"]);
    assert_eq!(fs::read(bench.path("out/app.wasm")).unwrap(), b"\0asm");
}
