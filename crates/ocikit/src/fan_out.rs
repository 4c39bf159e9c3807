use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::sync::Arc;

use futures::future::{FutureExt, join_all, ready};
use ocikit_image::{
    Copied, Error, Memory, Name, Naming, PerTarget, Planned, Put, Result, Root, Sink, Source, Target, Tee,
    copy_to_each, plan_to_each,
};
use ocikit_layout::{Compression, TarWriter};
use ocikit_spec::Digest;

use crate::location::Location;
use crate::present::Present;
use crate::session::Session;
use crate::transfer::naming;

impl Session {
    /// Copies a root to several locations in parallel, as [`Session::copy_root`] does for one. If a target has no name,
    /// that of `from` is used, if it is given. Each blob is read and hashed once, whatever the number of targets; see [`copy_to_each`].
    /// Several names in one place cost one transfer.
    ///
    /// The results are in the order of the targets. A target that fails does not stop the others.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let layout = ocikit::image::testing::TemporaryLayout::new();
    /// # let app = ocikit::Location::layout(layout.path());
    /// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
    /// # let directory = tempfile::tempdir()?;
    /// use ocikit::Location;
    ///
    /// let root = session.open(&app).await?;
    /// let targets = [Location::archive(directory.path().join("a.tar")), Location::layout(directory.path().join("b"))];
    /// let copied = session.copy_root_to_each(&root, Some(&app), &targets).await.all()?;
    /// assert_eq!(copied.len(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn copy_root_to_each(&self, root: &Root, from: Option<&Location>, to: &[Location]) -> PerTarget<Copied> {
        let mut outcomes = Pending::new(to.len());
        let groups = self.groups(root, from, to, &mut outcomes).await;
        self.copy_groups(&groups, from, &mut outcomes).await;
        outcomes.finish()
    }

    /// Copies each root to its places in parallel.
    async fn copy_groups(&self, groups: &[Group], from: Option<&Location>, outcomes: &mut Pending<Copied>) {
        let target = |place: &Place| Target { sink: place.sink.clone(), names: place.names.clone() };
        let copies = groups.iter().map(|(root, places)| async move {
            let targets: Vec<_> = places.iter().map(target).collect();
            copy_to_each(root, &targets, &self.copy_options(Vec::new())).await
        });
        for (copied, (root, places)) in join_all(copies).boxed().await.into_iter().zip(groups) {
            for (mut copied, place) in copied.into_iter().zip(places) {
                // The outcome of a blob is that at its arrival.
                for (blob, put) in copied.iter_mut().flat_map(|copied| &mut copied.blobs) {
                    *put = place.received.get(&blob.digest).copied().unwrap_or(*put);
                }
                match copied {
                    Err(_) if has_separate_tags(place) => {
                        self.copy_one_by_one(root, from, place, outcomes).boxed().await;
                    }
                    copied => outcomes.share_copied(place, copied),
                }
            }
        }
    }

    /// Returns what [`Session::copy_root_to_each`] would do. The source is read once, whatever the number of targets.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let layout = ocikit::image::testing::TemporaryLayout::new();
    /// # let app = ocikit::Location::layout(layout.path());
    /// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
    /// # let directory = tempfile::tempdir()?;
    /// use ocikit::Location;
    ///
    /// let root = session.open(&app).await?;
    /// let targets = [Location::archive(directory.path().join("a.tar")), Location::layout(directory.path().join("b"))];
    /// for planned in session.plan_root_to_each(&root, None, &targets).await.all()? {
    ///     println!("would write {} bytes", planned.missing_bytes());
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn plan_root_to_each(&self, root: &Root, from: Option<&Location>, to: &[Location]) -> PerTarget<Planned> {
        let mut outcomes = Pending::new(to.len());
        let groups = self.groups(root, from, to, &mut outcomes).await;
        let plans = groups.iter().map(|(root, places)| async move {
            let sinks: Vec<_> = places.iter().map(|place| place.sink.clone()).collect();
            plan_to_each(root, &sinks, &self.copy_options(Vec::new())).await
        });
        for (planned, (_, places)) in join_all(plans).boxed().await.into_iter().zip(&groups) {
            planned.into_iter().zip(places).for_each(|(planned, place)| outcomes.share(place, planned, Planned::clone));
        }
        outcomes.finish()
    }

    /// Opens the places of the locations and groups them by the root that they receive: a docker archive holds only one
    /// platform of an index.
    async fn groups<T>(
        &self,
        root: &Root,
        from: Option<&Location>,
        to: &[Location],
        outcomes: &mut Pending<T>,
    ) -> Vec<Group> {
        let mut groups = Vec::new();
        for place in self.places(to, None, outcomes).await {
            let fitted = self.fit(root, &place.locations[0].1).await;
            place.add_to(&mut groups, fitted, from, &[], outcomes);
        }
        groups
    }

    /// Copies the image of an archive that is read from a pipe to several locations. Each blob goes to all of them
    /// while it arrives, at the speed of the slowest. The results are in the order of the locations.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let layout = ocikit::image::testing::TemporaryLayout::new();
    /// # let app = ocikit::Location::layout(layout.path());
    /// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
    /// # let directory = tempfile::tempdir()?;
    /// # let archive = directory.path().join("app.tar");
    /// # session.copy(&app, &ocikit::Location::archive(&archive)).await?;
    /// use ocikit::Location;
    ///
    /// let reader = std::fs::File::open(&archive)?; // or the standard output of a build
    /// let targets = [Location::archive(directory.path().join("a.tar")), Location::layout(directory.path().join("b"))];
    /// session.receive_to_each(reader, &targets).await?.all()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
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
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let layout = ocikit::image::testing::TemporaryLayout::new();
    /// # let app = ocikit::Location::layout(layout.path());
    /// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
    /// # let directory = tempfile::tempdir()?;
    /// # let archive = directory.path().join("app.tar");
    /// # session.copy(&app, &ocikit::Location::archive(&archive)).await?;
    /// use ocikit::Location;
    ///
    /// let reader = std::fs::File::open(&archive)?;
    /// let targets = [Location::layout(directory.path().join("b"))];
    /// let (copied, present) = session.receive_present_to_each(reader, &targets).await?;
    /// copied.all()?;
    /// assert!(present.is_none(), "the archive has everything that it lists");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Session::receive_to_each`].
    pub async fn receive_present_to_each(
        &self,
        reader: impl Read + Send + 'static,
        to: &[Location],
    ) -> Result<(PerTarget<Copied>, Option<Present>)> {
        let mut targets = self.targets(to, None).await;
        if targets.places.is_empty() {
            return Ok((targets.outcomes.finish(), None));
        }
        let source = ocikit_layout::receive("-", reader, &targets.sink(), &self.scratch()).await;
        let live = targets.arrived();
        if live.is_empty() {
            return Ok((targets.outcomes.finish(), None));
        }
        let received = source?;
        let root = Root::open(received.source, &Name::Only).await?;
        let (root, present) = self.present(root, ready(Ok(received.has_docker_list))).await?;
        Ok((targets.complete(live, &root, &[]).await, present))
    }

    /// Opens several locations for an image whose blobs arrive one after another: [`Targets::sink`] receives them, and
    /// [`Targets::publish`] completes the locations. Nothing is visible before that. `stream` is the place of
    /// [`Location::Stdio`].
    ///
    /// A location that cannot be opened has its error in the result of [`Targets::publish`]; [`Targets::check`] returns it
    /// before anything arrives.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let layout = ocikit::image::testing::TemporaryLayout::new();
    /// # let app = ocikit::Location::layout(layout.path());
    /// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
    /// # let directory = tempfile::tempdir()?;
    /// use ocikit::Location;
    ///
    /// let targets = [Location::archive(directory.path().join("a.tar")), Location::layout(directory.path().join("b"))];
    /// let mut targets = session.targets(&targets, None).await;
    /// targets.check()?;
    /// let root = session.open(&app).await?;
    /// for layer in root.layers() {
    ///     // As they arrive from a build, for example.
    ///     targets.sink().put(layer.descriptor(), &**layer.source()).await?;
    /// }
    /// targets.publish(&root, &[]).await.all()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn targets(&self, to: &[Location], stream: Option<Arc<dyn Sink>>) -> Targets<'_> {
        let mut outcomes = Pending::new(to.len());
        let mut places = self.places(to, stream.as_ref(), &mut outcomes).await;
        for place in &mut places {
            if let Err(error) = self.make_readable(place).await {
                outcomes.fail(place, error);
            }
        }
        places.retain(|place| !outcomes.open(place).is_empty());
        let tee = Arc::new(Tee::new(places.iter().map(|place| place.sink.clone()).collect()));
        Targets { session: self, places, outcomes, tee }
    }

    /// Opens the places of the locations, each once.
    async fn places<T>(
        &self,
        to: &[Location],
        stream: Option<&Arc<dyn Sink>>,
        outcomes: &mut Pending<T>,
    ) -> Vec<Place> {
        let mut places: Vec<Place> = Vec::new();
        for (position, location) in to.iter().enumerate() {
            let known = places.iter_mut().find(|place| place.locations[0].1.is_beside(location));
            if let Some(place) = known {
                place.locations.push((position, location.clone()));
                continue;
            }
            let opened = match (location, stream) {
                (Location::Stdio, Some(stream)) => Ok(stream.clone()),
                _ => self.sink(location).await,
            };
            match opened {
                Ok(sink) => {
                    let locations = vec![(position, location.clone())];
                    let (names, received) = (Vec::new(), HashMap::new());
                    places.push(Place { sink, locations, names, received, is_provisional: false });
                }
                Err(error) => outcomes.0[position] = Some(Err(error)),
            }
        }
        places
    }

    /// Opens the place of a compressed docker archive without its compression: what arrives there may have to be read again.
    async fn make_readable(&self, place: &mut Place) -> Result<()> {
        let Location::DockerArchive { path, .. } = &place.locations[0].1 else { return Ok(()) };
        if self.compression_of(path, &self.options().archive)? == Compression::None || self.options().append {
            return Ok(());
        }
        let mut options = self.options().archive.clone();
        options.compression = Compression::None;
        place.sink = Arc::new(TarWriter::create(path, options).await?);
        place.is_provisional = true;
        Ok(())
    }

    /// Returns the part of a root that belongs to a place, which has received the blobs of the whole root. A docker archive that
    /// has more than its platform needs is written again.
    async fn fit_received(&self, root: &Root, place: &mut Place) -> Result<Root> {
        let location = place.locations[0].1.clone();
        let fitted = self.fit(root, &location).await?;
        let (Location::DockerArchive { .. }, Root::Image(image)) = (&location, &fitted) else { return Ok(fitted) };
        let config = image.manifest().config();
        let needed: HashSet<_> = image.manifest().layers().iter().chain(config).map(|blob| blob.digest).collect();
        if !place.is_provisional && place.received.keys().all(|digest| needed.contains(digest)) {
            return Ok(fitted);
        }
        let received: Arc<dyn Source> = place.sink.clone();
        place.sink = self.sink(&location).await?;
        // The documents and referrers are read from the source of the root. The layers may exist in this place only.
        let layers = image.manifest().layers().iter().map(|layer| (layer.digest, received.clone()));
        let memory = Memory::over(root.source().clone()).with_parts(layers);
        Root::at(Arc::new(memory), fitted.descriptor().clone()).await
    }

    /// Copies to the locations of a place one after another, so that each has a result of its own: a tag that is refused does not
    /// stop the others, and one that was given before another failed has not failed. The place has the blobs already.
    async fn copy_one_by_one(
        &self,
        root: &Root,
        from: Option<&Location>,
        place: &Place,
        outcomes: &mut Pending<Copied>,
    ) {
        for (position, location) in &place.locations {
            if outcomes.0[*position].is_some() {
                continue;
            }
            let copied = match naming(root, from, location) {
                Err(error) => Err(error),
                Ok(name) => {
                    let target = Target { sink: place.sink.clone(), names: vec![name] };
                    let copied = copy_to_each(root, &[target], &self.copy_options(Vec::new())).await;
                    copied.into_iter().next().unwrap_or_else(lost)
                }
            };
            match copied {
                // What the registry has no answer to is not tried with each name.
                Err(error @ Error::Unreachable { .. }) => return outcomes.fail(place, error),
                copied => outcomes.0[*position] = Some(copied),
            }
        }
    }
}

