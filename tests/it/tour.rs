//! `tour` and `serve`.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use ocikit_tests::{json, single};

use crate::bench;

#[test]
fn tour_runs_without_other_programs() {
    let bench = bench().with("PATH", "");
    let outcome = bench.ocikit(&["tour"]);
    assert_eq!(outcome.code, 0, "{outcome}");
    let last = outcome.stdout.lines().last().unwrap();
    assert!(last.starts_with("pushed sha256:"), "{outcome}");
    for command in ["kind", "annotate", "inspect", "digest", "keygen", "sign", "push", "verify", "copy", "pull"] {
        assert!(outcome.stderr.contains(&format!("$ ocikit {command} ")), "{command}: {outcome}");
    }
    let verified = outcome.stdout.lines().filter(|line| line.contains(" tour.pub cosign verified by sha256:"));
    assert_eq!(verified.count(), 8, "the index and its three images, in the registry and in the layout: {outcome}");
    assert_eq!(bench.names(), Vec::<String>::new(), "the tour leaves no files");
}

#[test]
fn tour_prints_one_json_object() {
    let text = bench().ok(&["tour", "--json", "--no-build"]);
    let facts = json(&text);
    assert!(facts["digest"].as_str().unwrap().starts_with("sha256:"));
    assert_eq!(facts["built"], false);
}

#[test]
fn storage_persists_between_runs_of_serve() {
    let bench = bench();
    let single = single();
    let mut digests = Vec::new();
    for round in 0..2 {
        let arguments = ["serve", "--storage", "registry", "--address", "127.0.0.1:0"];
        let mut child = bench.command(&arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
        let reference = format!("{}/app:1", address.trim());
        if round == 0 {
            bench.ok(&["push", &single, &reference]);
        }
        digests.push(bench.ok(&["digest", &reference]));
        std::process::Command::new("kill").arg(child.id().to_string()).status().unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130));
    }
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn address_in_use_is_reported() {
    let registry = ocikit_tests::Registry::start();
    let outcome = bench().ocikit(&["serve", "--address", &registry.name()]);
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.contains(&registry.name()) && outcome.stderr.contains("hint:"), "{outcome}");
}
