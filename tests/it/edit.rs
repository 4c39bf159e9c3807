//! `edit`, `rebase` and `inspect --check-base`: archives, layouts and registries.

use std::fs;

use ocikit_tests::{Bench, Registry, fixture, multi, testdata};
use serde_json::Value;

use crate::bench;

fn json(bench: &Bench, line: &[&str]) -> Value {
    bench.json(&[line, &["--json"]].concat())
}

fn config(bench: &Bench, location: &str) -> Value {
    bench.json(&["inspect", "--config", location])
}

fn copy(bench: &Bench, name: &str) {
    fs::copy(testdata(name), bench.path("a.tar")).unwrap();
}

#[test]
fn edit_changes_the_config_and_its_inverse_restores_the_digest() {
    let bench = bench();
    copy(&bench, "buildkit-single/image.tar");
    let before = bench.ok(&["digest", "a.tar"]);
    let line = [
        "edit",
        "a.tar",
        "--env",
        "B=x=y",
        "--label",
        "k=v, \"ä\"",
        "--port",
        "80",
        "--volume",
        "/new",
        "--user",
        "1:2",
        "--stop-signal",
        "SIGTERM",
        "--author",
        "me",
        "--health-interval",
        "31s",
    ];
    let after = bench.ok(&line);
    assert_ne!(after, before);
    let found = config(&bench, "a.tar");
    let settings = &found["config"];
    assert!(settings["Env"].as_array().unwrap().iter().any(|variable| variable == "B=x=y"), "{settings}");
    assert_eq!(settings["Labels"]["k"], "v, \"ä\"");
    assert_eq!(settings["ExposedPorts"]["80/tcp"], serde_json::json!({}));
    assert_eq!((&settings["User"], &settings["StopSignal"]), (&"1:2".into(), &"SIGTERM".into()));
    assert_eq!(settings["Healthcheck"]["Interval"], 31_000_000_000_u64);
    assert_eq!(found["author"], "me");
    bench.ok(&["validate", "a.tar"]);
    let line = [
        "edit",
        "a.tar",
        "--remove-env",
        "B",
        "--remove-label",
        "k",
        "--remove-port",
        "80",
        "--remove-volume",
        "/new",
        "--user",
        "1000:1000",
        "--stop-signal",
        "SIGINT",
        "--remove",
        "author",
        "--health-interval",
        "30s",
    ];
    assert_eq!(bench.ok(&line), before);
}

#[test]
fn edit_replaces_lists_and_commands() {
    let bench = bench();
    copy(&bench, "buildkit-single/image.tar");
    bench.ok(&[
        "edit",
        "a.tar",
        "--remove",
        "env",
        "--env",
        "A=1",
        "--entrypoint",
        r#"["/app","a b"]"#,
        "--cmd",
        "-v",
        "--cmd",
        "x",
    ]);
    let found = config(&bench, "a.tar");
    assert_eq!(found["config"]["Env"], serde_json::json!(["A=1"]));
    assert_eq!(found["config"]["Entrypoint"], serde_json::json!(["/app", "a b"]));
    assert_eq!(found["config"]["Cmd"], serde_json::json!(["-v", "x"]));
    let steps = found["history"].as_array().unwrap().len();
    bench.ok(&["edit", "a.tar", "--history", "edited", "--created", "2026-01-31T12:00:00Z"]);
    let found = config(&bench, "a.tar");
    let last = &found["history"][steps];
    assert_eq!((&last["created_by"], &last["empty_layer"]), (&"edited".into(), &true.into()));
    assert_eq!((&found["created"], &last["created"]), (&"2026-01-31T12:00:00Z".into(), &"2026-01-31T12:00:00Z".into()));
    bench.ok(&["validate", "a.tar"]);
    for wrong in
        [&["edit", "a.tar"][..], &["edit", "a.tar", "--created", "yesterday"], &["edit", "a.tar", "--remove", "x"]]
    {
        assert_eq!(bench.ocikit(wrong).code, 2, "{wrong:?}");
    }
}

