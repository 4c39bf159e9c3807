//! `build` with a real BuildKit.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;

use ocikit_server::{Action, Fault, Reply};
use ocikit_tests::{Bench, Daemon, Outcome, Peers, Registry, json};
use serde_json::Value;

use super::engine;
use crate::bench;

pub(super) const BUILDERS: [&str; 6] = ["buildctl", "buildkitd", "runc", "busybox", "skopeo", "umoci"];

/// Writes a context with a build step that prints `seen` when it runs.
pub(super) fn context(path: &Path) {
    fs::create_dir_all(path).unwrap();
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists()).unwrap();
    fs::copy(busybox, path.join("busybox")).unwrap();
    let dockerfile = "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"sh\", \"-c\", \"echo built > /built; echo seen\"]\n\
                      COPY file /file\nCMD [\"/bin/busybox\", \"cat\", \"/built\"]\n";
    fs::write(path.join("Dockerfile"), dockerfile).unwrap();
    fs::write(path.join("file"), "one\n").unwrap();
}

/// Flags that, with [`with_every_input`], give a build inputs of every kind.
pub(super) const EVERY_INPUT: [&str; 8] = [
    "--target",
    "wanted",
    "--build-arg",
    "GREETING=hello",
    "--secret",
    "id=t,env=TOKEN",
    "--platform",
    "linux/amd64,linux/arm64",
];

