//! Helpers of the benchmarks: measuring programs, generating images, registries with and without delay, and a table of results.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a benchmark prints its results and panics on errors"
)]

mod buildkitd;
mod delay;
mod image;
mod measure;
mod place;
mod registry;
mod table;

pub use buildkitd::Buildkitd;
pub use delay::Delay;
pub use image::{images_with_shared_layers, index, layout, tar};
pub use measure::{Cost, find, measure, run_if_asked};
pub use ocikit_image::testing::random;
pub use place::Place;
pub use registry::Registry;
pub use table::Table;
