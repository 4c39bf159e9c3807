//! Builds the images of a plan along the graph.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use ocikit::image::{ComposeOptions, Member, create_index};
use ocikit::layout::{Dir, Siblings};
use ocikit::{Descriptor, Digest, Error, Location, Name, Naming, Platform, Reference, Root, Session, Sink, Tag};
use ocikit_build::{BuildContext, Dockerfile, NamedContext, NamedSource, Node, Results, Solve};

use super::dockerfile::resolved;
use super::model::{BuildObserver, BuildOptions, BuildReport, Done, ImageError, ImageOutcome, ImageReport};
use super::noise::without_noise;
use super::placement::{Placed, Placement};
use super::publishing::{marked, publish_image};
use super::schedule::Schedule;
use crate::git::GitState;
use crate::project::layouts::{existing_names, forget_other_names, opened};
use crate::project::model::{DOCKERFILE, Dependency, Project, ProjectImage};
use crate::project::plan::{BuildPlan, Decision, INPUTS_ANNOTATION, PlannedImage, Published, one, reference, tag_of};
use crate::project::version::Version;
use crate::publish::GuardedTag;
use crate::tags::{AllowedEnvironment, TagRequest, TagSet, compute};

/// Builds the selected images of a plan, by position, each after those that it depends on, several at a time. Every image becomes an index
/// in a layout of its own; images that depend on it read it there. An image whose layout has it already, built from the same
/// files for the same platforms, is not built again, so a run that was interrupted goes on where it was.
///
/// # Errors
///
/// [`ImageError`] if the inputs of the project cannot be read. The failures of images are in the report.
pub async fn build_project(
    session: &Session,
    project: &Project,
    plan: &BuildPlan,
    selected: &[usize],
    nodes: &[Node],
    options: &BuildOptions<'_>,
    observer: &dyn BuildObserver,
) -> Result<BuildReport, ImageError> {
    let inputs = project.inputs()?;
    let siblings = Arc::new(Siblings::scan(&options.layouts).await?);
    let mut schedule = Schedule::new(project, selected, options.keep_going);
    let mut placement = Placement::new(nodes.to_vec());
    let mut running: FuturesUnordered<BoxFuture<'_, (usize, Option<Placed>, ImageOutcome)>> = FuturesUnordered::new();
    let mut outcomes = BTreeMap::new();
    loop {
        while running.len() < options.parallel.max(1)
            && let Some(position) = schedule.next()
        {
            let image = &project.images()[position];
            let parents: Vec<_> = image.parents().collect();
            let placed = placement.place(position, &plan.images[position].platforms, &parents);
            let (planned, inputs) = (&plan.images[position], inputs[position]);
            let one = One { session, project, plan, options, image, planned, inputs, siblings: &siblings };
            running.push(one.start(position, placed, observer).boxed());
        }
        let Some((position, placed, outcome)) = running.next().await else { break };
        if let Some(placed) = &placed {
            placement.release(placed);
        }
        observer.ended(&project.images()[position].name, &outcome);
        match outcome {
            ImageOutcome::Failed(_) => schedule.failed(position),
            ImageOutcome::Built(_) | ImageOutcome::Present(_) | ImageOutcome::Skipped => schedule.done(position),
        }
        outcomes.insert(position, outcome);
    }
    for position in schedule.not_started() {
        outcomes.insert(position, ImageOutcome::Skipped);
    }
    let images = outcomes.into_iter().map(|(position, outcome)| ImageReport { position, outcome });
    Ok(BuildReport { images: images.collect() })
}

/// Returns the layout of an image.
pub(super) fn layout_of(options: &BuildOptions<'_>, image: &ProjectImage) -> PathBuf {
    options.layouts.join(&image.name)
}

/// The build of one image.
struct One<'a> {
    session: &'a Session,
    project: &'a Project,
    plan: &'a BuildPlan,
    options: &'a BuildOptions<'a>,
    image: &'a ProjectImage,
    planned: &'a PlannedImage,
    inputs: Digest,
    siblings: &'a Arc<Siblings>,
}

