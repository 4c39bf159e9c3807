//! The images in place of the container-image plugins, in a Docker engine: the `docker run` lines of the plugins' own pages, with no
//! change but the paths, the registry and the network of this machine.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use ocikit_tests::{Bench, Daemon, Outcome, Peers, Registry, fixture, run, testdata, verified_digest};
use serde_json::Value;

use super::build::{BUILDERS, context};
use super::builder_image::{buildkit_image, copy_program, program};
use super::engine;
use crate::bench;

/// The name of the publisher's image on the page of the plugin.
const PUBLISHER: &str = "ghcr.io/twin-digital/plp-plugins/plp-container-image-publisher";

const BASIC: &str = "docker run --rm \\
  --privileged \\
  -v /path/to/source:/source:ro \\
  -v /path/to/build:/build \\
  -v /path/to/cache:/cache \\
  -e PLP_SOURCE_PATH=/source \\
  -e PLP_BUILD_PATH=/build \\
  -e PLP_CACHE_PATH=/cache \\
  plp-container-image-builder";

const WITH_ANNOTATIONS: &str = "docker run --rm \\
  --privileged \\
  -v /path/to/source:/source:ro \\
  -v /path/to/build:/build \\
  -v /path/to/cache:/cache \\
  -e PLP_SOURCE_PATH=/source \\
  -e PLP_BUILD_PATH=/build \\
  -e PLP_CACHE_PATH=/cache \\
  -e GIT_REPOSITORY_URL=https://github.com/twin-digital/my-app \\
  -e GIT_SHA=abc123def456 \\
  plp-container-image-builder";

const BUILD_TO_PUBLISH: &str = "docker run --rm --privileged \\
  -v ./src:/source:ro \\
  -v ./build:/build \\
  plp-container-image-builder";

/// It names no branch, tag or pull request.
const PUBLISH_WITHOUT_CONTEXT: &str = "docker run --rm \\
  -v ./build:/artifacts:ro \\
  -e PLP_ARTIFACT_PATH=/artifacts/container-image.tar \\
  -e PLP_IMAGE_REPOSITORY=ghcr.io/twin-digital/my-app \\
  -e PLP_COMMIT_SHA=abc123 \\
  -e PLP_REGISTRY_USERNAME=myuser \\
  -e PLP_REGISTRY_PASSWORD=mytoken \\
  plp-container-image-publisher";

const PUBLISH: &str = "docker run --rm \\
  -e PLP_ARTIFACT_PATH=/artifacts/image.tar \\
  -e PLP_IMAGE_REPOSITORY=ghcr.io/myorg/myapp \\
  -e PLP_BRANCH_NAME=main \\
  -e PLP_IS_DEFAULT_BRANCH=true \\
  -e PLP_COMMIT_SHA=6c2271197bf6c7aae6d17545abdd67586af1171d \\
  -e PLP_REGISTRY_USERNAME=myuser \\
  -e PLP_REGISTRY_PASSWORD=ghp_xxxxx \\
  -v /path/to/image.tar:/artifacts/image.tar:ro \\
  ghcr.io/twin-digital/plp-plugins/plp-container-image-publisher";

/// A Docker engine with the images, and the directory in which the lines run.
struct Site {
    // The daemons end before their directories are removed.
    engine: Daemon,
    registry: Daemon,
    peers: Peers,
    bench: Bench,
}

impl Site {
    /// Builds the bases of the images, and starts an engine.
    fn new() -> Option<Site> {
        let more = ["registry", "rootlesskit", "newuidmap", "newgidmap", "ldd", "docker", "dockerd"];
        let peers = Peers::find(&[&BUILDERS[..], &more].concat())?;
        let (bench, registry) = (bench(), peers.distribution("registry"));
        program(&bench);
        buildkit_image(&peers, &bench, &format!("{}/moby/buildkit:rootless", registry.address));
        let engine = engine(&peers);
        fs::set_permissions(bench.path(""), PermissionsExt::from_mode(0o755)).unwrap();
        Some(Site { bench, peers, engine, registry })
    }

    /// Pushes the base of the publisher's image in place of `alpine`: a shell, and the libraries of the program, which is static
    /// in a release only.
    fn alpine(&self) -> String {
        let root = self.bench.path("alpine/root");
        copy_program(&self.bench.path("program/ocikit"), &root.join("tmp/unused"), &root);
        fs::remove_file(root.join("tmp/unused")).unwrap();
        fs::set_permissions(root.join("tmp"), PermissionsExt::from_mode(0o1777)).unwrap();
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::copy(self.bench.path("base/root/bin/busybox"), root.join("bin/busybox")).unwrap();
        symlink("busybox", root.join("bin/sh")).unwrap();
        self.bench.write("alpine/Dockerfile", "FROM scratch\nCOPY root /\n");
        let reference = format!("{}/alpine:3.22", self.registry.address);
        self.bench.ok(&["build", "alpine", "--no-cache-directory", "--tag", &reference, "--push"]);
        reference
    }

