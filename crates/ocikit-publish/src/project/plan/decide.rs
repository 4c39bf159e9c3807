use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ocikit::Platform;

use super::model::{BuildPlan, Decision, PlanOptions, PlannedImage, Published, Reason};
use crate::project::model::{Project, ProjectImage};

impl Project {
    /// Decides what to build. `published` has what the registry has of each image, in the order of the project; `None` if
    /// the registry was not asked.
    ///
    /// The result depends on the arguments only, so machines that plan the same commit agree.
    pub fn plan(&self, published: Option<&[Published]>, options: &PlanOptions) -> BuildPlan {
        let selected = match &options.touched {
            Some(touched) => self.with_descendants(|position| touched.contains(&position)),
            None => vec![true; self.images().len()],
        };
        let mut images: Vec<PlannedImage> = Vec::with_capacity(self.images().len());
        for (position, image) in self.images().iter().enumerate() {
            let platforms = platforms_of(image, options);
            let decision = match published {
                _ if !selected[position] => Decision::NotTouched,
                None => Decision::Build(Reason::NotChecked),
                Some(published) => decide(position, image, &platforms, &published[position], options),
            };
            let published = match published.map(|published| &published[position]) {
                Some(Published::Present { digest, .. }) => Some(*digest),
                Some(Published::Absent) | None => None,
            };
            images.push(PlannedImage { position, stage: image.stage, platforms, decision, published });
        }
        BuildPlan { images }
    }

    /// Returns the images that changed files belong to. Paths are relative to the project; a file outside of the directories of
    /// the images touches none.
    pub fn touched_by<'a>(&self, paths: impl IntoIterator<Item = &'a Path>) -> BTreeSet<usize> {
        let directories: BTreeMap<&Path, usize> =
            self.images().iter().enumerate().map(|(position, image)| (image.directory.as_path(), position)).collect();
        let image_of = |path: &'a Path| path.ancestors().find_map(|directory| directories.get(directory)).copied();
        paths.into_iter().filter_map(image_of).collect()
    }
}

/// Returns the platforms that an image is built for, without duplicates.
fn platforms_of(image: &ProjectImage, options: &PlanOptions) -> Vec<Platform> {
    let own = image.platforms.as_ref().unwrap_or(&options.default_platforms);
    let mut platforms: Vec<Platform> = Vec::new();
    for platform in options.only_platforms.as_ref().unwrap_or(own) {
        if !platforms.iter().any(|known| known.normalized() == platform.normalized()) {
            platforms.push(platform.clone());
        }
    }
    platforms
}

fn decide(
    position: usize,
    image: &ProjectImage,
    platforms: &[Platform],
    published: &Published,
    options: &PlanOptions,
) -> Decision {
    let Published::Present { digest, platforms: found, inputs, base } = published else {
        return Decision::Build(Reason::NotPublished);
    };
    let has = |platform: &&Platform| found.iter().any(|found| found.normalized() == platform.normalized());
    let missing: Vec<_> = platforms.iter().filter(|platform| !has(platform)).map(ToString::to_string).collect();
    if !missing.is_empty() {
        return Decision::Build(Reason::MissingPlatforms { missing });
    }
    if let Some(expected) = options.inputs.as_ref().and_then(|inputs| inputs.get(position))
        && inputs.as_deref() != Some(expected.to_string().as_str())
    {
        return Decision::Build(Reason::InputsChanged);
    }
    if let (Some(bases), Some((name, built_from))) = (&options.bases, base)
        && image.bases.contains(name)
        && bases.get(name).is_some_and(|now| now.to_string() != *built_from)
    {
        return Decision::Build(Reason::BaseChanged { base: name.clone() });
    }
    Decision::UpToDate { digest: *digest }
}
