//! The image that `build` makes, with a real BuildKit: the compression of its layers, and the policy that it has to pass.

use std::fs;

use ocikit_server::{Action, Fault, Point, Reply};
use ocikit_tests::{Bench, Peers, Registry};
use serde_json::json;

use super::build::{BUILDERS, build, built, context, shell};
use crate::bench;

/// Returns the media types of the layers of an image.
fn layer_types(bench: &Bench, location: &str) -> Vec<String> {
    let manifest = bench.json(&["manifest", "get", location]);
    let layers = manifest["layers"].as_array().unwrap_or_else(|| panic!("{manifest}"));
    layers.iter().map(|layer| layer["mediaType"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn layers_are_compressed_while_they_arrive() {
    let Some(peers) = Peers::find(&[&BUILDERS[..], &["crane", "registry"]].concat()) else { return };
    let bench = bench().with("SOURCE_DATE_EPOCH", "1700000000");
    let registry = peers.distribution("registry");
    shell(&bench, "app", &["echo one > /one", "!COPY file /file"]);
    bench.write("app/file", ocikit_image::testing::random(7, 700_000));
    built(&bench, &["app", "-o", "plain.tar"]);
    let diff_ids = |location: &str| bench.json(&["config", location])["rootfs"]["diff_ids"].clone();
    let expected = diff_ids("plain.tar");
    let gzip = "application/vnd.oci.image.layer.v1.tar+gzip";
    for (name, compression, media_type) in [
        ("zstd", "zstd", "application/vnd.oci.image.layer.v1.tar+zstd"),
        ("zstd-19", "zstd:19", "application/vnd.oci.image.layer.v1.tar+zstd"),
        ("gzip-9", "gzip:9", gzip),
        ("gzip", "gzip", gzip),
        ("tar", "uncompressed", "application/vnd.oci.image.layer.v1.tar"),
    ] {
        let (archive, again) = (format!("{name}.tar"), format!("{name}-again.tar"));
        let tag = format!("{}/app:{name}", registry.address);
        built(&bench, &["app", "--compression", compression, "-o", &archive, "--tag", &tag, "--push"]);
        assert_eq!(layer_types(&bench, &archive), [media_type; 3], "{name}");
        assert_eq!(diff_ids(&archive), expected, "{name}");
        assert_eq!(bench.ok(&["digest", &archive]), bench.ok(&["digest", &tag]), "{name}");
        bench.ok(&["validate", &archive]);
        bench.ok(&["validate", &tag]);
        let archive = bench.path(&archive);
        peers.ok(&format!("skopeo copy oci-archive:{} dir:{name}", archive.display()));
        if media_type == gzip {
            peers.ok(&format!("crane validate --insecure --remote {tag}"));
        } else {
            // crane cannot decompress zstd.
            peers.ok(&format!("crane manifest --insecure {tag}"));
        }
        built(&bench, &["app", "--compression", compression, "-o", &again, "--tag", &tag]);
        assert!(fs::read(archive).unwrap() == fs::read(bench.path(&again)).unwrap(), "{name}: other bytes");
    }
    for wrong in ["zstd:20", "gzip:0", "lzma", "uncompressed:1"] {
        let outcome = build(&bench, &["app", "--compression", wrong]);
        assert!(outcome.code == 2 && !outcome.stderr.contains("DONE"), "{wrong}: {outcome}");
    }
}

#[test]
fn compressed_layers_of_several_platforms_keep_their_attestations() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let bench = bench();
    context(&bench.path("app"));
    bench.write("app/Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY file /$TARGETARCH\n");
    let line = [
        "app",
        "--platform",
        "linux/amd64,linux/arm64",
        "--compression",
        "zstd",
        "--provenance=mode=max",
        "--tag",
        "acme/app:1",
    ];
    built(&bench, &[&line[..], &["-o", "app.tar", "-o", "docker-archive:one.tar"]].concat());
    bench.ok(&["validate", "app.tar"]);
    let index = bench.json(&["manifest", "get", "app.tar"]);
    let entries = index["manifests"].as_array().unwrap();
    let images: Vec<_> = entries.iter().filter(|entry| entry["platform"]["os"] == "linux").collect();
    assert_eq!((images.len(), entries.len()), (2, 4), "{index}");
    for attestation in entries.iter().filter(|entry| entry["platform"]["os"] != "linux") {
        let image = attestation["annotations"]["vnd.docker.reference.digest"].as_str().unwrap();
        assert!(images.iter().any(|entry| entry["digest"] == image), "{index}");
        let place = format!("app.tar@{}", attestation["digest"].as_str().unwrap());
        let manifest = bench.json(&["blob", "get", &place]);
        let statement = format!("app.tar@{}", manifest["layers"][0]["digest"].as_str().unwrap());
        let statement = bench.json(&["blob", "get", &statement]);
        assert_eq!(statement["subject"][0]["digest"]["sha256"], image.trim_start_matches("sha256:"), "{statement}");
    }
    bench.ok(&["validate", "one.tar"]);
}

#[test]
fn a_compressed_layer_that_cannot_be_stored_leaves_nothing() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let bench = bench();
    shell(&bench, "app", &["echo one > /one"]);
    let registry = Registry::for_user("alice", "s3cret");
    let tag = format!("{}/app:1", registry.name());
    let outcome = build(&bench, &["app", "--compression", "zstd", "--tag", &tag, "--push"]);
    assert_eq!(outcome.code, 4, "{outcome}");
}

#[test]
fn buildkit_uploads_the_layers_and_no_tag() {
    let Some(peers) = Peers::find(&[&BUILDERS[..], &["crane", "registry"]].concat()) else { return };
    let bench = bench().with("GIT_SHA", "6c22711").with("OCIKIT_KEY_PASSWORD", "");
    let registry = peers.distribution("registry");
    shell(&bench, "app", &["echo one > /one"]);
    bench.ok(&["keygen", "--output", "k"]);
    let names = bench.names();
    let key = |end: &str| names.iter().find(|name| name.ends_with(end)).unwrap().clone();
    let tags = ["1", "2"].map(|tag| format!("{}/acme/app:{tag}", registry.address));
    let line = ["app", "--push", "--push-by-buildkit", "--tag", &tags[0], "--tag", &tags[1], "--digest-file", "digest"];
    let outcome = built(&bench, &[&line[..], &["--key", &key(".key")]].concat());
    for tag in &tags {
        assert_eq!(peers.ok(&format!("crane digest --insecure {tag}")), outcome.stdout.trim());
        peers.ok(&format!("crane validate --insecure --remote {tag}"));
        bench.ok(&["validate", tag]);
        bench.ok(&["verify", "--key", &key(".pub"), tag]);
        let facts = bench.json(&["inspect", "--json", tag]);
        assert_eq!(facts["annotations"]["org.opencontainers.image.revision"], "6c22711", "{facts}");
    }
    assert_eq!(bench.read("digest").trim(), outcome.stdout.trim());
    // Several platforms make an index.
    let index = format!("{}/acme/app:index", registry.address);
    bench.write("app/Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY file /$TARGETARCH\n");
    let platforms = ["--platform", "linux/amd64,linux/arm64"];
    built(&bench, &[&["app", "--push", "--push-by-buildkit", "--tag", &index], &platforms[..]].concat());
    bench.ok(&["validate", &index]);
    assert_eq!(bench.json(&["inspect", "--json", &index])["kind"], "index");
    // A build that fails, and an upload that fails, leave no tag.
    bench.write("app/Dockerfile", "FROM scratch\nCOPY gone /gone\n");
    let failed = format!("{}/acme/app:failed", registry.address);
    assert_eq!(build(&bench, &["app", "--push", "--push-by-buildkit", "--tag", &failed]).code, 1);
    let open = format!("{}/other:1", registry.address);
    assert!(!bench.ok(&["tags", &format!("{}/acme/app", registry.address)]).contains("failed"));
    let several = build(&bench, &["app", "--push", "--push-by-buildkit", "--tag", &failed, "--tag", &open]);
    assert!(several.code == 2 && !several.stderr.contains("DONE"), "{several}");
}

#[test]
fn buildkit_uploads_with_the_credential_of_the_command() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let bench = bench();
    shell(&bench, "app", &["echo one > /one"]);
    let guarded = Registry::for_user("alice", "s3cret");
    let tag = |name: &str| format!("{}/app:{name}", guarded.name());
    let push = ["app", "--push", "--push-by-buildkit", "--tag"];
    let config = json!({ "auths": { guarded.name(): { "auth": "YWxpY2U6czNjcmV0" } } });
    bench.write("auth.json", config.to_string());
    built(&bench, &[&push[..], &[&tag("file"), "--authfile", "auth.json"]].concat());
    let bench = bench.with("OCIKIT_USERNAME", "alice").with("OCIKIT_PASSWORD", "s3cret");
    built(&bench, &[&push[..], &[&tag("environment")]].concat());
    let tags = |bench: &Bench| bench.ok(&["tags", &format!("{}/app", guarded.name()), "--authfile", "auth.json"]);
    let before = tags(&bench);
    assert!(before.contains("environment") && before.contains("file"), "{before}");
    // The exit codes are those of an upload from here.
    let nowhere = build(&bench, &[&push[..], &["localhost:1/app:1"]].concat());
    assert_eq!(nowhere.code, 6, "{nowhere}");
    let bench = bench.with("OCIKIT_PASSWORD", "wr0ng");
    let denied = build(&bench, &[&push[..], &[&tag("denied")]].concat());
    assert_eq!(denied.code, 4, "{denied}");
    assert!(denied.stderr.contains("BuildKit cannot push to") && !denied.stderr.contains("wr0ng"), "{denied}");
    assert_eq!(tags(&bench.with("OCIKIT_PASSWORD", "s3cret")), before);
}

