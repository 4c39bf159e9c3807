//! The signing services that record the tags of a publication.

use ocikit::Reference;
use ocikit_sign::Http;

use crate::publish::{Published, TagState};
use crate::signify::{self, Service, Target};

/// The services, each with the client that has its certificate.
#[derive(Debug)]
pub struct Recorder {
    services: Vec<(Service, Http)>,
}

/// What the services did.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Recorded {
    /// The names of the services that accepted the request.
    pub accepted: Vec<String>,
    /// The services that did not, and why.
    pub failed: Vec<(String, signify::Error)>,
}

impl Recorder {
    /// Creates a recorder.
    pub fn new(services: Vec<(Service, Http)>) -> Recorder {
        Recorder { services }
    }

    /// Records the tags that point to the image, with the digest that was published, whatever the tags point to now.
    ///
    /// # Errors
    ///
    /// [`signify::Error`] if nothing can be recorded. A service that does not accept the request is in the result.
    pub async fn record(&self, published: &Published) -> signify::Result<Recorded> {
        let mut targets = Vec::new();
        for target in &published.targets {
            for tag in target.tags.iter().filter(|tag| matches!(tag.state, TagState::Verified)) {
                let reference = Reference::tagged(target.destination.push.clone(), tag.planned.tag.clone());
                targets.push(Target::new(&reference, &published.root)?);
            }
        }
        let mut recorded = Recorded::default();
        for (service, client) in &self.services {
            match signify::send(service, &targets, client).await {
                Ok(_) => recorded.accepted.push(service.name.clone()),
                Err(error) => recorded.failed.push((service.name.clone(), error)),
            }
        }
        Ok(recorded)
    }
}
