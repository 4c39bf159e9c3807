//! The statements FP-1 to FP-15 about `fastpull` and `build --lazy`, with a real BuildKit and registries of others.
//! `tests/it/lazy.rs` and `tests/it/lazy_publish.rs` have those that need none.

use std::fs;

use ocikit_image::testing::random;
use ocikit_server::{Action, Fault, Reply};
use ocikit_tests::{Bench, Daemon, Outcome, Peers, Registry, json};
use serde_json::{Value, json};

use super::build::{BUILDERS, EVERY_INPUT, build, built, check_every_input, context, shell, with_every_input};
use crate::bench;

const BLOB: &str = "application/vnd.oci.image.layer.nydus.blob.v1";

/// Runs `fastpull` as its container does: with the context in `workspace` and no further configuration.
fn fastpull(bench: Bench, image: &str, more: &[&str]) -> (Bench, Outcome) {
    let workspace = bench.path("workspace").display().to_string();
    let bench = bench.with("CONTEXT_PATH", &workspace);
    let outcome = bench.ocikit(&[&["fastpull", image, "--no-cache-directory"], more].concat());
    (bench, outcome)
}

/// Writes a context with metadata-only layers, hard links, a whiteout and a large file.
fn workspace(bench: &Bench) {
    shell(
        bench,
        "workspace",
        &[
            "/busybox mkdir /data; echo one > /data/one; /busybox ln /data/one /data/link; echo gone > /gone",
            "!COPY noise /noise",
            "/busybox ln -s /data/one /symlink",
            "/busybox rm /gone",
        ],
    );
    bench.write("workspace/noise", random(1, 300_000));
}

fn daemon_name(registry: &Daemon) -> String {
    registry.address.replace("127.0.0.1", "localhost")
}

/// FP-1: both tags exist in a registry of others, and both digests are printed and written to a report.
#[test]
fn fp_01_both_tags_exist_and_both_digests_are_printed() {
    let Some(peers) = Peers::find(&[&BUILDERS[..], &["registry", "olareg", "crane"]].concat()) else { return };
    for (_, daemon) in peers.registries() {
        let bench = bench();
        workspace(&bench);
        let image = format!("{}/acme/app:v1", daemon_name(&daemon));
        let (bench, outcome) = fastpull(bench, &image, &["--metadata-file", "report.json"]);
        assert_eq!(outcome.code, 0, "{outcome}");
        let lazy = format!("{image}-fastpull");
        let digests = [&image, &lazy].map(|tag| peers.ok(&format!("crane digest --insecure {tag}")).trim().to_owned());
        assert_eq!(outcome.stdout.lines().collect::<Vec<_>>(), digests, "{outcome}");
        let report = json(&bench.read("report.json"));
        assert_eq!(report["containerimage.digest"], digests[0].as_str());
        assert_eq!(report["ocikit.lazy"][0]["digests"][0], digests[1].as_str());
        assert_eq!(report["ocikit.lazy"][0]["targets"][0]["target"], lazy.as_str());
    }
}

/// FP-2: a port is no tag; a digest or an empty tag is an error before the build.
#[test]
fn fp_02_a_name_without_a_tag_is_latest() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let registry = Registry::start();
    let mut bench = bench();
    workspace(&bench);
    let name = registry.name();
    for (image, tags) in [("app", "latest\nlatest-fastpull"), ("other:v1", "v1\nv1-fastpull")] {
        let (again, outcome) = fastpull(bench, &format!("{name}/{image}"), &[]);
        assert_eq!(outcome.code, 0, "{outcome}");
        let repository = image.split(':').next().unwrap();
        assert_eq!(again.ok(&["tags", &format!("{name}/{repository}")]), tags);
        bench = again;
    }
    registry.clear_requests();
    let digest = format!("{name}/app@sha256:{}", "a".repeat(64));
    for wrong in [digest.as_str(), &format!("{name}/app:"), &format!("{name}/APP"), ""] {
        let (again, outcome) = fastpull(bench, wrong, &[]);
        assert!(outcome.code == 2 && !outcome.stderr.contains("DONE"), "{wrong}: {outcome}");
        bench = again;
    }
    assert_eq!(registry.requests().len(), 0);
}

