//! Reads and writes keys, certificates, passwords and trust policies.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use clap::builder::{PossibleValue, TypedValueParser};
use jiff::Timestamp;
use ocikit::Location;
use ocikit_sign::{
    Certificate, Chain, CommandSigner, Depth, Format, KmsSigner, NotationTrust, PrivateKey, PublicKey, RevocationList,
    Signer, TrustPolicy, TrustStore,
};
use zeroize::Zeroizing;

use crate::environment::variable;
use crate::failure::{Failure, Result};
use crate::file;
use crate::values::one_of;

/// Returns the parser of `--format`, which lists all formats in the help.
pub(crate) fn format_parser() -> impl TypedValueParser<Value = Format> {
    one_of(Format::ALL.map(|format| (PossibleValue::new(format.as_str()).help(format.description()), format)))
}

/// Which manifests of an image to sign or verify.
#[derive(Debug, Args)]
pub(crate) struct DepthArguments {
    /// Include every image of an index
    #[arg(long, short)]
    recursive: bool,
    /// Include the attestation manifests of BuildKit
    #[arg(long, alias = "attestations", requires = "recursive")]
    attestation_manifests: bool,
    /// Leave out the indexes themselves
    #[arg(long, requires = "recursive", conflicts_with = "attestation_manifests")]
    images_only: bool,
}

impl DepthArguments {
    pub(crate) fn depth(&self) -> Depth {
        match (self.recursive, self.attestation_manifests, self.images_only) {
            (false, ..) => Depth::Root,
            (true, false, false) => Depth::Images,
            (true, false, true) => Depth::Leaves,
            (true, true, _) => Depth::Everything,
        }
    }
}

/// The source of the password of a key.
#[derive(Debug, Args)]
pub(crate) struct PasswordArguments {
    /// Read the password of the key from this file
    ///
    /// Without it, the password comes from OCIKIT_KEY_PASSWORD or COSIGN_PASSWORD, or from a prompt.
    #[arg(long, value_name = "FILE")]
    key_password_file: Option<PathBuf>,
}

impl PasswordArguments {
    /// Returns the password of an existing key, from the arguments, the environment or a prompt.
    pub(crate) fn password(&self) -> Result<Zeroizing<String>> {
        self.given()?.map_or_else(|| ask("Password of the key: "), Ok)
    }

    /// Returns the password of a new key. A prompt asks for it twice.
    pub(crate) fn new_password(&self) -> Result<Zeroizing<String>> {
        if let Some(password) = self.given()? {
            return Ok(password);
        }
        let password = ask("Password for the new key: ")?;
        match *password == *ask("Repeat the password: ")? {
            true => Ok(password),
            false => Err(Failure::usage("cannot create the key: the passwords differ")),
        }
    }

    fn given(&self) -> Result<Option<Zeroizing<String>>> {
        if let Some(path) = &self.key_password_file {
            let text = read_secret(path)?;
            let text = std::str::from_utf8(&text)
                .map_err(|_| Failure::usage(format_args!("cannot read {}: it is not UTF-8", path.display())))?;
            return Ok(Some(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned())));
        }
        // As in cosign, a variable that is set to the empty string is an empty password.
        let found = ["OCIKIT_KEY_PASSWORD", "COSIGN_PASSWORD"].into_iter().find_map(|name| std::env::var(name).ok());
        Ok(found.map(Zeroizing::new))
    }
}

fn ask(prompt: &str) -> Result<Zeroizing<String>> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage("cannot ask for the password of the key: standard input is not a terminal")
            .hint("add --key-password-file, or set OCIKIT_KEY_PASSWORD"));
    }
    let password = rpassword::prompt_password(prompt);
    Ok(Zeroizing::new(password.map_err(|error| Failure::io("read", "from the terminal", &error))?))
}

/// The key that signs.
#[derive(Debug, Args)]
pub(crate) struct SignerArguments {
    /// Sign with this private key (PEM)
    ///
    /// Formats: PKCS #8, SEC 1, PKCS #1, or the encrypted format of cosign. With --signer-command, the public key.
    /// NAME://KEY uses the key management plugin sigstore-kms-NAME.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Create signatures with this program instead of the key
    ///
    /// The program receives the bytes to sign on standard input and writes the signature, raw or in base64. Arguments
    /// are separated by spaces.
    #[arg(long, value_name = "COMMAND", requires = "key")]
    signer_command: Option<String>,
    #[command(flatten)]
    password: PasswordArguments,
}

impl SignerArguments {
    /// Returns whether `--key` is given.
    pub(crate) fn is_given(&self) -> bool {
        self.key.is_some()
    }

    /// Returns the signer with the key, or `None` without `--key`.
    pub(crate) async fn signer(&self) -> Result<Option<Arc<dyn Signer>>> {
        let Some(key) = &self.key else { return Ok(None) };
        Ok(Some(match (&self.signer_command, key.to_str().filter(|text| KmsSigner::is_reference(text))) {
            (Some(line), _) => Arc::new(CommandSigner::new(line, public_key(key)?)?),
            (None, Some(reference)) => Arc::new(KmsSigner::open(reference).await?),
            (None, None) => Arc::new(private_key(key, &self.password)?),
        }))
    }
}

