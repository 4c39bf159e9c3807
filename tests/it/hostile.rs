//! Archives by somebody who means harm: every command ends as it is documented, in little memory, and writes nothing
//! but what it was told to.

#![allow(clippy::print_stderr, reason = "what each command took is printed for whoever asks")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ocikit_tests::hostile::{CASES, Case, readme, whole_archive};
use ocikit_tests::{Bench, Outcome, Registry, run, testdata};

use crate::bench;

/// The most memory that any command may take, in KiB.
const MOST_MEMORY: u64 = 100 << 10;

/// The same where layers fill the budget for trees of files.
const MOST_LAYER_MEMORY: u64 = 200 << 10;

/// What a command took.
pub(crate) struct Cost {
    pub(crate) kibibytes: u64,
    milliseconds: u64,
}

pub(crate) fn measured(bench: &Bench, arguments: &[&str]) -> (Outcome, Cost) {
    let program = bench.command(arguments);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ocikit-measured"));
    command.arg(bench.path("cost")).arg(program.get_program()).args(arguments);
    command.current_dir(bench.path("")).env_clear();
    command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let outcome = run(&mut command, &[]);
    let text = fs::read_to_string(bench.path("cost")).unwrap();
    fs::remove_file(bench.path("cost")).unwrap();
    let numbers: Vec<u64> = text.split(' ').map(|word| word.parse().unwrap()).collect();
    (outcome, Cost { kibibytes: numbers[0], milliseconds: numbers[1] })
}

/// Everything below a directory.
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

/// Runs every command over an archive and returns what is not as it should be.
fn attempt(case: &Case, bytes: &[u8], registry: &Registry) -> Vec<String> {
    let bench = bench();
    let mut wrong = Vec::new();
    // A push keeps the uploads it has begun there; one that ended leaves nothing in it.
    fs::create_dir_all(bench.path("home/.cache/ocikit/uploads")).unwrap();
    // One of its own, or what another case has sent would be there already.
    let reference = format!("{}/{}:1", registry.name(), case.name);
    let [inspect, copy, validate] = case.codes;
    let mut is_whole = false;
    for (line, code) in [
        (&["inspect", "a.tar"][..], Some(inspect)),
        (&["inspect", "--json", "a.tar"], Some(inspect)),
        (&["digest", "a.tar"], None),
        (&["copy", "a.tar", "oci:out/layout"], Some(copy)),
        (&["copy", "a.tar", "out/b.tar"], Some(copy)),
        (&["push", "a.tar", &reference], Some(copy)),
        (&["validate", "--max-inflated", "64MiB", "a.tar"], Some(validate)),
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
        if !is_whole {
            fs::write(bench.path("a.tar"), bytes).unwrap();
        }
        let before = tree(&bench.path(""));
        let line: Vec<_> = ["--progress", "none", "--retries", "0"].iter().chain(line).copied().collect();
        let (outcome, cost) = measured(&bench, &line);
        if std::env::var_os("OCIKIT_HOSTILE_COSTS").is_some() {
            let (kibibytes, milliseconds, words) = (cost.kibibytes, cost.milliseconds, line[4..].join(" "));
            eprintln!("{kibibytes:6} KiB {milliseconds:6} ms  {}: {words}", case.name);
        }
        let mut complain = |what: String| wrong.push(format!("{}: {line:?}: {what}\n{outcome}", case.name));
        match code {
            // Whatever the archive lacks, the registry may be the one to notice.
            Some(3..=5) if line.contains(&"push") && [1, 3, 5].contains(&outcome.code) => {}
            Some(code) if outcome.code != code => complain(format!("ended with {}, not {code}", outcome.code)),
            None if ![0, 1, 2, 3, 5].contains(&outcome.code) => complain(format!("ended with {}", outcome.code)),
            _ => {}
        }
        // A limit that is reached is named; for `diff` see `output::a_limit_that_is_reached_is_named`.
        let reads_files = ["ls", "cat"].contains(&command);
        let limit = "exceed the limit of 112 MiB for paths and metadata of files";
        if case.name == "layer-long-paths" && reads_files && !(outcome.code == 1 && outcome.stderr.contains(limit)) {
            complain("did not name the limit".to_owned());
        }
        let most = if case.name.starts_with("layer-") { MOST_LAYER_MEMORY } else { MOST_MEMORY };
        if cost.kibibytes > most {
            complain(format!("took {} KiB", cost.kibibytes));
        }
        let is_obeyed = |letter: char| letter.is_control() && letter != '\n';
        if !line.contains(&"--json") && (outcome.stdout.contains(is_obeyed) || outcome.stderr.contains(is_obeyed)) {
            complain("wrote an escape to the terminal".to_owned());
        }
        let after = tree(&bench.path(""));
        let target = bench.path("out").display().to_string();
        let new: Vec<_> = after.difference(&before).filter(|path| !path.starts_with(&target)).collect();
        if !new.is_empty() {
            complain(format!("wrote {new:?}"));
        }
        is_whole = holds(&bench.path("a.tar"), bytes);
        if !may_change && !is_whole {
            complain("changed the archive".to_owned());
        }
        if outcome.code != 0 && (bench.path("out/b.tar").exists() || bench.path("out/layout/index.json").exists()) {
            complain("left something half-written".to_owned());
        }
        fs::remove_dir_all(bench.path("out")).unwrap();
    }
    assert!(!Path::new("/tmp/ocikit-hostile").exists(), "{}", case.name);
    wrong
}

