//! How long does it take to transfer images, on loopback and with a round-trip time of 50 ms?
//!
//! ocikit and the installed peers run every job alternately. The limit is curl, which transfers the same blobs, four at a time,
//! without hashing.
//!
//! These variables select what runs: `OCIKIT_BENCH_JOBS` (`push,pull,copy,again,hundred,five`), `OCIKIT_BENCH_DELAY` (round-trip
//! times in milliseconds, `0,50`), `OCIKIT_BENCH_ROUNDS` (number of rounds), `OCIKIT_BENCH_MIB` (size of the image with eight
//! layers) and `OCIKIT_BENCH_ONLY` (comma-separated prefixes of names).

#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "this is a bench")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ocikit_benches::{
    Cost, Delay, Registry, Table, find, images_with_shared_layers, layout, measure, run_if_asked, tar,
};

const OCIKIT: &str = env!("CARGO_BIN_EXE_ocikit-under-bench");
const OCI_CLIENT: &str = env!("CARGO_BIN_EXE_oci-client-under-bench");

/// The total time in seconds after which a program is not run again. The median of fewer runs is precise enough then.
const MAX_TOTAL_SECONDS: f64 = 40.0;

/// A job and the command line of each program. `{from}` and `{to}` stand for registries, and `{tag}` for a number that is unique
/// to the program.
struct Job {
    name: &'static str,
    description: &'static str,
    /// The contents of the source registry.
    source: SourceContents,
    /// The number of target registries.
    targets: usize,
    /// Whether the image already exists at the target.
    again: bool,
    contenders: Vec<(&'static str, Vec<&'static str>)>,
}

/// The contents of the source registry.
#[derive(Clone, Copy, PartialEq)]
enum SourceContents {
    /// The job reads a file.
    NoRegistry,
    /// One image, as `app:1`.
    OneImage,
    /// 100 images that share layers, as `app:1` to `app:100`.
    ImagesWithSharedLayers,
}

const IMAGES: u64 = 100;

fn main() {
    run_if_asked();
    let Some(program) = find("registry") else { return };
    let directory = tempfile::Builder::new().prefix("ocikit-bench-").tempdir().expect("a temporary directory");
    let path = |name: &str| directory.path().join(name);
    let mebibytes: usize = setting("OCIKIT_BENCH_MIB", "256").parse().expect("a number");
    layout(&path("layout"), 8, (mebibytes << 20) / 8);
    tar(&path("layout"), &path("image.tar"));
    images_with_shared_layers(&path("images"), IMAGES, (4, 8 << 20), 64 << 10);
    std::fs::write(path("regctl.json"), "{}").expect("a file");
    let setup = Setup { program, directory: directory.path().to_owned() };
    let wanted = setting("OCIKIT_BENCH_JOBS", "push,pull,copy,again,hundred,five");
    for job in jobs().iter().filter(|job| wanted.split(',').any(|wanted| wanted == job.name)) {
        for delay in setting("OCIKIT_BENCH_DELAY", "0,50").split(',') {
            let delay = Duration::from_millis(delay.parse().expect("milliseconds"));
            let place = if delay.is_zero() { "on loopback".to_owned() } else { format!("at {} ms", delay.as_millis()) };
            let description = job.description.replace("{mib}", &mebibytes.to_string());
            setup.run(job, delay).print(&format!("{}: {description}, {place}", job.name));
        }
    }
}

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned())
}

/// The registry program, and the directory in which the programs run.
struct Setup {
    program: PathBuf,
    directory: PathBuf,
}

/// A registry, and the proxy that delays its connections, if any.
struct DelayedRegistry {
    registry: Registry,
    delay: Option<Delay>,
}

impl DelayedRegistry {
    fn address(&self) -> String {
        self.delay.as_ref().map_or_else(|| self.registry.address().to_owned(), Delay::address)
    }
}

