//! How long does it take to publish one archive to three registries under four tags each, on loopback and with a round-trip
//! time of 50 ms?
//!
//! ocikit and the installed peers run alternately: skopeo, regctl and crane in a loop, as a pipeline would call them. Every
//! registry is behind a proxy, which counts the bytes.
//!
//! These variables select what runs: `OCIKIT_BENCH_DELAY` (round-trip times in milliseconds, `0,50`), `OCIKIT_BENCH_ROUNDS`
//! (number of rounds), `OCIKIT_BENCH_MIB` (size of the image with eight layers) and `OCIKIT_BENCH_ONLY` (comma-separated prefixes
//! of names).

#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr, reason = "this is a bench")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ocikit_benches::{Cost, Delay, Registry, Table, find, layout, measure, run_if_asked, tar};

const OCIKIT: &str = env!("CARGO_BIN_EXE_ocikit-under-bench");
const REGISTRIES: usize = 3;
const TAGS: [&str; 4] = ["main", "main-6c22711", "latest", "v6c22711f"];

/// A program, its name in the table, and a script. `{to0}` to `{to2}` stand for the repositories, `{all}` for all of them, and
/// `{tags}` for the tags.
struct Contender {
    program: &'static str,
    name: &'static str,
    script: &'static str,
}

const CONTENDERS: [Contender; 6] = [
    Contender { program: OCIKIT, name: "ocikit publish", script: PUBLISH },
    Contender { program: OCIKIT, name: "ocikit publish, a rerun", script: PUBLISH },
    Contender {
        program: "skopeo",
        name: "skopeo copy, 12 times",
        script: "for to in {all}; do for tag in {tags}; do skopeo copy -q --insecure-policy --all --dest-tls-verify=false \
                 oci-archive:image.tar docker://$to:$tag; done; done",
    },
    // As the publisher plugin does it.
    Contender {
        program: "skopeo",
        name: "skopeo copy, then between tags",
        script: "for to in {all}; do skopeo copy -q --insecure-policy --all --dest-tls-verify=false oci-archive:image.tar \
                 docker://$to:main; for tag in {tags}; do skopeo copy -q --insecure-policy --all --src-tls-verify=false \
                 --dest-tls-verify=false docker://$to:main docker://$to:$tag; done; done",
    },
    Contender {
        program: "regctl",
        name: "regctl image import, then copies of tags",
        script: "for to in {all}; do regctl image import $to:main image.tar; for tag in {tags}; do regctl image copy $to:main \
                 $to:$tag; done; done",
    },
    Contender {
        program: "crane",
        name: "crane push, from the layout, then crane tag",
        script: "for to in {all}; do crane push layout $to:main; for tag in {tags}; do crane tag $to:main $tag; done; done",
    },
];

const PUBLISH: &str = "$0 publish -q image.tar --event push --commit 6c22711f --branch main --default-branch --git-tags \
                       --tag 'v{{ .ShortSHA }}' --to {to0} --to {to1} --to {to2}";

fn main() {
    run_if_asked();
    let Some(program) = find("registry") else { return };
    let directory = tempfile::Builder::new().prefix("ocikit-bench-").tempdir().expect("a temporary directory");
    let path = |name: &str| directory.path().join(name);
    let mebibytes: usize = setting("OCIKIT_BENCH_MIB", "256").parse().expect("a number");
    layout(&path("layout"), 8, (mebibytes << 20) / 8);
    tar(&path("layout"), &path("image.tar"));
    std::fs::write(path("regctl.json"), "{}").expect("a file");
    for delay in setting("OCIKIT_BENCH_DELAY", "0,50").split(',') {
        let delay = Duration::from_millis(delay.parse().expect("milliseconds"));
        run(&program, directory.path(), delay, mebibytes);
    }
}

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned())
}

/// Runs all contenders with a round-trip time and prints their costs.
fn run(registry: &Path, directory: &Path, delay: Duration, mebibytes: usize) {
    let rounds: usize = setting("OCIKIT_BENCH_ROUNDS", "5").parse().expect("a number");
    let only = setting("OCIKIT_BENCH_ONLY", "");
    let is_selected = |name: &str| only.is_empty() || only.split(',').any(|prefix| name.starts_with(prefix));
    let is_installed = |program: &str| Path::new(program).is_absolute() || find(program).is_some();
    let contenders = CONTENDERS.iter().filter(|one| is_selected(one.name) && is_installed(one.program));
    let contenders: Vec<_> = contenders.collect();
    let mut table = Table::new();
    let mut forwarded: Vec<Vec<u64>> = vec![Vec::new(); contenders.len()];
    for round in 0..rounds {
        for (number, contender) in contenders.iter().enumerate() {
            eprintln!("at {} ms, round {} of {rounds}: {}", delay.as_millis(), round + 1, contender.name);
            let targets: Vec<_> = (0..REGISTRIES).map(|_| Target::start(registry, directory, delay)).collect();
            let command = command(contender, directory, &targets);
            if contender.name.ends_with("rerun") {
                measure(&command);
            }
            let requests = || targets.iter().map(|target| target.registry.requests()).sum::<u64>();
            let bytes = || targets.iter().map(|target| target.proxy.bytes()).sum::<u64>();
            let before = (requests(), bytes());
            let cost = measure(&command);
            table.add(contender.name, Cost { requests: Some(requests() - before.0), ..cost });
            forwarded[number].push(bytes() - before.1);
        }
    }
    let place = if delay.is_zero() { "on loopback".to_owned() } else { format!("at {} ms", delay.as_millis()) };
    table
        .print(&format!("an archive of {mebibytes} MiB to {REGISTRIES} registries, {} tags each, {place}", TAGS.len()));
    println!("\nBytes between the program and the registries, both directions:\n");
    for (contender, bytes) in contenders.iter().zip(&mut forwarded) {
        bytes.sort_unstable();
        println!("* {}: {:.2} MiB", contender.name, bytes[bytes.len() / 2] as f64 / f64::from(1 << 20));
    }
}

/// A registry behind a proxy.
struct Target {
    registry: Registry,
    proxy: Delay,
}

impl Target {
    fn start(program: &Path, directory: &Path, round_trip: Duration) -> Target {
        let registry = Registry::start(program, directory);
        let proxy = Delay::before(registry.address(), round_trip);
        Target { registry, proxy }
    }
}

fn command(contender: &Contender, directory: &Path, targets: &[Target]) -> Command {
    let repositories: Vec<_> = targets.iter().map(|target| format!("{}/app", target.proxy.address())).collect();
    let mut script = contender.script.replace("{all}", &repositories.join(" ")).replace("{tags}", &TAGS.join(" "));
    for (number, repository) in repositories.iter().enumerate() {
        script = script.replace(&format!("{{to{number}}}"), repository);
    }
    let mut command = Command::new("sh");
    command.args(["-e", "-c", &script, contender.program]).current_dir(directory);
    command.env("HOME", directory).env("REGCTL_CONFIG", regctl_config(directory, &repositories));
    command
}

/// Returns a configuration in which the registries have no TLS.
fn regctl_config(directory: &Path, repositories: &[String]) -> PathBuf {
    let hosts = repositories.iter().filter_map(|repository| repository.split('/').next());
    let hosts: serde_json::Map<_, _> =
        hosts.map(|host| (host.to_owned(), serde_json::json!({"tls": "disabled"}))).collect();
    let path = directory.join("regctl.json");
    std::fs::write(&path, serde_json::json!({"hosts": hosts}).to_string()).expect("a file");
    path
}
