use ocikit_spec::Annotations;

use crate::cosign::Predicate;
use crate::maker::Maker;
use crate::refusal::Refusal;

/// The result of verifying a signature.
#[derive(Debug)]
pub(crate) struct Verification {
    pub(crate) by: String,
    pub(crate) maker: Maker,
    pub(crate) warnings: Vec<Refusal>,
    pub(crate) metadata: Annotations,
    pub(crate) predicate: Option<Predicate>,
}

impl Verification {
    pub(crate) fn new(by: impl ToString, maker: Maker) -> Verification {
        let (warnings, metadata) = (Vec::new(), Annotations::new());
        Verification { by: by.to_string(), maker, warnings, metadata, predicate: None }
    }
}
