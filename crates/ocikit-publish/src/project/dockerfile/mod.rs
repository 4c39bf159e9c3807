//! Reads Dockerfiles as BuildKit does, and keeps their bytes.
//!
//! ```
//! use ocikit_publish::project::{Arguments, Dockerfile, Via};
//!
//! let file = Dockerfile::parse(b"ARG REGISTRY\nFROM ${REGISTRY}/base:1.0.0 AS build\n")?;
//! let arguments = Arguments::default().with("REGISTRY", "ghcr.io/acme");
//! let references = file.references(&arguments)?.references;
//! assert_eq!(references[0].text.text(), "ghcr.io/acme/base:1.0.0");
//! assert_eq!(references[0].via, Via::From);
//! # Ok::<(), ocikit_publish::project::DockerfileError>(())
//! ```

mod error;
mod expand;
mod lines;
mod model;
mod pattern;
mod references;
mod scope;
#[cfg(test)]
mod tests;
mod traced;
mod words;

pub use error::{DockerfileError, DockerfileProblem};
pub use model::{Dockerfile, Piece, PieceKind};
pub use references::{ImageReference, References, Via};
pub use scope::Arguments;
pub use traced::Traced;
