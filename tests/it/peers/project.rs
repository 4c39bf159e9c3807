//! `project` with a real BuildKit.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ocikit::Platform;
use ocikit_publish::project::{Arguments, Dockerfile};
use ocikit_server::{Action, Fault, Reply};
use ocikit_tests::{Bench, Daemon, Peers, Registry, json};
use serde_json::Value;

use crate::bench;
use crate::faults::pseudo_random;
use crate::project::{example, generated, generated_parents};

const BUILDERS: [&str; 3] = ["buildctl", "buildkitd", "runc"];

/// Starts a BuildKit that all builds of a test use.
fn buildkit(peers: &Peers) -> Daemon {
    let address = format!("unix://{}", peers.path("buildkitd.sock").display());
    let mut command = peers.command("buildkitd");
    command.arg("--addr").arg(&address).arg("--root").arg(peers.path("buildkit"));
    command.arg("--oci-worker-snapshotter=native").arg("--otel-socket-path").arg(peers.path("otel.sock"));
    let mut daemon = Daemon::start(command, &peers.path("buildkitd.log"));
    daemon.wait(|| peers.run(&format!("buildctl --addr {address} debug workers")).code == 0);
    daemon.address = address;
    daemon
}

fn project(daemon: &Daemon) -> Bench {
    let bench = bench().with("BUILDKIT_HOST", &daemon.address);
    example(&bench.path("."));
    bench
}

/// Returns `name status` of each image.
fn statuses(result: &Value) -> Vec<String> {
    let images = result["images"].as_array().unwrap().iter();
    let text = |image: &Value, key: &str| image[key].as_str().unwrap().to_owned();
    images.map(|image| format!("{} {}", text(image, "name"), text(image, "status"))).collect()
}

fn write(bench: &Bench, path: &str, text: &str) {
    bench.write(&format!("contexts/{path}"), text);
}

#[test]
fn cip_5_build_writes_layouts_and_resolves_siblings_without_a_registry() {
    let Some(peers) = Peers::find(&BUILDERS) else { return };
    let daemon = buildkit(&peers);
    let bench = project(&daemon);
    write(&bench, "00-debian-slim/file", "base\n");
    write(&bench, "00-debian-slim/Dockerfile", "ARG REGISTRY\nFROM scratch\nCOPY file /base\n");
    // Nothing listens at this registry.
    let build = |more: &[&str]| {
        let arguments = [&["project", "build", "--json", "--local-registry", "127.0.0.1:1/p"], more].concat();
        bench.json(&arguments)
    };
    let built = build(&[]);
    assert_eq!(statuses(&built), ["debian-slim built", "dev built", "java built", "clojure-dev built"]);
    assert_eq!(bench.ok(&["cat", "oci:.ocikit-images/clojure-dev:0.1.0", "/base"]), "base");
    for name in ["debian-slim:1.2.9", "debian-slim:latest", "clojure-dev:latest"] {
        let inspected = bench.json(&["inspect", "--json", &format!("oci:.ocikit-images/{name}")]);
        let platforms = inspected["platforms"].as_array().map_or(0, Vec::len);
        assert!(platforms <= 1, "only the platform of this machine: {inspected}");
    }
    // Layouts share the layers of their bases.
    let platform = Platform::of_this_machine().to_string();
    let layer = |name: &str| {
        let config =
            bench.json(&["manifest", "get", &format!("oci:.ocikit-images/{name}:latest"), "--platform", &platform]);
        let digest = config["layers"][0]["digest"].as_str().unwrap().replace(':', "/");
        fs::metadata(bench.path(".ocikit-images").join(name).join("blobs").join(digest)).unwrap().ino()
    };
    assert_eq!(layer("debian-slim"), layer("clojure-dev"));
    let again = build(&[]);
    assert!(statuses(&again).iter().all(|status| status.ends_with(" present")), "{again}");
    // A changed file rebuilds the image and what is built from it.
    write(&bench, "02-java/file", "x");
    let again = build(&[]);
    assert_eq!(statuses(&again), ["debian-slim present", "dev present", "java built", "clojure-dev built"]);
}

