//! How long does it take to plan, build and publish a repository of images that depend on each other?
//!
//! The images are generated: few bases, many images on them, some of them deep, all without `RUN`, so that the cost is that of
//! BuildKit's solves and of the transfers. `ocikit project build` is compared with a loop of `buildctl` in the order of the
//! graph, which writes layouts too; each run has a new buildkitd with an empty cache. `ocikit project publish` of images that are
//! built is compared with loops of `docker buildx build --push`, `buildctl` with `push=true` and `skopeo copy`, each under two
//! tags. Registries are behind a proxy, which counts the bytes.
//!
//! These variables select what runs: `OCIKIT_BENCH_IMAGES` (number of images, 300), `OCIKIT_BENCH_ROUNDS` (number of rounds) and
//! `OCIKIT_BENCH_ONLY` (comma-separated prefixes of names).

#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr, reason = "this is a bench")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ocikit_benches::{Buildkitd, Cost, Delay, Registry, Table, find, measure, random, run_if_asked};

const OCIKIT: &str = env!("CARGO_BIN_EXE_ocikit-under-bench");

/// The size of the file that each image adds, in bytes.
const FILE_BYTES: usize = 64 << 10;

/// The registry in the references of the Dockerfiles when nothing is published.
const LOCAL: &str = "localhost:5000";

/// A shell script with a name. It runs in the directory of the project; `{to}` is a registry, `{ocikit}` the program.
type Contender = (&'static str, &'static str);

const BUILDS: [Contender; 2] = [
    ("ocikit project build", "{ocikit} project build -q --layouts layouts"),
    ("buildctl in a loop", "sh loop-build.sh"),
];

/// The directories in which these put their layouts.
const BUILT: [&str; 2] = ["layouts", "loop"];

const PUBLISHES: [Contender; 5] = [
    ("ocikit project publish", PUBLISH),
    ("ocikit project publish, a rerun", PUBLISH),
    ("skopeo copy in a loop", "sh loop-skopeo.sh {to}"),
    ("buildctl push=true in a loop", "sh loop-push.sh {to}"),
    ("docker buildx build --push in a loop", "sh loop-buildx.sh {to}"),
];

const PUBLISH: &str = "{ocikit} project publish -q --only-local-platform --layouts layouts --remote-registry {to}";

fn main() {
    run_if_asked();
    let directory = tempfile::Builder::new().prefix("ocikit-bench-").tempdir().expect("a temporary directory");
    let count: usize = setting("OCIKIT_BENCH_IMAGES", "300").parse().expect("a number");
    let bench = Bench {
        rounds: setting("OCIKIT_BENCH_ROUNDS", "3").parse().expect("a number"),
        only: setting("OCIKIT_BENCH_ONLY", ""),
        directory: directory.path().to_owned(),
    };
    for count in [count, 10_000] {
        bench.plan(count);
    }
    if ["buildctl", "buildkitd", "runc", "skopeo"].iter().any(|program| find(program).is_none()) {
        return;
    }
    let project = bench.directory.join("project");
    generate(&project, count);
    bench.builds(&project, count);
    if let Some(registry) = find("registry") {
        bench.publishes(&project, &registry, count);
    }
}

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned())
}

/// Returns what an image is built from.
fn parents(image: usize) -> Vec<usize> {
    match image {
        0..4 => vec![],
        4..40 => vec![image % 4],
        _ => vec![4 + image * 7919 % (image - 4).min(400), image % 4],
    }
}

