//! `project`: the acceptance statements of the program that it replaces (CIP), by number. Those that build are in
//! `peers/project.rs`.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use ocikit_tests::{Bench, CertificateAuthority, Registry, TlsProxy, attested, json, single};
use serde_json::Value;

use crate::bench;
use crate::faults::pseudo_random;

/// Writes the example tree of the program that this replaces: four images, each on the previous one.
pub(crate) fn example(root: &Path) {
    let from =
        |parent: &str, version: &str| format!("ARG REGISTRY\n\nFROM ${{REGISTRY}}/{parent}:{version}\n\nLABEL a=b\n");
    for (directory, dockerfile, info) in [
        (
            "00-debian-slim",
            "ARG REGISTRY\nFROM scratch\nCOPY info.edn /base.edn\n".to_owned(),
            "{:version \"1.2.9\"}\n",
        ),
        ("01-dev", from("debian-slim", "1.2.9"), "{:version \"2.0.9\"} ; ours\n"),
        ("02-java", from("debian-slim", "1.2.9"), "{:version \"0.3.0\"}\n"),
        (
            "03-clojure-dev",
            format!("{}COPY --from=${{REGISTRY}}/java:0.3.0 / /\n", from("dev", "2.0.9")),
            "{:version \"0.1.0\"}\n",
        ),
    ] {
        let path = root.join("contexts").join(directory);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("Dockerfile"), dockerfile).unwrap();
        fs::write(path.join("info.edn"), info).unwrap();
    }
}

fn project() -> Bench {
    let bench = bench();
    example(&bench.path("."));
    bench
}

/// Returns the names of the images that a plan builds.
fn builds(plan: &Value) -> Vec<&str> {
    plan["images"].as_array().unwrap().iter().map(|image| image["name"].as_str().unwrap()).collect()
}

/// Publishes an image with a platform for each name, under the version of the project.
fn publish(bench: &Bench, registry: &str, name: &str, version: &str) {
    let archive = attested();
    bench.ok(&["push", &archive, &format!("{registry}/{name}:{version}")]);
}

#[test]
fn cip_1_graph_shows_stages() {
    let bench = project();
    let text = bench.ok(&["project", "graph"]);
    assert_eq!(
        text,
        "stage 0\n  debian-slim 1.2.9\nstage 1\n  dev 2.0.9 ← debian-slim\n  java 0.3.0 ← debian-slim\n\
         stage 2\n  clojure-dev 0.1.0 ← dev, java"
    );
    let graph = bench.json(&["project", "graph", "--json"]);
    assert_eq!(graph["images"][3]["dependencies"][1]["via"], "copy-from");
    assert_eq!(graph["images"][3]["dependencies"][1]["place"]["line"], 6);
    assert!(bench.ok(&["project", "graph", "--format", "svg"]).starts_with("<svg "));
    assert!(bench.ok(&["project", "graph", "--format", "dot"]).starts_with("digraph "));
}

#[test]
fn cip_16_wrong_projects_and_options_fail_without_output() {
    let bench = project();
    fs::create_dir(bench.path("contexts/04-empty")).unwrap();
    for (arguments, message) in [
        (&["project", "graph"][..], "contexts/04-empty: it has no `Dockerfile`"),
        (&["project", "plan"], "contexts/04-empty: it has no `info.edn`"),
        (&["project", "graph", "--only-local-platform"], "unexpected argument '--only-local-platform'"),
        (&["project", "build-everything"], "unrecognized subcommand"),
        (&["project", "plan", "--registry", "acme"], "it has no registry host"),
    ] {
        let outcome = bench.ocikit(arguments);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (2, ""), "{outcome}");
        assert!(outcome.stderr.contains(message), "{outcome}");
    }
    let outcome = bench.ocikit(&["project", "graph", "--project-dir", "missing"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (3, ""), "{outcome}");
    let outcome = bench.ocikit(&["project", "graph", "--json"]);
    let error = json(&outcome.stderr);
    assert_eq!(error["error"]["details"].as_array().unwrap().len(), 2, "{error}");
}

