//! How long does it take to sign and verify an index and its eight images?
//!
//! ocikit, cosign and notation sign with keys in files, in a registry on loopback, without other services. cosign verifies only
//! the index, and notation signs and verifies one digest at a time, so both also run nine times. In every round, each program
//! uses a new repository.
//!
//! The variables `OCIKIT_BENCH_ROUNDS` (number of rounds) and `OCIKIT_BENCH_ONLY` (comma-separated prefixes of names) select what
//! runs.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "this is a bench")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ocikit_benches::{Cost, Registry, Table, find, index, measure, run_if_asked};

const OCIKIT: &str = env!("CARGO_BIN_EXE_ocikit-under-bench");
const IMAGES: u64 = 8;

/// A program and its shell scripts for signing and verifying, each with a name. In a script, `$0` is the program, `{to}` the
/// repository, `{digest}` the digest of the index, and `{all}` the digests of the index and its images.
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
    let setup = Setup { directory: directory.path().to_owned(), registry: Registry::start(&program, directory.path()) };
    let digests = index(&setup.path("layout"), IMAGES);
    setup.create_keys();
    let only = setting("OCIKIT_BENCH_ONLY", "");
    let is_selected = |name: &str| only.is_empty() || only.split(',').any(|prefix| name.starts_with(prefix));
    // The notation formats of ocikit need the keys and the trust policy that notation generates.
    let is_installed = |contender: &Contender| match contender.sign.0.contains("notation") {
        true => find("notation").is_some(),
        false => contender.program == OCIKIT || find(contender.program).is_some(),
    };
    let contenders: Vec<_> =
        CONTENDERS.iter().filter(|contender| is_selected(contender.sign.0) && is_installed(contender)).collect();
    let rounds: usize = setting("OCIKIT_BENCH_ROUNDS", "5").parse().expect("a number");
    let (mut signed, mut verified) = (Table::new(), Table::new());
    for round in 0..rounds {
        for (number, contender) in contenders.iter().enumerate() {
            eprintln!("round {} of {rounds}: {}", round + 1, contender.sign.0);
            let to = format!("{}/bench/{round}-{number}", setup.registry.address());
            setup.run(OCIKIT, &format!("$0 copy -q oci:layout:1 {to}:1"));
            let run = |table: &mut Table, (name, line): (&str, &str)| {
                let line = line.replace("{to}", &to).replace("{digest}", &digests[0]);
                let line = line.replace("{all}", &digests.join(" ")).replace("{notation}", "config/notation");
                table.add(name, setup.run(contender.program, &line));
            };
            run(&mut signed, contender.sign);
            for line in contender.verify {
                run(&mut verified, *line);
            }
        }
    }
    signed.print("sign an index and its eight images, with a key, in a registry on loopback");
    verified.print("verify the index and its eight images");
}

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned())
}

/// The registry, and the directory in which the programs run.
struct Setup {
    directory: PathBuf,
    registry: Registry,
}

impl Setup {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Returns a command for a shell script in which `$0` is the program.
    fn command(&self, program: &str, line: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-ec", line, program]).current_dir(&self.directory).env("HOME", &self.directory);
        command.env("XDG_CONFIG_HOME", self.path("config")).env("COSIGN_PASSWORD", "secret");
        command
    }

    /// Runs a script, and measures its cost and the number of requests.
    fn run(&self, program: &str, line: &str) -> Cost {
        let before = self.registry.requests();
        let cost = measure(&self.command(program, line));
        Cost { requests: Some(self.registry.requests() - before), ..cost }
    }

    /// Runs a script without measuring it.
    fn prepare(&self, program: &str, line: &str) {
        let status = self.command(program, line).stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(status.expect("a shell").success(), "{line}");
    }

    /// Creates one key for ocikit and cosign, which requires an encrypted copy, and one key with a certificate for notation.
    fn create_keys(&self) {
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
