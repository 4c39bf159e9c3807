use std::sync::Arc;

use jiff::Timestamp;
use ocikit_image::{Memory, Naming, Root, SourceExt};
use ocikit_spec::{Descriptor, Digest, Document, MediaType, annotations};

use crate::cosign::bundle;
use crate::error::{Error, Result};
use crate::format::Format;
use crate::found::{LONGEST, find};
use crate::refusal::Refusal;
use crate::sign::{Signature, is_of, wrapped};
use crate::signer::Signer;
use crate::sigstore::Vouchers;
use crate::subjects::{Depth, Subject, subjects};

/// Which of BuildKit's attestations are signed.
#[derive(Debug, Clone)]
pub struct PromoteOptions {
    /// Of these types, all if none is named.
    pub predicate_types: Vec<String>,
    /// The digest that the root has to have.
    pub expect: Option<Digest>,
    /// The time that the attestations say they were signed at.
    pub created: Timestamp,
    /// What is put beside them: certificates, entries in logs, timestamps.
    pub vouchers: Option<Vouchers>,
}

/// Signs what BuildKit says about the images of an index: each statement, byte for byte, in a bundle about the image.
/// Nothing is written, and BuildKit's own stay where they are.
///
/// A statement has to be about the image that its entry and its manifest name, and about nothing else; BuildKit leaves the
/// subject out where the image had no name yet, and then it is put in. A statement that the same key signed already is not
/// signed again, unless something is put beside signatures.
///
/// # Errors
///
/// [`Error::Refused`] if a statement is about something else, [`Error::Unsupported`] if there is none to be signed,
/// [`Error::Moved`] if the root is not what was expected; [`Error::Signer`]; those of the place.
pub async fn promote(root: &Root, signer: &dyn Signer, options: &PromoteOptions) -> Result<Vec<Signature>> {
    if let Some(expected) = options.expect.filter(|expected| *expected != root.digest()) {
        return Err(Error::Moved { expected: Box::new(expected), actual: Box::new(root.digest()) });
    }
    is_of(signer, options.vouchers.as_ref())?;
    let memory = Arc::new(Memory::new());
    let (mut made, mut is_there) = (Vec::new(), false);
    let all = subjects(root, Depth::Everything).await?;
    for attestation in all.iter().filter(|subject| subject.root.descriptor().is_attestation()) {
        let image = about(attestation, &all).map_err(Error::Refused)?;
        let signed = match &options.vouchers {
            None => find(&**image.root.source(), &image.digest(), &[Format::Cosign]).await?,
            // What is put beside a signature may be what an earlier one lacks.
            Some(_) => Vec::new(),
        };
        for layer in attestation.root.document().iter().flat_map(Document::children) {
            let Some(statement) = statement(attestation, layer, options).await? else { continue };
            let (statement, kind) = bundle::statement_about(&statement, &image.digest()).map_err(Error::Refused)?;
            if kind == bundle::PREDICATE_TYPE {
                return Err(Error::Unsupported("a statement of that type is a signature".to_owned()));
            }
            let is_wanted = options.predicate_types.is_empty() || options.predicate_types.contains(&kind);
            if !is_wanted {
                continue;
            }
            let mut bundles = signed.iter().filter_map(|found| found.content.as_ref().ok());
            if bundles.any(|(_, bundle)| bundle::is_of(bundle, &statement, signer.public_key())) {
                is_there = true;
                continue;
            }
            let bundle = bundle::seal(&statement, signer, options.vouchers.as_ref()).await?;
            let manifest = wrapped(image, &kind, bundle, options.created, &memory)?;
            let root = Root::at(memory.clone(), Descriptor::of(MediaType::OCI_MANIFEST, &manifest)).await?;
            let (subject, platform) = (image.descriptor(), image.platform.clone());
            made.push(Signature { subject, platform, format: Format::Cosign, root, naming: Naming::default() });
        }
    }
    match made.is_empty() && !is_there {
        true => Err(Error::Unsupported("it has no attestations of BuildKit that could be signed".to_owned())),
        false => Ok(made),
    }
}

/// The image that an attestation is about, as the index says and, if it says so, the manifest itself.
fn about<'a>(attestation: &Subject, all: &'a [Subject]) -> Result<&'a Subject, Refusal> {
    let malformed = |why: &str| Refusal::Malformed(format!("the attestation {}: {why}", attestation.digest()));
    let named = attestation.root.descriptor().annotations.get(annotations::DOCKER_REFERENCE_DIGEST);
    let named: Digest =
        named.and_then(|text| text.parse().ok()).ok_or_else(|| malformed("nothing tells what it is about"))?;
    let own = attestation.root.document().as_ref().and_then(Document::subject).map(|subject| subject.digest);
    if own.is_some_and(|own| own != named) {
        return Err(malformed("its index and its manifest tell two things that it is about"));
    }
    let image = all.iter().find(|subject| subject.digest() == named && !subject.root.descriptor().is_attestation());
    image.ok_or_else(|| malformed("what it is about is not in the index"))
}

/// The statement in a layer, if it is one and its type is asked for.
async fn statement(attestation: &Subject, layer: &Descriptor, options: &PromoteOptions) -> Result<Option<Vec<u8>>> {
    if layer.media_type != MediaType::IN_TOTO {
        return Ok(None);
    }
    let types = &options.predicate_types;
    // The annotation is nothing but a hint, which saves reading what is not wanted.
    let hint = layer.annotations.get(annotations::PREDICATE_TYPE);
    if !types.is_empty() && hint.is_some_and(|hint| !types.iter().any(|kind| kind == hint)) {
        return Ok(None);
    }
    if layer.size > LONGEST {
        return Err(Error::Unsupported(format!("a statement of {} bytes is too long", layer.size)));
    }
    Ok(Some(attestation.root.source().read(layer).await?.to_vec()))
}
