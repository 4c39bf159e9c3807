//! `validate` and `gc`.

use std::fs;

use ocikit_archive::TarIndex;
use ocikit_tests::{Archive, Registry, fixture, json, testdata, write_archive};

use crate::bench;

/// Returns the archives and layouts that other programs wrote.
fn fixtures() -> Vec<String> {
    let text = fs::read_to_string(testdata("expected.json")).unwrap();
    let expected = json(&text);
    let names: Vec<_> = expected["fixtures"].as_object().unwrap().keys().cloned().collect();
    assert!(names.len() > 25);
    names
}

#[test]
fn archives_of_other_programs_are_valid() {
    let bench = bench();
    for name in fixtures() {
        let path = fixture(&name);
        for line in [vec!["validate", "--json", &path], vec!["validate", "--json", "--fast", &path]] {
            let outcome = bench.ocikit(&line);
            assert_eq!(outcome.code, 0, "{name}: {outcome}");
            let facts = outcome.json();
            assert_eq!((&facts["valid"], &facts["errors"]), (&true.into(), &0.into()), "{name}");
            let problems = facts["problems"].as_array().unwrap().iter();
            let kinds: Vec<_> = problems.map(|problem| problem["kind"].as_str().unwrap()).collect();
            // umoci and docker leave unreferenced blobs, and the cache of BuildKit is an index of layers.
            let expected = match name.as_str() {
                "layout-umoci/layout" | "docker-archive/moby-tags.tar" | "docker-archive/moby-two.tar" => {
                    "unreferenced"
                }
                "layout-buildkit-cache/layout" => "media-type",
                _ => "none",
            };
            assert!(kinds.iter().all(|kind| *kind == expected), "{name}: {kinds:?}");
            assert_eq!(kinds.is_empty(), expected == "none", "{name}");
        }
    }
    assert!(bench.names().is_empty());
}

/// Writes an archive with two layers, of which the first is damaged, and without its config.
fn damaged(bench: &ocikit_tests::Bench) {
    write_archive(&bench.path("a.tar"), Archive { layers: 2, size: 100 << 10, valid_digests: true });
    let mut bytes = fs::read(bench.path("a.tar")).unwrap();
    let index = TarIndex::read(&bytes).unwrap();
    let layer = index.entries()[0].data.offset as usize;
    let config = index.entries()[2].start as usize;
    bytes[layer + 5000] ^= 1;
    // Renames the config by swapping two letters, which keeps the checksum of the header.
    let name = &mut bytes[config..config + 100];
    let at = (20..70).find(|at| name[*at] != name[at + 1]).unwrap();
    name.swap(at, at + 1);
    bench.write("a.tar", bytes);
}