#[test]
fn edit_selects_platforms_and_keeps_attestations() {
    let bench = bench();
    copy(&bench, "buildkit-attested/image.tar");
    let before = json(&bench, &["inspect", "a.tar"]);
    let outcome = bench.ocikit(&["edit", "a.tar", "--label", "k=v", "--json"]);
    assert_eq!(outcome.code, 0, "{outcome}");
    assert!(outcome.stderr.contains("1 attestation manifest describes the image before the change"), "{outcome}");
    let result = outcome.json();
    assert!(!result["outdatedAttestations"].as_array().unwrap().is_empty(), "{result}");
    let after = json(&bench, &["inspect", "a.tar"]);
    let (old, new) = (before["manifests"].as_array().unwrap(), after["manifests"].as_array().unwrap());
    assert_eq!(old.len(), new.len());
    for (old, new) in old.iter().zip(new) {
        assert_eq!(old["platform"], new["platform"]);
        if new["kind"] == "attestation" {
            let attests = &new["attests"];
            assert!(
                new["attests"] != old["attests"]
                    && after["manifests"].as_array().unwrap().iter().any(|image| image["digest"] == *attests)
            );
        } else {
            assert_eq!(new["config"]["Labels"]["k"], "v", "{new}");
        }
    }
    bench.ok(&["validate", "a.tar"]);
}

#[test]
fn edit_keeps_platforms_apart_and_updates_their_entries() {
    let bench = bench();
    copy(&bench, "buildkit-multi/image.tar");
    let outcome = bench.ocikit(&["edit", "a.tar", "--architecture", "riscv64"]);
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.contains("would get the same platform"), "{outcome}");
    bench.ok(&["edit", "a.tar", "--platform", "linux/arm64", "--architecture", "riscv64", "--remove", "variant"]);
    let found = json(&bench, &["inspect", "a.tar"]);
    let platforms: Vec<_> =
        found["manifests"].as_array().unwrap().iter().map(|image| image["platform"]["architecture"].clone()).collect();
    assert!(platforms.contains(&"riscv64".into()) && !platforms.contains(&"arm64".into()), "{platforms:?}");
    assert!(config(&bench, "a.tar")["architecture"].as_str().is_some());
}

#[test]
fn labels_and_annotations_are_copied_and_promoted() {
    let bench = bench();
    copy(&bench, "buildkit-multi/image.tar");
    bench.ok(&["edit", "a.tar", "--label", "k=v", "--label", "l=w"]);
    bench.ok(&["edit", "a.tar", "--on", "manifests", "--label-to-annotation=k=team", "--promote", "team"]);
    let found = json(&bench, &["inspect", "a.tar"]);
    assert_eq!(found["annotations"]["team"], "v");
    assert!(found["manifests"].as_array().unwrap().iter().all(|image| image["annotations"]["team"] == "v"));
    bench.ok(&["edit", "a.tar", "--annotation-to-label=team=again"]);
    let found = json(&bench, &["inspect", "a.tar"]);
    assert!(found["manifests"].as_array().unwrap().iter().all(|image| image["config"]["Labels"]["again"] == "v"));
    bench.ok(&["edit", "a.tar", "--annotation", "x=y", "--platform", "linux/arm64"]);
    let outcome = bench.ocikit(&["edit", "a.tar", "--promote", "x"]);
    assert!(outcome.code == 1 && outcome.stderr.contains("different values"), "{outcome}");
    assert_eq!(bench.ocikit(&["edit", "a.tar", "--label-to-annotation=none"]).code, 3);
}

