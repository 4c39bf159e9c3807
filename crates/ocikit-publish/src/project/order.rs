//! Sorts images by their dependencies.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::error::{CycleStep, Problem};
use super::limits::MAX_PROBLEMS;
use super::model::ProjectImage;

/// The key of an image among those that could come next: independent images keep the order of their numbers and names.
type Key = (bool, u64, String, usize);

/// Sorts the images so that each follows those that it depends on, sets their stages, and finds cycles.
pub(super) fn sort(mut images: Vec<ProjectImage>) -> (Vec<ProjectImage>, Vec<Problem>) {
    let count = images.len();
    let mut children = vec![Vec::new(); count];
    let mut missing = vec![0usize; count];
    for (position, image) in images.iter().enumerate() {
        for parent in image.parents() {
            children[parent].push(position);
            missing[position] += 1;
        }
    }
    let key = |position: usize| -> Reverse<Key> {
        let image: &ProjectImage = &images[position];
        Reverse((image.number.is_none(), image.number.unwrap_or_default(), image.name.clone(), position))
    };
    let mut ready: BinaryHeap<_> = (0..count).filter(|position| missing[*position] == 0).map(key).collect();
    let (mut order, mut stages) = (Vec::with_capacity(count), vec![0usize; count]);
    while let Some(Reverse((.., position))) = ready.pop() {
        order.push(position);
        for child in &children[position] {
            stages[*child] = stages[*child].max(stages[position] + 1);
            missing[*child] -= 1;
            if missing[*child] == 0 {
                ready.push(key(*child));
            }
        }
    }
    let problems = if order.len() < count { cycles(&images, &missing) } else { Vec::new() };
    let mut places = vec![0; count];
    let left: Vec<_> = (0..count).filter(|position| missing[*position] > 0).collect();
    order.extend(left);
    order.iter().enumerate().for_each(|(place, position)| places[*position] = place);
    for (image, stage) in images.iter_mut().zip(stages) {
        image.stage = stage;
        image.dependencies.iter_mut().for_each(|dependency| dependency.image = places[dependency.image]);
    }
    let mut sorted: Vec<_> = images.into_iter().zip(places).collect();
    sorted.sort_unstable_by_key(|(_, place)| *place);
    (sorted.into_iter().map(|(image, _)| image).collect(), problems)
}

/// Finds a cycle through each group of images that wait for each other.
fn cycles(images: &[ProjectImage], missing: &[usize]) -> Vec<Problem> {
    let mut seen = vec![false; images.len()];
    let mut problems = Vec::new();
    for start in (0..images.len()).filter(|position| missing[*position] > 0) {
        if problems.len() >= MAX_PROBLEMS {
            break;
        }
        // Every image that waits has a dependency that waits, so the path ends in a cycle, or where another one led.
        let mut path: Vec<(usize, usize)> = Vec::new();
        let mut at = start;
        while !seen[at] {
            seen[at] = true;
            let waits_for = |dependency: &super::model::Dependency| missing[dependency.image] > 0;
            let Some(next) = images[at].dependencies.iter().position(waits_for) else { break };
            path.push((at, next));
            at = images[at].dependencies[next].image;
        }
        if let Some(first) = path.iter().position(|(position, _)| *position == at) {
            let step = |(position, dependency): &(usize, usize)| CycleStep {
                image: images[*position].name.clone(),
                place: images[*position].dependencies[*dependency].place.clone(),
            };
            problems.push(Problem::Cycle(path[first..].iter().map(step).collect()));
        }
    }
    problems
}
