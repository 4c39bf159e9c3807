//! `publish` to real registries, and what other programs read there.

use std::process::Stdio;

use ocikit_tests::{Daemon, Peers, testdata};

use crate::bench;

fn address(registry: &Daemon) -> String {
    registry.address.replace("127.0.0.1", "localhost")
}

/// PLP-10, PLP-16 and KYM-17: two platforms with attestations go to every registry under four tags.
#[test]
fn index_has_one_digest_under_every_tag_of_every_registry() {
    let Some(peers) = Peers::find(&["registry", "olareg", "crane", "regctl", "cosign"]) else { return };
    let bench = bench();
    let registries = peers.registries();
    let repositories: Vec<_> = registries.iter().map(|(_, daemon)| format!("{}/acme/app", address(daemon))).collect();
    let source = testdata("buildkit-attested/multi.tar").display().to_string();
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
}

/// Killed at ten moments: no tag leads to anything incomplete, and a rerun finishes.
#[test]
fn killed_publication_to_real_registries_can_be_repeated() {
    let Some(peers) = Peers::find(&["registry", "olareg", "crane"]) else { return };
    let bench = bench();
    let registries = peers.registries();
    let source = testdata("buildkit-multi/image.tar").display().to_string();
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
