//! Policies, and signatures stored with the wrong subject.

mod policy;
mod replay;
