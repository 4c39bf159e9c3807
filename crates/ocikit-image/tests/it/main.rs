//! Images in memory: copies, validation and files in layers.
#![cfg(feature = "testing")]

mod edit;
mod files;
mod layers;
mod memory;
mod referrer_tags;
mod validate;
