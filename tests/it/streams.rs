//! Standard output, standard error and pipes: where results, archives and warnings are written.

use std::fs::{self, File};
use std::io::Write;
use std::process::Command;
use std::thread::JoinHandle;

use ocikit_tests::{Bench, Registry, fixture, single, verified_digest, write_image};

use crate::bench;

/// A bench with the archives `a.tar` and `b.tar`, whose images differ.
fn two_archives() -> Bench {
    let bench = bench();
    write_image(&bench.path("a.tar"), ocikit_archive::Compression::Gzip, &[b"one".to_vec()]);
    write_image(&bench.path("b.tar"), ocikit_archive::Compression::Gzip, &[b"two".to_vec()]);
    bench
}

/// Creates a named pipe, and writes a file to it when it is opened.
fn pipe(bench: &Bench, name: &str, from: &str) -> JoinHandle<()> {
    let path = bench.path(name);
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let bytes = fs::read(from).unwrap();
    std::thread::spawn(move || File::options().write(true).open(path).unwrap().write_all(&bytes).unwrap())
}

#[test]
fn archive_on_standard_output_is_not_followed_by_results() {
    let (bench, registry) = (two_archives(), Registry::start());
    let reference = format!("{}/app:1", registry.name());
    bench.ok(&["push", "a.tar", &reference]);
    let digest = bench.ok(&["digest", "a.tar"]);
    for (prefix, name) in [
        ("oci-archive:", "/dev/stdout"),
        ("oci-archive:", "/dev/fd/1"),
        ("oci-archive:", "/proc/self/fd/1"),
        ("oci-archive:", "/dev/stdout:v1"),
        ("docker-archive:", "/dev/stdout"),
        ("", "/dev/stdout"),
    ] {
        let output = format!("{prefix}{name}");
        for line in [
            &["copy", "-q", "a.tar", &output][..],
            &["pull", "-q", &reference, "-o", &output],
            &["annotate", "-q", "a.tar", "k=v", "-o", &output],
        ] {
            let file = File::create(bench.path("out.tar")).unwrap();
            assert!(bench.command(line).stdout(file).status().unwrap().success(), "{line:?}");
            let found = verified_digest(&bench.path("out.tar")).to_string();
            assert_eq!(found == digest, line[0] != "annotate", "{line:?}");
        }
    }
    // With a prefix, `-` is a file name.
    assert!(bench.ok(&["copy", "a.tar", "oci-archive:-"]).contains(&digest));
    assert_eq!(bench.ok(&["digest", "oci-archive:-"]), digest);
}

#[test]
fn several_images_in_an_archive_on_standard_output_are_not_followed_by_results() {
    let (bench, registry) = (two_archives(), Registry::start());
    let (one, two) = (format!("{}/app:1", registry.name()), format!("{}/app:2", registry.name()));
    bench.ok(&["push", "a.tar", &one]);
    bench.ok(&["push", "b.tar", &two]);
    let file = File::create(bench.path("out.tar")).unwrap();
    let line = ["pull", "-q", &one, &two, "-o", "oci-archive:/dev/stdout"];
    assert!(bench.command(&line).stdout(file).status().unwrap().success());
    assert_eq!(bench.ok(&["tags", "out.tar"]), format!("{one}\n{two}"));
}

#[test]
fn push_refuses_two_archives_with_the_same_tag() {
    let (bench, registry) = (two_archives(), Registry::start());
    for name in ["a", "b"] {
        bench.ok(&["copy", &format!("{name}.tar"), &format!("oci-archive:{name}1.tar:v1")]);
    }
    bench.ok(&["copy", "a.tar", "oci-archive:a2.tar:v1"]);
    let repository = format!("{}/app", registry.name());
    let outcome = bench.ocikit(&["push", "a1.tar", "b1.tar", &repository]);
    assert_eq!(outcome.code, 2, "{outcome}");
    for part in ["a1.tar", "b1.tar", &format!("{repository}:v1")] {
        assert!(outcome.stderr.contains(part), "{part}: {outcome}");
    }
    assert!(registry.requests().iter().all(|request| request.method.as_str() == "GET"), "no request may write");
    // Two archives of one image do not conflict.
    bench.ok(&["push", "a1.tar", "a2.tar", &repository]);
}

