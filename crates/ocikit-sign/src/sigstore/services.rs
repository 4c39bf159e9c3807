//! The services that vouch for a signature: authorities, logs, clocks.

use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use crate::algorithm::Hash;
use crate::error::{Error, Result};
use crate::http::{Http, HttpAnswer};
use crate::key::Scheme;
use crate::pki::Certificate;
use crate::signer::{Signer, checked};
use crate::sigstore::config::LogUrl;
use crate::sigstore::entry::{By, Signed};
use crate::sigstore::identity::Pattern;
use crate::sigstore::trust::{CertificateTrust, Check, Evidence};
use crate::sigstore::{TrustedRoot, submit};
use crate::timestamp;

/// What is put beside signatures so that others trust them who do not know the key, or later.
#[derive(Debug, Clone)]
pub struct Vouchers {
    /// How services are spoken to.
    pub http: Http,
    /// The certificate of the signer, and those that lead from it to a root. None for one who is known by the key.
    pub certificates: Vec<Certificate>,
    /// The logs that get an entry of each signature.
    pub logs: Vec<LogUrl>,
    /// Who says when each signature was made, by their addresses.
    pub timestamps: Vec<String>,
    /// Who is trusted, to check what the services say before it is stored.
    pub root: Option<TrustedRoot>,
    /// The time at which certificates have to be valid if nobody says when they were used.
    pub now: Timestamp,
}

/// Asks an authority of sigstore's kind for a certificate of whom a token names. Returns it and those that lead to a root.
///
/// The token goes nowhere but to this address, and only where nobody can read it on the way.
///
/// # Errors
///
/// [`Error::Unsupported`] if the token is none, or the address has no TLS; [`Error::Service`] if the authority does not answer
/// with a certificate of this key.
pub async fn certify(http: &Http, authority: &str, token: &str, signer: &dyn Signer) -> Result<Vec<Certificate>> {
    if !Http::is_private(authority) {
        return Err(Error::Unsupported(format!("a token is not sent to {authority}, where others can read it")));
    }
    let subject = subject(token)?;
    let scheme = Scheme::of_cosign(signer.public_key().kind());
    let proof = checked(signer, scheme, subject.as_bytes()).await?;
    let question = json!({
        "credentials": {"oidcIdentityToken": token},
        "publicKeyRequest": {
            "publicKey": {"content": signer.public_key().to_pem()},
            "proofOfPossession": STANDARD.encode(proof),
        },
    });
    let url = format!("{}/api/v2/signingCert", authority.trim_end_matches('/'));
    let answer = http.post(&url, JSON, &[], question.to_string().into_bytes(), LONGEST).await?;
    let refuse = |problem: String| Error::Service { place: url.clone(), problem };
    let Certified { embedded, detached } = read(&url, &answer).map_err(|error| match error {
        // One that repeats what it was sent does not make us show it.
        Error::Service { problem, .. } if token.split('.').any(|part| !part.is_empty() && problem.contains(part)) => {
            refuse(format!("it answers with status {}{}", answer.status, answer.times()))
        }
        error => error,
    })?;
    let issued = embedded.or(detached).ok_or_else(|| refuse("it answers without a certificate".to_owned()))?;
    let certificates = Certificate::read_all(issued.chain.certificates.join("\n").as_bytes());
    let certificates = certificates.map_err(|error| refuse(error.to_string()))?;
    let key = certificates.first().map(Certificate::key);
    match key {
        Some(Ok(key)) if key == *signer.public_key() => Ok(certificates),
        _ => Err(refuse("its certificate is of another key".to_owned())),
    }
}

/// Asks GitHub for the token of a workflow that has the permission `id-token: write`: at the address and with the secret
/// that the workflow is given.
///
/// # Errors
///
/// [`Error::Unsupported`] if the address has no TLS; [`Error::Service`] if it does not answer with a token.
pub async fn github_token(http: &Http, url: &str, secret: &str) -> Result<Zeroizing<String>> {
    if !Http::is_private(url) {
        return Err(Error::Unsupported("the address of GitHub's tokens has no TLS".to_owned()));
    }
    let separator = if url.contains('?') { '&' } else { '?' };
    let url = format!("{url}{separator}audience=sigstore");
    let bearer = Zeroizing::new(format!("Bearer {secret}"));
    let answer = http.get(&url, &[("authorization", &bearer), ("accept", JSON)], LONGEST).await?;
    let place = url.split('?').next().unwrap_or_default();
    read::<GitHub>(place, &answer).map(|answer| Zeroizing::new(answer.value))
}