impl<'a> One<'a> {
    /// Starts the image on its builders.
    async fn start(
        self,
        position: usize,
        placed: Result<Placed, Platform>,
        observer: &dyn BuildObserver,
    ) -> (usize, Option<Placed>, ImageOutcome) {
        let placed = match placed {
            Ok(placed) => placed,
            Err(platform) => return (position, None, ImageOutcome::Failed(ImageError::NoBuilder(platform))),
        };
        let outcome = match self.run(&placed.nodes, observer).await {
            Ok((done, true)) => ImageOutcome::Built(done),
            Ok((done, false)) => ImageOutcome::Present(done),
            Err(error) => ImageOutcome::Failed(error),
        };
        (position, Some(placed), outcome)
    }

    /// Returns the image, and whether it was built.
    async fn run(&self, nodes: &[Node], observer: &dyn BuildObserver) -> Result<(Done, bool), ImageError> {
        let layout = layout_of(self.options, self.image);
        let tags = self.tags()?;
        let (root, is_built) = match self.present().await? {
            Some(root) => (self.marked_again(root).await?, false),
            None => {
                let steps = observer.started(&self.image.name, &self.image.version.value);
                let steps = steps.map(|steps| without_noise(steps, &self.options.registry_argument));
                (self.build(nodes, steps).await?, true)
            }
        };
        let digest = root.digest();
        let names = tags.tags.iter().map(|planned| planned.tag.to_string()).collect();
        let mut done = Done { digest, layout, tags: names, published: None, report: None };
        if self.options.publishing.is_some() {
            observer.publishing(&self.image.name, &self.image.version.value);
        }
        let version = GuardedTag { tag: self.image.version.value.parse()?, before: self.planned.published };
        let repository = self.reference(self.image)?.repository().clone();
        match publish_image(self.session, &root, repository, tags, self.options, version, &mut done).await? {
            None => Ok((done, is_built)),
            Some(digest) => Ok((self.published_meanwhile(digest, done).await?, false)),
        }
    }

    /// Takes the image that another process published under the version, if it is complete: images that are built from this
    /// one find it in the layout.
    async fn published_meanwhile(&self, digest: Digest, done: Done) -> Result<Done, ImageError> {
        let reference = self.reference(self.image)?;
        let by_digest = Reference::digested(reference.repository().clone(), digest);
        if let Published::Present { platforms: found, .. } = one(self.session, &by_digest).await? {
            let lacks = |platform: &&Platform| found.iter().all(|found| found.normalized() != platform.normalized());
            let missing: Vec<_> = self.planned.platforms.iter().filter(lacks).map(ToString::to_string).collect();
            if !missing.is_empty() {
                return Err(ImageError::Taken { reference: Box::new(reference), digest, missing });
            }
        }
        let root = self.session.open(&Location::registry(by_digest)).await?;
        self.store(&root, self.sink(&done.layout).await?).await?;
        let tags = vec![self.image.version.value.clone()];
        Ok(Done { digest, tags, published: Some(reference.repository().clone()), report: None, ..done })
    }

    /// Returns the reference of the version of an image.
    fn reference(&self, image: &ProjectImage) -> Result<Reference, ImageError> {
        Ok(reference(&self.options.registry, &image.name, &image.version.value)?)
    }

    /// Returns the tags: the version, and `latest` if the version is `x.y.z`.
    fn tags(&self) -> Result<TagSet, ImageError> {
        let version = &self.image.version.value;
        let mut request = TagRequest::default();
        match Version::parse(version) {
            Some(_) => request.version = Some(version.clone()),
            None => request.named = vec![format!("version={version}").parse()?],
        }
        let time = jiff::Timestamp::UNIX_EPOCH;
        Ok(compute(&request, &GitState::default(), &AllowedEnvironment::default(), time)?)
    }

