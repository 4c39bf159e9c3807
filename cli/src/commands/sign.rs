use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;
use ocikit::{Digest, Location, Platform, Root};
use ocikit_sign::{Format, NotationOptions, NotationPlugin, SignInput, SignOptions, Signature, Signer};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::keys::{self, DepthArguments, SignerArguments};
use crate::notation::NotationArguments;
use crate::output::Lines;
use crate::sigstore::VerificationMaterialArguments;

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
    signer: SignerArguments,
    /// Sign in this format; repeatable
    #[arg(long, value_parser = keys::format_parser(), value_name = "FORMAT", default_values = ["cosign"])]
    format: Vec<Format>,
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
    notation: NotationArguments,
    #[command(flatten)]
    vouchers: VerificationMaterialArguments,
}

/// The implementation that signs: a plugin of notation, or a key.
enum SigningMethod {
    Plugin(NotationPlugin),
    Signer(Arc<dyn Signer>),
}

impl SigningMethod {
    async fn sign(&self, root: &Root, options: &SignOptions) -> ocikit_sign::Result<Vec<Signature>> {
        match self {
            SigningMethod::Plugin(plugin) => ocikit_sign::sign_by_plugin(root, plugin, options).await,
            SigningMethod::Signer(signer) => ocikit_sign::sign(root, &**signer, options).await,
        }
    }
}

/// The result of signing or attesting.
#[derive(Serialize)]
pub(crate) struct SignOutput {
    location: String,
    digest: Digest,
    /// For an existing signature that was stored: `signer`, or `subject` if only format and subject were checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    checked: Option<&'static str>,
    signatures: Vec<SignatureOutput>,
}

#[derive(Serialize)]
struct SignatureOutput {
    digest: Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<Platform>,
    format: &'static str,
    signature: Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
}

impl Sign {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        self.check_flags()?;
        let location = context.expand(&self.location);
        let session = context.session(&[&location])?;
        let (by, vouchers) = match self.notation.plugin().await? {
            Some(plugin) => (SigningMethod::Plugin(plugin), None),
            None => {
                let (signer, vouchers) = self.vouchers.signer(&self.signer, context, self.dry_run).await?;
                (SigningMethod::Signer(signer), vouchers)
            }
        };
        let created = keys::now(context.epoch)?;
        let options = SignOptions::new(self.formats(), created)
            .depth(self.depth.depth())
            .expect(self.expect)
            .reference(self.reference.clone().unwrap_or_else(|| keys::repository(&location)))
            .notation(self.notation(context, created)?)
            .material(vouchers);
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

    /// Returns the options for Notary Project envelopes, if any are given.
    fn notation(&self, context: &Context, created: Timestamp) -> Result<Option<NotationOptions>> {
        let is_wanted = self.formats().iter().any(|format| format.uses(SignInput::Notation));
        let options = self.notation.options(context, created, is_wanted)?;
        // A dry run contacts no service.
        Ok(options.map(|mut options| {
            options.authority = options.authority.filter(|_| !self.dry_run);
            options
        }))
    }

    /// Returns the flags that apply to some formats only, with the input of signing that they give, and whether each is
    /// given. All other flags apply to every format.
    fn flags_of_formats(&self) -> impl Iterator<Item = (&'static str, SignInput, bool)> {
        let reference = ("--reference", SignInput::Reference, self.reference.is_some());
        let material = self.vouchers.flags().map(|(flag, is_given)| (flag, SignInput::Material, is_given));
        let notation = self.notation.flags().map(|(flag, is_given)| (flag, SignInput::Notation, is_given));
        [reference].into_iter().chain(material).chain(notation)
    }

    /// Fails for a flag that applies to none of the chosen formats and would be ignored.
    fn check_flags(&self) -> Result {
        let chosen = self.formats();
        for (flag, input, _) in self.flags_of_formats().filter(|(.., is_given)| *is_given) {
            if chosen.iter().any(|format| format.uses(input)) {
                continue;
            }
            let names: Vec<_> = chosen.iter().map(|format| format.as_str()).collect();
            let failure = Failure::usage(format!("{flag} does not apply to the format {}", names.join(" or ")));
            let other = Format::ALL.into_iter().find(|format| format.uses(input));
            let or = other.map(|format| format!(", or add `--format {format}`")).unwrap_or_default();
            return Err(failure.hint(format!("leave out {flag}{or}")));
        }
        Ok(())
    }

    fn formats(&self) -> Vec<Format> {
        let mut formats = self.format.clone();
        formats.sort_unstable();
        formats.dedup();
        formats
    }
}

impl SignOutput {
    pub(crate) fn of(location: &Location, root: &Root, signatures: &[Signature]) -> SignOutput {
        let signatures = signatures.iter().map(SignatureOutput::of).collect();
        SignOutput { location: location.to_string(), digest: root.digest(), checked: None, signatures }
    }

    pub(crate) fn checked(self, checked: &'static str) -> SignOutput {
        SignOutput { checked: Some(checked), ..self }
    }

    pub(crate) fn state(&self, context: &Context) -> Result {
        context.output.result(self, || {
            let line = |made: &SignatureOutput| format!("{} {} {}", made.digest, made.format, made.signature);
            self.signatures.iter().map(line).collect::<Lines>()
        })
    }
}

impl SignatureOutput {
    fn of(made: &Signature) -> SignatureOutput {
        SignatureOutput {
            digest: made.subject.digest,
            platform: made.platform.clone(),
            format: made.format.as_str(),
            signature: made.root.digest(),
            tag: made.naming.tag.as_ref().map(ToString::to_string),
        }
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
        let listed: Vec<_> = sign.flags_of_formats().map(|(flag, ..)| flag).collect();
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
