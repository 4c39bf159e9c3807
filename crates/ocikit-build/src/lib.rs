//! From sources to images: one BuildKit solve, whose result comes through a pipe.
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
//! # What this crate never does
//!
//! * It never uses BuildKit for anything but the solve.
//! * It never leaves a daemon behind that it started, not even when it is killed itself.
//! * It never puts a secret into the arguments of a process.

mod daemon;
mod error;
mod progress;
mod solve;
mod watched;

pub use daemon::{Daemon, DaemonOptions};
pub use error::{Error, Result};
pub use progress::{Observer, Progress};
pub use solve::{Cache, Solve, build};
