//! How long does it take to sign an index with eight images and all of them, and to verify that?
//!
//! With keys in files, a registry on loopback and no other service, by ocikit, cosign and notation. cosign verifies the index
//! alone, whatever it signed; notation signs and verifies one digest at a time, and so is asked nine times as well. Each signs
//! in a repository of its own that is new in every round.
//!
//! The variables `OCIKIT_BENCH_ROUNDS` and `OCIKIT_BENCH_ONLY` (beginnings of names) choose a part.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "this is a bench")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ocikit_benches::{Cost, Registry, Table, find, index, measure, run_if_asked};

const OCIKIT: &str = env!("CARGO_BIN_EXE_ocikit-under-bench");
const IMAGES: u64 = 8;

/// Somebody who signs, and who verifies what they signed. In the lines `{to}` is the repository, `{digest}` that of the index,
/// `{all}` those of the index and its images. Lines are scripts, and name their program first.
struct Contender {
    program: &'static str,
    sign: (&'static str, &'static str),
    verify: &'static [(&'static str, &'static str)],
}

const CONTENDERS: [Contender; 4] = [
    Contender {
        program: OCIKIT,
        sign: ("ocikit sign --recursive", "$0 sign -q --key plain.key --recursive {to}@{digest}"),
        verify: &[
            ("ocikit verify --recursive", "$0 verify -q --key plain.pub --recursive {to}@{digest}"),
            ("ocikit verify, the index", "$0 verify -q --key plain.pub {to}@{digest}"),
        ],
    },
    Contender {
        program: OCIKIT,
        sign: (
            "ocikit sign --format notation-jws --recursive",
            "$0 sign -q --format notation-jws --key {notation}/localkeys/bench.key --certificate-chain \
             {notation}/localkeys/bench.crt --recursive {to}@{digest}",
        ),
        verify: &[(
            "ocikit verify --trust-policy --recursive",
            "$0 verify -q --trust-policy {notation}/trustpolicy.json --recursive {to}@{digest}",
        )],
    },
    Contender {
        program: "cosign",
        sign: (
            "cosign sign --recursive",
            "$0 sign --recursive --key cosign.key --signing-config signing.json --allow-http-registry -y {to}@{digest}",
        ),
        verify: &[
            (
                "cosign verify, the index",
                "$0 verify --key plain.pub --insecure-ignore-tlog --allow-http-registry {to}@{digest}",
            ),
            (
                "cosign verify, nine times",
                "for digest in {all}; do $0 verify --key plain.pub --insecure-ignore-tlog --allow-http-registry \
                 {to}@$digest; done",
            ),
        ],
    },
    Contender {
        program: "notation",
        sign: (
            "notation sign, nine times",
            "for digest in {all}; do $0 sign --insecure-registry --force-referrers-tag=true {to}@$digest; done",
        ),
        verify: &[
            ("notation verify, the index", "$0 verify --insecure-registry {to}@{digest}"),
            ("notation verify, nine times", "for digest in {all}; do $0 verify --insecure-registry {to}@$digest; done"),
        ],
    },
];

fn main() {
    run_if_asked();
    let Some(program) = find("registry") else { return };
    let directory = tempfile::Builder::new().prefix("ocikit-bench-").tempdir().expect("a temporary directory");
    let bench = Bench { directory: directory.path().to_owned(), registry: Registry::start(&program, directory.path()) };
    let digests = index(&bench.path("layout"), IMAGES);
    bench.keys();
    let only = setting("OCIKIT_BENCH_ONLY", "");
    let is_asked = |name: &str| only.is_empty() || only.split(',').any(|beginning| name.starts_with(beginning));
    // ocikit's envelopes are verified by a policy of notation's.
    let needs = |contender: &Contender| match contender.sign.0.contains("notation") {
        true => find("notation").is_some(),
        false => contender.program == OCIKIT || find(contender.program).is_some(),
    };
    let contenders: Vec<_> =
        CONTENDERS.iter().filter(|contender| is_asked(contender.sign.0) && needs(contender)).collect();
    let rounds: usize = setting("OCIKIT_BENCH_ROUNDS", "5").parse().expect("a number");
    let (mut signed, mut verified) = (Table::new(), Table::new());
    for round in 0..rounds {
        for (number, contender) in contenders.iter().enumerate() {
            eprintln!("round {} of {rounds}: {}", round + 1, contender.sign.0);
            let to = format!("{}/bench/{round}-{number}", bench.registry.address());
            bench.run(OCIKIT, &format!("$0 copy -q oci:layout:1 {to}:1"));
            let run = |table: &mut Table, (name, line): (&str, &str)| {
                let line = line.replace("{to}", &to).replace("{digest}", &digests[0]);
                let line = line.replace("{all}", &digests.join(" ")).replace("{notation}", "config/notation");
                table.add(name, bench.run(contender.program, &line));
            };
            run(&mut signed, contender.sign);
            for line in contender.verify {
                run(&mut verified, *line);
            }
        }
    }
    signed.print("sign an index and its eight images, with a key, in a registry on loopback");
    verified.print("verify them");
}

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned())
}

struct Bench {
    directory: PathBuf,
    registry: Registry,
}

impl Bench {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// A script, of which `$0` is a program.
    fn command(&self, program: &str, line: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-ec", line, program]).current_dir(&self.directory).env("HOME", &self.directory);
        command.env("XDG_CONFIG_HOME", self.path("config")).env("COSIGN_PASSWORD", "secret");
        command
    }

    /// What a script costs, and how often it asks the registry.
    fn run(&self, program: &str, line: &str) -> Cost {
        let before = self.registry.requests();
        let cost = measure(&self.command(program, line));
        Cost { requests: Some(self.registry.requests() - before), ..cost }
    }

    /// Runs a script that only prepares.
    fn prepare(&self, program: &str, line: &str) {
        let status = self.command(program, line).stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(status.expect("a shell").success(), "{line}");
    }

    /// The same key for ocikit and for cosign, which wants a password around it, and one with a certificate.
    fn keys(&self) {
        self.prepare(OCIKIT, "$0 keygen --unencrypted -o plain");
        if find("cosign").is_some() {
            fs::write(
                self.path("signing.json"),
                r#"{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json"}"#,
            )
            .expect("a file");
            self.prepare("cosign", "$0 import-key-pair --key plain.key --output-key-prefix cosign -y");
        }
        if find("notation").is_some() {
            self.prepare("notation", "$0 cert generate-test --default bench");
            let policy = self.path("config/notation/trustpolicy.json");
            write_policy(&policy);
        }
    }
}

fn write_policy(path: &Path) {
    let policy = r#"{"version":"1.0","trustPolicies":[{"name":"all","registryScopes":["*"],"signatureVerification":
        {"level":"strict"},"trustStores":["ca:bench"],"trustedIdentities":["*"]}]}"#;
    fs::write(path, policy).expect("a file");
}