#[test]
fn edit_in_a_registry_transfers_no_layer() {
    let (bench, registry) = (bench(), Registry::start());
    let reference = format!("{}/app:1", registry.name());
    copy(&bench, "buildkit-multi/image.tar");
    bench.ok(&["push", "a.tar", &reference]);
    registry.clear_requests();
    let digest = bench.ok(&["edit", &reference, "--label", "k=v", "--annotation", "a=b"]);
    assert_eq!(bench.ok(&["digest", &reference]), digest);
    assert_eq!(bench.ok(&["edit", "a.tar", "--label", "k=v", "--annotation", "a=b"]), digest, "the same everywhere");
    let layers: Vec<String> = json(&bench, &["inspect", "a.tar"])["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|image| image["layers"].as_array().unwrap().clone())
        .map(|layer| layer["digest"].as_str().unwrap().to_owned())
        .collect();
    let moved = |path: &str| layers.iter().any(|layer| path.contains(layer.as_str()));
    assert!(registry.requests().iter().all(|request| !moved(&request.path)), "no layer is transferred");
    assert_eq!(bench.ocikit(&["edit", &format!("{}/app@{digest}", registry.name()), "--label", "k=w"]).code, 1);
}

#[test]
fn referrers_other_than_signatures_are_pointed_to_the_new_digest() {
    let (bench, registry) = (bench(), Registry::start());
    let reference = format!("{}/app:1", registry.name());
    copy(&bench, "buildkit-single/image.tar");
    bench.ok(&["push", "a.tar", &reference]);
    bench.write("sbom.json", "{}");
    bench.ok(&["attach", "--artifact-type", "application/spdx+json", &reference, "sbom.json"]);
    let outcome = bench.ocikit(&["edit", &reference, "--label", "k=v", "--update-referrers", "--json"]);
    assert_eq!(outcome.code, 0, "{outcome}");
    let result = outcome.json();
    assert_eq!(result["updatedReferrers"].as_array().map(Vec::len), Some(1), "{result}");
    let listed = bench.ok(&["referrers", &reference]);
    assert!(listed.contains("application/spdx+json"), "{listed}");
}

/// Appends a step to an image, as a build on it would: a label, and no layer, so that the layers are those of the base.
fn child_of(bench: &Bench, base: &str, image: &str) -> String {
    bench.ok(&["copy", "-q", "--no-referrers", base, image]);
    bench.ok(&["edit", image, "--label", "app=1", "--history", "app", "--created", "2026-01-31T12:00:00Z"])
}

#[test]
fn rebase_replaces_the_base_of_all_platforms() {
    let (bench, registry) = (bench(), Registry::start());
    let name = |repository: &str| format!("{}/{repository}", registry.name());
    let multi = multi();
    let (old, new, app) = (name("base:1"), name("new:2"), name("app:1"));
    bench.ok(&["push", &multi, &old]);
    bench.ok(&["push", &multi, &new]);
    bench.ok(&["edit", &new, "--env", "BASE=2", "--history", "base", "--created", "2026-02-01T00:00:00Z"]);
    child_of(&bench, &old, &app);
    let rebased = bench.ok(&["rebase", &app, "--old-base", &old, "--new-base", &new]);
    let found = json(&bench, &["inspect", &app]);
    assert_eq!(found["digest"], rebased);
    for image in found["manifests"].as_array().unwrap() {
        let settings = &image["config"];
        assert!(settings["Env"].as_array().unwrap().contains(&"BASE=2".into()), "{settings}");
        assert_eq!(settings["Labels"]["app"], "1");
        let steps: Vec<_> =
            settings["history"].as_array().unwrap().iter().filter_map(|step| step["created_by"].as_str()).collect();
        assert_eq!(steps[steps.len() - 2..], ["base", "app"]);
        assert_eq!(image["annotations"]["org.opencontainers.image.base.name"], new);
        assert_eq!(image["annotations"]["org.opencontainers.image.base.digest"], bench.ok(&["digest", &new]));
    }
    bench.ok(&["validate", &app]);
    // The annotations now name the base, and say whether it moved.
    assert_eq!(json(&bench, &["inspect", "--check-base", &app])["moved"], false);
    bench.ok(&["edit", &new, "--env", "BASE=3"]);
    let outcome = bench.ocikit(&["inspect", "--check-base", &app, "--json"]);
    assert_eq!(outcome.code, 5, "{outcome}");
    assert_eq!(outcome.json()["moved"], true);
    bench.ok(&["rebase", &app]);
    assert_eq!(json(&bench, &["inspect", "--check-base", &app])["moved"], false);
    let found = json(&bench, &["inspect", &app]);
    let env = found["manifests"][0]["config"]["Env"].as_array().unwrap();
    assert!(env.contains(&"BASE=3".into()) && !env.contains(&"BASE=2".into()), "{env:?}");
}

#[test]
fn values_that_break_an_image_are_refused() {
    let bench = bench();
    copy(&bench, "buildkit-single/image.tar");
    for [flag, value] in [
        ["--port", "99999"],
        ["--port", "80/xyz"],
        ["--os", ""],
        ["--architecture", ""],
        ["--workdir", "relative"],
        ["--volume", "relative"],
        ["--volume", "/"],
        ["--stop-signal", "SIGNOPE"],
    ] {
        assert_eq!(bench.ocikit(&["edit", "a.tar", flag, value]).code, 2, "{flag} {value}");
    }
    bench.ok(&["edit", "a.tar", "--workdir", "/srv", "--volume", "/data", "--stop-signal", "SIGRTMIN+3"]);
    bench.ok(&["edit", "a.tar", "--port", "53/udp", "--port", "8000-8010"]);
    bench.write("file", "x");
    let outcome = bench.ocikit(&["attach", "a.tar", "file", "--artifact-type", "not a type"]);
    assert_eq!(outcome.code, 2, "{outcome}");
    let outcome = bench.ocikit(&["append", "a.tar", "--remove-layer", "99"]);
    assert_eq!(outcome.code, 3, "{outcome}");
    assert!(outcome.stderr.contains("layer 99"), "{outcome}");
}

#[test]
fn rebase_refuses_a_base_for_another_platform() {
    let bench = bench();
    copy(&bench, "buildkit-single/image.tar");
    bench.ok(&["edit", "a.tar", "--architecture", "arm64", "-o", "arm.tar"]);
    let platform = config(&bench, "a.tar")["architecture"].clone();
    assert_ne!(platform, "arm64");
    for (old, new) in [("a.tar", "arm.tar"), ("arm.tar", "a.tar")] {
        let outcome = bench.ocikit(&["rebase", "a.tar", "--old-base", old, "--new-base", new, "-o", "b.tar"]);
        assert_eq!(outcome.code, 3, "{outcome}");
        assert!(!bench.path("b.tar").exists());
    }
}

#[test]
fn rebase_refuses_another_base() {
    let bench = bench();
    copy(&bench, "buildkit-single/image.tar");
    let other = fixture("archive-podman/image.tar");
    let before = fs::read(bench.path("a.tar")).unwrap();
    let outcome = bench.ocikit(&["rebase", "a.tar", "--old-base", &other, "--new-base", &other]);
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.contains("old base"), "{outcome}");
    assert_eq!(fs::read(bench.path("a.tar")).unwrap(), before);
    assert_eq!(bench.ocikit(&["rebase", "a.tar"]).code, 3, "no annotation names a base");
}

