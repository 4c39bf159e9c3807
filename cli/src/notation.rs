//! What the formats of the Notary Project need on the command line.

use std::path::PathBuf;

use clap::Args;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use ocikit::Annotations;
use ocikit_sign::{Http, NotationOptions, SigningScheme, TimestampAuthority};

use crate::commands::annotate::key_value;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::keys;

/// What goes into envelopes of the Notary Project.
#[derive(Debug, Args)]
#[command(next_help_heading = "Notary Project")]
pub(crate) struct NotationArguments {
    /// The certificate of the key and those that lead from it to a root (PEM)
    #[arg(long, value_name = "FILE")]
    certificate_chain: Option<PathBuf>,
    /// How long the signature is to be trusted, as `24h` or `90d`
    #[arg(long, value_name = "DURATION", requires = "certificate_chain")]
    expiry: Option<Span>,
    /// What is signed along; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value, requires = "certificate_chain")]
    user_metadata: Vec<(String, String)>,
    /// An authority that is asked over HTTP when it was signed (RFC 3161). It learns the hash of the signature
    #[arg(long, value_name = "URL", requires_all = ["certificate_chain", "timestamp_root_cert"])]
    timestamp_url: Option<String>,
    /// The root to which the certificate of that authority leads (PEM or DER)
    #[arg(long, value_name = "FILE", requires = "timestamp_url")]
    timestamp_root_cert: Option<PathBuf>,
    /// Sign as a service that is believed the time, which a trust store of type signingAuthority has to trust
    #[arg(long, requires = "certificate_chain", conflicts_with = "timestamp_url")]
    signing_authority: bool,
}

impl NotationArguments {
    /// What was asked for, which has to be there if it is `wanted`.
    pub(crate) fn options(
        &self,
        context: &Context,
        created: Timestamp,
        wanted: bool,
    ) -> Result<Option<NotationOptions>> {
        let Some(path) = &self.certificate_chain else {
            return match wanted {
                true => Err(Failure::usage("signatures of the Notary Project need --certificate-chain")),
                false => Ok(None),
            };
        };
        let after = |span: &Span| created.to_zoned(TimeZone::UTC).checked_add(*span);
        let expiry = self.expiry.as_ref().map(after).transpose();
        let expiry = expiry.map_err(|error| Failure::usage(format_args!("--expiry: {error}")))?;
        let mut metadata = Annotations::new();
        for (key, value) in &self.user_metadata {
            metadata.insert(key, value);
        }
        Ok(Some(NotationOptions {
            chain: keys::chain(path)?,
            expiry: expiry.map(|time| time.timestamp()),
            metadata,
            scheme: if self.signing_authority { SigningScheme::SigningAuthority } else { SigningScheme::X509 },
            authority: self.authority(context)?,
        }))
    }

    /// Who is asked for the time.
    fn authority(&self, context: &Context) -> Result<Option<TimestampAuthority>> {
        let (Some(url), Some(root)) = (&self.timestamp_url, &self.timestamp_root_cert) else { return Ok(None) };
        let http = Http::new(&context.http_options()?)?;
        Ok(Some(TimestampAuthority::new(http, url.clone(), keys::certificates(root)?)))
    }
}
