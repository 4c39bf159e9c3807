//! `push` and `copy`.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use ocikit_tests::{Archive, Registry, attested, fixture, multi, single, write_archive};
use serde_json::Value;

use crate::bench;

#[test]
fn push_keeps_the_digest() {
    let (bench, registry) = (bench(), Registry::start());
    for (number, name) in [
        "buildkit-single/image.tar",
        "buildkit-multi/image.tar",
        "buildkit-attested/multi.tar",
        "buildkit-docker/schema2.tar",
        "archive-nested/image.tar",
        "layout-buildkit/layout",
    ]
    .into_iter()
    .enumerate()
    {
        let reference = format!("{}/app:{number}", registry.name());
        let digest = bench.ok(&["digest", &fixture(name)]);
        assert_eq!(bench.ok(&["push", &fixture(name), &reference]), format!("{reference}@{digest}"), "{name}");
        assert_eq!(bench.ok(&["digest", &reference]), digest, "{name}");
    }
}

#[test]
fn second_push_takes_one_request_per_tag() {
    let (bench, registry) = (bench(), Registry::start());
    let (one, two) = (format!("{}/app:1", registry.name()), format!("{}/app:2", registry.name()));
    bench.ok(&["push", &multi(), &one, &two]);
    registry.clear_requests();
    bench.ok(&["push", &multi(), &one, &two]);
    let asked: Vec<_> =
        registry.requests().iter().map(|request| format!("{} {}", request.method, request.path)).collect();
    assert_eq!(asked, ["HEAD /v2/app/manifests/1", "HEAD /v2/app/manifests/2"]);
}

#[test]
fn second_push_of_a_signed_image_takes_one_request_per_signature() {
    let (bench, registry) = (bench(), Registry::start());
    fs::copy(single(), bench.path("app.tar")).unwrap();
    for key in ["a", "b", "c", "d"] {
        bench.ok(&["keygen", "--unencrypted", "-o", key]);
        bench.ok(&["sign", "--key", &format!("{key}.key"), "app.tar"]);
    }
    let reference = format!("{}/app:1", registry.name());
    bench.ok(&["push", "app.tar", &reference]);
    registry.clear_requests();
    bench.ok(&["push", "app.tar", &reference]);
    let requests = registry.requests();
    let count = |method: &str| requests.iter().filter(|request| request.method.as_str() == method).count();
    // The tag and four signatures; whether the registry has the referrers API is found out once.
    assert_eq!((count("HEAD"), count("GET"), requests.len()), (5, 2, 7), "{requests:?}");
}

#[test]
fn first_push_takes_three_requests_per_blob() {
    let (bench, registry) = (bench(), Registry::start());
    bench.ok(&["push", &single(), &format!("{}/app:1", registry.name())]);
    let requests = registry.requests();
    let count = |method: &str, part: &str| {
        requests.iter().filter(|request| request.method.as_str() == method && request.path.contains(part)).count()
    };
    // Four layers, a config and a manifest. The tag is checked first and created last.
    assert_eq!((count("HEAD", "/blobs/"), count("POST", "/uploads/"), count("PUT", "/uploads/")), (5, 5, 5));
    assert!(count("HEAD", "/manifests/") + count("PUT", "/manifests/") <= 4, "{requests:?}");
    assert_eq!(count("GET", ""), 0, "no request to `/v2/`: {requests:?}");
}

