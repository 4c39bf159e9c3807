//! Which images of a plan a machine builds.

use std::collections::BTreeSet;

use super::model::BuildPlan;
use super::shard::{Shard, Share, assign};
use crate::project::model::Project;

/// The images of a plan that a machine builds; all by default.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Selection {
    /// The share of a machine. Shares are taken from all images that the plan considers, so they stay the same while other
    /// machines publish.
    pub shard: Option<Shard>,
    /// The stage.
    pub stage: Option<usize>,
    /// The positions of the images.
    pub positions: Option<BTreeSet<usize>>,
}

/// A name that no image of the project has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot select `{0}`: the project has no such image")]
pub struct UnknownImage(pub String);

impl Selection {
    /// Selects images by their names; all if there are none.
    ///
    /// # Errors
    ///
    /// [`UnknownImage`].
    pub fn named<'a>(project: &Project, names: impl IntoIterator<Item = &'a str>) -> Result<Selection, UnknownImage> {
        let position = |name: &str| project.position(name).ok_or_else(|| UnknownImage(name.to_owned()));
        let mut selection = Selection::default();
        for name in names {
            let positions = selection.positions.get_or_insert_default();
            if !name.is_empty() {
                positions.insert(position(name)?);
            }
        }
        Ok(selection)
    }

    /// Returns the positions of the images to build, in the order of the project.
    pub fn builds(&self, plan: &BuildPlan) -> Vec<usize> {
        let shards = self.shard.map(|shard| (shard, assign(plan, shard.of, Share::Considered)));
        let selected = plan.builds().filter(|image| {
            let is_of_shard = |(shard, shards): &(Shard, super::shard::Shards)| {
                shards.shard_of[image.position] == Some(shard.position())
            };
            let is_named = self.positions.as_ref().is_none_or(|named| named.contains(&image.position));
            let is_of_stage = self.stage.is_none_or(|stage| stage == image.stage);
            is_named && is_of_stage && shards.as_ref().is_none_or(is_of_shard)
        });
        selected.map(|image| image.position).collect()
    }
}
