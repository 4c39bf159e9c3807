//! What remains of `build` after each way to end, with a real BuildKit: no process, no mount, no file, and the previous archive.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ocikit_tests::{Bench, Daemon, Peers, Registry};
use serde_json::json;

use super::build::{BUILDERS, build, context, nothing_remains, processes, shell};
use crate::bench;

/// A bench with a temporary directory of its own, and an earlier archive.
fn bench_with_archive() -> (Bench, PathBuf) {
    let bench = bench();
    let temporary = bench.path("temporary");
    fs::create_dir(&temporary).unwrap();
    bench.write("app.tar", "before");
    let bench = bench.with("TMPDIR", &temporary.display().to_string());
    (bench, temporary)
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn kill(child: &mut Child) {
    // `SIGKILL`
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Waits until the daemon with this temporary directory and its watchdog have ended. The watchdog removes their directory first; if
/// `ocikit` was killed before it had started one, the next build does.
fn no_process_remains(temporary: &Path) {
    wait_until("a process remains", || processes(temporary) == 0);
}

/// Returns how many names in a directory start with a prefix.
fn found(directory: &Path, prefix: &str) -> usize {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().starts_with(prefix)).count()
}

#[test]
fn plp_5_every_failure_has_its_exit_code_and_leaves_nothing() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    for (what, dockerfile, expected, message) in [
        ("a missing Dockerfile", None, 3, "Dockerfile"),
        ("a Dockerfile that is none", Some("NONSENSE\n"), 1, "NONSENSE"),
        (
            "a step that fails",
            Some("FROM scratch\nCOPY busybox /busybox\nRUN [\"/busybox\", \"sh\", \"-c\", \"exit 7\"]\n"),
            1,
            "exit code: 7",
        ),
        ("a missing file", Some("FROM scratch\nCOPY gone /gone\n"), 1, "gone"),
    ] {
        let (bench, temporary) = bench_with_archive();
        context(&bench.path("app"));
        match dockerfile {
            Some(text) => bench.write("app/Dockerfile", text),
            None => fs::remove_file(bench.path("app/Dockerfile")).unwrap(),
        }
        let outcome =
            bench.ocikit(&["build", "--no-cache-directory", "app", "-o", "app.tar", "-o", "type=local,dest=out"]);
        assert_eq!(outcome.code, expected, "{what}: {outcome}");
        assert!(outcome.stderr.contains(message), "{what}: {outcome}");
        nothing_remains(&temporary, what);
        assert_eq!(bench.read("app.tar"), "before", "{what}");
        let names = bench.names();
        assert!(!names.iter().any(|name| name.starts_with(".ocikit") || name == "out"), "{what}: {names:?}");
    }
}

#[test]
fn plp_5_a_full_disk_under_the_daemon_leaves_nothing() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let (bench, temporary) = bench_with_archive();
    shell(&bench, "app", &["/busybox dd if=/dev/zero of=/large bs=1M count=100"]);
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "none"]).arg(&temporary).status();
    if !mounted.is_ok_and(|status| status.success()) {
        // Only root can mount.
        return;
    }
    // Below the mount point, which is a mount of its own.
    let below = temporary.join("below");
    fs::create_dir(&below).unwrap();
    let bench = bench.with("TMPDIR", &below.display().to_string());
    let outcome = bench.ocikit(&["build", "--no-cache-directory", "app", "-o", "app.tar"]);
    assert_eq!(outcome.code, 1, "{outcome}");
    nothing_remains(&below, "a full disk");
    assert_eq!(bench.read("app.tar"), "before");
    Command::new("umount").arg(&temporary).status().unwrap();
}

