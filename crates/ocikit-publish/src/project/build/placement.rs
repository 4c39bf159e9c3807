//! Which builder builds which image.

use std::collections::HashMap;

use ocikit::Platform;
use ocikit_build::Node;

/// The work that a builder may have more than the least busy one, and still be chosen because its cache is warm.
const WARM_ADVANTAGE: usize = 2;

/// The builders and what they do.
#[derive(Debug)]
pub(super) struct Placement {
    nodes: Vec<Node>,
    running: Vec<usize>,
    /// The builder that built an image for a platform.
    built_by: HashMap<(usize, Platform), usize>,
}

/// The builders of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placed {
    /// The builders with their platforms.
    pub(super) nodes: Vec<Node>,
    positions: Vec<usize>,
}

impl Placement {
    pub(super) fn new(nodes: Vec<Node>) -> Placement {
        Placement { running: vec![0; nodes.len()], nodes, built_by: HashMap::new() }
    }

    /// Chooses a builder for each platform: the one that built an image that this one depends on, unless it is much busier
    /// than another; else the least busy one, and the first of those. Returns the platform that no builder builds.
    pub(super) fn place(
        &mut self,
        image: usize,
        platforms: &[Platform],
        parents: &[usize],
    ) -> Result<Placed, Platform> {
        let mut placed = Placed { nodes: Vec::new(), positions: Vec::new() };
        let mut chosen: Vec<(usize, Platform)> = Vec::new();
        for platform in platforms {
            let builds = |node: &Node| {
                // A builder without platforms builds all.
                node.platforms.is_empty() || node.platforms.iter().any(|found| platform.accepts(found))
            };
            let able = (0..self.nodes.len()).filter(|position| builds(&self.nodes[*position]));
            let least = able.clone().min_by_key(|position| (self.running[*position], *position));
            let least = least.ok_or_else(|| platform.clone())?;
            let warm = parents.iter().filter_map(|parent| self.built_by.get(&(*parent, platform.clone()))).copied();
            let warm = warm.min_by_key(|position| (self.running[*position], *position));
            let node = warm.filter(|warm| self.running[*warm] <= self.running[least] + WARM_ADVANTAGE).unwrap_or(least);
            chosen.push((node, platform.clone()));
        }
        for (position, platform) in chosen {
            self.built_by.insert((image, platform.clone()), position);
            match placed.positions.iter().position(|known| *known == position) {
                Some(at) => placed.nodes[at].platforms.push(platform),
                None => {
                    let address = self.nodes[position].address.clone();
                    placed.nodes.push(Node { platforms: vec![platform], address });
                    placed.positions.push(position);
                    self.running[position] += 1;
                }
            }
        }
        Ok(placed)
    }

    /// Records that a build ended.
    pub(super) fn release(&mut self, placed: &Placed) {
        placed.positions.iter().for_each(|position| self.running[*position] -= 1);
    }
}