#[test]
fn cip_6_and_18_publish_moves_version_and_latest_together_and_never_back() {
    let Some(peers) = Peers::find(&BUILDERS) else { return };
    let (daemon, registry) = (buildkit(&peers), Registry::start());
    let bench = project(&daemon);
    let place = format!("{}/group", registry.name());
    let publish = |bench: &Bench| bench.json(&["project", "publish", "--json", "--remote-registry", &place]);
    let published = publish(&bench);
    assert_eq!(statuses(&published), ["debian-slim built", "dev built", "java built", "clojure-dev built"]);
    for image in published["images"].as_array().unwrap() {
        let name = format!("group/{}", image["name"].as_str().unwrap());
        let digest = registry.verified_digest(&name, image["version"].as_str().unwrap()).unwrap();
        assert_eq!(registry.verified_digest(&name, "latest"), Some(digest));
        assert_eq!(image["digest"].as_str().unwrap(), digest.to_string());
        let index: Value = serde_json::from_str(&bench.ok(&[
            "inspect",
            "--raw",
            &format!("{place}/{}", image["name"].as_str().unwrap()),
        ]))
        .unwrap();
        let entries = index["manifests"].as_array().unwrap();
        let of = |architecture: &str| {
            entries.iter().filter(|entry| entry["platform"]["architecture"] == architecture).count()
        };
        assert_eq!((of("amd64"), of("arm64"), of("unknown")), (1, 1, 2), "two platforms with provenance: {index}");
    }
    registry.clear_requests();
    let again = publish(&bench);
    assert_eq!(statuses(&again), [""; 0], "nothing is left to do");
    assert_eq!(registry.requests().len(), 4, "one request per image");
    // An older version gets its tag, and `latest` stays.
    let latest = registry.verified_digest("group/java", "latest").unwrap();
    write(&bench, "02-java/info.edn", "{:version \"0.2.9\"}\n");
    write(&bench, "03-clojure-dev/Dockerfile", "ARG REGISTRY\nFROM ${REGISTRY}/java:0.2.9\n");
    let older = publish(&bench);
    assert_eq!(statuses(&older), ["java built"]);
    assert_eq!(older["images"][0]["tags"], serde_json::json!(["0.2.9"]));
    assert_eq!(registry.verified_digest("group/java", "latest"), Some(latest));
    assert!(registry.verified_digest("group/java", "0.2.9").is_some());
}

#[test]
fn cip_13_keep_going_skips_descendants_only() {
    let Some(peers) = Peers::find(&BUILDERS) else { return };
    let daemon = buildkit(&peers);
    let bench = project(&daemon);
    write(&bench, "01-dev/Dockerfile", "ARG REGISTRY\nFROM ${REGISTRY}/debian-slim:1.2.9\nCOPY missing /\n");
    for (flag, java, code) in [("--keep-going", "built", 7), ("--stop-on-first-error", "skipped", 7)] {
        let arguments =
            ["project", "build", "--json", "--parallel", "1", "--layouts", flag.trim_start_matches('-'), flag];
        let outcome = bench.ocikit(&arguments);
        assert_eq!(outcome.code, code, "{outcome}");
        let result = outcome.json();
        let expected =
            ["debian-slim built", "dev failed", &format!("java {java}"), "clojure-dev skipped"].map(str::to_owned);
        assert_eq!(statuses(&result), expected, "{outcome}");
        assert!(outcome.stderr.contains("dev:2.0.9"), "{outcome}");
    }
    let outcome = bench.ocikit(&["project", "cip", "build", "--keep-going"]);
    assert_eq!(outcome.code, 1, "{outcome}");
}

