//! Policies, and signatures in places where they do not belong.

mod policy;
mod replay;