/// Writes a project, and the loops of the other programs. An image with a number has lower numbers as parents, so the loops
/// follow the graph.
fn generate(root: &Path, count: usize) {
    let (mut build, mut push) = (String::new(), String::new());
    let (mut skopeo, mut buildx) = (String::new(), String::new());
    for image in 0..count {
        let context = format!("contexts/{image}-image{image}");
        let path = root.join(&context);
        fs::create_dir_all(&path).expect("a directory");
        let mut dockerfile = "ARG REGISTRY\n".to_owned();
        let parents = parents(image);
        // BuildKit refuses variables in `COPY --from`, so the other parents are stages.
        for parent in parents.iter().skip(1) {
            dockerfile.push_str(&format!("FROM $REGISTRY/image{parent}:1.0.0 AS parent{parent}\n"));
        }
        match parents.first() {
            Some(parent) => dockerfile.push_str(&format!("FROM $REGISTRY/image{parent}:1.0.0\n")),
            None => dockerfile.push_str("FROM scratch\n"),
        }
        for parent in parents.iter().skip(1) {
            dockerfile.push_str(&format!("COPY --from=parent{parent} /file{parent} /from{parent}\n"));
        }
        dockerfile.push_str(&format!("COPY file /file{image}\n"));
        fs::write(path.join("Dockerfile"), dockerfile).expect("a file");
        fs::write(path.join("info.edn"), "{:version \"1.0.0\"}\n").expect("a file");
        fs::write(path.join("file"), random(image as u64, FILE_BYTES)).expect("a file");
        let (mut contexts, mut buildx_contexts) = (String::new(), String::new());
        for parent in &parents {
            let digest = format!("$(cat loop/{parent}.digest)");
            let _ = write!(
                contexts,
                " --oci-layout l{parent}=loop/{parent} --opt context:{LOCAL}/image{parent}:1.0.0=oci-layout://l{parent}@{digest}"
            );
            let _ = write!(
                buildx_contexts,
                " --build-context {LOCAL}/image{parent}:1.0.0=oci-layout://loop/{parent}@{digest}"
            );
        }
        let solve = format!(
            "buildctl --addr $BUILDKIT_HOST build --progress=plain --frontend dockerfile.v0 --local context={context} --local \
             dockerfile={context} --opt build-arg:REGISTRY={LOCAL}{contexts}"
        );
        let _ = writeln!(
            build,
            "{solve} --metadata-file meta.json --output type=oci,dest=loop/{image},tar=false 2>>loop.log\n\
             sed -n 's/.*\"containerimage.digest\": \"\\([^\"]*\\)\".*/\\1/p' meta.json > loop/{image}.digest"
        );
        let _ = writeln!(
            push,
            "{solve} --opt attest:provenance= --output \
             \"type=image,\\\"name=$1/image{image}:1.0.0,$1/image{image}:latest\\\",push=true,registry.insecure=true\" 2>>push.log"
        );
        for tag in ["1.0.0", "latest"] {
            let _ = writeln!(
                skopeo,
                "skopeo copy -q --insecure-policy --all --dest-tls-verify=false oci:layouts/image{image}:1.0.0 \
                 docker://$1/image{image}:{tag}"
            );
        }
        let _ = writeln!(
            buildx,
            "docker buildx build --builder ocikit-bench -q --push --provenance=true --build-arg \
             REGISTRY={LOCAL}{buildx_contexts} -t $1/image{image}:1.0.0 -t $1/image{image}:latest {context} >>buildx.log 2>&1"
        );
    }
    for (name, script) in
        [("loop-build.sh", build), ("loop-push.sh", push), ("loop-skopeo.sh", skopeo), ("loop-buildx.sh", buildx)]
    {
        fs::write(root.join(name), format!("set -e\nmkdir -p loop\n{script}")).expect("a file");
    }
}

struct Bench {
    rounds: usize,
    only: String,
    directory: PathBuf,
}

impl Bench {
    fn is_selected(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.split(',').any(|prefix| name.starts_with(prefix))
    }

    fn run(&self, line: &str, project: &Path, to: &str, address: &str) -> Cost {
        let line = line.replace("{ocikit}", OCIKIT).replace("{to}", to);
        let mut command = Command::new("sh");
        command.args(["-ec", &line]).current_dir(project).env("HOME", &self.directory).env("BUILDKIT_HOST", address);
        measure(&command)
    }

    /// Measures planning alone: reading all files, the graph, and the matrix for 64 machines.
    fn plan(&self, count: usize) {
        if !self.is_selected("plan") {
            return;
        }
        let project = self.directory.join(format!("plan-{count}"));
        generate(&project, count);
        let mut table = Table::new();
        for _ in 0..self.rounds {
            table.add("plan", self.run("{ocikit} project plan --shards 64 --matrix github", &project, "", ""));
        }
        table.print(&format!("plan {count} images for 64 machines"));
        fs::remove_dir_all(project).expect("the project is removed");
    }

