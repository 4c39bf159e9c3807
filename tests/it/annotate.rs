//! `annotate`: in place, to another file, and in a registry.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use ocikit_archive::TarIndex;
use ocikit_tests::{Archive, Registry, fixture, multi, single, testdata, write_archive};
use serde_json::Value;

use crate::bench;

fn inspect(bench: &ocikit_tests::Bench, location: &str) -> Value {
    bench.json(&["inspect", "--json", location])
}

#[test]
fn annotation_values_are_preserved_exactly() {
    let bench = bench();
    fs::copy(testdata("buildkit-single/image.tar"), bench.path("a.tar")).unwrap();
    let values = ["a,b", "\"q\"", "x=y=z", " spaced ", "nön-äscii ✓", "line\nbreak", "", "--dash", "\\"];
    for value in values {
        bench.ok(&["annotate", "a.tar", &format!("k={value}")]);
        assert_eq!(inspect(&bench, "a.tar")["annotations"]["k"], value);
    }
}

#[test]
fn archive_and_layout_get_the_same_digest() {
    let bench = bench();
    let layout = testdata("layout-buildkit/layout");
    copy_tree(&layout, &bench.path("layout"));
    fs::copy(testdata("buildkit-tags/image.tar"), bench.path("a.tar")).unwrap();
    let archive = bench.ok(&["annotate", "a.tar", "k=v"]);
    assert_eq!(bench.ok(&["annotate", "./layout", "k=v"]), archive);
    assert_eq!(bench.ok(&["digest", "a.tar#1"]), archive);
    assert_eq!(bench.ok(&["digest", "a.tar#2"]), archive, "both tags are moved");
    assert_eq!(bench.ok(&["annotate", "./layout", "k=v"]), archive, "the second edit changes nothing");
    let back = bench.ok(&["annotate", "a.tar", "--remove", "k"]);
    assert_eq!(back, bench.ok(&["digest", &fixture("buildkit-tags/image.tar#1")]));
    assert_eq!(bench.names(), ["a.tar", "layout"]);
}