/// FP-3, FP-4, FP-5, FP-6 and FP-15 for an image of a real build.
#[test]
fn fp_03_to_06_and_15_the_nydus_image_of_a_build_is_the_plain_one() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let registry = Registry::start();
    let bench = bench();
    workspace(&bench);
    let plain = format!("{}/app:v1", registry.name());
    let (bench, outcome) = fastpull(bench, &plain, &[]);
    assert_eq!(outcome.code, 0, "{outcome}");
    let lazy = format!("{plain}-fastpull");
    let manifest = json(&bench.ok(&["manifest", "get", &lazy]));
    let layers = manifest["layers"].as_array().unwrap();
    let (bootstrap, blobs) = layers.split_last().unwrap();
    // FP-3.
    for blob in blobs {
        assert_eq!(
            (&blob["mediaType"], &blob["annotations"]["containerd.io/snapshot/nydus-blob"]),
            (&BLOB.into(), &"true".into())
        );
    }
    assert_eq!(bootstrap["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
    let annotation = |name: &str| bootstrap["annotations"][format!("containerd.io/snapshot/nydus-{name}")].clone();
    assert_eq!((annotation("bootstrap"), annotation("fs-version")), ("true".into(), "6".into()));
    let config = json(&bench.ok(&["config", &lazy]));
    assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), layers.len());
    // FP-6: the symlink and the whiteout have no contents, so their blobs are not listed.
    let plain_manifest = json(&bench.ok(&["manifest", "get", &plain]));
    let plain_layers = plain_manifest["layers"].as_array().unwrap().len();
    assert_eq!(blobs.len(), plain_layers - 2, "{manifest}");
    // FP-4: files and config.
    bench.ok(&["convert", "--to", "plain", &lazy, "-o", "oci:back:1"]);
    let listed = |image: &str| bench.ok(&["ls", image]);
    assert_eq!(listed("oci:back:1"), listed(&plain));
    assert!(!listed("oci:back:1").contains("gone"));
    assert_eq!(bench.ok(&["cat", "oci:back:1", "/data/one"]), bench.ok(&["cat", &plain, "/data/one"]));
    assert_eq!(config["config"], json(&bench.ok(&["config", &plain]))["config"]);
    // FP-5 and FP-15: the defaults are those of `convert`.
    let again = bench.ok(&["convert", "--to", "nydus", &plain, "-o", "oci:again:1"]);
    assert_eq!(again, bench.ok(&["digest", &lazy]));
    for (version, compressor) in [("5", "lz4_block"), ("6", "none")] {
        let suffix = format!("--lazy-suffix=-v{version}");
        let line = ["workspace", "--tag", &plain, "--push", "--lazy", "nydus", &suffix, "--rafs-version", version];
        built(&bench, &[&line[..], &["--compressor", compressor]].concat());
        let other = format!("{plain}-v{version}");
        let manifest = json(&bench.ok(&["manifest", "get", &other]));
        let last = manifest["layers"].as_array().unwrap().last().unwrap().clone();
        assert_eq!(last["annotations"]["containerd.io/snapshot/nydus-fs-version"], version);
        bench.ok(&["convert", "--to", "plain", &other, "-o", "oci:other:1"]);
        assert_eq!(listed("oci:other:1"), listed(&plain));
    }
}

/// FP-7 and FP-14: every platform is converted, also one that is not that of this machine, or one index holds all.
#[test]
fn fp_07_and_14_every_platform_is_converted() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let registry = Registry::start();
    let bench = bench();
    context(&bench.path("app"));
    bench.write("app/Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY file /$TARGETARCH\n");
    let plain = format!("{}/app:v1", registry.name());
    let platforms = ["--platform", "linux/amd64,linux/arm64"];
    built(&bench, &[&["app", "--tag", &plain, "--push", "--lazy", "nydus"], &platforms[..]].concat());
    let lazy = format!("{plain}-fastpull");
    let index = json(&bench.ok(&["manifest", "get", &lazy]));
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2, "{index}");
    for architecture in ["amd64", "arm64"] {
        let platform = format!("linux/{architecture}");
        let manifest = bench.ok(&["manifest", "get", &lazy, "--platform", &platform]);
        assert!(manifest.contains(BLOB), "{manifest}");
        bench.ok(&["convert", "--to", "plain", "--platform", &platform, &lazy, "-o", "oci:back:1"]);
        assert_eq!(bench.ok(&["cat", "--platform", &platform, "oci:back:1", &format!("/{architecture}")]), "one");
    }
    let merged = format!("{}/app:merged", registry.name());
    let place = ["--lazy", "nydus", "--lazy-placement", "index", "-o", "oci:layout:merged", "-o", "app.tar"];
    let line = [&["app", "--tag", &merged, "--push", "--digest-file", "digest"], &place[..], &platforms].concat();
    built(&bench, &line);
    for place in [merged.as_str(), "oci:layout:merged", "app.tar"] {
        let index = json(&bench.ok(&["manifest", "get", place]));
        let features = index["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["platform"]["os.features"][0].as_str().unwrap_or_default().to_owned());
        assert_eq!(features.collect::<Vec<_>>(), ["", "", "nydus.remoteimage.v1", "nydus.remoteimage.v1"], "{index}");
        assert_eq!(bench.ok(&["digest", place]), bench.read("digest").trim());
        bench.ok(&["validate", place]);
    }
}

