//! `ls`, `cat`, `diff`: files in images.

use ocikit_tests::{Bench, Compression, Registry, Tar, multi, write_image};
use serde_json::Value;

use crate::bench;

fn layers() -> Vec<Vec<u8>> {
    vec![
        Tar::new().directory("etc").file("etc/motd", b"hello\n").file("etc/passwd", b"root\n").finish(),
        Tar::new()
            .modified(1_704_067_200)
            .directory("etc")
            .file("etc/.wh.motd", b"")
            .mode(0o4755)
            .file("bin/tool", &[7; 5000])
            .mode(0o777)
            .symlink("tool", "/bin/tool")
            .link("etc/users", "etc/passwd")
            .finish(),
    ]
}

/// Creates a bench with an image of these layers in `a.tar`.
fn with_image() -> Bench {
    let bench = bench();
    write_image(&bench.path("a.tar"), Compression::Gzip, &layers());
    bench
}

#[test]
fn ls_lists_the_merged_file_tree() {
    let bench = with_image();
    insta::assert_snapshot!(bench.ocikit(&["ls", "a.tar"]), @"
    exit 0
    --- stdout
    /bin/
    /bin/tool
    /etc/
    /etc/passwd
    /etc/users
    /tool
    ");
    insta::assert_snapshot!(bench.ocikit(&["ls", "-l", "a.tar"]), @"
    exit 0
    --- stdout
    drwxr-xr-x 0:0    - 1970-01-01T00:00:00Z  1 /bin/
    -rwsr-xr-x 0:0 5000 2024-01-01T00:00:00Z  1 /bin/tool
    drwxr-xr-x 0:0    - 2024-01-01T00:00:00Z  1 /etc/
    -rw-r--r-- 0:0    5 1970-01-01T00:00:00Z  0 /etc/passwd
    -rw-r--r-- 0:0    5 1970-01-01T00:00:00Z  0 /etc/users
    lrwxrwxrwx 0:0    - 2024-01-01T00:00:00Z  1 /tool -> /bin/tool
    ");
    insta::assert_snapshot!(bench.ocikit(&["ls", "a.tar", "/etc/"]), @"
    exit 0
    --- stdout
    /etc/
    /etc/passwd
    /etc/users
    ");
    assert_eq!(bench.ok(&["ls", "a.tar", "tool"]), "/bin/tool");
}

#[test]
fn ls_lists_the_entries_of_one_layer() {
    let bench = with_image();
    insta::assert_snapshot!(bench.ocikit(&["ls", "-l", "a.tar", "--layer", "1"]), @"
    exit 0
    --- stdout
    drwxr-xr-x 0:0    - 2024-01-01T00:00:00Z  1 /etc/
    wrw-r--r-- 0:0    - 2024-01-01T00:00:00Z  1 /etc/.wh.motd
    -rwsr-xr-x 0:0 5000 2024-01-01T00:00:00Z  1 /bin/tool
    lrwxrwxrwx 0:0    - 2024-01-01T00:00:00Z  1 /tool -> /bin/tool
    hrwxrwxrwx 0:0    - 2024-01-01T00:00:00Z  1 /etc/users = /etc/passwd
    ");
    let facts = bench.json(&["inspect", "--json", "a.tar"]);
    let digest = facts["layers"][0]["digest"].as_str().unwrap();
    assert_eq!(bench.ok(&["ls", "a.tar", "--layer", digest]), "/etc/\n/etc/motd\n/etc/passwd");
    assert_eq!(bench.ok(&["ls", "a.tar", "/etc/motd", "--layer", "0"]), "/etc/motd");
}

#[test]
fn ls_prints_one_json_object_per_line() {
    let bench = with_image();
    let facts = |arguments: &[&str]| -> Vec<Value> {
        let text = bench.ok(&[&["ls", "--json", "a.tar"], arguments].concat());
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let files = facts(&["/bin"]);
    assert_eq!(files.len(), 2);
    let (tool, time) = (&files[1], "2024-01-01T00:00:00Z");
    assert_eq!((&tool["path"], &tool["type"], &tool["mode"]), (&"/bin/tool".into(), &"file".into(), &"4755".into()));
    assert_eq!((&tool["size"], &tool["modified"], &tool["layer"]), (&5000.into(), &time.into(), &1.into()));
    let kinds: Vec<_> = facts(&["--layer=1"]).iter().map(|row| row["type"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kinds, ["directory", "whiteout", "file", "symlink", "hardlink"]);
}

#[test]
fn cat_prints_the_bytes_of_a_file() {
    let bench = with_image();
    for (path, bytes) in [("/etc/passwd", "root\n"), ("etc/users", "root\n"), ("tool", &"\u{7}".repeat(5000))] {
        assert_eq!(bench.ocikit(&["cat", "a.tar", path]).stdout, bytes, "{path}");
    }
    assert_eq!(bench.ok(&["cat", "a.tar", "/etc/motd", "--layer", "0"]), "hello");
}

#[test]
fn missing_file_layer_or_platform_is_reported() {
    let bench = with_image();
    for arguments in [
        &["cat", "a.tar", "/etc/motd"][..],
        &["cat", "a.tar", "/etc"],
        &["ls", "a.tar", "/etc/motd"],
        &["ls", "a.tar", "--layer", "2"],
        &["ls", "a.tar", "--layer", "last"],
        &["ls", "a.tar", "--platform", "linux/s390x"],
        &["cat", "none.tar", "x"],
    ] {
        let outcome = bench.ocikit(arguments);
        let code = match arguments {
            ["cat", _, "/etc"] => 1,
            [.., "last"] => 2,
            _ => 3,
        };
        assert_eq!((outcome.code, outcome.stdout.as_str()), (code, ""), "{arguments:?}: {outcome}");
        let needs_hint = code != 2 && arguments[1] != "none.tar";
        assert!(outcome.stderr.contains("hint:") || !needs_hint, "{arguments:?}: {outcome}");
    }
}

#[test]
fn default_platform_is_that_of_this_machine() {
    let multi = multi();
    let bench = bench();
    let text = bench.ok(&["cat", &multi, "/platform", "--platform", "linux/arm64"]);
    assert!(text.contains("arm64"), "{text}");
    if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
        assert!(bench.ok(&["ls", &multi]).contains("/platform"));
    }
}

#[test]
fn files_in_a_registry_are_listed_as_in_an_archive() {
    let (bench, registry) = (with_image(), Registry::start());
    let reference = format!("{}/app:1", registry.name());
    bench.ok(&["push", "a.tar", &reference]);
    for arguments in [&["ls", "-l"][..], &["ls", "--json"], &["ls", "--layer=1"]] {
        let listed = |location: &str| bench.ok(&[arguments, &[location]].concat());
        assert_eq!(listed(&reference), listed("a.tar"));
    }
    let layers = |registry: &Registry| {
        let requests = registry.requests();
        requests.iter().filter(|request| request.method == "GET" && request.path.contains("/blobs/")).count()
    };
    let before = layers(&registry);
    assert_eq!(bench.ok(&["cat", &reference, "/bin/tool"]).len(), 5000);
    assert_eq!(layers(&registry) - before, 1, "only the highest layer is downloaded");
    assert_eq!(bench.ok(&["diff", &reference, "a.tar"]), "");
}

#[test]
fn diff_lists_all_differences() {
    let bench = with_image();
    let mut other = layers();
    other[1] = Tar::new().directory("etc").file("etc/passwd", b"user\n").file("bin/tool", &[7; 5000]).finish();
    // Uncompressed, so that the digests do not depend on the compressor.
    write_image(&bench.path("a.tar"), Compression::None, &layers());
    write_image(&bench.path("b.tar"), Compression::None, &other);
    insta::assert_snapshot!(bench.ocikit(&["diff", "a.tar", "b.tar"]), @"
    exit 5
    --- stdout
    ! layer 1 content: sha256:7650338f2032e9bb1a390dec73790be1ef4c1ade24b736df909be6de2dfd4883 application/vnd.oci.image.layer.v1.tar 8704 bytes => sha256:2897f732227d5a2a378c71ec4a1994c545e6abb2b7ea8dc5bf93bd7449feb6e1 application/vnd.oci.image.layer.v1.tar 8192 bytes
    ! file /bin/tool mode: 4755 => 0644
    ~ file /bin/tool modified: 2024-01-01T00:00:00Z => 1970-01-01T00:00:00Z (time)
    ~ file /etc modified: 2024-01-01T00:00:00Z => 1970-01-01T00:00:00Z (time)
    + file /etc/motd: file of 6 bytes sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03
    ! file /etc/passwd content: 5 bytes sha256:53175bcc0524f37b47062fafdda28e3f8eb91d519ca0a184ca71bbebe72f969a => 5 bytes sha256:6d9010b2b7a1483b256ae7477738dba7c530bd9ba53db1d6691441e74b83608a
    - file /etc/users: file of 5 bytes sha256:53175bcc0524f37b47062fafdda28e3f8eb91d519ca0a184ca71bbebe72f969a
    - file /tool: link -> /bin/tool
    --- stderr
    error: a.tar and b.tar differ (6 relevant differences, 2 in time)
    ");
    let quiet = bench.ocikit(&["diff", "--quiet", "a.tar", "b.tar"]);
    assert_eq!((quiet.code, quiet.stdout, quiet.stderr), (5, String::new(), String::new()));
    let outcome = bench.ocikit(&["diff", "--json", "a.tar", "b.tar"]);
    let facts = outcome.json();
    assert_eq!((outcome.code, &facts["same"], &facts["semantic"]), (5, &false.into(), &true.into()));
    assert!(facts["differences"].as_array().unwrap().iter().any(|difference| difference["at"] == "/etc/passwd"));
}

#[test]
fn diff_ignores_the_compression_of_layers() {
    let bench = with_image();
    write_image(&bench.path("b.tar"), Compression::Zstd, &layers());
    let outcome = bench.ocikit(&["diff", "a.tar", "b.tar"]);
    assert_eq!(outcome.code, 0, "{outcome}");
    assert!(outcome.stdout.lines().all(|line| line.ends_with("(encoding)")), "{outcome}");
    assert!(outcome.stderr.contains("have no relevant differences"), "{outcome}");
    assert_eq!(bench.ocikit(&["diff", "--exact", "a.tar", "b.tar"]).code, 5);
    let same = bench.ocikit(&["diff", "--exact", "a.tar", "a.tar"]);
    assert_eq!((same.code, same.stdout, same.stderr), (0, String::new(), String::new()));
}

#[test]
fn control_characters_in_file_names_are_escaped() {
    let bench = bench();
    let layer = Tar::new().file("a\n\x1b[2Jb", b"").symlink("l", "x\x1b[2J").file("../../up", b"").finish();
    write_image(&bench.path("a.tar"), Compression::None, &[layer]);
    let text = bench.ok(&["ls", "-l", "a.tar"]);
    assert_eq!(text.lines().count(), 3);
    assert!(!text.contains('\x1b'), "{text}");
    assert!(text.contains("/up"));
}
