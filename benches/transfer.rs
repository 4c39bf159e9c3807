//! How long does it take to move images, near and far?
//!
//! Each job is done on loopback and over a line on which a round trip takes 50 ms, by ocikit and by whichever peers are
//! installed, in turn. The limit is what curl needs for the same blobs, four at a time, without hashing anything.
//!
//! The variables `OCIKIT_BENCH_JOBS` (`push,pull,copy,again,hundred,five`), `OCIKIT_BENCH_DELAY` (milliseconds, `0,50`),
//! `OCIKIT_BENCH_ROUNDS`, `OCIKIT_BENCH_MIB` (of the image, in eight layers) and `OCIKIT_BENCH_ONLY` (beginnings of names)
//! choose a part.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "this is a bench")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ocikit_benches::{Cost, Delay, Registry, Table, family, find, layout, measure, run_if_asked, tar};

const OCIKIT: &str = env!("CARGO_BIN_EXE_ocikit-under-bench");
const OCI_CLIENT: &str = env!("CARGO_BIN_EXE_oci-client-under-bench");

/// Who takes longer than this altogether, in seconds, is not asked again: the median of few tells enough then.
const PATIENCE: f64 = 40.0;

/// What a job consists of. In the lines `{from}` and `{to}` are the registries, `{tag}` is a tag of the contender's own.
struct Job {
    name: &'static str,
    what: &'static str,
    /// What is in the registry that it reads from.
    source: Holds,
    /// How many registries it writes to.
    targets: usize,
    /// Whether it was done before, so that nothing is left to do.
    again: bool,
    contenders: Vec<(&'static str, Vec<&'static str>)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Holds {
    Nothing,
    TheImage,
    AFamily,
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
    family(&path("family"), IMAGES, (4, 8 << 20), 64 << 10);
    std::fs::write(path("regctl.json"), "{}").expect("a file");
    let bench = Bench { program, directory: directory.path().to_owned() };
    let wanted = setting("OCIKIT_BENCH_JOBS", "push,pull,copy,again,hundred,five");
    for job in jobs().iter().filter(|job| wanted.split(',').any(|wanted| wanted == job.name)) {
        for delay in setting("OCIKIT_BENCH_DELAY", "0,50").split(',') {
            let delay = Duration::from_millis(delay.parse().expect("milliseconds"));
            let place = if delay.is_zero() { "on loopback".to_owned() } else { format!("at {} ms", delay.as_millis()) };
            let what = job.what.replace("{mib}", &mebibytes.to_string());
            bench.run(job, delay).print(&format!("{}: {what}, {place}", job.name));
        }
    }
}

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned())
}

struct Bench {
    program: PathBuf,
    directory: PathBuf,
}

/// A registry, and the line to it if it is far away.
struct Far {
    registry: Registry,
    line: Option<Delay>,
}

impl Far {
    fn address(&self) -> String {
        self.line.as_ref().map_or_else(|| self.registry.address().to_owned(), Delay::address)
    }
}

impl Bench {
    fn run(&self, job: &Job, delay: Duration) -> Table {
        let rounds: usize = setting("OCIKIT_BENCH_ROUNDS", "5").parse().expect("a number");
        let only = setting("OCIKIT_BENCH_ONLY", "");
        let is_asked = |name: &str| only.is_empty() || only.split(',').any(|beginning| name.starts_with(beginning));
        let from = (job.source != Holds::Nothing).then(|| self.registry(delay));
        if let Some(from) = &from {
            self.fill(from, job.source);
        }
        let is_there = |line: &[&str]| {
            // What a script needs is its name.
            let program = if line[0] == "sh" { line[3] } else { line[0] };
            Path::new(program).is_absolute() || find(program).is_some()
        };
        let contenders = job.contenders.iter().filter(|(name, line)| is_asked(name) && is_there(line));
        let contenders: Vec<_> = contenders.collect();
        // What was done before was done in this registry, and stays there.
        let lasting: Vec<Far> = (0..job.targets * usize::from(job.again)).map(|_| self.registry(delay)).collect();
        let mut table = Table::new();
        for round in 0..rounds {
            for (number, (name, line)) in contenders.iter().enumerate() {
                if table.total(name) > PATIENCE {
                    continue;
                }
                eprintln!("{} at {} ms, round {} of {rounds}: {name}", job.name, delay.as_millis(), round + 1);
                let fresh: Vec<Far> =
                    (0..job.targets * usize::from(!job.again)).map(|_| self.registry(delay)).collect();
                let targets = if job.again { &lasting } else { &fresh };
                let command = self.command(line, from.as_ref(), targets, number);
                if job.again && round == 0 {
                    measure(&command);
                }
                let asked = |far: &[Far]| far.iter().map(|far| far.registry.requests()).sum::<u64>();
                let before = (asked(from.as_slice()), asked(targets));
                let cost = measure(&command);
                let requests = asked(from.as_slice()) - before.0 + asked(targets) - before.1;
                table.add(name, Cost { requests: Some(requests), ..cost });
                for line in targets.iter().chain(&from).filter_map(|far| far.line.as_ref()) {
                    eprintln!("  {} connections, {} MiB so far", line.connections(), line.bytes() >> 20);
                }
            }
        }
        table
    }

