use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

use bytes::Bytes;
use jiff::Timestamp;
use ocikit_spec::{Annotations, Descriptor, Digest};

use crate::error::{Error, Result};
use crate::maker::{Maker, Names};
use crate::notation::envelope::{self, Opened, Seal, SigningScheme};
use crate::notation::identity::Identity;
use crate::notation::plugin::Verdict;
use crate::notation::policy::{Action, Level, Statement};
use crate::notation::{TrustPolicy, VerificationPlugin};
use crate::pki::Certificate;
use crate::refusal::Refusal;
use crate::revocation::{self, RevocationList};
use crate::timestamp::{self, Authorities};

/// Certificates by the type and name of their store.
#[derive(Debug, Clone, Default)]
pub struct TrustStore(BTreeMap<(String, String), Vec<Certificate>>);

impl TrustStore {
    /// An empty one.
    pub fn new() -> TrustStore {
        TrustStore::default()
    }

    /// Adds certificates to a store.
    pub fn add(&mut self, kind: &str, name: &str, certificates: Vec<Certificate>) {
        self.0.entry((kind.to_owned(), name.to_owned())).or_default().extend(certificates);
    }

    /// Reads the stores that a policy names from a directory as notation has it, where they are `x509/TYPE/NAME`. It blocks:
    /// the files are few and short.
    ///
    /// # Errors
    ///
    /// [`Error::Policy`] if a store is missing, empty, or holds links or what is no certificate.
    pub fn read(directory: &Path, policy: &TrustPolicy) -> Result<TrustStore> {
        let mut store = TrustStore::new();
        for (kind, name) in policy.stores() {
            if store.0.contains_key(&(kind.to_owned(), name.to_owned())) {
                continue;
            }
            let path = directory.join("x509").join(kind).join(name);
            let certificates = read_directory(&path).map_err(|problem| Error::Policy {
                what: format!("the trust store {kind}:{name} in {}", path.display()),
                problem,
            })?;
            store.add(kind, name, certificates);
        }
        Ok(store)
    }
}

