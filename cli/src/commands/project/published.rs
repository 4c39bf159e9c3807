//! What registries have of the images of a project.

use ocikit::{Location, SessionOptions};
use ocikit_publish::project::{
    PlanOptions, Project, PublishedImage, SurveyError, SurveyOptions, base_digests, reference, survey,
};

use crate::context::Context;
use crate::failure::{Failure, Result};

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
    // A credential of the command line is for this registry, and not for those of base images.
    let sample = Location::registry(reference(registry, &first.name, &first.version.value)?);
    let session = context.session_with(&[&sample], SessionOptions::default())?;
    let selected = match &options.touched {
        Some(touched) => project.with_descendants(|position| touched.contains(&position)),
        None => vec![true; project.images().len()],
    };
    let found = survey(&session, project, registry, |position| selected[position], SurveyOptions::default()).await?;
    if bases {
        let digests = base_digests(&session, project, |position| selected[position], SurveyOptions::default());
        options.bases = Some(digests.await?);
    }
    Ok(found.published)
}

impl From<SurveyError> for Failure {
    fn from(error: SurveyError) -> Failure {
        let message = format!("{error}: ");
        let failure = Failure::from(error.source);
        Failure { message: message + &failure.message, ..failure }
    }
}
