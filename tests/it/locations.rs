//! Locations on the command line: their meaning, refused forms, and suggested corrections.

use std::fs;

use ocikit_tests::{Registry, fixture, json, single, testdata};

use crate::bench;

#[test]
fn errors_name_layouts_and_archives_as_they_were_typed() {
    let bench = bench();
    bench.ok(&["copy", "-q", &single(), "oci:t2:v1"]);
    bench.ok(&["copy", "-q", "oci:t2:v1", "oci-archive:a.bin:v1"]);
    for (place, name) in [
        ("oci:t2", ":v2"),
        ("ocidir://t2", ":v2"),
        ("oci-layout://t2", ":v2"),
        ("./gone", ""),
        ("oci:gone", ":v1"),
        ("oci-archive:a.bin", ":v2"),
        ("oci-archive:gone.bin", ""),
    ] {
        for arguments in [&["inspect"][..], &["annotate", "a=b"]] {
            let location = format!("{place}{name}");
            let outcome = match arguments {
                [command, change] => bench.ocikit(&[command, location.as_str(), change]),
                arguments => bench.ocikit(&[arguments, &[location.as_str()]].concat()),
            };
            let words: Vec<_> = outcome.stderr.split([' ', '\n']).map(|word| word.trim_end_matches(':')).collect();
            assert!(outcome.code != 0 && words.contains(&place), "{location}: {outcome}");
        }
    }
}

#[test]
fn transports_of_other_tools_are_refused_with_a_hint() {
    for (text, instead) in [
        ("dir:/srv/image", "oci:PATH"),
        ("docker-daemon:alpine:latest", "docker save"),
        ("containers-storage:alpine", "podman save"),
        ("ostree:x@/y", "oci:PATH"),
        ("sif:x.sif", "oci-archive:PATH"),
    ] {
        let outcome = bench().ocikit(&["inspect", text]);
        assert_eq!(outcome.code, 2, "{outcome}");
        assert!(outcome.stderr.contains("hint: ") && outcome.stderr.contains(instead), "{outcome}");
    }
    for command in ["inspect", "tags"] {
        let outcome = bench().ocikit(&[command, "tarball:x"]);
        let expected = "error: invalid value 'tarball:x' for '<LOCATION>': the transport `tarball:` is not supported\n\
            hint: write `oci-archive:PATH` for an OCI archive\n";
        assert!(outcome.stderr.starts_with(expected), "{outcome}");
        let outcome = bench().ocikit(&["--json", command, "tarball:x"]);
        let error = json(&outcome.stderr);
        assert_eq!(error["error"]["hint"], "write `oci-archive:PATH` for an OCI archive", "{outcome}");
    }
}

#[test]
fn missing_dot_slash_is_suggested() {
    let bench = bench();
    fs::create_dir(bench.path("my-layout")).unwrap();
    // Requests to Docker Hub fail, because no proxy listens on port 1.
    let bench = bench.with("HTTPS_PROXY", "http://127.0.0.1:1");
    for text in ["my-layout", "my-layout:v1"] {
        let outcome = bench.ocikit(&["--retries", "0", "inspect", text]);
        assert_eq!(outcome.code, 6, "{outcome}");
        assert!(outcome.stderr.contains("hint: did you mean `./my-layout`?"), "{outcome}");
    }
}

#[test]
fn all_images_of_a_layout_are_listed() {
    let bench = bench();
    let archive = single();
    bench.ok(&["copy", &archive, "oci:two:one"]);
    bench.ok(&["annotate", "oci:two:one", "k=v", "-o", "oci:two:other"]);
    assert_eq!(bench.ok(&["tags", "oci:two"]), "one\nother");
    assert_eq!(bench.ok(&["list-tags", "--limit", "1", "oci:two"]), "one");
    for command in ["inspect", "tree"] {
        let shown = bench.ok(&[command, "oci:two"]);
        for location in ["oci:two:one", "oci:two:other"] {
            assert!(shown.lines().any(|line| line == location), "{command}: {shown}");
        }
        let facts = bench.json(&[command, "--json", "oci:two"]);
        assert_eq!(facts["images"].as_array().unwrap().len(), 2);
        assert_eq!(facts["images"][1]["location"], "oci:two:other");
    }
    // A command that needs one image lists locations that can be pasted.
    let outcome = bench.ocikit(&["digest", "./two"]);
    assert_eq!(outcome.code, 2, "{outcome}");
    assert!(outcome.stderr.contains("oci:"), "{outcome}");
    assert!(outcome.stderr.contains("two:one, "), "{outcome}");
    assert_eq!(bench.ok(&["tags", &fixture("buildkit-tags/image.tar")]).lines().count(), 2);
}

