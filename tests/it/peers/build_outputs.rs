//! What `build` writes and leaves behind, with a real BuildKit: several outputs, failures, policies, growth of the cache.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use ocikit_tests::{Peers, Registry};
use serde_json::{Value, json};

use super::build::{BUILDERS, EVERY_INPUT, build, built, check_every_input, context, shell, with_every_input};
use crate::bench;

/// FP-1 and FP-2, as far as they are about ordinary images.
#[test]
fn fp_1_and_2_tags_are_references() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let (bench, registry) = (bench(), Registry::start());
    shell(&bench, "app", &["echo one > /one"]);
    let name = registry.name();
    let (untagged, tagged) = (format!("{name}/app"), format!("{name}/app:v1"));
    let outcome = built(&bench, &["app", "--tag", &untagged, "--tag", &tagged, "--push", "--json"]);
    let result = outcome.json();
    let targets = result["targets"].as_array().unwrap();
    assert_eq!(targets.len(), 2, "{result}");
    assert_eq!(bench.ok(&["tags", &untagged]), "latest\nv1");
    for target in targets {
        assert_eq!(target["digest"], result["digest"], "{result}");
        let named = target["target"].as_str().unwrap();
        assert_eq!(bench.ok(&["digest", named]), result["digest"].as_str().unwrap());
    }
    let digest = format!("{name}/app@{}", result["digest"].as_str().unwrap());
    for wrong in [digest.as_str(), &format!("{name}/app:"), &format!("{name}/APP:1"), ""] {
        let outcome = build(&bench, &["app", "--tag", wrong, "--push"]);
        assert!(outcome.code == 2 && !outcome.stderr.contains("DONE"), "{wrong}: {outcome}");
    }
}

#[test]
fn fp_8_and_11_a_target_that_fails_is_reported() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let (bench, good, guarded) = (bench(), Registry::start(), Registry::for_user("alice", "s3cret"));
    shell(&bench, "app", &["echo one > /one"]);
    let (one, two) = (format!("{}/app:1", good.name()), format!("{}/app:1", guarded.name()));
    let line = ["app", "--tag", &one, "--tag", &two, "--push", "--digest-file", "digest", "--json"];
    let outcome = build(&bench, &line);
    assert_eq!(outcome.code, 7, "{outcome}");
    let result = outcome.json();
    assert_eq!(result["targets"][0]["target"], one.as_str(), "{result}");
    assert_eq!(result["targets"].as_array().unwrap().len(), 1, "{result}");
    assert!(outcome.stderr.contains(&two), "{outcome}");
    bench.ok(&["digest", &one]);
    assert!(!bench.path("digest").exists(), "it is written only if every output succeeded");
    let alone = build(&bench, &["app", "--tag", &two, "--push"]);
    assert_eq!(alone.code, 4, "{alone}");
}

#[test]
fn fp_10_credentials_of_docker_are_used() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let registry = Registry::for_user("alice", "s3cret");
    let bench = bench();
    let docker = bench.path("docker");
    fs::create_dir(&docker).unwrap();
    let bench = bench.with("DOCKER_CONFIG", &docker.display().to_string());
    shell(&bench, "app", &["echo one > /one"]);
    let write = |config: Value| fs::write(docker.join("config.json"), config.to_string()).unwrap();
    let tag = format!("{}/app:1", registry.name());
    write(json!({ "auths": { registry.name(): { "auth": "YWxpY2U6czNjcmV0" } } }));
    built(&bench, &["app", "--tag", &tag, "--push"]);
    // The credential is for base images too, which BuildKit pulls.
    context(&bench.path("on"));
    bench.write("on/Dockerfile", format!("FROM {tag}\nCOPY file /file\n"));
    built(&bench, &["on", "-o", "on.tar"]);
    write(json!({ "credHelpers": { registry.name(): "no-such-helper" } }));
    let outcome = build(&bench, &["app", "--tag", &tag, "--push"]);
    assert_eq!(outcome.code, 4, "{outcome}");
    assert!(outcome.stderr.contains("helper `no-such-helper`"), "{outcome}");
    assert!(outcome.stderr.contains(&registry.name()), "{outcome}");
}

#[test]
fn fp_13_all_inputs_reach_buildkit_in_one_solve() {
    let Some(peers) = Peers::find(&BUILDERS) else { return };
    let bench = with_every_input(bench(), &peers, "app");
    let outputs = ["-o", "app.tar", "-o", "oci:layout:1", "--tag", "acme/app:1"];
    built(&bench, &[&["app", "-f", "app/Dockerfile.custom"], &EVERY_INPUT[..], &outputs].concat());
    assert!(bench.ok(&["ls", "--platform", "linux/arm64", "app.tar"]).contains("hello"));
    check_every_input(&bench);
}

