//! `publish` in place of the publisher plugin: its acceptance statements (PLP), by number.

use std::fs;

use ocikit_server::{Action, Fault, Reply};
use ocikit_spec::Digest;
use ocikit_tests::{
    Archive, Bench, CertificateAuthority, Outcome, Registry, TlsProxy, attested, single, testdata, verified_digest,
    write_archive,
};

use crate::bench;

const USER: &str = "canary-user";
const PASSWORD: &str = "canary-password";
pub(super) const COMMIT: &str = "6c22711f5a0c9d0f5f4c1c0e8b5d7a3e9f1b2c3d";

/// A bench with the environment of the plugin.
fn plugin(archive: &str, repository: &str, more: &[(&str, &str)]) -> Bench {
    let mut bench = bench();
    for (name, value) in [
        ("PLP_ARTIFACT_PATH", archive),
        ("PLP_IMAGE_REPOSITORY", repository),
        ("PLP_COMMIT_SHA", COMMIT),
        ("PLP_REGISTRY_USERNAME", USER),
        ("PLP_REGISTRY_PASSWORD", PASSWORD),
    ]
    .iter()
    .chain(more)
    {
        bench = bench.with(name, value);
    }
    bench
}

/// Runs the plugin's contract, and returns what happened.
fn run(archive: &str, registry: &Registry, more: &[(&str, &str)]) -> Outcome {
    plugin(archive, &format!("{}/acme/app", registry.name()), more).ocikit(&["publish", "-v"])
}

pub(super) fn tags(registry: &Registry, repository: &str) -> Vec<String> {
    let bench = bench().with("OCIKIT_USERNAME", USER).with("OCIKIT_PASSWORD", PASSWORD);
    let listed = bench.ocikit(&["tags", &format!("{}/{repository}", registry.name())]);
    let mut tags: Vec<_> = listed.stdout.lines().map(str::to_owned).collect();
    tags.sort();
    tags
}

pub(super) fn digests(registry: &Registry, tags: &[&str]) -> Vec<Option<Digest>> {
    tags.iter().map(|tag| registry.verified_digest("acme/app", tag)).collect()
}

#[test]
fn plp_10_default_branch_has_three_tags_of_one_digest() {
    let registry = Registry::for_user(USER, PASSWORD);
    let outcome = run(&single(), &registry, &[("PLP_BRANCH_NAME", "main"), ("PLP_IS_DEFAULT_BRANCH", "true")]);
    let digest = verified_digest(&testdata("buildkit-single/image.tar"));
    assert_eq!(digests(&registry, &["main", "main-6c22711", "latest"]), [Some(digest); 3], "{outcome}");
    let lines = ["main", "main-6c22711", "latest"].map(|tag| format!("{}/acme/app:{tag}@{digest}", registry.name()));
    assert_eq!(outcome.ok(), lines.join("\n"));
}

#[test]
fn plp_11_branch_names_are_sanitized_or_refused() {
    let registry = Registry::for_user(USER, PASSWORD);
    run(&single(), &registry, &[("PLP_BRANCH_NAME", "feature/xyz")]).ok();
    assert_eq!(tags(&registry, "acme/app"), ["feature-xyz", "feature-xyz-6c22711"]);
    registry.clear_requests();
    let outcome = run(&single(), &registry, &[("PLP_BRANCH_NAME", "///")]);
    assert_eq!((outcome.code, registry.requests().len()), (4, 0), "{outcome}");
    assert!(outcome.stderr.contains("cannot use `///` as the tag `the branch`"), "{outcome}");
}

