//! How long do changes of an image in a registry take at a round-trip time of 50 ms, and how many requests and bytes?
//!
//! Each program annotates, labels and rebases an image of eight layers. `OCIKIT_BENCH_ROUNDS` sets the number of rounds and
//! `OCIKIT_BENCH_MIB` the size of the image.

#![allow(clippy::expect_used, clippy::print_stderr, reason = "this is a bench")]

use std::fs;
use std::process::Command;
use std::time::Duration;

use ocikit_benches::{Cost, Delay, Registry, Table, find, layout, measure, run_if_asked};

const OCIKIT: &str = env!("CARGO_BIN_EXE_ocikit-under-bench");
const ROUND_TRIP: Duration = Duration::from_millis(50);

/// A job and the command line of each program. `{app}`, `{old}` and `{new}` stand for images.
type Job = (&'static str, Vec<(&'static str, Vec<&'static str>)>);

fn jobs() -> Vec<Job> {
    vec![
        (
            "annotate",
            vec![
                ("ocikit annotate", vec![OCIKIT, "annotate", "{app}", "round={round}"]),
                ("crane mutate -a", vec!["crane", "mutate", "{app}", "-a", "round={round}", "-t", "{app}"]),
                (
                    "regctl image mod",
                    vec!["regctl", "image", "mod", "{app}", "--annotation", "round={round}", "--replace"],
                ),
            ],
        ),
        (
            "set a label",
            vec![
                ("ocikit edit --label", vec![OCIKIT, "edit", "{app}", "--label", "round={round}"]),
                ("crane mutate -l", vec!["crane", "mutate", "{app}", "-l", "round={round}", "-t", "{app}"]),
                ("regctl image mod", vec!["regctl", "image", "mod", "{app}", "--label", "round={round}", "--replace"]),
            ],
        ),
        // Without regctl: version 0.11.5 crashes here, because the image has a layer more than its base.
        (
            "rebase",
            vec![
                (
                    "ocikit rebase",
                    vec![OCIKIT, "rebase", "{app}", "--old-base", "{old}", "--new-base", "{new}", "-o", "{out}"],
                ),
                (
                    "crane rebase",
                    vec!["crane", "rebase", "{app}", "--old_base", "{old}", "--new_base", "{new}", "-t", "{out}"],
                ),
            ],
        ),
    ]
}

fn main() {
    run_if_asked();
    let Some(program) = find("registry") else { return };
    let number =
        |name: &str, default: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (rounds, mib) = (number("OCIKIT_BENCH_ROUNDS", 5), number("OCIKIT_BENCH_MIB", 64));
    let directory = tempfile::Builder::new().prefix("ocikit-bench-").tempdir().expect("a temporary directory");
    layout(&directory.path().join("layout"), 8, (mib as usize) << 17);
    let registry = Registry::start(&program, directory.path());
    let run = |words: &[String]| {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(directory.path()).env("HOME", directory.path());
        measure(&command)
    };
    // The old base is the image without its last layer; the new base has another config, so that the rebase changes something.
    for image in ["old", "new", "app"] {
        let target = format!("{}/{image}:1", registry.address());
        run(&[OCIKIT, "copy", "-q", "oci:layout:1", &target].map(str::to_owned));
        if image == "new" {
            run(&[OCIKIT, "edit", &target, "--env", "BASE=2"].map(str::to_owned));
        }
        if image == "app" {
            fs::write(directory.path().join("program"), "a program").expect("a file");
            run(&[OCIKIT, "append", &target, "program"].map(str::to_owned));
        }
    }
    for (job, contenders) in jobs() {
        let mut table = Table::new();
        let mut bytes = Vec::new();
        for round in 0..rounds {
            for (name, words) in contenders.iter().filter(|(_, words)| find(words[0]).is_some()) {
                let proxy = Delay::before(registry.address(), ROUND_TRIP);
                let named = |image: &str| format!("{}/{image}:1", proxy.address());
                let words: Vec<_> = words
                    .iter()
                    .map(|word| {
                        word.replace("{app}", &named("app"))
                            .replace("{old}", &named("old"))
                            .replace("{new}", &named("new"))
                    })
                    .map(|word| word.replace("{out}", &named("app").replace(":1", ":2")))
                    .map(|word| word.replace("{round}", &format!("{round}-{}", name.len())))
                    .collect();
                if words[0] == "regctl" {
                    let host = proxy.address();
                    run(&["regctl", "registry", "set", "--tls", "disabled", &host].map(str::to_owned));
                }
                let (before, moved) = (registry.requests(), proxy.bytes());
                let cost = run(&words);
                let requests = Some(registry.requests() - before);
                bytes.push((*name, proxy.bytes() - moved));
                table.add(name, Cost { requests, ..cost });
            }
        }
        table.print(&format!("{job}, an image of {mib} MiB in a registry at 50 ms"));
        for (name, _) in &contenders {
            let most = bytes.iter().filter(|(found, _)| found == name).map(|(_, bytes)| *bytes).max();
            if let Some(most) = most {
                eprintln!("{name}: at most {most} bytes over the network");
            }
        }
    }
}
