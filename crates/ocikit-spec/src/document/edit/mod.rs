//! Edits of documents: they keep the text of everything that they do not change.

mod base;
mod config;
mod index;
mod manifest;

pub use config::{ConfigEdit, ConfigField, Healthcheck};
pub use index::IndexEdit;
pub use manifest::ManifestEdit;

#[cfg(test)]
mod tests;
