//! Archives and layouts of other programs.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use ocikit_spec::{Descriptor, Digest, MediaType};
use ocikit_tests::{Bench, Compression, Registry, Tar, fixture, json, multi, single, testdata, write_image};
use serde_json::{Value, json};

use crate::bench;

fn case(name: &str) -> String {
    fixture(&format!("docker-cases/{name}"))
}

pub(super) fn layers() -> Vec<Vec<u8>> {
    vec![Tar::new().file("hello.txt", b"hello\n").finish()]
}

/// Returns the sorted paths of all files and directories below a directory.
pub(super) fn tree(path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(tree(&entry.path()));
        }
        found.push(entry.path().display().to_string());
    }
    found.sort();
    found
}

fn inspect(bench: &Bench, location: &str) -> Value {
    bench.json(&["inspect", "--json", location])
}

#[test]
fn gc_fails_if_a_manifest_is_missing() {
    let bench = bench();
    let multi = multi();
    bench.ok(&["copy", &multi, "oci:layout:1"]);
    bench.ok(&["copy", &multi, "whole.tar"]);
    let index = bench.ok(&["digest", "oci:layout:1"]);
    let facts = bench.json(&["manifest", "get", "oci:layout:1"]);
    let child = facts["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let count = || tree(&bench.path("layout")).len();
    for (missing, sparse) in [(child, 0), (index, 3)] {
        let path = bench.path("layout").join(missing.parse::<Digest>().unwrap().blob_path());
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let before = count();
        let outcome = bench.ocikit(&["gc", "oci:layout"]);
        assert_eq!(outcome.code, 3, "{outcome}");
        assert!(outcome.stderr.contains(&missing) && outcome.stderr.contains("--sparse"), "{outcome}");
        assert_eq!(count(), before);
        assert_eq!(bench.ocikit(&["gc", "--sparse", "--dry-run", "oci:layout"]).code, sparse);
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn moby_42862_podman_472_ggcr_1838_skopeo_999_docker_archive_variants_are_read() {
    let bench = bench();
    for name in [
        "docker-layer-pzstd.tar",
        "docker-layer-xz.tar",
        "docker-layer-bzip2.tar",
        "docker-dot-names.tar",
        "docker-blobs-diffid-gzip.tar",
    ] {
        let path = case(name);
        for location in [path.clone(), format!("docker-archive:{path}:acme/app:1")] {
            bench.ok(&["validate", &location]);
            assert_eq!(bench.ok(&["ls", &location]), "/hello", "{location}");
            bench.ok(&["copy", &location, "oci:out"]);
            bench.ok(&["validate", "oci:out"]);
            fs::remove_dir_all(bench.path("out")).unwrap();
        }
        let piped = bench.ocikit_with_input(&["copy", "-", "oci:piped"], &fs::read(&path).unwrap());
        assert_eq!(piped.code, 0, "{name}: {piped}");
        bench.ok(&["validate", "oci:piped"]);
        fs::remove_dir_all(bench.path("piped")).unwrap();
    }
}

#[test]
fn ggcr_1838_archives_compressed_with_xz_bzip2_and_pzstd_are_read() {
    let bench = bench();
    let digest = write_image(&bench.path("a.tar"), Compression::Gzip, &layers()).to_string();
    for (program, ending) in [("xz", "xz"), ("bzip2", "bz2"), ("zstd", "zst")] {
        // The fixtures cover each format too, so a missing program is skipped.
        let Ok(output) = Command::new(program).arg("-c").stdin(File::open(bench.path("a.tar")).unwrap()).output()
        else {
            continue;
        };
        let mut bytes = output.stdout;
        if program == "zstd" {
            // The output of pzstd starts with a skippable frame of four bytes.
            bytes.splice(0..0, [0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4]);
        }
        let name = format!("whole.tar.{ending}");
        bench.write(&name, &bytes);
        assert_eq!(bench.ok(&["digest", &name]), digest);
        bench.ok(&["validate", &name]);
        assert_eq!(bench.ocikit_with_input(&["copy", "-", "oci:out"], &bytes).code, 0, "{program}");
        fs::remove_dir_all(bench.path("out")).unwrap();
    }
    for name in ["b.tar.xz", "b.tar.bz2"] {
        let outcome = bench.ocikit(&["copy", "a.tar", name]);
        let expected = format!(
            "error: cannot write {name}: xz and bzip2 archives can only be read\nhint: use `.tar`, `.tar.gz` or `.tar.zst`\n"
        );
        assert_eq!((outcome.code, &*outcome.stderr), (2, &*expected), "{outcome}");
        assert!(!bench.path(name).exists());
    }
}

#[test]
fn kind_3795_moby_49473_docker_save_of_one_platform_copies_that_platform() {
    let bench = bench();
    let path = case("docker-save-index-one-platform.tar");
    let registry = Registry::start();
    let image = "sha256:80aa4c7179993dfdb0e51d1c3391a95cad168d9d8a332240ed708de99eb3afe4";
    for source in [path.clone(), format!("{path}#1"), format!("oci-archive:{path}:1")] {
        let outcome = bench.ocikit(&["copy", &source, "oci:out"]);
        assert!(outcome.code == 0 && outcome.stderr.contains("copying linux/amd64"), "{outcome}");
        assert_eq!(bench.ok(&["digest", "oci:out"]), image);
        bench.ok(&["validate", "oci:out"]);
        fs::remove_dir_all(bench.path("out")).unwrap();
    }
    assert_eq!(bench.ok(&["digest", &format!("docker-archive:{path}")]), image, "the image manifest");
    bench.ok(&["validate", &format!("docker-archive:{path}:app:1")]);
    let reference = format!("{}/app:1", registry.name());
    bench.ok(&["push", &path, &reference]);
    assert_eq!(bench.ok(&["digest", &reference]), image);
    let piped = format!("{}/piped:1", registry.name());
    let outcome = bench.ocikit_with_input(&["push", "-", &piped], &fs::read(&path).unwrap());
    assert!(outcome.code == 0 && outcome.stderr.contains("copying linux/amd64"), "{outcome}");
    assert_eq!(bench.ok(&["digest", &piped]), image);
    let outcome = bench.ocikit(&["annotate", &path, "k=v", "-o", "oci:annotated"]);
    assert!(outcome.code == 0 && outcome.stderr.contains("copying linux/amd64"), "{outcome}");
    bench.ok(&["validate", "oci:annotated"]);
    // `validate` reports the missing manifest, and a pinned digest selects the incomplete index.
    let outcome = bench.ocikit(&["validate", &path]);
    assert_eq!(outcome.code, 5, "{outcome}");
    assert!(outcome.stdout.contains("121a9881695fe1e12ecdae30d9c863410a55ac2ee4828bba1d9a75413488272c"), "{outcome}");
    let index = "sha256:e1e108069175b3d33a3bcab5a94422f205f33c65de094c6bf800df26d23bde95";
    assert_eq!(bench.ocikit(&["copy", &format!("{path}@{index}"), "oci:pinned"]).code, 3);
    let outcome = bench.ocikit(&["copy", "--platform", "linux/arm64", &path, "oci:arm"]);
    assert!(outcome.code == 3 && outcome.stderr.contains("linux/amd64"), "{outcome}");
    // An incomplete index that docker did not write is an error.
    bench.ok(&["copy", &multi(), "oci:multi"]);
    let facts = bench.json(&["manifest", "get", "oci:multi"]);
    let digest: Digest = facts["manifests"][0]["digest"].as_str().unwrap().parse().unwrap();
    fs::remove_file(bench.path("multi").join(digest.blob_path())).unwrap();
    assert_eq!(bench.ocikit(&["copy", "oci:multi", "oci:partial"]).code, 3);
}

/// Writes a layout `foreign` with one image, whose layer has the media type of a foreign layer.
fn with_foreign_layer(bench: &Bench, urls: &str) {
    let blobs = bench.path("foreign/blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |media_type: &str, bytes: &[u8]| {
        let descriptor = Descriptor::of(MediaType::new(media_type), bytes);
        fs::write(bench.path("foreign").join(descriptor.digest.blob_path()), bytes).unwrap();
        serde_json::to_value(descriptor).unwrap()
    };
    let layer = Tar::new().file("hello.txt", b"hello\n").finish();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        Digest::sha256_of(&layer)
    );
    let config = put("application/vnd.docker.container.image.v1+json", config.as_bytes());
    let mut layer = put("application/vnd.docker.image.rootfs.foreign.diff.tar", &layer);
    layer["urls"] = serde_json::from_str(urls).unwrap();
    let docker = "application/vnd.docker.distribution.manifest.v2+json";
    let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": docker, "config": config, "layers": [layer]});
    let manifest = put(docker, manifest.to_string().as_bytes());
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [manifest]});
    bench.write("foreign/index.json", index.to_string());
    bench.write("foreign/oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
}

#[test]
fn imgpkg_8_moby_34216_foreign_layers_without_urls_are_copied() {
    let registry = Registry::start();
    for (urls, flags, copied) in [
        ("null", &[][..], true),
        ("[]", &[], true),
        (r#"["https://example.com/layer"]"#, &[], false),
        (r#"["https://example.com/layer"]"#, &["--foreign-layers"], true),
    ] {
        let bench = bench();
        with_foreign_layer(&bench, urls);
        let line = [&["copy", "oci:foreign", "oci:out"], flags].concat();
        bench.ok(&line);
        assert_eq!(tree(&bench.path("out/blobs/sha256")).len(), if copied { 3 } else { 2 }, "{urls} {flags:?}");
        let reference = format!("{}/foreign-{}:1", registry.name(), Digest::sha256_of(urls.as_bytes()).hex());
        bench.ok(&[&["push", "oci:foreign", &reference], flags].concat());
        let pulled = bench.ok(&[&["pull", &reference, "-o", "./pulled"], flags].concat());
        assert!(!pulled.is_empty());
        assert_eq!(tree(&bench.path("pulled/blobs/sha256")).len(), if copied { 3 } else { 2 }, "{urls} {flags:?}");
    }
    // A missing foreign layer without URLs is an error.
    let bench = bench();
    with_foreign_layer(&bench, "null");
    let layer = Digest::sha256_of(&Tar::new().file("hello.txt", b"hello\n").finish());
    fs::remove_file(bench.path("foreign").join(layer.blob_path())).unwrap();
    assert_eq!(bench.ocikit(&["copy", "oci:foreign", "oci:out"]).code, 3);
}

#[test]
fn annotated_archive_with_an_orphaned_signature_is_readable() {
    let bench = bench().with("OCIKIT_KEY_PASSWORD", "secret");
    write_image(&bench.path("a.tar"), Compression::Gzip, &layers());
    bench.ok(&["keygen", "--unencrypted", "--output", "k"]);
    bench.ok(&["sign", "a.tar", "--key", "k.key"]);
    let before = bench.ok(&["digest", "a.tar"]);
    bench.ok(&["annotate", "a.tar", "k=v"]);
    let after = bench.ok(&["digest", "a.tar"]);
    assert_ne!(before, after);
    assert_eq!(inspect(&bench, "a.tar")["annotations"]["k"], "v");
    bench.ok(&["copy", "a.tar", "oci:out"]);
    assert_eq!(bench.ok(&["digest", "oci:out"]), after);
}

#[test]
fn manifest_put_requires_the_listed_blobs() {
    let bench = bench();
    let multi = multi();
    write_image(&bench.path("a.tar"), Compression::Gzip, &layers());
    bench.ok(&["copy", "a.tar", "oci:layout"]);
    for (name, platform) in [("index.json", None), ("manifest.json", Some("linux/amd64"))] {
        let mut line = vec!["manifest", "get", &multi, "-o", name];
        line.extend(platform.into_iter().flat_map(|platform| ["--platform", platform]));
        bench.ok(&line);
        let before = fs::read(bench.path("a.tar")).unwrap();
        for target in ["a.tar#new", "oci:layout:new"] {
            let outcome = bench.ocikit(&["manifest", "put", name, target]);
            assert!(outcome.code == 3 && outcome.stderr.contains("which the manifest lists"), "{target}: {outcome}");
            assert_eq!(bench.ocikit(&["digest", target]).code, 3);
        }
        assert!(fs::read(bench.path("a.tar")).unwrap() == before);
    }
    // With all blobs present, both manifests are accepted.
    bench.ok(&["copy", &multi, "oci:layout:multi"]);
    bench.ok(&["copy", &multi, "--append", "a.tar#multi"]);
    for target in ["a.tar#new", "oci:layout:new"] {
        for name in ["manifest.json", "index.json"] {
            bench.ok(&["manifest", "put", name, target]);
        }
        assert_eq!(bench.ok(&["digest", target]), bench.ok(&["digest", &multi]), "{target}");
    }
}

/// Writes a layout like `cosign save` since version 3: `index.json` does not list the manifest of the signature. Returns the
/// digests of the image and of that manifest.
fn saved_by_cosign(bench: &Bench) -> (String, String) {
    write_image(&bench.path("a.tar"), Compression::Gzip, &layers());
    bench.ok(&["keygen", "--unencrypted", "--output", "k"]);
    bench.ok(&["sign", "a.tar", "--key", "k.key"]);
    bench.ok(&["copy", "a.tar", "oci:saved:1"]);
    let image = bench.ok(&["digest", "oci:saved:1"]);
    let signature = inspect(bench, &format!("oci:saved@{image}"));
    assert!(!signature.is_null());
    let list = bench.path("saved/index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&list).unwrap()).unwrap();
    let entries = index["manifests"].as_array_mut().unwrap();
    let (images, others): (Vec<_>, Vec<_>) = entries.drain(..).partition(|entry| entry["digest"] == image.as_str());
    assert_eq!((images.len(), others.len()), (1, 1));
    entries.extend(images);
    let referrer = others[0]["digest"].as_str().unwrap().to_owned();
    fs::write(list, index.to_string()).unwrap();
    (image, referrer)
}

#[test]
fn unlisted_signatures_of_cosign_save_are_found_and_kept() {
    let bench = bench().with("OCIKIT_KEY_PASSWORD", "secret");
    let (image, referrer) = saved_by_cosign(&bench);
    let listed = bench.ok(&["referrers", "oci:saved:1"]);
    assert!(listed.contains(&referrer), "{listed}");
    let collected = bench.ok(&["gc", "oci:saved"]);
    assert!(collected.contains(" 0 B freed"), "{collected}");
    bench.ok(&["validate", "oci:saved"]);
    bench.ok(&["verify", "oci:saved:1", "--key", "k.pub"]);
    let registry = Registry::start();
    let reference = format!("{}/saved:1", registry.name());
    for target in ["out.tar", "oci:out", &reference] {
        bench.ok(&["copy", "oci:saved:1", target]);
        bench.ok(&["verify", target, "--key", "k.pub"]);
    }
    // As an archive, and through a pipe.
    let packed = Command::new("tar").args(["-cf", "../saved.tar", "."]).current_dir(bench.path("saved")).status();
    assert!(packed.unwrap().success());
    bench.ok(&["verify", "saved.tar", "--key", "k.pub"]);
    bench.ok(&["gc", "saved.tar"]);
    bench.ok(&["verify", "saved.tar", "--key", "k.pub"]);
    let bytes = fs::read(bench.path("saved.tar")).unwrap();
    assert_eq!(bench.ocikit_with_input(&["copy", "-", "oci:piped"], &bytes).code, 0);
    bench.ok(&["verify", "oci:piped", "--key", "k.pub"]);
    // After the image is deleted, garbage collection removes its referrers too.
    bench.ok(&["delete", "oci:saved:1"]);
    let collected = bench.ok(&["gc", "oci:saved"]);
    assert!(collected.contains(&referrer["sha256:".len()..]) && collected.contains(&image["sha256:".len()..]));
}

/// Rewrites `index.json` like `cosign save`: entries have no tags, and an annotation tells images from signatures.
fn list_like_cosign(list: &Path) {
    let mut index: Value = serde_json::from_slice(&fs::read(list).unwrap()).unwrap();
    for entry in index["manifests"].as_array_mut().unwrap() {
        let tag = entry["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap_or_default();
        let kind = if tag.ends_with(".sig") { "sigs" } else { "image" };
        entry["annotations"] = json!({"kind": format!("dev.cosignproject.cosign/{kind}")});
    }
    fs::write(list, index.to_string()).unwrap();
}

#[test]
fn listed_legacy_signatures_of_cosign_save_belong_to_the_image() {
    let bench = bench();
    write_image(&bench.path("a.tar"), Compression::Gzip, &layers());
    bench.ok(&["keygen", "--unencrypted", "--output", "k"]);
    bench.ok(&["copy", "a.tar", "oci:saved:1"]);
    let image = bench.ok(&["digest", "oci:saved:1"]);
    bench.ok(&["sign", "--key", "k.key", "--format=cosign-legacy", "oci:saved:1"]);
    list_like_cosign(&bench.path("saved/index.json"));
    let verify = |place: &str| bench.ocikit(&["verify", "--key", "k.pub", "--format=cosign-legacy", place]).code;
    assert_eq!(bench.ok(&["digest", "oci:saved"]), image);
    assert_eq!(verify("oci:saved"), 0);
    let registry = Registry::start();
    let reference = format!("{}/saved:1", registry.name());
    for target in ["out.tar", "oci:out", &reference] {
        bench.ok(&["copy", "oci:saved", target]);
        assert_eq!(verify(target), 0, "{target}");
    }
    let packed = Command::new("tar").args(["-cf", "../saved.tar", "."]).current_dir(bench.path("saved")).status();
    assert!(packed.unwrap().success());
    assert_eq!(
        bench.ocikit_with_input(&["copy", "-", "oci:piped"], &fs::read(bench.path("saved.tar")).unwrap()).code,
        0
    );
    assert_eq!(verify("oci:piped"), 0);
    // If the layout has another image, the payload decides which one was signed.
    write_image(&bench.path("b.tar"), Compression::Gzip, &[Tar::new().file("other.txt", b"other\n").finish()]);
    bench.ok(&["copy", "b.tar", "oci:saved:other"]);
    assert_eq!(verify(&format!("oci:saved@{image}")), 0);
    assert_ne!(verify("oci:saved:other"), 0);
}

#[test]
fn archives_are_loadable_by_docker_by_default() {
    let bench = bench();
    write_image(&bench.path("a.tar"), Compression::Gzip, &layers());
    let multi = multi();
    let listed = |path: &str| -> Option<Value> {
        let file = File::open(bench.path(path)).unwrap();
        let index = ocikit_archive::TarIndex::read(&file).unwrap();
        let span = index.file("manifest.json")?;
        let bytes = fs::read(bench.path(path)).unwrap();
        Some(serde_json::from_slice(&bytes[span.offset as usize..][..span.size as usize]).unwrap())
    };
    bench.ok(&["copy", "a.tar", "one.tar"]);
    assert_eq!(listed("one.tar").unwrap().as_array().unwrap().len(), 1);
    bench.ok(&["copy", "--no-docker", "a.tar", "none.tar"]);
    assert_eq!(listed("none.tar"), None);
    assert_eq!(bench.ocikit(&["copy", "--no-docker", "--docker", "a.tar", "none.tar"]).code, 2);
    bench.ok(&["copy", &multi, "multi.tar"]);
    let config = |path: &str, platform: &str| {
        let manifest = bench.ok(&["manifest", "get", path, "--platform", platform]);
        let manifest = json(&manifest);
        format!("blobs/{}", manifest["config"]["digest"].as_str().unwrap().replace(':', "/"))
    };
    let here = ocikit_spec::Platform::of_this_machine().to_string();
    assert_eq!(listed("multi.tar").unwrap()[0]["Config"], config(&multi, &here).as_str());
    bench.ok(&["copy", "--docker=linux/arm64", &multi, "arm.tar"]);
    assert_eq!(listed("arm.tar").unwrap()[0]["Config"], config(&multi, "linux/arm64").as_str());
    // Archives written to a pipe, by `annotate -o` and by `pull` are loadable too.
    let piped = bench.command(&["copy", "a.tar", "-"]).output().unwrap();
    bench.write("piped.tar", piped.stdout);
    bench.ok(&["annotate", "none.tar", "k=v", "-o", "annotated.tar"]);
    let registry = Registry::start();
    let reference = format!("{}/app:1", registry.name());
    bench.ok(&["push", "a.tar", &reference]);
    bench.ok(&["pull", &reference, "-o", "pulled.tar"]);
    for path in ["piped.tar", "annotated.tar", "pulled.tar"] {
        assert!(listed(path).is_some(), "{path}");
    }
    assert_eq!(listed("pulled.tar").unwrap()[0]["RepoTags"][0], reference.as_str());
    // The fixture has another platform than that of this machine.
    let other = if here == "linux/arm64" { "linux/amd64" } else { "linux/arm64" };
    let variant = bench.ok(&["inspect", "--json", &multi]);
    assert!(variant.contains(other.rsplit('/').next().unwrap()), "{variant}");
}

#[test]
fn null_annotation_is_absent_and_preserved() {
    let bench = bench();
    let path = case("annotation-null-value.tar");
    let digest = "sha256:6ae2e83bd1893cbc4b40dbdb84384dbca035af6dbaca3d20f03cc0859fe58e71";
    assert_eq!(bench.ok(&["digest", &path]), digest);
    assert_eq!(inspect(&bench, &path)["annotations"]["a"], Value::Null);
    bench.ok(&["validate", &path]);
    bench.ok(&["copy", &path, "oci:out"]);
    let text = bench.ok(&["manifest", "get", "oci:out"]);
    assert!(text.contains(r#""annotations":{"a":null}"#), "{text}");
}

/// Changes a byte in the middle of every blob that is selected by its first bytes.
fn damage(bytes: &mut [u8], is_selected: impl Fn(&[u8]) -> bool) {
    let middle = bytes.len() / 2;
    if is_selected(bytes) {
        bytes[middle] ^= 1;
    }
}

#[test]
fn damaged_blobs_at_the_target_are_written_again() {
    let is_document = |bytes: &[u8]| bytes.starts_with(b"{");
    for (recheck, documents) in [(None, true), (Some("--recheck"), true), (Some("--recheck"), false)] {
        let bench = bench();
        write_image(&bench.path("a.tar"), Compression::Gzip, &layers());
        bench.ok(&["copy", "a.tar", "oci:layout:1"]);
        for blob in fs::read_dir(bench.path("layout/blobs/sha256")).unwrap() {
            let path = blob.unwrap().path();
            let mut bytes = fs::read(&path).unwrap();
            damage(&mut bytes, |bytes| is_document(bytes) == documents);
            fs::remove_file(&path).unwrap();
            fs::write(&path, bytes).unwrap();
        }
        let mut archive = fs::read(bench.path("a.tar")).unwrap();
        let index = ocikit_archive::TarIndex::read(&archive).unwrap();
        for entry in index.entries().iter().filter(|entry| entry.name.as_deref().is_some_and(|name| name.len() > 70)) {
            let (start, size) = (entry.data.offset as usize, entry.data.size as usize);
            damage(&mut archive[start..start + size], |bytes| is_document(bytes) == documents);
        }
        bench.ok(&["copy", "a.tar", "good.tar"]);
        bench.write("damaged.tar", archive);
        for (target, append) in [("oci:layout:2", None), ("damaged.tar#2", Some("--append"))] {
            let arguments = [&["copy", "good.tar", target], recheck.as_slice(), append.as_slice()].concat();
            bench.ok(&arguments);
            bench.ok(&["validate", target]);
        }
    }
}

#[test]
fn archive_of_a_sha512_image_is_valid_and_can_be_verified() {
    let bench = bench();
    bench.ok(&["keygen", "--unencrypted", "-o", "key"]);
    bench.ok(&["copy", "-q", &format!("oci:{}", testdata("layout-sha512/layout").display()), "a.tar"]);
    bench.ok(&["validate", "a.tar"]);
    bench.ok(&["sign", "-q", "--key", "key.key", "a.tar"]);
    bench.ok(&["verify", "--key", "key.pub", "a.tar"]);
}

/// A process that was killed at the right moment leaves a layout with the first of its two files only.
#[test]
fn a_layout_that_was_begun_can_be_written() {
    let bench = bench();
    for marker in ["", r#"{"imageLayoutVersion":"1.0.0"}"#] {
        fs::create_dir_all(bench.path("begun/blobs/sha256")).unwrap();
        if !marker.is_empty() {
            fs::write(bench.path("begun/oci-layout"), marker).unwrap();
        }
        bench.ok(&["copy", "-q", &single(), "oci:begun:1"]);
        bench.ok(&["validate", "oci:begun:1"]);
        fs::remove_dir_all(bench.path("begun")).unwrap();
    }
}
