//! Layouts and archives as files.

mod archive;
mod conformance;
mod fixtures;
mod gc;
mod unpacked;
