//! What the formats of the Notary Project need on the command line.

use std::path::{Path, PathBuf};

use clap::Args;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use ocikit::Annotations;
use ocikit_sign::{Http, NotationOptions, NotationPlugin, SigningScheme, TimestampAuthority, VerificationPlugin};

use crate::commands::annotate::key_value;
use crate::context::{Context, variable};
use crate::failure::{Failure, Result};
use crate::keys;

/// What goes into envelopes of the Notary Project.
#[derive(Debug, Args)]
#[command(next_help_heading = "Notary Project")]
pub(crate) struct NotationArguments {
    /// The certificate of the key and those that lead from it to a root (PEM)
    #[arg(long, value_name = "FILE", group = "certified")]
    certificate_chain: Option<PathBuf>,
    /// A plugin of notation that signs instead of a key, and has the certificates: the name of one that notation has installed, or
    /// the path of the program
    #[arg(long, value_name = "NAME", group = "certified", requires = "key_id", conflicts_with_all = ["key", "signer_command", "signing_config", "fulcio_url", "rekor_url", "timestamp_server_url", "certificate"])]
    plugin: Option<PathBuf>,
    /// The key of that plugin
    #[arg(long, value_name = "ID", requires = "plugin")]
    key_id: Option<String>,
    /// What that plugin is told besides; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value, requires = "plugin")]
    plugin_config: Vec<(String, String)>,
    /// How long the signature is to be trusted, as `24h` or `90d`
    #[arg(long, value_name = "DURATION", requires = "certified")]
    expiry: Option<Span>,
    /// What is signed along; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value, requires = "certified")]
    user_metadata: Vec<(String, String)>,
    /// An authority that is asked over HTTP when it was signed (RFC 3161). It learns the hash of the signature
    #[arg(long, value_name = "URL", requires_all = ["certified", "timestamp_root_cert"])]
    timestamp_url: Option<String>,
    /// The root to which the certificate of that authority leads (PEM or DER)
    #[arg(long, value_name = "FILE", requires = "timestamp_url")]
    timestamp_root_cert: Option<PathBuf>,
    /// Sign as a service that is believed the time, which a trust store of type signingAuthority has to trust
    #[arg(long, requires = "certified", conflicts_with = "timestamp_url")]
    signing_authority: bool,
}

impl NotationArguments {
    /// The flags that were given.
    pub(crate) fn given(&self) -> Vec<&'static str> {
        let all = [
            ("--certificate-chain", self.certificate_chain.is_some()),
            ("--plugin", self.plugin.is_some()),
            ("--key-id", self.key_id.is_some()),
            ("--plugin-config", !self.plugin_config.is_empty()),
            ("--expiry", self.expiry.is_some()),
            ("--user-metadata", !self.user_metadata.is_empty()),
            ("--timestamp-url", self.timestamp_url.is_some()),
            ("--timestamp-root-cert", self.timestamp_root_cert.is_some()),
            ("--signing-authority", self.signing_authority),
        ];
        all.into_iter().filter(|(_, is_given)| *is_given).map(|(flag, _)| flag).collect()
    }

    /// What was asked for, which has to be there if it is `wanted`.
    pub(crate) fn options(
        &self,
        context: &Context,
        created: Timestamp,
        wanted: bool,
    ) -> Result<Option<NotationOptions>> {
        if self.certificate_chain.is_none() && self.plugin.is_none() {
            return match wanted {
                true => Err(Failure::usage("signatures of the Notary Project need --certificate-chain, or --plugin")),
                false => Ok(None),
            };
        }
        let after = |span: &Span| created.to_zoned(TimeZone::UTC).checked_add(*span);
        let expiry = self.expiry.as_ref().map(after).transpose();
        let expiry = expiry.map_err(|error| Failure::usage(format_args!("--expiry: {error}")))?;
        let mut metadata = Annotations::new();
        for (key, value) in &self.user_metadata {
            metadata.insert(key, value);
        }
        Ok(Some(NotationOptions {
            chain: self.certificate_chain.as_deref().map(keys::chain).transpose()?,
            expiry: expiry.map(|time| time.timestamp()),
            metadata,
            scheme: if self.signing_authority { SigningScheme::SigningAuthority } else { SigningScheme::X509 },
            authority: self.authority(context)?,
        }))
    }

    /// The plugin that signs, if there is one.
    pub(crate) async fn plugin(&self) -> Result<Option<NotationPlugin>> {
        let (Some(plugin), Some(key)) = (&self.plugin, &self.key_id) else { return Ok(None) };
        let config = self.plugin_config.iter().cloned().collect();
        Ok(Some(NotationPlugin::open(&program(plugin)?, key, config).await?))
    }

    /// Who is asked for the time.
    fn authority(&self, context: &Context) -> Result<Option<TimestampAuthority>> {
        let (Some(url), Some(root)) = (&self.timestamp_url, &self.timestamp_root_cert) else { return Ok(None) };
        let http = Http::new(&context.http_options()?)?;
        Ok(Some(TimestampAuthority::new(http, url.clone(), keys::certificates(root)?)))
    }
}

/// The plugins that are asked about signatures.
pub(crate) async fn verification_plugins(
    names: &[PathBuf],
    config: &[(String, String)],
) -> Result<Vec<VerificationPlugin>> {
    let mut plugins = Vec::new();
    for name in names {
        plugins.push(VerificationPlugin::open(&program(name)?, config.iter().cloned().collect()).await?);
    }
    Ok(plugins)
}

/// The program of a plugin, by its path or by its name.
fn program(plugin: &Path) -> Result<PathBuf> {
    match plugin.to_str().filter(|name| !name.contains('/')) {
        Some(name) => Ok(plugins()?.join(name).join(format!("notation-{name}"))),
        None => Ok(plugin.to_owned()),
    }
}

/// Where notation installs plugins.
fn plugins() -> Result<PathBuf> {
    let below = |name: &str, rest: &str| variable(name).map(|directory| PathBuf::from(directory).join(rest));
    let directory = below("NOTATION_LIBEXEC", "")
        .or_else(|| below("NOTATION_CONFIG", ""))
        .or_else(|| below("XDG_CONFIG_HOME", "notation"))
        .or_else(|| below("HOME", ".config/notation"));
    let directory = directory.ok_or_else(|| Failure::usage("there is no HOME, and nothing says where plugins are"))?;
    Ok(directory.join("plugins"))
}
