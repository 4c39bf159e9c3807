//! Reports of what failed, files that cannot be written, and flags and secrets that are refused before anything happens.

use std::fs;

use ocikit_tests::{Registry, free_port, json, single};

use crate::bench;

const JOB: [&str; 4] = ["--branch", "main", "--commit", "6c22711f5a0c"];

#[test]
fn a_publication_that_fails_is_reported_for_each_repository() {
    let (bench, registry) = (bench(), Registry::start());
    let (good, dead) = (format!("{}/a", registry.name()), format!("127.0.0.1:{}/a", free_port()));
    let files = ["--report", "r.json", "--html", "r.html", "--summary", "r.md", "--build-report", "b.json"];
    let targets = ["publish", &single(), "--to", &good, "--to", &dead];
    let outcome = bench.ocikit(&[&targets[..], &JOB, &files].concat());
    assert_eq!(outcome.code, 6, "{outcome}");
    let read = |name: &str| bench.read(name);
    let report = json(&read("r.json"));
    assert_eq!(report["status"], "failed");
    let problem = |target: usize| report["targets"][target]["tags"][0]["problem"].as_str().unwrap().to_owned();
    assert!(problem(0).contains("another repository failed"), "{report}");
    assert!(problem(1).contains("refused"), "{report}");
    assert!(read("r.html").contains("failed") && read("r.md").contains(&dead), "{}", read("r.md"));
    let build = json(&read("b.json"));
    assert_eq!((&build["status"], &build["pushed"]), (&"Failed".into(), &false.into()));
    assert_eq!(registry.verified_digest("a", "main"), None);
}

#[test]
fn files_that_cannot_be_written_fail_before_anything_is_published() {
    let (bench, registry) = (bench(), Registry::start());
    let name = format!("{}/a", registry.name());
    fs::create_dir(bench.path("dir")).unwrap();
    for flag in ["--report", "--html", "--summary", "--outputs", "--build-report"] {
        for path in ["none/r", "dir"] {
            let outcome = bench.ocikit(&[&["publish", &single(), "--to", &name, flag, path], &JOB[..]].concat());
            assert!(outcome.code != 0 && outcome.stderr.contains(path), "{outcome}");
        }
    }
    let outcome = bench.ocikit(&["copy", &single(), &format!("{name}:1"), "--digest-file", "none/d"]);
    assert!(outcome.code != 0, "{outcome}");
    assert_eq!(registry.requests().len(), 0);
    assert_eq!(bench.names(), ["dir"], "nothing is left");
}

#[test]
fn publish_refuses_the_flags_of_a_build_without_a_build() {
    let bench = bench();
    for flag in [
        &["--platform", "linux/amd64"][..],
        &["--target", "x"],
        &["--build-arg", "A=b"],
        &["--compression", "zstd"],
        &["--secret", "id=a,env=PATH"],
        &["--no-cache"],
        &["--runtime", "auto"],
        &["--addr", "tcp://127.0.0.1:1"],
        &["--export-tags"],
    ] {
        let line = ["publish", &single(), "--to", "localhost:1/a"];
        let outcome = bench.ocikit(&[&line, &JOB[..], flag].concat());
        assert_eq!(outcome.code, 2, "{flag:?}: {outcome}");
    }
}

#[test]
fn secrets_in_arguments_are_not_repeated() {
    let bench = bench();
    for line in [
        "build . --cache-to type=s3,secret_access_key=hunter2,bucket=b",
        "build . --cache-to=type=s3,secret_access_key=hunter2,bucket=b",
        "build . --cache-from type=gha,token=hunter2",
        "build . --cache-from type=other,\"password=a,hunter2\"",
        "build . --secret id=a,foo=hunter2",
        "build . --secret id=a,hunter2",
        "build . --addr tcp://u:hunter2@127.0.0.1:1",
        "build . --builder linux/amd64=tcp://u:hunter2@127.0.0.1:1",
        "build . --build-context a=https://u:hunter2@127.0.0.1:1/a.git",
        "build https://u:hunter2@127.0.0.1:1/a.git",
        "buildkit status --addr tcp://u:hunter2@127.0.0.1:1",
        "buildkit status --json --addr tcp://u:hunter2@127.0.0.1:1",
        "inspect https://u:hunter2@127.0.0.1:1/a",
        "publish a.tar --to https://u:hunter2@127.0.0.1:1/a",
    ] {
        let outcome = bench.ocikit(&line.split(' ').collect::<Vec<_>>());
        assert!(outcome.code != 0 && !format!("{outcome}").contains("hunter2"), "{line}: {}", outcome.stderr);
    }
    let named = bench.with("BUILDKIT_HOST", "tcp://u:hunter2@127.0.0.1:1").ocikit(&["buildkit", "status"]);
    assert!(named.code == 2 && !named.stderr.contains("hunter2"), "{named}");
}

#[test]
fn an_unreachable_address_is_not_used() {
    let address = format!("tcp://127.0.0.1:{}", free_port());
    let outcome = bench().ocikit(&["buildkit", "status", "--json", "--addr", &address]);
    let found = outcome.json();
    assert_eq!((outcome.code, &found["builders"][0]["used"]), (3, &false.into()), "{outcome}");
    assert!(!outcome.stderr.contains("buildkit install"), "{outcome}");
}

#[test]
fn login_creates_the_authfile() {
    let (registry, bench) = (Registry::for_user("alice", "s3cret"), bench());
    let line = ["login", "--authfile", "new.json", "-u", "alice", "--password-stdin", &registry.name()];
    assert_eq!(bench.ocikit_with_input(&line, b"wrong").code, 4);
    assert!(!bench.path("new.json").exists());
    bench.ocikit_with_input(&line, b"s3cret").ok();
    assert!(bench.read("new.json").contains(&registry.name()));
}
