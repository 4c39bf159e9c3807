use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

use jiff::Timestamp;
use ocikit_spec::{Descriptor, Digest};

use crate::error::{Error, PolicyEntry, PolicyFile, Result};
use crate::maker::{Maker, Names};
use crate::notation::attributes::{self, Opened, SigningScheme};
use crate::notation::envelope::{self, EnvelopeFormat};
use crate::notation::identity::DistinguishedName;
use crate::notation::plugin::{PluginVerdict, VerificationPlugin};
use crate::notation::policy::{Action, Level, Statement, TrustPolicy};
use crate::pki::Certificate;
use crate::refusal::Refusal;
use crate::revocation::{self, RevocationList};
use crate::timestamp::{self, Authorities};
use crate::verification::Verification;

/// Certificates by type and name of their trust store.
#[derive(Debug, Clone, Default)]
pub struct TrustStore(BTreeMap<(String, String), Vec<Certificate>>);

impl TrustStore {
    /// Creates a store without certificates.
    pub fn new() -> TrustStore {
        TrustStore::default()
    }

    /// Adds certificates to a trust store.
    pub fn add(&mut self, kind: &str, name: &str, certificates: Vec<Certificate>) {
        self.0.entry((kind.to_owned(), name.to_owned())).or_default().extend(certificates);
    }

    /// Reads the trust stores that a policy uses from notation's directory structure, `x509/TYPE/NAME`. This blocks;
    /// the files are few and short.
    ///
    /// # Errors
    ///
    /// [`Error::Policy`] if a trust store is missing or empty, contains symlinks, or a file that is not a
    /// certificate.
    pub fn read(directory: &Path, policy: &TrustPolicy) -> Result<TrustStore> {
        let mut store = TrustStore::new();
        for (kind, name) in policy.stores() {
            if store.0.contains_key(&(kind.to_owned(), name.to_owned())) {
                continue;
            }
            let file = PolicyFile::TrustStore { kind: kind.to_owned(), name: name.to_owned() };
            store.add(kind, name, read_directory(&directory.join("x509").join(kind).join(name), &file)?);
        }
        Ok(store)
    }
}

fn read_directory(directory: &Path, store: &PolicyFile) -> Result<Vec<Certificate>> {
    // The maximum size of a certificate file, in bytes.
    const MAX_CERTIFICATE_FILE_BYTES: u64 = 1 << 20;
    let refuse = |path: &Path, problem: String| {
        Error::policy(store.clone(), problem).in_entry(PolicyEntry::File(path.to_owned()))
    };
    let unreadable = |error: io::Error| refuse(directory, error.to_string());
    if fs::symlink_metadata(directory).map_err(unreadable)?.is_symlink() {
        return Err(refuse(directory, "it is a symlink".to_owned()));
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let (kind, path) = (entry.file_type().map_err(unreadable)?, entry.path());
        if kind.is_dir() {
            continue;
        }
        if !kind.is_file() {
            return Err(refuse(&path, "it is not a regular file".to_owned()));
        }
        let mut bytes = Vec::new();
        let read = fs::File::open(&path).and_then(|file| file.take(MAX_CERTIFICATE_FILE_BYTES).read_to_end(&mut bytes));
        read.map_err(|error| refuse(&path, error.to_string()))?;
        found.extend(Certificate::read_all(&bytes).map_err(|error| refuse(&path, error.to_string()))?);
    }
    if found.is_empty() {
        return Err(refuse(directory, "it holds no certificates".to_owned()));
    }
    Ok(found)
}

/// The statement of a trust policy for one repository, with its certificates, certificate revocation lists and
/// plugins.
#[derive(Debug, Clone)]
pub struct NotationTrust {
    statement: Statement,
    /// The certificates of the statement's trust stores, by type of store.
    certificates: BTreeMap<String, Vec<Certificate>>,
    now: Timestamp,
    lists: Vec<RevocationList>,
    plugins: Vec<VerificationPlugin>,
    /// Results of plugins, by the digest of the envelope.
    verdicts: BTreeMap<Digest, Result<PluginVerdict, Refusal>>,
}

