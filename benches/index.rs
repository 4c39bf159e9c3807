//! How long does it take to create an index in a registry with a round-trip time of 50 ms, and with how many requests and bytes?
//!
//! The images are in the repository of the index. crane and regctl do the same job, alternately with ocikit.
//! `OCIKIT_BENCH_ROUNDS` is the number of rounds, 5 by default.

#![allow(clippy::expect_used, clippy::print_stderr, reason = "this is a bench")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ocikit_benches::{Delay, Registry, Table, find, layout, measure, run_if_asked};

const OCIKIT: &str = env!("CARGO_BIN_EXE_ocikit-under-bench");

/// The round-trip time of the registry.
const ROUND_TRIP: Duration = Duration::from_millis(50);

/// The number of images in the index.
const IMAGES: usize = 3;

/// The size of the layer of each image in bytes, which no program should transfer.
const LAYER_BYTES: usize = 8 << 20;

fn main() {
    run_if_asked();
    let Some(program) = find("registry") else { return };
    let directory = tempfile::Builder::new().prefix("ocikit-bench-").tempdir().expect("a temporary directory");
    let registry = Registry::start(&program, directory.path());
    let delay = Delay::before(registry.address(), ROUND_TRIP);
    for number in 0..IMAGES {
        let name = format!("layout-{number}");
        layout(&directory.path().join(&name), 1, LAYER_BYTES + number);
        let target = format!("{}/app:{number}", registry.address());
        run(directory.path(), &[OCIKIT, "copy", "-q", &format!("oci:{name}"), &target]);
    }
    let rounds: usize = std::env::var("OCIKIT_BENCH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let mut table = Table::new();
    let mut bytes: Vec<(&str, u64)> = Vec::new();
    let at = |tag: &str| format!("{}/app:{tag}", delay.address());
    let sources: Vec<_> = (0..IMAGES).map(|number| at(&number.to_string())).collect();
    let with = |flag: &str| sources.iter().flat_map(|source| [flag.to_owned(), source.clone()]).collect::<Vec<_>>();
    for round in 0..rounds {
        for (name, mut words) in [
            ("ocikit", vec![OCIKIT.to_owned(), "index".to_owned(), "create".to_owned()]),
            ("crane", ["crane", "index", "append", "-t"].map(str::to_owned).to_vec()),
            ("regctl", ["regctl", "index", "create"].map(str::to_owned).to_vec()),
        ] {
            words.push(at(&format!("{name}-{round}")));
            match name {
                // The generated images are all for one platform.
                "ocikit" => {
                    words.extend([vec!["--on-duplicate".to_owned(), "keep".to_owned()], sources.clone()].concat());
                }
                "crane" => words.extend(with("-m")),
                _ => {
                    let host = format!("reg={},tls=disabled", delay.address());
                    words.extend([with("--ref"), vec!["--host".to_owned(), host]].concat());
                }
            }
            let Some(program) = (if name == "ocikit" { Some(OCIKIT.into()) } else { find(name) }) else { continue };
            let mut command = Command::new(program);
            command.args(&words[1..]).current_dir(directory.path()).env("HOME", directory.path());
            let (requests, before) = (registry.requests(), delay.bytes());
            let mut cost = measure(&command);
            cost.requests = Some(registry.requests() - requests);
            table.add(name, cost);
            bytes.push((name, delay.bytes() - before));
        }
    }
    table.print(&format!("create an index of {IMAGES} images at {} ms", ROUND_TRIP.as_millis()));
    for name in ["ocikit", "crane", "regctl"] {
        let most = bytes.iter().filter(|(found, _)| *found == name).map(|(_, bytes)| *bytes).max();
        if let Some(most) = most {
            eprintln!("{name}: at most {most} bytes on the wire");
        }
    }
}

fn run(directory: &Path, words: &[&str]) {
    let status = Command::new(words[0]).args(&words[1..]).current_dir(directory).env("HOME", directory).status();
    assert!(status.expect("a program").success(), "{words:?}");
}
