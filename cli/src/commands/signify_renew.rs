use std::path::PathBuf;

use clap::Args;
use ocikit_publish::signify::{self, RenewOptions};
use serde_json::json;

use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::keys;
use crate::signify::{client_with, failure_of};

const EXAMPLES: &str = "\
Examples:
  ocikit signify renew signify.json
  ocikit signify renew signify.json --days 30";

/// Replace the client certificate in a secret file by a new one
///
/// Gets a token from `tokenURL` with the old certificate, and a certificate for a new key (RSA, 4096 bits) from
/// `certServiceURL`. The file is replaced only after the new certificate was checked.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Renew {
    /// Secret file (JSON) with the old certificate and the addresses
    secret: PathBuf,
    /// Ask for a certificate that is valid for this many days
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    days: u32,
    /// Ask for a certificate by this policy of the authority
    #[arg(long, value_name = "NAME", default_value = "sap-cloud-platform-clients")]
    policy: String,
}

impl Renew {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let old = keys::read_secret(&self.secret)?;
        let refuse = |error| failure_of(error).in_file(&self.secret);
        let http = client_with(context, &self.secret, &old, None)?;
        let mut options = RenewOptions::default();
        (options.days, options.policy) = (self.days, self.policy.clone());
        let renewed = signify::renew(&old, &http, &options, keys::now(context.epoch)?).await.map_err(refuse)?;
        let text = std::str::from_utf8(&renewed).map_err(Failure::usage)?;
        let mut name = self.secret.clone().into_os_string();
        name.push(".new");
        let beside = PathBuf::from(name);
        keys::write_new(&beside, text)?;
        if let Err(error) = std::fs::rename(&beside, &self.secret) {
            // The new file is of no use without its name.
            let _ = std::fs::remove_file(&beside);
            return Err(Failure::io("write to", self.secret.display(), &error));
        }
        let secret = self.secret.display().to_string();
        context.output.result(&json!({ "secret": secret, "renewed": true }), || format!("renewed {secret}"))
    }
}