#[test]
fn plp_12_and_13_versions_move_tags_forward_only() {
    let registry = Registry::for_user(USER, PASSWORD);
    let place = bench();
    let archives = ["1", "2", "3"].map(|name| {
        let path = place.path(&format!("{name}.tar"));
        let size = 1000 + name.parse::<u64>().unwrap();
        (path.display().to_string(), write_archive(&path, Archive { layers: 1, size, valid_digests: true }))
    });
    let [(one, first), (two, second), (three, third)] = &archives;
    run(one, &registry, &[("PLP_TAG_NAME", "v1.2.3")]).ok();
    assert_eq!(digests(&registry, &["1.2.3", "1.2", "1", "v1.2.3"]), [Some(*first), Some(*first), Some(*first), None]);
    run(two, &registry, &[("PLP_TAG_NAME", "v1.3.0")]).ok();
    let outcome = run(three, &registry, &[("PLP_TAG_NAME", "v1.2.4")]);
    let expected = [Some(*third), Some(*third), Some(*second), Some(*second)];
    assert_eq!(digests(&registry, &["1.2.4", "1.2", "1.3", "1"]), expected);
    assert!(outcome.stderr.contains("tag 1 not used: 1.3.0 is published, which is newer"), "{outcome}");
    // PLP-13
    run(one, &registry, &[("PLP_TAG_NAME", "v2.0.0-rc.1")]).ok();
    let before = ["1", "1.2", "1.2.3", "1.2.4", "1.3", "1.3.0", "v2.0.0-rc.1"];
    assert_eq!(tags(&registry, "acme/app"), before);
    assert_eq!(digests(&registry, &["v2.0.0-rc.1", "1"]), [Some(*first), Some(*second)]);
}

#[test]
fn plp_14_and_15_contexts_add_up() {
    let registry = Registry::for_user(USER, PASSWORD);
    run(&single(), &registry, &[("PLP_MERGE_REQUEST_NUMBER", "7")]).ok();
    assert_eq!(tags(&registry, "acme/app"), ["pr-7", "pr-7-6c22711"]);
    let registry = Registry::for_user(USER, PASSWORD);
    let all = [
        ("PLP_BRANCH_NAME", "main"),
        ("PLP_IS_DEFAULT_BRANCH", "true"),
        ("PLP_PULL_REQUEST_NUMBER", "7"),
        ("PLP_TAG_NAME", "v1.2.3"),
    ];
    run(&single(), &registry, &all).ok();
    let expected = ["1", "1.2", "1.2.3", "latest", "main", "main-6c22711", "pr-7", "pr-7-6c22711"];
    assert_eq!(tags(&registry, "acme/app"), expected);
}

#[test]
fn plp_16_index_stays_whole() {
    let registry = Registry::for_user(USER, PASSWORD);
    run(&attested(), &registry, &[("PLP_BRANCH_NAME", "main")]).ok();
    let digest = verified_digest(&testdata("buildkit-attested/multi.tar"));
    assert_eq!(digests(&registry, &["main", "main-6c22711"]), [Some(digest); 2]);
}

#[test]
fn plp_17_failures_have_their_exit_codes() {
    let branch = ("PLP_BRANCH_NAME", "main");
    let registry = Registry::for_user(USER, "other");
    let outcome = run(&single(), &registry, &[branch]);
    assert_eq!((outcome.code, registry.writes(), digests(&registry, &["main"])), (2, 0, vec![None]), "{outcome}");

    let registry = Registry::for_user(USER, PASSWORD);
    let place = bench();
    let whole = fs::read(single()).unwrap();
    fs::write(place.path("cut.tar"), &whole[..whole.len() / 2]).unwrap();
    for archive in ["cut.tar", "missing.tar"] {
        let outcome = run(&place.path(archive).display().to_string(), &registry, &[branch]);
        assert_eq!((outcome.code, registry.writes()), (3, 0), "{archive}: {outcome}");
    }

    for missing in ["PLP_ARTIFACT_PATH", "PLP_COMMIT_SHA", "PLP_REGISTRY_PASSWORD"] {
        let outcome = run(&single(), &registry, &[branch, (missing, "")]);
        assert_eq!((outcome.code, registry.writes()), (4, 0), "{missing}: {outcome}");
        assert!(outcome.stderr.contains(missing), "{outcome}");
    }
    assert_eq!(run(&single(), &registry, &[]).code, 4);

    registry.clear_requests();
    registry.faults().add(Fault::on("POST /v2/**", Action::Answer(Reply::status(503))));
    let repository = format!("{}/acme/app", registry.name());
    let outcome = plugin(&single(), &repository, &[branch]).ocikit(&["publish", "--retries", "1"]);
    assert_eq!((outcome.code, digests(&registry, &["main"])), (1, vec![None]), "{outcome}");
    let mut uploads = std::collections::BTreeMap::new();
    for request in registry.requests().iter().filter(|request| request.method == "POST") {
        *uploads.entry(request.path.clone()).or_insert(0) += 1;
    }
    assert!(uploads.values().any(|count| *count >= 2), "it is tried again: {uploads:?}");
}

