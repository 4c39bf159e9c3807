//! Transparency log entries and their proofs: inclusion proofs (RFC 9162) and checkpoints (C2SP).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use ocikit_spec::Digest;
use serde::{Deserialize, Serialize};

use crate::refusal::Refusal;
use crate::sigstore::entry::{self, SignedMessage};
use crate::sigstore::json::{Base64, LogId, Number};
use crate::sigstore::root::{Log, TrustedRoot};

/// A log entry in the JSON format of bundles.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct LogEntry {
    #[serde(default)]
    pub(crate) log_index: Number,
    pub(crate) log_id: LogId,
    pub(crate) kind_version: KindVersion,
    #[serde(default, skip_serializing_if = "Number::is_zero")]
    pub(crate) integrated_time: Number,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) inclusion_promise: Option<InclusionPromise>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) inclusion_proof: Option<InclusionProof>,
    pub(crate) canonicalized_body: Base64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KindVersion {
    pub(crate) kind: String,
    pub(crate) version: String,
}

impl KindVersion {
    pub(crate) fn parts(&self) -> (&str, &str) {
        (&self.kind, &self.version)
    }
}

/// A signed entry timestamp: the signature of a v1 log over an entry and its time.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct InclusionPromise {
    pub(crate) signed_entry_timestamp: Base64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct InclusionProof {
    #[serde(default)]
    pub(crate) log_index: Number,
    pub(crate) root_hash: Base64,
    pub(crate) tree_size: Number,
    /// Empty for the only entry of a log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) hashes: Vec<Base64>,
    pub(crate) checkpoint: CheckpointText,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CheckpointText {
    pub(crate) envelope: String,
}

impl LogEntry {
    /// Returns whether the entry is of a v2 log, which has no time.
    fn is_v2(&self) -> bool {
        self.kind_version.version == "0.0.2" && ["hashedrekord", "dsse"].contains(&self.kind_version.kind.as_str())
    }

    /// Verifies that an entry is about this signature and in a trusted log.
    ///
    /// Returns the time that the log signed, if it signed one, and the log.
    pub(crate) fn verify<'a>(
        &self,
        signed: &SignedMessage<'_>,
        root: &'a TrustedRoot,
        needs_proof: bool,
    ) -> Result<(Option<Timestamp>, &'a Log), Refusal> {
        let log = root.log(&self.log_id.key_id.0).ok_or_else(|| refuse("the log is not trusted"))?;
        entry::check(self.kind_version.parts(), &self.canonicalized_body.0, signed)?;
        match &self.inclusion_proof {
            Some(proof) => self.prove(proof, log).map_err(refuse)?,
            None if needs_proof || self.is_v2() => return Err(refuse("it has no inclusion proof")),
            None => {}
        }
        match (&self.inclusion_promise, self.is_v2()) {
            (Some(promise), false) => Ok((Some(self.promised(promise, log).map_err(refuse)?), log)),
            (None, true) if self.integrated_time.is_zero() => Ok((None, log)),
            (_, true) => Err(refuse("it has a time, which logs of that version do not know")),
            (None, false) if self.inclusion_proof.is_some() => Ok((None, log)),
            (None, false) => Err(refuse("it is not signed by the log")),
        }
    }

    /// Verifies a signed entry timestamp and returns its time.
    fn promised(&self, promise: &InclusionPromise, log: &Log) -> Result<Timestamp, &'static str> {
        // Canonical JSON (RFC 8785) with sorted fields.
        let said = format!(
            r#"{{"body":"{}","integratedTime":{},"logID":"{}","logIndex":{}}}"#,
            STANDARD.encode(&self.canonicalized_body.0),
            self.integrated_time.0,
            hex::encode(&self.log_id.key_id.0),
            self.log_index.0
        );
        if !log.key.verifies_cosign(said.as_bytes(), &promise.signed_entry_timestamp.0) {
            return Err("it is not signed by the log");
        }
        let time = i64::try_from(self.integrated_time.0).ok().and_then(|time| Timestamp::from_second(time).ok());
        let time = time.ok_or("its time is malformed")?;
        if log.valid.holds(time) { Ok(time) } else { Err("the log was not trusted at its time") }
    }

    fn prove(&self, proof: &InclusionProof, log: &Log) -> Result<(), &'static str> {
        let checkpoint = Checkpoint::verify(&proof.checkpoint.envelope, log, self.is_v2())?;
        if checkpoint.size != proof.tree_size.0 || checkpoint.root != proof.root_hash.0 {
            return Err("the proof is of another state of the log than the checkpoint");
        }
        // A v1 log consists of several trees. The index of the entry counts over all of them, that of the proof
        // within one.
        if self.is_v2() && self.log_index != proof.log_index {
            return Err("it has two places in the log");
        }
        let root = root_of(&self.canonicalized_body.0, proof.log_index.0, checkpoint.size, &proof.hashes);
        match root.is_some_and(|root| root.as_bytes() == checkpoint.root) {
            true => Ok(()),
            false => Err("the proof does not lead to the checkpoint"),
        }
    }
}

