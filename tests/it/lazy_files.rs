//! Files of images in lazy formats: `ls`, `cat`, `diff`, `unpack`, `export`, `inspect` and `validate`.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use ocikit_archive::Compression;
use ocikit_image::testing::{Tar, hard_layer, random};
use ocikit_tests::{Bench, Registry, write_image};
use serde_json::Value;

use crate::bench;

/// Each format with the options of `convert`.
const FORMATS: [(&str, &[&str]); 6] = [
    ("estargz", &[]),
    ("zstd-chunked", &[]),
    ("soci", &["--min-layer-size=0"]),
    ("soci-v1", &["--min-layer-size=0", "--soci-version=v1"]),
    ("nydus", &[]),
    ("nydus-v5", &["--rafs-version=5", "--compressor=lz4_block"]),
];

const LARGE: usize = 12 << 20;

/// Writes an image, and one of its files.
fn image(bench: &Bench) -> Vec<u8> {
    let noise = random(3, LARGE);
    let base = Tar::new().modified(1_500_000_000).directory("etc").file("etc/lower", b"lower").file("gone", b"1");
    let base = base.directory("opaque").file("opaque/hidden", b"h").finish();
    let large = Tar::new().modified(1_600_000_000).file("noise", &noise).finish();
    let upper = Tar::new().modified(1_650_000_000).directory("etc").file("etc/motd", b"hello");
    let upper = upper.file("etc/.wh.none", b"").file(".wh.gone", b"");
    let upper = upper.directory("opaque").file("opaque/.wh..wh..opq", b"").file("opaque/new", b"n");
    write_image(&bench.path("app"), Compression::Gzip, &[base, hard_layer(), large, upper.finish()]);
    noise
}

fn convert(bench: &Bench, (name, options): (&str, &[&str]), source: &str, target: &str) {
    let format = name.split("-v").next().unwrap();
    let mut arguments = vec!["convert", "--to", format, source];
    arguments.extend(options);
    // An index of version 1 is a referrer of the image, whose digest stays.
    match name == "soci-v1" {
        true => {
            bench.ok(&["copy", source, target]);
            arguments[3] = target;
        }
        false => arguments.extend(["-o", target]),
    }
    bench.ok(&arguments);
}

/// Returns the list of files without the column with the number of the layer.
fn list(bench: &Bench, location: &str) -> Vec<String> {
    let listed = bench.ok(&["ls", "-l", location]);
    let columns = |line: &str| {
        let mut columns: Vec<&str> = line.split_whitespace().collect();
        columns.remove(4);
        columns.join(" ")
    };
    listed.lines().map(columns).collect()
}