#[test]
fn command_names_of_other_tools_are_aliases() {
    let bench = bench();
    for line in [["cp", "--help"], ["list-tags", "--help"], ["ls-tags", "--help"], ["catalog", "--help"]] {
        bench.ok(&line);
    }
}

#[test]
fn delete_requires_a_tag_or_digest() {
    let (bench, registry) = (bench(), Registry::start());
    let repository = format!("{}/acme/app", registry.name());
    let archive = single();
    bench.ok(&["push", &archive, &repository]);
    let outcome = bench.ocikit(&["delete", &repository]);
    assert_eq!(outcome.code, 2, "{outcome}");
    assert!(outcome.stderr.contains("names neither a tag nor a digest"), "{outcome}");
    assert_eq!(bench.ok(&["tags", &repository]), "latest");
    bench.ok(&["copy", &archive, "app.tar"]);
    let outcome = bench.ocikit(&["delete", "app.tar"]);
    assert_eq!(outcome.code, 2, "{outcome}");
    assert!(outcome.stderr.contains("app.tar#TAG"), "{outcome}");
    bench.ok(&["delete", &format!("{repository}:latest")]);
    assert_eq!(bench.ok(&["tags", &repository]), "");
}

#[test]
fn manifest_put_without_a_tag_stores_a_referrer_by_digest() {
    let (bench, registry) = (bench(), Registry::start());
    let repository = format!("{}/acme/app", registry.name());
    bench.ok(&["push", &single(), &repository]);
    let digest = bench.ok(&["digest", &repository]);
    let facts = bench.json(&["digest", "--json", &repository]);
    bench.write("empty", "{}");
    bench.ok(&["blob", "put", "empty", &repository]);
    let empty = serde_json::json!({
        "mediaType": "application/vnd.oci.empty.v1+json", "size": 2,
        "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
    });
    let referrer = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.example", "config": empty, "layers": [empty], "subject": facts,
    });
    bench.write("referrer.json", referrer.to_string());
    bench.ok(&["manifest", "put", "referrer.json", &repository]);
    assert_eq!(bench.ok(&["digest", &repository]), digest, "`latest` must not move");
    assert_eq!(bench.ok(&["referrers", &repository]).lines().count(), 1);
}

#[test]
fn passwords_in_locations_are_hidden() {
    let bench = bench();
    fs::copy(testdata("buildkit-single/image.tar"), bench.path("a.tar")).unwrap();
    for line in [
        &["inspect", "docker://user:s3cret@127.0.0.1:1/a/b:1"][..],
        &["inspect", "https://user:s3cret@127.0.0.1:1/a/b"],
        &["inspect", "https://user:s3cret@127.0.0.1:1/a/b.tar"],
        &["tags", "user:s3cret@127.0.0.1:1/a"],
        &["login", "https://user:s3cret@127.0.0.1:1"],
        &["push", "a.tar", "127.0.0.1:1/a:1", "user:s3cret@127.0.0.1:1/a:1"],
        &["verify", "--policy", "no.yaml", "--scope=user:s3cret@127.0.0.1:1/a", "a.tar"],
    ] {
        for json in [false, true] {
            let line: Vec<_> = json.then_some("--json").into_iter().chain(line.iter().copied()).collect();
            let outcome = bench.ocikit(&line);
            assert_ne!(outcome.code, 0, "{line:?}: {outcome}");
            assert!(!outcome.to_string().contains("s3cret"), "{line:?}: {outcome}");
        }
    }
    let outcome = bench.ocikit(&["inspect", "docker://user:s3cret@127.0.0.1:1/a/b:1"]);
    assert!(outcome.stderr.contains("a reference has no user name or password; use `ocikit login`"), "{outcome}");
}