/// The number of images is that of `OCIKIT_PROJECT_IMAGES`, by default as many as a test has time for.
#[test]
fn generated_images_are_built_once_along_the_graph() {
    const FAILING: usize = 8;
    let Some(peers) = Peers::find(&BUILDERS) else { return };
    let (daemon, registry) = (buildkit(&peers), Registry::start());
    let bench = bench().with("BUILDKIT_HOST", &daemon.address);
    let count = std::env::var("OCIKIT_PROJECT_IMAGES").ok().and_then(|text| text.parse().ok()).unwrap_or(48);
    generated(&bench, count);
    for image in 0..count {
        // Not empty, so that every image has a layer.
        let path = bench.path(&format!("contexts/{image}-image{image}/Dockerfile"));
        let text = fs::read_to_string(&path).unwrap() + &format!("COPY info.edn /own{image}\n");
        fs::write(path, text).unwrap();
    }
    let failing = bench.path(&format!("contexts/{FAILING}-image{FAILING}/Dockerfile"));
    let good = fs::read_to_string(&failing).unwrap();
    fs::write(&failing, format!("{good}COPY missing /\n")).unwrap();
    let mut below = vec![false; count];
    below[FAILING] = true;
    for image in FAILING + 1..count {
        below[image] = generated_parents(image).iter().any(|parent| below[*parent]);
    }
    let publish = ["project", "publish", "--json", "--only-local-platform", "--keep-going", "--remote-registry"];
    let place = registry.name();
    let publish = [&publish[..], &[&place]].concat();
    let outcome = bench.ocikit(&publish);
    assert_eq!(outcome.code, 7, "{outcome}");
    let result = outcome.json();
    let status_of = |result: &Value, image: usize| {
        let name = format!("image{image}");
        let found = result["images"].as_array().unwrap().iter().find(|found| found["name"] == name.as_str());
        found.map(|found| found["status"].as_str().unwrap().to_owned())
    };
    for (image, below) in below.iter().enumerate() {
        let expected = match (image, below) {
            (FAILING, _) => "failed",
            (_, true) => "skipped",
            (_, false) => "built",
        };
        assert_eq!(status_of(&result, image).as_deref(), Some(expected), "image{image}");
    }
    fs::write(&failing, good).unwrap();
    let repaired = bench.json(&publish);
    for (image, below) in below.iter().enumerate() {
        assert_eq!(status_of(&repaired, image).as_deref(), below.then_some("built"), "image{image}");
    }
    registry.clear_requests();
    let again = bench.json(&publish);
    assert_eq!(again["images"].as_array().unwrap().len(), 0);
    assert_eq!(registry.requests().len(), count, "one request per image");
}

#[test]
fn cip_17_flags_after_two_dashes_reach_the_solve() {
    let Some(peers) = Peers::find(&BUILDERS) else { return };
    let daemon = buildkit(&peers);
    let bench = project(&daemon);
    bench.ok(&["project", "cip", "build", "--", "--no-cache", "--label", "team=a b"]);
    let config = bench.json(&["config", "oci:.ocikit-images/java:0.3.0"]);
    assert_eq!(config["config"]["Labels"]["team"], "a b", "{config}");
    for flags in [&["--nonsense"][..], &["directory"], &["--file", "contexts/01-dev/Dockerfile"]] {
        let outcome = bench.ocikit(&[&["project", "build", "--"], flags].concat());
        assert_eq!((outcome.code, outcome.stdout.as_str()), (2, ""), "{outcome}");
    }
}

#[test]
fn cip_14_and_15_images_move_between_registries_and_layouts() {
    let Some(peers) = Peers::find(&BUILDERS) else { return };
    let (daemon, remote, local) = (buildkit(&peers), Registry::start(), Registry::start());
    let bench = project(&daemon);
    bench.ok(&["project", "cip", "publish", "--remote-registry", &remote.name()]);
    let upload = [
        "project",
        "cip",
        "upload-all-to-local-registry",
        "--remote-registry",
        &remote.name(),
        "--local-registry",
        &local.name(),
    ];
    bench.ok(&upload);
    for (name, version) in [("debian-slim", "1.2.9"), ("clojure-dev", "0.1.0")] {
        let digest = remote.verified_digest(name, version);
        assert!(digest.is_some());
        assert_eq!(local.verified_digest(name, version), digest);
        assert_eq!(local.verified_digest(name, "latest"), digest);
    }
    local.clear_requests();
    bench.ok(&upload);
    assert!(local.requests().iter().all(|request| request.method != "PUT" && request.method != "POST"));
    let pull = ["project", "cip", "pull-latest-from-remote-registry", "--remote-registry", &remote.name()];
    bench.ok(&pull);
    bench.ok(&["validate", "oci:.ocikit-images/clojure-dev:latest"]);
    // The remaining subcommands by their names.
    let own = Registry::start();
    bench.ok(&["project", "cip", "publish-locally", "--local-registry", &own.name()]);
    assert!(own.verified_digest("clojure-dev", "0.1.0").is_some());
    let other = project(&daemon);
    other.ok(&["project", "cip", "pull-latest-from-local-registry", "--local-registry", &own.name()]);
    other.ok(&["validate", "oci:.ocikit-images/dev:latest"]);
    write(&other, "00-debian-slim/info.edn", "{:version \"1.3.0\"}\n");
    other.ok(&["project", "cip", "cascade-version-updates"]);
    assert!(other.ok(&["project", "graph"]).contains("clojure-dev 0.1.1"));
    // An image that the registry lacks is listed, and an error only if asked for.
    write(&bench, "04-new/Dockerfile", "FROM scratch\n");
    write(&bench, "04-new/info.edn", "{:version \"1.0.0\"}\n");
    let outcome = bench.ocikit(&["project", "pull", "--registry", &local.name()]);
    assert_eq!(outcome.code, 0, "{outcome}");
    assert!(outcome.stderr.contains("new:1.0.0: the source does not have it"), "{outcome}");
    let outcome = bench.ocikit(&["project", "pull", "--registry", &local.name(), "--require-all"]);
    assert_eq!(outcome.code, 3, "{outcome}");
}

