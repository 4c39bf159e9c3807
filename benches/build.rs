//! How long does it take from the end of a solve to the archive, and to the pushed image?
//!
//! One buildkitd solves a Dockerfile once; then every step and every compressed layer is in its cache, so that each measured
//! command only exports. `ocikit build` is compared with buildctl's own exporters: `type=oci,dest=FILE` followed by `skopeo
//! copy`, and `type=image,push=true`. The row "solve" is a build without a result: what every other row contains too. Each push
//! goes to an empty registry.
//!
//! The variables `OCIKIT_BENCH_MIB` (size of the image), `OCIKIT_BENCH_ROUNDS` (number of rounds) and `OCIKIT_BENCH_ONLY`
//! (comma-separated prefixes of names) select what runs.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "this is a bench")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ocikit_benches::{Buildkitd, Cost, Registry, Table, find, measure, random, run_if_asked};

const OCIKIT: &str = env!("CARGO_BIN_EXE_ocikit-under-bench");

/// The number of layers of the image.
const LAYERS: usize = 8;

/// A shell script with a name. `{build}` is a call of buildctl that solves the Dockerfile, `{to}` a new name in an empty
/// registry.
type Contender = (&'static str, &'static str);

const ARCHIVES: [Contender; 3] = [
    ("ocikit build -o app.tar", "{ocikit} -o app.tar"),
    ("buildctl type=oci", "{build} --output type=oci,dest=app.tar"),
    ("solve", "{build}"),
];

const PUSHES: [Contender; 5] = [
    ("ocikit build --push", "{ocikit} --tag {to} --push"),
    ("ocikit build --push-by-buildkit", "{ocikit} --tag {to} --push --push-by-buildkit"),
    (
        "buildctl type=oci, skopeo copy",
        "{build} --output type=oci,dest=app.tar && skopeo copy -q --dest-tls-verify=false oci-archive:app.tar docker://{to}",
    ),
    ("buildctl type=image,push=true", "{build} --output type=image,name={to},push=true,registry.insecure=true"),
    ("solve", "{build}"),
];

fn main() {
    run_if_asked();
    let Some(registry) = find("registry") else { return };
    if ["buildctl", "buildkitd", "runc", "skopeo"].iter().any(|program| find(program).is_none()) {
        return;
    }
    let directory = tempfile::Builder::new().prefix("ocikit-bench-").tempdir().expect("a temporary directory");
    let mib: usize = setting("OCIKIT_BENCH_MIB", "256").parse().expect("a number");
    let rounds: usize = setting("OCIKIT_BENCH_ROUNDS", "5").parse().expect("a number");
    let only = setting("OCIKIT_BENCH_ONLY", "");
    let is_selected = |name: &str| only.is_empty() || only.split(',').any(|prefix| name.starts_with(prefix));
    write_context(&directory.path().join("context"), mib << 20);
    let setup = Setup { buildkitd: Buildkitd::start(directory.path()), directory: directory.path().to_owned() };
    // Fills the cache with the results and with the compressed layers.
    setup.run("{build} --output type=oci,dest=first.tar", "");
    let (mut archives, mut pushes) = (Table::new(), Table::new());
    for round in 0..rounds {
        for (name, line) in ARCHIVES.iter().filter(|(name, _)| is_selected(name)) {
            eprintln!("round {} of {rounds}: archive, {name}", round + 1);
            archives.add(name, setup.run(line, ""));
        }
        for (name, line) in PUSHES.iter().filter(|(name, _)| is_selected(name)) {
            eprintln!("round {} of {rounds}: push, {name}", round + 1);
            let registry = Registry::start(&registry, directory.path());
            let cost = setup.run(line, &format!("{}/bench/app:1", registry.address()));
            pushes.add(name, Cost { requests: Some(registry.requests()), ..cost });
        }
    }
    archives.print(&format!("export a solved image of {mib} MiB to an archive"));
    pushes.print(&format!("push a solved image of {mib} MiB to a registry on loopback"));
}

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned())
}

/// Writes a context of this size, half of which does not compress.
fn write_context(path: &Path, size: usize) {
    fs::create_dir_all(path).expect("a directory");
    let mut dockerfile = "FROM scratch\n".to_owned();
    for layer in 0..LAYERS {
        let mut bytes = random(layer as u64, size / LAYERS / 2);
        bytes.resize(size / LAYERS, 0);
        fs::write(path.join(layer.to_string()), bytes).expect("a file");
        dockerfile.push_str(&format!("COPY {layer} /{layer}\n"));
    }
    fs::write(path.join("Dockerfile"), dockerfile).expect("a file");
}

struct Setup {
    buildkitd: Buildkitd,
    directory: PathBuf,
}

impl Setup {
    fn run(&self, line: &str, to: &str) -> Cost {
        let address = self.buildkitd.address();
        let build = format!(
            "buildctl --addr {address} build --progress=plain --frontend dockerfile.v0 --local context=context --local \
             dockerfile=context"
        );
        let ocikit = format!("{OCIKIT} build -q --addr {address} --no-cache-directory context");
        let line = line.replace("{build}", &build).replace("{ocikit}", &ocikit).replace("{to}", to);
        let mut command = Command::new("sh");
        command.args(["-ec", &line]).current_dir(&self.directory).env("HOME", &self.directory);
        measure(&command)
    }
}