fn copy_tree(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn on_and_platform_select_what_is_annotated() {
    let bench = bench();
    let multi = multi();
    let annotated = |on: &[&str]| {
        let line = [&["annotate", &multi, "k=v", "-o", "out.tar"], on].concat();
        bench.ok(&line);
        let facts = inspect(&bench, "out.tar");
        let has = |annotations: &Value| u8::from(annotations["k"] == "v");
        let manifests = facts["manifests"].as_array().unwrap();
        let on_manifests: Vec<_> = manifests.iter().map(|manifest| has(&manifest["annotations"])).collect();
        let on_entries: Vec<_> = manifests.iter().map(|manifest| has(&manifest["descriptorAnnotations"])).collect();
        (has(&facts["annotations"]), on_manifests, on_entries)
    };
    let (all, none) = (vec![1, 1, 1], vec![0, 0, 0]);
    assert_eq!(annotated(&[]), (1, all.clone(), none.clone()));
    assert_eq!(annotated(&["--on", "index"]), (1, none.clone(), none.clone()));
    assert_eq!(annotated(&["--on", "manifests"]), (0, all.clone(), none.clone()));
    assert_eq!(annotated(&["--on", "descriptors"]), (0, none.clone(), all.clone()));
    assert_eq!(annotated(&["--on", "all"]), (1, all.clone(), all));
    let some = annotated(&["--on", "manifests", "--platform", "linux/arm64", "--platform", "linux/arm"]);
    assert_eq!(some, (0, vec![0, 1, 1], none));
}

#[test]
fn dry_run_reports_the_digest_and_changes_nothing() {
    let bench = bench();
    fs::copy(testdata("buildkit-multi/image.tar"), bench.path("a.tar")).unwrap();
    let before = fs::read(bench.path("a.tar")).unwrap();
    let digest = bench.ok(&["annotate", "a.tar", "k=v", "--dry-run"]);
    assert_eq!(fs::read(bench.path("a.tar")).unwrap(), before);
    assert_eq!(bench.ok(&["annotate", "a.tar", "k=v"]), digest);
}

#[test]
fn annotating_in_a_registry_moves_the_tag() {
    let (bench, registry) = (bench(), Registry::start());
    let reference = format!("{}/app:1", registry.name());
    let multi = multi();
    bench.ok(&["push", &multi, &reference]);
    registry.clear_requests();
    let digest = bench.ok(&["annotate", &reference, "k=v"]);
    assert_eq!(bench.ok(&["digest", &reference]), digest);
    let sent = registry.requests();
    assert!(sent.iter().all(|request| !request.path.contains("/blobs/")), "no layer is transferred: {sent:?}");
    bench.ok(&["annotate", &multi, "k=v", "-o", "here.tar"]);
    assert_eq!(bench.ok(&["digest", "here.tar"]), digest, "the same change gives the same digest everywhere");
    let outcome = bench.ocikit(&["annotate", &format!("{}/app@{digest}", registry.name()), "k=w"]);
    assert_eq!(outcome.code, 1, "{outcome}");
}

/// Returns offset and size of each layer of an archive.
fn layers(path: &std::path::Path) -> Vec<(u64, u64)> {
    let index = TarIndex::read(&fs::File::open(path).unwrap()).unwrap();
    let large = index.entries().iter().filter(|entry| entry.data.size > 1 << 20);
    large.map(|entry| (entry.data.offset, entry.data.size)).collect()
}

#[test]
fn annotating_a_large_archive_moves_no_layer() {
    let bench = bench();
    let path = bench.path("large.tar");
    write_archive(&path, Archive { layers: 4, size: 1 << 30, valid_digests: false });
    let (before, length) = (layers(&path), fs::metadata(&path).unwrap().len());
    let mut lengths = Vec::new();
    for number in 0..50 {
        bench.ok(&["annotate", "large.tar", &format!("number={number}")]);
        lengths.push(fs::metadata(&path).unwrap().len() - length);
    }
    assert_eq!(layers(&path), before, "no layer was moved");
    assert_eq!(inspect(&bench, "large.tar")["annotations"]["number"], "49");
    assert!(lengths.iter().all(|grown| *grown < 16 << 10), "{lengths:?}");
    assert_eq!(lengths[49], lengths[20], "repeated edits reuse the space: {lengths:?}");
}

#[test]
fn killed_annotate_leaves_the_old_or_the_new_archive() {
    let bench = bench();
    let path = bench.path("a.tar");
    write_archive(&path, Archive { layers: 2, size: 1 << 20, valid_digests: true });
    let mut known = vec![bench.ok(&["digest", "a.tar"])];
    for number in 0_u64..100 {
        let arguments = ["annotate", "a.tar", &format!("number={number}")];
        let mut child = bench.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Kills the process at uneven intervals, from before its start to after its end.
        std::thread::sleep(Duration::from_micros(number * number * 7 % 12_000));
        child.kill().unwrap();
        child.wait().unwrap();
        known.push(bench.ok(&["annotate", "a.tar", &format!("number={number}"), "--dry-run"]));
        let digest = bench.ok(&["digest", "a.tar"]);
        assert!(known[known.len() - 2..].contains(&digest) || known.contains(&digest), "{number}: {digest}");
        // The copy verifies every byte, including the layers.
        let copied = bench.ocikit(&["copy", "a.tar", "oci:whole"]);
        assert_eq!(copied.code, 0, "{number}: {copied}");
    }
    assert_eq!(bench.names(), ["a.tar", "whole"]);
}

#[test]
fn concurrent_edits_are_all_applied() {
    let bench = bench();
    write_archive(&bench.path("a.tar"), Archive { layers: 1, size: 100, valid_digests: true });
    bench.ok(&["copy", "a.tar", "oci:layout:1"]);
    for place in ["a.tar", "oci:layout:1"] {
        let children: Vec<_> = (0..8)
            .map(|number| {
                let arguments = ["annotate".to_owned(), place.to_owned(), format!("key{number}=v")];
                bench.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
            })
            .collect();
        for mut child in children {
            assert!(child.wait().unwrap().success());
        }
        let annotations = &inspect(&bench, place)["annotations"];
        assert_eq!(annotations.as_object().unwrap().len(), 8, "{place}: {annotations}");
    }
}

/// Whether an archive has the list of images that `docker load` reads.
fn has_docker_list(archive: &std::path::Path) -> bool {
    TarIndex::read(&fs::read(archive).unwrap()).unwrap().file("manifest.json").is_some()
}

#[test]
fn an_archive_stays_loadable_by_docker() {
    let bench = bench();
    let (archive, image) = (bench.path("a.tar"), single());
    for (flag, expected) in [(None, true), (Some("--no-docker"), false)] {
        bench.ok(&["copy", "-q", "--no-docker", &image, "a.tar"]);
        assert!(!has_docker_list(&archive));
        bench.ok(&[&["annotate", "a.tar", "k=v"], flag.as_slice()].concat());
        assert_eq!(has_docker_list(&archive), expected, "{flag:?}");
    }
    bench.ok(&["copy", "-q", &image, "a.tar"]);
    for flag in [None, Some("--no-docker")] {
        bench.ok(&[&["annotate", "a.tar", &format!("k={flag:?}")], flag.as_slice()].concat());
        assert!(has_docker_list(&archive), "{flag:?}: a list that exists is kept");
    }
    bench.ok(&["copy", "-q", "a.tar", "docker-archive:b.tar:app:1"]);
}