    /// Measures builds from nothing, and leaves the layouts of the last one.
    fn builds(&self, project: &Path, count: usize) {
        let mut table = Table::new();
        let selected = BUILDS.iter().zip(BUILT).filter(|((name, _), _)| self.is_selected(name));
        for (round, ((name, line), layouts)) in
            (0..self.rounds).flat_map(|round| selected.clone().map(move |one| (round, one)))
        {
            eprintln!("round {} of {}: {name}", round + 1, self.rounds);
            let _ = fs::remove_dir_all(project.join(layouts));
            let daemon = Buildkitd::start(&self.fresh("buildkit"));
            table.add(name, self.run(line, project, LOCAL, daemon.address()));
        }
        table.print(&format!("build {count} images into layouts"));
        for layouts in BUILT {
            let (files, disk) = space(&project.join(layouts));
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            println!("{layouts}: {:.1} MiB of files in {:.1} MiB on the disk", mib(files), mib(disk));
        }
    }

    /// Returns an empty directory.
    fn fresh(&self, name: &str) -> PathBuf {
        let path = self.directory.join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a directory");
        path
    }

    /// Measures publishing what is built: everything is in the layouts and in the cache of BuildKit.
    fn publishes(&self, project: &Path, registry: &Path, count: usize) {
        let daemon = Buildkitd::start(&self.fresh("buildkit"));
        if !project.join("loop").exists() {
            self.run(BUILDS[1].1, project, LOCAL, daemon.address());
        }
        // Fills the layouts and the cache with provenance, as it is published.
        let first = Registry::start(registry, &self.directory);
        for line in [PUBLISH, "sh loop-push.sh {to}"] {
            self.run(line, project, first.address(), daemon.address());
        }
        drop(first);
        let has_buildx = buildx(daemon.address());
        let mut table = Table::new();
        let mut forwarded: Vec<(&str, Vec<u64>)> = Vec::new();
        let is_there = |name: &str| has_buildx || !name.starts_with("docker");
        let selected = PUBLISHES.iter().filter(|(name, _)| self.is_selected(name) && is_there(name));
        for (round, (name, line)) in (0..self.rounds).flat_map(|round| selected.clone().map(move |one| (round, one))) {
            eprintln!("round {} of {}: {name}", round + 1, self.rounds);
            let registry = Registry::start(registry, &self.directory);
            let proxy = Delay::before(registry.address(), Duration::ZERO);
            if name.ends_with("rerun") {
                self.run(line, project, &proxy.address(), daemon.address());
            }
            let (requests, bytes) = (registry.requests(), proxy.bytes());
            let cost = self.run(line, project, &proxy.address(), daemon.address());
            table.add(name, Cost { requests: Some(registry.requests() - requests), ..cost });
            match forwarded.iter_mut().find(|(known, _)| known == name) {
                Some((_, list)) => list.push(proxy.bytes() - bytes),
                None => forwarded.push((name, vec![proxy.bytes() - bytes])),
            }
        }
        table.print(&format!("publish {count} images under two tags each, on loopback"));
        println!("\nBytes between the program and the registry, both directions:\n");
        for (name, mut bytes) in forwarded {
            bytes.sort_unstable();
            println!("* {name}: {:.2} MiB", bytes[bytes.len() / 2] as f64 / f64::from(1 << 20));
        }
    }
}

/// Returns the sizes of the files below a directory in bytes: each counted, and each file with several names once.
fn space(directory: &Path) -> (u64, u64) {
    let (mut files, mut disk) = (0, 0);
    let mut known = BTreeSet::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(path) = pending.pop() {
        for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
            let found = entry.metadata().expect("the metadata");
            if found.is_dir() {
                pending.push(entry.path());
                continue;
            }
            files += found.len();
            if known.insert(found.ino()) {
                disk += found.len();
            }
        }
    }
    (files, disk)
}

/// Creates a builder of `docker buildx` for a daemon. Returns whether buildx is installed.
fn buildx(address: &str) -> bool {
    let run =
        |arguments: &[&str]| Command::new("docker").args(arguments).output().is_ok_and(|done| done.status.success());
    if !run(&["buildx", "version"]) {
        eprintln!("docker buildx is not installed and is skipped");
        return false;
    }
    let _ = run(&["buildx", "rm", "ocikit-bench"]);
    run(&["buildx", "create", "--name", "ocikit-bench", "--driver", "remote", address])
}
