//! Signify: a service that records which digest a tag of a repository has, with keys of its own.
//!
//! It takes names, digests and sizes in the words of The Update Framework, from whoever has the certificate of a client.
//! Nothing is signed here and nothing is stored with the image; all that comes back is that the service has taken it.

mod config;
mod send;

pub use config::{Config, Job, Selected, Service, identity};
pub use send::{Accepted, Target, body, send};
