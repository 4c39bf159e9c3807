//! Helpers of the integration tests: the program in a clean environment, registries, archives of any size, and the programs
//! of other projects ("peers").

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test says where it fails by panicking")]

mod archives;
pub mod hostile;
mod peers;
mod program;
mod proxy;
mod registry;
mod tls;

pub use ocikit_archive::Compression;
pub use ocikit_image::testing::Tar;

pub use archives::{Archive, attested, fixture, multi, single, testdata, verified_digest, write_archive, write_image};
pub use peers::{Daemon, Peers, free_port};
pub use program::{Bench, Outcome, json, run, wait_for_signal_handlers};
pub use proxy::{Direction, Proxy, ProxyFault};
pub use registry::Registry;
pub use tls::{CertificateAuthority, TlsProxy};