/// Returns what `cat` prints.
fn bytes_of(bench: &Bench, location: &str, path: &str) -> Vec<u8> {
    let output = bench.command(&["cat", location, path]).output().unwrap();
    assert!(output.status.success(), "{location} {path}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn files_are_those_of_the_plain_image() {
    let bench = bench();
    let noise = image(&bench);
    bench.ok(&["unpack", "--rootless", "oci:app:1", "plain-tree"]);
    bench.ok(&["export", "oci:app:1", "-o", "plain.tar"]);
    let tree = tree(&bench.path("plain-tree"));
    for format in FORMATS {
        let name = format.0;
        let target = format!("oci:{name}:1");
        convert(&bench, format, "oci:app:1", &target);
        // eStargz has times in whole seconds in its table.
        let rounded = |lines: Vec<String>| -> Vec<String> {
            lines.into_iter().filter(|line| !line.contains("nanoseconds") && !line.contains("/half")).collect()
        };
        assert_eq!(rounded(list(&bench, &target)), rounded(list(&bench, "oci:app:1")), "{name}");
        for (path, contents) in [
            ("/noise", &noise[..]),
            ("/etc/motd", b"hello"),
            ("/etc/lower", b"lower"),
            ("/bin/sh", &random(1, 5000)),
            ("/bin/su3", &random(1, 5000)),
            ("/zeros", &vec![0; 5 << 20]),
            ("/mixed", &[&random(3, 70_000)[..], &vec![0; 3 << 20], b"end"].concat()),
            ("/large", &random(6, (9 << 20) + 1)),
            ("/empty", b""),
        ] {
            let outcome = bytes_of(&bench, &target, path);
            assert!(outcome == contents, "{name} {path}: {} bytes", outcome.len());
        }
        for missing in ["/gone", "/opaque/hidden", "/stargz.index.json", "/etc/none"] {
            assert_eq!(bench.ocikit(&["cat", &target, missing]).code, 3, "{name} {missing}");
        }
        let outcome = bench.ocikit(&["diff", "oci:app:1", &target]);
        assert_eq!(outcome.code, 0, "{name}: {outcome}");
        let is_same = outcome.stderr.contains("the same files") || name == "soci-v1";
        assert!(is_same, "{name}: {outcome}");
        bench.ok(&["unpack", "--rootless", &target, &format!("tree-{name}")]);
        assert_eq!(self::tree(&bench.path(&format!("tree-{name}"))), tree, "{name}");
        bench.ok(&["export", &target, "-o", &format!("{name}.tar")]);
        bench.ok(&["validate", &target]);
    }
}

/// Returns the files of a directory.
fn tree(root: &Path) -> Vec<String> {
    let (mut found, mut waiting) = (Vec::new(), vec![root.to_owned()]);
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let kind = metadata.file_type();
            let contents = match () {
                () if kind.is_dir() => {
                    waiting.push(path.clone());
                    String::new()
                }
                () if kind.is_symlink() => fs::read_link(&path).unwrap().display().to_string(),
                () if kind.is_fifo() => "fifo".to_owned(),
                () => ocikit::Digest::sha256_of(&fs::read(&path).unwrap()).to_string(),
            };
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let links = if kind.is_dir() { 0 } else { metadata.nlink() };
            let (mode, seconds, nanoseconds) = (metadata.mode(), metadata.mtime(), metadata.mtime_nsec());
            found.push(format!("{name} {mode:o} {links} {seconds}.{nanoseconds} {contents}"));
        }
    }
    found.sort();
    found
}

/// What a command reads of a registry, in bytes of blobs.
fn downloaded(registry: &Registry, run: impl FnOnce()) -> (usize, u64) {
    registry.clear_requests();
    run();
    let requests = registry.requests();
    let blobs: Vec<_> = requests.iter().filter(|exchange| exchange.path.contains("/blobs/")).collect();
    (blobs.len(), blobs.iter().map(|exchange| exchange.response_bytes).sum())
}

#[test]
fn a_remote_file_is_read_by_ranges() {
    let bench = bench();
    let registry = Registry::start();
    image(&bench);
    for format in FORMATS {
        let (name, _) = format;
        if name == "soci-v1" {
            continue;
        }
        convert(&bench, format, "oci:app:1", &format!("oci:{name}:1"));
        let target = format!("{}/{name}:1", registry.name());
        bench.ok(&["copy", &format!("oci:{name}:1"), &target]);
        let (requests, bytes) = downloaded(&registry, || drop(bench.ok(&["ls", &target])));
        assert!(bytes < 2 << 20, "{name}: ls read {bytes} bytes");
        assert!(requests <= 14, "{name}: ls made {requests} requests");
        let (requests, bytes) = downloaded(&registry, || assert_eq!(bench.ok(&["cat", &target, "/etc/motd"]), "hello"));
        // A ztoc holds 32 KiB for each checkpoint.
        assert!(bytes < 1 << 20, "{name}: cat read {bytes} bytes");
        assert!(requests <= 8, "{name}: cat made {requests} requests");
        let (_, bytes) = downloaded(&registry, || drop(bytes_of(&bench, &target, "/noise")));
        assert!(bytes < (LARGE + (6 << 20)) as u64, "{name}: {bytes} bytes for a file of {LARGE}");
    }
}

#[test]
fn formats_of_layers_are_shown() {
    let bench = bench();
    image(&bench);
    for (format, wanted) in [
        (FORMATS[0], "estargz, table of"),
        (FORMATS[1], "zstd-chunked, table of"),
        (FORMATS[2], "soci, table of"),
        (FORMATS[4], "nydus-bootstrap-v6, table of"),
        (FORMATS[5], "nydus-bootstrap-v5, table of"),
    ] {
        let target = format!("oci:{}:1", format.0);
        convert(&bench, format, "oci:app:1", &target);
        let shown = bench.ok(&["inspect", "--platform", "linux/amd64", &target]);
        assert!(shown.contains(wanted), "{shown}");
        let json = bench.json(&["inspect", "--json", "--platform", "linux/amd64", &target]);
        let layer = json["layers"].as_array().unwrap().last().unwrap();
        assert!(layer["format"]["tableSize"].as_u64().unwrap() > 0, "{json}");
    }
}

