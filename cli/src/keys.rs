//! Keys and their passwords: where they are read from, and how they are written.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use ocikit::Location;
use ocikit_sign::{
    Certificate, Chain, CommandSigner, Depth, Format, KmsSigner, PrivateKey, PublicKey, RevocationList, Signer,
    TrustPolicy, TrustStore,
};
use zeroize::Zeroizing;

use crate::context::variable;
use crate::failure::{Failure, Result};
use crate::file;

/// The forms of signatures on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatName {
    /// A sigstore bundle as a referrer, as cosign 3 writes it
    Cosign,
    /// Simple signing under the tag sha256-….sig, as cosign wrote it before
    CosignLegacy,
    /// A JWS envelope of the Notary Project
    NotationJws,
    /// A COSE envelope of the Notary Project
    NotationCose,
}

impl FormatName {
    pub(crate) fn format(self) -> Format {
        match self {
            FormatName::Cosign => Format::Cosign,
            FormatName::CosignLegacy => Format::CosignLegacy,
            FormatName::NotationJws => Format::NotationJws,
            FormatName::NotationCose => Format::NotationCose,
        }
    }
}

/// What of an image is meant.
#[derive(Debug, Args)]
pub(crate) struct DepthArguments {
    /// Of an index, every image below it as well
    #[arg(long, short)]
    recursive: bool,
    /// And the attestations that BuildKit put there
    #[arg(long, requires = "recursive")]
    attestations: bool,
    /// But not the indexes themselves
    #[arg(long, requires = "recursive", conflicts_with = "attestations")]
    images_only: bool,
}

impl DepthArguments {
    pub(crate) fn depth(&self) -> Depth {
        match (self.recursive, self.attestations, self.images_only) {
            (false, ..) => Depth::Root,
            (true, false, false) => Depth::Images,
            (true, false, true) => Depth::Leaves,
            (true, true, _) => Depth::Everything,
        }
    }
}

/// Where the password of a key comes from.
#[derive(Debug, Args)]
pub(crate) struct PasswordArguments {
    /// The file with the password of the key; OCIKIT_KEY_PASSWORD, COSIGN_PASSWORD or a question if this is not given
    #[arg(long, value_name = "FILE")]
    key_password_file: Option<PathBuf>,
}

impl PasswordArguments {
    /// The password of a key that is there.
    pub(crate) fn password(&self) -> Result<Zeroizing<String>> {
        match self.given()? {
            Some(password) => Ok(password),
            None => ask("Password of the key: "),
        }
    }

    /// The password of a key that is made, which is asked for twice.
    pub(crate) fn new_password(&self) -> Result<Zeroizing<String>> {
        if let Some(password) = self.given()? {
            return Ok(password);
        }
        let password = ask("Password for the new key: ")?;
        match *password == *ask("The same again: ")? {
            true => Ok(password),
            false => Err(Failure::usage("the two passwords differ")),
        }
    }

    fn given(&self) -> Result<Option<Zeroizing<String>>> {
        if let Some(path) = &self.key_password_file {
            let text = read_secret(path)?;
            let text = std::str::from_utf8(&text).map_err(|_| Failure::usage("the password is not text"))?;
            return Ok(Some(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned())));
        }
        // Set and empty is a password for cosign, and so here.
        let found = ["OCIKIT_KEY_PASSWORD", "COSIGN_PASSWORD"].into_iter().find_map(|name| std::env::var(name).ok());
        Ok(found.map(Zeroizing::new))
    }
}

fn ask(prompt: &str) -> Result<Zeroizing<String>> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage("there is nobody to ask for the password of the key")
            .hint("give --key-password-file, or set OCIKIT_KEY_PASSWORD"));
    }
    let password = rpassword::prompt_password(prompt);
    Ok(Zeroizing::new(password.map_err(|error| Failure::io("read", "from the terminal", &error))?))
}

/// Whoever signs.
#[derive(Debug, Args)]
pub(crate) struct SignerArguments {
    /// The key (PEM): PKCS #8, SEC 1, PKCS #1, or encrypted as cosign does it; with --signer-command the public key; or
    /// NAME://KEY for one that a plugin of cosign keeps, a program sigstore-kms-NAME
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// A program that signs instead: it gets what is to be signed on standard input and writes the signature, as bytes or in
    /// base64. Words are separated by spaces
    #[arg(long, value_name = "COMMAND", requires = "key")]
    signer_command: Option<String>,
    #[command(flatten)]
    password: PasswordArguments,
}

