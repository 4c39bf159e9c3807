//! `serve`: refused requests, and errors at the start.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use ocikit_tests::{Bench, single};

use crate::bench;

struct Serving {
    child: Child,
    address: String,
}

impl Serving {
    fn start(bench: &Bench, arguments: &[&str]) -> Serving {
        let arguments = [&["serve", "--address", "127.0.0.1:0"][..], arguments].concat();
        let mut child = bench.command(&arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Serving { child, address: address.trim().to_owned() }
    }

    /// Returns the status of a request with this `Host` header.
    fn status(&self, host: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "GET /v2/ HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn only_allowed_host_names_are_served() {
    let bench = bench();
    let serving = Serving::start(&bench, &["--allow-host", "registry.lan"]);
    for (host, expected) in
        [("localhost:5000", "200"), ("127.0.0.1", "200"), ("Registry.lan:80", "200"), ("evil.example", "421")]
    {
        assert_eq!(serving.status(host), expected, "{host}");
    }
    assert_eq!(bench.ocikit(&["serve", "--allow-host", "http://registry.lan"]).code, 2);
}

#[test]
fn storage_errors_are_not_reported_as_address_in_use() {
    let bench = bench();
    bench.write("file", "x");
    fs::create_dir(bench.path("other")).unwrap();
    bench.write("other/x", "x");
    for (storage, message) in [
        ("file", "cannot open file: not a directory"),
        ("file/below", "cannot open file/below: Not a directory"),
        ("other", "it holds other files"),
    ] {
        let outcome = bench.ocikit(&["serve", "--address", "127.0.0.1:0", "--storage", storage]);
        assert_eq!(outcome.code, 1, "{outcome}");
        assert!(outcome.stderr.contains(message) && !outcome.stderr.contains("address"), "{outcome}");
    }
    let taken = ocikit_tests::Registry::start();
    let outcome = bench.ocikit(&["serve", "--address", &taken.name()]);
    assert!(outcome.stderr.contains("Address already in use") && outcome.stderr.contains("--address"), "{outcome}");
}

#[test]
fn passwords_are_required_and_a_read_only_registry_stores_nothing() {
    let bench = bench();
    let image = single();
    // The hash of `secret` by crypt(3).
    let hash = "$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a";
    bench.write("users", format!("alice:{hash}\n"));
    let reference = |serving: &Serving| format!("{}/app:1", serving.address.replace("127.0.0.1", "localhost"));
    {
        let serving = Serving::start(&bench, &["--storage", "registry", "--htpasswd", "users"]);
        let reference = reference(&serving);
        assert_eq!(bench.ocikit(&["push", "-q", &image, &reference]).code, 4);
        let login = |password: &str| {
            let line = ["push", "-q", &image, &reference, "-u", "alice", "--password-stdin"];
            bench.ocikit_with_input(&line, password.as_bytes())
        };
        assert_eq!(login("wrong").code, 4);
        let outcome = login("secret");
        assert_eq!(outcome.code, 0, "{outcome}");
    }
    let serving = Serving::start(&bench, &["--storage", "registry", "--read-only"]);
    let reference = reference(&serving);
    assert_eq!(bench.ok(&["digest", &reference]), bench.ok(&["digest", &image]));
    let outcome = bench.ocikit(&["tag", &reference, "2"]);
    assert!(outcome.code != 0 && outcome.stderr.contains("read-only"), "{outcome}");
    assert_eq!(bench.ok(&["tags", reference.trim_end_matches(":1")]), "1");
    bench.write("users", "alice:secret");
    let outcome = bench.ocikit(&["serve", "--address", "127.0.0.1:0", "--htpasswd", "users"]);
    assert_eq!(outcome.code, 2, "{outcome}");
    assert!(outcome.stderr.contains("line 1") && !outcome.stderr.contains("secret"), "{outcome}");
}
