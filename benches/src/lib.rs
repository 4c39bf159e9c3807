//! What benches have in common: programs that are measured, images to measure them with, and a table of the results.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a bench says what it found by printing, and what is in its way by panicking"
)]

mod image;
mod measure;
mod table;

pub use image::{layout, random, tar};
pub use measure::{Cost, daemon, find, measure, run_if_asked};
pub use table::Table;
