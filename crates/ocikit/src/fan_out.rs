use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use futures::future::{FutureExt, join, join_all, ready};
use ocikit_image::{Copied, Error, Name, Naming, PerTarget, Put, Result, Root, Sink, Target, Tee, copy_to_each};
use ocikit_spec::Digest;

use crate::location::Location;
use crate::present::Present;
use crate::session::{Session, naming};

impl Session {
    /// Copies a root to several locations in parallel, as [`Session::copy_root`] does for one. If a target has no name,
    /// that of `from` is used. Each blob is read and hashed once, whatever the number of targets; see [`copy_to_each`].
    /// Several names in one place cost one transfer.
    ///
    /// The results are in the order of the targets. A target that fails does not stop the others.
    pub async fn copy_root_to_each(&self, root: &Root, from: &Location, to: &[Location]) -> PerTarget<Copied> {
        let mut outcomes = Pending::new(to.len());
        // A docker archive holds only one platform of what the other targets receive.
        let (alone, together): (Vec<_>, Vec<_>) =
            to.iter().enumerate().partition(|(_, location)| matches!(location, Location::DockerArchive { .. }));
        let mut places = self.places(&together, &mut outcomes).await;
        for place in &mut places {
            place.name(root, from, &mut outcomes);
        }
        let alone =
            alone.into_iter().map(|(position, to)| async move { (position, self.copy_root(root, from, to).await) });
        let ((), alone) = join(self.copy_to_places(root, places, &[], &mut outcomes), join_all(alone).boxed()).await;
        for (position, outcome) in alone {
            outcomes.0[position] = Some(outcome);
        }
        outcomes.finish()
    }

    /// Copies the image of an archive that is read from a pipe to several locations. Each blob goes to all of them
    /// while it arrives, at the speed of the slowest. The results are in the order of the locations.
    ///
    /// # Errors
    ///
    /// [`Error::Broken`] and [`Error::Mismatch`] if the archive is incomplete or damaged.
    pub async fn receive_to_each(
        &self,
        reader: impl Read + Send + 'static,
        to: &[Location],
    ) -> Result<PerTarget<Copied>> {
        Ok(self.receive_present_to_each(reader, to).await?.0)
    }

    /// The same; the second value says what was copied of an image of which the archive [lists more](Self::open_present).
    ///
    /// # Errors
    ///
    /// As [`Session::receive_to_each`].
    pub async fn receive_present_to_each(
        &self,
        reader: impl Read + Send + 'static,
        to: &[Location],
    ) -> Result<(PerTarget<Copied>, Option<Present>)> {
        let mut outcomes = Pending::new(to.len());
        let mut places = self.places(&to.iter().enumerate().collect::<Vec<_>>(), &mut outcomes).await;
        if places.is_empty() {
            return Ok((outcomes.finish(), None));
        }
        let tee = Arc::new(Tee::new(places.iter().map(|place| place.sink.clone()).collect()));
        let sink: Arc<dyn Sink> = tee.clone();
        let source = ocikit_layout::receive("-", reader, &sink, &self.scratch()).await;
        let (live, sent) = outcomes.of_tee(&tee, places);
        places = live;
        if places.is_empty() {
            return Ok((outcomes.finish(), None));
        }
        let received = source?;
        let root = Root::open(received.source, &Name::Only).await?;
        let (root, present) = self.present(root, ready(Ok(received.has_docker_list))).await?;
        for place in &mut places {
            place.name(&root, &Location::Stdio, &mut outcomes);
        }
        self.copy_to_places(&root, places, &sent, &mut outcomes).await;
        Ok((outcomes.finish(), present))
    }

    /// Opens the places of the locations, each once.
    async fn places(&self, to: &[(usize, &Location)], outcomes: &mut Pending) -> Vec<Place> {
        let mut places: Vec<Place> = Vec::new();
        for (position, location) in to {
            let known = places.iter_mut().find(|place| place.locations[0].1.is_beside(location));
            if let Some(place) = known {
                place.locations.push((*position, (*location).clone()));
                continue;
            }
            match self.sink(location).await {
                Ok(sink) => {
                    places.push(Place { sink, locations: vec![(*position, (*location).clone())], names: Vec::new() });
                }
                Err(error) => outcomes.0[*position] = Some(Err(error)),
            }
        }
        places
    }

