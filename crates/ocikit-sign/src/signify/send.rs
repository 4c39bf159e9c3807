use ocikit_spec::{Descriptor, Digest, Reference};
use serde_json::json;

use crate::error::{Error, Result};
use crate::http::{Fault, Http, HttpAnswer};
use crate::signify::Service;

/// A tag, and what it is to mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The globally unique name of the repository: Docker Hub is `index.docker.io` in it.
    pub gun: String,
    /// The tag.
    pub tag: String,
    /// The digest of the image or index, which is of SHA-256.
    pub digest: Digest,
    /// How many bytes its manifest or index has.
    pub size: u64,
}

impl Target {
    /// What a reference leads to.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if it has no tag, since a digest has no name that could be recorded, or if the digest is of
    /// another algorithm.
    pub fn new(reference: &Reference, found: &Descriptor) -> Result<Target> {
        let tag = reference.tag().ok_or_else(|| Error::Unsupported(format!("{reference} has no tag")))?;
        if found.digest.algorithm().name() != "sha256" {
            return Err(Error::Unsupported(format!("{} is no digest of SHA-256", found.digest)));
        }
        let repository = reference.repository();
        let registry = match repository.registry().is_docker_hub() {
            true => "index.docker.io",
            false => repository.registry().as_str(),
        };
        let gun = format!("{registry}/{}", repository.path());
        Ok(Target { gun, tag: tag.to_string(), digest: found.digest, size: found.size })
    }
}

/// A service has taken the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The status of its answer, which is 202.
    pub status: u16,
    /// What it said.
    pub body: String,
    /// How often it was asked.
    pub attempts: u32,
}

/// What is sent: one collection for each target.
pub fn body(targets: &[Target]) -> String {
    let collection = |target: &Target| {
        let Target { gun, tag, digest, size } = target;
        json!({"gun": gun, "targets": [{"name": tag, "byteSize": size, "digest": digest.hex()}]})
    };
    json!({"trustedCollections": targets.iter().map(collection).collect::<Vec<_>>()}).to_string()
}

/// The one status that is a success.
const ACCEPTED: u16 = 202;
/// How often a service is asked.
const ATTEMPTS: u32 = 5;
/// What is read of an answer, and what of that is told.
const LONGEST_ANSWER: usize = 64 << 10;
const LONGEST_TOLD: usize = 200;

/// Asks a service to sign, again where that may help: five times in all. `http` has the certificate of the client.
///
/// # Errors
///
/// [`Error::Service`] unless it has answered 202; what it answered is told.
pub async fn send(service: &Service, targets: &[Target], http: &Http) -> Result<Accepted> {
    if targets.is_empty() {
        return Err(Error::Unsupported("nothing is to be signed".to_owned()));
    }
    let pause = |attempts, outcome: &Result<HttpAnswer, Fault>| match outcome {
        Ok(answer) if answer.status == ACCEPTED || is_final(answer.status) => None,
        _ => (attempts < ATTEMPTS).then_some(service.pause),
    };
    let body = body(targets).into_bytes();
    let sent = http.post_until(&service.endpoint, "application/json", &[], body, LONGEST_ANSWER, pause).await;
    match sent {
        Ok(HttpAnswer { status: ACCEPTED, body, attempts, .. }) => {
            Ok(Accepted { status: ACCEPTED, body: String::from_utf8_lossy(&body).into_owned(), attempts })
        }
        Ok(answer) => Err(Error::Service { place: place(service), problem: told(&answer) }),
        Err(Error::Service { problem, .. }) => Err(Error::Service { place: place(service), problem }),
        Err(error) => Err(error),
    }
}

/// Whether it makes no sense to ask again: what is wrong with a request stays wrong, unless the service was only busy.
fn is_final(status: u16) -> bool {
    (400..500).contains(&status) && ![408, 425, 429].contains(&status)
}

fn told(answer: &HttpAnswer) -> String {
    let text = String::from_utf8_lossy(&answer.body);
    // On one line, whatever it says.
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let text: String = text.chars().take(LONGEST_TOLD).collect();
    let said = if text.is_empty() { text } else { format!(" and said: {text}") };
    let times = if answer.attempts == 1 { ", asked once".to_owned() } else { answer.times() };
    format!("it answered {} and not {ACCEPTED}{said}{times}", answer.status)
}

/// Host and path: a query is nobody's business.
fn place(service: &Service) -> String {
    let endpoint = service.endpoint.split(['?', '#']).next().unwrap_or_default();
    format!("{} at {endpoint}", service.name)
}

#[cfg(test)]
mod tests {
    use ocikit_spec::MediaType;

    use super::*;

    #[test]
    fn repositories_have_their_whole_names() {
        let found = Descriptor::new(MediaType::OCI_INDEX, Digest::sha256_of(b"x"), 7);
        for (reference, gun, tag) in [
            ("alpine", "index.docker.io/library/alpine", "latest"),
            ("acme/app:1", "index.docker.io/acme/app", "1"),
            ("localhost:5000/a/b:v1.2", "localhost:5000/a/b", "v1.2"),
        ] {
            let target = Target::new(&reference.parse().unwrap(), &found).unwrap();
            assert_eq!((target.gun.as_str(), target.tag.as_str()), (gun, tag));
        }
        let alone = format!("alpine@{}", found.digest);
        assert!(Target::new(&alone.parse().unwrap(), &found).is_err());
        let long = format!("sha512:{}", "0".repeat(128)).parse().unwrap();
        let long = Descriptor::new(MediaType::OCI_INDEX, long, 7);
        assert!(Target::new(&"alpine".parse().unwrap(), &long).is_err());
    }

    #[test]
    fn what_is_wrong_with_a_request_stays_wrong() {
        for (status, expected) in [(200, false), (302, false), (400, true), (403, true), (429, false), (500, false)] {
            assert_eq!(is_final(status), expected, "{status}");
        }
    }
}
