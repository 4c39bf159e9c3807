//! What has to be built, and why.

mod decide;
mod matrix;
mod model;
mod selection;
mod shard;
mod survey;
#[cfg(test)]
mod tests;

pub use matrix::{CiMatrix, matrix};
pub use model::{BuildPlan, Decision, INPUTS_ANNOTATION, PlanOptions, PlannedImage, Published, Reason};
pub use selection::{Selection, UnknownImage};
pub use shard::{Shard, ShardError, Shards, Share, assign};
pub use survey::{Survey, SurveyError, SurveyOptions, base_digests, reference, survey};
pub(super) use survey::{one, tag_of};
