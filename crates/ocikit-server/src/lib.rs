//! An implementation of the server side of the distribution protocol, small enough for tests and suitable for a LAN.
//!
//! A [`Server`] is the configuration of a registry, and [`Server::start`] turns it into a [`Running`] one. By default
//! it stores everything in memory, listens at a free port of the loopback address, and requires no credentials. It
//! implements the whole distribution specification 1.1, optional authentication, faults for tests, and a log of
//! requests.
//!
//! ```no_run
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use ocikit_server::{Action, Fault, Reply, Server};
//!
//! let running = Server::default().start().await?;
//! running.faults().add(Fault::on("GET /v2/", Action::Answer(Reply::status(503))).first(1));
//!
//! let url = format!("http://{}/v2/", running.registry());
//! assert_eq!(reqwest::get(&url).await?.status(), 503);
//! assert_eq!(reqwest::get(&url).await?.status(), 200);
//! assert_eq!(running.requests().iter().filter(|request| request.is("GET /v2/")).count(), 2);
//! running.shutdown().await;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! A registry for a LAN has another address and a directory:
//!
//! ```no_run
//! # async fn serve() -> ocikit_server::Result<()> {
//! use ocikit_server::{Authentication, Grant, Server, Storage, User};
//!
//! let users = Authentication::basic([User::new("alice", "secret")]).anonymous(vec![Grant::pull("**")]);
//! let server = Server::default()
//!     .address(([0, 0, 0, 0], 5000).into())
//!     .storage(Storage::directory("/srv/registry"))
//!     .authentication(users)
//!     .remember(0);
//! let running = server.start().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Storage directory
//!
//! | path | contents |
//! |---|---|
//! | `ocikit-server` | the version of this format, `1`; locked while a server uses the directory |
//! | `blobs/sha256/<hex>`, `blobs/sha512/<hex>` | the bytes of blobs and manifests, once for all repositories |
//! | `repositories/<name>/_blobs/sha256/<hex>` | an empty file: the repository has this blob |
//! | `repositories/<name>/_manifests/sha256/<hex>` | the repository has this manifest; JSON: `mediaType`, `size`, and for a referrer also `subject`, `artifactType` and `annotations`, from which the lists of referrers are built |
//! | `repositories/<name>/_tags/<tag>` | the digest that the tag refers to |
//! | `unfinished/` | uploads in progress; emptied when a server starts |
//!
//! No component of a repository name begins with `_`, so the directories of a repository cannot collide with those of a
//! repository nested below it. The file system must be case-sensitive, since tags are. Every file is created by a
//! rename and never changed, so it is either complete or missing. A reference is written after its target and deleted
//! before it, so that a crash leaves no dangling reference. Bytes that no repository references are deleted when a
//! server starts. While no server runs, the directory can be copied with any tool.
//!
//! # Guarantees
//!
//! * It never serves bytes before their digest is verified, nor a reference before its target.
//! * It never holds a whole blob in memory, unless the storage is memory.
//! * It builds paths only from names, tags and digests that `ocikit-spec` has accepted.
//! * It never logs or shows a credential.
//! * It never prints, reads the environment, or starts a runtime.
//! * It does not depend on the client, `ocikit-registry`: a mistake that both made would not be detected.

mod answer;
mod api;
mod auth;
mod chunk;
mod clock;
mod condition;
mod connection;
mod contents;
mod deadline;
mod desk;
mod error;
mod fault;
mod leftover;
mod limits;
mod log;
mod name;
mod origin;
mod page;
mod pattern;
mod query;
mod random;
mod range;
mod refusal;
mod route;
mod rules;
mod server;
mod storage;

pub use auth::{Authentication, Bearer, Grant, InvalidHtpasswd, Password, Permission, Ping, Scheme, TokenField, User};
pub use clock::Clock;
pub use contents::Contents;
pub use error::{Error, Result};
pub use fault::{Action, Active, Fault, Faults, Location, Point, Reply};
pub use limits::ServerLimits;
pub use log::{Authorization, Exchange, Observer};
pub use pattern::Pattern;
pub use rules::{Children, Rules, Switch};
pub use server::{Running, Server};
pub use storage::{Durability, Storage};
