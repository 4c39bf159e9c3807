//! Tests with other people's programs: what they write, what they accept, what they see.

mod build;
mod edit;
mod files;
mod registries;
mod rest;
mod sign;
mod suite;