    /// Builds an image of the documentation, and loads it into the engine.
    fn load(&self, name: &str, arguments: &[&str]) {
        let line = ["build", "--no-cache-directory", "--tag", name, "-o", "docker-archive:image.tar"];
        self.bench.ok(&[&line[..], arguments].concat());
        let archive = self.bench.path("image.tar");
        self.peers.ok(&format!("docker -H {} load -i {}", self.engine.address, archive.display()));
        fs::remove_file(archive).unwrap();
    }

    fn load_rootless_builder(&self) {
        let base = format!("{}/moby/buildkit:rootless", self.registry.address);
        let digest = self.bench.ok(&["digest", &base]);
        let (directory, argument) = (testdata("../docs/builder"), format!("BUILDKIT={base}@{digest}"));
        let directory = directory.display().to_string();
        let more = [&*directory, "--build-arg", &argument, "--build-context", "program=program"];
        self.load("plp-container-image-builder", &more);
    }

    /// Builds a target of `docs/ci/Dockerfile`, with another image in place of one that it names.
    fn load_target(&self, target: &str, name: &str, replaced: &str, by: &str) {
        let file = fixture("../docs/ci/Dockerfile");
        let base = format!("{replaced}=docker-image://{by}");
        self.load(name, &["program", "--file", &file, "--target", target, "--build-context", &base]);
    }

    /// Runs a line in a shell, in the directory.
    fn run(&self, line: &str) -> Outcome {
        let mut command = self.peers.command("busybox");
        command.args(["sh", "-c", line]).current_dir(self.bench.path(".")).env("DOCKER_HOST", &self.engine.address);
        run(&mut command, &[])
    }

    /// Runs a line whose paths are below a directory.
    fn run_in(&self, directory: &str, line: &str) -> Outcome {
        self.run(&line.replace("/path/to", &self.bench.path(directory).display().to_string()))
    }

    /// Makes directories for a line.
    fn directories(&self, place: &str, names: &[&str], owner: u32) {
        for name in names {
            let path = self.bench.path(place).join(name);
            fs::create_dir_all(&path).unwrap();
            chown(&path, Some(owner), Some(owner)).unwrap();
        }
    }

    fn inspect(&self, archive: &Path) -> Value {
        self.bench.json(&["inspect", "--json", &archive.display().to_string()])
    }
}

/// Checks what the builder's lines leave in a directory, and that the second run takes its steps from the cache.
fn check_builder(site: &Site, place: &str) {
    let ran = site.run_in(place, BASIC);
    assert_eq!(ran.code, 0, "{ran}");
    assert!(ran.stderr.contains("| seen"), "{ran}");
    let archive = site.bench.path(place).join("build/container-image.tar");
    let first = site.inspect(&archive);
    assert_eq!(ran.stdout.trim(), first["digest"].as_str().unwrap());
    let annotations = first["annotations"].as_object().unwrap();
    assert_eq!(annotations.keys().collect::<Vec<_>>(), ["org.opencontainers.image.created"], "PLP-3");

    let ran = site.run_in(place, WITH_ANNOTATIONS);
    assert_eq!(ran.code, 0, "{ran}");
    assert!(!ran.stderr.contains("| seen"), "the step is cached (PLP-8): {ran}");
    let facts = site.inspect(&archive);
    assert_eq!(facts["annotations"]["org.opencontainers.image.source"], "https://github.com/twin-digital/my-app");
    assert_eq!(facts["annotations"]["org.opencontainers.image.revision"], "abc123def456");
    let created = "org.opencontainers.image.created";
    assert_eq!(facts["annotations"][created], facts["descriptorAnnotations"][created], "PLP-2");

    let names = fs::read_dir(site.bench.path(place).join("build")).unwrap();
    assert_eq!(names.count(), 1, "nothing but the archive");
    site.peers.ok(&format!("skopeo inspect oci-archive:{}", archive.display()));
    // A failed build keeps the archive (PLP-5), and a missing Dockerfile is named (PLP-6).
    let before = fs::read(&archive).unwrap();
    let dockerfile = site.bench.path(place).join("source/Dockerfile");
    fs::rename(&dockerfile, dockerfile.with_extension("away")).unwrap();
    let failed = site.run_in(place, BASIC);
    assert!(failed.code == 1 && failed.stderr.contains("/source/Dockerfile"), "{failed}");
    fs::rename(dockerfile.with_extension("away"), &dockerfile).unwrap();
    assert!(fs::read(&archive).unwrap() == before);
    let left = site.run("docker ps --all --quiet");
    assert_eq!(left.stdout, "", "no container is left");
}