fn read_directory(path: &Path) -> Result<Vec<Certificate>, String> {
    // Certificates are short, and a store is not a place for anything else.
    const LONGEST: u64 = 1 << 20;
    let told = |error: io::Error| error.to_string();
    if fs::symlink_metadata(path).map_err(told)?.is_symlink() {
        return Err("it is a link".to_owned());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(told)? {
        let entry = entry.map_err(told)?;
        let kind = entry.file_type().map_err(told)?;
        if kind.is_dir() {
            continue;
        }
        let name = entry.file_name().display().to_string();
        if !kind.is_file() {
            return Err(format!("{name} is no file"));
        }
        let mut bytes = Vec::new();
        let file = fs::File::open(entry.path()).map_err(told)?;
        file.take(LONGEST).read_to_end(&mut bytes).map_err(told)?;
        found.extend(Certificate::read_all(&bytes).map_err(|error| format!("{name}: {error}"))?);
    }
    if found.is_empty() {
        return Err("it holds no certificates".to_owned());
    }
    Ok(found)
}

/// An envelope that counts.
#[derive(Debug)]
pub(crate) struct Approved {
    /// The digest of the signer's public key.
    pub(crate) by: Digest,
    /// The same, to be told from others.
    pub(crate) maker: Maker,
    /// What failed and is only told.
    pub(crate) told: Vec<Refusal>,
    /// What the signer signed along.
    pub(crate) metadata: Annotations,
}

/// Whom a trust policy trusts in one repository.
#[derive(Debug, Clone)]
pub struct NotationTrust {
    statement: Statement,
    /// Those of the stores that the statement names, by the type of the store.
    certificates: BTreeMap<String, Vec<Certificate>>,
    now: Timestamp,
    lists: Vec<RevocationList>,
    plugins: Vec<VerificationPlugin>,
    /// What they said of envelopes, by the digest of these.
    verdicts: BTreeMap<Digest, Result<Verdict, Refusal>>,
}

impl NotationTrust {
    /// What a policy says of a repository, which is named with its registry, at a time. An image in an archive is in no
    /// repository, and then the name is empty or one that the caller knows.
    ///
    /// # Errors
    ///
    /// [`Error::Policy`] if it says nothing of it, or names a store that is not there.
    pub fn new(policy: &TrustPolicy, store: &TrustStore, scope: &str, now: Timestamp) -> Result<NotationTrust> {
        let statement = policy.statement(scope)?.clone();
        let mut certificates = BTreeMap::<_, Vec<_>>::new();
        for (kind, name) in &statement.stores {
            let found = store.0.get(&(kind.clone(), name.clone())).ok_or_else(|| Error::Policy {
                what: "the trust store".to_owned(),
                problem: format!("it has no {kind}:{name}"),
            })?;
            certificates.entry(kind.clone()).or_default().extend(found.iter().cloned());
        }
        let (lists, plugins, verdicts) = (Vec::new(), Vec::new(), BTreeMap::new());
        Ok(NotationTrust { statement, certificates, now, lists, plugins, verdicts })
    }

    /// The same with lists of revoked certificates: of signers, of authorities, of those for timestamps.
    #[must_use]
    pub fn with_revocation_lists(self, lists: Vec<RevocationList>) -> NotationTrust {
        NotationTrust { lists, ..self }
    }

    /// The same with plugins that are asked about envelopes that ask for them. Others that ask for any do not count.
    #[must_use]
    pub fn with_plugins(self, plugins: Vec<VerificationPlugin>) -> NotationTrust {
        NotationTrust { plugins, ..self }
    }

    /// The same, knowing what plugins say of these envelopes. None is asked about envelopes of strangers.
    pub(crate) async fn informed(&self, envelopes: Vec<(Seal, Bytes)>) -> NotationTrust {
        let mut informed = self.clone();
        for (seal, bytes) in envelopes {
            let Ok(opened) = envelope::open_extended(seal, &bytes) else { continue };
            let Some(extended) = &opened.extended else { continue };
            let Some(plugin) = self.plugins.iter().find(|plugin| plugin.name() == extended.plugin) else { continue };
            if !self.is_in_store(&opened) {
                continue;
            }
            let (identities, revocation) = (&self.statement.identity_texts, self.statement.revocation != Action::Skip);
            let verdict = plugin.verify(&opened, extended, identities, revocation).await;
            informed.verdicts.insert(Digest::sha256_of(&bytes), verdict);
        }
        informed
    }

    /// Whether anybody is asked.
    pub(crate) fn has_plugins(&self) -> bool {
        !self.plugins.is_empty()
    }

    /// The name of the statement.
    pub fn name(&self) -> &str {
        &self.statement.name
    }

    /// How strict the statement is.
    pub fn level(&self) -> Level {
        self.statement.level
    }

    /// Whether a signature counts only if it is by somebody who is trusted. Statements that only audit, or skip, or override
    /// that, say nothing of who signed.
    pub fn names_signers(&self) -> bool {
        self.statement.authenticity == Action::Enforce
    }

    /// Checks an envelope about a subject.
    pub(crate) fn verify(&self, seal: Seal, bytes: &[u8], subject: &Descriptor) -> Result<Approved, Refusal> {
        let opened = envelope::open_extended(seal, bytes)?;
        let verdict = match (&opened.extended, self.verdicts.get(&Digest::sha256_of(bytes))) {
            (None, _) => Verdict::default(),
            (Some(_), Some(verdict)) => verdict.clone()?,
            (Some(_), None) if !self.is_in_store(&opened) => return Err(Refusal::OtherSigner),
            (Some(extended), None) => {
                return Err(Refusal::NotUnderstood(format!("the verification plugin {}", extended.plugin)));
            }
        };
        let metadata = opened.is_about(subject)?;
        let statement = &self.statement;
        let mut told = Vec::new();
        for (action, outcome) in [
            (statement.authenticity, self.authenticity(&opened, verdict.identity)),
            (statement.expiry, self.expiry(&opened)),
            (statement.timestamp, self.timestamp(&opened)),
            (statement.revocation, verdict.revocation.unwrap_or_else(|| self.revocation(&opened))),
        ] {
            match (action, outcome) {
                (_, Ok(())) | (Action::Skip, _) => {}
                (Action::Log, Err(why)) => told.push(why),
                (Action::Enforce, Err(why)) => return Err(why),
            }
        }
        let maker = Maker::of_certificate(opened.chain.leaf(), Names::All)?;
        Ok(Approved { by: opened.chain.public_key().fingerprint(), maker, told, metadata })
    }

    /// The certificates of all stores of a type.
    fn store(&self, kind: &str) -> &[Certificate] {
        self.certificates.get(kind).map_or(&[], Vec::as_slice)
    }

    /// Whether a certificate of its signer is in a store.
    fn is_in_store(&self, opened: &Opened) -> bool {
        let trusted = self.store(opened.said.scheme.store());
        opened.chain.certificates().iter().any(|found| trusted.contains(found))
    }

    /// Whether its signer is one of those who are trusted, by the policy or by the plugin that knows.
    fn authenticity(&self, opened: &Opened, told: Option<Result<(), Refusal>>) -> Result<(), Refusal> {
        if !self.is_in_store(opened) {
            return Err(Refusal::OtherSigner);
        }
        if let Some(told) = told {
            return told;
        }
        let Some(identities) = &self.statement.identities else { return Ok(()) };
        let leaf = Identity::of(opened.chain.leaf().parsed()).map_err(Refusal::Certificates)?;
        match identities.iter().any(|identity| identity.is_part_of(&leaf)) {
            true => Ok(()),
            false => Err(Refusal::OtherSigner),
        }
    }

    fn expiry(&self, opened: &Opened) -> Result<(), Refusal> {
        match opened.said.expiry {
            Some(expiry) if expiry < self.now => Err(Refusal::Expired(expiry.to_string())),
            _ => Ok(()),
        }
    }

    /// Whether the certificates were valid when it was signed. Without a timestamp by somebody who is trusted, nobody knows
    /// when that was but the signer, so they have to be valid now.
    fn timestamp(&self, opened: &Opened) -> Result<(), Refusal> {
        // Whoever is trusted as such an authority is believed the time, and `open` checked it.
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
        envelope::within(&stamp, &opened.chain)?;
        // The level of revocation is that of the signer; an authority that was revoked tells no time.
        revocation::check(&stamp.chain, &self.lists, self.now, None).map_err(|why| Refusal::Timestamp(why.to_string()))
    }

    /// Nothing is asked over a network here, so a certificate that says where one has to ask is one of which nothing is known
    /// unless a list was given.
    fn revocation(&self, opened: &Opened) -> Result<(), Refusal> {
        let signed = (opened.said.scheme == SigningScheme::SigningAuthority).then_some(opened.said.time);
        revocation::check(opened.chain.certificates(), &self.lists, self.now, signed)
    }
}
