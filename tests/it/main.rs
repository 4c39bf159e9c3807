//! Tests of the whole.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test says where it fails by panicking")]

mod annotate;
mod copy;
mod examples;
mod failures;
mod faults;
mod files;
mod fuzz;
mod hostile;
mod house;
mod look;
mod peers;
mod pull;
mod push;
mod registry;
mod rest;
mod sign;
mod sync;
mod tour;
mod validate;

use ocikit_tests::Bench;

/// A temporary directory and the program in it.
fn bench() -> Bench {
    Bench::new(env!("CARGO_BIN_EXE_ocikit-under-test"))
}
