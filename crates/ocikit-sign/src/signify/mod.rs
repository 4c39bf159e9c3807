//! Signify: a service that records the digest of a tag and signs it with its own keys.
//!
//! Requests contain names, digests and sizes in the terms of The Update Framework and are authenticated with a client
//! certificate. Nothing is signed locally and nothing is stored with the image; the only result is that the service
//! accepted the request.

mod config;
mod send;

pub use config::{Config, Job, Selected, Service, identity};
pub use send::{Accepted, Target, body, send};