/// Writes a context whose Dockerfile is `Dockerfile.custom`, and puts a program on the path that notes its arguments before it
/// starts the real `buildctl`.
pub(super) fn with_every_input(bench: Bench, peers: &Peers, place: &str) -> Bench {
    context(&bench.path(place));
    let dockerfile = "FROM scratch AS wanted\nARG GREETING\nCOPY file /$GREETING\nFROM scratch\nCOPY nothing /\n";
    bench.write(&format!("{place}/Dockerfile.custom"), dockerfile);
    fs::remove_file(bench.path(place).join("Dockerfile")).unwrap();
    let real = peers.ok("busybox which buildctl");
    let (programs, calls) = (bench.path("programs"), bench.path("calls"));
    let script = format!("#!/bin/sh\necho \"$@\" >> {}\nexec {} \"$@\"\n", calls.display(), real.trim());
    bench.write("programs/buildctl", script);
    #[cfg(unix)]
    fs::set_permissions(programs.join("buildctl"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    bench.with("PATH", &path).with("TOKEN", "s3cret")
}

/// Checks that every input reached one solve, and that the secret is not in its arguments.
pub(super) fn check_every_input(bench: &Bench) {
    let calls = bench.read("calls");
    let solves: Vec<_> = calls.lines().filter(|line| line.contains(" build ")).collect();
    let [solve] = solves[..] else { panic!("{calls}") };
    for part in ["Dockerfile.custom", "target=wanted", "GREETING=hello", "id=t,env=TOKEN", "linux/amd64,linux/arm64"] {
        assert!(solve.contains(part) && !solve.contains("s3cret"), "{part}: {solve}");
    }
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
    bench.json(&["inspect", "--json", location])
}

#[test]
fn plp_1_environment_variables_build_an_archive() {
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
fn plp_5_and_6_a_failed_build_keeps_the_previous_archive() {
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
fn plp_8_cached_steps_do_not_run_again() {
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
        bench.write("source/file", format!("{number}\n"));
        let again = bench.ocikit(&["build"]);
        assert_eq!(again.code, 0, "{again}");
        assert!(!again.stderr.contains("| seen"), "the step ran again: {again}");
    }
    assert!(size() < once + 10_000, "{} after {once}", size());
}

#[test]
fn plp_9_builds_are_reproducible() {
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
    bench.write("source/Dockerfile", slow);
    let marker = bench.path("temporary");
    fs::create_dir(&marker).unwrap();
    for signal in ["-INT", "-KILL"] {
        let mut command = bench.command(&["build"]);
        command.env("TMPDIR", &marker).stderr(std::process::Stdio::null());
        let mut child = command.spawn().unwrap();
        let running = || processes(&marker);
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
pub(super) fn processes(directory: &Path) -> usize {
    let needle = directory.display().to_string();
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(&needle)).count()
}

/// Writes a context whose only step prints its arguments to the log.
pub(super) fn shell(bench: &Bench, name: &str, steps: &[&str]) {
    let path = bench.path(name);
    context(&path);
    let run = |step: &&str| match step.strip_prefix('!') {
        Some(line) => format!("{line}\n"),
        None => format!("RUN [\"/busybox\", \"sh\", \"-c\", {step:?}]\n"),
    };
    let steps: String = steps.iter().map(run).collect();
    fs::write(path.join("Dockerfile"), format!("FROM scratch\nCOPY busybox /busybox\n{steps}")).unwrap();
}

/// Builds with a cache of this test.
pub(super) fn build(bench: &Bench, arguments: &[&str]) -> Outcome {
    bench.ocikit(&[&["build", "--no-cache-directory"], arguments].concat())
}

pub(super) fn built(bench: &Bench, arguments: &[&str]) -> Outcome {
    let outcome = build(bench, arguments);
    assert_eq!(outcome.code, 0, "{outcome}");
    outcome
}

#[test]
fn plp_2_3_and_4_annotations_equal_the_variables() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let annotations = |url: &str, sha: &str| {
        let bench = plugin(bench()).with("GIT_REPOSITORY_URL", url).with("GIT_SHA", sha);
        bench.ok(&["build"]);
        inspect(&bench, "build/container-image.tar")["annotations"].clone()
    };
    let url = "https://example.com/a,b=\"c\" 'd' ä\u{202e}";
    let set = annotations(url, "");
    assert_eq!(set["org.opencontainers.image.source"], url);
    assert!(set.get("org.opencontainers.image.revision").is_none(), "{set}");
}

#[test]
fn plp_7_an_unusable_cache_is_reported_and_not_used() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let bench = plugin(bench());
    bench.write("file", "");
    let cache = bench.path("file").display().to_string();
    let bench = bench.with("PLP_CACHE_PATH", &cache);
    let outcome = bench.ocikit(&["build"]);
    assert_eq!(outcome.code, 0, "{outcome}");
    assert!(outcome.stderr.contains("building without a cache"), "{outcome}");
}

#[test]
fn plp_8_the_cache_stays_below_its_limit() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let bench = plugin(bench()).with("OCIKIT_CACHE_SIZE", "100k");
    let size = || {
        let blobs = fs::read_dir(bench.path("cache/buildkit/blobs/sha256")).unwrap();
        blobs.map(|blob| blob.unwrap().metadata().unwrap().len()).sum::<u64>()
    };
    for number in 0..3 {
        bench.write("source/file", format!("{number}\n"));
        let outcome = bench.ocikit(&["build"]);
        // The layer with busybox exceeds the limit; the layers of the later steps are on top of it.
        assert_eq!(outcome.code, 0, "{outcome}");
        assert!(size() < 120_000, "{}", size());
    }
}

#[test]
fn inputs_have_the_names_of_docker() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let bench = bench().with("FROM_ENVIRONMENT", "taken");
    let steps = [
        "!ARG GIVEN",
        "!ARG FROM_ENVIRONMENT",
        "echo args $GIVEN $FROM_ENVIRONMENT",
        "/busybox cat /etc/hosts",
        "echo files `ulimit -n`",
        "/busybox df -k /dev/shm",
        "!COPY --from=other named /named",
        "/busybox cat /named",
        "!FROM scratch AS unused",
    ];
    shell(&bench, "app", &steps);
    fs::create_dir(bench.path("other")).unwrap();
    bench.write("other/named", "from the named context\n");
    let dockerfile = bench.read("app/Dockerfile");
    bench.write("app/Dockerfile", dockerfile.replacen("FROM scratch", "FROM scratch AS wanted", 1));
    let line =
        ["app", "-o", "app.tar", "--target", "wanted", "--build-arg", "GIVEN=a,b=c", "--build-arg", "FROM_ENVIRONMENT"];
    let more = ["--add-host", "example.test:192.0.2.7", "--ulimit", "nofile=77:88", "--shm-size", "3m"];
    let rest = ["--build-context", "other=other", "--label", "team=web, mobile", "--network", "none"];
    let outcome = built(&bench, &[&line[..], &more, &rest].concat());
    for expected in ["args a,b=c taken", "192.0.2.7", "files 77", "3072", "from the named context"] {
        assert!(outcome.stderr.contains(expected), "{expected}: {outcome}");
    }
    let config = bench.json(&["config", "app.tar"]);
    assert_eq!(config["config"]["Labels"]["team"], "web, mobile");
}

