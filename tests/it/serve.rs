//! `serve`: refused requests, and errors at the start.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use ocikit_tests::Bench;

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
    fs::write(bench.path("file"), "x").unwrap();
    fs::create_dir(bench.path("other")).unwrap();
    fs::write(bench.path("other/x"), "x").unwrap();
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
