//! Integration tests of the program and the library.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test says where it fails by panicking")]

mod access;
mod annotate;
mod archives;
mod artifacts;
mod ci_templates;
mod concurrent;
mod copy;
mod edit;
mod examples;
#[cfg(unix)]
mod failed_changes;
mod failures;
mod fan_out;
mod faults;
mod files;
mod fuzz;
mod hostile;
mod hosts;
mod house;
mod index;
mod inspect;
mod keyless;
mod layers;
mod layouts;
mod lazy;
mod lazy_changes;
mod lazy_files;
mod lazy_publish;
mod locations;
mod modules;
mod peers;
mod platforms;
mod plugins;
mod policy;
#[cfg(unix)]
mod processes;
mod project;
mod public_api;
mod publish;
mod publish_registries;
mod pull;
mod push;
mod recovery;
mod referrer_tags;
mod registry;
mod reports;
mod send;
mod serve;
mod sign;
mod signify;
mod signing_ca;
mod special_files;
#[cfg(unix)]
mod streams;
mod stub_server;
mod sync;
mod tour;
mod trust;
#[cfg(unix)]
mod unpack;
mod untrusted_text;
mod validate;
mod verbose;
mod wrong_answers;
mod wrong_blobs;

use ocikit_tests::Bench;

/// Creates a test bench for the program.
fn bench() -> Bench {
    Bench::new(env!("CARGO_BIN_EXE_ocikit-under-test"))
}
