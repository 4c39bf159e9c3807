use std::path::PathBuf;

use clap::Args;
use ocikit_sign::{KeyKind, PrivateKey};
use serde_json::json;

use crate::context::Context;
use crate::failure::Result;
use crate::keys::{self, PasswordArguments};
use crate::output::Lines;
use crate::values::one_of;

const EXAMPLES: &str = "\
Examples:
  ocikit keygen -o release
  ocikit keygen --type ed25519 --key-password-file password.txt";

/// Create a key pair for signing
///
/// Writes the private key in the encrypted format of cosign, readable by its owner only, and the public key next to it.
/// Existing files are not overwritten. Prints both paths.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Keygen {
    /// Write the keys to PREFIX.key and PREFIX.pub
    #[arg(long, short, value_name = "PREFIX", default_value = "ocikit")]
    output: PathBuf,
    /// Create a key of this type
    #[arg(long = "type", value_parser = one_of(KEY_KINDS), default_value = "p256", value_name = "KIND")]
    kind: KeyKind,
    /// Write the private key as PKCS #8 without a password
    #[arg(long, conflicts_with = "key_password_file")]
    unencrypted: bool,
    #[command(flatten)]
    password: PasswordArguments,
}

/// The names of the types of keys.
const KEY_KINDS: [(&str, KeyKind); 7] = [
    ("p256", KeyKind::P256),
    ("p384", KeyKind::P384),
    ("p521", KeyKind::P521),
    ("ed25519", KeyKind::Ed25519),
    ("rsa-2048", KeyKind::Rsa { bits: 2048 }),
    ("rsa-3072", KeyKind::Rsa { bits: 3072 }),
    ("rsa-4096", KeyKind::Rsa { bits: 4096 }),
];

impl Keygen {
    pub(crate) fn run(&self, context: &Context) -> Result {
        let password = match self.unencrypted {
            true => None,
            false => Some(self.password.new_password()?),
        };
        let key = PrivateKey::generate(self.kind)?;
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
            // The private key was just created, and is useless without its public key.
            let _ = std::fs::remove_file(&private);
        })?;
        let files = [&private, &public].map(|path| path.display().to_string());
        let result = json!({
            "privateKey": files[0],
            "publicKey": files[1],
            "kind": key.public_key().kind().to_string(),
            "fingerprint": key.public_key().fingerprint(),
        });
        context.output.result(&result, || files.iter().collect::<Lines>())
    }
}