#[test]
fn secrets_are_in_no_layer_log_or_argument() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let bench = bench().with("TOKEN", "s3cret-of-environment");
    bench.write("secret,file", "s3cret-of-file");
    let mount = |id: &str| {
        format!(
            "!RUN --mount=type=secret,id={id},target=/{id} [\"/busybox\", \"sh\", \"-c\", \"/busybox wc -c /{id}\"]"
        )
    };
    shell(&bench, "app", &[&mount("one"), &mount("two")]);
    let secrets = ["--secret", "id=one,env=TOKEN", "--secret", "id=two,\"src=secret,file\""];
    let mut child = bench.command(
        &[&["build", "--no-cache-directory", "app", "-o", "app.tar", "--provenance=mode=max"], &secrets[..]].concat(),
    );
    let mut child = child.stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn().unwrap();
    let mut seen = String::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        seen.push_str(&line.unwrap());
        // The arguments of every process, while the build runs.
        for process in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
            let arguments = fs::read(process.path().join("cmdline")).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&arguments).contains("s3cret-of"), "{process:?}");
        }
    }
    assert!(child.wait().unwrap().success(), "{seen}");
    assert!(seen.contains("21 /one") && seen.contains("14 /two") && !seen.contains("s3cret"), "{seen}");
    let archive = fs::read(bench.path("app.tar")).unwrap();
    assert!(!String::from_utf8_lossy(&archive).contains("s3cret-of"));
    bench.ok(&["copy", "app.tar", "oci:layout:1"]);
    for blob in fs::read_dir(bench.path("layout/blobs/sha256")).unwrap() {
        let blob = fs::read(blob.unwrap().path()).unwrap();
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut ocikit_archive::Decoder::new(&blob[..]).unwrap(), &mut text).unwrap();
        assert!(!String::from_utf8_lossy(&text).contains("s3cret-of"));
    }

    for (value, expected) in [("id=a,env=NO_SUCH_VARIABLE", 2), ("id=a,src=no-such-file", 3), ("src=x", 2)] {
        let outcome = build(&bench, &["app", "--secret", value]);
        assert_eq!(outcome.code, expected, "{outcome}");
    }
}

#[test]
fn a_dockerfile_comes_from_standard_input() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let bench = bench();
    context(&bench.path("app"));
    let with_context = b"FROM scratch\nCOPY file /one\n";
    let outcome =
        bench.ocikit_with_input(&["build", "--no-cache-directory", "app", "-f", "-", "-o", "a.tar"], with_context);
    assert_eq!(outcome.code, 0, "{outcome}");
    assert!(bench.ok(&["ls", "a.tar"]).contains("one"));
    let alone = b"FROM scratch\nWORKDIR /made\n";
    let outcome = bench.ocikit_with_input(&["build", "--no-cache-directory", "-", "-o", "b.tar"], alone);
    assert_eq!(outcome.code, 0, "{outcome}");
    assert!(bench.ok(&["ls", "b.tar"]).contains("made"));
    let outcome = bench.ocikit_with_input(&["build", "-", "-f", "-"], alone);
    assert_eq!(outcome.code, 2, "{outcome}");
}

#[test]
fn one_build_writes_every_output() {
    let Some(peers) = Peers::find(&[&BUILDERS[..], &["crane"]].concat()) else { return };
    let (bench, registry) = (bench(), Registry::start());
    shell(&bench, "app", &["echo ran"]);
    let name = registry.name();
    let (one, two) = (format!("{name}/acme/app:1"), format!("{name}/acme/app:2"));
    let outputs =
        ["-o", "app.tar", "-o", "oci:layout:v1", "-o", "docker-archive:docker.tar", "-o", "type=local,dest=out"];
    let tags = ["--tag", &one, "--tag", &two, "--push"];
    let files = ["--digest-file", "digest", "--iidfile", "iid", "--metadata-file", "metadata.json", "--json"];
    let outcome = built(&bench, &[&["app"], &outputs[..], &tags, &files].concat());
    assert_eq!(outcome.stderr.matches("| ran").count(), 0, "--json shows no progress");
    let result = outcome.json();
    let digest = result["digest"].as_str().unwrap();
    assert_eq!(result["targets"].as_array().unwrap().len(), 5, "{result}");
    for location in ["app.tar", "oci:layout:v1", &one, &two] {
        assert_eq!(bench.ok(&["digest", location]), digest, "{location}");
    }
    assert_eq!(peers.ok(&format!("crane digest {two} --insecure")), digest);
    assert!(bench.path("out/busybox").exists());
    assert_eq!(bench.read("digest").trim(), digest);
    let facts = inspect(&bench, "app.tar");
    let config = bench.ok(&["manifest", "get", "app.tar"]);
    let config = json(&config);
    assert_eq!(bench.read("iid"), config["config"]["digest"].as_str().unwrap(), "{facts}");
    let metadata: Value = serde_json::from_slice(&fs::read(bench.path("metadata.json")).unwrap()).unwrap();
    assert_eq!(metadata["containerimage.digest"], digest);
    assert_eq!(metadata["containerimage.descriptor"]["digest"], digest);
    assert_eq!(metadata["image.name"], format!("{one},{two}"));
    let blobs =
        |exchange: &str| registry.requests().iter().filter(|found| format!("{found:?}").contains(exchange)).count();
    assert!(blobs("PUT") >= 3);
}

