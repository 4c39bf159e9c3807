//! The server as clients meet it, over sockets of this machine.
// Clippy takes only functions marked `#[test]` for tests, not what they share.
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
