use std::fmt;
use std::str::FromStr;

use super::model::{BuildPlan, PlannedImage};

/// One of several machines that share a plan: `K/N`, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shard {
    /// The number of the machine, from 1.
    pub number: usize,
    /// The number of machines.
    pub of: usize,
}

/// The maximum number of machines.
const MAX_SHARDS: usize = 10_000;

impl Shard {
    /// Returns the position of the machine, from 0.
    pub fn position(self) -> usize {
        self.number - 1
    }
}

impl FromStr for Shard {
    type Err = ShardError;

    fn from_str(text: &str) -> Result<Shard, ShardError> {
        let (number, of) = text.split_once('/').ok_or(ShardError)?;
        let (number, of) = (number.parse().map_err(|_| ShardError)?, of.parse().map_err(|_| ShardError)?);
        match (1..=of).contains(&number) && of <= MAX_SHARDS {
            true => Ok(Shard { number, of }),
            false => Err(ShardError),
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

/// A text is not `K/N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not of the form K/N with 1 ≤ K ≤ N ≤ {MAX_SHARDS}")]
pub struct ShardError;

/// The machine of each image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shards {
    /// The machine of each image of the project, from 0; `None` if it has none.
    pub shard_of: Vec<Option<usize>>,
    /// The work of each machine in each stage, in builds of one platform: `work[stage][machine]`.
    pub work: Vec<Vec<u64>>,
}

impl Shards {
    /// Returns the work of each machine in all stages.
    pub fn total(&self) -> Vec<u64> {
        let machines = self.work.first().map_or(0, Vec::len);
        (0..machines).map(|machine| self.work.iter().map(|stage| stage[machine]).sum()).collect()
    }
}

/// The work of an image, in builds of one platform.
fn work(image: &PlannedImage) -> u64 {
    image.platforms.len().max(1) as u64
}

/// The images that machines share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// Those that are built. The result changes when some of them are published.
    Builds,
    /// Those that the plan considers, so that machines agree while others publish.
    Considered,
}

/// Distributes images over machines that work stage by stage: within a stage, the next largest image goes to the machine with
/// the least work in the stage, then with the least work in all, then with the lowest number.
pub fn assign(plan: &BuildPlan, machines: usize, share: Share) -> Shards {
    let machines = machines.clamp(1, MAX_SHARDS);
    let mut shards = Shards { shard_of: vec![None; plan.images.len()], work: Vec::new() };
    let mut total = vec![0u64; machines];
    let images: Vec<_> = match share {
        Share::Builds => plan.builds().collect(),
        Share::Considered => plan.considered().collect(),
    };
    let mut stages = vec![Vec::new(); images.iter().map(|image| image.stage + 1).max().unwrap_or_default()];
    images.into_iter().for_each(|image| stages[image.stage].push(image));
    for mut stage in stages {
        stage.sort_by_key(|image| (std::cmp::Reverse(work(image)), image.position));
        let mut heap: std::collections::BinaryHeap<_> =
            (0..machines).map(|machine| std::cmp::Reverse((0u64, total[machine], machine))).collect();
        let mut done = vec![0u64; machines];
        for image in stage {
            let Some(std::cmp::Reverse((_, _, machine))) = heap.pop() else { break };
            done[machine] += work(image);
            total[machine] += work(image);
            shards.shard_of[image.position] = Some(machine);
            heap.push(std::cmp::Reverse((done[machine], total[machine], machine)));
        }
        shards.work.push(done);
    }
    shards
}