impl Setup {
    fn run(&self, job: &Job, delay: Duration) -> Table {
        let rounds: usize = setting("OCIKIT_BENCH_ROUNDS", "5").parse().expect("a number");
        let only = setting("OCIKIT_BENCH_ONLY", "");
        let is_selected = |name: &str| only.is_empty() || only.split(',').any(|prefix| name.starts_with(prefix));
        let from = (job.source != SourceContents::NoRegistry).then(|| self.registry(delay));
        if let Some(from) = &from {
            self.fill(from, job.source);
        }
        let is_installed = |line: &[&str]| {
            // The `$0` of a script is the program that it needs.
            let program = if line[0] == "sh" { line[3] } else { line[0] };
            Path::new(program).is_absolute() || find(program).is_some()
        };
        let contenders = job.contenders.iter().filter(|(name, line)| is_selected(name) && is_installed(line));
        let contenders: Vec<_> = contenders.collect();
        // A repeated job keeps its target registries.
        let kept: Vec<DelayedRegistry> =
            (0..job.targets * usize::from(job.again)).map(|_| self.registry(delay)).collect();
        let mut table = Table::new();
        for round in 0..rounds {
            for (number, (name, line)) in contenders.iter().enumerate() {
                if table.total(name) > MAX_TOTAL_SECONDS {
                    continue;
                }
                eprintln!("{} at {} ms, round {} of {rounds}: {name}", job.name, delay.as_millis(), round + 1);
                let new: Vec<DelayedRegistry> =
                    (0..job.targets * usize::from(!job.again)).map(|_| self.registry(delay)).collect();
                let targets = if job.again { &kept } else { &new };
                let command = self.command(line, from.as_ref(), targets, number);
                if job.again && round == 0 {
                    measure(&command);
                }
                let requests =
                    |registries: &[DelayedRegistry]| registries.iter().map(|one| one.registry.requests()).sum::<u64>();
                let before = requests(from.as_slice()) + requests(targets);
                let cost = measure(&command);
                let requests = requests(from.as_slice()) + requests(targets) - before;
                table.add(name, Cost { requests: Some(requests), ..cost });
                for delay in targets.iter().chain(&from).filter_map(|registry| registry.delay.as_ref()) {
                    eprintln!("  {} connections, {} MiB so far", delay.connections(), delay.bytes() >> 20);
                }
            }
        }
        table
    }

    fn registry(&self, round_trip: Duration) -> DelayedRegistry {
        let registry = Registry::start(&self.program, &self.directory);
        let delay = (!round_trip.is_zero()).then(|| Delay::before(registry.address(), round_trip));
        DelayedRegistry { registry, delay }
    }

    /// Pushes the contents that a job reads, without the delay.
    fn fill(&self, from: &DelayedRegistry, contents: SourceContents) {
        let to = from.registry.address();
        let push = |source: &str, tag: &str| {
            let mut command = Command::new(OCIKIT);
            command.args(["copy", "-q", "--no-referrers", source, &format!("{to}/app:{tag}")]);
            command.current_dir(&self.directory).env("HOME", &self.directory);
            measure(&command);
        };
        match contents {
            SourceContents::NoRegistry => {}
            SourceContents::OneImage => push("oci:layout:1", "1"),
            SourceContents::ImagesWithSharedLayers => {
                (1..=IMAGES).for_each(|number| push(&format!("oci:images:{number}"), &number.to_string()));
            }
        }
    }

