//! Tests the client against a test double of a registry, on loopback and in this process.
#![allow(clippy::unwrap_used, reason = "all of it is tests, not only the functions that are marked as such")]

mod access;
mod auth;
mod conformance;
mod docker_config;
mod double;
mod far;
mod faults;
mod hosts;
mod lies;
#[cfg(feature = "oci-client")]
mod oci_client;
mod pull;
mod push;
mod referrers;
mod secrets;
mod support;
