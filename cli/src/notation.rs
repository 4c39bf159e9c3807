//! Arguments for signatures of the Notary Project.

use std::path::{Path, PathBuf};

use clap::Args;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use ocikit_sign::{Http, NotationOptions, NotationPlugin, SigningScheme, TimestampAuthority, VerificationPlugin};

use crate::context::Context;
use crate::environment::variable;
use crate::failure::{Failure, Result};
use crate::keys;
use crate::values::key_value;

/// The content of Notary Project envelopes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Notary Project")]
pub(crate) struct NotationArguments {
    /// Use this certificate chain of the key, root last (PEM)
    #[arg(long, value_name = "FILE", group = "certified")]
    certificate_chain: Option<PathBuf>,
    /// Sign with this notation plugin, which has the key and certificates
    ///
    /// The name of an installed plugin, or the path of its program.
    #[arg(long, value_name = "NAME", group = "certified", requires = "key_id", conflicts_with_all = ["key", "signer_command", "signing_config", "fulcio_url", "rekor_url", "timestamp_server_url", "certificate"])]
    plugin: Option<PathBuf>,
    /// Use this key of the plugin
    #[arg(long, value_name = "ID", requires = "plugin")]
    key_id: Option<String>,
    /// Pass this configuration to the plugin; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value, requires = "plugin")]
    plugin_config: Vec<(String, String)>,
    /// Let the signature expire after this time, such as `24h` or `90d`
    #[arg(long, value_name = "DURATION", requires = "certified")]
    expiry: Option<Span>,
    /// Add this metadata to the signature; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value, requires = "certified")]
    user_metadata: Vec<(String, String)>,
    /// Request a timestamp (RFC 3161) from this authority
    ///
    /// The authority is contacted over HTTP and receives the hash of the signature.
    #[arg(long, value_name = "URL", requires_all = ["certified", "timestamp_root_cert"])]
    timestamp_url: Option<String>,
    /// Verify the timestamp with this root certificate (PEM or DER)
    #[arg(long, value_name = "FILE", requires = "timestamp_url")]
    timestamp_root_cert: Option<PathBuf>,
    /// Sign with the scheme `signingAuthority`, whose signing time is trusted
    ///
    /// Verifiers need a trust store of type signingAuthority.
    #[arg(long, requires = "certified", conflicts_with = "timestamp_url")]
    signing_authority: bool,
}

impl NotationArguments {
    /// Returns the flags and whether each is given.
    pub(crate) fn flags(&self) -> impl Iterator<Item = (&'static str, bool)> {
        [
            ("--certificate-chain", self.certificate_chain.is_some()),
            ("--plugin", self.plugin.is_some()),
            ("--key-id", self.key_id.is_some()),
            ("--plugin-config", !self.plugin_config.is_empty()),
            ("--expiry", self.expiry.is_some()),
            ("--user-metadata", !self.user_metadata.is_empty()),
            ("--timestamp-url", self.timestamp_url.is_some()),
            ("--timestamp-root-cert", self.timestamp_root_cert.is_some()),
            ("--signing-authority", self.signing_authority),
        ]
        .into_iter()
    }

    /// Returns the options for envelopes, or `None` without a certificate chain and a plugin, which is an error if the
    /// options are `required`.
    pub(crate) fn options(
        &self,
        context: &Context,
        created: Timestamp,
        required: bool,
    ) -> Result<Option<NotationOptions>> {
        if self.certificate_chain.is_none() && self.plugin.is_none() {
            return match required {
                true => Err(Failure::usage(
                    "cannot sign in a format of the Notary Project: add --certificate-chain or --plugin",
                )),
                false => Ok(None),
            };
        }
        let after = |span: &Span| created.to_zoned(TimeZone::UTC).checked_add(*span);
        let expiry = self.expiry.as_ref().map(after).transpose();
        let expiry = expiry.map_err(|error| Failure::usage(format_args!("--expiry: {error}")))?;
        Ok(Some(
            NotationOptions::default()
                .chain(self.certificate_chain.as_deref().map(keys::chain).transpose()?)
                .expiry(expiry.map(|time| time.timestamp()))
                .metadata(self.user_metadata.iter().cloned().collect())
                .scheme(if self.signing_authority { SigningScheme::SigningAuthority } else { SigningScheme::X509 })
                .authority(self.authority(context)?),
        ))
    }

    /// Returns whether a plugin signs.
    pub(crate) fn has_plugin(&self) -> bool {
        self.plugin.is_some()
    }

    /// Starts the plugin that signs, if one is given.
    pub(crate) async fn plugin(&self) -> Result<Option<NotationPlugin>> {
        let (Some(plugin), Some(key)) = (&self.plugin, &self.key_id) else { return Ok(None) };
        let config = self.plugin_config.iter().cloned().collect();
        Ok(Some(NotationPlugin::open(&program(plugin)?, key, config).await?))
    }

    /// Returns the timestamp authority, if one is given.
    fn authority(&self, context: &Context) -> Result<Option<TimestampAuthority>> {
        let (Some(url), Some(root)) = (&self.timestamp_url, &self.timestamp_root_cert) else { return Ok(None) };
        let http = Http::new(&context.http_options()?)?;
        Ok(Some(TimestampAuthority::new(http, url.clone(), keys::certificates(root)?)))
    }
}

/// Starts the verification plugins.
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

/// Returns the program of a plugin, given its path or the name of an installed plugin.
fn program(plugin: &Path) -> Result<PathBuf> {
    match plugin.to_str().filter(|name| !name.contains('/')) {
        Some(name) => Ok(plugins()?.join(name).join(format!("notation-{name}"))),
        None => Ok(plugin.to_owned()),
    }
}

/// Returns the directory where notation installs plugins.
fn plugins() -> Result<PathBuf> {
    let below = |name: &str, rest: &str| variable(name).map(|directory| PathBuf::from(directory).join(rest));
    let directory = below("NOTATION_LIBEXEC", "")
        .or_else(|| below("NOTATION_CONFIG", ""))
        .or_else(|| below("XDG_CONFIG_HOME", "notation"))
        .or_else(|| below("HOME", ".config/notation"));
    let directory = directory
        .ok_or_else(|| Failure::usage("cannot find plugins of notation: neither HOME nor NOTATION_LIBEXEC is set"))?;
    Ok(directory.join("plugins"))
}