#[test]
fn nothing_is_visible_after_a_failed_build() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let (bench, registry) = (bench(), Registry::start());
    shell(&bench, "app", &["echo one > /one", "exit 7"]);
    let tag = format!("{}/acme/app:1", registry.name());
    let line = ["app", "-o", "app.tar", "-o", "oci:layout:v1", "-o", "type=local,dest=out", "--tag", &tag, "--push"];
    let outcome = build(&bench, &line);
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.contains("exit code: 7"), "{outcome}");
    assert!(!bench.path("app.tar").exists() && !bench.path("out").exists());
    assert_ne!(bench.ocikit(&["digest", "oci:layout:v1"]).code, 0);
    assert_eq!(bench.ocikit(&["digest", &tag]).code, 3);
    let names = bench.names();
    assert!(!names.iter().any(|name| name.starts_with(".ocikit")), "{names:?}");
}

#[test]
fn annotations_have_the_scopes_of_docker() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let bench = bench();
    fs::create_dir(bench.path("app")).unwrap();
    bench.write("app/Dockerfile", "FROM scratch\nWORKDIR /made\n");
    let scopes = ["A=plain", "index:A=index", "manifest-descriptor[linux/arm64]:A=entry", "index-descriptor:A=own"];
    let annotations: Vec<_> = scopes.iter().flat_map(|scope| ["--annotation", scope]).collect();
    built(&bench, &[&["app", "-o", "app.tar", "--platform", "linux/amd64,linux/arm64"], &annotations[..]].concat());
    let facts = inspect(&bench, "app.tar");
    assert_eq!(facts["annotations"]["A"], "index", "{facts}");
    assert_eq!(facts["descriptorAnnotations"]["A"], "own", "{facts}");
    let manifest = |platform: &str| -> Value { bench.json(&["inspect", "--json", "--platform", platform, "app.tar"]) };
    assert_eq!(manifest("linux/amd64")["annotations"]["A"], "plain");
    let index = bench.json(&["manifest", "get", "app.tar"]);
    assert_eq!(index["manifests"][1]["annotations"]["A"], "entry", "{index}");
    assert!(index["manifests"][0]["annotations"].get("A").is_none(), "{index}");
}

#[test]
fn attestations_name_the_annotated_image() {
    let Some(peers) = Peers::find(&[&BUILDERS[..], &["crane"]].concat()) else { return };
    let bench = bench();
    let registry = peers.distribution("registry");
    shell(&bench, "scanner", &["!ENTRYPOINT [\"/busybox\", \"sh\", \"/scan\"]", "!COPY scan /scan"]);
    let scan = "/busybox echo '{\"_type\":\"https://in-toto.io/Statement/v0.1\",\"predicateType\":\"https://spdx.dev/Document\",\"predicate\":{\"name\":\"found\"}}' > $BUILDKIT_SCAN_DESTINATION/scan.spdx.json\n";
    bench.write("scanner/scan", scan);
    let scanner = format!("{}/scanner:1", registry.address);
    built(&bench, &["scanner", "--tag", &scanner, "--push"]);

    shell(&bench, "app", &["echo one > /one"]);
    let sbom = format!("--sbom=generator={scanner}");
    built(
        &bench,
        &[
            "app",
            "-o",
            "app.tar",
            "--tag",
            "acme/app:1",
            "--provenance=mode=max",
            &sbom,
            "--metadata-file",
            "metadata.json",
        ],
    );
    let index = bench.json(&["manifest", "get", "app.tar"]);
    let image = index["manifests"][0]["digest"].as_str().unwrap();
    let attestation = &index["manifests"][1];
    assert_eq!(attestation["annotations"]["vnd.docker.reference.digest"], image, "{index}");
    let read = |digest: &Value| -> Value {
        let text = bench.ok(&["blob", "get", &format!("app.tar@{}", digest.as_str().unwrap())]);
        serde_json::from_str(&text).unwrap()
    };
    let manifest = read(&attestation["digest"]);
    let statements: Vec<_> =
        manifest["layers"].as_array().unwrap().iter().map(|layer| read(&layer["digest"])).collect();
    assert_eq!(statements.len(), 2, "{manifest}");
    for statement in &statements {
        assert_eq!(statement["subject"][0]["digest"]["sha256"], image.trim_start_matches("sha256:"), "{statement}");
    }
    let metadata: Value = serde_json::from_slice(&fs::read(bench.path("metadata.json")).unwrap()).unwrap();
    assert!(metadata["buildx.build.provenance"].is_object(), "{metadata}");
    assert_eq!(metadata["containerimage.digest"], bench.ok(&["digest", "app.tar"]));
    let facts = inspect(&bench, "app.tar").to_string();
    assert!(facts.contains("attestation"), "{facts}");
    bench.ok(&["validate", "app.tar"]);
}

