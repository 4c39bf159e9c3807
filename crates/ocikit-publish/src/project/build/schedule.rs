//! Which image is next. A pure state machine; `run.rs` starts and awaits the builds.

use std::collections::{BTreeMap, BTreeSet};

use crate::project::model::Project;

/// The images of a run that wait or could start.
#[derive(Debug)]
pub(super) struct Schedule {
    /// The images that did not start, each with the number of images that it waits for; `None` if one of those failed.
    not_started: BTreeMap<usize, Option<usize>>,
    children: Vec<Vec<usize>>,
    ready: BTreeSet<usize>,
    stops_on_failure: bool,
    has_failed: bool,
}

impl Schedule {
    /// Creates the schedule of some images of a project. Without `keep_going`, nothing starts after a failure.
    pub(super) fn new(project: &Project, selected: &[usize], keep_going: bool) -> Schedule {
        let selected: BTreeSet<_> = selected.iter().copied().collect();
        let mut children = vec![Vec::new(); project.images().len()];
        let mut not_started = BTreeMap::new();
        for position in &selected {
            let parents = project.images()[*position].parents();
            let parents: BTreeSet<_> = parents.filter(|parent| selected.contains(parent)).collect();
            parents.iter().for_each(|parent| children[*parent].push(*position));
            not_started.insert(*position, Some(parents.len()));
        }
        let ready = selected.into_iter().filter(|position| not_started[position] == Some(0)).collect();
        Schedule { not_started, children, ready, stops_on_failure: !keep_going, has_failed: false }
    }

    /// Takes the next image to start: the first in the order of the project.
    pub(super) fn next(&mut self) -> Option<usize> {
        if self.has_failed && self.stops_on_failure {
            return None;
        }
        let position = self.ready.pop_first()?;
        self.not_started.remove(&position);
        Some(position)
    }

    /// Records that an image is finished.
    pub(super) fn done(&mut self, position: usize) {
        for child in &self.children[position] {
            if let Some(Some(count)) = self.not_started.get_mut(child) {
                *count -= 1;
                if *count == 0 {
                    self.ready.insert(*child);
                }
            }
        }
    }

    /// Records that an image failed. All that depend on it are skipped.
    pub(super) fn failed(&mut self, position: usize) {
        self.has_failed = true;
        let mut pending = self.children[position].clone();
        while let Some(child) = pending.pop() {
            if let Some(count @ Some(_)) = self.not_started.get_mut(&child) {
                *count = None;
                pending.extend(&self.children[child]);
            }
        }
    }

    /// Returns the images that did not start: because one that they depend on failed, or because the run stopped.
    pub(super) fn not_started(&self) -> Vec<usize> {
        self.not_started.keys().copied().collect()
    }
}