/// Reads a private key. The password is needed only if the key is encrypted.
fn private_key(path: &Path, password: &PasswordArguments) -> Result<PrivateKey> {
    let text = read_secret(path)?;
    let password = PrivateKey::is_encrypted(&text).then(|| password.password()).transpose()?;
    let key = PrivateKey::from_pem(&text, password.as_ref().map(|password| password.as_bytes()));
    key.map_err(|error| named(path, error))
}

/// Reads a public key.
pub(crate) fn public_key(path: &Path) -> Result<PublicKey> {
    PublicKey::from_pem(&read_secret(path)?).map_err(|error| named(path, error))
}

/// Reads a public key from a file, or from a key management plugin for NAME://KEY.
pub(crate) async fn public_key_of(path: &Path) -> Result<PublicKey> {
    match path.to_str().filter(|text| KmsSigner::is_reference(text)) {
        Some(reference) => Ok(KmsSigner::open(reference).await?.public_key().clone()),
        None => public_key(path),
    }
}

/// Reads the certificate chain of a signer.
pub(crate) fn chain(path: &Path) -> Result<Chain> {
    Chain::new(certificates(path)?).map_err(|error| named(path, error))
}

/// Reads certificates.
pub(crate) fn certificates(path: &Path) -> Result<Vec<Certificate>> {
    Certificate::read_all(&file::read(path)?).map_err(|error| named(path, error))
}

/// Reads certificate revocation lists.
pub(crate) fn revocation_lists(paths: &[PathBuf]) -> Result<Vec<RevocationList>> {
    // Revocation lists of public authorities exceed the limit for other documents.
    const MAX_REVOCATION_LIST_BYTES: u64 = 16 << 20;
    let mut lists = Vec::new();
    for path in paths {
        let found = RevocationList::read_all(&file::read_at_most(path, MAX_REVOCATION_LIST_BYTES)?);
        lists.extend(found.map_err(|error| named(path, error))?);
    }
    Ok(lists)
}

/// Reads a trust policy of the Notary Project and the trust stores that it names.
pub(crate) fn trust(path: &Path, store: Option<&Path>) -> Result<(TrustPolicy, TrustStore)> {
    let policy = TrustPolicy::parse(&file::read(path)?).map_err(|error| named(path, error))?;
    let beside = path.parent().unwrap_or(Path::new("")).join("truststore");
    let store = TrustStore::read(store.unwrap_or(&beside), &policy)?;
    Ok((policy, store))
}

/// Reads a trust policy with its trust stores, and returns what it trusts for a scope: by default, the repository of a location.
pub(crate) fn notation_trust(
    path: &Path,
    store: Option<&Path>,
    scope: Option<&str>,
    location: &Location,
) -> Result<NotationTrust> {
    let (policy, store) = trust(path, store)?;
    let scope = scope.map_or_else(|| repository(location), str::to_owned);
    // Certificates have to be valid now, so SOURCE_DATE_EPOCH does not apply.
    Ok(NotationTrust::new(&policy, &store, &scope, Timestamp::now())?)
}

/// Turns an error into a failure that names the file.
pub(crate) fn named(path: &Path, error: ocikit_sign::Error) -> Failure {
    Failure::from(error).in_file(path)
}

impl Failure {
    /// Puts the name of a file before the message.
    pub(crate) fn in_file(self, path: &Path) -> Failure {
        Failure { message: format!("{}: {}", path.display(), self.message), ..self }
    }
}

/// Reads a file of at most [`MAX_SECRET_BYTES`] into memory that is wiped when it is dropped.
pub(crate) fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    // A buffer that grows leaves copies in memory that are not wiped, so it gets its full capacity first.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_SECRET_BYTES + 1));
    file::read_into(path, MAX_SECRET_BYTES as u64, &mut bytes)?;
    Ok(bytes)
}

/// The maximum length of a key, a password or a token, in bytes.
pub(crate) const MAX_SECRET_BYTES: usize = 64 << 10;

/// Writes a new file that only its owner may read.
pub(crate) fn write_new(path: &Path, text: &str) -> Result {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written =
        options.open(path).and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Failure::usage(format_args!("cannot write to {}: the file already exists", path.display()))
                .hint("choose another name with `--output`, or move the file away")
        }
        _ => Failure::io("write to", path.display(), &error),
    })
}

/// Returns the creation time for signatures: SOURCE_DATE_EPOCH, or else the current time.
pub(crate) fn now(epoch: Option<u64>) -> Result<Timestamp> {
    let Some(seconds) = epoch else { return Ok(Timestamp::now()) };
    let time = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    let name = variable("SOURCE_DATE_EPOCH").unwrap_or_default();
    time.ok_or_else(|| Failure::usage(format_args!("cannot use SOURCE_DATE_EPOCH: `{name}` is out of range")))
}

/// Returns the name of the repository of a location in a registry, and an empty text for other locations.
pub(crate) fn repository(location: &Location) -> String {
    location.reference().map(|reference| reference.repository().to_string()).unwrap_or_default()
}
