//! Lazily pulled images in `publish`, beside plain ones in one index, and as referrers, with an in-process registry.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use ocikit_archive::Compression;
use ocikit_image::testing::{Tar, random};
use ocikit_server::{Action, Fault, Point, Reply};
use ocikit_tests::{Bench, Registry, json, write_image};
use serde_json::Value;

use crate::bench;

const NYDUS_FEATURE: &str = "nydus.remoteimage.v1";

/// Writes an archive with two layers.
fn archive(bench: &Bench) -> String {
    let lower = Tar::new().directory("etc").file("etc/motd", b"hello").file("noise", &random(1, 100_000)).finish();
    let upper = Tar::new().directory("etc").file("etc/.wh.motd", b"").file("etc/new", b"new").finish();
    write_image(&bench.path("app.tar"), Compression::Gzip, &[lower, upper]);
    bench.path("app.tar").display().to_string()
}

/// Writes an index for two platforms to a layout.
fn index(bench: &Bench) -> String {
    let app = archive(bench);
    bench.ok(&["edit", "--architecture", "arm64", &app, "-o", "oci:arm64:1"]);
    bench.ok(&["index", "create", "oci:both:1", &app, "oci:arm64:1"]);
    "oci:both:1".to_owned()
}

/// FP-7: one index holds the plain images first, byte for byte, and those of Nydus with their feature.
#[test]
fn fp_07_one_index_has_plain_and_nydus_images() {
    let bench = bench();
    let source = index(&bench);
    let plain = json(&bench.ok(&["manifest", "get", &source]));
    let digest = bench.ok(&["convert", "--to", "nydus", "--placement", "index", &source, "-o", "oci:mixed:1"]);
    let mixed = json(&bench.ok(&["manifest", "get", "oci:mixed:1"]));
    let entries = mixed["manifests"].as_array().unwrap();
    assert_eq!(entries.len(), 4, "{mixed}");
    for (position, entry) in plain["manifests"].as_array().unwrap().iter().enumerate() {
        assert_eq!(entries[position], *entry);
        let nydus = &entries[position + 2];
        assert_eq!(nydus["platform"]["architecture"], entry["platform"]["architecture"]);
        assert_eq!(nydus["platform"]["os.features"][0], NYDUS_FEATURE);
        assert_eq!(nydus["annotations"]["containerd.io/snapshot/nydus-source-digest"], entry["digest"]);
    }
    bench.ok(&["validate", "oci:mixed:1"]);
    // Programs that know no feature take the plain image.
    assert_eq!(bench.ok(&["cat", "--platform", "linux/arm64", "oci:mixed:1", "/etc/new"]), "new");
    // FP-9.
    let again = bench.ok(&["convert", "--to", "nydus", "--placement", "index", "oci:mixed:1", "-o", "oci:again:1"]);
    assert_eq!(again, digest);
    let back = bench.ok(&["convert", "--to", "plain", "oci:mixed:1", "-o", "oci:back:1"]);
    assert_eq!(back, bench.ok(&["digest", &source]));
}

/// An entry that was made from another image is replaced; the images of other platforms stay.
#[test]
fn a_stale_nydus_entry_is_replaced() {
    let bench = bench();
    let source = index(&bench);
    bench.ok(&["convert", "--to", "nydus", "--placement", "index", &source, "-o", "oci:mixed:1"]);
    let before = json(&bench.ok(&["manifest", "get", "oci:mixed:1"]));
    bench.ok(&["annotate", "oci:mixed:1", "note=1", "--on", "manifests", "--platform", "linux/amd64"]);
    bench.ok(&["convert", "--to", "nydus", "--placement", "index", "oci:mixed:1"]);
    let after = json(&bench.ok(&["manifest", "get", "oci:mixed:1"]));
    let nydus = |index: &Value, architecture: &str| {
        let entries = index["manifests"].as_array().unwrap().clone();
        let found = entries.into_iter().filter(|entry| entry["platform"]["os.features"][0] == NYDUS_FEATURE);
        let found: Vec<_> = found.filter(|entry| entry["platform"]["architecture"] == architecture).collect();
        assert_eq!(found.len(), 1, "{index}");
        found[0].clone()
    };
    assert_eq!(nydus(&before, "arm64"), nydus(&after, "arm64"));
    assert_ne!(nydus(&before, "amd64"), nydus(&after, "amd64"));
}

