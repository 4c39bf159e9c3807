//! Failing commands: documented exit code, one error message, a hint where the cause is known, and no changed file.

use std::fs;
use std::process::Stdio;

use ocikit_archive::TarIndex;
use ocikit_tests::{
    Archive, Bench, Outcome, Registry, json, multi, single, testdata, wait_for_signal_handlers, write_archive,
};

use crate::bench;

/// Runs a command that fails and returns its outcome, with the name of the registry replaced by `REGISTRY`.
fn told(bench: &Bench, registry: &str, arguments: &[&str]) -> Outcome {
    let redactions = [(registry, "REGISTRY")];
    let outcome = bench.ocikit(arguments);
    assert_eq!(outcome.stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{outcome}");
    assert_eq!(outcome.stdout, "", "{outcome}");
    outcome.redacted(if registry.is_empty() { &[] } else { &redactions })
}

#[test]
fn missing_file() {
    insta::assert_snapshot!(told(&bench(), "", &["push", "gone.tar", "localhost:5000/app:1"]), @"
    exit 3
    --- stderr
    error: cannot open gone.tar: No such file or directory (os error 2)
    ");
    insta::assert_snapshot!(told(&bench(), "", &["inspect", "oci:gone"]), @"
    exit 3
    --- stderr
    error: cannot open oci:gone: No such file or directory (os error 2)
    ");
}

#[test]
fn truncated_archive() {
    let bench = bench();
    let whole = fs::read(testdata("buildkit-single/image.tar")).unwrap();
    bench.write("a.tar", &whole[..5000]);
    let registry = Registry::start();
    let reference = format!("{}/app:1", registry.name());
    insta::assert_snapshot!(told(&bench, &registry.name(), &["push", "a.tar", &reference]), @"
    exit 3
    --- stderr
    error: a.tar is broken: the archive is truncated: blobs/sha256/a91932639481b208c8d620ff68d770ebd43b9781e48c6881ff1cf07212c9a8f3 at offset 4096 lacks at least 2432 bytes
    ");
    assert!(registry.requests().is_empty());
    for length in (0..whole.len()).step_by(512) {
        bench.write("a.tar", &whole[..length]);
        let outcome = bench.ocikit(&["inspect", "a.tar"]);
        // Only the end-of-archive blocks and `oci-layout` follow `index.json`, and the image is complete without them.
        let ends = [whole.len() - 2048, whole.len() - 1024, whole.len() - 512].contains(&length);
        assert_eq!(outcome.code, if ends { 0 } else { 3 }, "{length}: {outcome}");
    }
}

#[test]
fn damaged_layer() {
    let (bench, registry) = (bench(), Registry::start());
    write_archive(&bench.path("a.tar"), Archive { layers: 1, size: 2 << 20, valid_digests: true });
    let mut bytes = fs::read(bench.path("a.tar")).unwrap();
    let index = TarIndex::read(&bytes).unwrap();
    let layer = index.entries().iter().find(|entry| entry.data.size == 2 << 20).unwrap().data.offset;
    bytes[layer as usize + 1_000_000] ^= 1;
    bench.write("a.tar", bytes);
    let reference = format!("{}/app:1", registry.name());
    insta::assert_snapshot!(told(&bench, &registry.name(), &["push", "a.tar", &reference]), @"
    exit 5
    --- stderr
    error: sha256:c04bff05ea31e406be1ddce1854262d6ad700f8e0dadd4f13c77356df56dddc1 in a.tar is damaged: its bytes have digest sha256:c609ed575cdca62574cfc35f7a1ae6fe93adf158ea6e3edf2d412e04a7850aea
    ");
    assert_eq!(bench.ocikit(&["digest", &reference]).code, 3, "no tag was created");
    for target in ["b.tar", "oci:layout"] {
        assert_eq!(bench.ocikit(&["copy", "a.tar", target]).code, 5);
    }
    assert_eq!(bench.names(), ["a.tar"], "no incomplete file is left");
}

#[test]
fn a_name_with_the_digest_of_another_image() {
    let (bench, registry) = (bench(), Registry::start());
    let single = single();
    let other = format!("sha256:{:064}", 0);
    let image = format!("{}/app", registry.name());
    bench.ok(&["push", "-q", &single, &format!("{image}:1")]);
    for line in [
        &["copy", &single, &format!("oci:layout@{other}")][..],
        &["push", &single, &format!("{image}@{other}")],
        &["delete", &format!("{image}:1@{other}")],
        &["blob", "put", &single, &format!("{image}@{other}")],
    ] {
        let outcome = bench.ocikit(line);
        assert_eq!(outcome.code, 5, "{line:?}: {outcome}");
        assert!(!outcome.stderr.contains("damaged"), "{line:?}: {outcome}");
        assert!(outcome.stderr.contains(" has digest sha256:"), "{line:?}: {outcome}");
        assert!(outcome.stderr.contains(", not the one in "), "{line:?}: {outcome}");
        assert!(outcome.stderr.contains(&other), "{line:?}: {outcome}");
    }
}

#[test]
fn damaged_manifest() {
    let bench = bench();
    let mut bytes = fs::read(testdata("buildkit-single/image.tar")).unwrap();
    let digest = bench.ok(&["digest", &single()]);
    let index = TarIndex::read(&bytes).unwrap();
    let manifest = index.file(&format!("blobs/{}", digest.replace(':', "/"))).unwrap();
    bytes[manifest.offset as usize + 20] ^= 1;
    bench.write("a.tar", bytes);
    insta::assert_snapshot!(told(&bench, "", &["inspect", "a.tar"]), @"
    exit 5
    --- stderr
    error: sha256:ef8b48ccc49e0036161617d8b451b4052403a759a518b624c351db6ac79a8452 in a.tar is damaged: its bytes have digest sha256:9a346930aa48c504e8344bb32616794adf6647810ec378f52ac0c830c1a566ea
    ");
    assert_eq!(bench.ocikit(&["annotate", "a.tar", "k=v"]).code, 5);
}

#[test]
fn unreachable_registry() {
    let source = single();
    insta::assert_snapshot!(told(&bench(), "", &["push", "--retries", "0", &source, "localhost:1/app:1"]), @"
    exit 6
    --- stderr
    error: cannot connect to localhost:1/app: connection refused
    hint: start the registry, or correct the host and port `localhost:1`
    ");
}

#[test]
fn wrong_credentials() {
    let registry = Registry::for_user("alice", "right");
    let bench = bench().with("OCIKIT_USERNAME", "alice").with("OCIKIT_PASSWORD", "wr0ng");
    let source = single();
    let outcome = told(&bench, &registry.name(), &["push", &source, &format!("{}/app:1", registry.name())]);
    assert!(!outcome.stderr.contains("wr0ng"));
    insta::assert_snapshot!(outcome, @"
    exit 4
    --- stderr
    error: cannot access REGISTRY/app: UNAUTHORIZED: credentials are missing, wrong, or not enough (status 401); the credential is from OCIKIT_USERNAME and OCIKIT_PASSWORD
    hint: log in with `ocikit login REGISTRY`, or give --username with --password-stdin
    ");
}

#[test]
fn json_errors_are_one_object() {
    let object = |outcome: &Outcome| -> serde_json::Value {
        assert_eq!((outcome.stdout.as_str(), outcome.stderr.lines().count()), ("", 1), "{outcome}");
        let text = json(&outcome.stderr);
        assert_eq!(text["error"]["exitCode"], outcome.code, "{outcome}");
        text["error"].clone()
    };
    let (bench, registry) = (bench(), Registry::start());
    let single = single();
    let missing = object(&bench.ocikit(&["digest", "--json", &format!("{}/app:1", registry.name())]));
    assert_eq!(missing["kind"], "not-found");
    assert_eq!(missing["message"], format!("{}/app has no tag 1", registry.name()));
    assert_eq!(missing["hint"], format!("`ocikit tags {}/app` lists tags", registry.name()));
    let gone = object(&bench.ocikit(&["--json", "inspect", "gone.tar"]));
    assert_eq!((&gone["kind"], &gone["hint"]), (&"not-found".into(), &serde_json::Value::Null));
    for line in [&["push", "--json", "app", "localhost:5000/app"][..], &["nonsense", "--json"], &["digest", "--json"]] {
        let usage = object(&bench.ocikit(line));
        assert_eq!(usage["kind"], "usage", "{line:?}: {usage}");
        assert!(!usage["message"].as_str().unwrap().is_empty());
    }
    let there = format!("{}/app:1", registry.name());
    let partly = bench.ocikit(&["push", "--json", "--retries", "0", &single, &there, "localhost:1/app:1"]);
    assert_eq!(partly.code, 7, "{partly}");
    let error = partly.stderr.lines().last().unwrap();
    let error = json(error);
    let failed = &error["error"]["failed"];
    assert_eq!(failed.as_array().unwrap().len(), 1, "{error}");
    assert_eq!((&failed[0]["target"], &failed[0]["kind"]), (&"localhost:1/app:1".into(), &"unreachable".into()));
    assert_eq!(failed[0]["exitCode"], 6);
}

#[test]
fn missing_tag() {
    let registry = Registry::start();
    let single = testdata("buildkit-single/image.tar#nope");
    assert_eq!(told(&bench(), "", &["digest", &single.display().to_string()]).code, 3);
    insta::assert_snapshot!(told(&bench(), &registry.name(), &["digest", &format!("{}/app:1", registry.name())]), @"
    exit 3
    --- stderr
    error: REGISTRY/app has no tag 1
    hint: `ocikit tags REGISTRY/app` lists tags
    ");
    let multi = multi();
    assert_eq!(told(&bench(), "", &["digest", &multi, "--platform", "linux/s390x"]).code, 3);
}

#[test]
fn invalid_arguments() {
    for line in [
        &["push", "app", "localhost:5000/app"][..],
        &["push", "a.tar", "b.tar"],
        &["annotate", "a.tar"],
        &["annotate", "a.tar", "novalue"],
        &["digest", "localhost:5000/UPPER"],
        &["digest", "a.tar", "--platform", "linux"],
        &["nonsense"],
        &["pull", "localhost:5000/a", "-o", "docker://localhost:5000/b"],
    ] {
        let outcome = bench().ocikit(line);
        assert_eq!(outcome.code, 2, "{line:?}: {outcome}");
    }
    let outcome = bench().with("SOURCE_DATE_EPOCH", "yesterday").ocikit(&["version"]);
    assert_eq!(outcome.code, 2, "{outcome}");
}

#[test]
fn full_disk() {
    let bench = bench();
    let (bench, limited) = (&bench, |arguments: &str| {
        // A limit on the file size makes writes fail like a full disk does.
        let script = format!("ulimit -f 20; trap '' XFSZ; exec \"$0\" {arguments}");
        let program = bench.command::<&str>(&[]);
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &script]).arg(program.get_program()).current_dir(bench.path(""));
        ocikit_tests::run(&mut command, &[])
    });
    write_archive(&bench.path("a.tar"), Archive { layers: 1, size: 100 << 10, valid_digests: true });
    bench.write("b.tar", b"old");
    let before = fs::read(bench.path("a.tar")).unwrap();
    for (arguments, target) in
        [("copy a.tar b.tar", "b.tar"), ("copy a.tar oci:layout", "layout"), ("annotate a.tar k=v", "a.tar")]
    {
        let outcome = limited(arguments);
        assert_eq!(outcome.code, 1, "{arguments}: {outcome}");
        assert!(outcome.stderr.contains("cannot write to") && outcome.stderr.contains(target), "{outcome}");
    }
    assert_eq!(fs::read(bench.path("b.tar")).unwrap(), b"old", "the existing file is unchanged");
    assert!(fs::read(bench.path("a.tar")).unwrap() == before);
    assert_eq!(bench.names(), ["a.tar", "b.tar"], "no other file is left");
}

#[test]
fn killed_copy_leaves_no_file() {
    let bench = bench();
    write_archive(&bench.path("a.tar"), Archive { layers: 4, size: 64 << 20, valid_digests: true });
    bench.write("b.tar", b"old");
    for pause in [5, 20, 50, 90] {
        let mut child = bench.command(&["copy", "a.tar", "b.tar"]).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(pause));
        child.kill().unwrap();
        let finished = child.wait().unwrap().success();
        assert!(finished || fs::read(bench.path("b.tar")).unwrap() == b"old");
        assert_eq!(bench.names(), ["a.tar", "b.tar"]);
        bench.write("b.tar", b"old");
    }
}

#[test]
fn interrupted_command_reports_it() {
    let bench = bench();
    let mut command = bench.command(&["push", "-", "localhost:5000/app:1"]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // `wait_with_output` would close standard input.
    let _stdin = child.stdin.take();
    wait_for_signal_handlers(&child);
    std::thread::sleep(std::time::Duration::from_millis(200));
    let killed = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let outcome = child.wait_with_output().unwrap();
    assert_eq!((outcome.status.code(), &outcome.stderr[..]), (Some(130), &b"error: interrupted\n"[..]));
}

#[test]
fn a_command_that_waits_for_input_is_interrupted() {
    let bench = bench();
    fs::copy(testdata("buildkit-single/image.tar"), bench.path("a.tar")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(bench.path("fifo")).status().unwrap();
    assert!(made.success());
    for signal in ["-INT", "-TERM"] {
        for line in [
            &["verify", "--key", "fifo", "a.tar"][..],
            &["verify", "--policy", "fifo", "a.tar"],
            &["sign", "--key", "fifo", "a.tar"],
            &["sync", "fifo"],
            &["manifest", "put", "fifo", "oci:x:1"],
            &["blob", "put", "fifo", "oci:x"],
            &["tags", "--authfile", "fifo", "127.0.0.1:1/a"],
            &["tags", "-u", "x", "--password-stdin", "127.0.0.1:1/a"],
        ] {
            let mut command = bench.command(line);
            let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let _stdin = child.stdin.take();
            wait_for_signal_handlers(&child);
            std::thread::sleep(std::time::Duration::from_millis(200));
            let killed = std::process::Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
            assert!(killed.success());
            let since = std::time::Instant::now();
            let outcome = child.wait_with_output().unwrap();
            let found = (outcome.status.code(), String::from_utf8_lossy(&outcome.stderr));
            assert_eq!(found, (Some(130), "error: interrupted\n".into()), "{line:?}");
            assert!(since.elapsed() < std::time::Duration::from_secs(10), "{line:?}");
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_file_size_limit_is_an_error() {
    let bench = bench();
    write_archive(&bench.path("a.tar"), Archive { layers: 1, size: 1 << 20, valid_digests: true });
    let copy = bench.command(&["copy", "a.tar", "b.tar"]);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -f 64; exec \"$@\"", "sh"]).arg(copy.get_program()).args(copy.get_args());
    let outcome = command.current_dir(bench.path("")).output().unwrap();
    let text = String::from_utf8_lossy(&outcome.stderr);
    assert_eq!(outcome.status.code(), Some(1), "{text}");
    assert!(text.contains("File too large"), "{text}");
    assert_eq!(bench.names(), ["a.tar"], "no other file is left");
}

/// A build of one image has no index to annotate, which is known before the build.
#[test]
fn annotations_of_a_missing_index_are_refused_before_a_build() {
    let bench = bench().with("BUILDKIT_HOST", "tcp://127.0.0.1:1");
    fs::write(bench.path("Dockerfile"), "FROM scratch\n").unwrap();
    let run = |more: &[&str]| bench.ocikit(&[&["build", "."], more].concat());
    for more in [
        &["--annotation", "index:a=b"][..],
        &["--annotation", "manifest,index:a=b", "--platform", "linux/arm64"],
        &["--annotation", "manifest-descriptor:a=b"],
    ] {
        let outcome = run(more);
        assert!(outcome.code == 2 && outcome.stderr.contains("makes one image and no index"), "{more:?}: {outcome}");
    }
    let outcome = run(&["--annotation", "manifest[linux/s390x]:a=b", "--platform", "linux/arm64,linux/amd64"]);
    assert!(outcome.code == 2 && outcome.stderr.contains("annotate the image for linux/s390x"), "{outcome}");
    for more in [
        &["--annotation", "index:a=b", "--platform", "linux/arm64,linux/amd64"][..],
        &["--annotation", "index:a=b", "--provenance"],
        &["--annotation", "index:a=b", "--build-arg", "BUILDKIT_MULTI_PLATFORM=1"],
        &["--annotation", "index-descriptor:a=b"],
        &["--annotation", "manifest[linux/arm64]:a=b", "--platform", "linux/arm64/v8"],
    ] {
        let outcome = run(more);
        assert!(outcome.code != 0 && !outcome.stderr.contains("annotate"), "{more:?}: {outcome}");
    }
}