/// An index shows the formats of each image by its documents.
#[test]
fn formats_of_images_in_an_index_are_shown() {
    let bench = bench();
    image(&bench);
    bench.ok(&["edit", "--architecture", "arm64", "oci:app:1", "-o", "oci:arm64:1"]);
    bench.ok(&["index", "create", "oci:both:1", "oci:app:1", "oci:arm64:1"]);
    assert!(!bench.ok(&["inspect", "oci:both:1"]).contains("formats"));
    let layers = bench.ok(&["inspect", "--json", "--platform", "linux/amd64", "oci:both:1"]);
    let layers = serde_json::from_str::<Value>(&layers).unwrap()["layers"].as_array().unwrap().len();
    let registry = Registry::start();
    for (name, options, words) in [
        ("estargz", &["--to", "estargz"][..], format!("{layers} estargz")),
        ("zstd", &["--to", "zstd-chunked"], format!("{layers} zstd-chunked")),
        ("soci", &["--to", "soci", "--min-layer-size=0"], format!("{layers} soci")),
        ("nydus", &["--to", "nydus", "--rafs-version", "5"], format!("{layers} nydus-blob, 1 nydus-bootstrap-v5")),
        ("some", &["--to", "nydus", "--platform", "linux/arm64"], "1 nydus-bootstrap-v6".to_owned()),
    ] {
        let target = format!("{}/{name}:1", registry.name());
        bench.ok(&[&["convert"], options, &["oci:both:1", "-o", &target]].concat());
        let (blobs, _) = downloaded(&registry, || {
            let shown = bench.ok(&["inspect", &target]);
            let found = shown.lines().filter(|line| line.contains("formats") && line.contains(&words)).count();
            assert_eq!(found, if name == "some" { 1 } else { 2 }, "{shown}");
        });
        assert_eq!(blobs, 2, "{name}: only the configs are read");
        let json: Value = serde_json::from_str(&bench.ok(&["inspect", "--json", &target])).unwrap();
        let last = json["manifests"][1]["layers"].as_array().unwrap().last().unwrap();
        assert!(words.contains(last["format"]["name"].as_str().unwrap()), "{json}");
    }
}

/// Changes the manifest of an image in a layout.
fn with_manifest(bench: &Bench, layout: &str, change: impl FnOnce(&mut Value)) {
    let location = format!("oci:{layout}:1");
    let mut manifest = bench.json(&["manifest", "get", &location]);
    change(&mut manifest);
    bench.write("manifest.json", serde_json::to_vec(&manifest).unwrap());
    bench.ok(&["manifest", "put", "manifest.json", &location]);
}

