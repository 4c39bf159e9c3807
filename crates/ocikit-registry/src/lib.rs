//! The client side of the distribution protocol.
//!
//! A [`RemoteRepository`] is a place like any other: what reads and writes images goes through
//! [`ocikit_image::Source`] and [`ocikit_image::Sink`].
//!
//! ```no_run
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use std::sync::Arc;
//! use ocikit_image::{CopyOptions, Name, Naming, Root, Sink, copy};
//! use ocikit_registry::{Client, ClientOptions, DockerConfig};
//!
//! let keychain = Arc::new(DockerConfig::new("/home/me/.docker/config.json"));
//! let client = Client::new(ClientOptions { keychain, ..ClientOptions::default() });
//!
//! let from = client.repository("docker.io/library/alpine".parse()?)?;
//! let to: Arc<dyn Sink> = Arc::new(client.repository("ghcr.io/acme/alpine".parse()?)?);
//!
//! let root = Root::open(Arc::new(from), &Name::Tag("3.22".parse()?)).await?;
//! let names = vec![Naming { tag: Some("3.22".parse()?), ..Naming::default() }];
//! copy(&root, &to, &CopyOptions { names, ..CopyOptions::default() }).await?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # What it asks for
//!
//! Requests are what a registry counts and what a slow line charges for. Without failures, redirects and the requests
//! for tokens (one for each repository and kind of access, then kept until shortly before it ends):
//!
//! | what | requests |
//! |---|---|
//! | push again what is there | one for each tag |
//! | push what is new | one for each tag, three for each blob (is it there, begin, send), one for each manifest below the root, one for each tag |
//! | push a blob that this client sent to, or reads from, another repository of the registry | one if the registry mounts it, two if not |
//! | push a blob to a registry that [`Client::probe`] found to answer mounts of what it has | two, or one if it is there |
//! | a blob that is wanted by many at once, or again | none |
//! | put a manifest that may be there | one, and one more if it is not |
//! | list a referrer where the registry does not | three: read, write, read again |
//! | push again what has no tag | one; three where the registry does not list referrers: what is it about, is it listed |
//! | open a root by its name | one |
//! | read a blob | one; a large one over a slow line one for each [`ParallelOptions::part`] |
//! | tags, repositories, referrers | one for each page |
//!
//! The first request brings the challenge, and other requests wait for it. Only if it was refused without a challenge, and
//! there is a credential, `/v2/` is requested once.
//!
//! # Who gets to see what
//!
//! A credential is sent to the registry that it is for, after that registry sent a challenge, and to the token service that
//! the challenge names; never to where either redirects, never to an upload session elsewhere, and never without TLS to a
//! server with which TLS was begun. A client certificate is presented to the registries of a command only. A loopback
//! registry is addressed without TLS unless TLS is set up for it or it speaks TLS; see [`hosts::Scheme::Guess`]. No public
//! server sends us to addresses of this machine or of a private network; see [`Redirects`].
//!
//! # What this crate never does
//!
//! * It never completes a blob whose bytes are not those of its digest, nor hands on a manifest that is another.
//! * It never gives a tag to what is not there, and never removes a manifest in place of a tag.
//! * It never limits how long a transfer takes, only how long nothing moves.
//! * It never holds a blob in memory, whatever its size.
//! * It never shows a secret: not in a message, not in `Debug`, not to a process in its arguments.
//! * It never prints, starts a runtime, or reads the environment, which comes in as options. One exception is not ours:
//!   the system's certificates are found as OpenSSL does, which honors `SSL_CERT_FILE` and `SSL_CERT_DIR`.
//! * It starts no process but credential helpers.

mod ahead;
mod auth;
mod blobs;
mod client;
mod credentials;
mod download;
mod endpoint;
mod files;
pub mod hosts;
mod http;
mod manifests;
mod memory;
#[cfg(feature = "oci-client")]
pub mod oci_client;
mod probe;
mod referrers;
mod repository;
mod tags;
mod target;
mod upload;

pub use client::{Client, ClientOptions, Redirects};
pub use credentials::{
    Anonymous, Credential, CredentialPlaces, DockerConfig, Fixed, HelperOptions, Keychain, Keychains, Secret,
};
pub use download::ParallelOptions;
pub use http::{Clock, RequestEvent, RequestObserver, RequestOutcome, RetryOptions, SystemClock, Timeouts};
pub use ocikit_image::{Error, NoAnswer, Result};
pub use probe::Capabilities;
pub use repository::RemoteRepository;
pub use tags::ListOptions;
pub use upload::{FileJournal, Journal, JournalEntry, JournalKey, JournalOptions};
