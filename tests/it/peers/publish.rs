//! `publish` to real registries, and what other programs read there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use ocikit_server::{Action, Fault, Reply};
use ocikit_tests::{Daemon, Peers, Registry, attested, json, multi};
use serde_json::Value;

use super::envelopes::Notation;
use crate::bench;

fn address(registry: &Daemon) -> String {
    registry.address.replace("127.0.0.1", "localhost")
}

/// PLP-10, PLP-16 and KYM-17: two platforms with attestations go to three registries under four tags, verified by cosign
/// and notation.
#[test]
fn index_has_one_digest_under_every_tag_of_every_registry() {
    let Some(peers) = Peers::find(&["registry", "olareg", "crane", "regctl", "cosign", "notation"]) else { return };
    let (bench, notation) = (bench(), Notation::new(&peers));
    let mut registries = peers.registries();
    registries.push(("crane", peers.crane_registry()));
    let repositories: Vec<_> = registries.iter().map(|(_, daemon)| format!("{}/acme/app", address(daemon))).collect();
    let source = attested();
    let digest = bench.ok(&["digest", &source]);
    bench.ok(&["keygen", "--unencrypted", "-o", "ocikit"]);
    let mut line = vec!["publish", &*source, "--key", "ocikit.key", "--format", "cosign-legacy", "--format", "cosign"];
    line.extend([
        "--event",
        "push",
        "--commit",
        "6c22711f",
        "--branch",
        "main",
        "--default-branch",
        "--tag",
        "v{{ .ShortSHA }}",
    ]);
    line.push("--git-tags");
    repositories.iter().for_each(|repository| line.extend(["--to", repository]));
    let printed = bench.ok(&line);
    assert_eq!(printed.lines().count(), 4 * repositories.len(), "{printed}");
    for repository in &repositories {
        for tag in ["main", "main-6c22711", "latest", "v6c22711f"] {
            let reference = format!("{repository}:{tag}");
            assert_eq!(peers.ok(&format!("crane digest --insecure {reference}")), digest, "{reference}");
            assert!(printed.contains(&format!("{reference}@{digest}")), "{printed}");
        }
        let key = bench.path("ocikit.pub");
        let flags = "--insecure-ignore-tlog --allow-http-registry --private-infrastructure";
        peers.ok(&format!("cosign verify --key {} {flags} {repository}:latest", key.display()));
    }
    let again = bench.ocikit(&line);
    assert!(again.stderr.matches("signed before").count() == repositories.len(), "{again}");
    again.ok();
    // Another signer and format: no tag changes, and the attestations of the build and the publication are signed.
    let [key, chain] = ["key", "crt"].map(|end| notation.path(&format!("localkeys/acme.{end}")));
    let at = line.iter().position(|word| *word == "--key").unwrap();
    line.splice(at..at + 6, ["--format", "notation-jws", "--key", &key, "--certificate-chain", &chain]);
    line.extend(["--attest-build", "--attest-published"]);
    bench.ok(&line);
    for repository in &repositories {
        assert_eq!(peers.ok(&format!("crane digest --insecure {repository}:latest")), digest);
        notation.run(&format!("verify --insecure-registry {repository}@{digest}")).ok();
    }
}