#[test]
fn annotations_alone_make_no_format() {
    let bench = bench();
    write_image(
        &bench.path("app"),
        Compression::Gzip,
        &[Tar::new().directory("etc").file("etc/motd", b"hello").file("stargz.index.json", b"mine").finish()],
    );
    let digest = format!("sha256:{}", "a".repeat(64));
    for annotations in [
        serde_json::json!({"containerd.io/snapshot/stargz/toc.digest": digest}),
        serde_json::json!({
            "io.github.containers.zstd-chunked.manifest-checksum": digest,
            "io.github.containers.zstd-chunked.manifest-position": "0:10:100:1",
            "io.github.containers.zstd-chunked.tarsplit-position": "10:10:100",
        }),
        serde_json::json!({"containerd.io/snapshot/nydus-bootstrap": "true"}),
    ] {
        bench.ok(&["copy", "oci:app:1", "oci:lies:1"]);
        with_manifest(&bench, "lies", |manifest| manifest["layers"][0]["annotations"] = annotations.clone());
        assert_eq!(bench.ok(&["ls", "oci:lies:1"]), bench.ok(&["ls", "oci:app:1"]), "{annotations}");
        assert_eq!(bench.ok(&["cat", "oci:lies:1", "/stargz.index.json"]), "mine");
        let outcome = bench.ocikit(&["validate", "oci:lies:1"]);
        assert_eq!(outcome.code, 5, "{annotations}: {outcome}");
        let shown = bench.ok(&["inspect", "oci:lies:1"]);
        assert!(shown.contains("as its annotations say"), "{shown}");
        let other = Tar::new().file("etc/motd", b"hello").finish();
        write_image(&bench.path("other"), Compression::Gzip, &[other]);
        with_manifest(&bench, "other", |manifest| manifest["layers"][0]["annotations"] = annotations.clone());
        for (format, source) in [("estargz", "oci:other:1"), ("zstd-chunked", "oci:lies:1"), ("nydus", "oci:lies:1")] {
            let before = bench.ok(&["digest", source]);
            let target = format!("oci:{format}:1");
            bench.ok(&["convert", "--to", format, source, "-o", &target]);
            assert_ne!(bench.ok(&["digest", &target]), before, "{annotations} {format}");
            bench.ok(&["validate", &target]);
        }
    }
}

#[test]
fn damaged_tables_and_chunks_are_found() {
    let bench = bench();
    image(&bench);
    let wrong = |format: (&str, &[&str]), layer: usize, key: &str, value: &str| {
        let layout = format!("wrong-{}", format.0);
        convert(&bench, format, "oci:app:1", &format!("oci:{layout}:1"));
        with_manifest(&bench, &layout, |manifest| manifest["layers"][layer]["annotations"][key] = value.into());
        let outcome = bench.ocikit(&["validate", &format!("oci:{layout}:1")]);
        assert_eq!(outcome.code, 5, "{outcome}");
        assert!(outcome.stdout.contains("not in the format that its annotations state"), "{outcome}");
        // The tar is what it is.
        assert_eq!(bench.ok(&["cat", &format!("oci:{layout}:1"), "/etc/motd"]), "hello");
    };
    let digest = format!("sha256:{}", "b".repeat(64));
    wrong(FORMATS[0], 3, "containerd.io/snapshot/stargz/toc.digest", &digest);
    wrong(FORMATS[1], 3, "io.github.containers.zstd-chunked.manifest-checksum", &digest);
    wrong(FORMATS[1], 0, "io.github.containers.zstd-chunked.manifest-position", "18446744073709551615:5:5:1");
    wrong(FORMATS[1], 0, "io.github.containers.zstd-chunked.manifest-position", "1:300000000:5:1");
}

