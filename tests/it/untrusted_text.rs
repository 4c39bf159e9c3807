//! Output of untrusted text: it can neither forge a line nor control the terminal.

use ocikit_tests::hostile::{CASES, valid_archive};
use ocikit_tests::{Bench, Outcome, Registry, json};

use crate::bench;

fn case(name: &str) -> Vec<u8> {
    CASES.iter().find(|case| case.name == name).unwrap().bytes()
}

/// Fails if the output has a character that moves the cursor, changes the direction of text or is invisible, or a line that an
/// archive forged.
fn check(line: &[&str], outcome: &Outcome) {
    let is_deceptive = |letter: char| {
        letter.is_control() && letter != '\n'
            || matches!(letter, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    for text in [&outcome.stdout, &outcome.stderr] {
        assert!(!text.contains(is_deceptive), "{line:?} printed a deceptive character: {outcome}");
        assert!(
            !text.lines().any(|line| line.trim_start().starts_with("FORGED")),
            "{line:?} printed a forged line: {outcome}"
        );
    }
}

/// Creates a bench with two archives of deceptive text and a valid one.
fn with_archives() -> Bench {
    let bench = bench();
    for (name, bytes) in [
        ("text.tar", case("text-deceptive")),
        ("index.tar", case("platform-deceptive")),
        ("honest.tar", valid_archive()),
    ] {
        bench.write(name, bytes);
    }
    bench
}

#[test]
fn no_command_prints_a_deceptive_character() {
    let bench = with_archives();
    let registry = Registry::start();
    let target = format!("{}/acme/app:1", registry.name());
    for line in [
        &["inspect", "text.tar"][..],
        &["inspect", "--sizes", "text.tar"],
        &["inspect", "index.tar"],
        &["inspect", "--platform", "linux/s390x", "index.tar"],
        &["tree", "text.tar"],
        &["tree", "index.tar"],
        &["tags", "text.tar"],
        &["kind", "text.tar"],
        &["digest", "index.tar"],
        &["referrers", "text.tar"],
        &["ls", "text.tar"],
        &["ls", "--long", "text.tar"],
        &["ls", "--layer", "0", "text.tar"],
        &["ls", "index.tar"],
        &["ls", "text.tar", "/etc/link"],
        &["cat", "text.tar", "/etc/link"],
        &["cat", "text.tar", "/etc"],
        &["diff", "text.tar", "honest.tar"],
        &["diff", "index.tar", "honest.tar"],
        &["diff", "index.tar", "text.tar"],
        &["validate", "text.tar"],
        &["validate", "index.tar"],
        &["annotate", "--dry-run", "text.tar", "k=v"],
        &["annotate", "--platform", "linux/s390x", "index.tar", "k=v"],
        &["gc", "--dry-run", "text.tar"],
        &["tag", "--dry-run", "text.tar", "v2"],
        &["delete", "--dry-run", "text.tar#nothing"],
        &["copy", "--platform", "linux/s390x", "index.tar", "oci:none"],
        &["copy", "text.tar", "index.tar#x\nFORGED", "oci:layout"],
        &["copy", "text.tar", "oci:layout"],
        &["-v", "push", "text.tar", &target],
        &["-v", "inspect", &target],
        &["tree", &target],
        &["verify", "--key", "\u{202e}FORGED\n.pub", "text.tar"],
        &["inspect", "missing\nFORGED\u{1b}[2J.tar"],
    ] {
        check(line, &bench.ocikit(line));
    }
}

#[test]
fn raw_and_json_output_is_not_escaped() {
    let bench = with_archives();
    let raw = bench.ok(&["inspect", "--raw", "text.tar"]);
    assert_eq!(raw, bench.ok(&["manifest", "get", "text.tar"]));
    let manifest = json(&raw);
    let facts = bench.json(&["inspect", "--json", "text.tar"]);
    assert_eq!(facts["annotations"], manifest["annotations"]);
    assert!(facts["annotations"].to_string().contains("FORGED"));
    let rows = bench.ok(&["ls", "--json", "text.tar"]);
    let paths: Vec<String> = rows.lines().map(|row| json(row)["path"].as_str().unwrap().to_owned()).collect();
    assert!(paths.iter().any(|path| path.contains("\nFORGED")), "{paths:?}");
}

#[test]
fn ls_prints_one_line_per_file() {
    let bench = with_archives();
    let listed = bench.ok(&["ls", "text.tar"]);
    assert_eq!(listed.lines().count(), 3, "{listed}");
    assert!(listed.contains(r"\u{202e}"), "{listed}");
}

/// A config with the diff IDs of another image does not make two images equal.
#[test]
fn diff_compares_layers_and_not_diff_ids_of_configs() {
    let bench = with_archives();
    bench.write("lies.tar", case("diff-id-lies"));
    let outcome = bench.ocikit(&["diff", "honest.tar", "lies.tar"]);
    assert_eq!(outcome.code, 5, "{outcome}");
    assert!(outcome.stdout.contains("file /etc/motd content"), "{outcome}");
}

/// For `ls` and `cat`, `hostile::large_hostile_archives_do_no_harm` checks it.
#[test]
fn exceeded_memory_limit_is_named() {
    let bench = bench();
    bench.write("a.tar", case("layer-long-paths"));
    bench.write("b.tar", valid_archive());
    let outcome = bench.ocikit(&["diff", "a.tar", "b.tar"]);
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.contains("exceed the limit of 112 MiB for paths and metadata of files"), "{outcome}");
}