fn attempt_all(large: bool) {
    let registry = Registry::start();
    let cases: Vec<_> = CASES.iter().filter(|case| case.large == large).collect();
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = attempt(case, &case.bytes(), &registry);
                    wrong.lock().unwrap().extend(found);
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether a file has these bytes; it may be too large to be read as a whole each time.
fn holds(path: &Path, bytes: &[u8]) -> bool {
    let mut file = File::open(path).unwrap();
    let mut buffer = vec![0; 256 << 10];
    let is_same = |chunk: &[u8]| {
        let read = &mut buffer[..chunk.len()];
        file.read_exact(read).is_ok() && *read == *chunk
    };
    fs::metadata(path).unwrap().len() == bytes.len() as u64 && bytes.chunks(256 << 10).all(is_same)
}

#[test]
fn small_archives() {
    attempt_all(false);
}

#[test]
fn large_archives() {
    attempt_all(true);
}

#[test]
fn the_corpus_is_what_its_generator_makes() {
    assert_eq!(fs::read_to_string(testdata("hostile/README.md")).unwrap(), readme());
    let mut names = BTreeSet::from(["README.md".to_owned()]);
    for case in CASES {
        if !case.large {
            let name = format!("{}.tar", case.name);
            let kept = fs::read(testdata("hostile").join(&name)).unwrap();
            assert!(kept == case.bytes(), "{name} is old: run ocikit-hostile");
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
    fs::write(bench.path("a.tar"), case.bytes()).unwrap();
    let outcome = bench.ocikit(&["diff", "a.tar#1", "a.tar#2"]);
    assert!(outcome.code != 0 && outcome.stdout.contains("etc/motd"), "{outcome}");
}

#[test]
fn an_archive_that_ends_anywhere() {
    let (bench, whole) = (bench(), whole_archive());
    for length in (0..whole.len()).step_by(512) {
        fs::write(bench.path("a.tar"), &whole[..length]).unwrap();
        // Without the zeros of the end, or without the last file, it says all that anybody needs.
        for (line, missing) in [(["inspect", "a.tar"], 3), (["validate", "a.tar"], 3)] {
            let code = bench.ocikit(&line).code;
            assert!(code == missing || (length >= whole.len() - 2048 && [0, 5].contains(&code)), "{length}: {code}");
        }
    }
}

/// A layout by somebody who may put any kind of file into it.
#[cfg(unix)]
#[test]
fn a_directory_with_other_things_than_files() {
    let bench = bench();
    fs::write(bench.path("a.tar"), whole_archive()).unwrap();
    bench.ok(&["copy", "a.tar", "oci:whole"]);
    let blob = |digest: &str| format!("blobs/{}", digest.replace(':', "/"));
    let facts: serde_json::Value = serde_json::from_str(&bench.ok(&["inspect", "--json", "a.tar"])).unwrap();
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
            let (outcome, _) = measured(&bench, &["copy", "oci:layout", "oci:out"]);
            assert_eq!(outcome.code, code, "{file} is a {kind}: {outcome}");
            let (outcome, _) = measured(&bench, &["validate", "oci:layout"]);
            assert!([3, 5].contains(&outcome.code), "{file} is a {kind}: {outcome}");
            fs::remove_dir_all(bench.path("layout")).unwrap();
        }
    }
}
