use std::path::PathBuf;

use clap::Args;
use ocikit::{Digest, Location};
use ocikit_sign::{AttestOptions, PromoteOptions};

use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::keys::{self, DepthArguments, SignerArguments};
use crate::signed::SignOutput;
use crate::sigstore::VerificationMaterialArguments;

const EXAMPLES: &str = "\
Examples:
  ocikit attest --key ocikit.key --type spdxjson --predicate sbom.spdx.json ghcr.io/acme/app:1
  ocikit attest --key ocikit.key --promote app.tar";

/// Sign a statement about an image, such as provenance or an SBOM
///
/// Writes an in-toto statement in a sigstore bundle and stores it in the same way as a signature. With --promote, signs
/// the unsigned attestations of BuildKit. Prints each attested digest with the digest of its attestation.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Attest {
    /// Image, index or artifact
    location: Location,
    #[command(flatten)]
    signer: SignerArguments,
    /// Use this predicate type, a name or a URI
    ///
    /// Names: slsaprovenance1, spdxjson, cyclonedx, vuln, openvex, custom.
    #[arg(long = "type", value_name = "TYPE", value_parser = ocikit_sign::predicate_type, required_unless_present = "promote")]
    kind: Option<String>,
    /// Read the predicate from this JSON file
    #[arg(long, value_name = "FILE", required_unless_present = "promote")]
    predicate: Option<PathBuf>,
    /// Sign the attestations of BuildKit for each image of an index
    ///
    /// Statements are signed byte for byte. With --type, only statements of that type are signed.
    #[arg(long, conflicts_with_all = ["predicate", "recursive"])]
    promote: bool,
    /// Accept statements about this digest from before `annotate`
    ///
    /// Repeatable, with --promote. The statement is signed for the image with its current digest, and records the old
    /// digest.
    #[arg(long, value_name = "DIGEST", requires = "promote")]
    annotated_from: Vec<Digest>,
    #[command(flatten)]
    depth: DepthArguments,
    /// Attest only if the image has this digest
    #[arg(long, value_name = "DIGEST")]
    expect: Option<Digest>,
    #[command(flatten)]
    vouchers: VerificationMaterialArguments,
}

impl Attest {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        let session = context.session(&[&location])?;
        let (predicate, created) = (self.predicate()?, keys::now(context.epoch)?);
        let (signer, vouchers) = self.vouchers.signer(&self.signer, context, false).await?;
        let signed = match predicate {
            Some((predicate_type, predicate)) => {
                let (depth, expect) = (self.depth.depth(), self.expect);
                let options = AttestOptions::new(predicate_type, predicate, created)
                    .depth(depth)
                    .expect(expect)
                    .material(vouchers);
                session.attest(&location, &*signer, &options).await?
            }
            None => {
                let predicate_types = self.kind.iter().cloned().collect();
                let (annotated_from, expect) = (self.annotated_from.clone(), self.expect);
                let options = PromoteOptions::new(created)
                    .predicate_types(predicate_types)
                    .annotated_from(annotated_from)
                    .expect(expect)
                    .material(vouchers);
                session.promote(&location, &*signer, &options).await?
            }
        };
        SignOutput::of(&location, &signed.root, &signed.signatures).state(context)
    }

    /// Reads the type and the predicate; `None` for `--promote`.
    fn predicate(&self) -> Result<Option<(String, serde_json::Value)>> {
        let (Some(kind), Some(path)) = (&self.kind, &self.predicate) else { return Ok(None) };
        // Verifiers refuse larger bundles.
        const MAX_PREDICATE_BYTES: u64 = 16 << 20;
        let text = crate::file::read_at_most(path, MAX_PREDICATE_BYTES)?;
        let refuse = |error| Failure::usage(format_args!("cannot read {}: not valid JSON: {error}", path.display()));
        Ok(Some((kind.clone(), serde_json::from_slice(&text).map_err(refuse)?)))
    }
}