/// FP-8 and FP-11: after a failed conversion the plain tag exists, the other one is neither created nor moved, and the exit
/// code is not 0.
#[test]
fn fp_08_and_11_a_failed_conversion_leaves_the_plain_image_only() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let registry = Registry::start();
    let bench = bench();
    context(&bench.path("app"));
    bench.write("app/Dockerfile", "FROM scratch\nCOPY file /file\n");
    let plain = format!("{}/app:v1", registry.name());
    // The layer is too small for SOCI.
    let line = ["app", "--tag", &plain, "--push", "-o", "app.tar", "--lazy", "soci"];
    let outcome = build(&bench, &[&line[..], &["--json"]].concat());
    assert_eq!(outcome.code, 7, "{outcome}");
    assert!(
        outcome.stderr.contains("v1-fastpull") && outcome.stderr.contains("the plain image is complete"),
        "{outcome}"
    );
    let result = json(&outcome.stdout);
    assert_eq!(result["targets"].as_array().unwrap().len(), 2, "{result}");
    assert_eq!(result["lazy"], Value::Null);
    assert_eq!(bench.ok(&["tags", &format!("{}/app", registry.name())]), "v1");
    assert_eq!(bench.names().iter().filter(|name| name.contains("tar")).count(), 1, "{:?}", bench.names());
    // One that exists stays.
    bench.ok(&["copy", &plain, &format!("{plain}-fastpull")]);
    let before = bench.ok(&["digest", &format!("{plain}-fastpull")]);
    bench.write("app/file", "two\n");
    assert_eq!(build(&bench, &line).code, 7);
    assert_eq!(bench.ok(&["digest", &format!("{plain}-fastpull")]), before);
    assert_ne!(bench.ok(&["digest", &plain]), before);
    // The digest of a lazy image that is nowhere is no result.
    registry.faults().add(Fault::on("PUT /v2/app/manifests/v1-fastpull", Action::Answer(Reply::status(507))));
    let line = ["app", "--tag", &plain, "--push", "--lazy", "nydus", "--retries", "0", "--json"];
    let outcome = build(&bench, &line);
    registry.faults().clear();
    assert_eq!(outcome.code, 7, "{outcome}");
    assert_eq!(json(&outcome.stdout)["lazy"], Value::Null, "{outcome}");
    // A build that fails has no tag at all.
    bench.write("app/Dockerfile", "FROM scratch\nCOPY gone /\n");
    let other = format!("{}/other:v1", registry.name());
    assert_eq!(build(&bench, &["app", "--tag", &other, "--push", "--lazy", "nydus"]).code, 1);
    assert_eq!(bench.ocikit(&["digest", &other]).code, 3);
}

/// FP-9: an image that others pushed is converted without a Dockerfile, and a second conversion changes nothing.
#[test]
fn fp_09_a_pushed_image_is_converted_from_the_registry_alone() {
    let Some(peers) = Peers::find(&[&BUILDERS[..], &["registry", "olareg", "crane"]].concat()) else { return };
    let bench = bench();
    workspace(&bench);
    built(&bench, &["workspace", "-o", "app.tar"]);
    for (_, daemon) in peers.registries() {
        let image = format!("{}/acme/app:v1", daemon_name(&daemon));
        let archive = bench.path("app.tar").display().to_string();
        peers.ok(&format!("skopeo copy --dest-tls-verify=false oci-archive:{archive} docker://{image}"));
        let converted = bench.ok(&["convert", "--to", "nydus", "--suffix", &image]);
        let lazy = format!("{image}-fastpull");
        assert_eq!(peers.ok(&format!("crane digest --insecure {lazy}")).trim(), converted);
        assert_eq!(bench.ok(&["convert", "--to", "nydus", &lazy]), converted);
        bench.ok(&["validate", &lazy]);
    }
}

/// FP-10: the configuration of docker is enough; a missing credential helper is named with its registry.
#[test]
fn fp_10_the_credentials_of_docker_push_both_images() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let registry = Registry::for_user("alice", "s3cret");
    let bench = bench();
    workspace(&bench);
    let docker = bench.path("docker");
    fs::create_dir(&docker).unwrap();
    let bench = bench.with("DOCKER_CONFIG", &docker.display().to_string());
    let write = |config: Value| fs::write(docker.join("config.json"), config.to_string()).unwrap();
    write(json!({ "auths": { registry.name(): { "auth": "YWxpY2U6czNjcmV0" } } }));
    let image = format!("{}/app:1", registry.name());
    let (bench, outcome) = fastpull(bench, &image, &[]);
    assert_eq!(outcome.code, 0, "{outcome}");
    assert_eq!(bench.ok(&["tags", &format!("{}/app", registry.name())]), "1\n1-fastpull");
    write(json!({ "credHelpers": { registry.name(): "no-such-helper" } }));
    let (_bench, outcome) = fastpull(bench, &image, &[]);
    assert_eq!(outcome.code, 4, "{outcome}");
    assert!(
        outcome.stderr.contains("helper `no-such-helper`") && outcome.stderr.contains(&registry.name()),
        "{outcome}"
    );
}