#[test]
fn a_context_that_a_killed_build_left_is_removed_by_the_next() {
    let Some(peers) = Peers::find(&BUILDERS) else { return };
    let (bench, temporary) = bench_with_archive();
    shell(&bench, "app", &["echo one > /one"]);
    peers.ok(&format!("tar -C {} -cf context.tar .", bench.path("app").display()));
    let tar = fs::read(peers.path("context.tar")).unwrap();
    let mut command = bench.command(&["build", "--no-cache-directory", "-", "-o", "app.tar"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&tar).unwrap();
    // The daemon that removes it is not started yet, or the build has not begun.
    wait_until("no context", || found(&temporary, "ocikit-context-") > 0);
    kill(&mut child);
    no_process_remains(&temporary);
    assert_eq!(found(&temporary, "ocikit-context-"), 1, "the rest of this test would show nothing");
    assert_eq!(bench.read("app.tar"), "before");
    bench.ok(&["build", "--no-cache-directory", "app", "-o", "app.tar"]);
    nothing_remains(&temporary, "the next build");
}

#[test]
fn the_image_of_a_killed_publication_is_removed_by_the_next_build() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let (bench, temporary) = bench_with_archive();
    shell(&bench, "app", &["/busybox sleep 600"]);
    let to = format!("{}/app", Registry::start().name());
    let line = ["publish", "--build", "app", "--to", &to, "--event", "push", "--commit", "6c22711f", "--tag", "one"];
    let mut command = bench.command(&[&line[..], &["--no-cache-directory"]].concat());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let places = [temporary.clone(), bench.path("")];
    let left = || places.iter().map(|place| found(place, "ocikit-publish-")).sum::<usize>();
    wait_until("no image", || left() > 0 && processes(&temporary) > 0);
    kill(&mut child);
    no_process_remains(&temporary);
    assert_eq!(left(), 1, "the rest of this test would show nothing");
    shell(&bench, "app", &["echo one > /one"]);
    bench.ok(&["build", "--no-cache-directory", "app", "-o", "app.tar"]);
    assert_eq!(left(), 0);
    nothing_remains(&temporary, "the next build");
}

#[test]
fn buildctl_ends_when_ocikit_is_killed() {
    let Some(peers) = Peers::find(&BUILDERS) else { return };
    let address = format!("unix://{}", peers.path("bk.sock").display());
    let mut command = peers.command("buildkitd");
    command.arg("--root").arg(peers.path("bk")).args(["--addr", &address, "--oci-worker-snapshotter=native"]);
    command.arg(format!("--otel-socket-path={}", peers.path("otel.sock").display()));
    let mut daemon = Daemon::start(command, &peers.path("bk.log"));
    daemon.wait(|| peers.run(&format!("buildctl --addr {address} debug workers")).code == 0);
    let (bench, temporary) = bench_with_archive();
    shell(&bench, "app", &["/busybox sleep 600"]);
    let app = bench.path("app");
    let line = ["build", "--no-cache-directory", &app.display().to_string(), "--addr", &address, "-o", "app.tar"]
        .map(str::to_owned);
    let mut command = bench.command(&[&line[..], &["-o".to_owned(), "type=local,dest=out".to_owned()]].concat());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // `ocikit`, the shell that watches it, and `buildctl`
    wait_until("no buildctl", || processes(&app) >= 3);
    std::thread::sleep(Duration::from_millis(500));
    kill(&mut child);
    wait_until("buildctl remains", || processes(&app) == 0);
    // The watchdog removes what is exported beside the target.
    wait_until("files remain", || found(&bench.path(""), ".ocikit") == 0);
    nothing_remains(&temporary, "SIGKILL");
    assert_eq!(bench.read("app.tar"), "before");
    daemon.stop();
}

#[test]
fn secrets_that_a_killed_agent_left_are_removed_by_the_next_build() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    // A tmpfs of this test: those of other tests are looked at by the tests of the agent.
    let (bench, temporary) = bench_with_archive();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&temporary).status();
    if !mounted.is_ok_and(|status| status.success()) {
        // Only root can mount.
        return;
    }
    let memory = temporary.join("memory");
    fs::create_dir(&memory).unwrap();
    shell(&bench, "app", &["/busybox sleep 600"]);
    let config = json!({
        "version": 1, "job_id": "job1", "registry_url": Registry::start().name(), "source_path": "app",
        "timeout_seconds": 300, "network_mode": "egress", "registry_token": "t0ken", "registry_username": "u",
    });
    bench.write("build.json", config.to_string());
    let line = ["agent", "--config", "build.json", "--listen", "unix:agent.sock", "--secrets-dir"];
    let mut command = bench.command(&[&line[..], &[&memory.display().to_string()]].concat());
    let mut child = command.env("TMPDIR", &memory).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let stream = {
        let mut stream = None;
        wait_until("no socket", || {
            stream = std::os::unix::net::UnixStream::connect(bench.path("agent.sock")).ok();
            stream.is_some()
        });
        stream
    };
    wait_until("no secrets", || found(&memory, "ocikit-secrets-") > 0);
    kill(&mut child);
    drop(stream);
    no_process_remains(&memory);
    assert_eq!(found(&memory, "ocikit-secrets-"), 1, "the rest of this test would show nothing");
    shell(&bench, "app", &["echo one > /one"]);
    let bench = bench.with("TMPDIR", &memory.display().to_string());
    bench.ok(&["build", "--no-cache-directory", "app", "-o", "app.tar"]);
    nothing_remains(&memory, "the next build");
    Command::new("umount").arg(&temporary).status().unwrap();
}

