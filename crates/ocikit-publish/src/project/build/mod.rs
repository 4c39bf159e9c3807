//! Builds and publishes the images of a project.

mod dockerfile;
mod model;
mod noise;
mod placement;
mod publishing;
mod run;
mod schedule;
#[cfg(test)]
mod tests;

pub use model::{
    BuildObserver, BuildOptions, BuildReport, Done, ImageError, ImageOutcome, ImageReport, Publishing, SignerError,
    SignerSource,
};
pub use run::build_project;