    fn location(&self, image: &ProjectImage) -> Result<Location, ImageError> {
        let tag: Tag = image.version.value.parse()?;
        Ok(Location::layout(layout_of(self.options, image)).with_name(Name::Tag(tag)))
    }

    /// Returns the image of the layout if it was built from the same files for these platforms, with provenance if that is
    /// asked for, unless every step has to run.
    async fn present(&self) -> Result<Option<Root>, ImageError> {
        if self.options.solve.no_cache {
            return Ok(None);
        }
        let Some(root) = opened(self.session, &self.location(self.image)?).await? else { return Ok(None) };
        let Root::Index(index) = &root else { return Ok(None) };
        if root.annotations().get(INPUTS_ANNOTATION) != Some(self.inputs.to_string().as_str()) {
            return Ok(None);
        }
        if self.options.solve.has_provenance() && !index.manifests().iter().any(Descriptor::is_attestation) {
            return Ok(None);
        }
        let found: Vec<_> =
            index.platforms().await?.into_iter().flatten().map(|platform| platform.normalized()).collect();
        let is_complete = self.planned.platforms.iter().all(|platform| found.contains(&platform.normalized()));
        Ok(is_complete.then_some(root))
    }

    async fn build(&self, nodes: &[Node], steps: Option<Arc<dyn ocikit_build::Observer>>) -> Result<Root, ImageError> {
        let solve = self.solve().await?;
        let layout = layout_of(self.options, self.image);
        let sink = self.sink(&layout).await?;
        let mut results = Results::default();
        results.image = Some(sink.clone());
        let built = ocikit_build::build(&solve, nodes, steps, &results).await?;
        let missing = || Error::not_found("the image in the output of BuildKit", layout.display());
        let root = as_index(built.root.ok_or_else(missing)?).await?;
        let root = marked(&root, self.options, &self.inputs).await?;
        self.store(&root, sink).await
    }

    /// Stores an image in its layout, and opens it there.
    async fn store(&self, root: &Root, sink: Arc<dyn Sink>) -> Result<Root, ImageError> {
        let layout = layout_of(self.options, self.image);
        let existing = existing_names(self.session, &layout).await?;
        let names = self.names(&existing)?;
        forget_other_names(&layout, &existing, &names).await?;
        self.session.copy_to(root, &sink, names).await?;
        drop(sink);
        Ok(self.session.open(&self.location(self.image)?).await?)
    }

    /// Gives an image of the layout the annotations of this run, if it has others.
    async fn marked_again(&self, root: Root) -> Result<Root, ImageError> {
        let marked = marked(&root, self.options, &self.inputs).await?;
        if marked.digest() == root.digest() {
            return Ok(root);
        }
        let sink = self.sink(&layout_of(self.options, self.image)).await?;
        self.store(&marked, sink).await
    }

    /// Opens a layout for writing. It shares blobs with the other layouts.
    async fn sink(&self, layout: &Path) -> Result<Arc<dyn Sink>, ImageError> {
        Ok(Arc::new(Dir::create(layout).await?.linking(self.siblings.clone())))
    }

    /// Returns the names of the image in its layout. `latest` is not moved back.
    fn names(&self, existing: &[String]) -> Result<Vec<Naming>, ImageError> {
        let existing: Vec<Tag> = existing.iter().filter_map(|name| tag_of(name).parse().ok()).collect();
        let tags = self.tags()?.never_back(&existing);
        let full = |tag: &Tag| Some(format!("{}/{}:{tag}", self.options.registry, self.image.name));
        let name = |planned: crate::tags::PlannedTag| {
            let full = full(&planned.tag);
            Naming::of_tag(planned.tag).full(full)
        };
        Ok(tags.tags.into_iter().map(name).collect())
    }