#[test]
fn a_base_image_of_ones_own_registry_is_built_on_without_emulation() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let (bench, registry) = (bench(), Registry::start());
    context(&bench.path("app"));
    let base = format!("{}/base:1", registry.name());
    bench.write("app/Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY file /base-$TARGETARCH\n");
    let platforms = ["--platform", "linux/amd64,linux/arm64,linux/s390x"];
    built(&bench, &[&["app", "--tag", &base, "--push"], &platforms[..]].concat());
    fs::write(bench.path("app/Dockerfile"), format!("FROM {base}\nARG TARGETARCH\nCOPY file /own-$TARGETARCH\n"))
        .unwrap();
    built(&bench, &[&["app", "-o", "app.tar"], &platforms[..]].concat());
    for architecture in ["amd64", "arm64", "s390x"] {
        let files = bench.ok(&["ls", "--platform", &format!("linux/{architecture}"), "app.tar"]);
        assert!(
            files.contains(&format!("base-{architecture}")) && files.contains(&format!("own-{architecture}")),
            "{files}"
        );
    }
    bench.ok(&["validate", "app.tar"]);
}

#[test]
fn plp_8_the_cache_does_not_grow_over_twenty_builds() {
    let Some(peers) = Peers::find(&BUILDERS) else { return };
    let address = format!("unix://{}", peers.path("bk.sock").display());
    let mut command = peers.command("buildkitd");
    command.arg("--root").arg(peers.path("bk")).args(["--addr", &address, "--oci-worker-snapshotter=native"]);
    command.arg(format!("--otel-socket-path={}", peers.path("otel.sock").display()));
    let mut daemon = ocikit_tests::Daemon::start(command, &peers.path("bk.log"));
    daemon.wait(|| peers.run(&format!("buildctl --addr {address} debug workers")).code == 0);
    let bench = bench();
    shell(&bench, "app", &["echo ran", "!COPY file /file"]);
    let cache = bench.path("cache");
    let to = format!("type=local,dest={},max-size=10m", cache.display());
    let size = || {
        let blobs = fs::read_dir(cache.join("blobs/sha256")).unwrap();
        blobs.map(|blob| blob.unwrap().metadata().unwrap().len()).sum::<u64>()
    };
    let mut sizes = Vec::new();
    for number in 0..20 {
        // Half of it is new in every build, and does not compress.
        let text = ocikit_image::testing::random(number, 50_000);
        bench.write("app/file", text);
        let outcome = bench.ocikit(&["build", "app", "--addr", &address, "-o", "app.tar", "--cache-to", &to]);
        assert_eq!(outcome.code, 0, "{outcome}");
        sizes.push(size());
    }
    let (first, last) = (sizes[0], sizes[19]);
    assert!(last < first + 20_000, "{sizes:?}");
    daemon.stop();
}

#[test]
fn a_docker_archive_beside_an_index_holds_one_platform() {
    let Some(peers) = Peers::find(&BUILDERS) else { return };
    let (bench, registry) = (bench(), Registry::start());
    fs::create_dir(bench.path("app")).unwrap();
    bench.write("app/one", ocikit_image::testing::random(1, 3000));
    bench.write("app/Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY . /$TARGETARCH/\n");
    let tag = format!("{}/app:1", registry.name());
    let outputs = ["-o", "docker-archive:docker.tar", "-o", "docker-archive:docker.tar.gz", "-o", "all.tar"];
    let line = ["app", "--tag", &tag, "--push", "--platform", "linux/amd64,linux/arm64"];
    built(&bench, &[&line[..], &outputs].concat());
    let expected = bench.ok(&["digest", "--platform", "linux/amd64", &tag]);
    for archive in ["docker.tar", "docker.tar.gz"] {
        // A manifest, a config and one layer.
        let list = peers.ok(&format!("tar -tf {}", bench.path(archive).display()));
        let blobs = list.lines().filter(|name| name.starts_with("blobs/sha256/") && name.len() > 20).count();
        assert_eq!(blobs, 3, "{archive}: {list}");
        assert_eq!(bench.ok(&["digest", archive]), expected, "{archive}");
        assert!(bench.ok(&["ls", archive]).contains("amd64"));
        bench.ok(&["validate", archive]);
    }
    assert_eq!(bench.ok(&["digest", "all.tar"]), bench.ok(&["digest", &tag]));
    // Alone, and for a single platform, nothing is written twice.
    built(&bench, &["app", "-o", "docker-archive:one.tar", "--platform", "linux/arm64"]);
    bench.ok(&["validate", "one.tar"]);
}

