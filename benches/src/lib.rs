//! What benches have in common: programs that are measured, images to measure them with,
//! registries near and far, and a table of the results.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a bench says what it found by printing, and what is in its way by panicking"
)]

mod delay;
mod image;
mod measure;
mod registry;
mod table;

pub use delay::Delay;
pub use image::{family, index, layout, tar};
pub use measure::{Cost, find, measure, run_if_asked};
pub use ocikit_image::testing::random;
pub use registry::Registry;
pub use table::Table;