/// The images of the example with their versions.
const EXAMPLE: [(&str, &str); 4] =
    [("debian-slim", "1.2.9"), ("dev", "2.0.9"), ("java", "0.3.0"), ("clojure-dev", "0.1.0")];

/// Checks what a killed publication left: a version that exists is complete, signed, and `latest` points to the same image. A
/// layout that exists is complete too.
fn check_no_half_state(bench: &Bench, registry: &Registry) -> usize {
    let mut published = 0;
    for (name, version) in EXAMPLE {
        let layout = format!(".ocikit-images/{name}");
        if bench.path(&layout).join("index.json").exists() {
            bench.ok(&["validate", &format!("oci:{layout}:{version}")]);
        }
        registry.wait_until_quiet(name);
        let Some(digest) = registry.verified_digest(name, version) else { continue };
        assert_eq!(registry.verified_digest(name, "latest"), Some(digest), "{name}");
        bench.ok(&["verify", &format!("{}/{name}:{version}", registry.name()), "--key", "ocikit.pub"]);
        published += 1;
    }
    published
}

/// Killed at 30 random moments, two thirds of them after the builds, so that they hit the uploads, signatures and tags.
#[test]
fn a_killed_publication_leaves_no_half_state_and_is_finished_by_a_rerun() {
    let Some(peers) = Peers::find(&BUILDERS) else { return };
    let daemon = buildkit(&peers);
    let prepared = project(&daemon);
    prepared.ok(&["keygen", "--unencrypted", "-o", "ocikit"]);
    let publish = |bench: &Bench, registry: &Registry| {
        let arguments = ["project", "publish", "--only-local-platform", "--key", "ocikit.key", "--remote-registry"];
        bench.command(&[&arguments[..], &[&registry.name()]].concat())
    };
    let first = Registry::start();
    let begun = Instant::now();
    assert!(publish(&prepared, &first).output().unwrap().status.success());
    let with_builds = begun.elapsed().as_micros() as u64;
    let mut without_builds = 0;
    let mut interrupted = 0;
    for round in 0..30 {
        let (registry, bench) = (Registry::start(), project(&daemon));
        let is_built = round % 3 != 0;
        let mut copied = vec!["ocikit.key", "ocikit.pub"];
        if is_built {
            copied.push(".ocikit-images");
        }
        for name in copied {
            let copy = Command::new("cp").arg("-R").arg(prepared.path(name)).arg(bench.path(name)).status();
            assert!(copy.unwrap().success());
        }
        if is_built && without_builds == 0 {
            let begun = Instant::now();
            let (registry, whole) = (Registry::start(), &bench);
            assert!(publish(whole, &registry).output().unwrap().status.success());
            without_builds = begun.elapsed().as_micros() as u64;
        }
        let limit = if is_built { without_builds } else { with_builds };
        let mut child = publish(&bench, &registry).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(pseudo_random(round, limit.max(1))));
        let _ = child.kill();
        child.wait().unwrap();
        let published = check_no_half_state(&bench, &registry);
        interrupted += usize::from(published < EXAMPLE.len());
        let rerun = publish(&bench, &registry).output().unwrap();
        assert!(rerun.status.success(), "{}", String::from_utf8_lossy(&rerun.stderr));
        assert_eq!(check_no_half_state(&bench, &registry), EXAMPLE.len());
    }
    eprintln!("{interrupted} of 30 runs were killed before everything was published");
    assert!(interrupted > 0);
}

