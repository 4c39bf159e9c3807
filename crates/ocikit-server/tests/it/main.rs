//! Tests the server from the outside, over loopback sockets.
// Clippy recognizes only functions marked `#[test]` as tests, and not their helpers.
#![allow(clippy::unwrap_used)]

mod authentication;
mod blobs;
mod contents;
mod faults;
mod http;
mod limits;
mod lists;
mod manifests;
mod server;
mod storage;
mod uploads;