/// The way to Nydus and back invents no root.
#[test]
fn the_way_back_from_nydus_invents_nothing() {
    let bench = bench();
    let whiteouts = Tar::new().file(".wh.gone", b"").finish();
    let lower = Tar::new().file("etc/motd", b"hello").file("gone", b"1").finish();
    write_image(&bench.path("app"), Compression::Gzip, &[lower, whiteouts]);
    bench.ok(&["convert", "--to", "nydus", "oci:app:1", "-o", "oci:nydus:1"]);
    bench.ok(&["convert", "--to", "plain", "oci:nydus:1", "-o", "oci:back:1"]);
    let listed = bench.ok(&["ls", "--layer", "0", "--json", "oci:back:1"]);
    assert!(!listed.contains(r#""path":"/","#), "{listed}");
    for location in ["oci:nydus:1", "oci:back:1"] {
        bench.ok(&["validate", location]);
        assert_eq!(bench.ok(&["ls", location]), bench.ok(&["ls", "oci:app:1"]), "{location}");
    }
    bench.ok(&["diff", "oci:app:1", "oci:nydus:1"]);
}

/// The files that eStargz adds to its layers do not get into images of another format.
#[test]
fn the_files_of_estargz_stay_in_estargz() {
    let bench = bench();
    image(&bench);
    bench.ok(&["convert", "--to", "estargz", "--prefetch", "/etc", "oci:app:1", "-o", "oci:stargz:1"]);
    let plain = bench.ok(&["ls", "oci:app:1"]);
    for format in ["nydus", "zstd-chunked"] {
        let target = format!("oci:from-{format}:1");
        bench.ok(&["convert", "--to", format, "oci:stargz:1", "-o", &target]);
        bench.ok(&["validate", &target]);
        bench.ok(&["convert", "--to", "plain", &target, "-o", "oci:back:1"]);
        bench.ok(&["validate", "oci:back:1"]);
        assert_eq!(bench.ok(&["ls", "oci:back:1"]), plain, "{format}");
    }
    for command in [
        &["flatten"][..],
        &["recompress", "--compression", "zstd"],
        &["recompress", "--level", "9"],
        &["normalize", "--time", "1700000000"],
    ] {
        bench.ok(&[command, &["oci:stargz:1", "-o", "oci:new:1"]].concat());
        bench.ok(&["validate", "oci:new:1"]);
        assert_eq!(paths(&bench, "oci:new:1"), paths(&bench, "oci:app:1"), "{command:?}");
    }
}

fn paths(bench: &Bench, location: &str) -> Vec<String> {
    let listed = bench.ok(&["ls", location]);
    let mut paths: Vec<_> = listed.lines().map(str::to_owned).collect();
    paths.sort();
    paths
}

/// A layer with a file of its own at the path of one that eStargz adds is kept.
#[test]
fn files_at_the_paths_of_estargz_are_not_lost() {
    let bench = bench();
    for name in ["stargz.index.json", "./.prefetch.landmark", ".no.prefetch.landmark"] {
        let own = Tar::new().file("etc/motd", b"hello").file(name, b"mine").finish();
        write_image(&bench.path("own"), Compression::Gzip, &[own]);
        for prefetch in [&[][..], &["--prefetch", "/etc"]] {
            let line = ["convert", "--to", "estargz", "oci:own:1", "-o", "oci:kept:1"];
            let outcome = bench.ocikit(&[&line[..], prefetch].concat());
            assert_eq!(outcome.code, 0, "{outcome}");
            assert!(outcome.stderr.contains("is at the path of a file that the format adds"), "{outcome}");
            assert_eq!(bench.ok(&["cat", "oci:kept:1", name]), "mine");
        }
    }
}

#[test]
fn wrong_annotations_are_found() {
    let bench = bench();
    let tar = Tar::new().directory("etc").file("etc/motd", b"hello").finish();
    write_image(&bench.path("app"), Compression::Gzip, &[tar]);
    let nydus = "containerd.io/snapshot/nydus-";
    for (format, layer, key, value) in [
        ("nydus", 1, format!("{nydus}bootstrap"), Value::Null),
        ("nydus", 1, format!("{nydus}fs-version"), "99".into()),
        ("nydus", 1, format!("{nydus}blob-ids"), r#"["aa"]"#.into()),
        ("nydus", 1, format!("{nydus}blob-ids"), "{".into()),
        ("estargz", 0, "io.containers.estargz.uncompressed-size".into(), "1".into()),
        ("estargz", 0, "containerd.io/snapshot/stargz/toc.digest".into(), Value::Null),
        ("zstd-chunked", 0, "io.github.containers.zstd-chunked.manifest-checksum".into(), Value::Null),
    ] {
        bench.ok(&["convert", "--to", format, "oci:app:1", "-o", "oci:wrong:1"]);
        bench.ok(&["validate", "oci:wrong:1"]);
        with_manifest(&bench, "wrong", |manifest| {
            let annotations = manifest["layers"][layer]["annotations"].as_object_mut().unwrap();
            match &value {
                Value::Null => drop(annotations.remove(&key)),
                value => drop(annotations.insert(key.clone(), value.clone())),
            }
        });
        let outcome = bench.ocikit(&["validate", "oci:wrong:1"]);
        assert_eq!(outcome.code, 5, "{format} {key}: {outcome}");
    }
}

/// The history of Nydus is one of its own, also in an image without a file.
#[test]
fn an_image_without_files_has_no_other_history() {
    let bench = bench();
    write_image(&bench.path("empty"), Compression::Gzip, &[Tar::new().directory("etc").finish()]);
    bench.ok(&["convert", "--to", "nydus", "oci:empty:1", "-o", "oci:nydus:1"]);
    bench.ok(&["diff", "oci:empty:1", "oci:nydus:1"]);
}