/// Returns whether a place may have given some of its names before it failed, or may give others: a registry has one request for each.
fn has_separate_tags(place: &Place) -> bool {
    place.locations.len() > 1 && matches!(place.locations[0].1, Location::Registry(_))
}

fn lost<T>() -> Result<T> {
    Err(Error::failed("copy to", "a place", std::io::Error::other("the copy returned no result")))
}

/// Locations that receive an image while it arrives; see [`Session::targets`].
#[derive(Debug)]
pub struct Targets<'a> {
    session: &'a Session,
    places: Vec<Place>,
    outcomes: Pending<Copied>,
    tee: Arc<Tee>,
}

impl Targets<'_> {
    /// Returns the sink that writes each blob to all locations.
    pub fn sink(&self) -> Arc<dyn Sink> {
        self.tee.clone()
    }

    /// Checks that all locations could be opened.
    ///
    /// # Errors
    ///
    /// The first error.
    pub fn check(&mut self) -> Result<()> {
        match self.outcomes.0.iter_mut().find(|outcome| matches!(outcome, Some(Err(_)))).and_then(Option::take) {
            Some(Err(error)) => Err(error),
            _ => Ok(()),
        }
    }

    /// Completes the locations with the documents of a root and publishes it. A file or directory whose location has no name
    /// gets `names`.
    ///
    /// The results are in the order of the locations. A location that fails does not stop the others.
    pub async fn publish(mut self, root: &Root, names: &[Naming]) -> PerTarget<Copied> {
        let live = self.arrived();
        self.complete(live, root, names).await
    }

    /// Returns the places that received all blobs, with the outcomes of these.
    fn arrived(&mut self) -> Vec<Place> {
        let mut live = Vec::new();
        for (place, received) in std::mem::take(&mut self.places).into_iter().zip(self.tee.outcomes()) {
            match received {
                Ok(received) => live.push(Place { received, ..place }),
                Err(error) => self.outcomes.fail(&place, error),
            }
        }
        live
    }

    async fn complete(self, live: Vec<Place>, root: &Root, names: &[Naming]) -> PerTarget<Copied> {
        let Targets { session, mut outcomes, .. } = self;
        let (mut groups, from) = (Vec::new(), Some(&Location::Stdio));
        for mut place in live {
            let fitted = session.fit_received(root, &mut place).await;
            place.add_to(&mut groups, fitted, from, names, &mut outcomes);
        }
        session.copy_groups(&groups, from, &mut outcomes).await;
        outcomes.finish()
    }
}