#[test]
fn plp_18_other_tags_are_put_if_one_fails() {
    let registry = Registry::for_user(USER, PASSWORD);
    registry.faults().add(Fault::on("PUT /v2/acme/app/manifests/main", Action::Answer(Reply::status(403))));
    let outcome = run(&single(), &registry, &[("PLP_BRANCH_NAME", "main"), ("PLP_IS_DEFAULT_BRANCH", "true")]);
    let digest = verified_digest(&testdata("buildkit-single/image.tar"));
    assert_eq!(digests(&registry, &["main", "main-6c22711", "latest"]), [None, Some(digest), Some(digest)]);
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.contains("acme/app:main: ") && !outcome.stdout.contains("acme/app:main@"), "{outcome}");
}

#[test]
fn plp_19_private_authorities_need_the_option() {
    let (authority, registry) = (CertificateAuthority::new(), Registry::for_user(USER, PASSWORD));
    let secure = TlsProxy::start(registry.address(), &authority, false);
    let bench = plugin(&single(), &format!("{}/acme/app", secure.name()), &[("PLP_BRANCH_NAME", "main")]);
    bench.write("ca.pem", authority.pem());
    let outcome = bench.ocikit(&["publish", "--retries", "0"]);
    assert_eq!((outcome.code, digests(&registry, &["main"])), (1, vec![None]), "{outcome}");
    bench.ok(&["publish", "--ca-file", "ca.pem"]);
    assert!(digests(&registry, &["main"])[0].is_some());
}

/// A registry without TLS at an address that is not of this machine: a proxy leads to the registry of the test.
#[test]
fn plp_19_plain_http_needs_the_option() {
    let registry = Registry::for_user(USER, PASSWORD);
    let proxy = format!("http://{}", registry.name());
    let bench = plugin(&single(), "198.51.100.7:5000/acme/app", &[("PLP_BRANCH_NAME", "main")]);
    let bench = bench.with("HTTP_PROXY", &proxy).with("HTTPS_PROXY", &proxy);
    let outcome = bench.ocikit(&["publish", "--retries", "0"]);
    assert_eq!((outcome.code, registry.writes()), (1, 0), "{outcome}");
    assert!(registry.requests().iter().all(|request| request.method == "CONNECT"), "{:?}", registry.requests());
    bench.ok(&["publish", "--plain-http"]);
    assert!(digests(&registry, &["main"])[0].is_some());
}

