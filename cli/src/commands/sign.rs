use clap::Args;
use ocikit::{Digest, Location};
use ocikit_sign::SignInput;

use crate::context::Context;
use crate::failure::Result;
use crate::keys::{self, DepthArguments};
use crate::signed::SignOutput;
use crate::signing::{FormatFlag, SigningArguments};

const EXAMPLES: &str = "\
Examples:
  ocikit sign --key ocikit.key ghcr.io/acme/app:1
  ocikit sign --key ocikit.key --recursive app.tar
  ocikit sign --format notation-jws --key signer.key --certificate-chain chain.pem ghcr.io/acme/app:1
  ocikit sign --signing-config signing.json --identity-token token.jwt ghcr.io/acme/app:1";

/// Sign an image, an index or an artifact
///
/// Signs the digest with a key, or without a key with a certificate for an identity (keyless signing). In a registry
/// the signature is stored as a referrer. In an archive or layout it is stored inside and copied by the next push.
/// Prints each signed digest with the digest of its signature.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Sign {
    /// Image, index or artifact to sign
    location: Location,
    #[command(flatten)]
    depth: DepthArguments,
    /// Sign only if the image has this digest
    #[arg(long, value_name = "DIGEST")]
    expect: Option<Digest>,
    /// Record this name in cosign-legacy signatures; default: repository
    #[arg(long, value_name = "NAME")]
    reference: Option<String>,
    /// Print what would be signed without storing anything
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    signing: SigningArguments,
}

impl Sign {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        self.signing.check_flags(&self.own_flags())?;
        let location = context.expand(&self.location);
        let session = context.session(&[&location])?;
        let (by, options) = self.signing.method(context, self.dry_run).await?;
        let options = options
            .depth(self.depth.depth())
            .expect(self.expect)
            .reference(self.reference.clone().unwrap_or_else(|| keys::repository(&location)));
        if self.dry_run {
            let root = session.open(&location).await?;
            let signatures = by.sign(&root, &options).await?;
            return SignOutput::of(&location, &root, &signatures).state(context);
        }
        let signing = session.open_to_sign(&location).await?;
        let signatures = by.sign(signing.root(), &options).await?;
        let signed = signing.store(signatures).await?;
        SignOutput::of(&location, &signed.root, &signed.signatures).state(context)
    }

    /// Returns the flags of this command that apply to some formats only.
    fn own_flags(&self) -> [FormatFlag; 1] {
        [("--reference", SignInput::Reference, self.reference.is_some())]
    }
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;

    /// The flags that apply to every format.
    const FOR_ALL: [&str; 11] = [
        "--key",
        "--signer-command",
        "--key-password-file",
        "--format",
        "--recursive",
        "--attestation-manifests",
        "--images-only",
        "--expect",
        "--dry-run",
        "--help",
        "--version",
    ];

    #[test]
    fn every_flag_is_for_all_formats_or_listed_formats() {
        let command = Sign::augment_args(clap::Command::new("sign"));
        let sign = Sign::from_arg_matches(&command.clone().get_matches_from(["sign", "a.tar"])).unwrap();
        let own = sign.own_flags();
        let listed: Vec<_> =
            own.into_iter().chain(sign.signing.signers.flags_of_formats()).map(|(flag, ..)| flag).collect();
        // `--rekor-version` has a default, and requires `--rekor-url`.
        for argument in command.get_arguments().filter_map(clap::Arg::get_long).filter(|name| *name != "rekor-version")
        {
            let flag = format!("--{argument}");
            assert!(listed.contains(&&*flag) != FOR_ALL.contains(&&*flag), "{flag} is in one of the two lists");
        }
        for flag in listed {
            assert!(command.get_arguments().any(|found| found.get_long() == flag.strip_prefix("--")), "{flag} exists");
        }
    }
}
