//! The builder agent of a microVM, and the host that drives it.
//!
//! [`serve`] is the agent. It reads `build.json` ([`BuildConfig`]), requests the secrets from the host, builds, pushes the
//! image and reports a [`BuildResult`]. [`Host`] is the other side, for the service that starts the machine. Both speak JSON,
//! one object per line, over vsock; see `docs/agent.md`.
//!
//! # Guarantees
//!
//! * A secret is written only to a file with mode 0600 on a tmpfs, which is removed at the end. It is in no argument, and the
//!   log has `***` in its place.
//! * A line of the log is sent as soon as it was printed, once per connection, in order.
//! * After a failure, the time limit or a cancellation, no process of the build is left.
//! * Nothing is visible in the registry unless the whole build succeeded.

mod config;
mod connection;
mod dockerfile;
mod endpoint;
mod host;
mod job;
mod limits;
mod log;
mod message;
mod options;
mod outcome;
mod secrets;
mod serve;
mod shared;
mod source;
#[cfg(test)]
mod tests;

pub use config::{AgentNetwork, BuildConfig, CONFIG_VERSION, RequestedBase};
pub use dockerfile::{DockerfileChoice, DockerfileOrigin};
pub use endpoint::Endpoint;
pub use host::{Host, HostHandler};
pub use message::{LogLine, PROTOCOL_VERSION, Status};
pub use ocikit::registry::Secret;
pub use options::AgentOptions;
pub use outcome::{BuildResult, ErrorCode, Provenance};
pub use serve::{Served, serve};
pub use source::SourceHash;
