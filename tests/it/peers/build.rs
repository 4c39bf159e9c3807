//! `build` with a real BuildKit.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;

use ocikit_tests::{Bench, Daemon, Outcome, Peers};
use serde_json::Value;

use super::engine;
use crate::bench;

const BUILDERS: [&str; 6] = ["buildctl", "buildkitd", "runc", "busybox", "skopeo", "umoci"];

/// Writes a context with a build step that prints `seen` when it runs.
fn context(path: &Path) {
    fs::create_dir_all(path).unwrap();
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists()).unwrap();
    fs::copy(busybox, path.join("busybox")).unwrap();
    let dockerfile = "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"sh\", \"-c\", \"echo built > /built; echo seen\"]\n\
                      COPY file /file\nCMD [\"/bin/busybox\", \"cat\", \"/built\"]\n";
    fs::write(path.join("Dockerfile"), dockerfile).unwrap();
    fs::write(path.join("file"), "one\n").unwrap();
}

/// Sets the environment variables of the plugin, with directories of this test.
fn plugin(bench: Bench) -> Bench {
    let path = |name: &str| bench.path(name).display().to_string();
    let (source, build, cache) = (path("source"), path("build"), path("cache"));
    context(Path::new(&source));
    fs::create_dir_all(&build).unwrap();
    bench.with("PLP_SOURCE_PATH", &source).with("PLP_BUILD_PATH", &build).with("PLP_CACHE_PATH", &cache)
}

fn inspect(bench: &Bench, location: &str) -> Value {
    serde_json::from_str(&bench.ok(&["inspect", "--json", location])).unwrap()
}

#[test]
fn environment_variables_of_the_plugin_build_an_archive() {
    let Some(peers) = Peers::find(&BUILDERS) else { return };
    let (url, sha) = ("https://example.com/a,b=\"c\" ä", "6c22711");
    let bench = plugin(bench()).with("GIT_REPOSITORY_URL", url).with("GIT_SHA", sha);
    let outcome = bench.ocikit(&["build"]);
    assert_eq!(outcome.code, 0, "{outcome}");
    assert_eq!(fs::read_dir(bench.path("build")).unwrap().count(), 1);
    let facts = inspect(&bench, "build/container-image.tar");
    assert_eq!(facts["digest"].as_str(), Some(outcome.stdout.trim()));
    assert_eq!(facts["annotations"]["org.opencontainers.image.source"], url);
    assert_eq!(facts["annotations"]["org.opencontainers.image.revision"], sha);
    let created = "org.opencontainers.image.created";
    assert!(facts["annotations"][created].as_str().is_some_and(|time| time.ends_with('Z')));
    assert_eq!(facts["annotations"][created], facts["descriptorAnnotations"][created]);
    let archive = bench.path("build/container-image.tar");
    peers.ok(&format!("skopeo inspect oci-archive:{}", archive.display()));
    peers.ok(&format!("skopeo copy oci-archive:{} oci:layout:1", archive.display()));
    peers.ok("umoci unpack --rootless --image layout:1 bundle");
    assert_eq!(fs::read_to_string(peers.path("bundle/rootfs/built")).unwrap(), "built\n");

    let unset = plugin(crate::bench());
    unset.ok(&["build"]);
    let facts = inspect(&unset, "build/container-image.tar");
    assert_eq!(facts["annotations"].as_object().unwrap().len(), 1, "an unset variable leaves its annotation out");
}

#[test]
fn a_failed_build_keeps_the_previous_archive() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let bench = plugin(bench());
    bench.ok(&["build"]);
    let archive = bench.path("build/container-image.tar");
    let before = fs::read(&archive).unwrap();
    let fails = |what: &str| -> Outcome {
        let outcome = bench.ocikit(&["build"]);
        assert_eq!(outcome.code, 1, "{what}: {outcome}");
        assert!(fs::read(&archive).unwrap() == before, "{what}");
        assert_eq!(fs::read_dir(bench.path("build")).unwrap().count(), 1, "{what}");
        outcome
    };
    let dockerfile = bench.path("source/Dockerfile");
    fs::write(&dockerfile, "FROM scratch\nCOPY gone /gone\n").unwrap();
    assert!(fails("a missing file").stderr.contains("gone"));
    fs::write(
        &dockerfile,
        "FROM scratch\nCOPY busybox /busybox\nRUN [\"/busybox\", \"sh\", \"-c\", \"echo the reason; exit 7\"]\n",
    )
    .unwrap();
    let outcome = fails("a step that fails");
    assert!(outcome.stderr.contains("exit code: 7") && outcome.stderr.contains("the reason"), "{outcome}");
    fs::write(&dockerfile, "NONSENSE\n").unwrap();
    fails("a Dockerfile that is none");
    fs::remove_file(&dockerfile).unwrap();
    assert!(fails("no Dockerfile").stderr.contains(&dockerfile.display().to_string()));
    fs::remove_dir_all(bench.path("source")).unwrap();
    assert!(fails("no source").stderr.contains(&bench.path("source").display().to_string()));
}

#[test]
fn cached_steps_do_not_run_again() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let bench = plugin(bench());
    let first = bench.ocikit(&["build"]);
    assert!(first.stderr.contains("| seen"), "{first}");
    let size = || {
        let blobs = fs::read_dir(bench.path("cache/buildkit/blobs/sha256")).unwrap();
        blobs.map(|blob| blob.unwrap().metadata().unwrap().len()).sum::<u64>()
    };
    let once = size();
    for number in 0..4 {
        fs::write(bench.path("source/file"), format!("{number}\n")).unwrap();
        let again = bench.ocikit(&["build"]);
        assert_eq!(again.code, 0, "{again}");
        assert!(!again.stderr.contains("| seen"), "the step ran again: {again}");
    }
    assert!(size() < once + 10_000, "{} after {once}", size());
}

