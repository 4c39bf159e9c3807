//! Who signs, and how: the arguments that `sign`, `publish` and `build` share.

use std::sync::Arc;

use clap::Args;
use ocikit_sign::{Format, SignInput, SignOptions, SigningMethod};

use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::keys::{self, SignerArguments};
use crate::notation::NotationArguments;
use crate::sigstore::VerificationMaterialArguments;

/// Who signs, and in which formats.
#[derive(Debug, Args)]
pub(crate) struct SigningArguments {
    /// Sign in this format; repeatable
    #[arg(long, value_parser = keys::format_parser(), value_name = "FORMAT", default_values = ["cosign"])]
    format: Vec<Format>,
    #[command(flatten)]
    pub(crate) signers: Signers,
}

/// Who signs.
#[derive(Debug, Args)]
pub(crate) struct Signers {
    #[command(flatten)]
    signer: SignerArguments,
    #[command(flatten)]
    notation: NotationArguments,
    #[command(flatten)]
    material: VerificationMaterialArguments,
}

/// A flag that applies to some formats only, with the input of signing that it gives, and whether it is given.
pub(crate) type FormatFlag = (&'static str, SignInput, bool);

impl SigningArguments {
    /// Returns whether a key, keyless signing or a plugin is given.
    pub(crate) fn is_given(&self) -> bool {
        self.signers.is_given()
    }

    /// Returns whether each signer has a certificate that is valid for minutes.
    pub(crate) fn is_keyless(&self) -> bool {
        self.signers.is_keyless()
    }

    /// Returns what signs, and the options. A dry run contacts no service.
    pub(crate) async fn method(&self, context: &Context, dry_run: bool) -> Result<(SigningMethod, SignOptions)> {
        self.signers.method(context, &self.format, dry_run).await
    }

    /// Fails for a flag that applies to none of the chosen formats and would be ignored. `own` are those of the command.
    pub(crate) fn check_flags(&self, own: &[FormatFlag]) -> Result {
        self.signers.check_flags(own, &self.format, "--format")
    }
}

impl Signers {
    /// Returns whether a key, keyless signing or a plugin is given.
    pub(crate) fn is_given(&self) -> bool {
        self.signer.is_given() || self.notation.has_plugin() || self.material.flags().any(|(_, is_given)| is_given)
    }

    /// Returns whether each signer has a certificate that is valid for minutes.
    pub(crate) fn is_keyless(&self) -> bool {
        self.is_given() && !self.signer.is_given() && !self.notation.has_plugin()
    }

    /// Returns what signs, and the options. A dry run contacts no service.
    pub(crate) async fn method(
        &self,
        context: &Context,
        formats: &[Format],
        dry_run: bool,
    ) -> Result<(SigningMethod, SignOptions)> {
        let (by, material) = match self.notation.plugin().await? {
            Some(plugin) => (SigningMethod::Plugin(Arc::new(plugin)), None),
            None => {
                let (signer, material) = self.material.signer(&self.signer, context, dry_run).await?;
                (SigningMethod::Signer(signer), material)
            }
        };
        let (formats, created) = (once(formats), keys::now(context.epoch)?);
        let is_notation = formats.iter().any(|format| format.uses(SignInput::Notation));
        let mut notation = self.notation.options(context, created, is_notation)?;
        if let Some(notation) = notation.as_mut().filter(|_| dry_run) {
            notation.authority = None;
        }
        Ok((by, SignOptions::new(formats, created).material(material).notation(notation)))
    }

    /// Returns the flags that apply to some formats only. All other flags apply to every format.
    pub(crate) fn flags_of_formats(&self) -> impl Iterator<Item = FormatFlag> {
        let material = self.material.flags().map(|(flag, is_given)| (flag, SignInput::Material, is_given));
        let notation = self.notation.flags().map(|(flag, is_given)| (flag, SignInput::Notation, is_given));
        material.chain(notation)
    }

    /// Fails for a flag that applies to none of the formats that another flag chose, and would be ignored. `own` are those of the
    /// command.
    pub(crate) fn check_flags(&self, own: &[FormatFlag], formats: &[Format], choice: &str) -> Result {
        let chosen = once(formats);
        let flags = own.iter().copied().chain(self.flags_of_formats());
        for (flag, input, _) in flags.filter(|(.., is_given)| *is_given) {
            if chosen.iter().any(|format| format.uses(input)) {
                continue;
            }
            let names: Vec<_> = chosen.iter().map(|format| format.as_str()).collect();
            let failure = Failure::usage(format!("{flag} does not apply to the format {}", names.join(" or ")));
            let other = Format::ALL.into_iter().find(|format| format.uses(input));
            let or = other.map(|format| format!(", or add `{choice} {format}`")).unwrap_or_default();
            return Err(failure.hint(format!("leave out {flag}{or}")));
        }
        Ok(())
    }
}

/// Returns each format once.
fn once(formats: &[Format]) -> Vec<Format> {
    let mut formats = formats.to_vec();
    formats.sort_unstable();
    formats.dedup();
    formats
}
