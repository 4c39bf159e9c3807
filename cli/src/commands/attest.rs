use std::path::PathBuf;

use clap::Args;
use ocikit::{Digest, Location, Root};
use ocikit_sign::{AttestOptions, PromoteOptions};

use super::sign::Facts;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::keys::{self, DepthArguments, SignerArguments};
use crate::sigstore::VoucherArguments;

/// Sign a statement about an image: how it was built, what is in it
///
/// The statement is of in-toto, in a bundle as cosign has it, and is stored as `sign` stores signatures. With --promote the
/// statements are those that BuildKit made and nobody signed. Prints what it is about and the digest of each attestation's
/// manifest.
#[derive(Debug, Args)]
pub(crate) struct Attest {
    /// The image
    location: Location,
    #[command(flatten)]
    signer: SignerArguments,
    /// The type of what is said: slsaprovenance1, spdxjson, cyclonedx, vuln, openvex, custom, or a URI
    #[arg(long = "type", value_name = "TYPE", value_parser = ocikit_sign::predicate_type, required_unless_present = "promote")]
    kind: Option<String>,
    /// What is said, in JSON and in the form that the type demands
    #[arg(long, value_name = "FILE", required_unless_present = "promote")]
    predicate: Option<PathBuf>,
    /// Sign what BuildKit says of each image in an index, byte for byte: all of it, or what is of the type that is given
    #[arg(long, conflicts_with_all = ["predicate", "recursive"])]
    promote: bool,
    /// With --promote, the digest of an image before it was annotated; may be repeated. A statement that names it is signed for
    /// the image as it is now, and records this digest
    #[arg(long, value_name = "DIGEST", requires = "promote")]
    annotated_from: Vec<Digest>,
    #[command(flatten)]
    depth: DepthArguments,
    /// Attest only if it has this digest
    #[arg(long, value_name = "DIGEST")]
    expect: Option<Digest>,
    #[command(flatten)]
    vouchers: VoucherArguments,
}

impl Attest {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        let session = context.session(&[&location])?;
        let (said, created) = (self.said()?, keys::now(context.epoch)?);
        let (signer, vouchers) = self.vouchers.signer(&self.signer, context, false).await?;
        // The place is held from before the image is read, so that nobody changes it in between.
        let place = session.edit(&location).await?;
        let root = Root::open(place.clone(), &location.name()).await?;
        let made = match said {
            Some((predicate_type, predicate)) => {
                let (depth, expect) = (self.depth.depth(), self.expect);
                let options = AttestOptions { predicate_type, predicate, depth, expect, created, material: vouchers };
                ocikit_sign::attest(&root, &*signer, &options).await?
            }
            None => {
                let predicate_types = self.kind.iter().cloned().collect();
                let (annotated_from, expect) = (self.annotated_from.clone(), self.expect);
                let options = PromoteOptions { predicate_types, annotated_from, expect, created, material: vouchers };
                ocikit_sign::promote(&root, &*signer, &options).await?
            }
        };
        ocikit_sign::attach(&made, &place, &session.copy_options(Vec::new())).await?;
        Facts::of(&location, &root, &made).state(context)
    }

    /// The type and the predicate, unless they are BuildKit's.
    fn said(&self) -> Result<Option<(String, serde_json::Value)>> {
        let (Some(kind), Some(path)) = (&self.kind, &self.predicate) else { return Ok(None) };
        // A longer one would make a bundle that nobody reads.
        let text = crate::file::read_at_most(path, 16 << 20)?;
        let refuse = |error| Failure::usage(format_args!("{} is not JSON: {error}", path.display()));
        Ok(Some((kind.clone(), serde_json::from_slice(&text).map_err(refuse)?)))
    }
}
