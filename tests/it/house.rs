//! Rules of the architecture: which crate may depend on which.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use ocikit_tests::testdata;
use serde_json::Value;

/// Name, level and allowed dependencies of each crate. A crate depends on crates of lower levels only.
const MAY_USE: [(&str, u8, &[&str]); 15] = [
    ("ocikit-spec", 0, &[]),
    ("ocikit-archive", 1, &["ocikit-spec"]),
    ("ocikit-http", 1, &["ocikit-spec"]),
    ("ocikit-image", 2, &["ocikit-spec", "ocikit-archive"]),
    ("ocikit-layout", 3, &["ocikit-spec", "ocikit-archive", "ocikit-image"]),
    ("ocikit-registry", 3, &["ocikit-spec", "ocikit-http", "ocikit-image"]),
    ("ocikit-lazy", 3, &["ocikit-spec", "ocikit-archive", "ocikit-image"]),
    ("ocikit-server", 3, &["ocikit-spec", "ocikit-image"]),
    ("ocikit-sign", 3, &["ocikit-spec", "ocikit-http", "ocikit-image"]),
    ("ocikit", 4, &["ocikit-spec", "ocikit-image", "ocikit-layout", "ocikit-registry", "ocikit-sign"]),
    ("ocikit-build", 5, &["ocikit-spec", "ocikit-archive", "ocikit-image", "ocikit-layout", "ocikit"]),
    (
        "ocikit-publish",
        6,
        &["ocikit-spec", "ocikit-http", "ocikit-image", "ocikit-sign", "ocikit", "ocikit-lazy", "ocikit-build"],
    ),
    ("ocikit-cli", 7, &["*"]),
    ("ocikit-tests", 8, &["*"]),
    ("ocikit-benches", 8, &["*"]),
];

/// Runs the cargo that builds these tests and returns what it prints.
fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(arguments).output().unwrap();
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the target triple of this machine.
fn host() -> String {
    let version = cargo(&["-vV"]);
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.expect("cargo -vV names its host").to_owned()
}

/// Returns the resolved dependencies for this machine. Without the filter, cargo wants the manifests of the crates for
/// all platforms; `cargo test` downloads those for one.
fn metadata() -> Value {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let host = host();
    let options = ["--format-version=1", "--locked", "--offline", "--filter-platform", &host];
    let text = cargo(&[&["metadata", "--manifest-path", manifest][..], &options].concat());
    serde_json::from_str(&text).unwrap()
}

fn members(metadata: &Value) -> BTreeMap<&str, &Value> {
    let members: BTreeSet<&str> =
        metadata["workspace_members"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let packages = metadata["packages"].as_array().unwrap().iter();
    let packages = packages.filter(|package| members.contains(package["id"].as_str().unwrap()));
    packages.map(|package| (package["name"].as_str().unwrap(), package)).collect()
}

#[test]
fn crates_depend_on_lower_levels_only() {
    let metadata = metadata();
    let members = members(&metadata);
    let levels: BTreeMap<_, _> = MAY_USE.iter().map(|(name, level, _)| (*name, *level)).collect();
    for (name, package) in &members {
        let Some((_, level, allowed)) = MAY_USE.iter().find(|(known, ..)| known == name) else {
            panic!("{name} is missing in MAY_USE");
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let used = dependency["name"].as_str().unwrap();
            if !members.contains_key(used) || used == *name {
                continue;
            }
            assert!(levels[used] < *level, "{name} depends on {used}, which is not on a lower level");
            assert!(allowed == &["*"] || allowed.contains(&used), "{name} may not depend on {used}");
        }
    }
}

/// Returns the names of all normal dependencies of a member, direct and transitive.
fn built_with(metadata: &Value, member: &str) -> BTreeSet<String> {
    let nodes: BTreeMap<&str, &Value> = {
        let nodes = metadata["resolve"]["nodes"].as_array().unwrap().iter();
        nodes.map(|node| (node["id"].as_str().unwrap(), node)).collect()
    };
    let names: BTreeMap<&str, &str> = {
        let packages = metadata["packages"].as_array().unwrap().iter();
        packages.map(|package| (package["id"].as_str().unwrap(), package["name"].as_str().unwrap())).collect()
    };
    let start = names.iter().find(|(_, name)| **name == member).unwrap().0;
    let mut waiting = vec![*start];
    let mut seen = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        for dependency in nodes[id]["deps"].as_array().unwrap() {
            let normal = dependency["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"].is_null());
            let package = dependency["pkg"].as_str().unwrap();
            if normal && seen.insert(package) {
                waiting.push(package);
            }
        }
    }
    seen.into_iter().map(|id| names[id].to_owned()).collect()
}

