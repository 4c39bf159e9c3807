use ocikit::spec::with_causes;
use ocikit::{Digest, Error, Repository, Tag};

/// Why nothing was published: no tag has changed in any repository.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// Some repositories do not have the image. The others have it without a tag.
    #[error("{}", not_stored(.failures, *.of))]
    Store {
        /// The repositories and their errors.
        failures: Vec<(Repository, Error)>,
        /// The number of repositories.
        of: usize,
    },
    /// The image could not be signed.
    #[error("cannot sign the image in {repository}")]
    Sign {
        /// The repository.
        repository: Box<Repository>,
        /// The reason.
        source: Box<ocikit_sign::Error>,
    },
    /// Every tag would be moved back.
    #[error("cannot publish to {repository}: every tag would be moved back to an older version")]
    AllOlder {
        /// The repository.
        repository: Box<Repository>,
    },
    /// Another process published a tag meanwhile that was not to be replaced.
    #[error("{repository}:{tag} was published meanwhile, as {digest}")]
    Taken {
        /// The repository.
        repository: Box<Repository>,
        /// The tag.
        tag: Tag,
        /// The image that it points to.
        digest: Digest,
    },
    /// The image could not be attested.
    #[error("cannot attest the image in {repository}")]
    Attest {
        /// The repository.
        repository: Box<Repository>,
        /// The reason.
        source: Box<ocikit_sign::Error>,
    },
    /// The image should be signed or attested, and there is no signer.
    #[error("cannot publish: images of this event are signed or attested, and no signer is given")]
    NoSigner,
}

impl PublishError {
    /// Returns why the tags of a repository were not changed, with the causes.
    pub fn at(&self, repository: &Repository) -> String {
        let failed = match self {
            PublishError::Store { failures, .. } => {
                if let Some((_, error)) = failures.iter().find(|(failed, _)| failed == repository) {
                    return with_causes(error);
                }
                None
            }
            PublishError::Sign { repository, .. }
            | PublishError::AllOlder { repository }
            | PublishError::Taken { repository, .. }
            | PublishError::Attest { repository, .. } => Some(&**repository),
            PublishError::NoSigner => Some(repository),
        };
        match failed == Some(repository) {
            true => with_causes(self),
            false => format!("no tag was changed, because another repository failed: {}", with_causes(self)),
        }
    }
}

fn not_stored(failures: &[(Repository, Error)], of: usize) -> String {
    let names: Vec<_> = failures.iter().map(|(repository, _)| repository.to_string()).collect();
    format!("cannot store the image in {} of {of} repositories; no tag was changed: {}", names.len(), names.join(", "))
}