#[test]
fn pull_output_is_a_path() {
    let (bench, registry) = (two_archives(), Registry::start());
    let reference = format!("{}/app:1", registry.name());
    bench.ok(&["push", "a.tar", &reference]);
    let digest = bench.ok(&["digest", "a.tar"]);
    fs::create_dir(bench.path("there")).unwrap();
    for output in ["word", "Word", "sub/dir", "there", "app:1"] {
        bench.ok(&["pull", &reference, "-o", output]);
        assert_eq!(verified_digest(&bench.path(output)).to_string(), digest, "{output}");
    }
    assert!(Command::new("mkfifo").arg(bench.path("fifo")).status().unwrap().success());
    let path = bench.path("fifo");
    let reader = std::thread::spawn(move || fs::read(path).unwrap());
    bench.ok(&["pull", &reference, "-o", "fifo"]);
    bench.write("fifo.tar", reader.join().unwrap());
    assert_eq!(bench.ok(&["digest", "fifo.tar"]), digest);
    for output in ["docker://localhost:5000/b", "dir:x", ""] {
        assert_eq!(bench.ocikit(&["pull", &reference, "-o", output]).code, 2, "{output}");
    }
}

#[test]
fn pipes_are_pushed_under_every_prefix() {
    let (bench, registry) = (two_archives(), Registry::start());
    let saved = fixture("buildkit-docker/schema2.tar");
    let bytes = fs::read(&saved).unwrap();
    let digest = bench.ok(&["digest", &format!("docker-archive:{saved}")]);
    for (number, name) in ["docker-archive:/dev/stdin", "docker-archive:/dev/fd/0"].into_iter().enumerate() {
        let reference = format!("{}/app:{number}", registry.name());
        let outcome = bench.ocikit_with_input(&["push", name, &reference], &bytes);
        assert_eq!(outcome.code, 0, "{name}: {outcome}");
        assert_eq!(bench.ok(&["digest", &reference]), digest, "{name}");
    }
    bench.ok(&["copy", "a.tar", "oci:names:one"]);
    bench.ok(&["copy", "b.tar", "oci:names:two"]);
    assert!(
        Command::new("tar")
            .args(["cf", "../names.tar", "."])
            .current_dir(bench.path("names"))
            .status()
            .unwrap()
            .success()
    );
    let bytes = fs::read(bench.path("names.tar")).unwrap();
    let reference = format!("{}/app:two", registry.name());
    let outcome = bench.ocikit_with_input(&["push", "oci-archive:/dev/stdin:two", &reference], &bytes);
    assert_eq!(outcome.code, 0, "{outcome}");
    assert_eq!(bench.ok(&["digest", &reference]), bench.ok(&["digest", "b.tar"]));
}

#[test]
fn pipes_and_archives_are_pushed_together() {
    let (bench, registry) = (two_archives(), Registry::start());
    bench.ok(&["copy", "a.tar", "oci-archive:a1.tar:v1"]);
    bench.ok(&["copy", "b.tar", "oci-archive:b1.tar:v2"]);
    let repository = format!("{}/app", registry.name());
    let writer = pipe(&bench, "pipe", &bench.path("b1.tar").display().to_string());
    bench.ok(&["push", "a1.tar", "./pipe", &repository]);
    writer.join().unwrap();
    assert_eq!(bench.ok(&["digest", &format!("{repository}:v2")]), bench.ok(&["digest", "b.tar"]));
    let other = format!("{}/other", registry.name());
    let bytes = fs::read(bench.path("b1.tar")).unwrap();
    assert_eq!(bench.ocikit_with_input(&["push", "a1.tar", "-", &other], &bytes).code, 0);
    assert_eq!(bench.ok(&["digest", &format!("{other}:v2")]), bench.ok(&["digest", "b.tar"]));
}

#[test]
fn commands_that_cannot_read_a_pipe_report_it() {
    let bench = two_archives();
    let bytes = fs::read(bench.path("a.tar")).unwrap();
    for command in ["inspect", "validate", "tags", "tree", "digest"] {
        for location in ["-", "/dev/stdin", "oci-archive:/dev/stdin", "docker-archive:/dev/stdin"] {
            let outcome = bench.ocikit_with_input(&[command, location], &bytes);
            assert_eq!(outcome.code, 2, "{command} {location}: {outcome}");
            assert!(outcome.stderr.contains("cannot read a pipe here"), "{command} {location}: {outcome}");
            assert!(outcome.stderr.contains("hint: save it to a file first"), "{command} {location}: {outcome}");
        }
    }
    let gc = bench.ocikit_with_input(&["gc", "/dev/stdin"], &bytes);
    assert_eq!(gc.code, 2, "{gc}");
    assert!(gc.stderr.contains("cannot read a pipe here"), "{gc}");
    for location in ["-", "/dev/stdin"] {
        let outcome = bench.ocikit_with_input(&["annotate", location, "k=v"], &bytes);
        assert_eq!(outcome.code, 2, "{location}: {outcome}");
        assert!(outcome.stderr.contains("an archive from a pipe has no place"), "{location}: {outcome}");
        assert!(outcome.stderr.contains("hint: add `--output LOCATION`"), "{location}: {outcome}");
    }
}