    fn registry(&self, delay: Duration) -> Far {
        let registry = Registry::start(&self.program, &self.directory);
        let line = (!delay.is_zero()).then(|| Delay::before(registry.address(), delay));
        Far { registry, line }
    }

    /// Puts there what a job reads, by the short way.
    fn fill(&self, from: &Far, holds: Holds) {
        let to = from.registry.address();
        let push = |source: &str, tag: &str| {
            let mut command = Command::new(OCIKIT);
            command.args(["copy", "-q", "--no-referrers", source, &format!("{to}/app:{tag}")]);
            command.current_dir(&self.directory).env("HOME", &self.directory);
            measure(&command);
        };
        match holds {
            Holds::Nothing => {}
            Holds::TheImage => push("oci:layout:1", "1"),
            Holds::AFamily => {
                (1..=IMAGES).for_each(|number| push(&format!("oci:family:{number}"), &number.to_string()));
            }
        }
    }

    /// A contender's line with everything named, in a directory without anything that it wrote before.
    fn command(&self, line: &[&str], from: Option<&Far>, targets: &[Far], number: usize) -> Command {
        let _ = std::fs::remove_dir_all(self.directory.join("out"));
        std::fs::create_dir(self.directory.join("out")).expect("a directory");
        let from = from.map(Far::address).unwrap_or_default();
        let to: Vec<_> = targets.iter().map(Far::address).collect();
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
    // A script, and the program that it needs.
    let sh = |program: &'static str, script: &'static str| vec!["sh", "-ec", script, program];
    vec![
        Job {
            name: "push",
            what: "an archive of {mib} MiB in eight layers to a registry",
            source: Holds::Nothing,
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
            what: "an image of {mib} MiB in eight layers to a layout",
            source: Holds::TheImage,
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
            what: "an image of {mib} MiB in eight layers from one registry to another",
            source: Holds::TheImage,
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
            what: "an archive of {mib} MiB to where it is already",
            source: Holds::Nothing,
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
            what: "100 images that share four layers of 8 MiB, each with 64 KiB of its own, from one registry to another",
            source: Holds::AFamily,
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
            what: "an archive of {mib} MiB in eight layers to five registries",
            source: Holds::Nothing,
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

/// Asks for an upload and sends a file there, for every blob of the layout.
const CURL_PUSH: &str = r#"
ls layout/blobs/sha256 | xargs -P 4 -I{} sh -c '
  location=$(curl -sS -o /dev/null -D - -X POST "http://{to}/v2/app/blobs/uploads/" | tr -d "\r" | sed -n "s/^[Ll]ocation: //p")
  curl -sS -f -o /dev/null -T "layout/blobs/sha256/$0" "$location&digest=sha256:$0"' {}
"#;

/// Fetches every blob of the layout. The manifest is none to the registry, and small.
const CURL_PULL: &str = r#"
find layout/blobs/sha256 -size +64k -printf '%f\n' | xargs -P 4 -I{} curl -sS -f -o out/{} "http://{from}/v2/app/blobs/sha256:{}"
"#;

/// Fetches every layer and sends it on as it comes.
const CURL_COPY: &str = r#"
find layout/blobs/sha256 -size +64k -printf '%f\n' | xargs -P 4 -I{} sh -c '
  location=$(curl -sS -o /dev/null -D - -X POST "http://{to}/v2/app/blobs/uploads/" | tr -d "\r" | sed -n "s/^[Ll]ocation: //p")
  curl -sS -f "http://{from}/v2/app/blobs/sha256:$0" | curl -sS -f -o /dev/null -T - "$location&digest=sha256:$0"' {}
"#;
