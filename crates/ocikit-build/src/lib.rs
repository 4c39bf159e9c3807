//! Builds images by BuildKit and streams the result to a sink.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use ocikit_build::{Daemon, DaemonOptions, Solve, build};
//! use ocikit_image::{CopyOptions, Name, Root, Sink, copy};
//! use ocikit_layout::{TarOptions, TarWriter};
//!
//! let daemon = Daemon::start(&DaemonOptions::default()).await?;
//! let archive: Arc<dyn Sink> = Arc::new(TarWriter::create("app.tar", TarOptions::default()).await?);
//! let built = build(&Solve::of("."), daemon.address(), None, &archive).await?;
//! let root = Root::open(Arc::new(built), &Name::Only).await?;
//! copy(&root, &archive, &CopyOptions::default()).await?;
//! daemon.stop().await;
//! # Ok(()) }
//! ```
//!
//! # Guarantees
//!
//! * BuildKit is used only to build.
//! * A daemon that was started here always ends, even if this process is killed.
//! * No secret is passed as an argument of a process.

mod daemon;
mod error;
mod progress;
mod solve;
mod watched;

pub use daemon::{Daemon, DaemonOptions};
pub use error::{Error, Result};
pub use progress::{Observer, Progress};
pub use solve::{Cache, Solve, build};