/// Whom a token names, which is what has to be signed to prove that one has the key: the mail address, or the subject.
/// Nothing is checked; that is the authority's business.
fn subject(token: &str) -> Result<String> {
    #[derive(Deserialize)]
    struct Claims {
        sub: String,
        email: Option<String>,
    }
    let refuse = || Error::Unsupported("the identity token is not a JWT with a subject".to_owned());
    let parts: Vec<_> = token.split('.').collect();
    let [_, claims, _] = parts[..] else { return Err(refuse()) };
    let claims = URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).map_err(|_| refuse())?;
    let Claims { sub, email } = serde_json::from_slice(&claims).map_err(|_| refuse())?;
    Ok(email.filter(|email| !email.is_empty()).unwrap_or(sub))
}

impl Vouchers {
    /// For nobody: no services, no certificates.
    pub fn new(http: Http, now: Timestamp) -> Vouchers {
        Vouchers { http, certificates: Vec::new(), logs: Vec::new(), timestamps: Vec::new(), root: None, now }
    }

    /// The certificate of the signer.
    pub(crate) fn leaf(&self) -> Option<&Certificate> {
        self.certificates.first()
    }

    /// Asks every service about a signature. What they say is checked as far as is known who they are.
    pub(crate) async fn vouch(&self, signed: &Signed<'_>, signer: &dyn Signer) -> Result<Evidence> {
        let mut evidence = Evidence { needs_proofs: true, ..Evidence::default() };
        for url in &self.timestamps {
            evidence.timestamps.push(self.stamp(url, signed.signature).await?);
        }
        for log in &self.logs {
            evidence.entries.push(submit::submit(&self.http, log, signed, signer.public_key().kind()).await?);
        }
        self.check(signed, &evidence).map_err(Error::Refused)?;
        Ok(evidence)
    }

    /// An answer of an authority for timestamps.
    async fn stamp(&self, url: &str, signature: &[u8]) -> Result<Vec<u8>> {
        let refuse = |problem: String| Error::Service { place: url.to_owned(), problem };
        let mut nonce = [0; 8];
        rand::fill(&mut nonce).map_err(|_| Error::Signer("the system has no randomness".to_owned()))?;
        // The highest bit would make it one byte longer, and zero in front another way to write it.
        let nonce = u64::from_be_bytes(nonce) >> 1 | 1;
        let question = timestamp::request(Hash::Sha256, signature, nonce, self.root.is_none());
        let question = question.map_err(|error| refuse(error.to_string()))?;
        let answer = self.http.post(url, "application/timestamp-query", &[], question, LONGEST).await?;
        if !(200..300).contains(&answer.status) {
            return Err(refuse(format!("it answers with status {}{}", answer.status, answer.times())));
        }
        let token = timestamp::token(&answer.body).map_err(|why| refuse(why.to_string()))?;
        if let Some(root) = &self.root {
            let stamp = root.stamped(token, signature).map_err(Error::Refused)?;
            if !timestamp::is_answer(&stamp, nonce) {
                return Err(refuse("it answers to another question".to_owned()));
            }
        }
        Ok(answer.body)
    }

    /// Checks what is to be stored as those do who verify it later.
    fn check(&self, signed: &Signed<'_>, evidence: &Evidence) -> Result<(), crate::refusal::Refusal> {
        let Some(root) = &self.root else { return Ok(()) };
        let log = if self.logs.is_empty() { Check::Skipped } else { Check::Required };
        let By::Certificate(leaf) = signed.by else {
            return evidence.entries.iter().try_for_each(|entry| entry.verify(signed, root, true).map(drop));
        };
        let anybody = CertificateTrust {
            name: String::new(),
            identity: Pattern::Any,
            issuer: None,
            root: root.clone(),
            log,
            certificate_log: Check::Skipped,
            now: self.now,
        };
        anybody.check(leaf, signed, evidence).map(drop)
    }
}

/// The body of an answer that says yes.
pub(super) fn read<T: for<'a> Deserialize<'a>>(url: &str, answer: &HttpAnswer) -> Result<T> {
    let refuse = |problem: String| Error::Service { place: url.to_owned(), problem };
    if !(200..300).contains(&answer.status) {
        // Services say in words what they did not like.
        let said = String::from_utf8_lossy(&answer.body);
        let said: String = said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
        let times = answer.times();
        return Err(refuse(format!("it answers with status {}{times}: {}", answer.status, said.trim())));
    }
    serde_json::from_slice(&answer.body).map_err(|error| refuse(format!("its answer is malformed: {error}")))
}

pub(super) const JSON: &str = "application/json";
/// No answer is longer than this many bytes.
pub(super) const LONGEST: usize = 1 << 20;

#[derive(Deserialize)]
struct Certified {
    #[serde(rename = "signedCertificateEmbeddedSct")]
    embedded: Option<Issued>,
    #[serde(rename = "signedCertificateDetachedSct")]
    detached: Option<Issued>,
}

#[derive(Deserialize)]
struct Issued {
    chain: IssuedChain,
}

#[derive(Deserialize)]
struct IssuedChain {
    certificates: Vec<String>,
}

#[derive(Deserialize)]
struct GitHub {
    value: String,
}

#[cfg(test)]
mod tests;