impl NotationTrust {
    /// Returns the trust that a policy defines for a repository with its registry. For an image outside of a
    /// repository, such as in an archive, `scope` is empty or a name that the caller chooses. `now` is the time at
    /// which certificates must be valid.
    ///
    /// # Errors
    ///
    /// [`Error::Policy`] if the policy has no statement for the repository, or uses a trust store that is missing.
    pub fn new(policy: &TrustPolicy, store: &TrustStore, scope: &str, now: Timestamp) -> Result<NotationTrust> {
        let statement = policy.statement(scope)?.clone();
        let mut certificates = BTreeMap::<_, Vec<_>>::new();
        for (kind, name) in &statement.stores {
            let found = store.0.get(&(kind.clone(), name.clone())).ok_or_else(|| {
                Error::policy(PolicyFile::TrustStore { kind: kind.clone(), name: name.clone() }, "it is missing")
            })?;
            certificates.entry(kind.clone()).or_default().extend(found.iter().cloned());
        }
        let (lists, plugins, verdicts) = (Vec::new(), Vec::new(), BTreeMap::new());
        Ok(NotationTrust { statement, certificates, now, lists, plugins, verdicts })
    }

    /// Adds certificate revocation lists of signers, certificate authorities and timestamp authorities.
    #[must_use]
    pub fn with_revocation_lists(self, lists: Vec<RevocationList>) -> NotationTrust {
        NotationTrust { lists, ..self }
    }

    /// Adds plugins for envelopes that require one. Envelopes that require any other plugin are refused.
    #[must_use]
    pub fn with_plugins(self, plugins: Vec<VerificationPlugin>) -> NotationTrust {
        NotationTrust { plugins, ..self }
    }

    /// Returns a copy with the plugin results for this envelope. Plugins are not started for envelopes of untrusted
    /// signers.
    pub(crate) async fn informed(&self, envelope_format: EnvelopeFormat, bytes: &[u8]) -> NotationTrust {
        let mut informed = self.clone();
        if let Ok(opened) = envelope::open_extended(envelope_format, bytes)
            && let Some(extended) = &opened.extended
            && let Some(plugin) = self.plugins.iter().find(|plugin| plugin.name() == extended.plugin)
            && self.is_in_store(&opened)
        {
            let (identities, revocation) = (&self.statement.identity_texts, self.statement.revocation != Action::Skip);
            let verdict = plugin.verify(&opened, extended, identities, revocation).await;
            informed.verdicts.insert(Digest::sha256_of(bytes), verdict);
        }
        informed
    }

    /// Returns whether there are plugins.
    pub(crate) fn has_plugins(&self) -> bool {
        !self.plugins.is_empty()
    }

    /// Returns the name of the statement.
    pub fn name(&self) -> &str {
        &self.statement.name
    }

    /// Returns the level of the statement.
    pub fn level(&self) -> Level {
        self.statement.level
    }

    /// Returns whether a signature must be by a trusted signer. Statements that only audit, skip verification or
    /// override authenticity do not enforce it.
    pub fn names_signers(&self) -> bool {
        self.statement.authenticity == Action::Enforce
    }

    /// Verifies an envelope about a subject.
    pub(crate) fn verify(
        &self,
        envelope_format: EnvelopeFormat,
        bytes: &[u8],
        subject: &Descriptor,
    ) -> Result<Verification, Refusal> {
        let opened = envelope::open_extended(envelope_format, bytes)?;
        let verdict = match (&opened.extended, self.verdicts.get(&Digest::sha256_of(bytes))) {
            (None, _) => PluginVerdict::default(),
            (Some(_), Some(verdict)) => verdict.clone()?,
            (Some(_), None) if !self.is_in_store(&opened) => return Err(Refusal::OtherSigner),
            (Some(extended), None) => {
                return Err(Refusal::NotUnderstood(format!("the verification plugin {}", extended.plugin)));
            }
        };
        let metadata = opened.is_about(subject)?;
        let statement = &self.statement;
        let mut warnings = Vec::new();
        for (action, outcome) in [
            (statement.authenticity, self.authenticity(&opened, verdict.identity)),
            (statement.expiry, self.expiry(&opened)),
            (statement.timestamp, self.timestamp(&opened)),
            (statement.revocation, verdict.revocation.unwrap_or_else(|| self.revocation(&opened))),
        ] {
            match (action, outcome) {
                (_, Ok(())) | (Action::Skip, _) => {}
                (Action::Log, Err(why)) => warnings.push(why),
                (Action::Enforce, Err(why)) => return Err(why),
            }
        }
        let maker = Maker::of_certificate(opened.chain.leaf(), Names::All)?;
        let by = opened.chain.public_key().fingerprint();
        Ok(Verification { warnings, metadata, ..Verification::new(by, maker) })
    }

