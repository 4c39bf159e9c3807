//! What registries have of the images of a project.

use std::collections::{BTreeMap, BTreeSet};

use ocikit::{Digest, Location, SessionOptions};
use ocikit_publish::project::{PlanOptions, Project, PublishedImage, SurveyOptions, reference, survey};

use crate::context::Context;
use crate::failure::{Code, Failure, Result};

/// Asks the registry for all images, or for those that a change touches. With `bases`, asks for the base images outside of the
/// project too, each once.
pub(super) async fn find(
    context: &Context,
    project: &Project,
    registry: &str,
    bases: bool,
    options: &mut PlanOptions,
) -> Result<Vec<PublishedImage>> {
    let Some(first) = project.images().first() else { return Ok(Vec::new()) };
    let sample = Location::registry(reference(registry, &first.name, &first.version.value)?);
    let session = context.session_with(&[&sample], SessionOptions::default())?;
    let selected = match &options.touched {
        Some(touched) => project.with_descendants(|position| touched.contains(&position)),
        None => vec![true; project.images().len()],
    };
    let found = survey(&session, project, registry, |position| selected[position], SurveyOptions::default()).await?;
    if bases {
        let names: BTreeSet<&String> = project
            .images()
            .iter()
            .zip(&selected)
            .filter(|(_, selected)| **selected)
            .flat_map(|(image, _)| &image.bases)
            .collect();
        options.bases = Some(digests(context, names).await?);
    }
    Ok(found.published)
}

/// Returns the digests of base images. One that does not exist has none: its build will say so.
async fn digests(context: &Context, names: BTreeSet<&String>) -> Result<BTreeMap<String, Digest>> {
    let mut found = BTreeMap::new();
    for name in names {
        let Ok(location @ Location::Registry(_)) = name.parse::<Location>() else { continue };
        let session = context.session_with(&[&location], SessionOptions::default())?;
        match session.open(&location).await.map_err(Failure::from) {
            Ok(root) => drop(found.insert(name.clone(), root.digest())),
            Err(Failure { code: Code::Missing, .. }) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(found)
}