/// FP-12: eStargz layers have their table of contents, and a SOCI index is found through the image.
#[test]
fn fp_12_other_formats_are_what_they_say() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let registry = Registry::start();
    let bench = bench();
    workspace(&bench);
    let plain = format!("{}/app:v1", registry.name());
    let formats = ["--lazy", "estargz,soci,zstd-chunked", "--lazy-suffix=-{format}", "--min-layer-size", "1"];
    built(&bench, &[&["workspace", "--tag", &plain, "--push"], &formats[..]].concat());
    let layers = |suffix: &str| {
        json(&bench.ok(&["manifest", "get", &format!("{plain}-{suffix}")]))["layers"].as_array().unwrap().clone()
    };
    for (suffix, key) in [
        ("estargz", "containerd.io/snapshot/stargz/toc.digest"),
        ("zstd-chunked", "io.github.containers.zstd-chunked.manifest-checksum"),
    ] {
        assert!(layers(suffix).iter().all(|layer| layer["annotations"][key].is_string()), "{suffix}");
    }
    let index = json(&bench.ok(&["manifest", "get", &format!("{plain}-soci")]));
    assert_eq!(index["manifests"][1]["artifactType"], "application/vnd.amazon.soci.index.v2+json", "{index}");
    // As referrers, which leave the image as it is.
    let line = ["workspace", "--tag", &plain, "--push", "--lazy", "soci,nydus", "--lazy-placement", "referrer"];
    let outcome = built(&bench, &[&line[..], &["--min-layer-size", "1", "--json"]].concat());
    let result = json(&outcome.stdout);
    assert_eq!(result["digest"], bench.ok(&["digest", &plain]).as_str());
    let referrers = bench.ok(&["referrers", &plain]);
    assert!(referrers.contains("application/vnd.amazon.soci.index.v1+json"), "{referrers}");
    for lazy in result["lazy"].as_array().unwrap() {
        assert!(referrers.contains(lazy["digests"][0].as_str().unwrap()), "{referrers} {result}");
    }
}

/// FP-13: Dockerfile, target, build arguments, secrets and platforms reach BuildKit in one solve, whatever the number of
/// formats.
#[test]
fn fp_13_all_inputs_reach_buildkit_once() {
    let Some(peers) = Peers::find(&BUILDERS) else { return };
    let registry = Registry::start();
    let bench = with_every_input(bench(), &peers, "workspace").with("DOCKERFILE", "Dockerfile.custom");
    let image = format!("{}/app:v1", registry.name());
    let formats = ["--lazy", "nydus,estargz", "--lazy-suffix=-{format}"];
    let (bench, outcome) = fastpull(bench, &image, &[&EVERY_INPUT[..], &formats].concat());
    assert_eq!(outcome.code, 0, "{outcome}");
    assert_eq!(bench.ok(&["tags", &format!("{}/app", registry.name())]), "v1\nv1-estargz\nv1-nydus");
    assert!(bench.ok(&["ls", "--platform", "linux/arm64", &format!("{image}-estargz")]).contains("hello"));
    check_every_input(&bench);
}

/// Archives and layouts get the lazily pulled image too, signed like the plain one.
#[test]
fn archives_and_layouts_have_lazy_images_beside_the_plain_ones() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let bench = bench().with("OCIKIT_KEY_PASSWORD", "");
    workspace(&bench);
    bench.ok(&["keygen", "--output", "k"]);
    let names = bench.names();
    let key = |ending: &str| names.iter().find(|name| name.ends_with(ending)).unwrap().clone();
    let line = ["workspace", "-o", "app.tar", "-o", "oci:layout:v1", "--lazy", "nydus", "--annotation", "team=web"];
    built(&bench, &[&line[..], &["--key", &key(".key")]].concat());
    for place in ["app-fastpull.tar", "oci:layout:v1-fastpull"] {
        let manifest = json(&bench.ok(&["manifest", "get", place]));
        assert_eq!(
            (&manifest["layers"][0]["mediaType"], &manifest["annotations"]["team"]),
            (&BLOB.into(), &"web".into())
        );
        bench.ok(&["verify", "--key", &key(".pub"), place]);
    }
    for place in ["docker-archive:a.tar", "-", "oci:other"] {
        let outcome = build(&bench, &["workspace", "-o", place, "--lazy", "nydus"]);
        assert!(outcome.code == 2 && outcome.stderr.contains("cannot write a lazily pulled image"), "{outcome}");
    }
}
