//! One suite against every available registry, and the table of their features.

use std::collections::BTreeMap;
use std::fs;

use ocikit_spec::Digest;
use ocikit_tests::{Bench, Daemon, Peers, Registry, fixture, json, testdata};
use serde_json::{Value, json};

use crate::bench;

/// A registry under test, and the process or container that runs it.
struct Tried {
    name: &'static str,
    address: String,
    _alive: (Option<Daemon>, Option<Registry>),
}

fn registries(peers: &Peers) -> Vec<Tried> {
    let ours = Registry::start();
    let mut tried = vec![Tried { name: "ocikit serve", address: ours.name(), _alive: (None, Some(ours)) }];
    tried.extend(peers.all_registries().into_iter().map(|(name, daemon)| {
        let address = daemon.address.replace("127.0.0.1", "localhost");
        Tried { name, address, _alive: (Some(daemon), None) }
    }));
    tried
}

fn find() -> Option<Peers> {
    Peers::find(&["registry", "docker-registry", "olareg", "crane"])
}

#[test]
fn push_pull_copy_tags_referrers_and_delete_work_everywhere() {
    let Some(peers) = find() else { return };
    for tried in registries(&peers) {
        let bench = bench();
        let (kind, repository) = (tried.name, format!("{}/acme/app", tried.address));
        moves(&bench, kind, &repository);
        lists(&bench, kind, &repository);
        refers(&bench, kind, &repository);
        removes(&bench, kind, &repository);
    }
}

/// Images are pushed, pulled unchanged, and mounted into another repository.
fn moves(bench: &Bench, kind: &str, repository: &str) {
    for (tag, name) in [
        ("single", "buildkit-single/image.tar"),
        ("multi", "buildkit-multi/image.tar"),
        ("attested", "buildkit-attested/multi.tar"),
        ("docker", "buildkit-docker/schema2.tar"),
    ] {
        let (source, reference) = (fixture(name), format!("{repository}:{tag}"));
        let digest = bench.ok(&["digest", &source]);
        assert_eq!(bench.ok(&["push", &source, &reference]), format!("{reference}@{digest}"), "{kind}");
        let other = format!("{repository}-copy:{tag}");
        assert_eq!(bench.ok(&["copy", &reference, &other]), format!("{other}@{digest}"), "{kind}");
        let layout = format!("oci:layout:{tag}");
        bench.ok(&["pull", &other, "-o", &layout]);
        assert_eq!(bench.ok(&["digest", &layout]), digest, "{kind} {name}");
        let again = json(&bench.ok(&["push", "--json", &source, &reference]));
        assert_eq!(again["targets"][0]["sent"]["blobs"], 0, "{kind} {name}: {again}");
    }
    fs::remove_dir_all(bench.path("layout")).unwrap();
}

fn lists(bench: &Bench, kind: &str, repository: &str) {
    bench.ok(&["tag", &format!("{repository}:single"), "v1", "v2"]);
    let mut tags: Vec<_> = bench.ok(&["tags", repository]).lines().map(str::to_owned).collect();
    tags.retain(|tag| !tag.starts_with("sha256-"));
    let last = tags.last().unwrap().clone();
    tags.sort();
    assert_eq!(tags, ["attested", "docker", "multi", "single", "v1", "v2"], "{kind}");
    let limit = bench.ok(&["tags", repository, "--limit", "2"]);
    assert_eq!(limit.lines().count(), 2, "{kind}: {limit}");
    let after = bench.ok(&["tags", repository, "--after", limit.lines().last().unwrap(), "--omit-digest-tags"]);
    assert!(after.lines().count() >= 4 && after.lines().last() == Some(&last), "{kind}: {after}");
    let registry = repository.split('/').next().unwrap();
    let repositories = bench.ocikit(&["repos", registry]);
    match kind.starts_with("olareg") {
        true => assert!(repositories.stderr.contains("hint: many registries do not list"), "{kind}: {repositories}"),
        false => {
            // crane's registry lists repositories in no order.
            let listed = repositories.ok();
            let mut listed: Vec<_> = listed.lines().collect();
            listed.sort_unstable();
            assert_eq!(listed, ["acme/app", "acme/app-copy"], "{kind}");
        }
    }
    assert_eq!(bench.ocikit(&["digest", &format!("{repository}:gone")]).code, 3, "{kind}");
    // olareg treats a repository that does not exist as an empty one.
    let gone = bench.ocikit(&["tags", &format!("{registry}/gone")]);
    assert!(gone.stdout.is_empty() && [0, 3].contains(&gone.code), "{kind}: {gone}");
}

