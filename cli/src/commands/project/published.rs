//! What registries have of the images of a project.

use ocikit::{Error, Location, Session, SessionOptions};
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
    let is_asked_and_absent =
        |(published, asked): (&PublishedImage, &bool)| !asked || matches!(published, PublishedImage::Absent);
    if selected.contains(&true) && found.published.iter().zip(&selected).all(is_asked_and_absent) {
        warn_unless_registry(context, &session, &sample).await;
    }
    if bases {
        let digests = base_digests(&session, project, |position| selected[position], SurveyOptions::default());
        options.bases = Some(digests.await?);
    }
    Ok(found.published)
}

/// Warns if a place that has none of the images does not answer as a registry. A web server answers 404 to every request; so do
/// some registries, with a web page too, for an image that does not exist, so the answers about the images do not tell.
pub(super) async fn warn_unless_registry(context: &Context, session: &Session, location: &Location) {
    let Location::Registry(reference) = location else { return };
    let registry = reference.registry();
    let why = match session.client().check(registry).await {
        Err(Error::NotFound { .. }) => "it answers 404 to `GET /v2/`".to_owned(),
        Err(error @ Error::Protocol { .. }) => error.to_string(),
        // Everything else was said by the answers about the images.
        _ => return,
    };
    context.output.say(format!("warning: {registry} has none of the images, and does not answer as a registry: {why}"));
}

impl From<SurveyError> for Failure {
    fn from(error: SurveyError) -> Failure {
        let message = format!("{error}: ");
        let failure = Failure::from(error.source);
        Failure { message: message + &failure.message, ..failure }
    }
}