#[test]
fn cip_3_complete_images_are_not_built_again() {
    let (bench, registry) = (project(), Registry::start());
    let place = format!("{}/group/project", registry.name());
    let plan = |bench: &Bench| bench.json(&["project", "plan", "--registry", &place, "--json"]);
    let first = plan(&bench);
    assert_eq!(builds(&first), ["debian-slim", "dev", "java", "clojure-dev"]);
    assert_eq!((first["stages"].as_u64(), first["images"][0]["reason"].as_str()), (Some(3), Some("not-published")));
    publish(&bench, &place, "debian-slim", "1.2.9");
    publish(&bench, &place, "dev", "2.0.9");
    // An image for one platform only.
    let archive = single();
    bench.ok(&["push", &archive, &format!("{place}/java:0.3.0")]);
    registry.clear_requests();
    let second = plan(&bench);
    assert_eq!(builds(&second), ["java", "clojure-dev"], "{second}");
    assert_eq!(second["images"][0]["reason"], "missing-platforms");
    assert_eq!(second["images"][0]["platforms"].as_array().unwrap().len(), 2);
    assert_eq!(second["images"][0]["missing"], serde_json::json!(["linux/arm64"]));
    let requests = registry.requests();
    let per_image = requests.iter().filter(|request| request.path.contains("/manifests/")).count();
    assert_eq!(per_image, 4, "one request per image");
    assert_eq!(requests.len(), 5, "and the config of the image without an index");
}