#[test]
fn zstd_chunked_and_soci_share_an_index_and_estargz_cannot() {
    let bench = bench();
    let source = index(&bench);
    let line = ["convert", "--placement", "index", &source];
    bench.ok(&[&line[..], &["--to", "zstd-chunked", "-o", "oci:chunked:1"]].concat());
    let chunked = json(&bench.ok(&["manifest", "get", "oci:chunked:1"]));
    let marks = chunked["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["annotations"]["io.github.containers.compression.zstd"] == "true");
    assert_eq!(marks.collect::<Vec<_>>(), [false, false, true, true]);
    let back = bench.ok(&["convert", "--to", "plain", "oci:chunked:1", "-o", "oci:back:1"]);
    assert_eq!(back, bench.ok(&["digest", &source]));
    bench.ok(&[&line[..], &["--to", "soci", "--min-layer-size", "1", "-o", "oci:soci:1"]].concat());
    let soci = json(&bench.ok(&["manifest", "get", "oci:soci:1"]));
    assert_eq!(soci["manifests"].as_array().unwrap().len(), 4);
    let outcome = bench.ocikit(&[&line[..], &["--to", "estargz", "-o", "oci:no:1"]].concat());
    assert!(outcome.code == 2 && outcome.stderr.contains("--placement index with --to estargz"), "{outcome}");
}

/// Several formats in one index are made of the plain images only, whatever the order is.
#[test]
fn several_formats_share_an_index() {
    let bench = bench();
    let source = index(&bench);
    for (name, formats) in [("one", ["zstd-chunked", "nydus"]), ("two", ["nydus", "zstd-chunked"])] {
        let target = format!("oci:{name}:1");
        bench.ok(&["copy", &source, &target]);
        for format in formats {
            bench.ok(&["convert", "--to", format, "--placement", "index", &target]);
        }
        bench.ok(&["validate", &target]);
        let entries = json(&bench.ok(&["manifest", "get", &target]))["manifests"].clone();
        let digests: HashSet<_> = entries.as_array().unwrap().iter().map(|entry| entry["digest"].to_string()).collect();
        assert_eq!((entries.as_array().unwrap().len(), digests.len()), (6, 6), "{entries}");
        bench.ok(&["convert", "--to", "soci", "--min-layer-size", "1", &target, "-o", "oci:soci:1"]);
        assert_eq!(json(&bench.ok(&["manifest", "get", "oci:soci:1"]))["manifests"].as_array().unwrap().len(), 8);
        let back = bench.ok(&["convert", "--to", "plain", &target, "-o", "oci:back:1"]);
        assert_eq!(back, bench.ok(&["digest", &source]), "{formats:?}");
        for format in formats {
            bench.ok(&["convert", "--to", format, &target, "-o", "oci:replaced:1"]);
            let replaced = json(&bench.ok(&["manifest", "get", "oci:replaced:1"]));
            assert_eq!(replaced["manifests"].as_array().unwrap().len(), 4, "{format}: {replaced}");
        }
    }
}

/// One image that got others beside it comes back as the image that it was.
#[test]
fn the_way_back_of_one_image_is_the_image() {
    let bench = bench();
    bench.ok(&["copy", &archive(&bench), "oci:app:1"]);
    let before = bench.ok(&["digest", "oci:app:1"]);
    for (format, options) in [("nydus", &[][..]), ("zstd-chunked", &[]), ("soci", &["--min-layer-size", "1"])] {
        let line = ["convert", "--to", format, "--placement", "index", "oci:app:1", "-o", "oci:mixed:1"];
        bench.ok(&[&line[..], options].concat());
        assert_eq!(bench.ok(&["convert", "--to", "plain", "oci:mixed:1", "-o", "oci:back:1"]), before, "{format}");
        bench.ok(&["validate", "oci:back:1"]);
    }
}

#[test]
fn nydus_images_are_referrers_of_each_platform() {
    let bench = bench();
    let registry = Registry::start();
    let target = format!("{}/app:1", registry.name());
    bench.ok(&["copy", &index(&bench), &target]);
    let before = bench.ok(&["digest", &target]);
    bench.ok(&["convert", "--to", "nydus", "--placement", "referrer", &target]);
    assert_eq!(bench.ok(&["digest", &target]), before);
    for entry in json(&bench.ok(&["manifest", "get", &target]))["manifests"].as_array().unwrap() {
        let image = format!("{}/app@{}", registry.name(), entry["digest"].as_str().unwrap());
        let referrers = bench.ok(&["referrers", &image]);
        let digest = referrers.split_whitespace().find(|word| word.starts_with("sha256:")).unwrap();
        let digest = digest.trim_end_matches(',').to_owned();
        let manifest = json(&bench.ok(&["manifest", "get", &format!("{}/app@{digest}", registry.name())]));
        let last = manifest["layers"].as_array().unwrap().last().unwrap().clone();
        assert_eq!(last["annotations"]["containerd.io/snapshot/nydus-bootstrap"], "true", "{referrers}");
        assert_eq!(manifest["subject"]["digest"], entry["digest"]);
    }
}

/// FP-1: plain tags first, then the same tags with the suffix; signed, annotated and in the report.
#[test]
fn fp_01_publish_puts_a_lazy_tag_beside_every_tag() {
    let bench = bench().with("OCIKIT_KEY_PASSWORD", "");
    let registry = Registry::start();
    let app = archive(&bench);
    bench.ok(&["keygen", "--output", "k"]);
    let names = bench.names();
    let key = |ending: &str| names.iter().find(|name| name.ends_with(ending)).unwrap().clone();
    let target = format!("{}/acme/app", registry.name());
    let line =
        ["publish", &app, "--to", &target, "--event", "push", "--commit", "6c22711f", "--tag", "v1", "--tag", "latest"];
    let key_file = key(".key");
    let more = ["--lazy", "nydus", "--annotation", "team=web", "--key", &key_file, "--report", "report.json"];
    let published = bench.ok(&[&line[..], &more].concat());
    assert_eq!(bench.ok(&["tags", &target]), "latest\nlatest-fastpull\nv1\nv1-fastpull");
    for tag in ["v1", "v1-fastpull", "latest-fastpull"] {
        let line = format!("{target}:{tag}@{}", bench.ok(&["digest", &format!("{target}:{tag}")]));
        assert!(published.contains(&line), "{line}: {published}");
    }
    let report = json(&bench.read("report.json"));
    let lazy = &report["lazy"][0];
    assert_eq!(
        (&report["status"], &lazy["format"], &lazy["signed"]),
        (&"succeeded".into(), &"nydus".into(), &true.into())
    );
    let wanted = [format!("{target}:v1-fastpull"), format!("{target}:latest-fastpull")];
    assert_eq!(lazy["references"], serde_json::json!(wanted));
    assert_eq!(bench.ok(&["digest", &wanted[0]]), lazy["digests"][0].as_str().unwrap());
    for tag in [&format!("{target}:v1"), &wanted[0]] {
        bench.ok(&["verify", "--key", &key(".pub"), tag]);
        let manifest = json(&bench.ok(&["manifest", "get", tag]));
        assert_eq!(manifest["annotations"]["team"], "web");
    }
    // FP-15: the same defaults everywhere.
    let converted = bench.ok(&["convert", "--to", "nydus", &format!("{target}:v1"), "-o", "oci:nydus:1"]);
    assert_eq!(converted, bench.ok(&["digest", &wanted[0]]));
}

/// A dry run lists what a publication would make.
#[test]
fn a_dry_run_lists_lazily_pulled_images() {
    let bench = bench();
    let registry = Registry::start();
    let app = index(&bench);
    let target = format!("{}/acme/app", registry.name());
    let tags = ["--tag", "v1", "--tag", "latest"];
    let line = ["publish", &app, "--to", &target, "--event", "push", "--commit", "6c22711f", "--dry-run"];
    let run = |more: &[&str]| bench.ok(&[&line[..], &tags, more].concat());
    let plain = json(&run(&["--json"]));
    assert!(plain.get("lazy").is_none(), "{plain}");
    for (more, placement, words) in [
        (&["--lazy", "nydus"][..], "tag", format!("would also make a nydus image\n  {target}:v1-fastpull\n")),
        (&["--lazy", "nydus", "--lazy-suffix=-lazy"], "tag", format!("  {target}:latest-lazy")),
        (&["--lazy", "nydus", "--lazy-placement", "index"], "index", "a nydus image in the index of the image".into()),
        (&["--lazy", "soci", "--lazy-placement", "referrer"], "referrer", "a soci image as a referrer".into()),
    ] {
        let shown = run(more);
        assert!(shown.contains(&words), "{shown}");
        let plan = json(&run(&[more, &["--json"]].concat()));
        let lazy = &plan["lazy"][0];
        assert_eq!((&lazy["format"], &lazy["placement"]), (&more[1].into(), &placement.into()), "{plan}");
        let wanted = if placement == "tag" { 2 } else { 0 };
        assert_eq!(lazy["references"].as_array().unwrap().len(), wanted, "{plan}");
        assert!(wanted == 0 || shown.contains(lazy["references"][1].as_str().unwrap()), "{shown}");
    }
    assert_ne!(bench.ocikit(&["tags", &target]).code, 0, "nothing was published");
    let long = "x".repeat(125);
    let outcome = bench.ocikit(&[&line[..], &["--tag", &long, "--lazy", "nydus"]].concat());
    assert!(outcome.code == 2 && outcome.stderr.contains("is longer than 128 characters"), "{outcome}");
}

/// A tag of the plain image is not replaced by the lazily pulled one.
#[test]
fn a_lazy_tag_that_is_also_a_tag_of_the_image_is_refused() {
    let bench = bench();
    let registry = Registry::start();
    let app = archive(&bench);
    let target = format!("{}/acme/app", registry.name());
    let line = ["publish", &app, "--to", &target, "--event", "push", "--commit", "6c22711f", "--lazy", "nydus"];
    let long = "x".repeat(125);
    for (more, problem) in [
        (
            &["--tag", "main", "--tag", "main-fastpull"][..],
            "beside `main`: `main-fastpull` is also a name of the plain image",
        ),
        (&["--tag", "v1", "--tag", &long], "is not a tag: it is longer than 128 characters"),
    ] {
        for dry in [&[][..], &["--dry-run"]] {
            let outcome = bench.ocikit(&[&line[..], more, dry].concat());
            assert!(outcome.code == 2 && outcome.stderr.contains(problem), "{outcome}");
            assert_eq!(outcome.stderr.matches("is not a tag").count(), problem.matches("is not a tag").count());
        }
    }
    assert_eq!(registry.requests().len(), 0, "nothing was published");
    bench.write("Dockerfile", "FROM scratch\n");
    for places in [
        &["-t", "reg.example/app:a", "-t", "reg.example/app:a-fastpull", "--push"][..],
        &["-o", "oci:lay:a", "-o", "oci:lay:a-fastpull"],
        &["-o", "a.tar", "-o", "a-fastpull.tar"],
    ] {
        let outcome = bench.ocikit(&[&["build", ".", "--lazy", "nydus"][..], places].concat());
        assert!(outcome.code == 2 && outcome.stderr.contains("is also a name of the plain image"), "{outcome}");
    }
}

/// FP-8 and FP-11: the plain image is published, the lazy tag is neither created nor moved, and the exit code says so.
#[test]
fn fp_08_a_format_that_fails_leaves_its_tag_and_the_plain_image() {
    let bench = bench();
    let registry = Registry::start();
    let app = archive(&bench);
    let target = format!("{}/acme/app", registry.name());
    // The layers are too small for SOCI.
    let line = [
        "publish",
        &app,
        "--to",
        &target,
        "--event",
        "push",
        "--commit",
        "6c22711f",
        "--tag",
        "v1",
        "--report",
        "report.json",
    ];
    let outcome = bench.ocikit(&[&line[..], &["--lazy", "soci"]].concat());
    assert_eq!(outcome.code, 7, "{outcome}");
    let said = outcome.stderr.contains("v1-fastpull (soci)") && outcome.stderr.contains("the plain image is published");
    assert!(said && !outcome.stderr.contains("again"), "{outcome}");
    assert_eq!(bench.ok(&["tags", &target]), "v1");
    let report = json(&bench.read("report.json"));
    assert_eq!((&report["status"], &report["targets"][0]["tags"][0]["state"]), (&"partial".into(), &"verified".into()));
    assert_eq!(report["lazy"][0]["missing"], serde_json::json!([format!("{target}:v1-fastpull")]));
    // A tag that exists stays, also if the registry refuses what belongs to the new one.
    bench.ok(&["copy", &app, &format!("{target}:v1-fastpull")]);
    let before = bench.ok(&["digest", &format!("{target}:v1-fastpull")]);
    let refused = "PUT /v2/acme/app/manifests/v1-fastpull";
    registry.faults().add(Fault::on(refused, Action::Answer(Reply::status(403))));
    let outcome = bench.ocikit(&[&line[..], &["--lazy", "nydus"]].concat());
    assert!(outcome.code == 7 && outcome.stderr.contains("v1-fastpull (nydus)"), "{outcome}");
    assert!(outcome.stderr.contains("run the same command again"), "{outcome}");
    registry.faults().clear();
    assert_eq!(bench.ok(&["digest", &format!("{target}:v1-fastpull")]), before);
    // With the other places too.
    let outcome = bench.ocikit(&[&line[..], &["--lazy", "soci", "--lazy-placement", "index"]].concat());
    assert!(outcome.code == 7 && outcome.stderr.contains("the index (soci)"), "{outcome}");
    assert_eq!(bench.ok(&["digest", &format!("{target}:v1")]), bench.ok(&["digest", &app]));
}

/// With several registries, the failure has the cause at the registry that failed, and names no other as failed.
#[test]
fn a_registry_that_does_not_store_the_lazy_image_is_named_with_its_reason() {
    let bench = bench();
    let (healthy, full) = (Registry::start(), Registry::start());
    let app = archive(&bench);
    let [one, two] = [&healthy, &full].map(|registry| format!("{}/acme/app", registry.name()));
    let line = ["publish", &app, "--to", &one, "--to", &two, "--event", "push", "--commit", "6c22711f"];
    let line = [&line[..], &["--tag", "v1", "--retries", "0", "--report", "report.json"]].concat();
    bench.ok(&line);
    full.faults().add(Fault::on("POST /v2/**", Action::Answer(Reply::status(507))));
    let outcome = bench.ocikit(&[&line[..], &["--lazy", "nydus"]].concat());
    assert_eq!(outcome.code, 7, "{outcome}");
    assert!(!outcome.stderr.contains("no tag was changed"), "{outcome}");
    let lines: Vec<_> = outcome.stderr.lines().filter(|line| line.contains("v1-fastpull (nydus)")).collect();
    assert!(matches!(lines[..], [line] if line.contains(&two) && line.contains("507")), "{outcome}");
    assert!(outcome.stderr.contains("not put in the other repositories either"), "{outcome}");
    let report = json(&bench.read("report.json"));
    let lazy = &report["lazy"][0];
    assert!(lazy["problem"].as_str().unwrap().contains("507"), "{report}");
    assert_eq!(lazy["failures"][0]["references"], serde_json::json!([format!("{two}:v1-fastpull")]));
    assert_eq!(bench.ok(&["tags", &one]), "v1");
    full.faults().clear();
    full.faults().add(Fault::on("POST /v2/**", Action::Cut(Point::Request)));
    let outcome = bench.ocikit(&[&line[..], &["--lazy", "nydus"]].concat());
    let lines: Vec<_> = outcome.stderr.lines().filter(|line| line.contains("v1-fastpull (nydus): ")).collect();
    assert!(matches!(lines[..], [line] if line.contains(&two)), "{outcome}");
}

/// Two publications at the same time: the lazy image of one does not silently stay beside the plain image of the other.
#[test]
fn a_lazy_tag_beside_a_tag_that_another_client_moved_is_a_failure() {
    let bench = bench();
    let app = archive(&bench);
    bench.ok(&["annotate", &app, "other=1", "-o", "other.tar"]);
    // The lazy tag is not put, if the plain one moved before; else it is late.
    for (request, nth, is_put) in [("GET", 2, false), ("PUT", 1, true)] {
        let registry = Registry::start();
        let target = format!("{}/acme/app", registry.name());
        let path = if is_put { "/v2/acme/app/manifests/v1-fastpull" } else { "/v2/acme/app/manifests/v1" };
        let delay = Action::Delay(Duration::from_secs(3));
        let delayed = registry.faults().add(Fault::on(&format!("{request} {path}"), delay).nth(nth));
        let line = ["publish", &app, "--to", &target, "--event", "push", "--commit", "6c22711f", "--tag", "v1"];
        let outcome = std::thread::scope(|scope| {
            let first = scope.spawn(|| bench.ocikit(&[&line[..], &["--lazy", "nydus"]].concat()));
            let deadline = Instant::now() + Duration::from_secs(60);
            while delayed.happened() == 0 {
                assert!(Instant::now() < deadline, "no {request} {path}: {:?}", registry.requests());
                std::thread::sleep(Duration::from_millis(5));
            }
            bench.ok(&["copy", "other.tar", &format!("{target}:v1")]);
            first.join().unwrap()
        });
        let digest = bench.ok(&["digest", "other.tar"]);
        assert_eq!(outcome.code, 7, "{request} {outcome}");
        let problem = format!("another client moved the tag v1 of the plain image to {digest}");
        assert!(outcome.stderr.contains("v1-fastpull (nydus)") && outcome.stderr.contains(&problem), "{outcome}");
        assert_eq!(bench.ok(&["digest", &format!("{target}:v1")]), digest);
        let tags = if is_put { "v1\nv1-fastpull" } else { "v1" };
        assert_eq!(bench.ok(&["tags", &target]), tags, "{request} {outcome}");
    }
}

/// FP-12: a format at a place where no client finds it is refused before anything is published.
#[test]
fn fp_12_places_without_readers_are_refused() {
    let bench = bench();
    let registry = Registry::start();
    let app = archive(&bench);
    let target = format!("{}/acme/app", registry.name());
    let line = ["publish", &app, "--to", &target, "--event", "push", "--commit", "6c22711f", "--tag", "v1"];
    for more in [
        &["--lazy", "estargz", "--lazy-placement", "index"][..],
        &["--lazy", "zstd-chunked", "--lazy-placement", "referrer"],
        &["--lazy", "nydus,estargz"],
        &["--lazy", "nydus", "--lazy-suffix", "/x"],
        &["--lazy-suffix", "-x"],
        &["--lazy", "nydus", "--lazy-placement", "index", "--lazy-suffix", "-x"],
        &["--lazy", "gzip"],
    ] {
        let outcome = bench.ocikit(&[&line[..], more].concat());
        assert_eq!(outcome.code, 2, "{more:?}: {outcome}");
    }
    assert_eq!(registry.requests().len(), 0);
    bench.ok(&[&line[..], &["--lazy", "nydus,estargz", "--lazy-suffix=-{format}"]].concat());
    assert_eq!(bench.ok(&["tags", &target]), "v1\nv1-estargz\nv1-nydus");
}

#[test]
fn a_configuration_asks_for_lazy_images() {
    let bench = bench();
    let registry = Registry::start();
    let app = archive(&bench);
    let target = registry.name();
    let write = |lazy: &str| bench.write("c.yaml", format!("registry: {target}\nname: app\n{lazy}\n"));
    let line = ["publish", &app, "--config", "c.yaml", "--event", "push", "--commit", "6c22711f", "--tag", "v1"];
    write("lazy: {formats: [nydus], suffix: -nydus}");
    bench.ok(&line);
    assert_eq!(bench.ok(&["tags", &format!("{target}/app")]), "v1\nv1-nydus");
    write("formats: [gzip, nydus]");
    bench.ok(&line);
    let index = json(&bench.ok(&["manifest", "get", &format!("{target}/app:v1")]));
    assert_eq!(index["manifests"][1]["platform"]["os.features"][0], NYDUS_FEATURE, "{index}");
    for (wrong, problem) in [
        ("lazy: {formats: [gzip]}", "gzip is not lazily pulled"),
        ("lazy: {formats: [nydus, estargz]}", "several formats would have the tag"),
        ("lazy: {formats: [estargz], placement: index}", "no client would find them"),
        ("lazy: {formats: [nydus], placement: here}", "none of tag, index, referrer"),
        ("lazy: {formats: [nydus], suffix: /}", "cannot end a tag"),
    ] {
        write(wrong);
        let outcome = bench.ocikit(&line);
        assert!(outcome.code == 2 && outcome.stderr.contains(problem), "{wrong}: {outcome}");
    }
}