#[test]
fn annotations_in_dockers_format_are_warned_about() {
    let bench = bench();
    copy(&bench, "buildkit-docker/schema2.tar");
    let outcome = bench.ocikit(&["edit", "a.tar", "--annotation", "k=v"]);
    assert_eq!(outcome.code, 0, "{outcome}");
    assert!(outcome.stderr.contains("warning: docker ignores the annotations of 1 document"), "{outcome}");
    let outcome = bench.ocikit(&["edit", "a.tar", "--label", "k=v"]);
    assert!(!outcome.stderr.contains("docker ignores"), "{outcome}");
    copy(&bench, "buildkit-single/image.tar");
    let outcome = bench.ocikit(&["annotate", "a.tar", "k=v"]);
    assert!(!outcome.stderr.contains("docker ignores"), "{outcome}");
}

#[test]
fn an_archive_from_standard_input_needs_an_output() {
    let bench = bench();
    copy(&bench, "buildkit-multi/image.tar");
    bench.write("file", "x");
    let archive = fs::read(bench.path("a.tar")).unwrap();
    for line in [
        &["edit", "-", "--label", "k=v"][..],
        &["annotate", "-", "k=v"],
        &["append", "-", "file"],
        &["flatten", "-"],
        &["recompress", "-", "--compression", "zstd"],
        &["normalize", "-", "--time", "1700000000"],
        &["convert", "-", "--to", "docker", "--drop-unsupported"],
        &["index", "remove", "-", "--platform", "linux/arm64"],
    ] {
        let refused = bench.ocikit_with_input(line, &archive);
        assert_eq!(refused.code, 2, "{line:?}: {refused}");
        assert!(refused.stderr.contains("has no place") && refused.stderr.contains("--output"), "{line:?}: {refused}");
        let piped = bench.ocikit_with_input(&[line, &["-q", "-o", "b.tar"]].concat(), &archive);
        assert_eq!(piped.code, 0, "{line:?}: {piped}");
        bench.ok(&["validate", "b.tar"]);
        let file: Vec<_> = line.iter().map(|word| if *word == "-" { "a.tar" } else { word }).collect();
        bench.ok(&[&file[..], &["-q", "-o", "c.tar"]].concat());
        assert_eq!(bench.ok(&["digest", "b.tar"]), bench.ok(&["digest", "c.tar"]), "{line:?}");
    }
    for line in
        [&["export", "-", "--platform", "linux/amd64", "-o", "x.tar"][..], &["ls", "-", "--platform", "linux/amd64"]]
    {
        let piped = bench.ocikit_with_input(line, &archive);
        assert_eq!(piped.code, 0, "{line:?}: {piped}");
    }
    let outcome = bench.ocikit_with_input(&["append", "-", "-", "-o", "d.tar"], &archive);
    assert_eq!(outcome.code, 2, "{outcome}");
}

