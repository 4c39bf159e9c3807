//! Integration tests of the program and the library.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test says where it fails by panicking")]

mod access;
mod annotate;
mod copy;
mod examples;
mod failures;
mod fan_out;
mod faults;
mod files;
mod fuzz;
mod hostile;
mod hosts;
mod house;
mod layouts;
mod lies;
mod local_lies;
mod locations;
mod look;
mod output;
#[cfg(unix)]
mod outputs;
mod peers;
mod platforms;
mod plugins;
mod policy;
#[cfg(unix)]
mod processes;
mod pull;
mod push;
mod recovery;
mod referrer_tags;
mod registry;
mod rest;
mod send;
mod serve;
mod sign;
mod signify;
mod signing_ca;
mod stub_server;
mod sync;
mod tour;
mod trust;
mod validate;
mod verbose;

use ocikit_tests::Bench;

/// Creates a test bench for the program.
fn bench() -> Bench {
    Bench::new(env!("CARGO_BIN_EXE_ocikit-under-test"))
}