#[test]
fn all_problems_are_reported_with_their_position() {
    let bench = bench();
    damaged(&bench);
    insta::assert_snapshot!(bench.ocikit(&["validate", "a.tar"]), @"
    exit 5
    --- stdout
    error: index.json > manifests[0] > config: it is missing (sha256:0b2cfee37d3e1618a3edd91680a2f655b5bb68d5d4cbe7a772dab9fb5ae760af)
    error: index.json > manifests[0] > layers[0]: it is damaged: its bytes have digest sha256:4030f86a2033c9ffce00943583fe31c89a23f645c4e2326d2aeb37aa7e2fbd1f (sha256:0fb53517640e24047b97a605e22fff5dee7c0c14e805fcb128bc7a51568d03ae)
    warning: blobs/sha256/0b2cfee73d3e1618a3edd91680a2f655b5bb68d5d4cbe7a772dab9fb5ae760af: it is unreferenced; `gc` would free 237 bytes
    a.tar: 2 errors, 1 warning; 1 document, 2 blobs, 200.5 KiB
    --- stderr
    error: a.tar is not valid
    ");
    let outcome = bench.ocikit(&["validate", "--json", "a.tar"]);
    assert_eq!(outcome.code, 5);
    let facts = outcome.json();
    assert_eq!((&facts["errors"], &facts["warnings"], &facts["omitted"]), (&2.into(), &1.into(), &0.into()));
    let problem = &facts["problems"][2];
    assert_eq!(problem["kind"], "digest");
    assert_eq!(problem["severity"], "error");
    assert_eq!(problem["place"], "index.json > manifests[0] > layers[0]");
    assert!(problem["digest"].as_str().unwrap().starts_with("sha256:"));
}

#[test]
fn image_in_a_registry_is_validated_with_its_referrers() {
    let (bench, registry) = (bench(), Registry::start());
    let reference = format!("{}/app:1", registry.name());
    bench.ok(&["push", &fixture("buildkit-attested/image.tar"), &reference]);
    let outcome = bench.ocikit(&["validate", &reference]);
    assert_eq!(outcome.code, 0, "{outcome}");
    assert!(outcome.stdout.ends_with("0 errors, 0 warnings; 4 documents, 7 blobs, 14.5 KiB\n"), "{outcome}");
    assert_eq!(bench.ocikit(&["validate", &format!("{}/app:2", registry.name())]).code, 3);
    assert_eq!(bench.ocikit(&["validate", "gone.tar"]).code, 3);
    assert_eq!(bench.ocikit(&["validate", "-"]).code, 2, "a pipe can be read only once");
}

#[test]
fn gc_lists_and_removes_unreferenced_blobs() {
    let bench = bench();
    fs::copy(testdata("buildkit-single/image.tar"), bench.path("a.tar")).unwrap();
    let before = bench.ok(&["digest", "a.tar"]);
    bench.ok(&["annotate", "a.tar", "k=v"]);
    let after = bench.ok(&["digest", "a.tar"]);
    let size = || fs::metadata(bench.path("a.tar")).unwrap().len();
    let with_garbage = size();
    let dry = bench.ok(&["gc", "--dry-run", "a.tar"]);
    assert!(dry.contains(&before.replace(':', "/")) && !dry.contains(&after.replace(':', "/")), "{dry}");
    assert_eq!(size(), with_garbage);
    let facts = bench.json(&["gc", "--json", "a.tar"]);
    assert_eq!(with_garbage - size(), facts["freed"].as_u64().unwrap());
    assert_eq!(bench.ok(&["digest", "a.tar"]), after);
    assert!(bench.ok(&["validate", "a.tar"]).contains("0 errors, 0 warnings"));
    assert_eq!(bench.ok(&["gc", "a.tar"]), "a.tar: 0 B freed, 6 blobs kept");
    assert_eq!(bench.ocikit(&["gc", "a.tar#1"]).code, 2);
    assert_eq!(bench.ocikit(&["gc", "localhost:1/a"]).code, 2);
    assert_eq!(bench.names(), ["a.tar"]);
}

#[test]
fn gc_does_not_change_a_damaged_archive() {
    let bench = bench();
    fs::copy(testdata("buildkit-single/image.tar"), bench.path("a.tar")).unwrap();
    let digest = bench.ok(&["digest", "a.tar"]);
    let mut bytes = fs::read(bench.path("a.tar")).unwrap();
    let manifest = TarIndex::read(&bytes).unwrap().file(&format!("blobs/{}", digest.replace(':', "/"))).unwrap();
    bytes[manifest.offset as usize + 20] ^= 1;
    bench.write("a.tar", &bytes);
    assert_eq!(bench.ocikit(&["gc", "a.tar"]).code, 5);
    assert!(fs::read(bench.path("a.tar")).unwrap() == bytes);
}

#[test]
fn killed_gc_leaves_a_complete_archive() {
    let bench = bench();
    write_archive(&bench.path("a.tar"), Archive { layers: 4, size: 64 << 20, valid_digests: true });
    bench.ok(&["annotate", "a.tar", "k=v"]);
    let digest = bench.ok(&["digest", "a.tar"]);
    for pause in [5, 20, 50, 90, 150] {
        let mut child = bench
            .command(&["gc", "a.tar"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(pause));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(bench.ok(&["digest", "a.tar"]), digest);
        assert_eq!(bench.names(), ["a.tar"]);
    }
    bench.ok(&["gc", "a.tar"]);
    assert!(bench.ok(&["validate", "--fast", "a.tar"]).contains("0 errors, 0 warnings"));
}