#[test]
fn pipe_is_uploaded_while_it_is_written() {
    let (bench, registry) = (bench(), Registry::start());
    write_archive(&bench.path("a.tar"), Archive { layers: 2, size: 3 << 20, valid_digests: true });
    let bytes = fs::read(bench.path("a.tar")).unwrap();
    let digest = bench.ok(&["digest", "a.tar"]);
    fs::remove_file(bench.path("a.tar")).unwrap();
    let reference = format!("{}/app:1", registry.name());
    let mut child =
        bench.command(&["push", "-", &reference]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // The first layer and the start of the second.
    let half = 5 << 20;
    stdin.write_all(&bytes[..half]).unwrap();
    stdin.flush().unwrap();
    let uploaded = || registry.requests().iter().any(|request| request.method.as_str() == "PUT");
    while !uploaded() {
        assert!(child.try_wait().unwrap().is_none(), "the program ended before the pipe");
        std::thread::yield_now();
    }
    assert_eq!(bench.names(), Vec::<String>::new(), "no temporary file");
    stdin.write_all(&bytes[half..]).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{reference}@{digest}\n"));
    assert_eq!(bench.ok(&["digest", &reference]), digest);
}

#[test]
fn several_archives_are_pushed_with_their_tags() {
    let (bench, registry) = (bench(), Registry::start());
    let (single, tags) = (single(), fixture("buildkit-tags/image.tar#2"));
    let repository = format!("{}/app", registry.name());
    bench.ok(&["annotate", &single, "k=v", "-o", "oci:named:one"]);
    bench.ok(&["push", "oci:named:one", &tags, &repository]);
    for (tag, source) in [("one", "oci:named:one"), ("2", &*tags)] {
        let digest = bench.ok(&["digest", source]);
        assert_eq!(bench.ok(&["digest", &format!("{repository}:{tag}")]), digest);
    }
    let outcome = bench.ocikit(&["push", &single, &tags, &repository]);
    assert_eq!(outcome.code, 2, "an image without a tag cannot be one of several: {outcome}");
}

#[test]
fn push_prints_its_result_as_json() {
    let (bench, registry) = (bench(), Registry::start());
    let reference = format!("{}/app:1", registry.name());
    let text = bench.ok(&["push", "--json", &single(), &reference]);
    let facts: Value = serde_json::from_str(&text).unwrap();
    let target = &facts["targets"][0];
    assert_eq!((target["target"].as_str(), target["sent"]["blobs"].as_u64()), (Some(&*reference), Some(6)));
    assert_eq!(target["digest"].as_str().unwrap(), bench.ok(&["digest", &reference]));
}

#[test]
fn progress_option_selects_the_format() {
    let (bench, registry) = (bench(), Registry::start());
    let push = |tag: &str, form: &str| {
        let reference = format!("{}/app:{tag}", registry.name());
        bench.ocikit(&["push", "--progress", form, &single(), &reference])
    };
    let json = push("json", "json");
    let events = json.stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let events: Vec<_> = events.map(|event| event["event"].as_str().unwrap().to_owned()).collect();
    assert_eq!((events.first().unwrap().as_str(), events.last().unwrap().as_str()), ("planned", "published"), "{json}");
    assert_eq!(push("none", "none").stderr.lines().count(), 1);
    let quiet = bench.ocikit(&["push", "-q", &single(), &format!("{}/app:q", registry.name())]);
    assert_eq!(quiet.stderr, "");
}

#[test]
fn copies_between_all_locations_keep_the_digest() {
    let (bench, registry) = (bench(), Registry::start());
    let reference = format!("{}/app:1", registry.name());
    let source = attested();
    let digest = bench.ok(&["digest", &source]);
    for (from, to) in [
        (&*source, "oci:layout:1"),
        ("oci:layout:1", "a.tar"),
        ("a.tar", "oci-archive:b.tar:two"),
        ("oci-archive:b.tar:two", &*reference),
        (&*reference, &*format!("{}/other/app:2", registry.name())),
        (&*reference, "./plain"),
    ] {
        let said = bench.ok(&["copy", from, to]);
        assert_eq!(said, format!("{to}@{digest}"), "{from} {to}");
        assert_eq!(bench.ok(&["digest", to]), digest, "{from} {to}");
    }
    let streamed = bench.command(&["copy", "a.tar", "-"]).output().unwrap();
    assert_eq!(streamed.stdout, fs::read(bench.path("a.tar")).unwrap(), "the stream and the file have the same bytes");
}

#[test]
fn copy_within_a_registry_mounts_all_blobs() {
    let (bench, registry) = (bench(), Registry::start());
    let (from, to) = (format!("{}/one:1", registry.name()), format!("{}/two:1", registry.name()));
    bench.ok(&["push", &multi(), &from]);
    registry.clear_requests();
    bench.ok(&["copy", &from, &to]);
    assert!(
        registry
            .requests()
            .iter()
            .all(|request| !(request.method.as_str() == "PUT" && request.path.contains("/uploads/")))
    );
}

#[test]
fn failed_target_does_not_stop_the_others() {
    let (bench, registry) = (bench(), Registry::start());
    let (good, bad) = (format!("{}/app:1", registry.name()), "localhost:1/app:1");
    let outcome = bench.ocikit(&["push", "--retries", "0", &single(), bad, &good]);
    assert_eq!(outcome.code, 7, "{outcome}");
    assert!(outcome.stdout.starts_with(&good) && outcome.stderr.contains("1 of 2 targets failed"), "{outcome}");
}