#[test]
fn plp_1_to_8_docker_run_lines_of_the_builder_work_without_root() {
    let Some(site) = Site::new() else { return };
    site.load_rootless_builder();
    // Docker makes the missing directories, which then belong to root.
    context(&site.bench.path("rootless/source"));
    check_builder(&site, "rootless");
    // The page of the plugin: the build directory "is owned by UID 1000".
    fs::remove_dir_all(site.bench.path("rootless/build")).unwrap();
    site.directories("rootless", &["build"], 1000);
    assert_eq!(site.run_in("rootless", BASIC).code, 0);

    // The steps have user 1000 of the machine as their root, unless BuildKit is to run as root.
    let dockerfile = "FROM scratch\nCOPY busybox /busybox\nRUN [\"/busybox\", \"cat\", \"/proc/self/uid_map\"]\n";
    site.bench.write("rootless/source/Dockerfile", dockerfile);
    let as_root = BASIC.replace("--privileged", "--privileged -e OCIKIT_BUILDKIT_USER=");
    for (line, map) in [(BASIC, ["|", "0", "1000", "1"]), (&as_root, ["|", "0", "0", "4294967295"])] {
        // A step that is in the cache does not run.
        let ran = site.run_in("rootless", &line.replace("-e PLP_CACHE_PATH=/cache", "-e PLP_CACHE_PATH=/none"));
        let mut maps = ran.stderr.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        assert!(maps.any(|words| words == map), "{ran}");
    }

    // Without root, the directory must be that of the user.
    let other = BASIC.replace("--privileged", "--privileged --user 1000");
    let ran = site.run_in("rootless", &other);
    assert_eq!(ran.code, 0, "{ran}");
    site.directories("rootless", &["build"], 0);
    let refused = site.run_in("rootless", &other);
    assert!(refused.code == 1 && refused.stderr.contains("/build"), "PLP-6: {refused}");
}

#[test]
fn plp_10_to_17_docker_run_lines_of_builder_and_publisher_work() {
    let Some(site) = Site::new() else { return };
    let (buildkit, alpine) = (format!("{}/moby/buildkit:rootless", site.registry.address), site.alpine());
    site.load_target("builder", "plp-container-image-builder", "moby/buildkit:v0.32.2-rootless", &buildkit);
    site.load_target("publisher", PUBLISHER, "alpine:3.22", &alpine);
    site.run(&format!("docker tag {PUBLISHER} plp-container-image-publisher")).ok();

    // Docker makes the missing directories, which then belong to root.
    context(&site.bench.path("with-docker/source"));
    check_builder(&site, "with-docker");

    // The builder's archive is published by the publisher's user.
    context(&site.bench.path("src"));
    assert_eq!(site.run(BUILD_TO_PUBLISH).code, 0);
    let refused = site.run(PUBLISH_WITHOUT_CONTEXT);
    assert!(refused.code == 4 && refused.stderr.contains("PLP_BRANCH_NAME"), "the line lacks a variable: {refused}");

    let registry = Registry::for_user("myuser", "ghp_xxxxx");
    let here = |line: &str| {
        // The registry of this test is on the loopback interface of the machine.
        line.replace("ghcr.io/myorg", &format!("{}/myorg", registry.name()))
            .replace("docker run", "docker run --network host")
    };
    fs::copy(testdata("buildkit-attested/multi.tar"), site.bench.path("with-docker/image.tar")).unwrap();
    let digest = verified_digest(&testdata("buildkit-attested/multi.tar"));
    let printed = site.run_in("with-docker", &here(PUBLISH));
    assert_eq!(printed.code, 0, "{printed}");
    for tag in ["main", "main-6c22711", "latest"] {
        assert!(printed.stdout.contains(&format!("{}/myorg/myapp:{tag}@{digest}", registry.name())), "{printed}");
        assert_eq!(registry.verified_digest("myorg/myapp", tag), Some(digest), "PLP-10 and PLP-16: {tag}");
    }
    assert!(!printed.to_string().contains("ghp_xxxxx"), "PLP-20: {printed}");

    let built = here(PUBLISH)
        .replace("/path/to/image.tar", &site.bench.path("build/container-image.tar").display().to_string());
    let printed = site.run(&built.replace("PLP_BRANCH_NAME=main", "PLP_TAG_NAME=v1.2.3"));
    assert_eq!(printed.code, 0, "{printed}");
    let digest = site.inspect(&site.bench.path("build/container-image.tar"))["digest"].as_str().unwrap().to_owned();
    for tag in ["1.2.3", "1.2", "1"] {
        assert!(printed.stdout.contains(&format!("myapp:{tag}@{digest}")), "PLP-12: {printed}");
    }
    for (from, to, code) in [
        ("ghp_xxxxx", "wrong", 2),
        ("-e PLP_ARTIFACT_PATH=/artifacts/image.tar", "-e PLP_ARTIFACT_PATH=/artifacts/none.tar", 3),
        ("-e PLP_COMMIT_SHA=6c2271197bf6c7aae6d17545abdd67586af1171d", "-e PLP_COMMIT_SHA=", 4),
    ] {
        let failed = site.run(&built.replace(from, to));
        assert_eq!(failed.code, code, "PLP-17: {failed}");
    }
}
