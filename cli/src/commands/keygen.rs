use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ocikit_sign::{KeyKind, PrivateKey};
use serde::Serialize;

use crate::context::Context;
use crate::failure::Result;
use crate::keys::{self, PasswordArguments};
use crate::output::Lines;

/// Make a pair of keys to sign with
///
/// The private key is written in the encrypted form of cosign, which cosign reads, and only its owner may read it; the public
/// key is beside it. Files that are there are not overwritten.
#[derive(Debug, Args)]
pub(crate) struct Keygen {
    /// What the files are called: this and `.key`, this and `.pub`
    #[arg(long, short, value_name = "PREFIX", default_value = "ocikit")]
    output: PathBuf,
    /// The kind of key
    #[arg(long = "type", value_enum, default_value = "p256", value_name = "KIND")]
    kind: Kind,
    /// Write the private key as PKCS #8 without a password
    #[arg(long, conflicts_with = "key_password_file")]
    unencrypted: bool,
    #[command(flatten)]
    password: PasswordArguments,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    P256,
    P384,
    P521,
    Ed25519,
    #[value(name = "rsa-2048")]
    Rsa2048,
    #[value(name = "rsa-3072")]
    Rsa3072,
    #[value(name = "rsa-4096")]
    Rsa4096,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Facts {
    private_key: String,
    public_key: String,
    kind: String,
    fingerprint: ocikit::Digest,
}

impl Keygen {
    pub(crate) fn run(&self, context: &Context) -> Result {
        let password = match self.unencrypted {
            true => None,
            false => Some(self.password.new_password()?),
        };
        let key = PrivateKey::generate(match self.kind {
            Kind::P256 => KeyKind::P256,
            Kind::P384 => KeyKind::P384,
            Kind::P521 => KeyKind::P521,
            Kind::Ed25519 => KeyKind::Ed25519,
            Kind::Rsa2048 => KeyKind::Rsa { bits: 2048 },
            Kind::Rsa3072 => KeyKind::Rsa { bits: 3072 },
            Kind::Rsa4096 => KeyKind::Rsa { bits: 4096 },
        })?;
        let text = match &password {
            Some(password) => key.to_encrypted_pem(password.as_bytes())?,
            None => key.to_pem()?,
        };
        let [private, public] = ["key", "pub"].map(|ending| {
            let mut name = self.output.clone().into_os_string();
            name.push(".");
            name.push(ending);
            PathBuf::from(name)
        });
        keys::write_new(&private, &text)?;
        keys::write_new(&public, &key.public_key().to_pem()).inspect_err(|_| {
            // It was written a moment ago, and is of no use without the other.
            let _ = std::fs::remove_file(&private);
        })?;
        let facts = Facts {
            private_key: private.display().to_string(),
            public_key: public.display().to_string(),
            kind: key.public_key().kind().to_string(),
            fingerprint: key.public_key().fingerprint(),
        };
        context.output.facts(&facts, || [&facts.private_key, &facts.public_key].into_iter().collect::<Lines>())
    }
}