fn refuse(why: &str) -> Refusal {
    Refusal::Log(why.to_owned())
}

/// Computes the root hash of a tree of this size from an entry, its index and the hashes of an inclusion proof: RFC
/// 9162, 2.1.3.2.
fn root_of(entry: &[u8], index: u64, size: u64, hashes: &[Base64]) -> Option<Digest> {
    let (mut place, mut last) = (index, size.checked_sub(1)?);
    if index > last {
        return None;
    }
    let mut root = Digest::sha256_of(&[&[0], entry].concat());
    for beside in hashes {
        if last == 0 || beside.0.len() != 32 {
            return None;
        }
        if place & 1 == 1 || place == last {
            root = Digest::sha256_of(&[&[1], &beside.0[..], root.as_bytes()].concat());
            while place & 1 == 0 && place != 0 {
                place >>= 1;
                last >>= 1;
            }
        } else {
            root = Digest::sha256_of(&[&[1], root.as_bytes(), &beside.0[..]].concat());
        }
        place >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(root)
}

/// A checkpoint: the size of the log and the root hash of its tree.
struct Checkpoint {
    size: u64,
    root: Vec<u8>,
}

impl Checkpoint {
    /// Parses a signed note and verifies the log's signature. Signatures of witnesses are ignored.
    fn verify(note: &str, log: &Log, is_v2: bool) -> Result<Checkpoint, &'static str> {
        const MALFORMED: &str = "its checkpoint is malformed";
        if note.len() > MAX_CHECKPOINT_BYTES {
            return Err("its checkpoint is too long");
        }
        let (text, signatures) = note.split_once("\n\n").ok_or(MALFORMED)?;
        let signatures = signatures.strip_suffix('\n').ok_or(MALFORMED)?;
        let lines: Vec<_> = text.split('\n').collect();
        let [origin, size, root, ..] = lines[..] else { return Err(MALFORMED) };
        // Rekor v1 appends the tree ID to its name.
        let name = if is_v2 { origin } else { origin.split_once(" - ").map_or(origin, |(name, _)| name) };
        if is_v2 && name != log.host {
            return Err("its checkpoint is of another log");
        }
        let mut is_signed = false;
        for line in signatures.split('\n') {
            let line = line.strip_prefix("— ").ok_or(MALFORMED)?;
            let (signer, signature) = line.split_once(' ').ok_or(MALFORMED)?;
            let signature = STANDARD.decode(signature).map_err(|_| MALFORMED)?;
            let (hint, signature) = signature.split_at_checked(4).ok_or(MALFORMED)?;
            if signer == name && log.hint.starts_with(hint) {
                // The signed text ends with the line before the empty line.
                is_signed |= log.key.verifies_cosign(format!("{text}\n").as_bytes(), signature);
            }
        }
        if !is_signed {
            return Err("its checkpoint is not signed by the log");
        }
        let size = size.parse::<u64>().ok().filter(|number| number.to_string() == size).ok_or(MALFORMED)?;
        let root = STANDARD.decode(root).map_err(|_| MALFORMED)?;
        Ok(Checkpoint { size, root })
    }
}

