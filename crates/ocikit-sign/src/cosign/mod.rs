//! What cosign writes: bundles and simple signing.

pub(crate) mod bundle;
pub(crate) mod simple;
