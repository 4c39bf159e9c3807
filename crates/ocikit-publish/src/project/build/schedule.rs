//! Which image is next. A pure state machine; `run.rs` starts and awaits the builds.

use std::collections::BTreeSet;

use crate::project::model::Project;

/// The state of an image in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It is not part of the run.
    Outside,
    /// It waits for this number of images.
    Waiting(usize),
    /// It could start.
    Ready,
    Running,
    Done,
    Failed,
    /// An image that it depends on failed.
    Skipped,
}

/// The images of a run that wait, run and are finished.
#[derive(Debug)]
pub(super) struct Schedule {
    states: Vec<State>,
    children: Vec<Vec<usize>>,
    ready: BTreeSet<usize>,
    stops_on_failure: bool,
    has_failed: bool,
}

impl Schedule {
    /// Creates the schedule of some images of a project. Without `keep_going`, nothing starts after a failure.
    pub(super) fn new(project: &Project, selected: &[usize], keep_going: bool) -> Schedule {
        let count = project.images().len();
        let mut states = vec![State::Outside; count];
        selected.iter().for_each(|position| states[*position] = State::Waiting(0));
        let mut children = vec![Vec::new(); count];
        for (position, image) in project.images().iter().enumerate() {
            if states[position] == State::Outside {
                continue;
            }
            let parents: BTreeSet<_> = image.parents().filter(|parent| states[*parent] != State::Outside).collect();
            parents.iter().for_each(|parent| children[*parent].push(position));
            states[position] = State::Waiting(parents.len());
        }
        let mut schedule =
            Schedule { states, children, ready: BTreeSet::new(), stops_on_failure: !keep_going, has_failed: false };
        (0..count).for_each(|position| schedule.check(position));
        schedule
    }

    fn check(&mut self, position: usize) {
        if self.states[position] == State::Waiting(0) {
            self.states[position] = State::Ready;
            self.ready.insert(position);
        }
    }

    /// Takes the next image to start: the first in the order of the project.
    pub(super) fn next(&mut self) -> Option<usize> {
        if self.has_failed && self.stops_on_failure {
            return None;
        }
        let position = self.ready.pop_first()?;
        self.states[position] = State::Running;
        Some(position)
    }

    /// Records that an image is finished.
    pub(super) fn done(&mut self, position: usize) {
        self.states[position] = State::Done;
        for child in self.children[position].clone() {
            if let State::Waiting(count) = self.states[child] {
                self.states[child] = State::Waiting(count - 1);
                self.check(child);
            }
        }
    }

    /// Records that an image failed. All that depend on it are skipped.
    pub(super) fn failed(&mut self, position: usize) {
        self.states[position] = State::Failed;
        self.has_failed = true;
        let mut pending = self.children[position].clone();
        while let Some(child) = pending.pop() {
            if matches!(self.states[child], State::Waiting(_)) {
                self.states[child] = State::Skipped;
                pending.extend(&self.children[child]);
            }
        }
    }

    /// Returns the images that did not start: because one that they depend on failed, or because the run stopped.
    pub(super) fn not_started(&self) -> Vec<usize> {
        let is_left = |state: &State| matches!(state, State::Waiting(_) | State::Ready | State::Skipped);
        (0..self.states.len()).filter(|position| is_left(&self.states[*position])).collect()
    }
}