/// The credential of the plugin starts no credential helper, and a helper for another registry does not receive it.
#[cfg(unix)]
#[test]
fn plp_20_credentials_are_in_no_other_program() {
    use std::os::unix::fs::PermissionsExt;
    let registry = Registry::for_user(USER, PASSWORD);
    let bench = plugin(&single(), &format!("{}/acme/app", registry.name()), &[("PLP_BRANCH_NAME", "main")]);
    let (helper, seen) = (bench.path("bin/docker-credential-spy"), bench.path("seen"));
    fs::create_dir_all(bench.path("bin")).unwrap();
    fs::create_dir_all(bench.path("home/.docker")).unwrap();
    bench.write("home/.docker/config.json", r#"{"credsStore": "spy"}"#);
    let text = format!("#!/bin/sh\n{{ env; echo \"$@\"; cat; }} > '{}'\necho '{{}}'\n", seen.display());
    fs::write(&helper, text).unwrap();
    fs::set_permissions(&helper, PermissionsExt::from_mode(0o755)).unwrap();
    let search = std::env::var_os("PATH").unwrap_or_default();
    let search = [bench.path("bin")].into_iter().chain(std::env::split_paths(&search));
    let search = std::env::join_paths(search).unwrap().into_string().unwrap();
    let bench = bench.with("PATH", &search);
    bench.ok(&["publish"]);
    assert!(!seen.exists(), "{:?}", fs::read_to_string(&seen));

    let bench = bench.with("OCIKIT_ID_TOKEN", "canary-token");
    bench.ocikit(&["digest", "--retries", "0", &format!("{}/acme/app:main", registry.name())]);
    let seen = fs::read_to_string(&seen).unwrap();
    assert!(
        seen.contains("PLP_BRANCH_NAME=main") && !seen.contains(PASSWORD) && !seen.contains("canary-token"),
        "{seen}"
    );
}

#[test]
fn plp_20_credentials_are_never_printed() {
    let registry = Registry::for_user(USER, PASSWORD);
    let branch = ("PLP_BRANCH_NAME", "main");
    for outcome in [
        run(&single(), &registry, &[branch]),
        run("missing.tar", &registry, &[branch]),
        run(&single(), &Registry::for_user(USER, "other"), &[branch]),
    ] {
        let text = format!("{}{}", outcome.stdout, outcome.stderr);
        // `canary-user:canary-password` in base64, as it is sent.
        for secret in [PASSWORD, "Y2FuYXJ5"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

/// Waits until a registry has received a request that begins with these words.
fn wait_for(registry: &Registry, method: &str, path: &str) {
    let is_there = || registry.requests().iter().any(|request| request.method == method && request.path.contains(path));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !is_there() {
        assert!(std::time::Instant::now() < deadline, "no {method} {path}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Two releases at the same time: an older version leaves the moving tags at the newer one, whether that appears during its
/// upload or while it puts its tags.
#[test]
fn older_releases_at_the_same_time_leave_moving_tags_at_the_newer_one() {
    let place = bench();
    let archives = ["1", "2"].map(|name| {
        let path = place.path(&format!("{name}.tar"));
        let size = 1000 + name.parse::<u64>().unwrap();
        (path.display().to_string(), write_archive(&path, Archive { layers: 1, size, valid_digests: true }))
    });
    let [(older_archive, older), (newer_archive, newer)] = archives;
    for (method, path) in [("POST", "/v2/acme/app/blobs/uploads/"), ("PUT", "/v2/acme/app/manifests/latest")] {
        let registry = Registry::start();
        // Only the first request waits: that of the older release, which starts first.
        let delay = Action::Delay(std::time::Duration::from_secs(4));
        registry.faults().add(Fault::on(&format!("{method} {path}"), delay).first(1));
        let target = format!("{}/acme/app", registry.name());
        let release = |archive: &str, version: &str| {
            let line = ["publish", archive, "--to", &target, "--event", "push", "--commit", COMMIT];
            bench().ocikit(&[&line[..], &["--git-tag", version, "--latest-release"]].concat())
        };
        let (first, second) = std::thread::scope(|scope| {
            let first = scope.spawn(|| release(&older_archive, "v1.2.3"));
            wait_for(&registry, method, path);
            let second = release(&newer_archive, "v1.2.4");
            (first.join().unwrap(), second)
        });
        let expected = [Some(older), Some(newer), Some(newer), Some(newer), Some(newer)];
        let found = digests(&registry, &["1.2.3", "1.2.4", "1.2", "1", "latest"]);
        assert_eq!(found, expected, "{path}: {first} {second}");
        assert_eq!((first.code, second.code), (0, 0), "{path}: {first} {second}");
        assert!(first.stderr.contains("tag latest not used: 1.2.4 is published, which is newer"), "{path}: {first}");
    }
}