/// One tag of a repository that is refused or fails does not hide that another was given.
#[test]
fn each_tag_of_a_build_has_its_own_result() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let bench = bench();
    shell(&bench, "app", &["echo one > /one"]);
    for status in [403, 500] {
        let registry = Registry::start();
        registry.faults().add(Fault::on("PUT /v2/acme/app/manifests/b", Action::Answer(Reply::status(status))));
        let tag = |name: &str| format!("{}/acme/app:{name}", registry.name());
        let line = ["app", "--tag", &tag("a"), "--tag", &tag("b"), "--push"];
        for extra in [&[][..], &["--push-by-buildkit"]] {
            let outcome = build(&bench, &[&line[..], extra].concat());
            assert_eq!(outcome.code, 7, "{status}: {outcome}");
            assert!(outcome.stderr.contains("1 of 2 outputs"), "{status}: {outcome}");
            bench.ok(&["digest", &tag("a")]);
            assert_eq!(bench.ocikit(&["digest", &tag("b")]).code, 3, "{status}");
        }
    }
}

#[test]
fn several_builders_make_one_index() {
    let Some(peers) = Peers::find(&BUILDERS) else { return };
    let mut daemons = Vec::new();
    let mut builders = Vec::new();
    for platform in ["linux/amd64", "linux/arm64"] {
        let name = platform.replace('/', "-");
        let address = format!("unix://{}", peers.path(&format!("{name}.sock")).display());
        let mut command = peers.command("buildkitd");
        command.arg("--root").arg(peers.path(&name)).args(["--addr", &address, "--oci-worker-snapshotter=native"]);
        command.arg(format!("--otel-socket-path={}", peers.path(&format!("{name}-otel.sock")).display()));
        let mut daemon = Daemon::start(command, &peers.path(&format!("{name}.log")));
        daemon.wait(|| peers.run(&format!("buildctl --addr {address} debug workers")).code == 0);
        daemons.push(daemon);
        builders.push(format!("--builder={platform}={address}"));
    }
    let bench = bench().with("SOURCE_DATE_EPOCH", "1700000000");
    fs::create_dir(bench.path("app")).unwrap();
    let dockerfile = "FROM scratch\nARG TARGETARCH\nCOPY . /$TARGETARCH/\n";
    bench.write("app/Dockerfile", dockerfile);
    let line = ["app", "--provenance=mode=min", &builders[0], &builders[1], "-o"];
    let outcome = built(&bench, &[&line[..], &["app.tar"]].concat());
    assert!(outcome.stderr.contains("linux/arm64: "), "{outcome}");
    let index = bench.json(&["manifest", "get", "app.tar"]);
    let entries = index["manifests"].as_array().unwrap();
    let images: Vec<_> = entries.iter().filter(|entry| entry["platform"]["os"] == "linux").collect();
    assert_eq!((images.len(), entries.len()), (2, 4), "{index}");
    for (architecture, other) in [("amd64", "arm64"), ("arm64", "amd64")] {
        let files = bench.ok(&["ls", "--platform", &format!("linux/{architecture}"), "app.tar"]);
        assert!(files.contains(architecture) && !files.contains(other), "{files}");
    }
    bench.ok(&["validate", "app.tar"]);

    bench.write("app/Dockerfile", "FROM scratch\nCOPY gone /\n");
    let before = fs::read(bench.path("app.tar")).unwrap();
    assert_eq!(build(&bench, &[&line[..], &["app.tar"]].concat()).code, 1);
    assert!(fs::read(bench.path("app.tar")).unwrap() == before);
    let outcome = build(&bench, &["app", &builders[0], "--platform", "linux/s390x"]);
    assert_eq!(outcome.code, 2, "{outcome}");
    let status = bench.ocikit(&["buildkit", "status", &builders[0], "--json"]);
    let status = json(&status.ok());
    assert_eq!(status["builders"][0]["used"], true, "{status}");
    daemons.iter_mut().for_each(Daemon::stop);
}

