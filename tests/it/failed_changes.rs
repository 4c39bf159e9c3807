//! `convert`, `rebase` and `artifact push` that fail: the disk is full, the process is killed, or the registry dies. The old
//! image stays, no tag names an incomplete one, and no file is left.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use ocikit_image::testing::{Tar, random};
use ocikit_server::{Action, Fault, Point, Reply};
use ocikit_tests::{Bench, Compression, Direction, Outcome, Proxy, Registry, wait_for_signal_handlers, write_image};

use crate::bench;
use crate::faults::{for_each_parallel, kill_at, pseudo_random};

/// Writes an image of two layers, the upper one with this many random bytes, and an image of the lower layer only.
fn images(bench: &Bench, size: usize) {
    let lower = Tar::new().directory("etc").file("etc/release", b"1").finish();
    let upper = Tar::new().file("noise", &random(1, size)).symlink("link", "noise").finish();
    write_image(&bench.path("app"), Compression::Gzip, &[lower.clone(), upper]);
    write_image(&bench.path("base"), Compression::Gzip, &[lower]);
    write_image(&bench.path("new"), Compression::Gzip, &[Tar::new().file("etc/release", b"2").finish()]);
    bench.write("notes.txt", random(2, size));
}

/// The commands under test, and the tag that each writes.
fn commands(repository: &str) -> Vec<(Vec<String>, String)> {
    let tag = |tag: &str| format!("{repository}:{tag}");
    let line = |line: &[&str], target: &str| {
        let words = ["--retries", "0"].iter().chain(line).map(|word| (*word).to_owned());
        (words.collect(), target.to_owned())
    };
    vec![
        line(&["convert", "--to", "nydus", "--suffix", &tag("app")], "app-fastpull"),
        line(&["convert", "--to", "nydus", "--rafs-version", "5", &tag("app")], "app"),
        line(&["rebase", &tag("app"), "--old-base", &tag("base"), "--new-base", &tag("new")], "app"),
        line(&["artifact", "push", &tag("notes"), "notes.txt", "--artifact-type", "a/b"], "notes"),
    ]
}

/// Pushes the images to a repository.
fn pushed(bench: &Bench, repository: &str) {
    for name in ["app", "base", "new"] {
        bench.ok(&["push", "-q", &format!("oci:{name}:1"), &format!("{repository}:{name}")]);
    }
}

#[test]
fn a_registry_that_dies_keeps_the_old_tags() {
    let (bench, registry) = (bench(), Registry::start());
    images(&bench, 10_000);
    let before = bench.names();
    let mut cases = Vec::new();
    for command in 0..commands("").len() {
        let name = format!("whole{command}");
        let repository = format!("{}/{name}", registry.name());
        pushed(&bench, &repository);
        registry.clear_requests();
        bench.ok(&commands(&repository)[command].0);
        let count = registry.requests().len();
        cases.extend((0..count).flat_map(|after| [(command, after, 0), (command, after, 1)]));
    }
    for_each_parallel(cases.len(), |number| {
        let (command, after, kind) = cases[number];
        let repository = format!("{}/case{number}", registry.name());
        pushed(&bench, &repository);
        let (line, tag) = &commands(&repository)[command];
        let old = registry.verified_digest(&format!("case{number}"), tag);
        let puts = || {
            let path = format!("/v2/case{number}/manifests/{tag}");
            registry.requests().iter().filter(|made| made.method == "PUT" && made.path == path).count()
        };
        let puts_before = puts();
        let action = if kind == 0 { Action::Answer(Reply::status(500)) } else { Action::Cut(Point::Answer) };
        let active = registry.faults().add(Fault::on(&format!("* /v2/case{number}/**"), action).after(after as u64));
        let outcome = bench.ocikit(line);
        // The number of requests depends on the latency, and so on the load of this machine.
        let code = if active.happened() == 0 { 0 } else { 6 };
        active.remove();
        assert_eq!(outcome.code, code, "{line:?} after {after}: {outcome}");
        assert!(code == 0 || (outcome.stdout.is_empty() && outcome.stderr.contains("error: ")), "{outcome}");
        // If a request after that for the tag fails, which reads it back, the tag names the complete image.
        let new = registry.verified_digest(&format!("case{number}"), tag);
        let may_be_new = puts() > puts_before;
        assert!(new == old || (may_be_new && new.is_some()), "{line:?} after {after}: {old:?} {new:?}");
        assert!(code != 0 || new != old, "{line:?}");
        let whole = bench.ocikit(&["validate", &format!("{repository}:app")]);
        assert_eq!(whole.code, 0, "{line:?} after {after}: {whole}");
        if new == old {
            bench.ok(line);
        }
    });
    assert_eq!(bench.names(), before, "no file is left");
}

#[test]
fn a_killed_change_keeps_the_old_tag() {
    let (bench, registry) = (bench(), Registry::start());
    images(&bench, 3 << 20);
    let before = bench.names();
    for command in 0..commands("").len() {
        for number in 0..6 {
            let proxy = Proxy::start(registry.address());
            let name = format!("killed{command}-{number}");
            pushed(&bench, &format!("{}/{name}", registry.name()));
            let (line, tag) = &commands(&format!("{}/{name}", proxy.name()))[command];
            let old = registry.verified_digest(&name, tag);
            let direction = [Direction::ToRegistry, Direction::ToClient][number % 2];
            let words: Vec<_> = line.iter().map(String::as_str).collect();
            kill_at(&bench, &proxy, direction, pseudo_random(command * 100 + number, 1 << 20), &words);
            registry.wait_until_quiet(&name);
            let new = registry.verified_digest(&name, tag);
            assert!(new.is_some() || old.is_none(), "{line:?}");
            bench.ok(&["validate", &format!("{}/{name}:app", registry.name())]);
            assert_eq!(bench.names(), before, "{line:?}: no file is left");
        }
    }
}

