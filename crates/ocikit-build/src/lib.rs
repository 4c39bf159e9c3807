//! Builds images by BuildKit and streams the result to a sink.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use ocikit_build::{Builder, BuilderOptions, Results, Solve, build};
//! use ocikit_image::{CopyOptions, Sink, copy};
//! use ocikit_layout::{TarOptions, TarWriter};
//!
//! let builder = Builder::find(&BuilderOptions::default()).await?;
//! let archive: Arc<dyn Sink> = Arc::new(TarWriter::create("app.tar", TarOptions::default()).await?);
//! let mut results = Results::default();
//! results.image = Some(archive.clone());
//! let built = build(&Solve::of("."), builder.nodes(), None, &results).await?;
//! if let Some(root) = &built.root {
//!     copy(root, &archive, &CopyOptions::default()).await?;
//! }
//! builder.stop().await;
//! # Ok(()) }
//! ```
//!
//! # Guarantees
//!
//! * BuildKit is used only to build, unless [`Results::upload`] lets it upload layers. It never changes a tag.
//! * A daemon that was started here always ends, even if this process is killed.
//! * No secret is passed as an argument of a process.

mod address;
#[cfg(unix)]
pub mod agent;
mod attestation;
mod attributes;
mod builder;
mod cache;
mod changes;
mod compress;
mod confined;
mod daemon;
mod error;
mod export;
mod generate;
mod hidden;
mod inputs;
mod installation;
mod materials;
#[cfg(unix)]
mod programs;
mod progress;
mod received;
mod rootless;
mod run;
mod solve;
mod upload;
mod version;
mod watched;

pub use address::{Address, Node, Tls};
pub use attestation::{Statement, follow, statements, without_attestations};
pub use attributes::attributes;
pub use builder::{Builder, BuilderKind, BuilderOptions, Candidate, Unusable};
pub use cache::Cache;
pub use changes::changed_files;
pub use daemon::{Daemon, DaemonOptions};
pub use error::{Error, Result, UploadProblem};
pub use export::Export;
pub use generate::{GenerateOptions, Generated, Runtime, generate};
pub use hidden::hide_secrets;
pub use inputs::{
    Attestation, BuildContext, ByteSize, CacheEntry, Dockerfile, ExtraHost, NamedContext, NamedSource, NetworkMode,
    Secret, SecretSource, Ulimit,
};
pub use installation::{Installation, InstallationSource, Installations};
pub use materials::{UsedImage, used_images};
pub use progress::{Observer, Progress};
pub use run::{Built, Results, ask, build};
pub use solve::{LayerCompression, Solve};
pub use upload::Upload;