/// KYM-20: one solve gives the image to all registries, with the commit and every tag as build arguments. Nothing is
/// visible before every registry has it.
#[test]
fn kym_20_build_gets_commit_and_tags_and_is_published_as_one_transaction() {
    let Some(peers) = Peers::find(&["buildctl", "buildkitd", "runc", "crane"]) else { return };
    let bench = bench();
    let registries = [Registry::start(), Registry::start()];
    let to = registries.each_ref().map(|registry| format!("{}/acme/app", registry.name()));
    fs::create_dir(bench.path("source")).unwrap();
    let dockerfile = "FROM scratch\nARG BUILD_COMMIT_SHA\nARG TAG_v\nARG TAG_latest\nARG OWN\nCOPY file /\n\
                      LABEL commit=$BUILD_COMMIT_SHA v=$TAG_v latest=$TAG_latest own=$OWN\n";
    bench.write("source/Dockerfile", dockerfile);
    bench.write("source/file", "content");
    // Counts the solves.
    let real = peers.ok("which buildctl");
    fs::create_dir(bench.path("bin")).unwrap();
    let shim = format!(
        "#!/bin/sh\ncase \"$*\" in *--frontend=*) echo solve >> '{}' ;; esac\nexec {real} \"$@\"\n",
        bench.path("solves").display()
    );
    bench.write("bin/buildctl", shim);
    fs::set_permissions(bench.path("bin/buildctl"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", bench.path("bin").display());
    let bench = bench.with("PATH", &path);
    let mut line = vec!["publish", "--build", "source", "--platform", "linux/amd64,linux/arm64", "--export-tags"];
    line.extend(["--build-arg", "OWN=a=b,c", "--tag", "v=v{{ .ShortSHA }}", "--tag", "latest"]);
    line.extend(["--event", "push", "--commit", "6c22711f5a0c", "--no-cache-directory", "--report", "r.json"]);
    to.iter().for_each(|repository| line.extend(["--to", repository]));
    let planned = bench.ocikit(&[&line[..], &["--dry-run"]].concat()).ok();
    assert!(planned.contains("would build and upload") && !bench.path("solves").exists(), "{planned}");
    registries[1].faults().add(Fault::on("POST /v2/**", Action::Answer(Reply::status(403))));
    let outcome = bench.ocikit(&line);
    assert!(outcome.code == 4 && outcome.stderr.contains("no tag was changed"), "{outcome}");
    for registry in &registries {
        assert_eq!(registry.verified_digest("acme/app", "latest"), None);
    }
    registries[1].faults().clear();
    let printed = bench.ok(&line);
    assert_eq!(bench.read("solves").lines().count(), 2, "one solve for each run");
    let digest = registries[0].verified_digest("acme/app", "latest").unwrap();
    for registry in &registries {
        for tag in ["latest", "v6c22711f"] {
            assert_eq!(registry.verified_digest("acme/app", tag), Some(digest), "{printed}");
        }
    }
    let config = peers.ok(&format!("crane config --insecure --platform linux/arm64 {}:latest", to[0]));
    let labels = &json(&config)["config"]["Labels"];
    for (name, value) in [("commit", "6c22711f5a0c"), ("v", "v6c22711f"), ("latest", "latest"), ("own", "a=b,c")] {
        assert_eq!(labels[name], value, "{labels}");
    }
    let report: Value = serde_json::from_slice(&fs::read(bench.path("r.json")).unwrap()).unwrap();
    for target in report["targets"].as_array().unwrap() {
        let [stored, finished] = ["storedSeconds", "seconds"].map(|name| target[name].as_f64().unwrap());
        assert!(0.0 < stored && stored <= finished, "{target}");
    }
    // A build that fails publishes nothing, and leaves nothing.
    bench.write("source/Dockerfile", "FROM scratch\nCOPY missing /\n");
    let outcome = bench.ocikit(&[&line[..], &["--tag", "failed"]].concat());
    assert_ne!(outcome.code, 0, "{outcome}");
    assert_eq!(registries[0].verified_digest("acme/app", "failed"), None);
}

/// podman takes the image with zstd layers, and clients that know only gzip take the other.
#[test]
fn formats_of_layers_are_listed_side_by_side() {
    let Some(peers) = Peers::find(&["registry", "crane", "skopeo"]) else { return };
    let (bench, registry) = (bench(), peers.distribution("registry"));
    let repository = format!("{}/acme/both", address(&registry));
    let source = multi();
    let formats = ["--layer-format", "zstd", "--layer-format", "gzip"];
    let line = ["publish", &source, "--to", &repository, "--event", "push", "--commit", "6c22711f", "--tag", "both"];
    bench.ok(&[&line[..], &formats].concat());
    // crane cannot validate layers with zstd.
    bench.ok(&["validate", &format!("{repository}:both")]);
    peers.ok(&format!("skopeo copy --all --src-tls-verify=false docker://{repository}:both dir:out"));
    let index = peers.ok(&format!("crane manifest --insecure {repository}:both"));
    let index = json(&index);
    let entries = index["manifests"].as_array().unwrap();
    let (first, second) = entries.split_at(entries.len() / 2);
    assert!(first.len() > 1 && first.len() == second.len(), "{index}");
    for (entries, suffix) in [(first, "+gzip"), (second, "+zstd")] {
        for entry in entries {
            let is_marked = entry["annotations"]["io.github.containers.compression.zstd"] == "true";
            assert_eq!(is_marked, suffix == "+zstd", "{index}");
            let digest = entry["digest"].as_str().unwrap();
            let manifest = peers.ok(&format!("crane manifest --insecure {repository}@{digest}"));
            let manifest = json(&manifest);
            let types = manifest["layers"].as_array().unwrap().iter().map(|layer| layer["mediaType"].as_str().unwrap());
            assert!(types.clone().all(|found| found.ends_with(suffix)), "{:?}", types.collect::<Vec<_>>());
        }
    }
}

/// Killed at ten moments: no tag leads to anything incomplete, and a rerun finishes. `tests/it/publish_registries.rs` does
/// the same at 50 moments.
#[test]
fn killed_publication_to_real_registries_can_be_repeated() {
    let Some(peers) = Peers::find(&["registry", "olareg", "crane"]) else { return };
    let bench = bench();
    let registries = peers.registries();
    let source = multi();
    let digest = bench.ok(&["digest", &source]);
    for round in 0..10 {
        let repositories: Vec<_> =
            registries.iter().map(|(_, daemon)| format!("{}/killed/app{round}", address(daemon))).collect();
        let mut line = vec!["publish", "-v", &*source, "--event", "push", "--commit", "6c22711f", "--branch", "main"];
        repositories.iter().for_each(|repository| line.extend(["--to", repository]));
        let mut child = bench.command(&line).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        // Each request is a line; the process is killed after some of them.
        let requests = std::io::BufReader::new(child.stderr.take().unwrap());
        let mut lines = std::io::BufRead::lines(requests);
        for _ in 0..round * 6 {
            lines.next();
        }
        let _ = child.kill();
        child.wait().unwrap();
        for repository in &repositories {
            let listed = peers.run(&format!("crane digest --insecure {repository}:main"));
            if listed.code == 0 {
                peers.ok(&format!("crane validate --insecure --remote {repository}:main"));
            }
        }
        bench.ok(&line);
        for repository in &repositories {
            assert_eq!(peers.ok(&format!("crane digest --insecure {repository}:main")), digest);
            peers.ok(&format!("crane validate --insecure --remote {repository}:main"));
        }
    }
}