/// Programs that neither sign nor verify do not build the crates for it.
#[test]
fn the_front_door_has_optional_features() {
    let metadata = metadata();
    let package = members(&metadata)["ocikit"];
    for name in ["ocikit-registry", "ocikit-sign"] {
        let mut found = package["dependencies"].as_array().unwrap().iter().filter(|found| found["name"] == name);
        assert!(found.all(|found| found["optional"] == true || found["kind"] == "dev"), "{name} is optional");
    }
    let default = package["features"]["default"].as_array().unwrap();
    assert_eq!(*default, ["gzip", "registry", "tls", "xz", "zstd"].map(Value::from), "what a publisher needs");
}

#[test]
fn lowest_crates_do_not_depend_on_async() {
    let metadata = metadata();
    for member in ["ocikit-spec", "ocikit-archive"] {
        let found = built_with(&metadata, member);
        assert!(found.contains("thiserror"), "{member}: {found:?}");
        for unwanted in ["tokio", "futures", "async-trait", "reqwest", "hyper"] {
            assert!(!found.contains(unwanted), "{member} depends on {unwanted}");
        }
    }
}

#[test]
fn only_one_crate_has_an_http_client() {
    let metadata = metadata();
    for (name, package) in members(&metadata) {
        // The benches measure another client, which needs a provider of TLS.
        if name == "ocikit-benches" {
            continue;
        }
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let built_with =
            dependencies.filter(|dependency| dependency["kind"].is_null() && dependency["optional"] == false);
        let stack = ["reqwest", "rustls", "rustls-platform-verifier", "tower-service"];
        let used: Vec<_> =
            built_with.filter_map(|used| used["name"].as_str()).filter(|used| stack.contains(used)).collect();
        assert_eq!(!used.is_empty(), name == "ocikit-http", "{name}: {used:?}");
    }
    for member in ["ocikit-image", "ocikit-layout"] {
        let found = built_with(&metadata, member);
        assert!(!found.contains("hyper") && !found.contains("rustls"), "{member} depends on HTTP or TLS");
    }
    assert!(!built_with(&metadata, "ocikit-server").contains("reqwest"));
    assert!(!built_with(&metadata, "ocikit").contains("axum"));
}

#[test]
fn every_crate_has_a_description_and_license() {
    let metadata = metadata();
    for (name, package) in members(&metadata) {
        assert!(
            package["description"].as_str().is_some_and(|text| text.ends_with('.')),
            "the description of {name} is not a sentence"
        );
        assert_eq!(package["license"], "Apache-2.0", "{name}");
        // The libraries can be published; the program comes as a binary.
        let is_library = !["ocikit-cli", "ocikit-tests", "ocikit-benches"].contains(&name);
        assert_eq!(package["publish"] == Value::Null, is_library, "{name}");
        assert!(!is_library || package["readme"].is_string(), "{name} has no readme");
    }
}

/// Every public report that forces a line of the registry client is in the documentation of registries.
#[test]
fn workarounds_for_registries_are_documented() {
    let documented = fs::read_to_string(testdata("../docs/registries.md")).unwrap();
    let mut reports = BTreeSet::new();
    for directory in ["../crates/ocikit-registry/src", "../crates/ocikit-http/src"] {
        let mut waiting = vec![testdata(directory)];
        while let Some(path) = waiting.pop() {
            match fs::read_dir(&path) {
                Ok(entries) => waiting.extend(entries.map(|entry| entry.unwrap().path())),
                Err(_) if path.is_file() => reports.extend(reports_in(&fs::read_to_string(&path).unwrap())),
                Err(_) => {}
            }
        }
    }
    assert!(reports.len() > 15, "{reports:?}");
    for report in reports {
        let (repository, number) = report.split_once('#').unwrap();
        let link = format!("github.com/{repository}/");
        let found = documented.lines().any(|line| line.contains(&link) && line.contains(&format!("/{number})")));
        assert!(found, "docs/registries.md lacks {report}");
    }
}

/// Returns the reports that a text names, as `OWNER/REPOSITORY#NUMBER`.
fn reports_in(text: &str) -> Vec<String> {
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || "/.-_#".contains(letter);
    let words = text.split(|letter| !is_name(letter)).map(|word| word.trim_end_matches('.'));
    let is_report = |word: &&str| {
        word.split_once('#').is_some_and(|(repository, number)| {
            repository.split('/').filter(|part| !part.is_empty()).count() == 2 && number.parse::<u32>().is_ok()
        })
    };
    words.filter(is_report).map(str::to_owned).collect()
}