/// Referrers are found with the referrers API and with the fallback tag.
fn refers(bench: &Bench, kind: &str, repository: &str) {
    let empty = Digest::sha256_of(b"{}");
    let empty = json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": 2});
    let raw = bench.ocikit(&["manifest", "get", &format!("{repository}:single")]).stdout;
    let subject = Digest::sha256_of(raw.as_bytes());
    bench.ocikit_with_input(&["blob", "put", "-", repository], b"{}").ok();
    let mut about = Vec::new();
    for artifact_type in ["application/vnd.example.sbom", "application/vnd.example.signature"] {
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": artifact_type,
            "config": empty, "layers": [empty],
            "subject": {"mediaType": json(&raw)["mediaType"], "digest": subject, "size": raw.len()},
        })
        .to_string();
        let target = format!("{repository}@{}", Digest::sha256_of(manifest.as_bytes()));
        about.push(bench.ocikit_with_input(&["manifest", "put", "-", &target], manifest.as_bytes()).ok());
    }
    let listed = json(&bench.ok(&["referrers", "--json", &format!("{repository}:v1")]));
    assert_eq!(listed["referrers"].as_array().unwrap().len(), 2, "{kind}: {listed}");
    let sbom = ["referrers", &format!("{repository}:v1"), "--artifact-type", "application/vnd.example.sbom"];
    let sbom = bench.ok(&sbom);
    assert!(about[0].ends_with(sbom.split(' ').next().unwrap()), "{kind}: {sbom}");
    let tree = json(&bench.ok(&["tree", "--json", &format!("{repository}:v1")]));
    let hanging = tree["children"].as_array().unwrap().iter().filter(|child| child["relation"] == "referrer").count();
    assert_eq!(hanging, 2, "{kind}: {tree}");
}

/// A tag is deleted and its image stays, if necessary by replacing the image; otherwise nothing changes.
fn removes(bench: &Bench, kind: &str, repository: &str) {
    let registry = repository.split('/').next().unwrap();
    let found = json(&bench.ok(&["probe", "--json", &format!("{registry}/probe")]));
    let can = |what: &str| found["capabilities"][what] == true;
    let (v1, v2) = (format!("{repository}:v1"), format!("{repository}:v2"));
    let digest = bench.ok(&["digest", &v1]);
    let plain = bench.ocikit(&["delete", &v1]);
    assert_eq!(plain.code, i32::from(!can("deleteTag")), "{kind}: {plain}");
    if can("deleteTag") {
        assert_eq!(bench.ocikit(&["digest", &v1]).code, 3, "{kind}");
    } else {
        assert!(plain.stderr.contains("hint: "), "{kind}: {plain}");
        assert_eq!(bench.ok(&["digest", &v1]), digest, "{kind}");
    }
    // crane's registry keeps the tags of deleted manifests, so nothing is changed.
    let by_replacing = can("deleteManifest") && !kind.starts_with("crane");
    let replaced = bench.ocikit(&["delete", "--replace", &v2]);
    assert_eq!(replaced.code, i32::from(!by_replacing), "{kind}: {replaced}");
    match by_replacing {
        true => assert_eq!(bench.ocikit(&["digest", &v2]).code, 3, "{kind}"),
        false => assert_eq!(bench.ok(&["digest", &v2]), digest, "{kind}"),
    }
    assert_eq!(bench.ok(&["digest", &format!("{repository}:single")]), digest, "{kind}: the image is where it was");
    bench.ok(&["pull", &format!("{repository}:single"), "-o", "oci:after"]);
    if can("deleteManifest") {
        let multi = format!("{repository}:multi");
        let removed = bench.ok(&["delete", "--digest", &multi]);
        for gone in removed.lines().take(if by_replacing { 2 } else { 1 }) {
            assert_eq!(bench.ocikit(&["digest", gone]).code, 3, "{kind}: {gone}");
        }
    }
    fs::remove_dir_all(bench.path("after")).unwrap();
}

/// The rows of the table, by the names of `probe`.
const ROWS: [(&str, &str); 14] = [
    ("referrersApi", "referrers API"),
    ("subjectHeader", "`OCI-Subject` header"),
    ("mount", "mount from a repository"),
    ("anonymousMount", "mount without source"),
    ("mountFromItself", "mount from same repository"),
    ("chunkMinimum", "minimum chunk size"),
    ("patchStatus", "status of a chunk upload"),
    ("uploadProgress", "upload progress"),
    ("putLocation", "blob location header"),
    ("ranges", "range requests"),
    ("sparseIndex", "sparse indexes"),
    ("deleteTag", "delete tags"),
    ("deleteManifest", "delete manifests"),
    ("deleteBlob", "delete blobs"),
];

#[test]
fn the_documented_table_of_registries_matches_the_probes() {
    let Some(peers) = find() else { return };
    let bench = bench();
    let tried = registries(&peers);
    let mut found = BTreeMap::new();
    for Tried { name, address, .. } in &tried {
        let facts = json(&bench.ok(&["probe", "--json", &format!("{address}/scratch")]));
        found.insert(*name, facts["capabilities"].clone());
    }
    let cell = |name: &str, key: &str| match &found[name][key] {
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Null => "–".to_owned(),
        other => other.to_string(),
    };
    let row = |first: &str, cells: Vec<String>| format!("| {first} | {} |\n", cells.join(" | "));
    let mut table = row("", tried.iter().map(|tried| tried.name.to_owned()).collect());
    table += &format!("|{}\n", "---|".repeat(tried.len() + 1));
    for (key, what) in ROWS {
        table += &row(what, tried.iter().map(|tried| cell(tried.name, key)).collect());
    }
    let documented = fs::read_to_string(testdata("../docs/registries.md")).unwrap_or_default();
    assert!(documented.contains(&table), "docs/registries.md should have\n\n{table}");
}
