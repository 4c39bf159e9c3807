//! The configuration file: where images go, how they are tagged and who signs them.
//!
//! The file of the image builder is read as it is. Its keys for other programs are checked and otherwise ignored. The
//! schema is `docs/publish.schema.json`.

mod file;
mod model;
mod prefix;

pub use model::{Access, Attest, Config, ConfigError, MAX_CONFIG_BYTES, MAX_REGISTRIES, Rule, Stage, Target};
pub use prefix::Prefix;

#[cfg(test)]
mod tests;