/// An archive of `docker save` lists platforms that it does not hold.
#[test]
fn a_missing_platform_does_not_prevent_the_edit_of_another() {
    let bench = bench();
    copy(&bench, "buildkit-multi/image.tar");
    bench.ok(&["copy", "-q", "--platform", "linux/amd64", "--sparse", "a.tar", "oci:sparse:1"]);
    let before = json(&bench, &["index", "list", "oci:sparse:1"]);
    bench.ok(&["edit", "oci:sparse:1", "--platform", "linux/amd64", "--label", "k=v"]);
    let after = json(&bench, &["index", "list", "oci:sparse:1"]);
    assert_ne!(before["manifests"][0]["digest"], after["manifests"][0]["digest"]);
    assert_eq!(before["manifests"][1], after["manifests"][1]);
    bench.ok(&[
        "edit",
        "oci:sparse:1",
        "--platform",
        "linux/amd64",
        "--label",
        "k=w",
        "-o",
        "oci:other:1",
        "--dry-run",
    ]);
    // The other images of the index cannot be changed, and the index must not name two states of one image.
    for output in [&[][..], &["-o", "oci:other:1"]] {
        let outcome = bench.ocikit(&[&["edit", "oci:sparse:1", "--label", "k=w"], output].concat());
        assert_eq!(outcome.code, 3, "{outcome}");
        assert!(
            outcome.stderr.contains(
                "hint: the index lists manifests that do not exist here; change those that do with `--platform linux/amd64`"
            ),
            "{outcome}"
        );
    }
}