#[test]
fn cip_4_a_registry_that_does_not_answer_is_an_error() {
    let bench = project();
    // Nothing listens at this port.
    let outcome = bench.ocikit(&["project", "plan", "--registry", "127.0.0.1:1/p", "--retries", "0"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (6, ""), "{outcome}");
    assert!(
        outcome.stderr.contains("cannot find out whether 127.0.0.1:1/p/debian-slim:1.2.9 is published"),
        "{outcome}"
    );
    let registry = Registry::for_user("user", "password");
    let place = format!("{}/p", registry.name());
    let outcome = bench.ocikit(&["project", "plan", "--registry", &place]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (4, ""), "{outcome}");
    let known = bench.with("OCIKIT_USERNAME", "user").with("OCIKIT_PASSWORD", "password");
    publish(&known, &place, "debian-slim", "1.2.9");
    let plan = known.json(&["project", "plan", "--registry", &place, "--json"]);
    assert_eq!(builds(&plan), ["dev", "java", "clojure-dev"]);
}

#[test]
fn cip_8_to_11_cascade_changes_versions_only() {
    let bench = project();
    bench.write("contexts/00-debian-slim/info.edn", "{:version \"1.3.0\"}\n");
    let before = bench.read("contexts/01-dev/Dockerfile");
    let diff = bench.ok(&["project", "cascade", "--dry-run"]);
    assert!(diff.contains("-FROM ${REGISTRY}/debian-slim:1.2.9\n+FROM ${REGISTRY}/debian-slim:1.3.0\n"), "{diff}");
    assert_eq!(bench.read("contexts/01-dev/Dockerfile"), before);
    let out = bench.ok(&["project", "cascade"]);
    assert_eq!(
        out,
        "dev 2.0.9 → 2.0.10: debian-slim 1.3.0\njava 0.3.0 → 0.3.1: debian-slim 1.3.0\n\
         clojure-dev 0.1.0 → 0.1.1: dev 2.0.10, java 0.3.1"
    );
    assert_eq!(bench.read("contexts/01-dev/info.edn"), "{:version \"2.0.10\"} ; ours\n");
    assert_eq!(bench.ok(&["project", "cascade"]), "");
    let again = bench.json(&["project", "cascade", "--json"]);
    assert_eq!(again["bumps"].as_array().unwrap().len(), 0);
    // The diff of the dry run, applied by another program, gives the same files.
    let other = project();
    fs::write(other.path("contexts/00-debian-slim/info.edn"), "{:version \"1.3.0\"}\n").unwrap();
    fs::write(other.path("diff"), other.ok(&["project", "cascade", "-n"]) + "\n").unwrap();
    let patch = std::process::Command::new("git").args(["apply", "diff"]).current_dir(other.path(".")).status();
    if patch.is_ok_and(|status| status.success()) {
        for file in ["01-dev/Dockerfile", "03-clojure-dev/info.edn", "03-clojure-dev/Dockerfile"] {
            let read = |bench: &Bench| fs::read(bench.path("contexts").join(file)).unwrap();
            assert_eq!(read(&bench), read(&other), "{file}");
        }
    }
}

#[test]
fn cip_12_other_versions_are_refused() {
    let bench = project();
    bench.write("contexts/00-debian-slim/info.edn", "{:version \"1.3\"}\n");
    let outcome = bench.ocikit(&["project", "cascade"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (2, ""), "{outcome}");
    let place = "contexts/00-debian-slim/info.edn:1:11: the version `1.3` of `debian-slim` is not of the form x.y.z";
    assert!(outcome.stderr.contains(place), "{outcome}");
}

/// Writes a project of a chain of images whose first has a new version.
fn chain(bench: &Bench, length: usize) {
    for image in 0..length {
        let path = bench.path("contexts").join(format!("{image}-image{image}"));
        fs::create_dir_all(&path).unwrap();
        let from = match image {
            0 => "FROM scratch\n".to_owned(),
            image => format!("ARG REGISTRY\nFROM ${{REGISTRY}}/image{}:1.0.0\n", image - 1),
        };
        fs::write(path.join("Dockerfile"), from).unwrap();
        fs::write(path.join("info.edn"), if image == 0 { "{:version \"1.1.0\"}\n" } else { "{:version \"1.0.0\"}\n" })
            .unwrap();
    }
}

fn contents(bench: &Bench, length: usize) -> Vec<Vec<u8>> {
    let files = (0..length)
        .flat_map(|image| ["Dockerfile", "info.edn"].map(|name| format!("contexts/{image}-image{image}/{name}")));
    files.map(|file| fs::read(bench.path(&file)).unwrap()).collect()
}

#[cfg(unix)]
#[test]
fn cip_11_a_killed_cascade_leaves_no_half_state() {
    const LENGTH: usize = 40;
    let reference = bench();
    chain(&reference, LENGTH);
    let before = contents(&reference, LENGTH);
    reference.ok(&["project", "cascade"]);
    let after = contents(&reference, LENGTH);
    let mut interrupted = 0;
    for round in 0..30 {
        let bench = bench();
        chain(&bench, LENGTH);
        let mut child =
            bench.command(&["project", "cascade"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let journal = bench.path(".ocikit-cascade.json");
        match round % 2 {
            0 => std::thread::sleep(std::time::Duration::from_micros(pseudo_random(round, 60_000))),
            // At some moment after the decision.
            _ => {
                while !journal.exists() && child.try_wait().unwrap().is_none() {
                    std::hint::spin_loop();
                }
                std::thread::sleep(std::time::Duration::from_micros(pseudo_random(round, 3_000)));
            }
        }
        let _ = child.kill();
        child.wait().unwrap();
        if journal.exists() {
            interrupted += 1;
            let outcome = bench.ocikit(&["project", "graph"]);
            assert_eq!(outcome.code, 1, "{outcome}");
            assert!(outcome.stderr.contains("ocikit project cascade"), "{outcome}");
        } else {
            let now = contents(&bench, LENGTH);
            assert!(now == before || now == after, "without a journal, no file or every file has changed");
            for image in 0..LENGTH {
                let context = fs::read_dir(bench.path(&format!("contexts/{image}-image{image}"))).unwrap();
                assert_eq!(context.count(), 2, "a build has no new contents in its context");
            }
        }
        bench.ok(&["project", "cascade"]);
        assert!(contents(&bench, LENGTH) == after, "a rerun finishes");
        assert_eq!(fs::read_dir(bench.path("contexts/1-image1")).unwrap().count(), 2, "no temporary file is left");
        assert!(!journal.exists() && !bench.path(".ocikit-cascade").exists());
    }
    eprintln!("{interrupted} of 30 runs were killed between the decision and the end");
}

#[test]
fn since_selects_what_a_change_touches() {
    let bench = project();
    let git = |arguments: &[&str]| {
        let mut command = std::process::Command::new("git");
        command.args(["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]);
        command.args(arguments).current_dir(bench.path(".")).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if !git(&["init"]) {
        eprintln!("skipped: git is missing");
        return;
    }
    assert!(git(&["add", "."]) && git(&["commit", "-m", "one"]));
    let plan = |bench: &Bench| bench.json(&["project", "plan", "--since", "HEAD", "--json"]);
    assert_eq!(builds(&plan(&bench)), [""; 0]);
    bench.write("contexts/02-java/new file", "");
    bench.write("README.md", "");
    assert_eq!(builds(&plan(&bench)), ["java", "clojure-dev"]);
    let outcome = bench.ocikit(&["project", "plan", "--since", "--output=x"]);
    assert_eq!(outcome.code, 2, "{outcome}");
    let outcome = bench.ocikit(&["project", "plan", "--since=--output=x"]);
    assert_ne!(outcome.code, 0, "{outcome}");
    assert!(!bench.path("x").exists());
}

#[test]
fn shards_and_matrices_cover_every_image_once() {
    let bench = project();
    let mut names = Vec::new();
    for shard in ["1/3", "2/3", "3/3"] {
        let plan = bench.json(&["project", "plan", "--shard", shard, "--json"]);
        names.extend(builds(&plan).into_iter().map(str::to_owned));
    }
    names.sort();
    assert_eq!(names, ["clojure-dev", "debian-slim", "dev", "java"]);
    let matrix = bench.json(&["project", "plan", "--shards", "3", "--matrix", "github"]);
    assert_eq!(matrix["stages"].as_array().unwrap().len(), 3);
    let pipeline = bench.ok(&["project", "plan", "--shards", "3", "--matrix", "gitlab"]);
    assert!(pipeline.starts_with("stages: [stage-0, stage-1, stage-2]\n"), "{pipeline}");
}

#[test]
fn cip_4_a_private_authority_and_paths_work() {
    let (bench, registry) = (project(), Registry::start());
    let authority = CertificateAuthority::new();
    let proxy = TlsProxy::start(registry.address(), &authority, false);
    let place = format!("{}/deep/path/below", proxy.name());
    bench.write("ca.pem", authority.pem());
    let outcome = bench.ocikit(&["project", "plan", "--registry", &place]);
    assert_eq!(outcome.code, 6, "{outcome}");
    let plan = bench.json(&["project", "plan", "--registry", &place, "--ca-file", "ca.pem", "--json"]);
    assert_eq!(builds(&plan).len(), 4);
}

#[test]
fn bases_are_asked_once_and_without_the_credential_of_the_project() {
    let (bench, registry, bases) = (bench(), Registry::start(), Registry::start());
    let base = format!("{}/base:1", bases.name());
    bench.ok(&["push", &single(), &base]);
    let digest = bench.ok(&["digest", &base]);
    let names = ["a", "b", "c", "d"];
    for name in names {
        let path = bench.path("contexts").join(name);
        fs::create_dir_all(&path).unwrap();
        let stages = format!("FROM {base} AS one\nFROM {}/other:1 AS two\nFROM {base}\n", bases.name());
        fs::write(path.join("Dockerfile"), stages).unwrap();
        fs::write(path.join("info.edn"), "{:version \"1.0.0\"}\n").unwrap();
        publish(&bench, &registry.name(), name, "1.0.0");
        let place = format!("{}/{name}:1.0.0", registry.name());
        let of = if name == "c" { &format!("sha256:{}", "0".repeat(64)) } else { &digest };
        let [key, value] = ["name", "digest"]
            .map(|end| format!("org.opencontainers.image.base.{end}={}", if end == "name" { &base } else { of }));
        bench.ok(&["annotate", &place, &key, &value, "--on", "index"]);
    }
    bases.clear_requests();
    let arguments = ["project", "plan", "--registry", &registry.name(), "--bases", "--json"];
    let plan = bench.json(&arguments);
    assert_eq!(builds(&plan), ["c"], "{plan}");
    assert_eq!(plan["images"][0]["reason"], "base-changed");
    let asked = bases.requests().iter().filter(|request| request.path.contains("/manifests/")).count();
    assert_eq!(asked, 2, "one request for each base image, also for the one that does not exist");
    // The registry of a base image asks for a password too, which is not that of the project.
    let closed = Registry::for_user("user", "password");
    let dockerfile = format!("FROM {}/base:1\n", closed.name());
    bench.write("contexts/a/Dockerfile", dockerfile);
    let outcome = bench.with("OCIKIT_USERNAME", "user").with("OCIKIT_PASSWORD", "password").ocikit(&arguments);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (4, ""), "{outcome}");
}

/// Returns what an image of a generated project is built from.
pub(crate) fn generated_parents(image: usize) -> Vec<usize> {
    match image {
        0..4 => vec![],
        4..40 => vec![image % 4],
        _ => vec![4 + image * 7919 % (image - 4).min(400), image % 4],
    }
}

/// Writes a project like a real one: few bases, many images on them, some of them deep.
pub(crate) fn generated(bench: &Bench, count: usize) {
    for image in 0..count {
        let path = bench.path("contexts").join(format!("{image}-image{image}"));
        fs::create_dir_all(&path).unwrap();
        let mut dockerfile = "ARG REGISTRY\nFROM scratch\n".to_owned();
        for parent in generated_parents(image) {
            dockerfile.push_str(&format!("COPY --from=$REGISTRY/image{parent}:1.0.0 / /{parent}\n"));
        }
        fs::write(path.join("Dockerfile"), dockerfile).unwrap();
        fs::write(path.join("info.edn"), "{:version \"1.0.0\"}\n").unwrap();
    }
}

#[test]
fn large_projects_are_planned_and_shared_evenly() {
    for count in [300, 10_000] {
        let bench = bench();
        generated(&bench, count);
        let started = std::time::Instant::now();
        let matrix = bench.json(&["project", "plan", "--shards", "64", "--matrix", "github"]);
        let elapsed = started.elapsed();
        let mut work = std::collections::BTreeMap::new();
        for job in matrix["stages"].as_array().unwrap().iter().flat_map(|stage| stage["include"].as_array().unwrap()) {
            let images = job["images"].as_str().unwrap().split(' ').count();
            *work.entry(job["shard"].as_str().unwrap().to_owned()).or_insert(0) += images;
        }
        assert_eq!(work.values().sum::<usize>(), count);
        let (least, most) = (work.values().min().unwrap(), work.values().max().unwrap());
        assert!(count < 640 || most * 10 <= least * 11, "{least} to {most}");
        eprintln!("{count} images: planned in {elapsed:?}, {least} to {most} images on each of 64 machines");
    }
}

#[test]
fn files_that_cannot_be_read_are_problems() {
    let bench = project();
    let context = |path: &str| bench.path("contexts").join(path);
    fs::create_dir(context("04-pipe")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(context("04-pipe/Dockerfile")).status().unwrap().success());
    std::os::unix::fs::symlink("/dev/zero", context("04-pipe/info.edn")).unwrap();
    std::os::unix::fs::symlink("nowhere", context("05-gone")).unwrap();
    fs::create_dir(context("06 bad")).unwrap();
    fs::create_dir(context(".hidden")).unwrap();
    fs::write(context("03-clojure-dev/info.edn"), "{:version \"1.0.0\"} {:version \"2.0.0\"}").unwrap();
    let outcome = bench.ocikit(&["project", "graph", "--json"]);
    let error = json(&outcome.stderr);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (2, ""), "{outcome}");
    assert_eq!(
        error["error"]["details"],
        serde_json::json!([
            "contexts/05-gone: the symlink leads nowhere",
            "contexts/03-clojure-dev/info.edn:1:20: a second form follows, which would have no meaning",
            "contexts/04-pipe/Dockerfile: it is not a regular file",
            "contexts/04-pipe/info.edn: it is not a regular file",
            "contexts/06 bad: `06 bad` is not a valid name of an image",
        ])
    );
}

#[test]
fn empty_selections_and_other_schemes_are_said() {
    let bench = project();
    for (arguments, code, message) in [
        (&["project", "plan", "--images", ""][..], 2, "--images has no name"),
        (&["project", "plan", "--stage", "99"], 0, "there is no stage 99: the project has the stages 0 to 2"),
        (&["project", "plan", "--registry", "http://localhost:5000/x"], 2, "leave out `http://`"),
    ] {
        let outcome = bench.ocikit(arguments);
        assert_eq!(outcome.code, code, "{outcome}");
        assert!(outcome.stderr.contains(message), "{outcome}");
    }
}

#[test]
fn flags_that_the_project_decides_are_refused() {
    let bench = project();
    for command in [&["build"][..], &["publish", "--remote-registry", "127.0.0.1:1/p"]] {
        for (flags, message) in [
            (&["--platform", "linux/arm64"][..], "cannot use --platform after `--`"),
            (&["--build-arg", "REGISTRY=example.com"], "cannot use --build-arg REGISTRY after `--`"),
        ] {
            let outcome = bench.ocikit(&[&["project"], command, &["--"], flags].concat());
            assert_eq!(outcome.code, 2, "{outcome}");
            assert!(outcome.stderr.contains(message), "{outcome}");
        }
    }
}

#[test]
fn a_web_server_that_is_no_registry_is_said() {
    use std::io::{Read, Write};
    let (bench, server) = (project(), std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let place = format!("{}/p", server.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in server.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let page = "<html>404</html>";
            let head = "HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nConnection: close";
            let _ = write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{page}", page.len());
        }
    });
    for command in ["plan", "pull"] {
        let outcome = bench.ocikit(&["project", command, "--registry", &place]);
        assert_eq!(outcome.code, 0, "{outcome}");
        assert!(outcome.stderr.contains("does not answer as a registry: it answers 404"), "{outcome}");
    }
}

#[test]
fn a_cascade_follows_symlinks_within_the_project_only() {
    let bench = project();
    let context = |path: &str| bench.path("contexts").join(path);
    let link = |target: &str, path: &str| {
        fs::remove_file(context(path)).unwrap();
        std::os::unix::fs::symlink(target, context(path)).unwrap();
    };
    let raise = |version: &str| {
        fs::write(context("00-debian-slim/info.edn"), format!("{{:version \"{version}\"}}\n")).unwrap();
    };
    // Two images with the same Dockerfile need the same change.
    link("../01-dev/Dockerfile", "02-java/Dockerfile");
    raise("1.3.0");
    bench.ok(&["project", "cascade"]);
    assert!(fs::read_to_string(context("01-dev/Dockerfile")).unwrap().contains("debian-slim:1.3.0"));
    assert!(context("02-java/Dockerfile").is_symlink());
    assert_eq!(bench.ok(&["project", "cascade"]), "");
    // An image whose metadata are those of another one would get a version without a reason.
    raise("1.4.0");
    fs::write(context("02-java/info.edn"), "{:version \"1.4.0\"}\n").unwrap();
    link("../02-java/info.edn", "00-debian-slim/info.edn");
    let refused = |message: &str| {
        let before = fs::read(context("01-dev/Dockerfile")).unwrap();
        let outcome = bench.ocikit(&["project", "cascade"]);
        assert_eq!(outcome.code, 2, "{outcome}");
        assert!(outcome.stderr.contains(message), "{outcome}");
        assert_eq!(fs::read(context("01-dev/Dockerfile")).unwrap(), before);
    };
    refused("contexts/02-java/info.edn and contexts/00-debian-slim/info.edn are the same file");
    fs::remove_file(context("00-debian-slim/info.edn")).unwrap();
    raise("1.4.0");
    let directory = tempfile::tempdir().unwrap();
    let outside = directory.path().canonicalize().unwrap().join("info.edn");
    fs::copy(context("01-dev/info.edn"), &outside).unwrap();
    link(&outside.display().to_string(), "01-dev/info.edn");
    refused(&format!("leads out of the project, to {}", outside.display()));
}

/// Publishes an image that its layout has already, so nothing is built, after another process has published the version.
#[test]
fn cip_6_a_version_that_was_published_meanwhile_is_not_replaced() {
    use ocikit_publish::project::{
        BuildObserver, BuildOptions, ImageOutcome, PlanOptions, Project, ProjectOptions, Publishing, build_project,
    };

    #[derive(Debug)]
    struct Silent;
    impl BuildObserver for Silent {
        fn started(&self, _: &str, _: &str) -> Option<std::sync::Arc<dyn ocikit_build::Observer>> {
            None
        }
        fn publishing(&self, _: &str, _: &str) {}
        fn ended(&self, _: &str, _: &ImageOutcome) {}
    }

    for (other, expected) in
        [("buildkit-attested/multi.tar", Ok(())), ("buildkit-single/image.tar", Err("without linux/arm64"))]
    {
        let (bench, registry) = (project(), Registry::start());
        let project = Project::load(&bench.path("."), &ProjectOptions::default()).unwrap();
        let layout = format!("oci:{}:1.2.9", bench.path(".ocikit-images/debian-slim").display());
        let archive = |name: &str| ocikit_tests::testdata(name).display().to_string();
        bench.ok(&["copy", &archive("buildkit-attested/multi.tar"), &layout]);
        let inputs = format!("dev.ocikit.project.inputs={}", project.inputs().unwrap()[0]);
        bench.ok(&["annotate", &layout, &inputs, "--on", "index"]);
        // The plan finds no published image; then another process publishes one.
        let mut options = PlanOptions::default();
        options.default_platforms = ["linux/amd64", "linux/arm64"].map(|platform| platform.parse().unwrap()).to_vec();
        let absent = vec![ocikit_publish::project::PublishedImage::Absent; project.images().len()];
        let plan = project.plan(Some(&absent), &options);
        let name = format!("{}/debian-slim:1.2.9", registry.name());
        bench.ok(&["push", &archive(other), &name]);
        let published = bench.ok(&["digest", &name]);
        let session = ocikit::Session::new(ocikit::Client::default(), ocikit::SessionOptions::default());
        let mut options =
            BuildOptions::new(ocikit_build::Solve::of(bench.path(".")), registry.name(), bench.path(".ocikit-images"));
        options.publishing = Some(Publishing::default());
        let nodes = ["linux/amd64,linux/arm64=tcp://127.0.0.1:1".parse().unwrap()];
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let built = build_project(&session, &project, &plan, &[0], &nodes, &options, &Silent);
        let report = runtime.block_on(built).unwrap();
        match (&report.images[0].outcome, expected) {
            (ImageOutcome::Present(done), Ok(())) => {
                assert_eq!(done.digest.to_string(), published);
                assert_eq!(bench.ok(&["digest", &layout]), published, "other images are built from it");
            }
            (ImageOutcome::Failed(error), Err(message)) => assert!(error.to_string().contains(message), "{error}"),
            (outcome, _) => panic!("{outcome:?}"),
        }
        assert_eq!(bench.ok(&["digest", &name]), published);
        assert_eq!(registry.verified_digest("debian-slim", "latest"), None);
    }
}