    /// Returns the command of a program with all placeholders replaced, and empties its output directory.
    fn command(
        &self,
        line: &[&str],
        from: Option<&DelayedRegistry>,
        targets: &[DelayedRegistry],
        number: usize,
    ) -> Command {
        let _ = std::fs::remove_dir_all(self.directory.join("out"));
        std::fs::create_dir(self.directory.join("out")).expect("a directory");
        let from = from.map(DelayedRegistry::address).unwrap_or_default();
        let to: Vec<_> = targets.iter().map(DelayedRegistry::address).collect();
        let fill = |word: &str| {
            let word =
                word.replace("{from}", &from).replace("{all}", &to.join(" ")).replace("{tag}", &number.to_string());
            let word = word.replace("{to}", to.first().map_or("", |to| to));
            (0..to.len()).fold(word, |word, target| word.replace(&format!("{{to{target}}}"), &to[target]))
        };
        let mirror = format!("images: [{{from: {from}/app, to: {}/app}}]\n", to.first().map_or("", |to| to));
        std::fs::write(self.directory.join("mirror.yaml"), mirror).expect("a file");
        let hosts = to.iter().chain([&from]).filter(|name| !name.is_empty());
        let hosts: Vec<_> = hosts.map(|name| format!(r#""{name}":{{"tls":"disabled","hostname":"{name}"}}"#)).collect();
        let regctl = self.directory.join("regctl.json");
        std::fs::write(&regctl, format!(r#"{{"hosts":{{{}}}}}"#, hosts.join(","))).expect("a file");
        let mut command = Command::new(line[0]);
        command.args(line[1..].iter().map(|word| fill(word))).current_dir(&self.directory);
        command.env("HOME", &self.directory).env("REGCTL_CONFIG", regctl);
        command
    }
}

fn jobs() -> Vec<Job> {
    const SKOPEO: [&str; 6] =
        ["skopeo", "copy", "-q", "--insecure-policy", "--src-tls-verify=false", "--dest-tls-verify=false"];
    let skopeo = |from: &'static str, to: &'static str| [&SKOPEO[..], &[from, to]].concat();
    // Returns the command line of a shell script, with the program that it needs as `$0`.
    let sh = |program: &'static str, script: &'static str| vec!["sh", "-ec", script, program];
    vec![
        Job {
            name: "push",
            description: "an archive of {mib} MiB in eight layers to a registry",
            source: SourceContents::NoRegistry,
            targets: 1,
            again: false,
            contenders: vec![
                ("ocikit push", vec![OCIKIT, "push", "-q", "image.tar", "{to}/app:1"]),
                ("curl, 4 at a time, no hashing", sh("curl", CURL_PUSH)),
                ("oras cp, from the tar", vec!["oras", "cp", "--from-oci-layout", "image.tar:1", "{to}/app:1"]),
                ("crane push, from the layout", vec!["crane", "push", "layout", "{to}/app:1"]),
                ("regctl image import", vec!["regctl", "image", "import", "{to}/app:1", "image.tar"]),
                ("skopeo copy, from the layout", skopeo("oci:layout:1", "docker://{to}/app:1")),
                ("skopeo copy", skopeo("oci-archive:image.tar", "docker://{to}/app:1")),
                ("oci-client, from the layout", vec![OCI_CLIENT, "push", "layout", "{to}/app:1"]),
            ],
        },
        Job {
            name: "pull",
            description: "an image of {mib} MiB in eight layers to a layout",
            source: SourceContents::OneImage,
            targets: 0,
            again: false,
            contenders: vec![
                ("ocikit pull", vec![OCIKIT, "pull", "-q", "{from}/app:1", "-o", "oci:out/layout"]),
                ("curl, 4 at a time, no hashing", sh("curl", CURL_PULL)),
                ("oras cp", vec!["oras", "cp", "--to-oci-layout", "{from}/app:1", "out/layout:1"]),
                ("crane pull", vec!["crane", "pull", "--format=oci", "{from}/app:1", "out/layout"]),
                ("regctl image copy", vec!["regctl", "image", "copy", "{from}/app:1", "ocidir://out/layout:1"]),
                ("skopeo copy", skopeo("docker://{from}/app:1", "oci:out/layout:1")),
                ("oci-client", vec![OCI_CLIENT, "pull", "{from}/app:1", "out"]),
            ],
        },
        Job {
            name: "copy",
            description: "an image of {mib} MiB in eight layers from one registry to another",
            source: SourceContents::OneImage,
            targets: 1,
            again: false,
            contenders: vec![
                ("ocikit copy", vec![OCIKIT, "copy", "-q", "{from}/app:1", "{to}/app:1"]),
                ("curl, 4 at a time, no hashing", sh("curl", CURL_COPY)),
                ("oras cp", vec!["oras", "cp", "{from}/app:1", "{to}/app:1"]),
                ("crane copy", vec!["crane", "copy", "{from}/app:1", "{to}/app:1"]),
                ("regctl image copy", vec!["regctl", "image", "copy", "{from}/app:1", "{to}/app:1"]),
                ("skopeo copy", skopeo("docker://{from}/app:1", "docker://{to}/app:1")),
            ],
        },
        Job {
            name: "again",
            description: "an archive of {mib} MiB to a registry that already has it",
            source: SourceContents::NoRegistry,
            targets: 1,
            again: true,
            contenders: vec![
                ("ocikit push", vec![OCIKIT, "push", "-q", "image.tar", "{to}/app{tag}:1"]),
                ("oras cp, from the tar", vec!["oras", "cp", "--from-oci-layout", "image.tar:1", "{to}/app{tag}:1"]),
                ("oras cp, from the layout", vec!["oras", "cp", "--from-oci-layout", "layout:1", "{to}/app{tag}:1"]),
                ("crane push, from the layout", vec!["crane", "push", "layout", "{to}/app{tag}:1"]),
                ("regctl image import", vec!["regctl", "image", "import", "{to}/app{tag}:1", "image.tar"]),
                (
                    "regctl image copy, from the layout",
                    vec!["regctl", "image", "copy", "ocidir://layout:1", "{to}/app{tag}:1"],
                ),
                ("skopeo copy, from the layout", skopeo("oci:layout:1", "docker://{to}/app{tag}:1")),
                ("skopeo copy", skopeo("oci-archive:image.tar", "docker://{to}/app{tag}:1")),
                ("oci-client, from the layout", vec![OCI_CLIENT, "push", "layout", "{to}/app{tag}:1"]),
            ],
        },
        Job {
            name: "hundred",
            description: "100 images with four shared layers of 8 MiB and one separate layer of 64 KiB, from one registry to another",
            source: SourceContents::ImagesWithSharedLayers,
            targets: 1,
            again: false,
            contenders: vec![
                ("ocikit sync", vec![OCIKIT, "sync", "-q", "mirror.yaml"]),
                ("ocikit copy --all-tags", vec![OCIKIT, "copy", "-q", "--all-tags", "{from}/app", "{to}/app"]),
                ("oras cp, 100 times", sh("oras", "for n in $(seq 100); do oras cp {from}/app:$n {to}/app:$n; done")),
                (
                    "crane copy, 100 times",
                    sh("crane", "for n in $(seq 100); do crane copy {from}/app:$n {to}/app:$n; done"),
                ),
                (
                    "regctl image copy, 100 times",
                    sh("regctl", "for n in $(seq 100); do regctl image copy {from}/app:$n {to}/app:$n; done"),
                ),
                (
                    "skopeo copy, 100 times",
                    sh(
                        "skopeo",
                        "for n in $(seq 100); do skopeo copy -q --insecure-policy --src-tls-verify=false \
                         --dest-tls-verify=false docker://{from}/app:$n docker://{to}/app:$n; done",
                    ),
                ),
                ("crane copy --all-tags", vec!["crane", "copy", "--all-tags", "{from}/app", "{to}/app"]),
            ],
        },
        Job {
            name: "five",
            description: "an archive of {mib} MiB in eight layers to five registries",
            source: SourceContents::NoRegistry,
            targets: 5,
            again: false,
            contenders: vec![
                (
                    "ocikit push",
                    vec![
                        OCIKIT,
                        "push",
                        "-q",
                        "image.tar",
                        "{to0}/app:1",
                        "{to1}/app:1",
                        "{to2}/app:1",
                        "{to3}/app:1",
                        "{to4}/app:1",
                    ],
                ),
                (
                    "oras cp, 5 times, from the tar",
                    sh("oras", "for to in {all}; do oras cp --from-oci-layout image.tar:1 $to/app:1; done"),
                ),
                (
                    "crane push, 5 times, from the layout",
                    sh("crane", "for to in {all}; do crane push layout $to/app:1; done"),
                ),
                (
                    "regctl image import, 5 times",
                    sh("regctl", "for to in {all}; do regctl image import $to/app:1 image.tar; done"),
                ),
                (
                    "skopeo copy, 5 times, from the layout",
                    sh(
                        "skopeo",
                        "for to in {all}; do skopeo copy -q --insecure-policy --dest-tls-verify=false oci:layout:1 \
                         docker://$to/app:1; done",
                    ),
                ),
            ],
        },
    ]
}

/// Uploads every blob of the layout in one request each.
const CURL_PUSH: &str = r#"
ls layout/blobs/sha256 | xargs -P 4 -I{} sh -c '
  location=$(curl -sS -o /dev/null -D - -X POST "http://{to}/v2/app/blobs/uploads/" | tr -d "\r" | sed -n "s/^[Ll]ocation: //p")
  curl -sS -f -o /dev/null -T "layout/blobs/sha256/$0" "$location&digest=sha256:$0"' {}
"#;

/// Downloads every blob of the layout of more than 64 KiB, which excludes the manifest: a registry does not serve it as a blob.
const CURL_PULL: &str = r#"
find layout/blobs/sha256 -size +64k -printf '%f\n' | xargs -P 4 -I{} curl -sS -f -o out/{} "http://{from}/v2/app/blobs/sha256:{}"
"#;

/// Streams every layer from one registry to the other.
const CURL_COPY: &str = r#"
find layout/blobs/sha256 -size +64k -printf '%f\n' | xargs -P 4 -I{} sh -c '
  location=$(curl -sS -o /dev/null -D - -X POST "http://{to}/v2/app/blobs/uploads/" | tr -d "\r" | sed -n "s/^[Ll]ocation: //p")
  curl -sS -f "http://{from}/v2/app/blobs/sha256:$0" | curl -sS -f -o /dev/null -T - "$location&digest=sha256:$0"' {}
"#;