/// A root, and the places that get it.
type Group = (Root, Vec<Place>);

/// A target, and the locations in it.
#[derive(Debug)]
struct Place {
    sink: Arc<dyn Sink>,
    /// The locations with their positions, at least one.
    locations: Vec<(usize, Location)>,
    names: Vec<Naming>,
    /// The outcomes of the blobs that arrived before the copy.
    received: HashMap<Digest, Put>,
    /// Whether the sink only collects what arrives, and the place itself is written afterwards.
    is_provisional: bool,
}

impl Place {
    /// Adds the place to the places that get the same root, if it can be determined.
    fn add_to<T>(
        mut self,
        groups: &mut Vec<Group>,
        root: Result<Root>,
        from: Option<&Location>,
        given: &[Naming],
        outcomes: &mut Pending<T>,
    ) {
        let root = match root {
            Ok(root) => root,
            Err(error) => return outcomes.fail(&self, error),
        };
        self.name(&root, from, given, outcomes);
        // Without a name, every name that was given for the place has failed.
        if self.names.is_empty() {
            return;
        }
        // The source may be this place itself, which is written again.
        let is_same = |found: &Root| found.digest() == root.digest() && Arc::ptr_eq(found.source(), root.source());
        match groups.iter_mut().find(|(found, _)| is_same(found)) {
            Some((_, places)) => places.push(self),
            None => groups.push((root, vec![self])),
        }
    }