    /// Returns the certificates of all trust stores of a type.
    fn store(&self, kind: &str) -> &[Certificate] {
        self.certificates.get(kind).map_or(&[], Vec::as_slice)
    }

    /// Returns whether a certificate of the chain is in a trust store.
    fn is_in_store(&self, opened: &Opened) -> bool {
        let trusted = self.store(opened.said.scheme.store());
        opened.chain.certificates().iter().any(|found| trusted.contains(found))
    }

    /// Checks that the signer is trusted, by the identities of the policy or by the result of the plugin.
    fn authenticity(&self, opened: &Opened, warnings: Option<Result<(), Refusal>>) -> Result<(), Refusal> {
        if !self.is_in_store(opened) {
            return Err(Refusal::OtherSigner);
        }
        if let Some(warnings) = warnings {
            return warnings;
        }
        let Some(identities) = &self.statement.identities else { return Ok(()) };
        let leaf = DistinguishedName::of(opened.chain.leaf().parsed())?;
        if identities.iter().any(|identity| identity.is_part_of(&leaf)) { Ok(()) } else { Err(Refusal::OtherSigner) }
    }

    fn expiry(&self, opened: &Opened) -> Result<(), Refusal> {
        match opened.said.expiry {
            Some(expiry) if expiry < self.now => Err(Refusal::Expired(expiry.to_string())),
            _ => Ok(()),
        }
    }

    /// Checks that the certificates were valid when the envelope was signed. Without a trusted timestamp that time is
    /// unknown, so they must be valid now.
    fn timestamp(&self, opened: &Opened) -> Result<(), Refusal> {
        // A trusted signing authority is trusted for the time, and `open` checked the certificates at that time.
        if opened.said.scheme == SigningScheme::SigningAuthority {
            return Ok(());
        }
        let statement = &self.statement;
        let has_expired = opened.chain.has_expired_at(self.now);
        if !statement.has_timestamp_store() || !(statement.always_timestamp || has_expired) {
            return match opened.chain.invalid_at(self.now) {
                Some(invalid) => Err(Refusal::Certificates(format!("{} is not valid now", invalid.subject()))),
                None => Ok(()),
            };
        }
        let missing = || Refusal::Timestamp("it is missing".to_owned());
        let token = opened.timestamp.as_ref().ok_or_else(missing)?;
        let authorities = Authorities { roots: self.store("tsa"), others: &[] };
        let stamp = timestamp::verify(token, &opened.signature, authorities)?;
        if !stamp.chain.last().is_some_and(Certificate::is_self_signed) {
            return Err(Refusal::Timestamp("its authority is no root".to_owned()));
        }
        attributes::within(&stamp, &opened.chain)?;
        // The revocation level of the statement covers the signer only. A timestamp of a revoked authority is not
        // valid.
        revocation::check(&stamp.chain, &self.lists, self.now, None).map_err(|why| Refusal::Timestamp(why.to_string()))
    }

    /// Checks the certificate revocation lists. OCSP responders and distribution points are not contacted, so a
    /// certificate that names one is of unknown status unless a list was given.
    fn revocation(&self, opened: &Opened) -> Result<(), Refusal> {
        let signed = (opened.said.scheme == SigningScheme::SigningAuthority).then_some(opened.said.time);
        revocation::check(opened.chain.certificates(), &self.lists, self.now, signed)
    }
}

#[cfg(test)]
mod tests;
