use std::path::PathBuf;

use clap::Args;
use ocikit::{Digest, Location, Root};
use ocikit_sign::AttestOptions;

use super::sign::Facts;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::keys::{self, DepthArguments, SignerArguments};
use crate::sigstore::VoucherArguments;

/// Sign a statement about an image: how it was built, what is in it
///
/// The statement is of in-toto, in a bundle as cosign has it, and is stored as `sign` stores signatures. Prints what it is about
/// and the digest of each attestation's manifest.
#[derive(Debug, Args)]
pub(crate) struct Attest {
    /// The image
    location: Location,
    #[command(flatten)]
    signer: SignerArguments,
    /// The type of what is said: slsaprovenance1, spdxjson, cyclonedx, vuln, openvex, custom, or a URI
    #[arg(long = "type", value_name = "TYPE", value_parser = keys::predicate_type)]
    kind: String,
    /// What is said, in JSON and in the form that the type demands
    #[arg(long, value_name = "FILE")]
    predicate: PathBuf,
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
        let predicate = self.read()?;
        let (signer, vouchers) = self.vouchers.signer(&self.signer, context, false).await?;
        let options = AttestOptions {
            predicate_type: self.kind.clone(),
            predicate,
            depth: self.depth.depth(),
            expect: self.expect,
            created: keys::now(context.epoch)?,
            vouchers,
        };
        // The place is held from before the image is read, so that nobody changes it in between.
        let place = session.edit(&location).await?;
        let root = Root::open(place.clone(), &location.name()).await?;
        let made = ocikit_sign::attest(&root, &*signer, &options).await?;
        ocikit_sign::attach(&made, &place, &session.copy_options(Vec::new())).await?;
        Facts::of(&location, &root, &made).state(context)
    }

    fn read(&self) -> Result<serde_json::Value> {
        // A longer one would make a bundle that nobody reads.
        let text = crate::file::read_at_most(&self.predicate, 16 << 20)?;
        let refuse = |error| Failure::usage(format_args!("{} is not JSON: {error}", self.predicate.display()));
        serde_json::from_slice(&text).map_err(refuse)
    }
}
