//! Malicious and malformed archives: every command ends with a documented exit code, stays within its memory limit, and writes
//! only to its target.

#![allow(clippy::print_stderr, reason = "OCIKIT_HOSTILE_COSTS prints memory and time")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ocikit_tests::hostile::{CASES, Case, readme, valid_archive};
use ocikit_tests::{Bench, Outcome, Registry, run, testdata};

use crate::bench;

/// The peak memory limit of a command. About a third is the program itself, in a debug build.
const MAX_MEMORY_KIB: u64 = 110 << 10;

/// The peak memory limit for layers that fill the memory limit for file trees.
const MAX_LAYER_MEMORY_KIB: u64 = 200 << 10;

/// The peak memory and run time of a command.
pub(crate) struct Cost {
    pub(crate) kibibytes: u64,
    milliseconds: u64,
}

/// Runs the program and measures its peak memory and run time.
pub(crate) fn run_measured(bench: &Bench, arguments: &[&str]) -> (Outcome, Cost) {
    let program = bench.command(arguments);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ocikit-measured"));
    command.arg(bench.path("cost")).arg(program.get_program()).args(arguments);
    command.current_dir(bench.path("")).env_clear();
    command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let outcome = run(&mut command, &[]);
    let text = bench.read("cost");
    fs::remove_file(bench.path("cost")).unwrap();
    let numbers: Vec<u64> = text.split(' ').map(|word| word.parse().unwrap()).collect();
    (outcome, Cost { kibibytes: numbers[0], milliseconds: numbers[1] })
}

/// Returns the paths of all files and directories below a directory.
fn tree(path: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(tree(&entry.path()));
        }
        found.insert(entry.path().display().to_string());
    }
    found
}

/// Runs every command on an archive and returns the failed checks.
fn attempt(case: &Case, bytes: &[u8], registry: &Registry) -> Vec<String> {
    let bench = bench();
    let mut failures = Vec::new();
    // The journal of uploads. A push that has ended leaves no file in it.
    fs::create_dir_all(bench.path("home/.cache/ocikit/uploads")).unwrap();
    // Every case has its own repository, so that no blob already exists.
    let reference = format!("{}/{}:1", registry.name(), case.name);
    let [inspect, copy, validate] = case.codes;
    let mut is_unchanged = false;
    for (line, code) in [
        (&["inspect", "a.tar"][..], Some(inspect)),
        (&["inspect", "--json", "a.tar"], Some(inspect)),
        (&["digest", "a.tar"], None),
        (&["copy", "a.tar", "oci:out/layout"], Some(copy)),
        (&["copy", "a.tar", "out/b.tar"], Some(copy)),
        (&["push", "a.tar", &reference], Some(copy)),
        (&["validate", "--max-uncompressed", "64MiB", "a.tar"], Some(validate)),
        (&["validate", "--fast", "a.tar"], None),
        (&["ls", "a.tar"], None),
        (&["ls", "--layer", "0", "a.tar"], None),
        (&["cat", "a.tar", "/etc/motd"], None),
        (&["diff", "a.tar", "a.tar"], None),
        (&["gc", "a.tar"], None),
        (&["annotate", "a.tar", "k=v"], None),
    ] {
        let command = line[0];
        let may_change = ["gc", "annotate"].contains(&command);
        fs::create_dir(bench.path("out")).unwrap();
        if !is_unchanged {
            bench.write("a.tar", bytes);
        }
        let before = tree(&bench.path(""));
        let line: Vec<_> = ["--progress", "none", "--retries", "0"].iter().chain(line).copied().collect();
        let (outcome, cost) = run_measured(&bench, &line);
        if std::env::var_os("OCIKIT_HOSTILE_COSTS").is_some() {
            let (kibibytes, milliseconds, words) = (cost.kibibytes, cost.milliseconds, line[4..].join(" "));
            eprintln!("{kibibytes:6} KiB {milliseconds:6} ms  {}: {words}", case.name);
        }
        let mut fail = |problem: String| failures.push(format!("{}: {line:?}: {problem}\n{outcome}", case.name));
        match code {
            // The registry may detect the problem before the program does.
            Some(3..=5) if line.contains(&"push") && [1, 3, 5].contains(&outcome.code) => {}
            Some(code) if outcome.code != code => fail(format!("exit code {} instead of {code}", outcome.code)),
            None if ![0, 1, 2, 3, 5].contains(&outcome.code) => fail(format!("exit code {}", outcome.code)),
            _ => {}
        }
        // For `diff` see `untrusted_text::exceeded_memory_limit_is_named`.
        let reads_files = ["ls", "cat"].contains(&command);
        let limit = "exceed the limit of 112 MiB for paths and metadata of files";
        if case.name == "layer-long-paths" && reads_files && !(outcome.code == 1 && outcome.stderr.contains(limit)) {
            fail("did not name the limit".to_owned());
        }
        let max_kib = if case.name.starts_with("layer-") { MAX_LAYER_MEMORY_KIB } else { MAX_MEMORY_KIB };
        if cost.kibibytes > max_kib {
            fail(format!("used {} KiB of memory", cost.kibibytes));
        }
        let is_control = |letter: char| letter.is_control() && letter != '\n';
        if !line.contains(&"--json") && (outcome.stdout.contains(is_control) || outcome.stderr.contains(is_control)) {
            fail("wrote a control character to the terminal".to_owned());
        }
        let after = tree(&bench.path(""));
        let target = bench.path("out").display().to_string();
        let new: Vec<_> = after.difference(&before).filter(|path| !path.starts_with(&target)).collect();
        if !new.is_empty() {
            fail(format!("created {new:?}"));
        }
        is_unchanged = has_contents(&bench.path("a.tar"), bytes);
        if !may_change && !is_unchanged {
            fail("changed the archive".to_owned());
        }
        if outcome.code != 0 && (bench.path("out/b.tar").exists() || bench.path("out/layout/index.json").exists()) {
            fail("left an incomplete target".to_owned());
        }
        fs::remove_dir_all(bench.path("out")).unwrap();
    }
    assert!(!Path::new("/tmp/ocikit-hostile").exists(), "{}", case.name);
    failures
}