#[test]
fn status_says_which_buildkit_would_be_used() {
    let Some(peers) = Peers::find(&BUILDERS) else { return };
    let bench = bench();
    let status = bench.json(&["buildkit", "status", "--json"]);
    let daemon = &status["builders"][0];
    assert_eq!((&daemon["kind"], &daemon["used"]), (&Value::from("buildkitd"), &Value::from(true)), "{status}");
    assert!(daemon["version"].as_str().is_some_and(|version| version.starts_with('v')), "{status}");
    let unreachable = bench.ocikit(&["buildkit", "status", "--addr", "unix:///missing.sock"]);
    assert_eq!(unreachable.code, 3, "{unreachable}");
    assert!(unreachable.stdout.starts_with("unix:///missing.sock: cannot be used: "), "{unreachable}");

    // A search path without `runc`, which buildkitd would notice only in the first step.
    let path = peers.path("no-runc");
    fs::create_dir(&path).unwrap();
    for program in ["buildctl", "buildkitd"] {
        let found = peers.ok(&format!("busybox which {program}"));
        std::os::unix::fs::symlink(found, path.join(program)).unwrap();
    }
    let without = bench.with("PATH", &path.display().to_string());
    let outcome = without.ocikit(&["buildkit", "status"]);
    assert!(outcome.code == 3 && outcome.stdout.contains("cannot start `runc`"), "{outcome}");
}

#[test]
fn the_dockerfile_is_checked() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let bench = bench();
    shell(&bench, "app", &["echo one"]);
    bench.ok(&["build", "--check", "app"]);
    bench.write("app/Dockerfile", "from scratch\nCOPY file /file\nENV TOKEN=x\n");
    let outcome = bench.ocikit(&["build", "--check", "app"]);
    assert_eq!(outcome.code, 5, "{outcome}");
    assert!(outcome.stdout.contains("SecretsUsedInArgOrEnv"), "{outcome}");
    let printed = bench.ok(&["build", "--print", "app", "--secret", "id=a,env=PATH", "--target", "x y"]);
    assert!(
        printed.contains("buildctl --addr=unix://TEMPORARY/buildkitd.sock") && printed.contains("'--opt=target=x y'"),
        "{printed}"
    );
}

/// Returns the mounts and processes of a directory.
fn remains(directory: &Path) -> Vec<String> {
    let needle = directory.display().to_string();
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let mounts = mounts.lines().filter(|line| line.contains(&needle)).map(str::to_owned);
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path().display().to_string());
    mounts.chain(files).chain((0..processes(directory)).map(|_| "a process".to_owned())).collect()
}

/// Waits until a build that failed has left nothing.
pub(super) fn nothing_remains(directory: &Path, what: &str) {
    let begun = std::time::Instant::now();
    while !remains(directory).is_empty() {
        assert!(begun.elapsed().as_secs() < 30, "{what}: {:?}", remains(directory));
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn a_terminal_shows_a_tree_of_steps() {
    let Some(peers) = Peers::find(&[&BUILDERS[..], &["script"]].concat()) else { return };
    let bench = bench();
    shell(&bench, "app", &["printf 'one\\n\\033[2Jtwo\\n'", "echo the reason; exit 7"]);
    let program = bench.command::<&str>(&[]).get_program().to_owned();
    let line = format!("{} build --no-cache-directory app -o app.tar", program.display());
    let mut command = peers.command("script");
    command.args(["-qec", &line, "/dev/null"]).current_dir(bench.path("")).env("TERM", "xterm");
    let output = command.stdin(std::process::Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("DONE [2/3] RUN") && text.contains("ERROR [3/3] RUN"), "{text}");
    assert!(text.contains("  | the reason") && text.contains("exit code: 7"), "{text}");
    assert!(text.contains("\\u{1b}[2Jtwo") && !text.contains("\u{1b}[2Jtwo"), "{text:?}");
    assert_eq!(text.matches("DONE [2/3] RUN").count(), 1, "{text}");
}
