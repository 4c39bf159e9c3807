//! Several programs that change one tag of a registry at the same time.

use std::process::{Child, Stdio};

use ocikit_server::{Action, Fault};
use ocikit_tests::{Bench, Registry, multi};

use crate::bench;

/// Changes one tag with six programs at the same time, each with its own label. Every success is in the final image;
/// whatever is not ended with the exit code of a conflict.
pub(crate) fn six_writers(bench: &Bench, reference: &str) {
    let image = multi();
    bench.ok(&["push", "-q", &image, reference]);
    for round in 0..3 {
        let label = |writer: usize| format!("writer{round}{writer}");
        let start = |writer: usize| {
            let label = format!("{}=1", label(writer));
            let mut command = bench.command(&["edit", "-q", reference, "--label", &label]);
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let writers: Vec<Child> = (0..6).map(start).collect();
        let ends: Vec<_> = writers.into_iter().map(|writer| writer.wait_with_output().unwrap()).collect();
        let config = bench.json(&["inspect", "--config", reference]);
        let mut successes = 0;
        for (writer, end) in ends.iter().enumerate() {
            let is_there = config["config"]["Labels"][label(writer)] == "1";
            let talk = String::from_utf8_lossy(&end.stderr);
            match end.status.code() {
                Some(0) => {
                    assert!(is_there, "writer {writer} reported success, and its change is lost");
                    successes += 1;
                }
                Some(5) => assert!(talk.contains("another client") && talk.contains("hint: run"), "{talk}"),
                other => panic!("{other:?}: {talk}"),
            }
        }
        assert!(successes > 0, "the last writer wins");
        bench.ok(&["validate", "-q", reference]);
    }
}

/// Makes a registry that honours no conditions.
fn without_entity_tags(registry: &Registry) {
    for method in ["HEAD", "GET"] {
        let kind = format!("{method} /v2/**/manifests/*");
        registry.faults().add(Fault::on(&kind, Action::Header("etag", None)));
    }
}

#[test]
fn no_success_is_lost_if_the_registry_honours_conditions() {
    let (bench, registry) = (bench(), Registry::start());
    six_writers(&bench, &format!("{}/app:1", registry.name()));
}

#[test]
fn no_success_is_lost_without_conditions() {
    let (bench, registry) = (bench(), Registry::start());
    without_entity_tags(&registry);
    six_writers(&bench, &format!("{}/app:1", registry.name()));
    assert!(registry.requests().iter().all(|request| request.status != Some(412)));
}

#[test]
fn indexes_are_not_lost_either() {
    let (bench, registry) = (bench(), Registry::start());
    without_entity_tags(&registry);
    let at = |tag: &str| format!("{}/app:{tag}", registry.name());
    let multi = multi();
    for platform in ["linux/amd64", "linux/arm64", "linux/arm"] {
        let tag = platform.replace('/', "-");
        bench.ok(&["copy", "-q", "--platform", platform, &multi, &at(&tag)]);
    }
    bench.ok(&["index", "create", "-q", &at("1"), &at("linux-amd64")]);
    let start = |platform: &str| {
        let mut command = bench.command(&["index", "add", "-q", &at("1"), &at(platform)]);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let writers: Vec<_> = ["linux-arm64", "linux-arm"].iter().map(|platform| (*platform, start(platform))).collect();
    let ends: Vec<_> =
        writers.into_iter().map(|(platform, writer)| (platform, writer.wait_with_output().unwrap())).collect();
    let listed = bench.ok(&["index", "list", &at("1")]);
    for (platform, end) in ends {
        let digest = bench.ok(&["digest", &at(platform)]);
        match end.status.code() {
            Some(0) => {}
            Some(5) => continue,
            other => panic!("{other:?}: {}", String::from_utf8_lossy(&end.stderr)),
        }
        assert!(listed.contains(&digest), "{platform} was added and is lost: {listed}");
    }
}
