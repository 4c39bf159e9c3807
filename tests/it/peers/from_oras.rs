//! The rows of `docs/from-oras.md`: each command of oras beside the one of ocikit, with the same result.

use std::fs;
use std::path::Path;

use ocikit_tests::{Peers, Registry};

use super::pages;
use super::rows::{Rows, json};
use crate::bench;

/// An annotation that oras sets to the current time unless it is given.
const CREATED: &str = "org.opencontainers.image.created=2000-01-01T00:00:00Z";

fn rows() -> Option<Rows> {
    let peers = Peers::find(&["oras", "registry"])?;
    let registry = peers.distribution("registry");
    let files =
        [("a.txt", r#"{"name":"a.txt"}"#), ("b.txt", r#"{"name":"b.txt"}"#), ("c.json", r#"{"name":"c.json"}"#)];
    Some(Rows::with(peers, registry, |_| {}, &files))
}

impl Rows {
    fn oras(&self, line: &str) -> String {
        self.peer("oras", line)
    }
}

fn read(path: impl AsRef<Path>) -> Vec<u8> {
    fs::read(&path).unwrap_or_else(|error| panic!("{error}: {}", path.as_ref().display()))
}

#[test]
fn the_page_has_every_subcommand() {
    let Some(peers) = Peers::find(&["oras"]) else { return };
    pages::has_every_subcommand(&peers, "oras", "from-oras.md");
}

#[test]
fn push_and_pull() {
    let Some(rows) = rows() else { return };
    let (ours, oras) = (rows.at("files:ours"), rows.at("files:oras"));
    rows.ours(&["artifact", "push", &ours, "a.txt:text/plain", "b.txt", "--artifact-type", "a/b", "-a", CREATED]);
    rows.oras(&format!("push --plain-http {oras} a.txt:text/plain b.txt --artifact-type a/b --annotation {CREATED}"));
    assert_eq!(rows.digest("files:ours"), rows.digest("files:oras"));
    rows.ours(&["artifact", "pull", &oras, "-o", "out"]);
    rows.oras(&format!("pull --plain-http {ours} -o out"));
    for name in ["out/a.txt", "out/b.txt"] {
        assert_eq!(read(rows.bench.path(name)), read(rows.peers.path(name)));
    }
    // oras replaces files unless it gets --keep-old-files; ocikit keeps them unless it gets --overwrite.
    assert_eq!(rows.peers.run(&format!("oras pull --plain-http --keep-old-files {ours} -o out")).code, 1);
    assert_eq!(rows.bench.ocikit(&["artifact", "pull", &ours, "-o", "out"]).code, 1);
    rows.oras(&format!("pull --plain-http {ours} -o out"));
    rows.ours(&["artifact", "pull", "--overwrite", &ours, "-o", "out"]);
    let layout = rows.bench.path("layout").display().to_string();
    rows.ours(&["artifact", "push", "oci:layout:1", "a.txt", "-a", CREATED]);
    rows.oras(&format!("push --oci-layout {layout}:2 a.txt --annotation {CREATED}"));
    assert_eq!(rows.ours(&["digest", "oci:layout:1"]), rows.ours(&["digest", "oci:layout:2"]));
}

#[test]
fn attach_and_discover() {
    let Some(rows) = rows() else { return };
    let subject = rows.at("app:1");
    rows.ours(&["attach", &subject, "a.txt", "--artifact-type", "a/b", "-a", CREATED]);
    let listed = |rows: &Rows| {
        let found = json(&rows.ours(&["referrers", "--json", &subject]));
        let mut found: Vec<_> =
            found["referrers"].as_array().unwrap().iter().map(|it| it["digest"].as_str().unwrap().to_owned()).collect();
        found.sort();
        found
    };
    assert_eq!(listed(&rows).len(), 1);
    rows.oras(&format!("attach --plain-http {subject} a.txt --artifact-type a/b --annotation {CREATED}"));
    assert_eq!(listed(&rows).len(), 1, "the same manifest");
    rows.oras(&format!("attach --plain-http {subject} b.txt --artifact-type a/c"));
    let found = json(&rows.oras(&format!("discover --plain-http --format json {subject}")));
    let mut theirs: Vec<_> =
        found["referrers"].as_array().unwrap().iter().map(|it| it["digest"].as_str().unwrap().to_owned()).collect();
    theirs.sort();
    assert_eq!(listed(&rows), theirs);
    let one = json(&rows.ours(&["referrers", "--json", "--artifact-type", "a/c", &subject]));
    assert_eq!(one["referrers"].as_array().unwrap().len(), 1);
    rows.ours(&["attach", &subject, "a.txt", "--artifact-type", "a/d", "--platform", "linux/arm64", "-a", CREATED]);
    rows.oras(&format!(
        "attach --plain-http {subject} a.txt --artifact-type a/d --platform linux/arm64 --annotation {CREATED}"
    ));
    // oras also writes the platform into the subject, so the digests differ.
    let of_platform = json(&rows.ours(&["referrers", "--json", "--platform", "linux/arm64", &subject]));
    assert_eq!(of_platform["referrers"].as_array().unwrap().len(), 2);
    let tree = rows.oras(&format!("discover --plain-http --format tree {subject}"));
    assert!(tree.contains("a/b") && rows.ours(&["tree", &subject]).contains(&theirs[0]), "{tree}");
}

#[test]
fn blobs() {
    let Some(rows) = rows() else { return };
    let (repository, layer) = (rows.at("app"), rows.layer());
    let blob = format!("{repository}@{layer}");
    rows.oras(&format!("blob fetch --plain-http --output blob {blob}"));
    rows.ours(&["blob", "get", &blob, "-o", "blob"]);
    assert_eq!(read(rows.peers.path("blob")), read(rows.bench.path("blob")));
    let theirs = json(&rows.oras(&format!("blob fetch --plain-http --descriptor {blob}")));
    let ours = json(&rows.ours(&["blob", "head", "--json", &blob]));
    assert_eq!((&ours["digest"], &ours["size"]), (&theirs["digest"], &theirs["size"]));
    let digest = rows.ours(&["blob", "put", "a.txt", &repository]);
    assert!(rows.oras(&format!("blob push --plain-http {repository} a.txt")).contains(&digest));
    let pushed = format!("{repository}@{digest}");
    rows.ours(&["blob", "delete", &pushed]);
    assert_eq!(rows.peers.run(&format!("oras blob fetch --plain-http --output gone {pushed}")).code, 1);
    rows.oras(&format!("blob push --plain-http {repository} b.txt"));
    let other = format!("{repository}@{}", rows.ours(&["blob", "put", "--dry-run", "b.txt", &repository]));
    rows.oras(&format!("blob delete --plain-http --force {other}"));
    assert_eq!(rows.bench.ocikit(&["blob", "head", &other]).code, 3);
}

#[test]
fn manifests() {
    let Some(rows) = rows() else { return };
    let image = rows.at("app:1");
    assert_eq!(rows.oras(&format!("manifest fetch --plain-http {image}")), rows.ours(&["manifest", "get", &image]));
    let theirs = json(&rows.oras(&format!("manifest fetch --plain-http --descriptor {image}")));
    let ours = json(&rows.ours(&["digest", "--json", &image]));
    for key in ["mediaType", "digest", "size"] {
        assert_eq!(ours[key], theirs[key], "{key}");
    }
    let platform = ["--platform", "linux/arm64"];
    assert_eq!(
        rows.oras(&format!("manifest fetch-config --plain-http --platform linux/arm64 {image}")),
        rows.ours(&[&["config", &image], &platform[..]].concat())
    );
    let text = rows.ours(&[&["manifest", "get", &image], &platform[..]].concat());
    rows.bench.write("m.json", &text);
    fs::write(rows.peers.path("m.json"), &text).unwrap();
    rows.ours(&["manifest", "put", "m.json", &rows.at("app:ours")]);
    rows.oras(&format!("manifest push --plain-http {} m.json", rows.at("app:oras")));
    assert_eq!(rows.digest("app:ours"), rows.digest("app:oras"));
    rows.ours(&["copy", "-q", &image, &rows.at("gone:1")]);
    rows.ours(&["copy", "-q", &image, &rows.at("gone2:1")]);
    let digest = rows.digest("app:1");
    rows.oras(&format!("manifest delete --plain-http --force {}", rows.at(&format!("gone@{digest}"))));
    rows.ours(&["delete", &rows.at(&format!("gone2@{digest}"))]);
    for name in ["gone:1", "gone2:1"] {
        assert_eq!(rows.bench.ocikit(&["digest", &rows.at(name)]).code, 3, "{name}");
    }
}

#[test]
fn indexes() {
    let Some(rows) = rows() else { return };
    let image = rows.at("app:1");
    let of = |platform: &str| rows.ours(&["digest", "--platform", platform, &image]);
    let (amd, arm) = (of("linux/amd64"), of("linux/arm64"));
    let by = |digest: &str| rows.at(&format!("app@{digest}"));
    rows.oras(&format!("manifest index create --plain-http {} {amd} --annotation k=v", rows.at("app:oras")));
    rows.ours(&["index", "create", &rows.at("app:ours"), &by(&amd), "-a", "k=v"]);
    assert_eq!(rows.digest("app:ours"), rows.digest("app:oras"));
    rows.oras(&format!("manifest index update --plain-http {} --add {arm}", rows.at("app:oras")));
    rows.ours(&["index", "add", "-q", &rows.at("app:ours"), &by(&arm)]);
    let same = |what: &str| {
        let entries = |name: &str| json(&rows.ours(&["index", "list", "--json", &rows.at(name)]))["manifests"].clone();
        assert_eq!(entries("app:ours"), entries("app:oras"), "{what}");
    };
    same("add");
    rows.oras(&format!("manifest index update --plain-http {} --remove {amd}", rows.at("app:oras")));
    rows.ours(&["index", "remove", "-q", "--digest", &amd, &rows.at("app:ours")]);
    same("remove");
    rows.oras(&format!("manifest index create --plain-http {}", rows.at("app:oras")));
    rows.ours(&["index", "create", &rows.at("app:ours")]);
    rows.oras(&format!("manifest index update --plain-http {} --merge 1", rows.at("app:oras")));
    rows.ours(&["index", "add", "-q", "--flatten", &rows.at("app:ours"), &image]);
    same("merge");
}

#[test]
fn copies_and_tags() {
    let Some(rows) = rows() else { return };
    let image = rows.at("app:1");
    rows.ours(&["attach", &image, "a.txt", "--artifact-type", "a/b"]);
    let plain = "--from-plain-http --to-plain-http";
    rows.oras(&format!("cp -r {plain} {image} {}", rows.at("oras:1")));
    rows.ours(&["copy", "-q", &image, &rows.at("ours:1")]);
    let referrers = |name: &str| rows.ours(&["referrers", &rows.at(name)]);
    assert_eq!((rows.digest("ours:1"), referrers("ours:1")), (rows.digest("oras:1"), referrers("oras:1")));
    rows.oras(&format!("cp {plain} {image} {}", rows.at("oras2:1")));
    rows.ours(&["copy", "-q", "--no-referrers", &image, &rows.at("ours2:1")]);
    assert_eq!((rows.digest("ours2:1"), referrers("ours2:1")), (rows.digest("oras2:1"), referrers("oras2:1")));
    assert_eq!(rows.oras(&format!("resolve --plain-http {image}")), rows.ours(&["digest", &image]));
    assert_eq!(
        rows.oras(&format!("resolve --plain-http --platform linux/arm64 {image}")),
        rows.ours(&["digest", "--platform", "linux/arm64", &image])
    );
    rows.oras(&format!("tag --plain-http {image} 2 3"));
    rows.ours(&["tag", &image, "4", "5"]);
    for tag in ["2", "3", "4", "5"] {
        assert_eq!(rows.digest(&format!("app:{tag}")), rows.digest("app:1"), "{tag}");
    }
    let sorted = |text: String| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let tags = sorted(rows.oras(&format!("repo tags --plain-http {}", rows.at("app"))));
    let ours: Vec<_> = sorted(rows.ours(&["tags", &rows.at("app")]));
    assert!(
        tags.iter().filter(|tag| !tag.starts_with("sha256-")).eq(ours.iter().filter(|tag| !tag.starts_with("sha256-")))
    );
    let repositories = sorted(rows.oras(&format!("repo ls --plain-http {}", rows.host())));
    assert_eq!(repositories, sorted(rows.ours(&["repos", &rows.host()])));
}

#[test]
fn backups() {
    let Some(rows) = rows() else { return };
    rows.ours(&["tag", &rows.at("app:1"), "2"]);
    rows.ours(&["attach", &rows.at("app:1"), "a.txt", "--artifact-type", "a/b"]);
    rows.oras(&format!("backup --plain-http --include-referrers --output backup {}", rows.at("app:1,2")));
    rows.ours(&["copy", "-q", "--all-tags", &rows.at("app"), "oci:backup"]);
    let theirs = format!("oci:{}", rows.peers.path("backup").display());
    for tag in ["1", "2"] {
        let digest = |place: &str| rows.ours(&["digest", &format!("{place}:{tag}")]);
        assert_eq!(digest("oci:backup"), digest(&theirs), "{tag}");
    }
    // Each restores the backup of the other.
    rows.ours(&["copy", "-q", "--all-tags", &theirs, &rows.at("ours")]);
    let backup = rows.bench.path("backup").display().to_string();
    rows.oras(&format!("restore --plain-http --input {backup} {}", rows.at("oras:1,2")));
    for tag in ["1", "2"] {
        let digest = rows.digest(&format!("app:{tag}"));
        assert_eq!(
            (rows.digest(&format!("ours:{tag}")), rows.digest(&format!("oras:{tag}"))),
            (digest.clone(), digest)
        );
    }
}

#[test]
fn logins() {
    let Some(peers) = Peers::find(&["oras"]) else { return };
    let (bench, registry) = (bench(), Registry::for_user("user", "secret"));
    let host = registry.name().replace("127.0.0.1", "localhost");
    assert_eq!(peers.run(&format!("oras repo ls --plain-http {host}")).code, 1);
    assert_eq!(bench.ocikit(&["repos", &host]).code, 4);
    peers.ok(&format!("oras login --plain-http -u user -p secret {host}"));
    bench.ocikit_with_input(&["login", "-u", "user", "--password-stdin", &host], b"secret").ok();
    peers.ok(&format!("oras repo ls --plain-http {host}"));
    bench.ok(&["repos", &host]);
    peers.ok(&format!("oras logout {host}"));
    bench.ok(&["logout", &host]);
    assert_eq!(peers.run(&format!("oras repo ls --plain-http {host}")).code, 1);
    assert_eq!(bench.ocikit(&["repos", &host]).code, 4);
}

#[test]
fn versions_and_completions() {
    let Some(peers) = Peers::find(&["oras"]) else { return };
    let bench = bench();
    assert!(peers.ok("oras version").contains("1.3"));
    assert!(bench.ok(&["version"]).starts_with("ocikit "));
    assert!(peers.ok("oras completion bash").contains("oras"));
    assert!(bench.ok(&["completion", "bash"]).contains("ocikit"));
}