/// Starts a build that waits in a step, with a temporary directory of its own.
fn waiting(bench: &Bench, more: &[&str]) -> (Child, PathBuf) {
    waiting_for(bench, "600", more)
}

/// The same, for this number of seconds.
fn waiting_for(bench: &Bench, seconds: &str, more: &[&str]) -> (Child, PathBuf) {
    let temporary = bench.path("temporary");
    fs::create_dir_all(&temporary).unwrap();
    shell(bench, "app", &[&format!("echo started; exec /busybox sleep {seconds}")]);
    let mut command = bench.command(&[&["build", "--no-cache-directory", "app", "-o", "app.tar"], more].concat());
    command.env("TMPDIR", &temporary).stderr(Stdio::piped()).stdout(Stdio::null());
    (command.spawn().unwrap(), temporary)
}

fn wait_for(child: &mut Child, text: &str) -> impl Iterator<Item = String> + use<> {
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains(text)), "{text}");
    lines
}

#[test]
fn plp_5_a_build_that_exceeds_its_time_limit_is_cancelled() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let bench = bench();
    bench.write("app.tar", "before");
    let (mut child, temporary) = waiting(&bench, &["--time-limit", "2"]);
    let rest: Vec<_> = wait_for(&mut child, "error: ").collect();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{rest:?}");
    nothing_remains(&temporary, "time limit");
    assert_eq!(bench.read("app.tar"), "before");
}

#[test]
fn plp_5_a_buildkitd_that_is_killed_fails_the_build() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let bench = bench();
    bench.write("app.tar", "before");
    // A number of its own, by which the process is found.
    let (mut child, temporary) = waiting_for(&bench, "7531", &[]);
    let lines = wait_for(&mut child, "| started");
    for process in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
        let arguments = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments);
        if arguments.starts_with("buildkitd\0") && arguments.contains(&temporary.display().to_string()) {
            let id = process.file_name().into_string().unwrap();
            Command::new("kill").args(["-KILL", &id]).status().unwrap();
        }
    }
    let rest: Vec<_> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{rest:?}");
    // The container of the step, whose process has the identity of the test in no argument, and its mounts end too.
    nothing_remains(&temporary, "a killed buildkitd");
    wait_for_no_process("sleep\u{0}7531\u{0}");
    assert_eq!(bench.read("app.tar"), "before");
}

/// Waits until no process has these arguments.
fn wait_for_no_process(arguments: &str) {
    let begun = Instant::now();
    let is_running = || {
        let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let mut lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
        lines.any(|line| String::from_utf8_lossy(&line).ends_with(arguments))
    };
    while is_running() {
        assert!(begun.elapsed().as_secs() < 30, "{arguments:?} is still running");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn plp_5_an_interrupted_build_leaves_nothing() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let bench = bench();
    bench.write("app.tar", "before");
    let (mut child, temporary) = waiting(&bench, &["-o", "type=local,dest=out"]);
    let lines = wait_for(&mut child, "| started");
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let rest: Vec<_> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    nothing_remains(&temporary, "interrupt");
    assert_eq!(bench.read("app.tar"), "before");
    let names = bench.names();
    assert!(!names.iter().any(|name| name.starts_with(".ocikit") || name == "out"), "{names:?}");
}

#[test]
fn plp_5_a_full_disk_keeps_the_previous_archive() {
    let Some(peers) = Peers::find(&BUILDERS) else { return };
    let bench = bench();
    context(&bench.path("app"));
    let small = peers.path("small");
    fs::create_dir(&small).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=512k", "none"]).arg(&small).status();
    if !mounted.is_ok_and(|status| status.success()) {
        // Only root can mount.
        return;
    }
    let archive = small.join("app.tar");
    fs::write(&archive, "before").unwrap();
    let outcome = build(&bench, &["app", "-o", &archive.display().to_string()]);
    let (kept, count) = (fs::read_to_string(&archive).unwrap(), fs::read_dir(&small).unwrap().count());
    Command::new("umount").arg(&small).status().unwrap();
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.contains("space"), "{outcome}");
    assert_eq!((kept.as_str(), count), ("before", 1));
}