#[test]
fn a_killed_conversion_keeps_the_archive() {
    let bench = bench();
    images(&bench, 20 << 20);
    bench.ok(&["copy", "-q", "oci:app:1", "a.tar"]);
    let (old, before) = (bench.ok(&["digest", "a.tar"]), bench.names());
    for pause in [5, 50, 100, 200, 400] {
        let mut child = bench.command(&["convert", "--to", "nydus", "a.tar"]).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(pause));
        child.kill().unwrap();
        let finished = child.wait().unwrap().success();
        assert!(finished || bench.ok(&["digest", "a.tar"]) == old, "{pause} ms");
        bench.ok(&["validate", "a.tar"]);
        assert_eq!(bench.names(), before, "{pause} ms: no file is left");
        if finished {
            return;
        }
    }
}

#[test]
fn an_interrupted_conversion_leaves_nothing() {
    let bench = bench();
    images(&bench, 20 << 20);
    let before = bench.names();
    for (signal, target) in [("-INT", "oci:out:1"), ("-TERM", "out.tar")] {
        let mut command = bench.command(&["convert", "--to", "nydus", "oci:app:1", "-o", target]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        wait_for_signal_handlers(&child);
        std::thread::sleep(Duration::from_millis(200));
        let killed = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        let outcome = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&outcome.stderr);
        // A fast machine may have finished before.
        if outcome.status.success() || !killed.success() {
            continue;
        }
        assert_eq!(outcome.status.code(), Some(130), "{text}");
        let left: Vec<_> = bench.names().into_iter().filter(|name| !before.contains(name)).collect();
        // A layout may have blobs, but no image.
        assert!(left.is_empty() || left == ["out"], "{left:?}");
        assert_ne!(bench.ocikit(&["digest", "oci:out:1"]).code, 0);
    }
}

/// Runs commands with a limit on the size of files, which makes writes fail like a full disk does.
fn limited(bench: &Bench, blocks: usize, arguments: &str) -> Outcome {
    let script = format!("ulimit -f {blocks}; trap '' XFSZ; exec \"$0\" {arguments}");
    let program = bench.command::<&str>(&[]);
    let mut command = Command::new("sh");
    command.args(["-c", &script]).arg(program.get_program()).current_dir(bench.path(""));
    ocikit_tests::run(&mut command, &[])
}

#[test]
fn a_conversion_on_a_full_disk_changes_nothing() {
    let bench = bench();
    images(&bench, 1 << 20);
    bench.ok(&["copy", "-q", "oci:app:1", "a.tar"]);
    let (old, before) = (fs::read(bench.path("a.tar")).unwrap(), bench.names());
    for format in ["nydus", "estargz", "zstd-chunked"] {
        // Either temporary files are too large, or the result.
        for blocks in [20, 1000, 2100] {
            for target in ["-o oci:out:1", "-o out.tar", ""] {
                let outcome = limited(&bench, blocks, &format!("convert --to {format} a.tar {target}"));
                if outcome.code == 0 {
                    assert!(blocks > 1000, "{format} {blocks} {target}");
                    bench.write("a.tar", &old);
                    let _ = fs::remove_dir_all(bench.path("out"));
                    let _ = fs::remove_file(bench.path("out.tar"));
                    continue;
                }
                assert_eq!(outcome.code, 1, "{format} {blocks} {target}: {outcome}");
                assert!(outcome.stderr.contains("File too large") && outcome.stdout.is_empty(), "{outcome}");
                assert!(fs::read(bench.path("a.tar")).unwrap() == old, "{format} {blocks} {target}");
                assert_eq!(bench.names(), before, "{format} {blocks} {target}");
            }
        }
    }
}

/// A file system of 3 MiB, mounted where only the command sees it.
#[cfg(target_os = "linux")]
#[test]
fn a_conversion_to_a_full_file_system_changes_nothing() {
    let bench = bench();
    images(&bench, 4 << 20);
    fs::create_dir(bench.path("small")).unwrap();
    let program = bench.command::<&str>(&[]);
    // Either the target is full, or the directory of temporary files.
    for (temporary, target) in
        [("", "oci:small/out:1"), ("", "small/out.tar"), ("small", "oci:out:1"), ("small", "out.tar")]
    {
        let script = "mount -t tmpfs -o size=3m tmpfs small || exit 77; if [ -n \"$1\" ]; then export TMPDIR=$PWD/$1; fi; \
                      \"$0\" convert --to nydus oci:app:1 -o $2; code=$?; find small -type f >&2; exit $code";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(program.get_program()).args([temporary, target]);
        let outcome = ocikit_tests::run(command.current_dir(bench.path("")), &[]);
        if outcome.code == 77 || outcome.stderr.contains("unshare failed") {
            return;
        }
        assert_eq!(outcome.code, 1, "{target}: {outcome}");
        assert!(outcome.stderr.contains("No space left on device"), "{target}: {outcome}");
        let left: Vec<_> = outcome.stderr.lines().filter(|line| line.starts_with("small/")).collect();
        assert!(temporary.is_empty() || left.is_empty(), "{target}: {left:?}");
        assert!(!left.iter().any(|path| path.ends_with("index.json") || path.ends_with(".tar")), "{target}: {left:?}");
    }
    assert_eq!(bench.names(), ["app", "base", "new", "notes.txt", "small"]);
}
