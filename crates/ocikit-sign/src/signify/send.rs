use ocikit_http::{Document, RequestError};
use ocikit_spec::{Descriptor, Digest, Reference};
use serde_json::json;

use crate::error::{Error, Result};
use crate::http::{Http, times};
use crate::signify::Service;

/// A tag and the digest that it points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The globally unique name (GUN) of the repository; Docker Hub is `index.docker.io` in it.
    pub gun: String,
    /// The tag.
    pub tag: String,
    /// The SHA-256 digest of the image or index.
    pub digest: Digest,
    /// The size of the manifest or index, in bytes.
    pub size: u64,
}

impl Target {
    /// Creates a target from a reference and its descriptor.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if the reference has no tag, which is what the service records, or the digest is not
    /// SHA-256.
    pub fn new(reference: &Reference, found: &Descriptor) -> Result<Target> {
        let tag = reference.tag().ok_or_else(|| Error::Unsupported(format!("{reference} has no tag")))?;
        if found.digest.algorithm().name() != "sha256" {
            return Err(Error::Unsupported(format!("{} is not a SHA-256 digest", found.digest)));
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

/// The response of a service that accepted the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The status, which is 202.
    pub status: u16,
    /// The body of the response.
    pub body: String,
    /// The number of attempts.
    pub attempts: u32,
}

/// Returns the body of the request: one collection per target.
pub fn body(targets: &[Target]) -> String {
    let collection = |target: &Target| {
        let Target { gun, tag, digest, size } = target;
        json!({"gun": gun, "targets": [{"name": tag, "byteSize": size, "digest": digest.hex()}]})
    };
    json!({"trustedCollections": targets.iter().map(collection).collect::<Vec<_>>()}).to_string()
}

/// The only status that means success.
const ACCEPTED: u16 = 202;
/// The maximum number of attempts.
const MAX_ATTEMPTS: u32 = 5;
/// The maximum size of a response, in bytes.
const MAX_RESPONSE_BYTES: usize = 64 << 10;
/// How many characters of a response an error quotes.
const MAX_QUOTED_CHARACTERS: usize = 200;

/// Sends a signing request, with up to 5 attempts. `http` must have the client certificate.
///
/// # Errors
///
/// [`Error::Service`] with the response, if its status is not 202.
pub async fn send(service: &Service, targets: &[Target], http: &Http) -> Result<Accepted> {
    if targets.is_empty() {
        return Err(Error::Unsupported("there is nothing to sign".to_owned()));
    }
    let pause = |attempts, outcome: Result<&Document, &RequestError>| match outcome {
        Ok(response) if response.status == ACCEPTED || is_final(response.status) => None,
        _ => (attempts < MAX_ATTEMPTS).then_some(service.pause),
    };
    let body = body(targets).into_bytes();
    let sent = http.post_until(&service.endpoint, "application/json", body, MAX_RESPONSE_BYTES, pause).await;
    match sent {
        Ok(Document { status: ACCEPTED, body, attempts, .. }) => {
            Ok(Accepted { status: ACCEPTED, body: String::from_utf8_lossy(&body).into_owned(), attempts })
        }
        Ok(response) => Err(Error::Service { place: place(service), problem: describe(&response) }),
        Err(Error::Service { problem, .. }) => Err(Error::Service { place: place(service), problem }),
        Err(error) => Err(error),
    }
}

/// Returns whether a retry is pointless. Client errors are final, except for 408, 425 and 429.
fn is_final(status: u16) -> bool {
    (400..500).contains(&status) && ![408, 425, 429].contains(&status)
}

fn describe(response: &Document) -> String {
    let text = String::from_utf8_lossy(&response.body);
    // Any white space becomes a space, so that the message is one line.
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let text: String = text.chars().take(MAX_QUOTED_CHARACTERS).collect();
    let said = if text.is_empty() { text } else { format!(" and said: {text}") };
    let times = if response.attempts == 1 { ", asked once".to_owned() } else { times(response.attempts) };
    format!("it answered {} and not {ACCEPTED}{said}{times}", response.status)
}

/// Returns name and address of the service without the query, which may be secret.
fn place(service: &Service) -> String {
    let endpoint = service.endpoint.split(['?', '#']).next().unwrap_or_default();
    format!("{} at {endpoint}", service.name)
}

#[cfg(test)]
mod tests {
    use ocikit_spec::MediaType;

    use super::*;

    #[test]
    fn repositories_have_globally_unique_names() {
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
    fn client_errors_are_final() {
        for (status, expected) in [(200, false), (302, false), (400, true), (403, true), (429, false), (500, false)] {
            assert_eq!(is_final(status), expected, "{status}");
        }
    }
}