    /// Copies the missing parts to each place; `sent` are the blobs that were already copied from a pipe.
    async fn copy_to_places(
        &self,
        root: &Root,
        places: Vec<Place>,
        sent: &[HashMap<Digest, Put>],
        outcomes: &mut Pending,
    ) {
        // A place without a name for the root is skipped: every name given for it has failed.
        let wanted = |place: &Place| !place.names.is_empty();
        let targets: Vec<_> = places
            .iter()
            .filter(|place| wanted(place))
            .map(|place| Target { sink: place.sink.clone(), names: place.names.clone() })
            .collect();
        if targets.is_empty() {
            return;
        }
        let mut copied = copy_to_each(root, &targets, &self.copy_options(Vec::new())).await.into_iter();
        for (number, place) in places.iter().enumerate().filter(|(_, place)| wanted(place)) {
            let Some(outcome) = copied.next() else { return };
            let sent = sent.get(number);
            outcomes.share(
                place,
                outcome.map(|mut copied| {
                    for (blob, put) in &mut copied.blobs {
                        *put = sent.and_then(|sent| sent.get(&blob.digest).copied()).unwrap_or(*put);
                    }
                    copied
                }),
            );
        }
    }
}

/// A target, and the locations in it.
struct Place {
    sink: Arc<dyn Sink>,
    /// The locations with their positions, at least one.
    locations: Vec<(usize, Location)>,
    names: Vec<Naming>,
}

impl Place {
    /// Determines the names of a root in this place. A location without a valid name fails.
    fn name(&mut self, root: &Root, from: &Location, outcomes: &mut Pending) {
        for (position, location) in &self.locations {
            match naming(root, from, location) {
                Ok(naming) => self.names.push(naming),
                Err(error) => outcomes.0[*position] = Some(Err(error)),
            }
        }
    }
}

/// The results so far, by the position of the location.
struct Pending(Vec<Option<Result<Copied>>>);

impl Pending {
    fn new(count: usize) -> Pending {
        Pending((0..count).map(|_| None).collect())
    }

    /// Records the errors of the places that failed while a pipe was read; returns the others with what they received.
    fn of_tee(&mut self, tee: &Tee, places: Vec<Place>) -> (Vec<Place>, Vec<HashMap<Digest, Put>>) {
        let mut live = (Vec::new(), Vec::new());
        for (place, outcome) in places.into_iter().zip(tee.outcomes()) {
            match outcome {
                Ok(sent) => {
                    live.0.push(place);
                    live.1.push(sent);
                }
                Err(error) => self.share(&place, Err(error)),
            }
        }
        live
    }

    /// Gives all locations of a place its result. The copied blobs are listed with the first one.
    fn share(&mut self, place: &Place, outcome: Result<Copied>) {
        let open = place.locations.iter().map(|(position, _)| *position).filter(|position| self.0[*position].is_none());
        let open: Vec<_> = open.collect();
        let (Some(first), rest) = (open.first(), open.get(1..).unwrap_or_default()) else { return };
        match outcome {
            Ok(copied) => {
                let mut present = copied.clone();
                present.blobs.iter_mut().for_each(|(_, put)| *put = Put::Present);
                self.0[*first] = Some(Ok(copied));
                rest.iter().for_each(|position| self.0[*position] = Some(Ok(present.clone())));
            }
            Err(error) => {
                let error = Arc::new(error);
                open.iter().for_each(|position| self.0[*position] = Some(Err(Error::again(&error))));
            }
        }
    }

    fn finish(self) -> PerTarget<Copied> {
        let lost = || Err(Error::failed("copy to", "a place", std::io::Error::other("nothing was heard of it")));
        self.0.into_iter().map(|outcome| outcome.unwrap_or_else(lost)).collect()
    }
}
