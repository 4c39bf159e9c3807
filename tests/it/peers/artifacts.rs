//! Artifacts: what oras, regctl, crane and helm's conventions write and read.

use std::fs;
use std::path::Path;

use ocikit_tests::{Bench, Daemon, Peers, json, multi};
use serde_json::Value;

use crate::bench;

/// An annotation that oras sets to the current time unless it is given.
const CREATED: &str = "org.opencontainers.image.created=2000-01-01T00:00:00Z";

fn local(registry: &Daemon) -> String {
    registry.address.replace("127.0.0.1", "localhost")
}

/// Writes the same files for both programs, which run in different directories.
fn write(bench: &Bench, peers: &Peers, name: &str, text: &str) {
    for path in [bench.path(name), peers.path(name)] {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{error}: {}", path.as_ref().display()))
}

#[test]
fn files_have_the_digest_that_oras_gives_them() {
    let Some(peers) = Peers::find(&["oras", "registry", "olareg"]) else { return };
    for (name, registry) in peers.registries() {
        let (bench, host) = (bench(), local(&registry));
        let at = |tag: &str| format!("{host}/files:{tag}");
        write(&bench, &peers, "a.txt", "a");
        write(&bench, &peers, "sub/b.json", "{}");
        write(&bench, &peers, "c.json", r#"{"c":1}"#);
        write(&bench, &peers, "annotations.json", r#"{"$manifest":{"z":"1"},"a.txt":{"k":"v"},"$config":{"c":"1"}}"#);
        for (number, arguments) in [
            "a.txt sub/b.json:application/json --artifact-type application/vnd.x",
            "a.txt",
            "--artifact-type application/vnd.x",
            "a.txt --config c.json:application/vnd.c",
            "a.txt --config c.json --artifact-type application/vnd.x",
            "a.txt --config c.json --annotation-file annotations.json",
        ]
        .iter()
        .enumerate()
        {
            let (ours, theirs) = (at(&format!("o{number}")), at(&format!("t{number}")));
            let words: Vec<_> = arguments.split(' ').collect();
            bench.ok(&[&["artifact", "push", &ours, "-a", CREATED], &words[..]].concat());
            // oras takes annotations from a file or from flags, not from both.
            let created = match arguments.contains("--annotation-file") {
                false => format!("--annotation {CREATED}"),
                true => {
                    let both = r#"{"$manifest":{"z":"1","org.opencontainers.image.created":"2000-01-01T00:00:00Z"},"a.txt":{"k":"v"},"$config":{"c":"1"}}"#;
                    fs::write(peers.path("annotations.json"), both).unwrap();
                    String::new()
                }
            };
            peers.ok(&format!("oras push --plain-http {created} {theirs} {arguments}"));
            assert_eq!(
                bench.ok(&["manifest", "get", &ours]),
                bench.ok(&["manifest", "get", &theirs]),
                "{arguments} on {name}"
            );
        }
    }
}

#[test]
fn directories_go_both_ways() {
    let Some(peers) = Peers::find(&["oras", "registry"]) else { return };
    let (bench, registry) = (bench(), peers.distribution("registry"));
    let at = |tag: &str| format!("{}/files:{tag}", local(&registry));
    write(&bench, &peers, "site/index.html", "<h1>");
    write(&bench, &peers, "site/img/a.svg", "<svg>");
    std::os::unix::fs::symlink("img/a.svg", bench.path("site/link")).unwrap();
    std::os::unix::fs::symlink("img/a.svg", peers.path("site/link")).unwrap();
    bench.ok(&["artifact", "push", &at("ours"), "site", "--artifact-type", "a/b"]);
    peers.ok(&format!("oras push --plain-http {} site --artifact-type a/b", at("oras")));
    let layer = |tag: &str| json(&bench.ok(&["manifest", "get", &at(tag)]))["layers"][0].clone();
    for key in ["mediaType", "annotations"] {
        let keys = |tag: &str| match &layer(tag)[key] {
            Value::Object(map) => map.keys().cloned().collect::<Vec<_>>(),
            other => vec![other.to_string()],
        };
        assert_eq!(keys("ours"), keys("oras"), "{key}");
    }
    for tag in ["ours", "oras"] {
        peers.ok(&format!("oras pull --plain-http {} -o from-{tag}", at(tag)));
        bench.ok(&["artifact", "pull", &at(tag), "-o", &format!("from-{tag}")]);
        for place in [peers.path(&format!("from-{tag}")), bench.path(&format!("from-{tag}"))] {
            assert_eq!(read(place.join("site/img/a.svg")), "<svg>");
            assert_eq!(read(place.join("site/link")), "<svg>");
            assert!(fs::symlink_metadata(place.join("site/link")).unwrap().is_symlink());
        }
    }
}

#[test]
fn attached_files_are_found_by_every_tool() {
    let Some(peers) = Peers::find(&["oras", "regctl", "crane", "registry", "olareg"]) else { return };
    for (name, registry) in peers.registries() {
        let (bench, host) = (bench(), local(&registry));
        peers.ok(&format!("regctl registry set --tls disabled {host}"));
        let image = multi();
        let subject = format!("{host}/app:1");
        bench.ok(&["push", "-q", &image, &subject]);
        write(&bench, &peers, "sbom.json", "{}");
        let line = [
            "attach",
            &subject,
            "sbom.json:application/json",
            "--artifact-type",
            "application/spdx+json",
            "-a",
            CREATED,
        ];
        let ours = bench.ok(&line).rsplit_once('@').unwrap().1.to_owned();
        let found = peers.ok(&format!("oras discover --plain-http --format json {subject}"));
        assert!(found.contains(&ours), "{name}: {found}");
        let found = peers.ok(&format!("regctl artifact list {subject}"));
        assert!(found.contains(&ours), "{name}: {found}");
        // The same files attached by oras are the same manifest, which exists already.
        peers.ok(&format!(
            "oras attach --plain-http {subject} sbom.json:application/json --artifact-type application/spdx+json --annotation \
             {CREATED}"
        ));
        let listed = json(&bench.ok(&["referrers", "--json", &subject]));
        assert_eq!(listed["referrers"].as_array().unwrap().len(), 1, "{name}: {listed:#}");
        peers.ok(&format!("oras pull --plain-http {host}/app@{ours} -o attached-{name}"));
        assert_eq!(read(peers.path(&format!("attached-{name}/sbom.json"))), "{}");
        peers.ok(&format!("crane manifest {host}/app@{ours}"));
    }
}

#[test]
fn regctl_reads_and_writes_the_same_artifacts() {
    let Some(peers) = Peers::find(&["regctl", "olareg"]) else { return };
    let (bench, registry) = (bench(), peers.olareg());
    let host = local(&registry);
    peers.ok(&format!("regctl registry set --tls disabled {host}"));
    let at = |tag: &str| format!("{host}/files:{tag}");
    write(&bench, &peers, "a.txt", "a");
    bench.ok(&["artifact", "push", &at("ours"), "a.txt:text/plain", "--artifact-type", "a/b"]);
    assert_eq!(peers.ok(&format!("regctl artifact get {}", at("ours"))), "a");
    peers.ok(&format!(
        "regctl artifact put --artifact-type a/b --file a.txt --file-media-type text/plain --file-title {}",
        at("regctl")
    ));
    bench.ok(&["artifact", "pull", &at("regctl"), "-o", "out"]);
    assert_eq!(read(bench.path("out/a.txt")), "a");
    let layers = |tag: &str| json(&bench.ok(&["manifest", "get", &at(tag)]))["layers"].clone();
    assert_eq!(layers("ours"), layers("regctl"));
}

#[test]
fn charts_and_modules_have_the_media_types_of_helm_and_the_wasm_group() {
    let Some(peers) = Peers::find(&["oras", "regctl", "crane", "registry"]) else { return };
    let (bench, registry) = (bench(), peers.distribution("registry"));
    let host = local(&registry);
    peers.ok(&format!("regctl registry set --tls disabled {host}"));
    write(&bench, &peers, "Chart.json", r#"{"name":"app","version":"1.0.0","apiVersion":"v2"}"#);
    write(&bench, &peers, "app-1.0.0.tgz", "chart");
    write(&bench, &peers, "app.wasm", "\0asm");
    for (repository, file, file_type, config_type, kind) in [
        (
            "chart",
            "app-1.0.0.tgz",
            "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
            "application/vnd.cncf.helm.config.v1+json",
            "helm-chart",
        ),
        ("module", "app.wasm", "application/wasm", "application/vnd.wasm.config.v0+json", "wasm"),
    ] {
        let at = |tag: &str| format!("{host}/{repository}:{tag}");
        let (layer, config) = (format!("{file}:{file_type}"), format!("Chart.json:{config_type}"));
        bench.ok(&["artifact", "push", &at("1.0.0"), &layer, "--config", &config, "-a", CREATED]);
        peers.ok(&format!("oras push --plain-http --annotation {CREATED} {} {layer} --config {config}", at("oras")));
        assert_eq!(bench.ok(&["digest", &at("1.0.0")]), bench.ok(&["digest", &at("oras")]), "{repository}");
        assert_eq!(bench.ok(&["kind", &at("oras")]), kind);
        peers.ok(&format!("oras pull --plain-http {} -o pulled-{repository}", at("1.0.0")));
        assert_eq!(read(peers.path(&format!("pulled-{repository}/{file}"))), read(bench.path(file)));
        let manifest = json(&peers.ok(&format!("crane manifest {}", at("1.0.0"))));
        assert_eq!(manifest["config"]["mediaType"], config_type);
        assert_eq!(manifest, json(&peers.ok(&format!("regctl manifest get --format raw-body {}", at("1.0.0")))));
    }
}

#[test]
fn a_layout_of_artifacts_goes_both_ways() {
    let Some(peers) = Peers::find(&["oras"]) else { return };
    let bench = bench();
    write(&bench, &peers, "a.txt", "a");
    bench.ok(&["artifact", "push", "oci:layout:ours", "a.txt", "-a", CREATED]);
    let layout = bench.path("layout").display().to_string();
    peers.ok(&format!("oras push --oci-layout {layout}:oras a.txt --annotation {CREATED}"));
    assert_eq!(bench.ok(&["digest", "oci:layout:ours"]), bench.ok(&["digest", "oci:layout:oras"]));
    peers.ok(&format!("oras pull --oci-layout {layout}:ours -o out"));
    assert_eq!(read(peers.path("out/a.txt")), "a");
    bench.ok(&["artifact", "push", "archive.tar#1", "a.txt", "-a", CREATED]);
    peers.ok(&format!("oras pull --oci-layout {}:1 -o out2", bench.path("archive.tar").display()));
    assert_eq!(read(peers.path("out2/a.txt")), "a");
}
