//! Child processes do not inherit secrets from the environment.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use ocikit_tests::Bench;

use crate::bench;

const SECRETS: [&str; 7] = [
    "OCIKIT_PASSWORD",
    "OCIKIT_KEY_PASSWORD",
    "OCIKIT_TOKEN",
    "COSIGN_PASSWORD",
    "SIGSTORE_ID_TOKEN",
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    "ACTIONS_ID_TOKEN_REQUEST_URL",
];

/// Creates a bench with programs that write their environment to the file `environment`. The environment has [`SECRETS`] and
/// the harmless variable `KEPT`.
fn with_programs(programs: &[&str]) -> Bench {
    let bench = bench();
    let directory = bench.path("programs");
    fs::create_dir_all(&directory).unwrap();
    for program in programs {
        let path = directory.join(program);
        fs::write(&path, format!("#!/bin/sh\nenv >> '{}'\nexit 1\n", bench.path("environment").display())).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap());
    let bench = bench.with("PATH", &path).with("KEPT", "kept").with("OCIKIT_USERNAME", "alice");
    SECRETS.iter().fold(bench, |bench, name| bench.with(name, "s3cret-value"))
}

fn check(bench: &Bench) {
    let seen = bench.read("environment");
    assert!(seen.contains("KEPT=kept"), "{seen}");
    assert!(!seen.contains("s3cret-value"), "{seen}");
}

#[test]
fn credential_helpers_get_no_secrets() {
    let bench = with_programs(&["docker-credential-spy"]);
    fs::create_dir_all(bench.path("home/.docker")).unwrap();
    bench.write("home/.docker/config.json", r#"{"credsStore": "spy"}"#);
    bench.ocikit(&["logout", "registry.example"]);
    check(&bench);
}

#[test]
fn buildctl_gets_no_secrets() {
    let bench = with_programs(&["buildctl"]).with("BUILDKIT_HOST", "unix:///nonexistent");
    fs::create_dir(bench.path("source")).unwrap();
    bench.write("source/Dockerfile", "FROM scratch\n");
    bench.ocikit(&["build", "source", "--no-cache-directory"]);
    check(&bench);
}

#[test]
fn signing_plugins_get_no_secrets() {
    let bench = with_programs(&["sigstore-kms-spy", "notation-spy"]);
    fs::copy(ocikit_tests::testdata("buildkit-single/image.tar"), bench.path("a.tar")).unwrap();
    bench.ocikit(&["sign", "--key", "spy://key", "a.tar"]);
    check(&bench);
    fs::remove_file(bench.path("environment")).unwrap();
    let plugin = bench.path("programs/notation-spy").display().to_string();
    bench.ocikit(&["sign", "--format", "notation-jws", "--plugin", &plugin, "--key-id", "k", "a.tar"]);
    check(&bench);
}