impl SignerArguments {
    /// Whoever has the key, if there is one.
    pub(crate) async fn signer(&self) -> Result<Option<Arc<dyn Signer>>> {
        let Some(key) = &self.key else { return Ok(None) };
        Ok(Some(match (&self.signer_command, key.to_str().filter(|text| KmsSigner::is_reference(text))) {
            (Some(line), _) => Arc::new(CommandSigner::new(line, public_key(key)?)?),
            (None, Some(reference)) => Arc::new(KmsSigner::open(reference).await?),
            (None, None) => Arc::new(private_key(key, &self.password)?),
        }))
    }
}

/// Reads a private key, asking for its password only if it has one.
fn private_key(path: &Path, password: &PasswordArguments) -> Result<PrivateKey> {
    let text = read_secret(path)?;
    let password = match PrivateKey::is_encrypted(&text) {
        true => Some(password.password()?),
        false => None,
    };
    let key = PrivateKey::from_pem(&text, password.as_ref().map(|password| password.as_bytes()));
    key.map_err(|error| named(path, error))
}

/// Reads a public key.
pub(crate) fn public_key(path: &Path) -> Result<PublicKey> {
    PublicKey::from_pem(&read_secret(path)?).map_err(|error| named(path, error))
}

/// The same, or what a plugin of cosign says it is.
pub(crate) async fn public_key_of(path: &Path) -> Result<PublicKey> {
    match path.to_str().filter(|text| KmsSigner::is_reference(text)) {
        Some(reference) => Ok(KmsSigner::open(reference).await?.public_key().clone()),
        None => public_key(path),
    }
}

/// Reads the certificates of a signer.
pub(crate) fn chain(path: &Path) -> Result<Chain> {
    Chain::new(certificates(path)?).map_err(|error| named(path, error))
}

/// Reads certificates.
pub(crate) fn certificates(path: &Path) -> Result<Vec<Certificate>> {
    Certificate::read_all(&file::read(path)?).map_err(|error| named(path, error))
}

/// Reads lists of revoked certificates, which may be longer than other files.
pub(crate) fn revocation_lists(paths: &[PathBuf]) -> Result<Vec<RevocationList>> {
    const LONGEST: u64 = 16 << 20;
    let mut lists = Vec::new();
    for path in paths {
        let found = RevocationList::read_all(&file::read_at_most(path, LONGEST)?);
        lists.extend(found.map_err(|error| named(path, error))?);
    }
    Ok(lists)
}

/// Reads a trust policy and the stores that it names.
pub(crate) fn trust(path: &Path, store: Option<&Path>) -> Result<(TrustPolicy, TrustStore)> {
    let policy = TrustPolicy::parse(&file::read(path)?).map_err(|error| named(path, error))?;
    let beside = path.parent().unwrap_or(Path::new("")).join("truststore");
    let store = TrustStore::read(store.unwrap_or(&beside), &policy)?;
    Ok((policy, store))
}

/// The same failure with the name of the file.
pub(crate) fn named(path: &Path, error: ocikit_sign::Error) -> Failure {
    let failure = Failure::from(error);
    Failure { message: format!("{}: {}", path.display(), failure.message), ..failure }
}

/// Reads a short file into memory that is wiped.
pub(crate) fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    // Memory that is outgrown is not wiped, so it is taken at once.
    const LONGEST: usize = LONGEST_SECRET;
    let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST + 1));
    file::read_into(path, LONGEST as u64, &mut bytes)?;
    Ok(bytes)
}

/// No key, password or token has as many bytes.
pub(crate) const LONGEST_SECRET: usize = 64 << 10;

/// Writes a file that is not there yet, and that nobody else may read.
pub(crate) fn write_new(path: &Path, text: &str) -> Result {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written =
        options.open(path).and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::usage(format_args!("{} is there already", path.display()))
            .hint("name another with --output, or move it out of the way: a key that is lost is lost"),
        _ => Failure::io("write to", path.display(), &error),
    })
}

/// The time that signatures say they were made at.
pub(crate) fn now(epoch: Option<u64>) -> Result<jiff::Timestamp> {
    match epoch {
        None => Ok(jiff::Timestamp::now()),
        Some(seconds) => {
            let seconds = i64::try_from(seconds).ok();
            let time = seconds.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
            let name = variable("SOURCE_DATE_EPOCH").unwrap_or_default();
            time.ok_or_else(|| Failure::usage(format_args!("SOURCE_DATE_EPOCH is `{name}`, which is no time")))
        }
    }
}

/// The name of a repository in a registry; what lies elsewhere has none.
pub(crate) fn repository(location: &Location) -> String {
    match location {
        Location::Registry(reference) => reference.repository().to_string(),
        _ => String::new(),
    }
}