fn attempt_all(large: bool) {
    let registry = Registry::start();
    let cases: Vec<_> = CASES.iter().filter(|case| case.large == large).collect();
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = attempt(case, &case.bytes(), &registry);
                    failures.lock().unwrap().extend(found);
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Returns whether a file has these contents. Reads it in parts, because it may be large.
fn has_contents(path: &Path, bytes: &[u8]) -> bool {
    let mut file = File::open(path).unwrap();
    let mut buffer = vec![0; 256 << 10];
    let is_same = |chunk: &[u8]| {
        let read = &mut buffer[..chunk.len()];
        file.read_exact(read).is_ok() && *read == *chunk
    };
    fs::metadata(path).unwrap().len() == bytes.len() as u64 && bytes.chunks(256 << 10).all(is_same)
}

#[test]
fn small_hostile_archives_do_no_harm() {
    attempt_all(false);
}

#[test]
fn large_hostile_archives_do_no_harm() {
    attempt_all(true);
}

#[test]
fn stored_archives_match_their_generator() {
    assert_eq!(fs::read_to_string(testdata("hostile/README.md")).unwrap(), readme());
    let mut names = BTreeSet::from(["README.md".to_owned()]);
    for case in CASES {
        if !case.large {
            let name = format!("{}.tar", case.name);
            let kept = fs::read(testdata("hostile").join(&name)).unwrap();
            assert!(kept == case.bytes(), "{name} is outdated: run ocikit-hostile");
            names.insert(name);
        }
    }
    let found = fs::read_dir(testdata("hostile")).unwrap();
    let found: BTreeSet<_> = found.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(found, names);
}

#[test]
fn images_with_the_same_diff_ids_and_other_layers_are_different() {
    let (bench, case) = (bench(), CASES.iter().find(|case| case.name == "diff-ids-shared").unwrap());
    bench.write("a.tar", case.bytes());
    let outcome = bench.ocikit(&["diff", "a.tar#1", "a.tar#2"]);
    assert!(outcome.code != 0 && outcome.stdout.contains("etc/motd"), "{outcome}");
}

#[test]
fn archive_truncated_at_any_block_is_broken() {
    let (bench, valid) = (bench(), valid_archive());
    for length in (0..valid.len()).step_by(512) {
        bench.write("a.tar", &valid[..length]);
        // Without the end-of-archive blocks, or without the last file, the image is still complete.
        for (line, missing) in [(["inspect", "a.tar"], 3), (["validate", "a.tar"], 3)] {
            let code = bench.ocikit(&line).code;
            assert!(code == missing || (length >= valid.len() - 2048 && [0, 5].contains(&code)), "{length}: {code}");
        }
    }
}

/// Files of a layout are replaced by pipes, directories and links.
#[cfg(unix)]
#[test]
fn layout_with_special_files_is_broken() {
    let bench = bench();
    bench.write("a.tar", valid_archive());
    bench.ok(&["copy", "a.tar", "oci:whole"]);
    let blob = |digest: &str| format!("blobs/{}", digest.replace(':', "/"));
    let facts = bench.json(&["inspect", "--json", "a.tar"]);
    let layer = blob(facts["layers"][0]["digest"].as_str().unwrap());
    let manifest = blob(facts["digest"].as_str().unwrap());
    for (file, code) in [("index.json", 3), (&manifest, 3), (&layer, 3), ("oci-layout", 3)] {
        for kind in ["pipe", "directory", "link to nothing", "link to a device"] {
            let mut copied = std::process::Command::new("cp");
            copied.args(["-r", "whole", "layout"]).current_dir(bench.path(""));
            assert!(copied.status().unwrap().success());
            let path = bench.path("layout").join(file);
            fs::remove_file(&path).unwrap();
            match kind {
                "pipe" => assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success()),
                "directory" => fs::create_dir(&path).unwrap(),
                "link to nothing" => std::os::unix::fs::symlink("nothing", &path).unwrap(),
                _ => std::os::unix::fs::symlink("/dev/zero", &path).unwrap(),
            }
            let (outcome, _) = run_measured(&bench, &["copy", "oci:layout", "oci:out"]);
            assert_eq!(outcome.code, code, "{file} is a {kind}: {outcome}");
            let (outcome, _) = run_measured(&bench, &["validate", "oci:layout"]);
            assert!([3, 5].contains(&outcome.code), "{file} is a {kind}: {outcome}");
            fs::remove_dir_all(bench.path("layout")).unwrap();
        }
    }
}