    /// Determines the names of a root in this place. A location without a valid name fails. A file or directory without a
    /// name gets the given names.
    fn name<T>(&mut self, root: &Root, from: Option<&Location>, given: &[Naming], outcomes: &mut Pending<T>) {
        for (position, location) in &self.locations {
            let is_unnamed = location.reference().is_none() && location.name() == Name::Only;
            if is_unnamed && !given.is_empty() {
                self.names.extend_from_slice(given);
                continue;
            }
            match naming(root, from, location) {
                Ok(naming) => self.names.push(naming),
                Err(error) => outcomes.0[*position] = Some(Err(error)),
            }
        }
    }
}

/// The results so far, by the position of the location.
#[derive(Debug)]
struct Pending<T>(Vec<Option<Result<T>>>);

impl<T> Pending<T> {
    fn new(count: usize) -> Pending<T> {
        Pending((0..count).map(|_| None).collect())
    }

    /// Returns the positions of the locations of a place that have no result yet.
    fn open(&self, place: &Place) -> Vec<usize> {
        let positions = place.locations.iter().map(|(position, _)| *position);
        positions.filter(|position| self.0[*position].is_none()).collect()
    }

    /// Gives the first location of a place its result, and the others one that follows from it.
    fn share(&mut self, place: &Place, outcome: Result<T>, other: impl Fn(&T) -> T) {
        match outcome {
            Err(error) => self.fail(place, error),
            Ok(value) => {
                for position in self.open(place).into_iter().skip(1) {
                    self.0[position] = Some(Ok(other(&value)));
                }
                if let Some(first) = self.open(place).first() {
                    self.0[*first] = Some(Ok(value));
                }
            }
        }
    }

    /// Gives all locations of a place an error.
    fn fail(&mut self, place: &Place, error: Error) {
        if let [position] = self.open(place)[..] {
            self.0[position] = Some(Err(error));
            return;
        }
        let error = Arc::new(error);
        self.open(place).into_iter().for_each(|position| self.0[position] = Some(Err(Error::again(&error))));
    }

    fn finish(self) -> PerTarget<T> {
        self.0.into_iter().map(|outcome| outcome.unwrap_or_else(lost)).collect()
    }
}

impl Pending<Copied> {
    /// Gives all locations of a place its result. The copied blobs are listed with the first one.
    fn share_copied(&mut self, place: &Place, outcome: Result<Copied>) {
        self.share(place, outcome, |copied| {
            let mut present = copied.clone();
            present.blobs.iter_mut().for_each(|(_, put)| *put = Put::Present);
            present
        });
    }
}