#[test]
fn builds_are_reproducible() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let bytes: Vec<_> = (0..2)
        .map(|_| {
            let bench = plugin(bench()).with("SOURCE_DATE_EPOCH", "1700000000").with("GIT_SHA", "abc");
            bench.ok(&["build", "--no-cache-directory"]);
            let facts = inspect(&bench, "build/container-image.tar");
            assert_eq!(facts["annotations"]["org.opencontainers.image.created"], "2023-11-14T22:13:20Z");
            fs::read(bench.path("build/container-image.tar")).unwrap()
        })
        .collect();
    assert!(bytes[0] == bytes[1]);
}

#[test]
fn several_platforms_make_an_index() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let bench = bench();
    fs::create_dir(bench.path("app")).unwrap();
    fs::write(
        bench.path("app/Dockerfile"),
        "FROM scratch\nARG GREETING\nARG TARGETARCH\nCOPY . /$TARGETARCH/$GREETING\n",
    )
    .unwrap();
    let line = ["build", "app", "-o", "app.tar", "--platform", "linux/amd64", "--platform", "linux/arm64"];
    bench.ok(&[&line[..], &["--build-arg", "GREETING=hello", "--tag", "acme/app:1"]].concat());
    let facts = inspect(&bench, "app.tar");
    assert_eq!((&facts["kind"], facts["manifests"].as_array().unwrap().len()), (&Value::from("index"), 2));
    assert_eq!(bench.ok(&["digest", "app.tar#docker.io/acme/app:1"]), facts["digest"].as_str().unwrap());
    assert!(facts["manifests"][1]["annotations"]["org.opencontainers.image.created"].is_string());
}

#[test]
fn docker_loads_built_images() {
    let Some(peers) = Peers::find(&[&BUILDERS[..], &["dockerd", "docker"]].concat()) else { return };
    let bench = plugin(bench());
    bench.ok(&["build", "--tag", "acme/app:1"]);
    let mut daemon = engine(&peers);
    let docker = format!("docker -H {}", daemon.address);
    let archive = bench.path("build/container-image.tar");
    let loaded = peers.ok(&format!("{docker} load -i {}", archive.display()));
    assert!(loaded.contains("acme/app:1"), "{loaded}");
    assert_eq!(peers.ok(&format!("{docker} run --rm --network none acme/app:1")), "built");
    daemon.stop();
}

#[test]
fn a_running_buildkitd_is_used() {
    let Some(peers) = Peers::find(&BUILDERS) else { return };
    let address = format!("unix://{}", peers.path("bk.sock").display());
    let mut command = peers.command("buildkitd");
    command.arg("--root").arg(peers.path("bk")).args(["--addr", &address, "--oci-worker-snapshotter=native"]);
    let mut daemon = Daemon::start(command, &peers.path("bk.log"));
    daemon.wait(|| peers.run(&format!("buildctl --addr {address} debug workers")).code == 0);
    let bench = plugin(bench()).with("BUILDKIT_HOST", &address);
    bench.ok(&["build"]);
    let unreachable = bench.with("BUILDKIT_HOST", "unix:///missing/buildkitd.sock");
    let outcome = unreachable.ocikit(&["build"]);
    assert_eq!(outcome.code, 1, "{outcome}");
}

#[test]
fn a_build_that_ends_does_not_disturb_another() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let slow = plugin(bench());
    let run = |command: &str| format!("RUN [\"/busybox\", \"sh\", \"-c\", \"{command}\"]\n");
    let steps = [run("echo started; sleep 4"), run("echo ended")].concat();
    fs::write(slow.path("source/Dockerfile"), format!("FROM scratch\nCOPY busybox /busybox\n{steps}")).unwrap();
    let mut child = slow.command(&["build"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("| started")));
    plugin(bench()).ok(&["build"]);
    let rest: Vec<_> = lines.collect();
    assert!(child.wait().unwrap().success(), "{rest:?}");
}

#[test]
fn the_daemon_stops_with_ocikit() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let bench = plugin(bench());
    let slow = "FROM scratch\nCOPY busybox /busybox\nRUN [\"/busybox\", \"sleep\", \"600\"]\n";
    fs::write(bench.path("source/Dockerfile"), slow).unwrap();
    let marker = bench.path("temporary");
    fs::create_dir(&marker).unwrap();
    for signal in ["-INT", "-KILL"] {
        let mut command = bench.command(&["build"]);
        command.env("TMPDIR", &marker).stderr(std::process::Stdio::null());
        let mut child = command.spawn().unwrap();
        let running = || ours(&marker);
        while running() == 0 {
            assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        std::thread::sleep(std::time::Duration::from_millis(500));
        std::process::Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        child.wait().unwrap();
        let begun = std::time::Instant::now();
        while running() > 0 {
            assert!(begun.elapsed().as_secs() < 30, "the daemon is still running after {signal}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        while fs::read_dir(&marker).unwrap().count() > 0 {
            assert!(begun.elapsed().as_secs() < 30, "files remain after {signal}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
    assert_eq!(fs::read_dir(bench.path("build")).unwrap().count(), 0);
}

/// Returns the number of processes with a directory in their arguments.
fn ours(directory: &Path) -> usize {
    let needle = directory.display().to_string();
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(&needle)).count()
}