/// The image is signed before it has a tag, and the reports are those of `publish`.
#[test]
fn publications_are_annotated_signed_and_reported() {
    let programs = [&BUILDERS[..], &["registry", "cosign", "crane"]].concat();
    let Some(peers) = Peers::find(&programs) else { return };
    let (daemon, registry) = (buildkit(&peers), peers.distribution("registry"));
    let bench = project(&daemon);
    let place = format!("{}/acme", registry.address.replace("127.0.0.1", "localhost"));
    // Images that were built for another registry without provenance get it, from the cache of BuildKit.
    bench.ok(&["project", "build"]);
    bench.ok(&["keygen", "--unencrypted", "-o", "ocikit"]);
    let mut line = vec!["project", "publish", "--json", "--only-local-platform", "--remote-registry", &place];
    line.extend(["--key", "ocikit.key", "--format", "cosign-legacy", "--format", "cosign"]);
    line.extend(["--attest-build", "--attest-published", "--annotation", "org.example.team=a,b=c"]);
    line.extend(["--report", "report.json", "--html", "report.html", "--summary", "report.md"]);
    line.extend(["--build-report", "build.json", "--outputs", "outputs.env"]);
    let published = bench.json(&line);
    assert!(statuses(&published).iter().all(|status| status.ends_with(" built")), "{published}");
    let key = bench.path("ocikit.pub").display().to_string();
    let flags = "--insecure-ignore-tlog --allow-http-registry --private-infrastructure";
    for image in published["images"].as_array().unwrap() {
        assert_eq!(image["signatures"].as_array().unwrap().len(), 2, "{image}");
        let (name, version) = (image["name"].as_str().unwrap(), image["version"].as_str().unwrap());
        let reference = format!("{place}/{name}:{version}");
        peers.ok(&format!("cosign verify --key {key} {flags} {reference}"));
        bench.ok(&["verify", &reference, "--key", "ocikit.pub"]);
        let index = json(&peers.ok(&format!("crane manifest --insecure {reference}")));
        assert_eq!(index["annotations"]["org.example.team"], "a,b=c", "{index}");
        let digest = index["manifests"][0]["digest"].as_str().unwrap();
        let manifest = peers.ok(&format!("crane manifest --insecure {place}/{name}@{digest}"));
        let manifest = json(&manifest);
        assert_eq!(manifest["annotations"]["org.example.team"], "a,b=c", "{manifest}");
    }
    let read = |name: &str| bench.read(name);
    let report = json(&read("report.json"));
    assert_eq!((report["status"].as_str(), report["images"].as_array().unwrap().len()), (Some("succeeded"), 4));
    let target = &report["images"][0]["publication"]["targets"][0];
    assert_eq!(target["signed"], true, "{report}");
    // Provenance of the build, and the statement.
    assert_eq!(target["attestations"].as_array().unwrap().len(), 2, "{report}");
    let nine = json(&read("build.json"));
    assert_eq!((nine[3]["signed"].as_bool(), nine[3].as_object().unwrap().len()), (Some(true), 9), "{nine}");
    assert!(read("report.md").contains(&format!("| {place}/java:0.3.0 |")), "{}", read("report.md"));
    assert!(read("report.html").contains("debian-slim:1.2.9"));
    assert!(read("outputs.env").contains("OCIKIT_IMAGES="), "{}", read("outputs.env"));
    // Nothing is left to do, and the report says so.
    line.extend(["--parallel", "1"]);
    assert_eq!(statuses(&bench.json(&line)), [""; 0]);
    let report = json(&read("report.json"));
    assert_eq!(report["images"][3]["status"], "up-to-date", "{report}");
    let outcome = bench.ocikit(&["project", "publish", "--remote-registry", &place, "--attest-published"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (2, ""), "{outcome}");
}

/// A failed tag is not hidden by the version: the next run puts it.
#[test]
fn a_tag_that_fails_leaves_the_version_unpublished() {
    let Some(peers) = Peers::find(&BUILDERS) else { return };
    let (daemon, registry) = (buildkit(&peers), Registry::start());
    let bench = project(&daemon);
    let refused = Action::Answer(Reply::status(403));
    let fault = registry.faults().add(Fault::on("PUT /v2/java/manifests/latest", refused));
    let publish =
        ["project", "publish", "--only-local-platform", "--keep-going", "--remote-registry", &registry.name()];
    let outcome = bench.ocikit(&publish);
    assert_eq!(outcome.code, 7, "{outcome}");
    assert!(outcome.stderr.contains("latest: ") && outcome.stderr.contains("403"), "{outcome}");
    assert_eq!(registry.verified_digest("java", "0.3.0"), None);
    assert!(registry.verified_digest("dev", "2.0.9").is_some());
    fault.remove();
    bench.ok(&publish);
    assert_eq!(registry.verified_digest("java", "0.3.0"), registry.verified_digest("java", "latest"));
}

#[test]
fn a_published_image_wins_over_a_layout_with_other_contents() {
    let Some(peers) = Peers::find(&BUILDERS) else { return };
    let (daemon, registry) = (buildkit(&peers), Registry::start());
    let bench = project(&daemon);
    let publish = ["project", "publish", "--only-local-platform", "--remote-registry", &registry.name()];
    bench.ok(&publish);
    // The layout gets another image under the same version.
    write(&bench, "00-debian-slim/extra", "x");
    write(&bench, "00-debian-slim/Dockerfile", "FROM scratch\nCOPY extra /extra\n");
    bench.ok(&["project", "build", "--local-registry", &registry.name()]);
    bench.ok(&["cat", "oci:.ocikit-images/dev:2.0.9", "/extra"]);
    write(&bench, "01-dev/info.edn", "{:version \"2.1.0\"}\n");
    write(&bench, "03-clojure-dev/Dockerfile", "FROM scratch\n");
    bench.ok(&publish);
    let dev = format!("{}/dev:2.1.0", registry.name());
    bench.ok(&["cat", &dev, "/base.edn"]);
    assert_eq!(bench.ocikit(&["cat", &dev, "/extra"]).code, 3);
}

#[test]
fn a_tag_of_a_layout_means_one_image_whatever_the_registry() {
    let Some(peers) = Peers::find(&BUILDERS) else { return };
    let (daemon, one, two) = (buildkit(&peers), Registry::start(), Registry::start());
    let bench = project(&daemon);
    let publish = |registry: &Registry| {
        bench.ocikit(&["project", "publish", "--only-local-platform", "--remote-registry", &registry.name()])
    };
    let outcome = publish(&one);
    assert_eq!(outcome.code, 0, "{outcome}");
    assert!(!outcome.stderr.contains("InvalidDefaultArgInFrom"), "{outcome}");
    write(&bench, "00-debian-slim/extra", "x");
    write(&bench, "00-debian-slim/Dockerfile", "FROM scratch\nCOPY extra /extra\n");
    let outcome = publish(&two);
    assert_eq!(outcome.code, 0, "{outcome}");
    for image in ["debian-slim:1.2.9", "dev:2.0.9", "dev:latest"] {
        bench.ok(&["cat", &format!("oci:.ocikit-images/{image}"), "/extra"]);
    }
    // Layouts of other programs may have two images with one tag.
    let index = bench.path(".ocikit-images/dev/index.json");
    let mut roots: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    let mut other = roots["manifests"][0].clone();
    let old = one.verified_digest("dev", "2.0.9").unwrap().to_string();
    other["digest"] = Value::from(old);
    other["annotations"]["io.containerd.image.name"] = Value::from("example.com/dev:2.0.9");
    other["annotations"]["org.opencontainers.image.ref.name"] = Value::from("2.0.9");
    roots["manifests"].as_array_mut().unwrap().push(other);
    fs::write(&index, roots.to_string()).unwrap();
    assert_ne!(bench.ocikit(&["cat", "oci:.ocikit-images/dev:2.0.9", "/extra"]).code, 0);
    bench.ok(&["project", "build", "--local-registry", &two.name()]);
    bench.ok(&["cat", "oci:.ocikit-images/dev:2.0.9", "/extra"]);
}

/// What BuildKit says of a Dockerfile: the image that it would download first, or that it refuses the file.
fn ask_buildkit(peers: &Peers, daemon: &Daemon, directory: &Path, arguments: &str) -> String {
    let directory = directory.display();
    let line = format!(
        "buildctl --addr {} build --frontend dockerfile.v0 --local context={directory} --local dockerfile={directory} \
         --opt platform=linux/amd64 --opt build-arg:REGISTRY=127.0.0.1:1{arguments}",
        daemon.address
    );
    let outcome = peers.run(&line);
    assert_ne!(outcome.code, 0, "{outcome}");
    outcome.stderr
}

#[test]
fn references_are_those_of_buildkit() {
    let Some(peers) = Peers::find(&BUILDERS) else { return };
    let daemon = buildkit(&peers);
    let directory = peers.path("odd");
    fs::create_dir_all(&directory).unwrap();
    let arguments = Arguments::default().with("REGISTRY", "127.0.0.1:1").on("linux/amd64".parse().unwrap());
    let words = "ARG V=v.v\nARG E=\nARG W=a/b/c\nARG REGISTRY\nARG B=${REGISTRY}/x\n";
    for odd in [
        "FROM $REGISTRY/a:${X:-y}\n",
        "FROM $REGISTRY/a${E:-y}:1\n",
        "FROM ${REGISTRY}/a${E-y}:1\n",
        "FROM ${REGISTRY}/a:${V:+y}\n",
        "FROM ${REGISTRY}/a${X:+y}:1\n",
        "FROM ${REGISTRY}/a${E+y}:1\n",
        "FROM ${REGISTRY}/a:${X:-${Y:-${V}}}\n",
        "FROM ${REGISTRY}/${V#*.}:1\n",
        "FROM ${REGISTRY}/${V%.*}:1\n",
        "FROM ${REGISTRY}/${W##*/}:1\n",
        "FROM ${REGISTRY}/${W#*/}:1\n",
        "FROM ${REGISTRY}/${W%%/*}:1\n",
        "FROM ${REGISTRY}/${W%/*}:1\n",
        "FROM ${REGISTRY}/${W/\\//-}:1\n",
        "FROM ${REGISTRY}/${W//\\//-}:1\n",
        "FROM ${REGISTRY}/${W//b/x}:1\n",
        "FROM \"${B}\"/'q'\n",
        "FROM --platform=$BUILDPLATFORM $B:${TARGETARCH} AS Foo\n",
        "FROM \\\n # comment\n\n  ${REGISTRY}/\\\nbase:1\n",
        "FROM ${REGISTRY}/a\\\n\\\n:1\n",
        "from scratch as one\nFROM one\nCOPY --from=127.0.0.1:1/x:1 / /\n",
        "FROM scratch\nRUN --mount=type=bind,from=127.0.0.1:1/m:1,target=/x true\n",
        "FROM scratch\nRUN <<EOF\nFROM ${REGISTRY}/no\nEOF\nCOPY --from=127.0.0.1:1/x:2 / /\n",
        "FROM scratch\nCOPY <<-\"E F\" /x\nFROM ${REGISTRY}/no\n\tE F\nCOPY --from=127.0.0.1:1/x:3 / /\n",
        "FROM ${X?no}\n",
        "FROM ${X:=a}\n",
        "FROM ${}\n",
        "FROM a b\n",
        "FROM $REGISTRY/a'b\n",
        "FROM scratch AS 1x\n",
        "FROM scratch\nRUN <<EOF\nx\n",
        "FROM scratch\nRUN [1]\n",
    ] {
        let text = format!("{words}{odd}");
        fs::write(directory.join("Dockerfile"), &text).unwrap();
        let theirs = ask_buildkit(&peers, &daemon, &directory, "");
        let ours = Dockerfile::parse(text.as_bytes()).and_then(|file| file.references(&arguments));
        match ours {
            Ok(found) => {
                let [reference] = &found.references[..] else { panic!("{odd}: {found:?}") };
                let reference = reference.text.text().into_owned();
                let tagged =
                    if reference.rsplit('/').next().unwrap().contains(':') { reference } else { reference + ":latest" };
                assert!(theirs.contains(&format!("{tagged}:")), "{odd}: {tagged}\n{theirs}");
            }
            Err(error) => assert!(!theirs.contains("failed to resolve source metadata"), "{odd}: {error}\n{theirs}"),
        }
    }
    // BuildKit refuses variables in these two, which `project build` replaces.
    for odd in ["COPY --from=$B / /\n", "RUN --mount=type=bind,from=$B,target=/x true\n"] {
        fs::write(directory.join("Dockerfile"), format!("{words}FROM scratch\n{odd}")).unwrap();
        let theirs = ask_buildkit(&peers, &daemon, &directory, "");
        assert!(
            theirs.contains("variable expansion is not supported")
                || theirs.contains("doesn't support variable expansion"),
            "{theirs}"
        );
    }
}