#[test]
fn a_failed_build_leaves_no_directory_and_names_its_log() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let bench = bench();
    let long = "i=0; while [ $i -lt 100 ]; do echo line-$i; i=$((i+1)); done; exit 7";
    shell(&bench, "app", &["echo one > /one", long]);
    let line = ["app", "-o", "oci:layout:v1", "-o", "oci:deep/er/layout:v1", "-o", "app.tar"];
    let outcome = build(&bench, &line);
    assert_eq!(outcome.code, 1, "{outcome}");
    assert_eq!(bench.names(), ["app"]);
    let log = outcome.stderr.lines().find_map(|line| line.trim().strip_prefix("full log: ")).expect("a path");
    let text = fs::read_to_string(log).unwrap();
    assert!(text.contains("line-0\n") && text.contains("line-99\n"), "{text}");
    assert_eq!(fs::metadata(log).unwrap().permissions().mode() & 0o777, 0o600);
    let logs = || fs::read_dir(bench.path("home/.cache/ocikit/logs")).unwrap().count();
    assert_eq!(logs(), 1);
    shell(&bench, "app", &["echo one > /one"]);
    built(&bench, &["app", "-o", "app.tar"]);
    assert_eq!(logs(), 1, "a build that succeeds leaves no log");
}

#[test]
fn base_images_must_pass_the_policy() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let (bench, registry) = (bench().with("OCIKIT_KEY_PASSWORD", ""), Registry::start());
    context(&bench.path("app"));
    let base = format!("{}/base:1", registry.name());
    bench.write("app/Dockerfile", "FROM scratch\nCOPY file /base\n");
    built(&bench, &["app", "--tag", &base, "--push"]);
    bench.ok(&["keygen", "--output", "k"]);
    let names = bench.names();
    let key = |ending: &str| names.iter().find(|name| name.ends_with(ending)).unwrap().clone();
    let policy = format!(
        "version: 1\nsigners:\n  own: {{key: {}}}\nrules:\n  - {{scope: '*', require: [{{signers: [own]}}]}}\n",
        key(".pub")
    );
    bench.write("policy.yaml", policy);
    bench.write("app/Dockerfile", format!("FROM {base}\nCOPY file /own\n"));
    let tag = format!("{}/app:1", registry.name());
    let line = ["app", "--tag", &tag, "--push", "-o", "app.tar", "--verify", "policy.yaml", "--key", &key(".key")];
    let outcome = build(&bench, &line);
    assert_eq!(outcome.code, 5, "{outcome}");
    assert!(outcome.stderr.contains("nothing was published") && outcome.stderr.contains("/base@sha256:"), "{outcome}");
    assert!(!bench.path("app.tar").exists());
    assert_eq!(bench.ocikit(&["digest", &tag]).code, 3);

    bench.ok(&["sign", "--key", &key(".key"), &base]);
    built(&bench, &line);
    // The provenance was only for the check.
    let facts = bench.json(&["inspect", "--json", "app.tar"]);
    assert_eq!(facts["kind"], "image", "{facts}");
    bench.ok(&["verify", "--key", &key(".pub"), &tag]);
    let with = built(&bench, &["app", "-o", "with.tar", "--verify", "policy.yaml", "--provenance=mode=max", "--json"]);
    let facts = bench.json(&["inspect", "--json", "with.tar"]);
    assert_eq!(facts["kind"], "index", "{facts} {with}");
    // Without a base image, there is nothing to verify.
    bench.write("app/Dockerfile", "FROM scratch\nCOPY file /own\n");
    built(&bench, &["app", "-o", "none.tar", "--verify", "policy.yaml"]);
}

#[test]
fn docker_archives_of_one_build_are_compressed_or_not() {
    let Some(peers) = Peers::find(&[&BUILDERS[..], &["skopeo"]].concat()) else { return };
    let bench = bench();
    shell(&bench, "app", &["echo one > /one"]);
    let names = ["1.tar", "2.tar.zst", "3.tar", "4.tgz"];
    let outputs: Vec<_> = names.iter().map(|name| format!("docker-archive:{name}")).collect();
    let flags: Vec<_> = outputs.iter().flat_map(|output| ["-o", output]).collect();
    let digest = built(&bench, &[&["app", "--tag", "app:1"][..], &flags].concat()).stdout;
    for (name, output) in names.iter().zip(&outputs) {
        assert_eq!(bench.ok(&["digest", &format!("oci-archive:{name}")]), digest.trim());
        bench.ok(&["export", output, "-o", "root.tar"]);
        if !name.ends_with("gz") {
            peers.ok(&format!("skopeo inspect docker-archive:{}", bench.path(name).display()));
        }
    }
}