    /// Returns the inputs of the build.
    async fn solve(&self) -> Result<Solve, ImageError> {
        let directory = self.project.root().join(&self.image.directory);
        let mut solve = self.options.solve.clone();
        solve.dockerfile = match self.image.has_refused_variables {
            true => Dockerfile::Text(resolved(&directory.join(DOCKERFILE), self.options, &self.planned.platforms)?),
            false => Dockerfile::File(directory.join(DOCKERFILE)),
        };
        solve.context = BuildContext::Directory(directory);
        solve.platforms.clone_from(&self.planned.platforms);
        let argument = &self.options.registry_argument;
        if !solve.build_arguments.iter().any(|(name, _)| name == argument) {
            solve.build_arguments.push((argument.clone(), self.options.registry.clone()));
        }
        solve.name = Some(format!("{}/{}:{}", self.options.registry, self.image.name, self.image.version.value));
        for dependency in &self.image.dependencies {
            if let Some(context) = self.context(dependency).await?
                && !solve.named_contexts.iter().any(|known| known.name == context.name)
            {
                solve.named_contexts.push(context);
            }
        }
        Ok(solve)
    }

    /// Returns the context that replaces a reference to another image of the project, if the reference means its present
    /// version. Other versions come from the registry.
    async fn context(&self, dependency: &Dependency) -> Result<Option<NamedContext>, ImageError> {
        let parent = &self.project.images()[dependency.image];
        let is_present = dependency.tag.as_ref().is_none_or(|tag| *tag == parent.version.value || tag == "latest");
        if dependency.digest.is_some() || !is_present {
            return Ok(None);
        }
        let name = match &dependency.context {
            Some(name) => name.clone(),
            None => context_name(&self.options.registry, &parent.name, dependency.tag.as_deref()),
        };
        let location = self.location(parent)?;
        // A layout may have what was built from other files; what is published counts.
        let is_published = |root: &Root| match &self.plan.images[dependency.image].decision {
            Decision::UpToDate { digest } => root.digest() == *digest,
            Decision::Build(_) | Decision::NotTouched => true,
        };
        let root = match opened(self.session, &location).await?.filter(is_published) {
            Some(root) => root,
            // It was not built in this run: it is copied once, with the credentials of this program.
            None => {
                let from = self.reference(parent)?;
                let root = match self.session.open(&Location::registry(from.clone())).await {
                    Err(error) if error.is_not_found() => {
                        let stage = self.plan.images[dependency.image].stage;
                        return Err(ImageError::MissingParent { reference: Box::new(from), stage });
                    }
                    root => root?,
                };
                let names = vec![Naming::of_tag(parent.version.value.parse()?)];
                let layout = layout_of(self.options, parent);
                let sink = self.sink(&layout).await?;
                forget_other_names(&layout, &existing_names(self.session, &layout).await?, &names).await?;
                self.session.copy_to(&root, &sink, names).await?;
                self.session.open(&location).await?
            }
        };
        let source = NamedSource::Layout { path: layout_of(self.options, parent), digest: root.digest() };
        Ok(Some(NamedContext { name, source }))
    }
}

/// Returns an image as an index of one entry; an index stays as it is.
async fn as_index(root: Root) -> Result<Root, ImageError> {
    match root {
        Root::Image(_) => {
            let composed = create_index(&[Member::new(root)], &ComposeOptions::default()).await?;
            Ok(Root::Index(composed.index))
        }
        Root::Index(_) | Root::Other(_) => Ok(root),
    }
}

/// Returns the name of the context that replaces a reference. BuildKit looks for the short form of a name: without Docker
/// Hub, and without the tag `latest`.
fn context_name(registry: &str, name: &str, tag: Option<&str>) -> String {
    let registry = registry.strip_prefix("docker.io/").unwrap_or(registry);
    let registry = registry.strip_prefix("library/").unwrap_or(registry);
    match tag {
        None | Some("latest") => format!("{registry}/{name}"),
        Some(tag) => format!("{registry}/{name}:{tag}"),
    }
}