#[test]
fn invalid_proxy_url_is_reported_with_its_variable() {
    for (variable, flags) in [("HTTP_PROXY", &["--plain-http"][..]), ("https_proxy", &[])] {
        let bench = two_archives().with(variable, "::bad");
        let line: Vec<_> = ["digest", "registry.example/app:1", "--retries", "0"].iter().chain(flags).collect();
        let outcome = bench.ocikit(&line);
        assert_eq!(outcome.code, 2, "{outcome}");
        assert!(outcome.stderr.contains(variable) && !outcome.stderr.contains("builder"), "{outcome}");
        // Commands that need no proxy succeed.
        bench.ok(&["digest", "a.tar"]);
    }
}

#[test]
fn warning_with_a_hint_is_two_lines() {
    let bench = two_archives().with("OCIKIT_USERNAME", "u").with("OCIKIT_PASSWORD", "p");
    let (one, two) = (Registry::start(), Registry::start());
    let targets = [format!("{}/app:1", one.name()), format!("{}/app:1", two.name())];
    let outcome = bench.ocikit(&["push", "a.tar", &targets[0], &targets[1]]);
    assert_eq!(outcome.code, 0, "{outcome}");
    assert!(outcome.stderr.contains("\nhint: set OCIKIT_REGISTRY") && !outcome.stderr.contains("\\n"), "{outcome}");
}

#[test]
fn all_tags_are_copied_between_archives_layouts_and_registries() {
    let (bench, registry) = (two_archives(), Registry::start());
    bench.ok(&["copy", "a.tar", "oci:names:one"]);
    bench.ok(&["copy", "b.tar", "oci:names:two"]);
    let (one, two) = (bench.ok(&["digest", "a.tar"]), bench.ok(&["digest", "b.tar"]));
    let repository = format!("{}/app", registry.name());
    for (from, to) in [
        ("oci:names", "names.tar"),
        ("names.tar", "oci:again"),
        ("oci:again", &repository),
        (&repository, "pulled.tar"),
        ("pulled.tar", &format!("{}/other", registry.name())),
    ] {
        bench.ok(&["copy", "--all-tags", from, to]);
        let separator = if to.ends_with(".tar") { '#' } else { ':' };
        assert_eq!(bench.ok(&["digest", &format!("{to}{separator}one")]), one, "{from} {to}");
        assert_eq!(bench.ok(&["digest", &format!("{to}{separator}two")]), two, "{from} {to}");
    }
    let single = single();
    for (line, code) in [(["oci:names:one", "x.tar"], 2), ([single.as_str(), "x.tar"], 3), (["-", "x.tar"], 2)] {
        let outcome = bench.ocikit(&["copy", "--all-tags", line[0], line[1]]);
        assert_eq!(outcome.code, code, "{line:?}: {outcome}");
    }
}

#[test]
fn copy_all_tags_refuses_names_with_the_same_tag() {
    let (bench, registry) = (two_archives(), Registry::start());
    let (one, two) = (format!("{}/one:v1", registry.name()), format!("{}/two:v1", registry.name()));
    bench.ok(&["push", "a.tar", &one]);
    bench.ok(&["push", "b.tar", &two]);
    bench.ok(&["pull", &one, &two, "-o", "both.tar"]);
    let to = format!("{}/to", registry.name());
    let outcome = bench.ocikit(&["copy", "--all-tags", "both.tar", &to]);
    assert_eq!(outcome.code, 2, "{outcome}");
    assert!(outcome.stderr.contains(&one) && outcome.stderr.contains(&two), "{outcome}");
    assert_eq!(bench.ocikit(&["tags", &to]).code, 3, "nothing was copied");
}

#[test]
fn a_truncated_stream_is_a_broken_archive() {
    let bench = bench();
    bench.ok(&["copy", &single(), "a.tar.gz"]);
    let whole = fs::read(bench.path("a.tar.gz")).unwrap();
    assert_eq!(whole[..2], [0x1f, 0x8b]);
    for length in [20, whole.len() / 2, whole.len() - 9] {
        bench.write("cut.tar.gz", &whole[..length]);
        let file = bench.ocikit(&["copy", "cut.tar.gz", "oci:x:1"]);
        let stream = bench.ocikit_with_input(&["copy", "-", "oci:y:1"], &whole[..length]);
        assert_eq!((file.code, stream.code), (3, 3), "{length}: {file} {stream}");
    }
}

#[test]
fn a_device_without_an_end_is_refused() {
    let bench = bench();
    let outcome = bench.ocikit(&["copy", "/dev/zero", "oci:x:1"]);
    assert!(outcome.code == 3 && outcome.stderr.contains("bytes follow its end"), "{outcome}");
}