#[test]
fn an_upload_of_buildkit_that_a_registry_breaks_off_leaves_no_tag() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let bench = bench();
    shell(&bench, "app", &["/busybox dd if=/dev/urandom of=/large bs=1M count=8"]);
    for (kind, action, code) in [
        ("PUT /v2/app/blobs/uploads/*", Action::Cut(Point::RequestBody(1 << 20)), 6),
        ("PUT /v2/app/blobs/uploads/*", Action::Answer(Reply::status(503)), 6),
        ("PUT /v2/app/manifests/*", Action::Answer(Reply::status(403)), 4),
        ("PUT /v2/app/manifests/*", Action::Answer(Reply::status(400)), 1),
    ] {
        let registry = Registry::start();
        registry.faults().add(Fault::on(kind, action.clone()));
        let tag = format!("{}/app:1", registry.name());
        let outcome = build(&bench, &["app", "--push", "--push-by-buildkit", "--tag", &tag]);
        assert_eq!(outcome.code, code, "{kind} {action:?}: {outcome}");
        assert!(outcome.stderr.contains("BuildKit cannot push to") && outcome.stdout.is_empty(), "{outcome}");
        assert_eq!(registry.verified_digest("app", "1"), None);
    }
}

#[test]
fn the_result_must_pass_its_policy() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let bench = bench().with("OCIKIT_KEY_PASSWORD", "").with("SOURCE_DATE_EPOCH", "1700000000");
    let registry = Registry::start();
    shell(&bench, "app", &["echo one > /one"]);
    for name in ["k", "other"] {
        bench.ok(&["keygen", "--output", name]);
    }
    let names = bench.names();
    let find = |start: &str, end: &str| {
        names.iter().find(|name| name.starts_with(start) && name.ends_with(end)).unwrap().clone()
    };
    let policy = format!(
        "version: 1\nsigners:\n  own: {{key: {}}}\nrules:\n  - {{scope: '*', require: [{{signers: [own]}}]}}\n",
        find("k", ".pub")
    );
    bench.write("policy.yaml", policy);
    let tag = format!("{}/app:1", registry.name());
    let line = ["app", "--tag", &tag, "--push", "-o", "app.tar", "--verify-result", "policy.yaml"];
    let (own, other) = (find("k", ".key"), find("other", ".key"));
    for key in [&[][..], &["--key", &other]] {
        let outcome = build(&bench, &[&line[..], key].concat());
        assert_eq!(outcome.code, 5, "{outcome}");
        assert!(outcome.stderr.contains("nothing was published"), "{outcome}");
        assert!(!bench.path("app.tar").exists());
        assert_eq!(bench.ocikit(&["digest", &tag]).code, 3);
    }
    for format in ["cosign", "cosign-legacy"] {
        built(&bench, &[&line[..], &["--key", &own, "--sign-format", format]].concat());
        bench.ok(&["verify", "--policy", "policy.yaml", &tag]);
    }
    // Also a result that a registry has with its signature.
    let push = ["app", "--tag", &tag, "--push", "--verify-result", "policy.yaml", "--key", &own];
    let (first, again) = (built(&bench, &push), built(&bench, &push));
    assert_eq!(first.stdout, again.stdout);
    // A policy that cannot be read fails before the build.
    bench.write("policy.yaml", "version: 7\n");
    let outcome = build(&bench, &line);
    assert!(outcome.code != 0 && !outcome.stderr.contains("DONE"), "{outcome}");
}