const MAX_CHECKPOINT_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{KeyKind, PrivateKey, Scheme};

    #[test]
    fn a_checkpoint_is_signed_by_its_log() {
        let [key, other] = [(); 2].map(|()| PrivateKey::generate(KeyKind::P256).unwrap());
        let id = key.public_key().fingerprint().as_bytes().to_vec();
        let log = Log {
            host: "log.example".to_owned(),
            key: key.public_key().clone(),
            hint: id.clone(),
            id: id.clone(),
            valid: Default::default(),
        };
        let root = STANDARD.encode([7; 32]);
        let line = |key: &PrivateKey, name: &str, hint: &[u8], text: &str| {
            let signature = key.sign(Scheme::EcdsaP256Sha256, text.as_bytes()).unwrap();
            format!("— {name} {}\n", STANDARD.encode([&hint[..4], &signature].concat()))
        };
        let signed = |text: &str, name: &str| format!("{text}\n{}", line(&key, name, &id, text));
        let check = |note: &str, is_v2: bool| Checkpoint::verify(note, &log, is_v2).map(|found| found.size);
        let text = format!("log.example\n5\n{root}\n");
        let (right, name) = (signed(&text, "log.example"), "log.example");
        assert_eq!(check(&right, true), Ok(5));
        // Further lines are part of the signed text; further signatures are ignored.
        assert_eq!(check(&signed(&format!("{text}more\n"), name), true), Ok(5));
        let witness = line(&other, "witness.example", &[1; 4], &text);
        assert_eq!(check(&format!("{right}{witness}"), true), Ok(5));
        assert_eq!(check(&format!("{text}\n{witness}{}", line(&key, name, &id, &text)), true), Ok(5));
        let old = format!("log.example - 123\n5\n{root}\n");
        assert_eq!((check(&signed(&old, name), false), check(&right, false)), (Ok(5), Ok(5)));
        for (note, is_v2) in [
            (signed(&old, name), true),
            (signed(&old, "log.example - 123"), false),
            (signed(&format!("other.example\n5\n{root}\n"), "other.example"), true),
            (signed(&text, "other.example"), true),
            (format!("{text}\n{}", line(&other, name, &id, &text)), true),
            (format!("{text}\n{}", line(&key, name, &[1; 4], &text)), true),
            (format!("{text}\n{witness}"), true),
            (right.replace("\n5\n", "\n6\n"), true),
            (right.trim_end().to_owned(), true),
            (format!("{right}\n"), true),
            (format!("{right}no signature\n"), true),
            (signed(&format!("log.example\n05\n{root}\n"), name), true),
            (signed(&format!("log.example\n-5\n{root}\n"), name), true),
            (signed("log.example\n5\n!\n", name), true),
            (signed("log.example\n5\n", name), true),
            (text.clone(), true),
            (String::new(), true),
            ("\n".repeat(MAX_CHECKPOINT_BYTES + 1), true),
        ] {
            assert!(check(&note, is_v2).is_err(), "{note}");
        }
    }

    /// Returns the root hash of the tree over entries (RFC 9162, 2.1.1) and the inclusion proof of one entry.
    fn tree(entries: &[Vec<u8>], index: usize) -> (Vec<u8>, Vec<Base64>) {
        if let [entry] = entries {
            return (Digest::sha256_of(&[&[0], &entry[..]].concat()).as_bytes().to_vec(), Vec::new());
        }
        let half = entries.len().next_power_of_two() / 2;
        let (left, right) = entries.split_at(half);
        let ((left, left_way), (right, right_way)) =
            (tree(left, index.min(half - 1)), tree(right, index.saturating_sub(half)));
        let (mut way, beside) = if index < half { (left_way, &right) } else { (right_way, &left) };
        way.push(Base64(beside.clone()));
        (Digest::sha256_of(&[&[1], &left[..], &right[..]].concat()).as_bytes().to_vec(), way)
    }

    #[test]
    fn every_entry_of_a_tree_leads_to_its_root_and_no_other() {
        for size in 1..=20_usize {
            let entries: Vec<_> = (0..size).map(|number| vec![number as u8; number]).collect();
            for index in 0..size {
                let (root, way) = tree(&entries, index);
                let found = |entry: &[u8], index: usize, size: usize, way: &[Base64]| {
                    root_of(entry, index as u64, size as u64, way).is_some_and(|found| found.as_bytes() == root)
                };
                let entry = &entries[index];
                assert!(found(entry, index, size, &way), "{index} of {size}");
                for other in 0..size + 2 {
                    assert!(other == index || !found(entry, other, size, &way), "{other} for {index} of {size}");
                }
                assert!(!found(b"another", index, size, &way));
                assert!(!found(entry, index, 0, &way));
                for (position, _) in way.iter().enumerate() {
                    let mut changed = way.clone();
                    changed[position].0[5] ^= 1;
                    assert!(!found(entry, index, size, &changed));
                    changed.remove(position);
                    assert!(!found(entry, index, size, &changed));
                }
                let more = [&way[..], &[Base64(vec![0; 32])]].concat();
                assert!(!found(entry, index, size, &more));
            }
        }
        assert!(root_of(b"", u64::MAX, u64::MAX, &[]).is_none());
        assert!(root_of(b"", 0, u64::MAX, &vec![Base64(vec![0; 32]); 100]).is_none());
    }
}
