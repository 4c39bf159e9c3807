//! `append`, `flatten`, `recompress`, `normalize` and `convert` in files, layouts and registries.

use std::fs;

use ocikit_tests::{Bench, Registry, Tar, attested, testdata};
use serde_json::Value;

use crate::bench;

fn with_image() -> Bench {
    let bench = bench();
    fs::copy(testdata("buildkit-multi/image.tar"), bench.path("a.tar")).unwrap();
    bench
}

fn amd64(bench: &Bench, place: &str) -> Vec<String> {
    bench.ok(&["ls", place, "--platform", "linux/amd64"]).lines().map(str::to_owned).collect()
}

fn layers(bench: &Bench, place: &str) -> Vec<String> {
    let facts = bench.json(&["inspect", "--json", place]);
    let image = facts["manifests"].get(0).unwrap_or(&facts).clone();
    image["layers"].as_array().unwrap().iter().map(|layer| layer["mediaType"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_directory_a_file_and_deletions_are_appended_to_all_platforms() {
    let bench = with_image();
    fs::create_dir_all(bench.path("dist/css")).unwrap();
    bench.write("dist/css/a.css", "a");
    bench.write("tool", "#!");
    let digest = bench.ok(&["append", "a.tar", "./dist", "--destination", "/srv/www", "--delete", "/etc/acme.conf"]);
    assert_eq!(bench.ok(&["digest", "a.tar"]), digest);
    let files = amd64(&bench, "a.tar");
    assert!(files.contains(&"/srv/www/css/a.css".to_owned()), "{files:?}");
    assert!(!files.contains(&"/etc/acme.conf".to_owned()), "{files:?}");
    assert_eq!(bench.ok(&["cat", "a.tar", "/srv/www/css/a.css", "--platform", "linux/arm64"]), "a");
    bench.ok(&["append", "a.tar", "tool", "--destination", "/usr/bin/", "--mode", "0755", "--owner", "7:8"]);
    let line = bench.ok(&["ls", "-l", "a.tar", "/usr/bin/tool", "--platform", "linux/amd64"]);
    assert!(line.contains("rwxr-xr-x") && line.contains('7') && line.contains('8'), "{line}");
    bench.ok(&["validate", "a.tar"]);
    let usage = bench.ocikit(&["append", "a.tar"]);
    assert_eq!(usage.code, 2, "{usage}");
}

#[test]
fn damaged_tars_are_not_appended() {
    let bench = with_image();
    let before = fs::read(bench.path("a.tar")).unwrap();
    let whole = fs::read(testdata("buildkit-single/image.tar")).unwrap();
    for (name, bytes) in [("empty.tar", &b""[..]), ("text.tar", b"garbage\n"), ("cut.tar", &whole[..whole.len() / 3])] {
        bench.write(name, bytes);
        let outcome = bench.ocikit(&["append", "a.tar", name]);
        assert_eq!(outcome.code, 3, "{name}: {outcome}");
        assert!(outcome.stderr.starts_with(&format!("error: {name} is broken: ")), "{name}: {outcome}");
        let outcome = bench.ocikit(&["append", "a.tar", name, "--destination", "/srv"]);
        assert_eq!(outcome.code, 3, "{name}: {outcome}");
        assert!(outcome.stderr.starts_with(&format!("error: {name} is broken: ")), "{name}: {outcome}");
        assert!(fs::read(bench.path("a.tar")).unwrap() == before, "{name}");
    }
}

#[test]
fn an_invalid_tar_is_named_with_the_entry_before_the_damage() {
    let bench = with_image();
    bench.write("x", "x");
    let mut tar = Tar::new().file("etc/motd", b"hello").file("etc/x", b"").finish();
    tar[1024] = b'?';
    bench.write("bad.tar", &tar);
    for flags in [&["bad.tar"][..], &["bad.tar", "--destination", "/srv"]] {
        let outcome = bench.ocikit(&[&["append", "a.tar"], flags].concat());
        assert_eq!(outcome.code, 3, "{outcome}");
        assert!(outcome.stderr.contains("bad.tar is broken: not a valid tar: "), "{outcome}");
        assert!(outcome.stderr.contains("at offset 1024, after `etc/motd`"), "{outcome}");
    }
}

#[test]
fn parents_get_entries_if_that_is_wanted() {
    let bench = with_image();
    fs::create_dir(bench.path("dist")).unwrap();
    bench.write("dist/a.css", "a");
    bench.write("tool", "#!");
    let listed = |flags: &[&str]| -> Vec<String> {
        let line: Vec<_> = [&["append", "a.tar", "-o", "b.tar", "--platform", "linux/amd64"], flags].concat();
        bench.ok(&line);
        let last = layers(&bench, "a.tar").len().to_string();
        let list = bench.ok(&["ls", "-l", "b.tar", "--platform", "linux/amd64", "--layer", &last]);
        fs::remove_file(bench.path("b.tar")).unwrap();
        list.lines().map(str::to_owned).collect()
    };
    let names = |lines: &[String]| -> Vec<String> {
        lines.iter().map(|line| line.split_whitespace().last().unwrap().trim_end_matches('/').to_owned()).collect()
    };
    assert_eq!(names(&listed(&["dist", "--destination", "/srv/www"])), ["/srv/www/a.css"]);
    let parents = listed(&["dist", "--destination", "/srv/www", "--parents", "--owner", "7:8", "--mode", "0600"]);
    assert_eq!(names(&parents), ["/srv", "/srv/www", "/srv/www/a.css"]);
    assert!(
        parents[0].starts_with("drwxr-xr-x") && parents[0].contains('7') && parents[0].contains('8'),
        "{parents:?}"
    );
    let file = listed(&["tool", "--destination", "/opt/bin/tool", "--parents"]);
    assert_eq!(names(&file), ["/opt", "/opt/bin", "/opt/bin/tool"]);
    let deleted = listed(&["--delete", "/etc/acme.conf", "--delete", "/etc/none", "--parents"]);
    assert_eq!(deleted.iter().filter(|line| line.ends_with(" /etc/")).count(), 1, "{deleted:?}");
    bench.write("x.tar", Tar::new().file("a/b/c", b"x").file("a/d", b"y").finish());
    assert_eq!(names(&listed(&["x.tar", "--parents"])), ["/a", "/a/b", "/a/b/c", "/a/d"]);
    // The layer that every reader of zstd:chunked understands.
    bench.ok(&["append", "a.tar", "dist", "--destination", "/srv/www", "--parents", "-o", "c.tar"]);
    let outcome = bench.ocikit(&["convert", "--to", "zstd-chunked", "c.tar", "-o", "d.tar"]);
    assert!(!outcome.stderr.contains("has no entry before it"), "{outcome}");
}

#[test]
fn deletions_of_missing_paths_are_reported() {
    let (bench, registry) = (with_image(), Registry::start());
    let remote = format!("{}/app:1", registry.name());
    bench.ok(&["push", "-q", "a.tar", &remote]);
    let line = ["append", "--delete", "/etc/acme.conf", "--delete", "/etc/amce.conf"];
    let outcome = bench.ocikit(&[&line[..], &["a.tar"]].concat());
    assert_eq!(outcome.code, 0, "{outcome}");
    assert_eq!(outcome.stderr, "warning: nothing was deleted at `/etc/amce.conf`: no image has this path\n");
    // Its layers would have to be downloaded.
    registry.clear_requests();
    let outcome = bench.ocikit(&[&line[..], &[&remote]].concat());
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{outcome}");
    let blobs = registry.requests().into_iter().filter(|sent| sent.method == "GET" && sent.path.contains("/blobs/"));
    assert_eq!(blobs.count(), 3, "the configs only");
}

#[test]
fn progress_counts_what_was_read() {
    let bench = with_image();
    bench.ok(&["copy", "-q", "a.tar", "b.tar"]);
    bench.write("large", vec![b'x'; 3 << 20]);
    let outcome = bench.ocikit(&["append", "b.tar", "large", "--progress", "tty"]);
    assert_eq!(outcome.code, 0, "{outcome}");
    let outcome = bench.ocikit(&["recompress", "--compression", "zstd", "b.tar", "--progress", "json"]);
    assert_eq!(outcome.code, 0, "{outcome}");
    for line in outcome.stderr.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "{outcome}");
    }
}

#[test]
fn the_history_names_no_path_of_this_machine() {
    let bench = with_image().with("SOURCE_DATE_EPOCH", "1");
    fs::create_dir_all(bench.path("here/dist")).unwrap();
    bench.write("here/dist/x", "x");
    let append = |source: &str, to: &str| bench.ok(&["append", "a.tar", source, "--destination", "/srv", "-o", to]);
    let absolute = bench.path("here/dist").display().to_string();
    assert_eq!(append("here/dist", "one.tar"), append(&absolute, "two.tar"));
}

#[test]
fn a_conversion_in_place_lists_the_new_media_type() {
    let bench = with_image();
    bench.ok(&["copy", "a.tar", "oci:layout:1"]);
    for place in ["a.tar", "oci:layout:1"] {
        bench.ok(&["convert", "--to", "docker", "--drop-unsupported", place]);
    }
    let index: Value = serde_json::from_slice(&fs::read(bench.path("layout/index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"][0]["mediaType"], "application/vnd.docker.distribution.manifest.list.v2+json");
    let report = bench.ocikit(&["validate", "a.tar"]);
    assert!(!report.stdout.contains("reject"), "{report}");
}

#[test]
fn the_same_files_give_the_same_digest_everywhere() {
    let bench = with_image().with("SOURCE_DATE_EPOCH", "1700000000");
    let registry = Registry::start();
    let reference = format!("{}/app:1", registry.name());
    fs::create_dir(bench.path("dist")).unwrap();
    bench.write("dist/x", "x");
    bench.ok(&["copy", "a.tar", &reference]);
    bench.ok(&["copy", "a.tar", "oci:layout:1"]);
    registry.clear_requests();
    let append = |place: &str| bench.ok(&["append", place, "dist", "--threads", "1"]);
    let digest = append("a.tar");
    assert_eq!(append("oci:layout:1"), digest);
    assert_eq!(append(&reference), digest);
    let requests = registry.requests();
    let uploads = requests.iter().filter(|request| request.method == "PUT" && request.path.contains("/blobs/"));
    assert_eq!(uploads.count(), 4, "a config for each of three platforms, and one layer: {requests:?}");
    assert_eq!(bench.ok(&["digest", &reference]), digest);
}

#[test]
fn a_removed_layer_gives_the_image_before_it() {
    let bench = with_image();
    bench.write("x", "x");
    let before = bench.ok(&["digest", "a.tar"]);
    let count = layers(&bench, "a.tar").len();
    bench.ok(&["append", "a.tar", "x"]);
    assert_eq!(layers(&bench, "a.tar").len(), count + 1);
    assert_eq!(bench.ok(&["append", "a.tar", "--remove-layer", &(count + 1).to_string()]), before);
    let missing = bench.ocikit(&["append", "a.tar", "--remove-layer", "9"]);
    assert_ne!(missing.code, 0, "{missing}");
}

#[test]
fn a_tar_from_standard_input_is_added_byte_for_byte() {
    let bench = with_image();
    let tar = fs::read(testdata("buildkit-multi/image.tar")).unwrap();
    let outcome = bench.ocikit_with_input(&["append", "a.tar", "-", "--platform", "linux/amd64"], &tar);
    let digest = outcome.ok();
    assert_eq!(bench.ok(&["digest", "a.tar"]), digest);
    assert!(amd64(&bench, "a.tar").contains(&"/index.json".to_owned()));
    let config = bench.ok(&["config", "a.tar", "--platform", "linux/amd64"]);
    assert!(config.contains(&ocikit::Digest::sha256_of(&tar).to_string()), "the tar is the layer: {config}");
    let other = bench.ok(&["ls", "a.tar", "--platform", "linux/arm64"]);
    assert!(!other.contains("/index.json"), "{other}");
}

#[test]
fn recompress_and_back_keeps_the_uncompressed_layers() {
    let bench = with_image();
    let before = bench.ok(&["config", "a.tar", "--platform", "linux/amd64"]);
    bench.ok(&["recompress", "a.tar", "--compression", "zstd", "-o", "zstd.tar"]);
    assert!(layers(&bench, "zstd.tar").iter().all(|layer| layer.ends_with("+zstd")));
    let one = bench.ok(&["recompress", "zstd.tar", "--compression", "gzip", "--threads", "1", "-o", "one.tar"]);
    let many = bench.ok(&["recompress", "zstd.tar", "--compression", "gzip", "--threads", "4", "-o", "many.tar"]);
    assert_eq!(one, many);
    assert_eq!(bench.ok(&["config", "many.tar", "--platform", "linux/amd64"]), before);
    assert_eq!(amd64(&bench, "many.tar"), amd64(&bench, "a.tar"));
    for arguments in [&["--compression", "gzip", "--level", "10"][..], &[], &["--compression", "none", "--level", "1"]]
    {
        let outcome = bench.ocikit(&[&["recompress", "a.tar"], arguments].concat());
        assert_eq!(outcome.code, 2, "{outcome}");
    }
}

#[test]
fn a_flat_image_has_one_layer_and_the_same_files() {
    let bench = with_image();
    bench.ok(&["append", "a.tar", "--delete", "/etc/acme.conf"]);
    bench.ok(&["flatten", "a.tar", "-o", "flat.tar"]);
    assert_eq!(layers(&bench, "flat.tar").len(), 1);
    // Without the number of the layer, which is the fifth column.
    let long = |place: &str| -> Vec<_> {
        let listed = bench.ok(&["ls", "-l", place, "--platform", "linux/amd64"]);
        let lines = listed.lines().map(|line| line.split_whitespace().enumerate().filter(|(at, _)| *at != 4));
        lines.map(|words| words.map(|(_, word)| word).collect::<Vec<_>>().join(" ")).collect()
    };
    assert_eq!(long("flat.tar"), long("a.tar"));
    let again = bench.ok(&["flatten", "flat.tar"]);
    assert_eq!(again, bench.ok(&["flatten", "flat.tar", "--dry-run"]));
}

#[test]
fn two_builds_of_the_same_files_are_normalized_to_one_digest() {
    let bench = bench().with("SOURCE_DATE_EPOCH", "1700000000");
    let mut digests = Vec::new();
    for (name, modified) in [("one", 1_800_000_000), ("two", 1_900_000_000)] {
        let archive = format!("{name}.tar");
        fs::copy(testdata("buildkit-single/image.tar"), bench.path(&archive)).unwrap();
        fs::create_dir(bench.path(name)).unwrap();
        let file = bench.path(name).join("built");
        fs::write(&file, "built").unwrap();
        let time = modified.to_string();
        let layer = format!("{name}-layer.tar");
        let command = ["-C", name, "--mtime", &format!("@{time}"), "-cf", &layer, "built"];
        let made = std::process::Command::new("tar").args(command).current_dir(bench.path("")).status().unwrap();
        assert!(made.success());
        fs::rename(bench.path(&layer), bench.path("layer.tar")).unwrap();
        bench.ok(&["append", &archive, "layer.tar"]);
        digests.push((bench.ok(&["digest", &archive]), bench.ok(&["normalize", &archive, "--owner", "0:0"])));
    }
    assert_ne!(digests[0].0, digests[1].0);
    assert_eq!(digests[0].1, digests[1].1);
}

#[test]
fn conversions_report_what_docker_cannot_hold() {
    let bench = with_image();
    let attested = attested();
    let outcome = bench.ocikit(&["convert", "--to", "docker", &attested, "-o", "d.tar"]);
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.contains("hint: add --drop-unsupported"), "{outcome}");
    let outcome = bench.ocikit(&["convert", "--to", "docker", "--drop-unsupported", &attested, "-o", "d.tar"]);
    assert!(outcome.stderr.contains("warning: left out the attestation manifest"), "{outcome}");
    outcome.ok();
    assert_eq!(bench.ok(&["kind", "d.tar"]), "docker-index");
    bench.ok(&["validate", "d.tar"]);
    let zstd = bench.ocikit(&["recompress", "--compression", "zstd", "d.tar"]);
    assert!(zstd.stderr.contains("ocikit convert --to oci"), "{zstd}");
    bench.ok(&["convert", "--to", "oci", "d.tar"]);
    assert_eq!(bench.ok(&["kind", "d.tar"]), "index");
}

#[test]
fn attestations_stay_with_the_image_that_they_describe() {
    let bench = bench();
    fs::copy(testdata("buildkit-attested/multi.tar"), bench.path("a.tar")).unwrap();
    for arguments in [&["recompress", "a.tar", "--compression", "zstd"][..], &["flatten", "a.tar"]] {
        bench.ok(arguments);
        bench.ok(&["validate", "a.tar"]);
        let index = bench.json(&["manifest", "get", "a.tar"]);
        let entries = index["manifests"].as_array().unwrap();
        let digests: Vec<_> = entries.iter().map(|entry| entry["digest"].as_str().unwrap()).collect();
        let described: Vec<_> =
            entries.iter().filter_map(|entry| entry["annotations"]["vnd.docker.reference.digest"].as_str()).collect();
        assert!(!described.is_empty() && described.iter().all(|digest| digests.contains(digest)), "{index}");
    }
}
